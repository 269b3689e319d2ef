// What the driver API costs, by itself: no CUDA headers, no runtime. One line of JSON a figure, in seconds; a figure whose calls
// fail says so and the next one is tried. `quick`: a few rounds, to see that it works.
#include <dlfcn.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

typedef int Result;
typedef uint64_t Address;
typedef void *Handle;

static void *libcuda;
static int rounds = 1; // Divides how often things are done.

template <typename F> static F find(const char *name) {
    void *address = dlsym(libcuda, name);
    if (!address) {
        printf("driver_speed: no %s\n", name);
        exit(1);
    }
    return (F)address;
}

#define CALL(name, ...) static Result (*name)(__VA_ARGS__)
CALL(cuInit, unsigned);
CALL(cuDevicePrimaryCtxRetain, Handle *, int);
CALL(cuCtxSetCurrent, Handle);
CALL(cuCtxGetCurrent, Handle *);
CALL(cuCtxSynchronize, void);
CALL(cuModuleLoadData, Handle *, const void *);
CALL(cuModuleGetFunction, Handle *, Handle, const char *);
CALL(cuMemAlloc_v2, Address *, size_t);
CALL(cuMemHostAlloc, void **, size_t, unsigned);
CALL(cuMemHostGetDevicePointer_v2, Address *, void *, unsigned);
CALL(cuMemcpyHtoD_v2, Address, const void *, size_t);
CALL(cuMemcpyDtoH_v2, void *, Address, size_t);
CALL(cuMemcpyHtoDAsync_v2, Address, const void *, size_t, Handle);
CALL(cuMemcpyDtoHAsync_v2, void *, Address, size_t, Handle);
CALL(cuStreamCreate, Handle *, unsigned);
CALL(cuStreamSynchronize, Handle);
CALL(cuStreamWriteValue32_v2, Handle, Address, uint32_t, unsigned);
CALL(cuEventCreate, Handle *, unsigned);
CALL(cuEventRecord, Handle, Handle);
CALL(cuStreamBeginCapture_v2, Handle, int);
CALL(cuStreamEndCapture, Handle, Handle *);
CALL(cuGraphInstantiateWithFlags, Handle *, Handle, unsigned long long);
CALL(cuGraphLaunch, Handle, Handle);
CALL(cuLaunchKernel, Handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Handle, void **, void **);

static void find_all() {
#define FIND(name) name = find<decltype(name)>(#name)
    FIND(cuInit);
    FIND(cuDevicePrimaryCtxRetain);
    FIND(cuCtxSetCurrent);
    FIND(cuCtxGetCurrent);
    FIND(cuCtxSynchronize);
    FIND(cuModuleLoadData);
    FIND(cuModuleGetFunction);
    FIND(cuMemAlloc_v2);
    FIND(cuMemHostAlloc);
    FIND(cuMemHostGetDevicePointer_v2);
    FIND(cuMemcpyHtoD_v2);
    FIND(cuMemcpyDtoH_v2);
    FIND(cuMemcpyHtoDAsync_v2);
    FIND(cuMemcpyDtoHAsync_v2);
    FIND(cuStreamCreate);
    FIND(cuStreamSynchronize);
    FIND(cuStreamWriteValue32_v2);
    FIND(cuEventCreate);
    FIND(cuEventRecord);
    FIND(cuStreamBeginCapture_v2);
    FIND(cuStreamEndCapture);
    FIND(cuGraphInstantiateWithFlags);
    FIND(cuGraphLaunch);
    FIND(cuLaunchKernel);
}

// 100 bytes of parameters: an address and 23 words. One thread counts.
static const char *PTX = R"(.version 6.4
.target sm_75
.address_size 64
.visible .entry count(.param .u64 place, .param .align 4 .b8 rest[92])
{
    .reg .u64 %p;
    .reg .u64 %g;
    .reg .u32 %v;
    ld.param.u64 %p, [place];
    cvta.to.global.u64 %g, %p;
    ld.global.u32 %v, [%g];
    add.u32 %v, %v, 1;
    st.global.u32 [%g], %v;
    ret;
}
)";

// A call that failed, with its code.
struct Failed {
    const char *call;
    int code;
};

#define MUST(call)                                         \
    do {                                                   \
        Result must_code = (call);                         \
        if (must_code) throw Failed{#call, (int)must_code}; \
    } while (0)

static double now() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static void say(const char *name, double seconds) {
    printf("{\"name\": \"%s\", \"value\": %.10g, \"unit\": \"s\"}\n", name, seconds);
    fflush(stdout);
}

static double at_part(std::vector<double> &values, double part) {
    std::sort(values.begin(), values.end());
    return values[(size_t)(part * (values.size() - 1))];
}

// The median of several batches of `count`, each ended by `end`; one operation's part of it.
template <typename One, typename End> static double each(int count, One one, End end) {
    count = std::max(1, count / rounds);
    std::vector<double> batches;
    for (int batch = 0; batch < (rounds > 1 ? 2 : 7); batch++) {
        double start = now();
        for (int i = 0; i < count; i++) one();
        end();
        batches.push_back((now() - start) / count);
    }
    return at_part(batches, 0.5);
}

static Handle stream, function;
static Address counter;

static void launch_at(Address place, Handle on) {
    char rest[92] = {};
    void *parameters[] = {&place, rest};
    MUST(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, on, parameters, nullptr));
}

