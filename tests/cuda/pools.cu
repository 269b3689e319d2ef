// Memory allocated and freed in the order of streams: default and own pools, what they keep and give back, what is refused;
// words written and waited for by streams. Compared with the CPU. `pools ask` also prints what the driver says where its
// documents say nothing.
#define PROGRAM "pools"
#include "driver.h"
#include <cstring>
#include <vector>

#include "check.h"
#include "words.h"

static CUdevice device;

static unsigned long long attribute(CUmemoryPool pool, CUmemPool_attribute number) {
    unsigned long long value = 0;
    GIVES(0, cuMemPoolGetAttribute, pool, number, &value);
    return value;
}

static void keep(CUmemoryPool pool, unsigned long long bytes) {
    GIVES(0, cuMemPoolSetAttribute, pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &bytes);
}

static CUmemPoolProps on_device() {
    CUmemPoolProps properties = {};
    properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    properties.location.id = device;
    return properties;
}

// Two streams that allocate, compute, hand results over by events, and free, many times.
static void two_streams(CUmemoryPool pool) {
    cudaStream_t streams[2];
    cudaEvent_t ready, taken;
    for (cudaStream_t &stream : streams) MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    MUST(cudaEventCreateWithFlags(&ready, cudaEventDisableTiming));
    MUST(cudaEventCreateWithFlags(&taken, cudaEventDisableTiming));
    unsigned random = 5, wrong = 0;
    CUdeviceptr sum = 0;
    const unsigned most = 1 << 14;
    GIVES(0, cuMemAllocFromPoolAsync, &sum, most * 4, pool, streams[1]);
    GIVES(0, cuMemsetD32Async, sum, 0, most, streams[1]);
    std::vector<unsigned> wanted(most, 0), seen(most);
    for (unsigned round = 0; round < 200; round++) {
        unsigned count = 1 + next_random(random) % most, value = next_random(random);
        CUdeviceptr part = 0;
        NEEDS(cuMemAllocFromPoolAsync, &part, count * 4, pool, streams[0]);
        fill<<<(count + 255) / 256, 256, 0, streams[0]>>>((unsigned *)part, count, value);
        MUST(cudaEventRecord(ready, streams[0]));
        MUST(cudaStreamWaitEvent(streams[1], ready, 0));
        add<<<(count + 255) / 256, 256, 0, streams[1]>>>((unsigned *)sum, (const unsigned *)part, count);
        // Freed by the one that used it last, or by its own after that.
        if (round % 2) {
            GIVES(0, cuMemFreeAsync, part, streams[1]);
        } else {
            MUST(cudaEventRecord(taken, streams[1]));
            MUST(cudaStreamWaitEvent(streams[0], taken, 0));
            GIVES(0, cuMemFreeAsync, part, streams[0]);
        }
        for (unsigned i = 0; i < count; i++) wanted[i] += value + i;
        if (round % 50 == 49) MUST(cudaStreamSynchronize(streams[0]));
    }
    MUST(cudaStreamSynchronize(streams[1]));
    GIVES(0, cuMemcpyDtoH_v2, seen.data(), sum, most * 4);
    for (unsigned i = 0; i < most; i++) wrong += seen[i] != wanted[i];
    expect("wrong sums of two streams", wrong, 0);
    GIVES(0, cuMemFreeAsync, sum, streams[1]);
    MUST(cudaDeviceSynchronize());
    for (cudaStream_t stream : streams) MUST(cudaStreamDestroy(stream));
    MUST(cudaEventDestroy(ready));
    MUST(cudaEventDestroy(taken));
}

static void kept(CUmemoryPool pool) {
    const size_t bytes = 8 << 20;
    size_t free_before, free_with, free_after, total;
    MUST(cudaDeviceSynchronize());
    keep(pool, 0);
    GIVES(0, cuMemPoolTrimTo, pool, 0);
    GIVES(0, cuMemGetInfo_v2, &free_before, &total);
    CUdeviceptr mine = 0;
    keep(pool, ~0ull);
    NEEDS(cuMemAllocFromPoolAsync, &mine, bytes, pool, nullptr);
    GIVES(0, cuMemGetInfo_v2, &free_with, &total);
    expect("what is used is not free", free_before - free_with >= bytes, 1);
    expect("used", attribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT) >= bytes, 1);
    GIVES(0, cuMemFreeAsync, mine, nullptr);
    MUST(cudaDeviceSynchronize());
    expect("not used", attribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT), 0);
    expect("but kept", attribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT) >= bytes, 1);
    expect("the most that was used", attribute(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH) >= bytes, 1);
    unsigned long long zero = 0;
    GIVES(0, cuMemPoolSetAttribute, pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH, &zero);
    expect("reset", attribute(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH), 0);
    GIVES(0, cuMemPoolTrimTo, pool, 0);
    expect("given back", attribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT), 0);
    GIVES(0, cuMemGetInfo_v2, &free_after, &total);
    expect("free again", free_after >= free_with + bytes, 1);
    keep(pool, 0);
    NEEDS(cuMemAllocFromPoolAsync, &mine, bytes, pool, nullptr);
    GIVES(0, cuMemFreeAsync, mine, nullptr);
    MUST(cudaDeviceSynchronize());
    expect("nothing is kept beyond the threshold", attribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT), 0);
    GIVES(2, cuMemAllocFromPoolAsync, &mine, total + (64 << 20), pool, nullptr);
}

