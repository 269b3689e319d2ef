// Several devices in one process: each with its own memory, contexts and default pool; copies between them of every form; kernels that
// reach the other's memory from when they are let until they are not; mapped memory and pools of one device that the other may touch;
// variables of which each device has its own; streams that wait for events of the other device. Results are compared with the CPU.
// With one device there is nothing to try: it says so and ends with 77.
#define PROGRAM "peers"
#include "driver.h"
#include <cstring>
#include <vector>

#include "check.h"
#include "words.h"

// The header has it under another name.
extern "C" CUresult cuCtxCreate_v2(CUcontext *, unsigned, CUdevice);

static const int NOT_TRIED = 77;
static const unsigned COUNT = 100000;
static const size_t BYTES = COUNT * sizeof(unsigned);

__device__ unsigned counter = 7;

__global__ void count_up(unsigned by, unsigned *seen) { *seen = counter += by; }

static CUcontext contexts[2];

static void on(int device) { MUST(cudaSetDevice(device)); }

static unsigned blocks() { return (COUNT + 255) / 256; }

static void filled(const char *what, const unsigned *words, unsigned value, unsigned step = 1) {
    std::vector<unsigned> seen(COUNT);
    MUST(cudaMemcpy(seen.data(), words, BYTES, cudaMemcpyDefault));
    unsigned wrong = 0;
    for (unsigned i = 0; i < COUNT; i++) wrong += seen[i] != value + i * step;
    expect(what, wrong, 0);
}

// Memory, what is free of it, whose an address is.
static void devices_apart(unsigned *words[2]) {
    for (int device = 0; device < 2; device++) {
        on(device);
        size_t before = 0, after = 0, total = 0, other = 0, other_after = 0;
        MUST(cudaMemGetInfo(&before, &total));
        on(1 - device);
        MUST(cudaMemGetInfo(&other, &total));
        on(device);
        void *large = nullptr;
        MUST(cudaMalloc(&large, 32 << 20));
        MUST(cudaMemGetInfo(&after, &total));
        expect("its memory has less free", after <= before - (32 << 20), 1);
        on(1 - device);
        MUST(cudaMemGetInfo(&other_after, &total));
        expect("the other's has not", other_after > other - (32 << 20), 1);
        on(device);
        MUST(cudaFree(large));
        cudaPointerAttributes attributes = {};
        MUST(cudaPointerGetAttributes(&attributes, words[device]));
        expect("an address's device", attributes.device, device);
        int ordinal = -1;
        GIVES(0, cuPointerGetAttribute, &ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, (CUdeviceptr)words[device]);
        expect("and by the driver", ordinal, device);
        CUdevice current = -1;
        GIVES(0, cuCtxGetDevice, &current);
        expect("the current device", current, device);
    }
}

static void rows(unsigned *to, CUcontext to_context, const unsigned *from, CUcontext from_context, CUstream stream, bool waits) {
    CUDA_MEMCPY3D_PEER copy = {};
    copy.srcMemoryType = copy.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    copy.srcDevice = (CUdeviceptr)from, copy.srcContext = from_context;
    copy.dstDevice = (CUdeviceptr)to, copy.dstContext = to_context;
    copy.srcPitch = copy.dstPitch = 400, copy.srcHeight = copy.dstHeight = 10;
    copy.WidthInBytes = 200, copy.Height = 5, copy.Depth = 4;
    if (waits) GIVES(0, cuMemcpy3DPeer, &copy);
    else GIVES(0, cuMemcpy3DPeerAsync, &copy, stream);
}

// Work on the second device's memory while the first one is current, which may not reach it by kernels.
static void from_elsewhere(unsigned *words) {
    std::vector<unsigned> host(COUNT);
    for (unsigned i = 0; i < COUNT; i++) host[i] = i + 300;
    on(0);
    cudaStream_t stream;
    MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    MUST(cudaMemcpy(words, host.data(), BYTES, cudaMemcpyHostToDevice));
    filled("written from elsewhere", words, 300);
    MUST(cudaMemcpyAsync(words, host.data(), BYTES / 2, cudaMemcpyHostToDevice, stream));
    MUST(cudaMemcpyAsync(words + COUNT / 2, words, BYTES / 2, cudaMemcpyDeviceToDevice, stream));
    std::vector<unsigned> seen(COUNT);
    MUST(cudaMemcpyAsync(seen.data(), words, BYTES, cudaMemcpyDeviceToHost, stream));
    MUST(cudaStreamSynchronize(stream));
    bool right = true;
    for (unsigned i = 0; i < COUNT; i++) right = right && seen[i] == i % (COUNT / 2) + 300;
    expect("written and copied from elsewhere, in their order", right, true);
    MUST(cudaMemcpy2D(words, 400, host.data(), 400, 400, COUNT / 100, cudaMemcpyHostToDevice));
    filled("rows from elsewhere", words, 300);
    MUST(cudaStreamDestroy(stream));
}