static void launch(Handle on) { launch_at(counter, on); }

static void nothing() {}
static void synchronize() { MUST(cuStreamSynchronize(stream)); }

static void start_up() {
    double start = now();
    Handle context, module;
    MUST(cuInit(0));
    MUST(cuDevicePrimaryCtxRetain(&context, 0));
    MUST(cuCtxSetCurrent(context));
    MUST(cuModuleLoadData(&module, PTX));
    MUST(cuModuleGetFunction(&function, module, "count"));
    MUST(cuMemAlloc_v2(&counter, 4096));
    launch(nullptr);
    MUST(cuCtxSynchronize());
    say("main to first kernel", now() - start);
    MUST(cuStreamCreate(&stream, 1));
}

static void local_call() {
    Handle context;
    say("call answered in the guest", each(1000000, [&] { MUST(cuCtxGetCurrent(&context)); }, nothing));
}

static void queued_launches() {
    // Bursts that fit into any queue; the clock's own cost is taken off.
    double clock = each(100000, [] { now(); }, nothing);
    std::vector<double> one;
    for (int burst = 0; burst < 200 / rounds + 1; burst++) {
        for (int i = 0; i < 100; i++) {
            double start = now();
            launch(stream);
            one.push_back(std::max(0.0, now() - start - clock));
        }
        synchronize();
    }
    say("queued launch, 100 B, p50", at_part(one, 0.5));
    say("queued launch, 100 B, p99", at_part(one, 0.99));
}

static void drained_launches() {
    say("launches, drained", each(20000, [] { launch(stream); }, synchronize));
}

static void launch_and_sync() {
    say("launch and sync", each(2000, [] { launch(stream), synchronize(); }, nothing));
}

// Not for a stream: libvgpu knows that one with nothing new is done.
static void wait_for_context() { MUST(cuCtxSynchronize()); }

static void sync_polling() { say("sync call, polling", each(20000, wait_for_context, nothing)); }

static void sync_parked() {
    // The other end sleeps after a while without work.
    std::vector<double> one;
    for (int i = 0; i < 100 / rounds + 3; i++) {
        usleep(20000);
        double start = now();
        wait_for_context();
        one.push_back(now() - start);
    }
    say("sync call, parked", at_part(one, 0.5));
}

// A page of pinned memory, as the host and the device have it.
struct Pinned {
    void *host;
    Address device;
    Pinned() {
        MUST(cuMemHostAlloc(&host, 4096, 0));
        MUST(cuMemHostGetDevicePointer_v2(&device, host, 0));
        memset(host, 0, 4096);
    }
    // Until the first word, which kernels count up, is this.
    void await(uint32_t count) {
        double start = now();
        while (*(volatile uint32_t *)host != count) {
            if (now() - start > 2) throw Failed{"no count of a kernel comes", 0};
        }
    }
};

// What a wait is made of: a kernel that the host sees done without one, then a copy behind it, then the wait for both, as PyTorch's item().
static void phases_of_a_wait() {
    Pinned page;
    uint32_t count = 0;
    auto launch_and_see = [&] { launch_at(page.device, stream), page.await(++count); };
    auto copy = [&] { MUST(cuMemcpyDtoHAsync_v2((char *)page.host + 64, counter, 4, stream)); };
    uint32_t own;
    auto copy_to_pageable = [&] { MUST(cuMemcpyDtoHAsync_v2(&own, counter, 4, stream)); };
    say("launch, its count seen", each(2000, launch_and_see, synchronize));
    say("copy of 4 B to pinned, sync", each(2000, [&] { copy(), synchronize(); }, nothing));
    say("copy of 4 B to pageable, sync", each(2000, [&] { copy_to_pageable(), synchronize(); }, nothing));
    say("launch, copy of 4 B to pinned, sync", each(2000, [&] { launch(stream), copy(), synchronize(); }, nothing));
    say("launch, copy of 4 B to pageable, sync", each(2000, [&] { launch(stream), copy_to_pageable(), synchronize(); }, nothing));
}

// After a while without work: what the call itself costs, and until the kernel has run. The rest of a parked call is the way back.
static void phases_of_a_wake_up() {
    Pinned page;
    uint32_t count = 0;
    std::vector<double> called, seen;
    for (int i = 0; i < 100 / rounds + 3; i++) {
        usleep(20000);
        double start = now();
        launch_at(page.device, stream);
        called.push_back(now() - start);
        page.await(++count);
        seen.push_back(now() - start);
    }
    say("launch, parked", at_part(called, 0.5));
    say("launch, parked, its count seen", at_part(seen, 0.5));
}

