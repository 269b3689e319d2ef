// Pools between two processes: one sends a pool as a descriptor and allocations of it by their 64 bytes; both read and write them by
// kernels; what an imported pool does not do, what is freed first by who imported it. The second process is this program again.
// `pool_ipc ask` also prints what the driver says where its documents say nothing. Ends with 77 where there are no such pools.
#define PROGRAM "pool_ipc"
#include "two.h"

static const size_t SMALL = 300000, LARGE = 5000004;
static CUdevice device;
static bool asks;

struct Message {
    char step[16];
    CUmemPoolPtrExportData pointers[2];
};

static void say(int to, const char *step, const CUmemPoolPtrExportData *pointers = nullptr, int fd = -1) {
    Message message = {};
    strcpy(message.step, step);
    if (pointers) memcpy(message.pointers, pointers, sizeof message.pointers);
    send_to(to, message, fd);
}

static Message hear(int from, const char *step, int *fd = nullptr) { return receive_from<Message>(from, step, fd); }

// What documents do not say: not 0, and which code to who asks.
static void refused(const char *what, int code) {
    expect(what, code != 0, 1);
    if (asks) printf("%s: %s: %d\n", PROGRAM, what, code);
}

static bool start() {
    NEEDS(cuInit, 0);
    int types = 0, count = 0;
    NEEDS(cuDeviceGetCount, &count);
    // The last of several.
    NEEDS(cuDeviceGet, &device, count - 1);
    NEEDS(cuDeviceGetAttribute, &types, CU_DEVICE_ATTRIBUTE_MEMPOOL_SUPPORTED_HANDLE_TYPES, device);
    if (!(types & CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)) return false;
    MUST(cudaSetDevice(device));
    MUST(cudaFree(nullptr));
    return true;
}

static CUmemoryPool make(CUmemAllocationHandleType types) {
    CUmemPoolProps properties = {};
    properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.handleTypes = types;
    properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    properties.location.id = device;
    CUmemoryPool pool = nullptr;
    NEEDS(cuMemPoolCreate, &pool, &properties);
    return pool;
}

static CUdeviceptr take(CUmemoryPool pool, size_t bytes) {
    CUdeviceptr at = 0;
    NEEDS(cuMemAllocFromPoolAsync, &at, bytes, pool, nullptr);
    return at;
}

static CUdeviceptr imported(CUmemoryPool pool, CUmemPoolPtrExportData data) {
    CUdeviceptr at = 0;
    NEEDS(cuMemPoolImportPointer, &at, pool, &data);
    return at;
}

static int child() {
    if (!start()) return 1;
    int fd = -1;
    Message given = hear(SOCKET, "pool", &fd);
    CUmemoryPool pool = nullptr;
    NEEDS(cuMemPoolImportFromShareableHandle, &pool, (void *)(size_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
    close(fd);
    CUdeviceptr none = 0;
    refused("an allocation of an imported pool", CALL(cuMemAllocFromPoolAsync, &none, SMALL, pool, nullptr));
    refused("an imported pool for a device", CALL(cuDeviceSetMemPool, device, pool));
    // Before the other frees; twice, as the other takes new memory.
    for (unsigned turn = 0; turn < 2; turn++) {
        CUdeviceptr small = imported(pool, given.pointers[0]), large = imported(pool, given.pointers[1]);
        CUmemoryPool home = nullptr;
        GIVES(0, cuPointerGetAttribute, &home, CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, large);
        expect("the pool of what was imported", home == pool, 1);
        holds("what the other has written", small, SMALL, 10 + turn);
        holds("what the other has written, larger", large, LARGE, 20 + turn);
        put(small, SMALL, 30 + turn);
        NEEDS(cuMemcpyDtoDAsync_v2, large, small, SMALL, nullptr);
        if (turn == 0) {
            GIVES(0, cuMemFreeAsync, small, nullptr);
            GIVES(0, cuMemFreeAsync, large, nullptr);
            MUST(cudaDeviceSynchronize());
        } else {
            MUST(cudaDeviceSynchronize());
            GIVES(0, cuMemFree_v2, small);
            GIVES(0, cuMemFree_v2, large);
        }
        say(SOCKET, "freed");
        if (turn == 0) given = hear(SOCKET, "pointers");
    }
    GIVES(0, cuMemPoolDestroy, pool);
    say(SOCKET, "done");
    return failures != 0;
}

static int parent(int other, pid_t process) {
    CUmemoryPool pool = make(CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR), plain = make(CU_MEM_HANDLE_TYPE_NONE);
    int fd = -1;
    refused("a pool that was not made for it", CALL(cuMemPoolExportToShareableHandle, &fd, plain, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    NEEDS(cuMemPoolExportToShareableHandle, &fd, pool, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
    CUmemPoolPtrExportData pointers[2];
    for (unsigned turn = 0; turn < 2; turn++) {
        CUdeviceptr small = take(pool, SMALL), large = take(pool, LARGE), apart = take(pool, SMALL);
        put(small, SMALL, 10 + turn);
        put(large, LARGE, 20 + turn);
        put(apart, SMALL, 5);
        NEEDS(cuMemPoolExportPointer, &pointers[0], small);
        NEEDS(cuMemPoolExportPointer, &pointers[1], large);
        if (turn == 0) {
            say(other, "pool", pointers, fd);
            close(fd);
        } else {
            say(other, "pointers", pointers);
        }
        hear(other, "freed");
        holds("what the other has written", small, SMALL, 30 + turn);
        holds("what the other has copied", large, SMALL, 30 + turn);
        holds("what the other never had", apart, SMALL, 5);
        for (CUdeviceptr at : {small, large, apart}) GIVES(0, cuMemFreeAsync, at, nullptr);
        MUST(cudaDeviceSynchronize());
    }
    CUdeviceptr own = take(plain, SMALL), no_pools = 0;
    refused("an allocation of a pool that is not shared", CALL(cuMemPoolExportPointer, &pointers[0], own));
    NEEDS(cuMemAlloc_v2, &no_pools, SMALL);
    refused("memory of no pool", CALL(cuMemPoolExportPointer, &pointers[0], no_pools));
    GIVES(0, cuMemFree_v2, no_pools);
    GIVES(0, cuMemFree_v2, own);
    hear(other, "done");
    GIVES(0, cuMemPoolDestroy, plain);
    GIVES(0, cuMemPoolDestroy, pool);
    ended(process);
    if (failures) return 1;
    printf("%s: ok, a pool of two processes\n", PROGRAM);
    return 0;
}

int main(int argc, char **argv) {
    asks = argc > 1 && !strcmp(argv[argc - 1], "ask");
    if (argc > 1 && !strcmp(argv[1], "child")) return child();
    int other = -1;
    pid_t process = start_another(argv[0], asks ? "ask" : nullptr, &other);
    if (start()) return parent(other, process);
    printf("%s: NOT TRIED: pools do not go to other processes here\n", PROGRAM);
    return 77;
}
