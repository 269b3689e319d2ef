// Device memory and events between two processes: allocations by handles of 64 bytes, memory without an address by descriptors, each
// read and written by kernels of both sides; work of one that waits for the other's; what is opened twice, what outlives its maker's use of it, what is refused. The second process
// is this program again, started before CUDA is; what they exchange goes over a socket. `ipc answers` prints the code of each wrong use that
// CUDA's documents leave open.
#define PROGRAM "ipc"
#include "two.h"
#include <vector>

static const size_t LARGE = 20 << 20, SMALL = 2 << 20, ODD = 5000004;
static CUdevice device;
static CUcontext context;

// One thread that takes its time.
__global__ void delay(unsigned *sink, unsigned steps) {
    unsigned state = sink[0];
    for (unsigned i = 0; i < steps; i++) state = state * 1664525u + 1013904223u;
    sink[1] = state;
}

// As `put`, after a while, and not waited for.
static void put_later(CUdeviceptr at, size_t bytes, unsigned first) {
    delay<<<1, 1>>>((unsigned *)at, 100000);
    number<<<64, 128>>>((unsigned *)at, bytes / 4, first);
    MUST(cudaGetLastError());
}

// A message, and a descriptor if there is one.
struct Message {
    char step[16];
    CUipcMemHandle memory[2];
    CUipcEventHandle event;
};

static void say(int to, const char *step, const CUipcMemHandle *memory = nullptr, int fd = -1,
                const CUipcEventHandle *event = nullptr) {
    Message message = {};
    strcpy(message.step, step);
    if (memory) memcpy(message.memory, memory, sizeof message.memory);
    if (event) message.event = *event;
    send_to(to, message, fd);
}

static Message hear(int from, const char *step, int *fd = nullptr) { return receive_from<Message>(from, step, fd); }

// The last device of several.
static void start() {
    int count = 0;
    NEEDS(cuInit, 0);
    NEEDS(cuDeviceGetCount, &count);
    NEEDS(cuDeviceGet, &device, count - 1);
    MUST(cudaSetDevice(count - 1));
    MUST(cudaFree(nullptr));
    NEEDS(cuCtxGetCurrent, &context);
}