static void pools(CUmemoryPool standard) {
    CUmemoryPool mine = nullptr, current = nullptr, of = nullptr;
    CUmemPoolProps properties = on_device();
    CUdeviceptr at = 0;
    GIVES(0, cuDeviceGetMemPool, &current, device);
    expect("the default pool is the current one", current == standard, 1);
    NEEDS(cuMemPoolCreate, &mine, &properties);
    two_streams(mine);
    kept(mine);
    GIVES(0, cuDeviceSetMemPool, device, mine);
    GIVES(0, cuMemAllocAsync, &at, 1000, nullptr);
    GIVES(0, cuPointerGetAttribute, &of, CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, at);
    expect("from the current pool", of == mine, 1);
    unsigned kind = 0;
    GIVES(0, cuPointerGetAttribute, &kind, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, at + 999);
    expect("device memory", kind, CU_MEMORYTYPE_DEVICE);
    GIVES(0, cuMemPoolDestroy, mine);
    GIVES(0, cuDeviceGetMemPool, &current, device);
    expect("the default pool is current again", current == standard, 1);
    // Of a pool that was destroyed: still there, until it is freed.
    unsigned word = 0;
    GIVES(0, cuMemsetD32_v2, at, 77, 250);
    GIVES(0, cuMemcpyDtoH_v2, &word, at + 996, 4);
    expect("memory of a destroyed pool", word, 77);
    GIVES(0, cuMemFreeAsync, at, nullptr);
    GIVES(1, cuMemPoolDestroy, standard);
    properties.allocType = CU_MEM_ALLOCATION_TYPE_INVALID;
    GIVES(1, cuMemPoolCreate, &mine, &properties);
    CUmemAccess_flags flags = CU_MEM_ACCESS_FLAGS_PROT_NONE;
    CUmemLocation location = on_device().location;
    GIVES(0, cuMemPoolGetAccess, &flags, standard, &location);
    expect("its own device reads and writes it", flags, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    GIVES(0, cuMemAllocAsync, &at, 1000, nullptr);
    MUST(cudaDeviceSynchronize());
    GIVES(0, cuMemFree_v2, at);
}

static void words() {
    cudaStream_t stream;
    MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CUdeviceptr at = 0;
    GIVES(0, cuMemAlloc_v2, &at, 16);
    GIVES(0, cuMemsetD8_v2, at, 0, 16);
    // The stream does not wait for the legacy one.
    MUST(cudaDeviceSynchronize());
    GIVES(0, cuStreamWriteValue64_v2, stream, at, ~0ull, 0);
    GIVES(0, cuStreamWriteValue32_v2, stream, at, 5, 0);
    GIVES(0, cuStreamWaitValue32_v2, stream, at, 5, CU_STREAM_WAIT_VALUE_EQ);
    GIVES(0, cuStreamWaitValue32_v2, stream, at, 4, CU_STREAM_WAIT_VALUE_GEQ);
    GIVES(0, cuStreamWaitValue64_v2, stream, at, 1, CU_STREAM_WAIT_VALUE_AND);
    CUstreamBatchMemOpParams ops[3] = {};
    ops[0].operation = CU_STREAM_MEM_OP_WRITE_VALUE_64;
    ops[0].writeValue.address = at + 8;
    ops[0].writeValue.value64 = 1ull << 40;
    ops[1].operation = CU_STREAM_MEM_OP_WAIT_VALUE_64;
    ops[1].waitValue.address = at + 8;
    ops[1].waitValue.value64 = 1ull << 40;
    ops[1].waitValue.flags = CU_STREAM_WAIT_VALUE_EQ;
    ops[2].operation = CU_STREAM_MEM_OP_BARRIER;
    ops[2].memoryBarrier.flags = CU_STREAM_MEMORY_BARRIER_TYPE_GPU;
    GIVES(0, cuStreamBatchMemOp_v2, stream, 3, ops, 0);
    MUST(cudaStreamSynchronize(stream));
    unsigned long long seen[2];
    GIVES(0, cuMemcpyDtoH_v2, seen, at, 16);
    expect("a written word", (long long)seen[0], (long long)0xffffffff00000005ull);
    expect("another one", (long long)seen[1], 1ll << 40);
    GIVES(1, cuStreamWriteValue32_v2, stream, at + 2, 5, 0);
    GIVES(0, cuMemFree_v2, at);
    CUstreamAttrValue value = {};
    value.syncPolicy = CU_SYNC_POLICY_YIELD;
    GIVES(0, cuStreamSetAttribute, stream, CU_STREAM_ATTRIBUTE_SYNCHRONIZATION_POLICY, &value);
    value.syncPolicy = CU_SYNC_POLICY_SPIN;
    GIVES(0, cuStreamGetAttribute, stream, CU_STREAM_ATTRIBUTE_SYNCHRONIZATION_POLICY, &value);
    expect("as it was set", value.syncPolicy, CU_SYNC_POLICY_YIELD);
    MUST(cudaStreamDestroy(stream));
}

static void ask(CUmemoryPool pool) {
    CUdeviceptr at = 0;
    NEEDS(cuMemAllocFromPoolAsync, &at, 1000, pool, nullptr);
    printf("pools: 1000 bytes: reserved %llu, used %llu\n", attribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT),
           attribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT));
    for (int number : {1, 7, 11, 12, 14, 18, 19, 20}) {
        long long value = 0;
        int code = CALL(cuPointerGetAttribute, &value, (CUpointer_attribute)number, at + 8);
        printf("pools: attribute %d: code %d, %lld (address + %lld)\n", number, code, value, value - (long long)at);
    }
    CUdeviceptr nothing = 1;
    int code = CALL(cuMemAllocAsync, &nothing, 0, nullptr);
    printf("pools: no bytes: %d, address + %lld, freed: %d\n", code, (long long)nothing - (long long)at, CALL(cuMemFreeAsync, nothing, nullptr));
    CUstreamAttrValue value = {};
    code = CALL(cuStreamGetAttribute, nullptr, CU_STREAM_ATTRIBUTE_SYNCHRONIZATION_POLICY, &value);
    printf("pools: how the host waits for a stream: %d, %d\n", code, (int)value.syncPolicy);
    CUstreamBatchMemOpParams none[1] = {};
    printf("pools: a batch of nothing: %d\n", CALL(cuStreamBatchMemOp_v2, nullptr, 0, none, 0));
    printf("pools: a write with the flag of the old forms: %d\n", CALL(cuStreamWriteValue32_v2, nullptr, at, 1, 1));
    CUmemAccessDesc access = {};
    access.location = on_device().location;
    printf("pools: its own device's access taken away: %d\n", CALL(cuMemPoolSetAccess, pool, &access, 1));
    CUmemPoolProps properties = on_device();
    CUmemoryPool other;
    properties.handleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    printf("pools: a pool with descriptors: %d\n", CALL(cuMemPoolCreate, &other, &properties));
    GIVES(0, cuMemFreeAsync, at, nullptr);
    MUST(cudaDeviceSynchronize());
    GIVES(0, cuMemAlloc_v2, &at, 1000);
    printf("pools: a free in order of plain memory: %d\n", CALL(cuMemFreeAsync, at, nullptr));
    MUST(cudaDeviceSynchronize());
    printf("pools: a second free: %d\n", CALL(cuMemFreeAsync, at, nullptr));
}

int main(int count, char **arguments) {
    CUcontext context;
    CUmemoryPool standard = nullptr;
    int can = 0;
    NEEDS(cuInit, 0);
    NEEDS(cuDeviceGet, &device, 0);
    NEEDS(cuDeviceGetAttribute, &can, CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, device);
    expect("the device says that it can", can, 1);
    NEEDS(cuDevicePrimaryCtxRetain, &context, device);
    NEEDS(cuCtxSetCurrent, context);
    NEEDS(cuDeviceGetDefaultMemPool, &standard, device);
    two_streams(standard);
    pools(standard);
    words();
    if (count > 1 && !strcmp(arguments[1], "ask")) ask(standard);
    GIVES(0, cuDevicePrimaryCtxRelease_v2, device);
    printf("pools: %s, %d wrong\n", failures ? "failed" : "ok", failures);
    return failures ? 1 : 0;
}
