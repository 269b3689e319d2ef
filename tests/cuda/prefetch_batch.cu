// Batches of prefetches and discards of managed memory. Where all devices have concurrent access (attribute 89) they run, and what was not
// discarded stays as it was; elsewhere each is refused, by the code of a single prefetch, and changes nothing. `prefetch_batch answers` prints
// the code of each wrong use.
#define PROGRAM "prefetch_batch"
#include "driver.h"
#include <cstring>

static const size_t RANGE = 1 << 20, RANGES = 4;
static unsigned char *memory;
static CUstream stream;
static CUdeviceptr at[RANGES];
static size_t bytes[RANGES];

static unsigned char pattern(size_t i, unsigned seed) { return (unsigned char)((i * 2654435761u + seed * 97) >> 11); }

static void fill(unsigned seed) {
    for (size_t i = 0; i < RANGE * RANGES; i++) memory[i] = pattern(i, seed);
}

static long long wrong(size_t from, size_t to, unsigned seed) {
    long long count = 0;
    for (size_t i = from; i < to; i++) count += memory[i] != pattern(i, seed);
    return count;
}

static bool tells;
static void refused(const char *what, int code) {
    if (tells) printf("%s: %s: %d\n", PROGRAM, what, code);
    expect(what, code, CUDA_ERROR_INVALID_VALUE);
}

static void synchronize() { NEEDS(cuStreamSynchronize, stream); }

int main(int count, char **words) {
    tells = count > 1 && !strcmp(words[1], "answers");
    CUdevice device;
    CUcontext context;
    int is_there = 0, concurrent = 0, single;
    NEEDS(cuInit, 0);
    NEEDS(cuDeviceGet, &device, 0);
    NEEDS(cuDevicePrimaryCtxRetain, &context, device);
    NEEDS(cuCtxSetCurrent, context);
    NEEDS(cuDeviceGetAttribute, &is_there, CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY, device);
    NEEDS(cuDeviceGetAttribute, &concurrent, CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS, device);
    if (!is_there) {
        printf(PROGRAM ": ok, there is no managed memory\n");
        return 0;
    }
    NEEDS(cuMemAllocManaged, (CUdeviceptr *)&memory, RANGE * RANGES, CU_MEM_ATTACH_GLOBAL);
    NEEDS(cuStreamCreate, &stream, CU_STREAM_NON_BLOCKING);
    for (size_t i = 0; i < RANGES; i++) at[i] = (CUdeviceptr)memory + i * RANGE, bytes[i] = RANGE;
    CUmemLocation places[2] = {{CU_MEM_LOCATION_TYPE_DEVICE, 0}, {CU_MEM_LOCATION_TYPE_HOST, 0}};
    size_t first[2] = {0, 2}, backwards[2] = {2, 0}, late[2] = {1, 2};

    fill(1);
    single = CALL(cuMemPrefetchAsync_v2, at[0], RANGE, places[0], 0, stream);
    expect("a single prefetch", single, concurrent ? 0 : 101);
    GIVES(single, cuMemPrefetchBatchAsync, at, bytes, RANGES, places, first, 2, 0, stream);
    synchronize();
    expect("bytes that a prefetch changed", wrong(0, RANGE * RANGES, 1), 0);
    for (size_t i = 0; i < RANGES; i++) {
        int place = 0, wanted = !concurrent ? CU_DEVICE_INVALID : i < 2 ? device : CU_DEVICE_CPU;
        NEEDS(cuMemRangeGetAttribute, &place, sizeof place, CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION, at[i], RANGE);
        expect("where a range went", place, wanted);
    }

    // The outer ranges keep what they have; the inner ones have whatever is written to them afterwards.
    GIVES(single, cuMemDiscardBatchAsync, at + 1, bytes + 1, 2, 0, stream);
    synchronize();
    expect("bytes before what was discarded", wrong(0, RANGE, 1), 0);
    expect("bytes behind what was discarded", wrong(3 * RANGE, 4 * RANGE, 1), 0);
    fill(2);
    expect("bytes written after a discard", wrong(0, RANGE * RANGES, 2), 0);
    GIVES(single, cuMemDiscardAndPrefetchBatchAsync, at + 1, bytes + 1, 2, places, first, 1, 0, stream);
    NEEDS(cuMemsetD8Async, at[1], 77, 2 * RANGE, stream);
    synchronize();
    long long others = 0;
    for (size_t i = RANGE; i < 3 * RANGE; i++) others += memory[i] != 77;
    expect("bytes set on the device after a discard", others, 0);
    expect("bytes beside them", wrong(0, RANGE, 2) + wrong(3 * RANGE, 4 * RANGE, 2), 0);

    // Wrong on every machine, and said so before whether the machine could.
    refused("flags", CALL(cuMemPrefetchBatchAsync, at, bytes, RANGES, places, first, 2, 1, stream));
    refused("flags of a discard", CALL(cuMemDiscardBatchAsync, at, bytes, RANGES, 1, stream));
    refused("flags of both", CALL(cuMemDiscardAndPrefetchBatchAsync, at, bytes, RANGES, places, first, 2, 1, stream));
    refused("more places than ranges", CALL(cuMemPrefetchBatchAsync, at, bytes, 1, places, first, 2, 0, stream));
    refused("no place", CALL(cuMemPrefetchBatchAsync, at, bytes, RANGES, places, first, 0, 0, stream));
    refused("places backwards", CALL(cuMemPrefetchBatchAsync, at, bytes, RANGES, places, backwards, 2, 0, stream));
    refused("a first range without a place", CALL(cuMemPrefetchBatchAsync, at, bytes, RANGES, places, late, 2, 0, stream));
    refused("the null stream", CALL(cuMemPrefetchBatchAsync, at, bytes, RANGES, places, first, 2, 0, nullptr));
    synchronize();
    NEEDS(cuMemFree_v2, (CUdeviceptr)memory);
    NEEDS(cuStreamDestroy_v2, stream);
    if (!failures) printf(PROGRAM ": ok, %zu ranges\n", RANGES);
    return failures != 0;
}
