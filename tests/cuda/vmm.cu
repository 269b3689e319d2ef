// Memory and addresses apart: a large reservation, pieces mapped one by one and used as one by kernels, copies and sets; memory
// that is shown twice, moved, taken away; what counts as free; what is refused. `vmm ask` also prints what the driver says where
// its documents say nothing.
#define PROGRAM "vmm"
#include "driver.h"
#include <cstring>
#include <vector>

#include "check.h"

static const size_t RESERVED = 64ull << 30;
static CUdevice device;
static size_t piece;

__global__ void number(unsigned *words, size_t count, unsigned first) {
    size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) words[i] = first + (unsigned)i * 3;
}

__global__ void add(unsigned *to, const unsigned *from, size_t count) {
    size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) to[i] += from[i];
}

static CUmemAllocationProp on_device() {
    CUmemAllocationProp properties = {};
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    properties.location.id = device;
    // As PyTorch and NCCL ask.
    properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    return properties;
}

static void open_range(CUdeviceptr at, size_t bytes, CUmemAccess_flags flags) {
    CUmemAccessDesc access = {};
    access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    access.location.id = device;
    access.flags = flags;
    NEEDS(cuMemSetAccess, at, bytes, &access, 1);
}

static CUmemGenericAllocationHandle create(size_t bytes) {
    CUmemGenericAllocationHandle handle = 0;
    CUmemAllocationProp properties = on_device();
    NEEDS(cuMemCreate, &handle, bytes, &properties, 0);
    return handle;
}