// All forms, both ways, whether kernels may reach the other's memory or not.
static void copies(unsigned *words[2], const char *when) {
    for (int to = 0; to < 2; to++) {
        int from = 1 - to;
        CUdeviceptr at = (CUdeviceptr)words[to], of = (CUdeviceptr)words[from];
        for (int form = 0; form < 8; form++) {
            on(from);
            unsigned value = 1000 * (form + 10 * to) + 5;
            fill<<<blocks(), 256>>>(words[from], COUNT, value);
            MUST(cudaGetLastError());
            MUST(cudaDeviceSynchronize());
            on(to);
            MUST(cudaMemset(words[to], 0, BYTES));
            MUST(cudaDeviceSynchronize());
            on(form % 2 ? from : to);
            cudaStream_t stream;
            MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
            switch (form) {
            case 0: MUST(cudaMemcpyPeer(words[to], to, words[from], from, BYTES)); break;
            case 1: MUST(cudaMemcpyPeerAsync(words[to], to, words[from], from, BYTES, stream)); break;
            case 2: GIVES(0, cuMemcpyPeer, at, contexts[to], of, contexts[from], BYTES); break;
            case 3: GIVES(0, cuMemcpyPeerAsync, at, contexts[to], of, contexts[from], BYTES, stream); break;
            case 4: GIVES(0, cuMemcpyDtoD_v2, at, of, BYTES); break;
            case 5: GIVES(0, cuMemcpyDtoDAsync_v2, at, of, BYTES, stream); break;
            case 6: MUST(cudaMemcpy(words[to], words[from], BYTES, cudaMemcpyDefault)); break;
            case 7: MUST(cudaMemcpyAsync(words[to], words[from], BYTES, cudaMemcpyDeviceToDevice, stream)); break;
            }
            MUST(cudaStreamSynchronize(stream));
            MUST(cudaDeviceSynchronize());
            MUST(cudaStreamDestroy(stream));
            char what[80];
            snprintf(what, sizeof what, "%s, form %d to device %d", when, form, to);
            filled(what, words[to], value);
        }
        for (bool waits : {true, false}) {
            on(from);
            fill<<<blocks(), 256>>>(words[from], COUNT, 50);
            MUST(cudaDeviceSynchronize());
            on(to);
            MUST(cudaMemset(words[to], 0, BYTES));
            rows(words[to], contexts[to], words[from], contexts[from], nullptr, waits);
            MUST(cudaDeviceSynchronize());
            std::vector<unsigned> seen(1000);
            MUST(cudaMemcpy(seen.data(), words[to], seen.size() * 4, cudaMemcpyDefault));
            unsigned wrong = 0;
            for (unsigned i = 0; i < seen.size(); i++) {
                bool inside = i % 100 < 50 && i / 100 % 10 < 5;
                wrong += seen[i] != (inside ? 50 + i : 0);
            }
            expect("rows between two devices", wrong, 0);
        }
    }
}

static void codes(bool reaches) {
    on(0);
    CUcontext created = nullptr;
    GIVES(705, cuCtxDisablePeerAccess, contexts[1]);
    GIVES(1, cuCtxEnablePeerAccess, contexts[1], 1);
    if (!reaches) {
        GIVES(217, cuCtxEnablePeerAccess, contexts[1], 0);
        return;
    }
    GIVES(0, cuCtxEnablePeerAccess, contexts[1], 0);
    GIVES(704, cuCtxEnablePeerAccess, contexts[1], 0);
    expect("cudaDeviceEnablePeerAccess again", cudaDeviceEnablePeerAccess(1, 0), cudaErrorPeerAccessAlreadyEnabled);
    (void)cudaGetLastError();
    // Another context of the same device has a word of its own.
    NEEDS(cuCtxCreate_v2, &created, 0, 0);
    GIVES(705, cuCtxDisablePeerAccess, contexts[1]);
    GIVES(0, cuCtxEnablePeerAccess, contexts[1], 0);
    GIVES(0, cuCtxDestroy_v2, created);
    on(0);
    GIVES(704, cuCtxEnablePeerAccess, contexts[1], 0);
    on(1);
    GIVES(705, cuCtxDisablePeerAccess, contexts[0]);
}

