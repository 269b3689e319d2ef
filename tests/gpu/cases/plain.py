"""The driver API alone: no framework. Also what the runner itself is tried with, on the software GPU."""

import array
import ctypes
from ctypes import byref, c_int, c_size_t, c_uint, c_uint64, c_ubyte, c_void_p

from harness import Figure, Timed, case, figure, speed, vgpu
from harness.driver import ADD, Driver

COUNT = 10_000


def _added(driver, function, rounds=1):
    a = array.array("I", range(COUNT))
    b = array.array("I", (7 * i for i in range(COUNT)))
    places = [driver.allocate(4 * COUNT) for _ in range(3)]
    driver.write(places[0], a.tobytes())
    driver.write(places[1], b.tobytes())
    for _ in range(rounds):
        driver.launch(function, -(-COUNT // 128), 128, *places, c_uint(COUNT))
    return places


@case()
def vector_add():
    driver = Driver()
    places = _added(driver, driver.function())
    return driver.read(places[2], 4 * COUNT)


@case()
def vector_add_is_right():
    driver = Driver()
    places = _added(driver, driver.function())
    said = array.array("I", driver.read(places[2], 4 * COUNT))
    assert list(said) == [8 * i for i in range(COUNT)], said[:8]
    return "as the CPU's"


@case()
def bytes_copied_and_set():
    driver = Driver()
    place = driver.allocate(1 << 20)
    driver.must("cuMemsetD8_v2", place, c_ubyte(0x5A), c_size_t(1 << 20))
    driver.must("cuMemsetD32_v2", c_uint64(place.value + 4096), c_uint(0xDEADBEEF), c_size_t(1024))
    driver.write(c_uint64(place.value + 100), bytes(range(256)) * 16)
    other = driver.allocate(1 << 20)
    driver.must("cuMemcpyDtoD_v2", other, place, c_size_t(1 << 20))
    return driver.read(other, 1 << 20)


@case()
def work_of_two_streams_in_order_of_an_event():
    driver = Driver()
    function = driver.function()
    first, second, event = c_void_p(), c_void_p(), c_void_p()
    driver.must("cuStreamCreate", byref(first), c_uint(1))
    driver.must("cuStreamCreate", byref(second), c_uint(1))
    driver.must("cuEventCreate", byref(event), c_uint(2))
    places = _added(driver, function)
    driver.synchronize()
    for _ in range(50):
        driver.launch(function, -(-COUNT // 128), 128, places[0], places[2], places[2], c_uint(COUNT), stream=first)
    driver.must("cuEventRecord", event, first)
    driver.must("cuStreamWaitEvent", second, event, c_uint(0))
    driver.launch(function, -(-COUNT // 128), 128, places[2], places[2], places[1], c_uint(COUNT), stream=second)
    driver.must("cuStreamSynchronize", second)
    return driver.read(places[1], 4 * COUNT)


@case()
def refusals_have_the_drivers_codes():
    driver = Driver()
    function = driver.function()
    place = driver.allocate(4096)
    out, handle, number = c_uint64(), c_void_p(), c_int()
    total, free = c_size_t(), c_size_t()
    driver.must("cuMemGetInfo_v2", byref(free), byref(total))
    one = c_uint(1)

    def launched(grid, block, shared):
        return driver.call(
            "cuLaunchKernel", function, c_uint(grid), one, one, c_uint(block), one, one, c_uint(shared), None, None, None
        )

    codes = {
        "nothing allocated": driver.call("cuMemAlloc_v2", byref(out), c_size_t(0)),
        "more than there is": driver.call("cuMemAlloc_v2", byref(out), c_size_t(total.value + (1 << 20))),
        "nowhere to put it": driver.call("cuMemAlloc_v2", None, c_size_t(64)),
        "freed in the middle": driver.call("cuMemFree_v2", c_uint64(place.value + 256)),
        "freed twice": [driver.call("cuMemFree_v2", same) for same in [driver.allocate(64)] * 2],
        "a copy of nothing": driver.call("cuMemcpyHtoD_v2", place, b"x", c_size_t(0)),
        "a set past the end": driver.call("cuMemsetD8_v2", place, c_ubyte(1), c_size_t(1 << 40)),
        "no device 99": driver.call("cuDeviceGet", byref(number), c_int(99)),
        "no attribute 100000": driver.call("cuDeviceGetAttribute", byref(number), c_int(100_000), c_int(0)),
        "no image": driver.call("cuModuleLoadData", byref(handle), b"this is no PTX\0"),
        "broken PTX": driver.call("cuModuleLoadData", byref(handle), b".version 6.4\n.target sm_75\n.visible .entry f( {\0"),
        "no such kernel": driver.call("cuModuleGetFunction", byref(handle), _module(driver), b"nowhere"),
        "no grid": launched(0, 1, 0),
        "a block too large": launched(1, 2048, 0),
        "too much shared memory": launched(1, 1, 1 << 20),
        "flags that nobody knows": driver.call("cuStreamCreate", byref(handle), c_uint(0xFFFF)),
        "an event of unknown flags": driver.call("cuEventCreate", byref(handle), c_uint(0xFFFF)),
    }
    driver.synchronize()
    return codes


def _module(driver):
    module = c_void_p()
    driver.must("cuModuleLoadData", byref(module), ADD)
    return module


@case(fresh=True)
def a_freed_address_is_a_fault_that_stays():
    driver = Driver()
    function = driver.function()
    wild = c_uint64(1 << 45)
    driver.launch(function, 1, 32, wild, wild, wild, c_uint(32))
    out = c_uint64()
    return [
        driver.call("cuCtxSynchronize"),
        driver.call("cuCtxSynchronize"),
        driver.call("cuMemAlloc_v2", byref(out), c_size_t(64)),
    ]


@case(fresh=True)
def a_thousand_streams_and_ten_thousand_events():
    driver = Driver()
    streams, events = [], []
    for _ in range(1000):
        streams.append(c_void_p())
        driver.must("cuStreamCreate", byref(streams[-1]), c_uint(1))
    for at in range(10_000):
        events.append(c_void_p())
        driver.must("cuEventCreate", byref(events[-1]), c_uint(2))
        driver.must("cuEventRecord", events[-1], streams[at % 1000])
    driver.synchronize()
    codes = {driver.call("cuEventQuery", event) for event in events}
    for event in events:
        driver.must("cuEventDestroy_v2", event)
    for stream in streams:
        driver.must("cuStreamDestroy_v2", stream)
    return sorted(codes)


@case(fresh=True)
def names_and_figures_of_the_device():
    driver = Driver()
    name, size = ctypes.create_string_buffer(128), c_size_t()
    driver.must("cuDeviceGetName", name, c_int(128), c_int(0))
    driver.must("cuDeviceTotalMem_v2", byref(size), c_int(0))
    attributes = {}
    value = c_int()
    for number in [*range(1, 14), 16, 18, 31, 32, 36, 37, 38, 39, 40, 41, 75, 76, 81, 82, 95, 97, 106]:
        code = driver.call("cuDeviceGetAttribute", byref(value), c_int(number), c_int(0))
        attributes[number] = value.value if code == 0 else f"code {code}"
    # The UUID, the place on the PCI bus, and what is left of the memory are vgpu's to say; that there is some is not.
    return {"name": name.value.decode(), "memory": size.value > 0, "attributes": attributes}


@speed(target=0.90)
def add_and_read_back():
    driver = Driver()
    function = driver.function()
    places = _added(driver, function)

    def run():
        driver.launch(function, -(-COUNT // 128), 128, *places, c_uint(COUNT))
        driver.read(places[2], 4 * COUNT)

    return Timed(run, outputs=lambda: driver.read(places[2], 4 * COUNT))


@speed(added_s=0.1, fresh=True)
def start_to_first_kernel():
    def run():
        driver = Driver()
        _added(driver, driver.function())
        driver.synchronize()

    return Timed(run, warmups=0)


@figure(unit="replies", most=5)
def replies_up_to_the_first_kernel():
    with vgpu.counted() as waits:
        driver = Driver()
        function = driver.function()
        place = driver.allocate(64)
        driver.launch(function, 1, 1, place, place, place, c_uint(1))
    return None if waits.count is None else Figure(waits.count, waits.calls)


@figure(unit="replies", most=0, must=True)
def replies_of_launches_and_records():
    driver = Driver()
    function = driver.function()
    places = _added(driver, function)
    event = c_void_p()
    driver.must("cuEventCreate", byref(event), c_uint(2))
    driver.synchronize()
    with vgpu.counted() as waits:
        for _ in range(100):
            driver.launch(function, -(-COUNT // 128), 128, *places, c_uint(COUNT))
            driver.must("cuEventRecord", event, None)
    driver.synchronize()
    return None if waits.count is None else Figure(waits.count, waits.calls)
