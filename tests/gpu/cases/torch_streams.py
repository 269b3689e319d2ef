"""PyTorch's streams, events, CUDA graphs and threads."""

import threading

from harness import Skip, case, need

torch = need("torch")
F = torch.nn.functional
if not torch.cuda.is_available():
    raise Skip("torch sees no GPU")


@case()
def streams_wait_for_each_other():
    x = torch.randn(1000, 1000).cuda()
    one, other = torch.cuda.Stream(), torch.cuda.Stream(priority=-1)
    one.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(one):
        y = x @ x
        y.record_stream(other)
    other.wait_stream(one)
    with torch.cuda.stream(other):
        z = y @ x
    torch.cuda.current_stream().wait_stream(other)
    return [y, z]


@case()
def many_streams():
    x = torch.arange(1000, device="cuda", dtype=torch.float32)
    streams = [torch.cuda.Stream() for _ in range(40)]
    torch.cuda.synchronize()
    made = []
    for at, stream in enumerate(streams):
        with torch.cuda.stream(stream):
            made.append((x * at + 1).cumsum(0))
    torch.cuda.synchronize()
    return torch.stack(made)


@case()
def events_tell_time_and_order():
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    x = torch.randn(2000, 2000).cuda()
    start.record()
    for _ in range(20):
        x = (x @ x).clamp(-1, 1)
    end.record()
    end.synchronize()
    return [start.elapsed_time(end) > 0, end.query(), start.query()]


@case()
def an_event_is_not_done_before_its_work():
    event = torch.cuda.Event()
    torch.cuda._sleep(500_000_000)
    event.record()
    before = event.query()
    event.synchronize()
    return [before, event.query(), torch.cuda.current_stream().query()]


@case()
def a_thousand_events():
    x = torch.zeros(10, device="cuda")
    events = []
    for _ in range(1000):
        x += 1
        events.append(torch.cuda.Event(enable_timing=True))
        events[-1].record()
    events[-1].synchronize()
    order = all(a.elapsed_time(b) >= 0 for a, b in zip(events, events[1:]))
    return [order, x]


@case()
def threads_with_streams_of_their_own():
    made = [None] * 16

    def work(at):
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            x = torch.full((200, 200), at / 100, device="cuda")
            for _ in range(30):
                x = (x @ x).sin()
            stream.synchronize()
            made[at] = x.cpu()

    threads = [threading.Thread(target=work, args=(at,)) for at in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return made


@case()
def sixty_four_threads_that_copy_and_train():
    made = [None] * 64

    def work(at):
        x = torch.full((64, 32), at / 64)
        w = torch.full((32, 8), 0.01, device="cuda", requires_grad=True)
        for _ in range(5):
            loss = (x.cuda() @ w).square().mean()
            loss.backward()
            with torch.no_grad():
                w -= w.grad
                w.grad = None
        made[at] = w.detach().cpu()

    threads = [threading.Thread(target=work, args=(at,)) for at in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return made


@case()
def a_stream_of_the_drivers():
    import ctypes

    driver, handle = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
    torch.zeros(1, device="cuda")
    code = driver.cuStreamCreate(ctypes.byref(handle), 1)
    with torch.cuda.stream(torch.cuda.ExternalStream(handle.value)):
        x = torch.arange(1000, device="cuda") * 2
    torch.cuda.synchronize()
    return [code, x]


def captured(work, warmups=3):
    """A graph of `work`, after the warm-up that capture asks for; and what work gave in capture."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(warmups):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = work()
    return graph, made


@case()
def graph_replayed_with_other_inputs():
    x = torch.zeros(1000, device="cuda")
    graph, y = captured(lambda: (x * 2 + 1).cumsum(0))
    said = []
    for value in (1.0, 2.0, 3.0):
        x.fill_(value)
        graph.replay()
        said.append(y.clone())
    return said


@case(tolerance=1e-3)
def graph_of_a_training_step():
    model = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)).cuda()
    optimizer = torch.optim.Adam(model.parameters(), capturable=True)
    x, y = torch.randn(64, 32).cuda(), torch.randint(0, 10, (64,)).cuda()

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    graph, loss = captured(step)
    said = []
    for _ in range(10):
        graph.replay()
        said.append(loss.clone())
    return [torch.stack(said), [p.detach() for p in model.parameters()]]


@case()
def graph_with_random_numbers():
    graph, x = captured(lambda: torch.randn(1000, device="cuda"))
    said = []
    for _ in range(3):
        graph.replay()
        said.append(x.clone())
    return said


@case()
def graphs_that_share_a_pool():
    pool = torch.cuda.graph_pool_handle()
    x = torch.ones(1000, device="cuda")
    graphs = []
    for at in range(3):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            y = x * at + 1
        graphs.append((graph, y))
    said = []
    for graph, y in graphs:
        graph.replay()
        said.append(y.clone())
    return said


@case()
def graphed_callables():
    layer = torch.nn.Linear(32, 32).cuda()
    graphed = torch.cuda.make_graphed_callables(layer, (torch.randn(8, 32, device="cuda", requires_grad=True),))
    x = torch.randn(8, 32).cuda()
    return [graphed(x), graphed(x * 2)]


@case()
def graph_of_two_streams():
    x = torch.ones(1000, device="cuda")
    other = torch.cuda.Stream()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = x * 3
        other.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(other):
            z = y + 1
        torch.cuda.current_stream().wait_stream(other)
        out = y + z
    graph.replay()
    return [out]


@case(fresh=True)
def what_capture_forbids():
    graph = torch.cuda.CUDAGraph()
    x = torch.ones(10, device="cuda")
    try:
        with torch.cuda.graph(graph):
            x.sum().item()
    except RuntimeError as error:
        said = [type(error).__name__, str(error).split("\n")[0]]
    else:
        said = ["no error"]
    torch.cuda.synchronize()
    return [said, x.sum()]