// Kernels of the first device on memory of the second; the second waits for them by an event, and goes on.
static void kernels(unsigned *words[2]) {
    cudaStream_t streams[2];
    cudaEvent_t ready, done;
    on(1);
    MUST(cudaStreamCreateWithFlags(&streams[1], cudaStreamNonBlocking));
    MUST(cudaEventCreateWithFlags(&ready, cudaEventDisableTiming));
    on(0);
    MUST(cudaStreamCreateWithFlags(&streams[0], cudaStreamNonBlocking));
    MUST(cudaEventCreateWithFlags(&done, cudaEventDisableTiming));
    unsigned step = 0;
    for (unsigned round = 0; round < 5; round++) {
        on(1);
        fill<<<blocks(), 256, 0, streams[1]>>>(words[1], COUNT, round);
        MUST(cudaEventRecord(ready, streams[1]));
        on(0);
        fill<<<blocks(), 256, 0, streams[0]>>>(words[0], COUNT, 100);
        MUST(cudaStreamWaitEvent(streams[0], ready, 0));
        add<<<blocks(), 256, 0, streams[0]>>>(words[0], words[1], COUNT);
        // And written there.
        add<<<blocks(), 256, 0, streams[0]>>>(words[1], words[0], COUNT);
        MUST(cudaGetLastError());
        MUST(cudaEventRecord(done, streams[0]));
        on(1);
        MUST(cudaStreamWaitEvent(streams[1], done, 0));
        add<<<blocks(), 256, 0, streams[1]>>>(words[1], words[1], COUNT);
        MUST(cudaStreamSynchronize(streams[1]));
        step = 6;
        filled("kernels that reach the other device", words[1], 2 * (100 + 2 * round), step);
        filled("and what they read there", words[0], 100 + round, 2);
    }
    on(0);
    MUST(cudaStreamDestroy(streams[0]));
    MUST(cudaEventDestroy(done));
    on(1);
    MUST(cudaStreamDestroy(streams[1]));
    MUST(cudaEventDestroy(ready));
}

// Each device has its own.
static void variables() {
    for (int device = 0; device < 2; device++) {
        on(device);
        unsigned *seen = nullptr, value = 0;
        void *address = nullptr;
        MUST(cudaMalloc(&seen, 4));
        count_up<<<1, 1>>>(10 * (device + 1), seen);
        MUST(cudaMemcpy(&value, seen, 4, cudaMemcpyDeviceToHost));
        expect("a variable of a device", value, 7 + 10 * (device + 1));
        MUST(cudaGetSymbolAddress(&address, counter));
        cudaPointerAttributes attributes = {};
        MUST(cudaPointerGetAttributes(&attributes, address));
        expect("lies there", attributes.device, device);
        value = 100 + device;
        MUST(cudaMemcpyToSymbol(counter, &value, 4));
        MUST(cudaFree(seen));
    }
    for (int device = 0; device < 2; device++) {
        on(device);
        unsigned value = 0;
        MUST(cudaMemcpyFromSymbol(&value, counter, 4));
        expect("and keeps its value", value, 100 + device);
    }
}

static CUmemAccessDesc access_of(int device, CUmemAccess_flags flags) {
    CUmemAccessDesc access = {};
    access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    access.location.id = device;
    access.flags = flags;
    return access;
}

