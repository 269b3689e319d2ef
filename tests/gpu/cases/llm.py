"""Text generation with transformers, eager, batch 1. The models are made from their configurations: no weights are fetched."""

from harness import Skip, Timed, case, need, speed

torch = need("torch")
transformers = need("transformers")
if not torch.cuda.is_available():
    raise Skip("torch sees no GPU")

PROMPT = 32


def opt(size):
    """A model of OPT's shape with random weights, in f16, drawn on the GPU: both sides draw the same."""
    shapes = {
        "125m": {},
        "1.3b": {
            "hidden_size": 2048,
            "word_embed_proj_dim": 2048,
            "ffn_dim": 8192,
            "num_hidden_layers": 24,
            "num_attention_heads": 32,
        },
    }
    torch.manual_seed(1)
    kept = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16)
    try:
        with torch.device("cuda"):
            return transformers.OPTForCausalLM(transformers.OPTConfig(**shapes[size])).eval()
    finally:
        torch.set_default_dtype(kept)


def generated(model, count, **options):
    """`count` tokens after a prompt."""
    torch.manual_seed(2)
    prompt = torch.randint(10, 5000, (1, PROMPT), device="cuda")
    options = {"do_sample": False, "pad_token_id": 1, "use_cache": True, **options}
    with torch.inference_mode():
        return model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=count, min_new_tokens=count, **options)


def decoding(size, count):
    """Tokens, one after the other."""
    model = opt(size)

    def run():
        generated(model, count)
        torch.cuda.synchronize()

    return Timed(run, operations=count, warmups=2, outputs=lambda: generated(model, count))


@case(limit_s=180)
def greedy_125m():
    return generated(opt("125m"), 32)


@case(limit_s=180)
def sampled_125m():
    return generated(opt("125m"), 32, do_sample=True, top_k=50, temperature=0.9)


@case(limit_s=180)
def beams_125m():
    return generated(opt("125m"), 16, num_beams=3)


@case(limit_s=180)
def static_cache_125m():
    return generated(opt("125m"), 16, cache_implementation="static", disable_compile=True)


@case(limit_s=240)
def greedy_1300m():
    return generated(opt("1.3b"), 16)


@speed(target=1.00, limit_s=240)
def decode_125m():
    return decoding("125m", 64)


@speed(target=1.00, limit_s=240)
def decode_1300m():
    return decoding("1.3b", 64)