// A segment that grows, as PyTorch's do.
static void segment(CUdeviceptr base) {
    const int pieces = 5;
    CUmemGenericAllocationHandle handles[pieces];
    for (int i = 0; i < pieces; i++) {
        handles[i] = create(piece);
        NEEDS(cuMemMap, base + i * piece, piece, 0, handles[i], 0);
        open_range(base + i * piece, piece, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    }
    size_t bytes = pieces * piece, count = bytes / 4;
    std::vector<unsigned> seen(count), wanted(count);
    number<<<64, 256>>>((unsigned *)base, count, 11);
    MUST(cudaGetLastError());
    MUST(cudaDeviceSynchronize());
    for (size_t i = 0; i < count; i++) wanted[i] = 11 + (unsigned)i * 3;
    GIVES(0, cuMemcpyDtoH_v2, seen.data(), base, bytes);
    expect("a kernel over all pieces", seen == wanted, 1);
    // Across borders: a set, a copy on the device, a copy from the host.
    GIVES(0, cuMemsetD32_v2, base + piece - 64, 7, 32);
    for (size_t i = 0; i < 32; i++) wanted[piece / 4 - 16 + i] = 7;
    GIVES(0, cuMemcpyDtoD_v2, base + 2 * piece - 4096, base + piece - 4096, 8192);
    memcpy(&wanted[2 * piece / 4 - 1024], std::vector<unsigned>(&wanted[piece / 4 - 1024], &wanted[piece / 4 + 1024]).data(), 8192);
    std::vector<unsigned> mine(3 * piece / 8, 99);
    GIVES(0, cuMemcpyHtoD_v2, base + 3 * piece - piece / 2, mine.data(), mine.size() * 4);
    memcpy(&wanted[(3 * piece - piece / 2) / 4], mine.data(), mine.size() * 4);
    GIVES(0, cuMemcpyDtoH_v2, seen.data(), base, bytes);
    expect("sets and copies across borders", seen == wanted, 1);

    // The third piece moves behind the last: a hole, and the same bytes elsewhere.
    GIVES(0, cuMemUnmap, base + 2 * piece, piece);
    GIVES(0, cuMemMap, base + pieces * piece, piece, 0, handles[2], 0);
    open_range(base + pieces * piece, piece, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    std::vector<unsigned> moved(piece / 4);
    GIVES(0, cuMemcpyDtoH_v2, moved.data(), base + pieces * piece, piece);
    expect("the moved piece", memcmp(moved.data(), &wanted[2 * piece / 4], piece), 0);
    for (int i = 0; i <= pieces; i++)
        if (i != 2) GIVES(0, cuMemUnmap, base + i * piece, piece);
    for (int i = 0; i < pieces; i++) GIVES(0, cuMemRelease, handles[i]);
}

// One memory at two addresses, its handle by address, and what is said of it.
static void twice(CUdeviceptr base) {
    CUmemGenericAllocationHandle handle = create(2 * piece), again = 0;
    NEEDS(cuMemMap, base, 2 * piece, 0, handle, 0);
    NEEDS(cuMemMap, base + 4 * piece, 2 * piece, 0, handle, 0);
    open_range(base, 2 * piece, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    open_range(base + 4 * piece, 2 * piece, CU_MEM_ACCESS_FLAGS_PROT_READ);
    size_t count = 2 * piece / 4;
    number<<<64, 256>>>((unsigned *)base, count, 5);
    MUST(cudaGetLastError());
    MUST(cudaDeviceSynchronize());
    std::vector<unsigned> seen(count);
    GIVES(0, cuMemcpyDtoH_v2, seen.data(), base + 4 * piece, count * 4);
    size_t wrong = 0;
    for (size_t i = 0; i < count; i++) wrong += seen[i] != 5 + (unsigned)i * 3;
    expect("the same memory elsewhere", wrong, 0);
    add<<<64, 256>>>((unsigned *)base, (const unsigned *)(base + 4 * piece), count);
    MUST(cudaGetLastError());
    MUST(cudaDeviceSynchronize());
    GIVES(0, cuMemcpyDtoH_v2, seen.data(), base, count * 4);
    for (size_t i = 0; i < count; i++) wrong += seen[i] != 2 * (5 + (unsigned)i * 3);
    expect("read by one address, written by the other", wrong, 0);

    unsigned long long flags = 0;
    CUmemLocation location = {};
    location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    location.id = device;
    GIVES(0, cuMemGetAccess, &flags, &location, base + 4 * piece);
    expect("access", flags, CU_MEM_ACCESS_FLAGS_PROT_READ);
    CUmemAllocationProp properties = {};
    GIVES(0, cuMemGetAllocationPropertiesFromHandle, &properties, handle);
    expect("kind", properties.type, CU_MEM_ALLOCATION_TYPE_PINNED);
    expect("place", properties.location.type == CU_MEM_LOCATION_TYPE_DEVICE && properties.location.id == device, 1);
    GIVES(0, cuMemRelease, handle);
    GIVES(0, cuMemRetainAllocationHandle, &again, (void *)(base + piece + 8));
    expect("the same handle", again == handle, 1);
    GIVES(0, cuMemRelease, again);
    unsigned kind = 0, ordinal = 9;
    GIVES(0, cuPointerGetAttribute, &kind, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, base + 8);
    GIVES(0, cuPointerGetAttribute, &ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, base + 8);
    expect("device memory", kind == CU_MEMORYTYPE_DEVICE && ordinal == (unsigned)device, 1);
    GIVES(0, cuMemUnmap, base, 2 * piece);
    GIVES(0, cuMemUnmap, base + 4 * piece, 2 * piece);
}

static void counted() {
    size_t before, with, after, total;
    GIVES(0, cuMemGetInfo_v2, &before, &total);
    CUmemGenericAllocationHandle handle = create(8 * piece);
    GIVES(0, cuMemGetInfo_v2, &with, &total);
    expect("memory without an address counts", before - with >= 8 * piece, 1);
    GIVES(0, cuMemRelease, handle);
    GIVES(0, cuMemGetInfo_v2, &after, &total);
    expect("and comes back", after >= with + 8 * piece, 1);
    CUmemAllocationProp properties = on_device();
    GIVES(2, cuMemCreate, &handle, (total / piece + 2) * piece, &properties, 0);
}

static void refused(CUdeviceptr base) {
    CUmemGenericAllocationHandle handle = create(piece), other;
    CUmemAllocationProp properties = on_device();
    CUdeviceptr at;
    GIVES(1, cuMemCreate, &other, piece / 2, &properties, 0);
    GIVES(1, cuMemCreate, &other, 0, &properties, 0);
    GIVES(1, cuMemCreate, &other, piece, &properties, 1);
    properties.type = CU_MEM_ALLOCATION_TYPE_INVALID;
    GIVES(1, cuMemCreate, &other, piece, &properties, 0);
    GIVES(1, cuMemAddressReserve, &at, 0, 0, 0, 0);
    GIVES(1, cuMemAddressReserve, &at, piece, 3, 0, 0);
    GIVES(0, cuMemRelease, handle);
}

#define SAYS(what, number, type, place)                                                                        \
    do {                                                                                                       \
        type value = 0;                                                                                        \
        int code = CALL(cuPointerGetAttribute, &value, (CUpointer_attribute)number, place);                    \
        printf("vmm: %s attribute %d: code %d, %lld (base + %lld)\n", what, number, code, (long long)value,      \
               (long long)value - (long long)base);                                                            \
    } while (0)

static void ask(CUdeviceptr base) {
    CUmemGenericAllocationHandle handle = create(2 * piece);
    CUmemAllocationProp properties = on_device();
    size_t least, best, bytes = 0;
    CALL(cuMemGetAllocationGranularity, &least, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
    CALL(cuMemGetAllocationGranularity, &best, &properties, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED);
    printf("vmm: granularity %zu, best %zu\n", least, best);
    NEEDS(cuMemMap, base + piece, 2 * piece, 0, handle, 0);
    CUdeviceptr places[] = {base, base + 2 * piece + 8};
    const char *names[] = {"reserved", "mapped"};
    for (int i = 0; i < 2; i++) {
        for (int number : {1, 3, 7, 11, 12, 14, 17, 18, 19, 20}) SAYS(names[i], number, long long, places[i]);
        for (int number : {2, 6, 8, 9, 10, 13, 15, 16, 21}) SAYS(names[i], number, int, places[i]);
        CUdeviceptr start = 0;
        int code = CALL(cuMemGetAddressRange_v2, &start, &bytes, places[i]);
        printf("vmm: %s range: code %d, base + %lld, %zu\n", names[i], code, (long long)(start - base), bytes);
    }
    printf("vmm: set of mapped memory that is not open: %d\n", CALL(cuMemsetD8_v2, base + piece, 1, 1));
    printf("vmm: map with an offset: %d\n", CALL(cuMemMap, base + 8 * piece, piece, piece, handle, 0));
    printf("vmm: map over it: %d, between pages: %d, more than there is: %d\n",
           CALL(cuMemMap, base + piece, 2 * piece, 0, handle, 0), CALL(cuMemMap, base + 8 * piece + 4096, piece, 0, handle, 0),
           CALL(cuMemMap, base + 8 * piece, 4 * piece, 0, handle, 0));
    printf("vmm: unmap of nothing: %d\n", CALL(cuMemUnmap, base + 12 * piece, piece));
    printf("vmm: unmap of a part: %d\n", CALL(cuMemUnmap, base + piece, piece));
    printf("vmm: give back with something mapped: %d\n", CALL(cuMemAddressFree, base, RESERVED));
    printf("vmm: give back a part: %d\n", CALL(cuMemAddressFree, base, piece));
    printf("vmm: a free of mapped memory: %d\n", CALL(cuMemFree_v2, base + piece));
    CUmemAccessDesc nothing = {};
    printf("vmm: access with no description: %d\n", CALL(cuMemSetAccess, base + piece, 2 * piece, &nothing, 0));
    properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_FABRIC;
    CUmemGenericAllocationHandle fabric;
    printf("vmm: memory with a fabric handle: %d\n", CALL(cuMemCreate, &fabric, piece, &properties, 0));
    CALL(cuMemUnmap, base + piece, 2 * piece);
    CALL(cuMemRelease, handle);

    cudaStream_t stream;
    cudaGraph_t graph;
    CUmemAccessDesc access = {{CU_MEM_LOCATION_TYPE_DEVICE, device}, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    properties = on_device();
    MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    printf("vmm: in a capture: create %d, ", CALL(cuMemCreate, &handle, piece, &properties, 0));
    printf("map %d, ", CALL(cuMemMap, base, piece, 0, handle, 0));
    printf("access %d, ", CALL(cuMemSetAccess, base, piece, &access, 1));
    printf("unmap %d, ", CALL(cuMemUnmap, base, piece));
    printf("release %d, ", CALL(cuMemRelease, handle));
    printf("end %d\n", (int)cudaStreamEndCapture(stream, &graph));
}

int main(int count, char **words) {
    CUcontext context;
    CUdeviceptr base = 0;
    int can = 0;
    NEEDS(cuInit, 0);
    NEEDS(cuDeviceGet, &device, 0);
    NEEDS(cuDeviceGetAttribute, &can, CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, device);
    expect("the device says that it can", can, 1);
    NEEDS(cuDevicePrimaryCtxRetain, &context, device);
    NEEDS(cuCtxSetCurrent, context);
    CUmemAllocationProp properties = on_device();
    NEEDS(cuMemGetAllocationGranularity, &piece, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
    expect("a granularity", piece >= 4096 && (piece & (piece - 1)) == 0, 1);
    NEEDS(cuMemAddressReserve, &base, RESERVED, 0, 0, 0);
    segment(base);
    twice(base);
    counted();
    refused(base);
    if (count > 1 && !strcmp(words[1], "ask")) ask(base);
    GIVES(0, cuMemAddressFree, base, RESERVED);
    GIVES(0, cuDevicePrimaryCtxRelease_v2, device);
    printf("vmm: %s, %d wrong\n", failures ? "failed" : "ok", failures);
    return failures ? 1 : 0;
}