// What the driver takes for each where nobody waits: the least that the worker needs.
static void drained_small_work() {
    Pinned page;
    std::vector<char> own(4096, 1);
    Address device;
    MUST(cuMemAlloc_v2(&device, 4096));
    say("copies of 4 KB from pinned, drained", each(2000, [&] { MUST(cuMemcpyHtoDAsync_v2(device, page.host, 4096, stream)); }, synchronize));
    say("copies of 4 KB from pageable, drained", each(2000, [&] { MUST(cuMemcpyHtoDAsync_v2(device, own.data(), 4096, stream)); }, synchronize));
    say("copies of 4 KB from pageable, each with a sync", each(2000, [&] { MUST(cuMemcpyHtoDAsync_v2(device, own.data(), 4096, stream)); synchronize(); }, nothing));
    say("words written, drained", each(2000, [&] { MUST(cuStreamWriteValue32_v2(stream, page.device, 7, 0)); }, synchronize));
}

static void event_record() {
    Handle event;
    MUST(cuEventCreate(&event, 2));
    say("event record", each(10000, [&] { MUST(cuEventRecord(event, stream)); }, synchronize));
}

static void graph_replay() {
    Handle graph, exec;
    MUST(cuStreamBeginCapture_v2(stream, 2));
    for (int i = 0; i < 100; i++) launch(stream);
    MUST(cuStreamEndCapture(stream, &graph));
    MUST(cuGraphInstantiateWithFlags(&exec, graph, 0));
    say("graph of 100 kernels", each(500, [&] { MUST(cuGraphLaunch(exec, stream)); }, synchronize));
}

struct Copies {
    const char *h2d, *d2h;
    size_t bytes;
    int count;
    bool pinned;
};

static void copies(const Copies &what) {
    Address device;
    void *host;
    MUST(cuMemAlloc_v2(&device, what.bytes));
    if (what.pinned) {
        MUST(cuMemHostAlloc(&host, what.bytes, 0));
    } else {
        host = malloc(what.bytes);
    }
    // Untouched pages are all one page of zeros: a copy of them tells nothing.
    for (size_t i = 0; i < what.bytes / 4; i++) ((uint32_t *)host)[i] = (uint32_t)(i * 2654435761u);
    if (what.pinned) {
        say(what.h2d, each(what.count, [&] { MUST(cuMemcpyHtoDAsync_v2(device, host, what.bytes, stream)); synchronize(); }, nothing));
        say(what.d2h, each(what.count, [&] { MUST(cuMemcpyDtoHAsync_v2(host, device, what.bytes, stream)); synchronize(); }, nothing));
    } else {
        say(what.h2d, each(what.count, [&] { MUST(cuMemcpyHtoD_v2(device, host, what.bytes)); }, nothing));
        say(what.d2h, each(what.count, [&] { MUST(cuMemcpyDtoH_v2(host, device, what.bytes)); }, nothing));
    }
    for (size_t i = 0; i < what.bytes / 4; i++) {
        if (((uint32_t *)host)[i] != (uint32_t)(i * 2654435761u)) throw Failed{"the copied bytes are others", 0};
    }
}

static const Copies COPIES[] = {
    {"pinned H2D 64 MB", "pinned D2H 64 MB", 64 << 20, 8, true},
    {"pageable H2D 64 MB", "pageable D2H 64 MB", 64 << 20, 8, false},
    {"pinned H2D 4 KB", "pinned D2H 4 KB", 4 << 10, 2000, true},
    {"pageable H2D 4 KB", "pageable D2H 4 KB", 4 << 10, 2000, false},
};

template <typename F> static void attempt(const char *name, F body) {
    try {
        body();
    } catch (const Failed &failed) {
        printf("{\"name\": \"%s\", \"error\": \"%s: %d\"}\n", name, failed.call, failed.code);
        fflush(stdout);
    }
}

int main(int count, char **words) {
    if (count > 1 && !strcmp(words[1], "quick")) rounds = 100;
    libcuda = dlopen("libcuda.so.1", RTLD_NOW);
    if (!libcuda) {
        printf("driver_speed: %s\n", dlerror());
        return 1;
    }
    find_all();
    attempt("main to first kernel", start_up);
    if (!stream) return 1;
    attempt("call answered in the guest", local_call);
    attempt("queued launch, 100 B, p50", queued_launches);
    attempt("launches, drained", drained_launches);
    attempt("launch and sync", launch_and_sync);
    attempt("sync call, polling", sync_polling);
    attempt("sync call, parked", sync_parked);
    attempt("launch, its count seen", phases_of_a_wait);
    attempt("launch, parked", phases_of_a_wake_up);
    attempt("words written, drained", drained_small_work);
    attempt("event record", event_record);
    for (const Copies &what : COPIES) attempt(what.h2d, [&] { copies(what); });
    // Last: what is broken in the middle of a capture may stay so.
    attempt("graph of 100 kernels", graph_replay);
    return 0;
}
