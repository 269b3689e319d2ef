"""torch.compile: Triton's kernels in Inductor's programs, CUDA graphs of its own."""

from harness import Skip, case, need, speed, Timed

torch = need("torch")
need("triton")
F = torch.nn.functional
if not torch.cuda.is_available():
    raise Skip("torch sees no GPU")


@case(tolerance=1e-6, limit_s=240)
def pointwise_and_reduction():
    f = torch.compile(lambda x: (torch.sin(x) * 2 + x.exp()).softmax(1).sum(0))
    return f(torch.randn(64, 1000).cuda())


@case(tolerance=1e-3, limit_s=300)
def training_step():
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.GELU(), torch.nn.Linear(128, 10)).cuda()
    optimizer = torch.optim.AdamW(model.parameters())
    x, y = torch.randn(32, 64).cuda(), torch.randint(0, 10, (32,)).cuda()
    compiled = torch.compile(model)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = F.cross_entropy(compiled(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return [torch.stack(losses), model[0].weight]


@case(tolerance=1e-4, limit_s=240)
def with_cuda_graphs():
    layer = torch.nn.Linear(64, 64).cuda()
    f = torch.compile(lambda x: F.relu(layer(x)).sum(1), mode="reduce-overhead")
    with torch.no_grad():
        return [f(torch.full((8, 64), value, device="cuda")).clone() for value in (1.0, 2.0, 3.0)]


@case(tolerance=1e-5, limit_s=240)
def shapes_that_change():
    f = torch.compile(lambda x: x.cos().mean(0), dynamic=True)
    return [f(torch.randn(count, 32).cuda()) for count in (8, 9, 33)]


@speed(target=0.98, limit_s=240)
def compiled_mlp_train():
    model = torch.nn.Sequential(*[torch.nn.Linear(256, 256) for _ in range(4)]).cuda()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    x = torch.randn(64, 256).cuda()
    compiled = torch.compile(model)

    def run():
        for _ in range(20):
            optimizer.zero_grad()
            compiled(x).square().mean().backward()
            optimizer.step()
        torch.cuda.synchronize()

    return Timed(run, operations=20)