static size_t granularity(CUmemAllocationProp *properties) {
    *properties = {};
    properties->type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties->location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    properties->location.id = device;
    properties->requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    size_t piece = 0;
    NEEDS(cuMemGetAllocationGranularity, &piece, properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
    return piece;
}

static CUdeviceptr show(CUmemGenericAllocationHandle memory, size_t bytes) {
    CUdeviceptr at = 0;
    NEEDS(cuMemAddressReserve, &at, bytes, 0, 0, 0);
    NEEDS(cuMemMap, at, bytes, 0, memory, 0);
    CUmemAccessDesc access = {};
    access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    access.location.id = device;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    NEEDS(cuMemSetAccess, at, bytes, &access, 1);
    return at;
}

static void hide(CUdeviceptr at, size_t bytes) {
    GIVES(0, cuMemUnmap, at, bytes);
    GIVES(0, cuMemAddressFree, at, bytes);
}

// Small allocations, of which a driver keeps many in one piece of memory.
static const int COUNT = 40, LOW = 7, HIGH = 23;
static size_t small_bytes(int place) { return place % 10 == 9 ? (1 << 20) + 4 : 4 * (1 + place * place * 97 % 4000); }

static void small_child() {
    Message given = hear(SOCKET, "small");
    CUdeviceptr low = 0, high = 0, again = 0;
    NEEDS(cuIpcOpenMemHandle_v2, &low, given.memory[0], CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
    NEEDS(cuIpcOpenMemHandle_v2, &high, given.memory[1], CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
    GIVES(0, cuIpcOpenMemHandle_v2, &again, given.memory[1], CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
    expect("a small one opened twice is at one address", again == high && low != high, 1);
    holds("a small one", low, small_bytes(LOW), 100 + LOW);
    holds("another small one", high, small_bytes(HIGH), 100 + HIGH);
    put(low, small_bytes(LOW), 60);
    GIVES(0, cuIpcCloseMemHandle, low);
    GIVES(0, cuIpcCloseMemHandle, high);
    put(high, small_bytes(HIGH), 61);
    GIVES(0, cuIpcCloseMemHandle, high);
    say(SOCKET, "closed");
    given = hear(SOCKET, "other's end");
    NEEDS(cuIpcOpenMemHandle_v2, &high, given.memory[1], CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
    holds("what is left of two small ones", high, small_bytes(HIGH), 61);
    GIVES(0, cuIpcCloseMemHandle, high);
    say(SOCKET, "closed");
}

static void small_parent(int other) {
    std::vector<CUdeviceptr> all(COUNT);
    for (int i = 0; i < COUNT; i++) {
        NEEDS(cuMemAlloc_v2, &all[i], small_bytes(i));
        expect("where a small one starts", all[i] % 256, 0);
        put(all[i], small_bytes(i), 100 + i);
    }
    CUipcMemHandle handles[2], same;
    NEEDS(cuIpcGetMemHandle, &handles[0], all[LOW]);
    NEEDS(cuIpcGetMemHandle, &handles[1], all[HIGH]);
    CUdeviceptr base = 0, own = 0;
    size_t bytes = 0;
    GIVES(0, cuMemGetAddressRange_v2, &base, &bytes, all[LOW] + 4);
    expect("where it starts", base == all[LOW], 1);
    GIVES(201, cuIpcOpenMemHandle_v2, &own, handles[0], CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
    say(other, "small", handles);
    hear(other, "closed");
    for (int i = 0; i < COUNT; i++) {
        int first = i == LOW ? 60 : i == HIGH ? 61 : 100 + i;
        holds("a small one, shared or beside one", all[i], small_bytes(i), first);
    }
    GIVES(0, cuMemFree_v2, all[LOW]);
    GIVES(1, cuMemFree_v2, all[LOW]);
    GIVES(0, cuIpcGetMemHandle, &same, all[HIGH]);
    expect("it has one handle", memcmp(&same, &handles[1], sizeof same), 0);
    say(other, "other's end", handles);
    hear(other, "closed");
    for (int i = 0; i < COUNT; i++)
        if (i != LOW) GIVES(0, cuMemFree_v2, all[i]);
}

// The first device reaches what the last one allocates while it may, what others have of it included.
static void reach(CUdeviceptr at, size_t bytes, unsigned first) {
    int can = 0, last = device;
    MUST(cudaDeviceCanAccessPeer(&can, 0, last));
    if (last == 0 || !can) return;
    CUdeviceptr after = 0;
    MUST(cudaSetDevice(0));
    MUST(cudaDeviceEnablePeerAccess(last, 0));
    holds("what the first device reads of the last", at, bytes, first);
    MUST(cudaSetDevice(last));
    NEEDS(cuMemAlloc_v2, &after, bytes);
    put(after, bytes, 3);
    MUST(cudaSetDevice(0));
    holds("what the last allocated later", after, bytes, 3);
    put(after, bytes, 4);
    MUST(cudaDeviceDisablePeerAccess(last));
    MUST(cudaSetDevice(last));
    holds("what the first device has written", after, bytes, 4);
    GIVES(0, cuMemFree_v2, after);
}

// The process that gets things.
static int child() {
    start();
    Message given = hear(SOCKET, "allocations");
    CUdeviceptr large = 0, odd = 0, again = 0;
    NEEDS(cuIpcOpenMemHandle_v2, &large, given.memory[0], CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
    NEEDS(cuIpcOpenMemHandle_v2, &odd, given.memory[1], CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
    GIVES(0, cuIpcOpenMemHandle_v2, &again, given.memory[0], CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
    expect("opened twice it is at one address", again == large, 1);
    GIVES(1, cuIpcOpenMemHandle_v2, &again, given.memory[0], 0);
    holds("what the other has written", large, LARGE, 5);
    holds("what the other has written, of odd length", odd, ODD, 6);
    put(large, LARGE, 7);
    GIVES(0, cuMemcpyDtoD_v2, odd, large, ODD);
    MUST(cudaDeviceSynchronize());
    GIVES(0, cuIpcCloseMemHandle, large);
    holds("what is open once more", large, LARGE, 7);
    GIVES(0, cuIpcCloseMemHandle, large);
    GIVES(0, cuIpcCloseMemHandle, odd);
    // A handle opens as often as its maker has the memory.
    NEEDS(cuIpcOpenMemHandle_v2, &large, given.memory[0], CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
    holds("what was opened anew", large, LARGE, 7);
    GIVES(0, cuIpcCloseMemHandle, large);
    say(SOCKET, "closed");
    small_child();

    int fd = -1;
    hear(SOCKET, "memory", &fd);
    CUmemAllocationProp properties;
    size_t bytes = 3 * granularity(&properties);
    CUmemGenericAllocationHandle memory = 0;
    NEEDS(cuMemImportFromShareableHandle, &memory, (void *)(size_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    close(fd);
    CUdeviceptr at = show(memory, bytes);
    GIVES(0, cuMemRelease, memory);
    holds("memory that was imported", at, bytes, 8);
    put(at, bytes, 9);
    say(SOCKET, "written");
    hear(SOCKET, "let go");
    holds("what its maker has no more", at, bytes, 9);
    hide(at, bytes);

    given = hear(SOCKET, "event");
    CUevent event = nullptr;
    NEEDS(cuIpcOpenEventHandle, &event, given.event);
    NEEDS(cuIpcOpenMemHandle_v2, &large, given.memory[0], CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
    for (unsigned turn = 0; turn < 3; turn++) {
        // Nothing but the stream waits.
        NEEDS(cuStreamWaitEvent, nullptr, event, 0);
        holds("what the other wrote before its record", large, SMALL, 20 + turn);
        put_later(large, SMALL, 30 + turn);
        NEEDS(cuEventRecord, event, nullptr);
        say(SOCKET, "recorded");
        hear(SOCKET, "event");
    }
    GIVES(0, cuEventSynchronize, event);
    GIVES(0, cuEventQuery, event);
    GIVES(0, cuEventDestroy_v2, event);
    GIVES(0, cuIpcCloseMemHandle, large);
    say(SOCKET, "done");
    return failures != 0;
}

static int parent(int other, pid_t process) {
    start();
    CUdeviceptr large = 0, odd = 0, own = 0;
    NEEDS(cuMemAlloc_v2, &large, LARGE);
    NEEDS(cuMemAlloc_v2, &odd, ODD);
    put(large, LARGE, 5);
    put(odd, ODD, 6);
    CUipcMemHandle handles[2], same;
    NEEDS(cuIpcGetMemHandle, &handles[0], large);
    NEEDS(cuIpcGetMemHandle, &handles[1], odd);
    GIVES(0, cuIpcGetMemHandle, &same, large);
    expect("asked twice it is one handle", memcmp(&same, &handles[0], sizeof same), 0);
    GIVES(1, cuIpcGetMemHandle, &same, 0);
    // A process does not open its own.
    GIVES(201, cuIpcOpenMemHandle_v2, &own, handles[0], CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
    say(other, "allocations", handles);
    hear(other, "closed");
    holds("what the other has written", large, LARGE, 7);
    holds("what the other has copied", odd, ODD, 7);
    reach(large, LARGE, 7);
    GIVES(0, cuMemFree_v2, large);
    GIVES(0, cuMemFree_v2, odd);
    small_parent(other);

    CUmemAllocationProp properties;
    size_t bytes = 3 * granularity(&properties);
    CUmemGenericAllocationHandle memory = 0, plain = 0;
    NEEDS(cuMemCreate, &memory, bytes, &properties, 0);
    CUdeviceptr at = show(memory, bytes);
    put(at, bytes, 8);
    int fd = -1;
    NEEDS(cuMemExportToShareableHandle, &fd, memory, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
    say(other, "memory", nullptr, fd);
    close(fd);
    // Its own a process imports as another's.
    NEEDS(cuMemExportToShareableHandle, &fd, memory, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
    NEEDS(cuMemImportFromShareableHandle, &plain, (void *)(size_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    close(fd);
    CUdeviceptr again = show(plain, bytes);
    hear(other, "written");
    holds("what the other has written to memory", at, bytes, 9);
    holds("the same at another address", again, bytes, 9);
    GIVES(0, cuMemRelease, plain);
    hide(again, bytes);
    GIVES(0, cuMemRelease, memory);
    hide(at, bytes);
    say(other, "let go");

    CUevent event = nullptr, timed = nullptr;
    CUipcEventHandle event_handle;
    GIVES(1, cuEventCreate, &timed, CU_EVENT_INTERPROCESS);
    NEEDS(cuEventCreate, &event, CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING);
    NEEDS(cuMemAlloc_v2, &large, SMALL);
    NEEDS(cuIpcGetMemHandle, &handles[0], large);
    put_later(large, SMALL, 20);
    NEEDS(cuEventRecord, event, nullptr);
    NEEDS(cuIpcGetEventHandle, &event_handle, event);
    say(other, "event", handles, -1, &event_handle);
    for (unsigned turn = 0; turn < 3; turn++) {
        hear(other, "recorded");
        NEEDS(cuStreamWaitEvent, nullptr, event, 0);
        holds("what the other wrote before its record", large, SMALL, 30 + turn);
        put_later(large, SMALL, 21 + turn);
        NEEDS(cuEventRecord, event, nullptr);
        say(other, "event");
    }
    hear(other, "done");
    GIVES(0, cuEventSynchronize, event);
    GIVES(0, cuEventDestroy_v2, event);
    GIVES(0, cuMemFree_v2, large);
    properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_NONE;
    NEEDS(cuMemCreate, &plain, bytes, &properties, 0);
    GIVES(1, cuMemExportToShareableHandle, &fd, plain, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
    GIVES(0, cuMemRelease, plain);

    ended(process);
    if (failures) return 1;
    printf("%s: ok, allocations, memory and events of two processes\n", PROGRAM);
    return 0;
}

#define SAY(name, ...) printf("%-28s %d\n", #name "(" #__VA_ARGS__ ")", CALL(name, __VA_ARGS__)), fflush(stdout)
static int answers() {
    start();
    CUdeviceptr at = 0, managed = 0, opened = 0;
    CUevent plain, event;
    CUipcMemHandle handle = {}, nothing = {};
    CUipcEventHandle of_event = {}, of_nothing = {};
    CUmemAllocationProp properties;
    size_t bytes = granularity(&properties);
    CUmemGenericAllocationHandle memory, imported;
    int fd = -1;
    NEEDS(cuMemAlloc_v2, &at, SMALL);
    NEEDS(cuMemAllocManaged, &managed, SMALL, CU_MEM_ATTACH_GLOBAL);
    NEEDS(cuEventCreate, &plain, CU_EVENT_DISABLE_TIMING);
    NEEDS(cuEventCreate, &event, CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING);
    NEEDS(cuMemCreate, &memory, bytes, &properties, 0);
    NEEDS(cuIpcGetMemHandle, &handle, at);
    SAY(cuIpcGetMemHandle, nullptr, at);
    SAY(cuIpcGetMemHandle, &nothing, at + 4096);
    SAY(cuIpcGetMemHandle, &nothing, managed);
    SAY(cuIpcGetMemHandle, &nothing, 4096);
    memset(&nothing, 0, sizeof nothing);
    SAY(cuIpcOpenMemHandle_v2, &opened, nothing, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
    SAY(cuIpcOpenMemHandle_v2, &opened, handle, 0);
    SAY(cuIpcOpenMemHandle_v2, &opened, handle, 3);
    SAY(cuIpcCloseMemHandle, at);
    SAY(cuIpcCloseMemHandle, 0);
    SAY(cuIpcGetEventHandle, &of_event, plain);
    SAY(cuIpcGetEventHandle, &of_event, nullptr);
    SAY(cuIpcGetEventHandle, &of_event, event);
    SAY(cuIpcOpenEventHandle, &plain, of_event);
    SAY(cuIpcOpenEventHandle, &plain, of_nothing);
    SAY(cuMemExportToShareableHandle, &fd, memory, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 1);
    SAY(cuMemExportToShareableHandle, &fd, memory, CU_MEM_HANDLE_TYPE_NONE, 0);
    SAY(cuMemExportToShareableHandle, &fd, 0, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
    SAY(cuMemImportFromShareableHandle, &imported, (void *)(size_t)-1, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    SAY(cuMemImportFromShareableHandle, &imported, (void *)(size_t)STDOUT_FILENO, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    SAY(cuMemImportFromShareableHandle, &imported, nullptr, CU_MEM_HANDLE_TYPE_NONE);
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "child")) return child();
    if (argc > 1 && !strcmp(argv[1], "answers")) return answers();
    int other = -1;
    pid_t process = start_another(argv[0], nullptr, &other);
    return parent(other, process);
}
