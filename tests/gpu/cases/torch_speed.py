"""How fast PyTorch is: launch-bound and compute-bound programs, graphs, copies, the start."""

import time

from harness import Skip, Timed, case, need, speed

torch = need("torch")
F = torch.nn.functional
if not torch.cuda.is_available():
    raise Skip("torch sees no GPU")

MEGABYTES = 1 << 20


def synchronized(work, times=1, **options):
    """`times` runs of work, and their end on the GPU."""

    def run():
        for _ in range(times):
            work()
        torch.cuda.synchronize()

    return Timed(run, operations=times, **options)


def trained(model, optimizer, loss, times):
    """Training steps without a look at the loss."""

    def step():
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return synchronized(step, times)


@speed(target=1.30)
def relu_loop():
    x = torch.randn(16, device="cuda")
    return synchronized(lambda: x.relu_(), 2000, outputs=lambda: x)


@speed(target=1.30)
def small_mlp_train():
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)).cuda()
    x, y = torch.randn(64, 64).cuda(), torch.randint(0, 10, (64,)).cuda()
    return trained(model, torch.optim.SGD(model.parameters(), 0.01), lambda: F.cross_entropy(model(x), y), 50)


@speed(target=1.30)
def lstm_cell_loop():
    cell = torch.nn.LSTMCell(64, 64).cuda()
    x = torch.randn(8, 64).cuda()

    def work():
        h = c = torch.zeros(8, 64, device="cuda")
        for _ in range(50):
            h, c = cell(x, (h, c))
        return h

    with torch.no_grad():
        expected = work()

    def run():
        with torch.no_grad():
            work()
        torch.cuda.synchronize()

    return Timed(run, operations=50, outputs=lambda: expected)


@speed(target=0.98)
def encoder_layer_train():
    model = torch.nn.TransformerEncoderLayer(512, 8, batch_first=True).cuda()
    x = torch.randn(8, 128, 512).cuda()
    return trained(model, torch.optim.Adam(model.parameters()), lambda: model(x).square().mean(), 10)


@speed(target=0.98, limit_s=240)
def resnet50_b64_train():
    model = need("torchvision").models.resnet50().cuda()
    x, y = torch.randn(64, 3, 224, 224, device="cuda"), torch.randint(0, 1000, (64,), device="cuda")
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    return trained(model, optimizer, lambda: F.cross_entropy(model(x), y), 5)


@speed(target=0.98)
def resnet50_b1_inference():
    model = need("torchvision").models.resnet50().cuda().eval()
    x = torch.randn(1, 3, 224, 224, device="cuda")

    def work():
        with torch.inference_mode():
            model(x)

    return synchronized(work, 10)


@speed(target=0.98, limit_s=240)
def bert_base_b16_train():
    transformers = need("transformers")
    model = transformers.BertForSequenceClassification(transformers.BertConfig()).cuda().train()
    tokens = torch.randint(0, 30_000, (16, 128), device="cuda")
    labels = torch.randint(0, 2, (16,), device="cuda")
    optimizer = torch.optim.AdamW(model.parameters(), 1e-5)
    return trained(model, optimizer, lambda: model(input_ids=tokens, labels=labels).loss, 5)


@speed(target=0.98)
def bert_base_b16_train_bf16():
    transformers = need("transformers")
    model = transformers.BertForSequenceClassification(transformers.BertConfig()).cuda().train()
    tokens = torch.randint(0, 30_000, (16, 128), device="cuda")
    labels = torch.randint(0, 2, (16,), device="cuda")
    optimizer = torch.optim.AdamW(model.parameters(), 1e-5)

    def loss():
        with torch.autocast("cuda", torch.bfloat16):
            return model(input_ids=tokens, labels=labels).loss

    return trained(model, optimizer, loss, 5)


@speed(target=0.98)
def large_matmul_bf16():
    x = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    return synchronized(lambda: x @ x, 10)


@speed(target=0.99)
def graph_replay():
    x = torch.randn(1024, device="cuda")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = x
        for _ in range(100):
            y = y * 1.0001 + 0.0001
    return synchronized(graph.replay, 50, outputs=lambda: y)


@speed(target=0.97)
def pinned_h2d_64mb():
    host, device = copied(64 * MEGABYTES, pinned=True)
    return synchronized(lambda: device.copy_(host, non_blocking=True), 10, outputs=lambda: device)


@speed(target=0.97)
def pinned_d2h_64mb():
    host, device = copied(64 * MEGABYTES, pinned=True)
    return synchronized(lambda: host.copy_(device, non_blocking=True), 10, outputs=lambda: host)


@speed(target=1.30)
def pageable_h2d_64mb():
    host, device = copied(64 * MEGABYTES)
    return synchronized(lambda: device.copy_(host), 4, outputs=lambda: device)


@speed(target=1.30)
def pageable_d2h_64mb():
    host, device = copied(64 * MEGABYTES)
    return synchronized(lambda: host.copy_(device), 4, outputs=lambda: host)


@speed(target=0.90)
def pinned_h2d_4kb():
    host, device = copied(4096, pinned=True)
    return synchronized(lambda: device.copy_(host, non_blocking=True), 500, outputs=lambda: device)


@speed(target=0.90)
def pinned_d2h_4kb():
    host, device = copied(4096, pinned=True)
    return synchronized(lambda: host.copy_(device, non_blocking=True), 500, outputs=lambda: host)


@speed(target=0.90)
def pageable_h2d_4kb():
    host, device = copied(4096)
    return synchronized(lambda: device.copy_(host), 500, outputs=lambda: device)


@speed(target=0.90)
def pageable_d2h_4kb():
    host, device = copied(4096)
    return synchronized(lambda: host.copy_(device), 500, outputs=lambda: host)


def copied(size, pinned=False):
    """Host and device memory of the same numbers. The host's is written: untouched pages are all one page of zeros."""
    host = torch.randint(0, 255, (size,), dtype=torch.uint8)
    if pinned:
        host = host.pin_memory()
    return host, host.cuda()


@speed(target=0.90)
def item_of_each_step():
    x = torch.randn(1000, device="cuda")
    return synchronized(lambda: x.sum().item(), 200)


@speed(target=0.90)
def data_loader_pinned():
    data = torch.utils.data.TensorDataset(torch.randn(2048, 3, 32, 32))
    loader = torch.utils.data.DataLoader(data, batch_size=64, pin_memory=True)

    def work():
        for (x,) in loader:
            x.cuda(non_blocking=True).square_()

    return synchronized(work)


@case(fresh=True)
def a_step_takes_time_at_all():
    # A clock that stands still, or work that nobody does, would make every ratio good.
    start = time.perf_counter()
    x = torch.randn(4096, 4096, device="cuda")
    for _ in range(20):
        y = x @ x
    torch.cuda.synchronize()
    return [time.perf_counter() - start > 0.001, y.isfinite().all()]