// Memory of the second device that both may touch, as PyTorch's expandable segments and NCCL have it.
static void mapped(unsigned *words[2]) {
    on(0);
    CUmemAllocationProp properties = {};
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    properties.location.id = 1;
    size_t piece = 0;
    NEEDS(cuMemGetAllocationGranularity, &piece, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
    CUdeviceptr at = 0;
    CUmemGenericAllocationHandle memory = 0;
    NEEDS(cuMemAddressReserve, &at, piece, 0, 0, 0);
    NEEDS(cuMemCreate, &memory, piece, &properties, 0);
    NEEDS(cuMemMap, at, piece, 0, memory, 0);
    CUmemAccessDesc both[2] = {access_of(0, CU_MEM_ACCESS_FLAGS_PROT_READWRITE), access_of(1, CU_MEM_ACCESS_FLAGS_PROT_READWRITE)};
    NEEDS(cuMemSetAccess, at, piece, both, 2);
    for (int device = 0; device < 2; device++) {
        unsigned long long flags = 0;
        GIVES(0, cuMemGetAccess, &flags, &both[device].location, at);
        expect("access of a device", flags, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    }
    fill<<<blocks(), 256>>>((unsigned *)at, COUNT, 40);
    MUST(cudaDeviceSynchronize());
    on(1);
    add<<<blocks(), 256>>>((unsigned *)at, (unsigned *)at, COUNT);
    MUST(cudaDeviceSynchronize());
    filled("mapped memory that two devices wrote", (unsigned *)at, 80, 2);
    GIVES(0, cuMemcpyDtoD_v2, (CUdeviceptr)words[0], at, BYTES);
    MUST(cudaDeviceSynchronize());
    filled("and a copy of it", words[0], 80, 2);
    int ordinal = -1;
    GIVES(0, cuPointerGetAttribute, &ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, at);
    expect("it lies on the second", ordinal, 1);
    NEEDS(cuMemUnmap, at, piece);
    NEEDS(cuMemRelease, memory);
    NEEDS(cuMemAddressFree, at, piece);
}

// The second device's default pool; memory of it before and after the first may touch it.
static void pools() {
    on(1);
    CUmemoryPool pool = nullptr;
    NEEDS(cuDeviceGetDefaultMemPool, &pool, 1);
    CUdeviceptr early = 0, late = 0;
    cudaStream_t stream;
    MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    NEEDS(cuMemAllocAsync, &early, BYTES, stream);
    CUmemAccessDesc access = access_of(0, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    CUmemAccess_flags flags = CU_MEM_ACCESS_FLAGS_PROT_NONE;
    GIVES(0, cuMemPoolGetAccess, &flags, pool, &access.location);
    expect("at first the other may nothing", flags, 0);
    NEEDS(cuMemPoolSetAccess, pool, &access, 1);
    GIVES(0, cuMemPoolGetAccess, &flags, pool, &access.location);
    expect("then all", flags, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    NEEDS(cuMemAllocAsync, &late, 4 << 20, stream);
    MUST(cudaStreamSynchronize(stream));
    on(0);
    for (CUdeviceptr at : {early, late}) {
        fill<<<blocks(), 256>>>((unsigned *)at, COUNT, 9);
        MUST(cudaDeviceSynchronize());
        filled("a pool's memory", (unsigned *)at, 9);
    }
    on(1);
    NEEDS(cuMemFreeAsync, early, stream);
    NEEDS(cuMemFreeAsync, late, stream);
    MUST(cudaStreamSynchronize(stream));
    access = access_of(0, CU_MEM_ACCESS_FLAGS_PROT_NONE);
    GIVES(0, cuMemPoolSetAccess, pool, &access, 1);
    MUST(cudaStreamDestroy(stream));
}

int main() {
    int count = 0;
    MUST(cudaGetDeviceCount(&count));
    if (count < 2) {
        printf("%s: NOT TRIED: there is %d device, two are needed\n", PROGRAM, count);
        return NOT_TRIED;
    }
    unsigned *words[2];
    for (int device = 0; device < 2; device++) {
        on(device);
        MUST(cudaMalloc(&words[device], BYTES));
        NEEDS(cuCtxGetCurrent, &contexts[device]);
    }
    expect("two contexts", contexts[0] != contexts[1], 1);
    int there = 0, back = 0, itself = 1, supported = 0;
    MUST(cudaDeviceCanAccessPeer(&there, 0, 1));
    MUST(cudaDeviceCanAccessPeer(&back, 1, 0));
    GIVES(0, cuDeviceCanAccessPeer, &itself, 0, 0);
    expect("a device is not its own peer", itself, 0);
    GIVES(0, cuDeviceGetP2PAttribute, &supported, CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED, 0, 1);
    expect("both ways of asking agree", supported, there);
    GIVES(101, cuDeviceGetP2PAttribute, &supported, CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED, 0, 0);
    devices_apart(words);
    variables();
    copies(words, "before");
    from_elsewhere(words[1]);
    codes(there);
    if (there && back) {
        on(1);
        MUST(cudaDeviceEnablePeerAccess(0, 0));
        kernels(words);
        copies(words, "with access");
        MUST(cudaDeviceDisablePeerAccess(0));
        on(0);
        MUST(cudaDeviceDisablePeerAccess(1));
        GIVES(705, cuCtxDisablePeerAccess, contexts[1]);
        copies(words, "after");
        from_elsewhere(words[1]);
        mapped(words);
        pools();
    } else {
        printf("%s: NOT TRIED: these devices do not reach each other's memory\n", PROGRAM);
    }
    for (int device = 0; device < 2; device++) {
        on(device);
        MUST(cudaFree(words[device]));
        MUST(cudaDeviceReset());
    }
    if (failures) return 1;
    printf("%s: ok\n", PROGRAM);
    return 0;
}
