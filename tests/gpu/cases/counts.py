"""Replies that a program waits for: the way to the worker and back, counted by libvgpu. Native has none."""

from harness import Figure, Skip, figure, need, replies_of

torch = need("torch")
F = torch.nn.functional
if not torch.cuda.is_available():
    raise Skip("torch sees no GPU")

# libvgpu names each call that waits.
NAMED = {"VGPU_LOG": "2"}


def stepped(model, loss):
    """A training step, after some that make what is made once."""
    optimizer = torch.optim.SGD(model.parameters(), 0.01)

    def step():
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    for _ in range(5):
        step()
    torch.cuda.synchronize()
    return replies_of(step, 10)


@figure(unit="replies a step", most=0, must=True, env=NAMED)
def mlp_train_step():
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)).cuda()
    x, y = torch.randn(64, 64).cuda(), torch.randint(0, 10, (64,)).cuda()
    return stepped(model, lambda: F.cross_entropy(model(x), y))


@figure(unit="replies a step", most=0, must=True, env=NAMED)
def encoder_train_step():
    model = torch.nn.TransformerEncoderLayer(64, 4, batch_first=True).cuda()
    x = torch.randn(4, 16, 64).cuda()
    return stepped(model, lambda: model(x).square().mean())


@figure(unit="replies a step", most=0, must=True, env=NAMED)
def cnn_train_step():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.BatchNorm2d(16), torch.nn.ReLU()).cuda()
    x = torch.randn(4, 3, 32, 32).cuda()
    return stepped(model, lambda: model(x).square().mean())


@figure(unit="replies a step", most=1, must=True, env=NAMED)
def mlp_train_step_with_item():
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)).cuda()
    x, y = torch.randn(64, 64).cuda(), torch.randint(0, 10, (64,)).cuda()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        loss.item()

    for _ in range(5):
        step()
    return replies_of(step, 10)


@figure(unit="replies a replay", most=0, must=True, env=NAMED)
def graph_replay():
    x = torch.randn(1024, device="cuda")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        x.mul_(1.5).add_(1)
    graph.replay()
    torch.cuda.synchronize()
    return replies_of(graph.replay, 20)


@figure(unit="replies a copy", most=0, must=True, env=NAMED)
def pinned_copy_to_the_device():
    host = torch.randn(1024).pin_memory()
    device = host.cuda()
    torch.cuda.synchronize()
    return replies_of(lambda: device.copy_(host, non_blocking=True), 20)


class Block(torch.nn.Module):
    """A layer of a decoder that keeps the keys and values of earlier tokens."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.out = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.wide, self.narrow = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)
        self.kept = None

    def forward(self, x):
        parts = self.qkv(self.norms[0](x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        keys_values = parts[1:] if self.kept is None else torch.cat([self.kept, parts[1:]], dim=3)
        self.kept = keys_values
        seen = F.scaled_dot_product_attention(parts[0], *keys_values)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.narrow(F.gelu(self.wide(self.norms[1](x))))


@figure(unit="replies a token", most=2, must=True, env=NAMED)
def greedy_decoding_by_hand():
    with torch.device("cuda"):
        blocks = [Block(128, 4).half().eval() for _ in range(3)]
        words = torch.nn.Embedding(1000, 128).half()
        token = torch.tensor([[7]])

    def step():
        nonlocal token
        with torch.inference_mode():
            x = words(token)
            for block in blocks:
                x = block(x)
            token = (x[:, -1:] @ words.weight.t()).argmax(2)
        return token.item()

    for _ in range(5):
        step()
    return replies_of(step, 16)


@figure(unit="replies a token", most=2, must=True, env=NAMED, limit_s=180)
def decoded_token():
    transformers = need("transformers")
    with torch.device("cuda"):
        model = transformers.OPTForCausalLM(transformers.OPTConfig(num_hidden_layers=2)).half().eval()
        tokens = torch.randint(10, 5000, (1, 16))
    options = {"do_sample": False, "pad_token_id": 1, "use_cache": True}

    def decode(count):
        with torch.inference_mode():
            model.generate(tokens, max_new_tokens=count, min_new_tokens=count, **options)

    # Of each length: at a new one libraries make kernels, and load them.
    decode(40)
    torch.cuda.synchronize()
    short, long = replies_of(lambda: decode(8)), replies_of(lambda: decode(40))
    if long is None:
        return None
    # Of a token alone: what the first one and the end take is in both.
    return Figure((long - short) / 32, long.detail)
