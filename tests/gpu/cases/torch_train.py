"""PyTorch training: autograd, optimizers, AMP, checkpoints, data loaders with pinned memory and workers."""

import io

from harness import Skip, case, need

torch = need("torch")
F = torch.nn.functional
if not torch.cuda.is_available():
    raise Skip("torch sees no GPU")


class Numbers(torch.utils.data.Dataset):
    """Samples that are the same in every process."""

    def __len__(self):
        return 200

    def __getitem__(self, at):
        x = torch.arange(32, dtype=torch.float32) * (at + 1) / 100
        return x.sin(), at % 10


def mlp():
    return torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)).cuda()


def batch():
    return torch.randn(64, 32).cuda(), torch.randint(0, 10, (64,)).cuda()


def trained(model, optimizer, loss, steps=10):
    """The losses of some steps, and the parameters after them."""
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        losses.append(value.detach())
    return {"losses": torch.stack(losses), "parameters": [p.detach() for p in model.parameters()]}


@case()
def mlp_by_sgd():
    model, (x, y) = mlp(), batch()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, nesterov=True)
    return trained(model, optimizer, lambda: F.cross_entropy(model(x), y))


@case()
def mlp_by_adam():
    model, (x, y) = mlp(), batch()
    return trained(model, torch.optim.Adam(model.parameters()), lambda: F.cross_entropy(model(x), y))


@case()
def mlp_by_fused_adamw():
    model, (x, y) = mlp(), batch()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    return trained(model, optimizer, lambda: F.cross_entropy(model(x), y))


@case(tolerance=1e-2)
def cnn():
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1),
        torch.nn.BatchNorm2d(16),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(16, 32, 3),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(32, 10),
    ).cuda()
    x, y = torch.randn(16, 3, 32, 32).cuda(), torch.randint(0, 10, (16,)).cuda()
    return trained(model, torch.optim.SGD(model.parameters(), 0.05), lambda: F.cross_entropy(model(x), y), steps=5)


@case(tolerance=1e-3)
def encoder():
    model = torch.nn.TransformerEncoder(
        torch.nn.TransformerEncoderLayer(64, 4, batch_first=True, dropout=0.0), num_layers=2
    ).cuda()
    x = torch.randn(4, 16, 64).cuda()
    return trained(model, torch.optim.Adam(model.parameters(), 1e-3), lambda: model(x).square().mean(), steps=5)


@case(tolerance=1e-3)
def lstm():
    model = torch.nn.LSTM(16, 32, batch_first=True).cuda()
    x = torch.randn(8, 20, 16).cuda()
    return trained(model, torch.optim.SGD(model.parameters(), 0.1), lambda: model(x)[0].square().mean(), steps=5)


@case(tolerance=1e-2)
def amp_bf16():
    model, (x, y) = mlp(), batch()

    def loss():
        with torch.autocast("cuda", torch.bfloat16):
            return F.cross_entropy(model(x), y)

    return trained(model, torch.optim.AdamW(model.parameters()), loss)


@case(tolerance=1e-2)
def amp_f16_with_scaler():
    model, (x, y) = mlp(), batch()
    optimizer, scaler, losses = torch.optim.SGD(model.parameters(), 0.1), torch.amp.GradScaler("cuda"), []
    for _ in range(5):
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.float16):
            loss = F.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.detach())
    return [torch.stack(losses), scaler.get_scale()]


@case()
def gradients_of_gradients():
    x = torch.randn(100).cuda().requires_grad_()
    (first,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    return [first, second]


@case()
def recomputed_activations():
    model, (x, _) = mlp(), batch()
    x.requires_grad_()
    torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False).square().mean().backward()
    return [x.grad, model[0].weight.grad]


@case()
def clipped_gradients_and_schedule():
    model, (x, y) = mlp(), batch()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    norms = []
    for _ in range(5):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1))
        optimizer.step()
        schedule.step()
    return [torch.stack(norms), model[0].weight]


@case()
def saved_and_loaded():
    model, (x, y) = mlp(), batch()
    optimizer = torch.optim.Adam(model.parameters())
    F.cross_entropy(model(x), y).backward()
    optimizer.step()
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, map_location="cuda", weights_only=True)
    other = mlp()
    other.load_state_dict(state["model"])
    return [other(x), state["optimizer"]["state"][0]["exp_avg"]]


def loaded(**options):
    loader = torch.utils.data.DataLoader(Numbers(), batch_size=32, shuffle=True, **options)
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    losses = []
    for _ in range(2):
        for x, y in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x.cuda(non_blocking=True)), y.cuda(non_blocking=True))
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    return torch.stack(losses)


@case()
def data_loader_pinned():
    return loaded(pin_memory=True)


@case()
def data_loader_with_workers():
    return loaded(num_workers=2)


@case()
def data_loader_pinned_with_workers():
    return loaded(num_workers=2, pin_memory=True, persistent_workers=True, prefetch_factor=2)


@case(limit_s=150)
def data_loader_with_spawned_workers():
    return loaded(num_workers=1, pin_memory=True, multiprocessing_context="spawn")
