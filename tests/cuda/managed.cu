// Managed memory: host and kernels take turns in it, of many sizes, on two streams, through copies of each kind, sets, rows and graphs; what
// is advised, prefetched and attached. Where a device has no concurrent access to it (attribute 89) CUDA lets nobody ask for it on the
// device; such a device answers 101, and so it is asked. `managed answers` prints what the driver says where the documents say nothing.
#include <cuda.h>
#include <cstring>
#include <vector>
#define PROGRAM "managed"
#include "check.h"
#include "expect.h"

static const int COUNT = 3 << 14;
static const unsigned FACTOR = 2654435761u;

struct Node {
    unsigned value;
    Node *next;
};

__global__ void mix(unsigned *values, size_t count, unsigned round) {
    size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) values[i] = values[i] * FACTOR + round;
}
__global__ void count_odd(const unsigned *values, int count, unsigned *odd) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
        if (values[i] & 1) atomicAdd(odd, 1u);
}
// Walks a list that the host made, and puts a node of the host's in front.
__global__ void walk(Node **first, Node *fresh, unsigned *sum) {
    *sum = 0;
    for (Node *node = *first; node; node = node->next) *sum += node->value++;
    fresh->next = *first;
    *first = fresh;
}

// The error that a call gave, which is no longer the last one.
static cudaError_t told(cudaError_t error) {
    cudaGetLastError();
    return error;
}
template <typename T> static T *managed(size_t count, unsigned flags = cudaMemAttachGlobal) {
    T *memory;
    MUST(cudaMallocManaged(&memory, count * sizeof(T), flags));
    return memory;
}

static void sizes() {
    bool right = true;
    unsigned state = 1;
    for (size_t bytes : {4, 12, 100, 512, 4096, 4100, 65536, 524288, 524292, 1 << 20, 5 << 20}) {
        size_t count = bytes / 4;
        unsigned *values = managed<unsigned>(count);
        std::vector<unsigned> wanted(count);
        for (unsigned round = 1; round <= 3; round++) {
            for (size_t i = 0; i < count; i += 1 + count / 5000) values[i] = wanted[i] = next_random(state);
            mix<<<16, 128>>>(values, count, round);
            MUST(cudaDeviceSynchronize());
            for (size_t i = 0; i < count; i += 1 + count / 5000) {
                wanted[i] = wanted[i] * FACTOR + round;
                right = right && values[i] == wanted[i];
            }
        }
        MUST(cudaFree(values));
    }
    check("memory of some size", right);
    // Many at once, freed in another order, and again.
    for (int round = 0; round < 3; round++) {
        std::vector<unsigned *> pieces;
        for (int i = 0; i < 150; i++) {
            unsigned *piece = managed<unsigned>(1 + i * 13);
            for (int j = 0; j <= i * 13; j++) piece[j] = i;
            pieces.push_back(piece);
        }
        for (int i = 0; i < 150; i += 2) mix<<<1, 64>>>(pieces[i], 1 + i * 13, round);
        MUST(cudaDeviceSynchronize());
        for (int k = 0; k < 150; k++) {
            int i = k * 77 % 150;
            for (int j = 0; j <= i * 13; j++) right = right && pieces[i][j] == (i % 2 ? i : i * FACTOR + round);
            MUST(cudaFree(pieces[i]));
        }
    }
    check("one of many pieces", right);
}

static void pointers_in_it() {
    Node **first = managed<Node *>(1);
    unsigned *sum = managed<unsigned>(1), expected = 0;
    *first = nullptr;
    for (unsigned i = 1; i <= 100; i++) {
        Node *node = managed<Node>(1);
        *node = {i, *first};
        *first = node;
        expected += i;
    }
    Node *fresh = managed<Node>(1);
    *fresh = {1000, nullptr};
    walk<<<1, 1>>>(first, fresh, sum);
    MUST(cudaDeviceSynchronize());
    bool right = *sum == expected && *first == fresh;
    unsigned nodes = 0, total = 0;
    while (Node *node = *first) {
        nodes++;
        total += node->value;
        *first = node->next;
        MUST(cudaFree(node));
    }
    check("a list", right && nodes == 101 && total == expected + 100 + 1000);
    unsigned *values = managed<unsigned>(COUNT), odd = 0;
    for (int i = 0; i < COUNT; i++) odd += (values[i] = i * FACTOR) & 1;
    *sum = 0;
    count_odd<<<16, 128>>>(values, COUNT, sum);
    MUST(cudaDeviceSynchronize());
    check("what kernels counted in it", *sum == odd);
    MUST(cudaFree(values));
    MUST(cudaFree(sum));
    MUST(cudaFree(first));
}

// Each stream has its own memory, which the host uses when that stream is done.
static void two_streams() {
    cudaStream_t streams[2];
    unsigned *memory[2];
    std::vector<unsigned> wanted[2];
    for (int s = 0; s < 2; s++) {
        MUST(cudaStreamCreateWithFlags(&streams[s], cudaStreamNonBlocking));
        memory[s] = managed<unsigned>(COUNT, cudaMemAttachHost);
        MUST(cudaStreamAttachMemAsync(streams[s], memory[s], 0, cudaMemAttachSingle));
        MUST(cudaStreamSynchronize(streams[s]));
        wanted[s].assign(COUNT, s);
        for (int i = 0; i < COUNT; i++) memory[s][i] = s;
    }
    bool right = true;
    for (unsigned round = 0; round < 6; round++) {
        int s = round % 2;
        mix<<<16, 128, 0, streams[s]>>>(memory[s], COUNT, round);
        MUST(cudaStreamSynchronize(streams[s]));
        for (int i = 0; i < COUNT; i++) {
            wanted[s][i] = wanted[s][i] * FACTOR + round;
            right = right && memory[s][i] == wanted[s][i];
            memory[s][i] = wanted[s][i] += i;
        }
    }
    check("the memory of a stream", right);
    check("half of it attached", told(cudaStreamAttachMemAsync(streams[0], memory[0], COUNT, cudaMemAttachGlobal)) != cudaSuccess);
    for (int s = 0; s < 2; s++) {
        MUST(cudaStreamAttachMemAsync(streams[s], memory[s], 0, cudaMemAttachGlobal));
        MUST(cudaStreamSynchronize(streams[s]));
        MUST(cudaFree(memory[s]));
        MUST(cudaStreamDestroy(streams[s]));
    }
}

static void copies() {
    const size_t bytes = COUNT * sizeof(unsigned);
    unsigned *one = managed<unsigned>(COUNT), *other = managed<unsigned>(COUNT), *device, *pinned;
    std::vector<unsigned> own(COUNT), back(COUNT);
    MUST(cudaMalloc(&device, bytes));
    MUST(cudaMallocHost(&pinned, bytes));
    unsigned state = 7;
    struct { cudaMemcpyKind kind; void *to, *from; } ways[] = {
        {cudaMemcpyHostToDevice, one, own.data()},    {cudaMemcpyHostToDevice, one, pinned}, {cudaMemcpyHostToDevice, device, one},
        {cudaMemcpyHostToDevice, other, one},         {cudaMemcpyDeviceToHost, one, device}, {cudaMemcpyDeviceToHost, back.data(), one},
        {cudaMemcpyDeviceToHost, pinned, one},        {cudaMemcpyDeviceToDevice, one, device}, {cudaMemcpyDeviceToDevice, device, one},
        {cudaMemcpyDeviceToDevice, other, one},       {cudaMemcpyDefault, one, own.data()},  {cudaMemcpyDefault, one, device},
        {cudaMemcpyDefault, device, one},             {cudaMemcpyDefault, pinned, one},      {cudaMemcpyDefault, back.data(), one},
        {cudaMemcpyDefault, other, one},              {cudaMemcpyHostToHost, other, one},    {cudaMemcpyHostToHost, back.data(), one},
    };
    int number = 0;
    for (auto &way : ways) {
        for (int async = 0; async < 2; async++) {
            // Fresh bytes at the source, by the host or by a copy.
            std::vector<unsigned> sent(COUNT);
            for (unsigned &word : sent) word = next_random(state);
            if (way.from == device) MUST(cudaMemcpy(device, sent.data(), bytes, cudaMemcpyHostToDevice));
            else memcpy(way.from, sent.data(), bytes);
            if (async) {
                MUST(cudaMemcpyAsync(way.to, way.from, bytes, way.kind));
                MUST(cudaDeviceSynchronize());
            } else {
                MUST(cudaMemcpy(way.to, way.from, bytes, way.kind));
                // Between two places of a device CUDA promises no more than their order.
                if (way.kind == cudaMemcpyDeviceToDevice) MUST(cudaDeviceSynchronize());
            }
            std::vector<unsigned> got(COUNT);
            if (way.to == device) MUST(cudaMemcpy(got.data(), device, bytes, cudaMemcpyDeviceToHost));
            else memcpy(got.data(), way.to, bytes);
            if (got != sent) printf("managed: copy %d, %s, is wrong\n", number, async ? "asynchronous" : "synchronous");
            failures += got != sent;
        }
        number++;
    }
    MUST(cudaMemset(one, 0xa5, 4096));
    MUST(cudaMemsetAsync(other, 0x5a, 4096));
    MUST(cudaDeviceSynchronize());
    check("a set", one[0] == 0xa5a5a5a5u && one[1023] == 0xa5a5a5a5u && other[0] == 0x5a5a5a5au && other[1023] == 0x5a5a5a5au);
    // Rows of 96 bytes, to others that are further apart, and back.
    char *rows = (char *)one, *apart = (char *)other;
    for (int i = 0; i < 96 * 40; i++) rows[i] = (char)(i * 7);
    MUST(cudaMemcpy2D(device, 256, rows, 96, 96, 40, cudaMemcpyHostToDevice));
    MUST(cudaMemcpy2D(apart, 160, device, 256, 96, 40, cudaMemcpyDefault));
    MUST(cudaDeviceSynchronize());
    bool right = true;
    for (int y = 0; y < 40; y++) right = right && !memcmp(apart + y * 160, rows + y * 96, 96);
    check("rows", right);
    MUST(cudaFree(one));
    MUST(cudaFree(other));
    MUST(cudaFree(device));
    MUST(cudaFreeHost(pinned));
}

static void graph() {
    cudaStream_t stream;
    cudaGraph_t captured;
    cudaGraphExec_t exec;
    unsigned *values = managed<unsigned>(COUNT), *copy = managed<unsigned>(COUNT);
    MUST(cudaStreamCreate(&stream));
    MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    mix<<<16, 128, 0, stream>>>(values, COUNT, 5);
    MUST(cudaMemcpyAsync(copy, values, COUNT * sizeof(unsigned), cudaMemcpyDeviceToDevice, stream));
    MUST(cudaMemsetAsync(values, 0, 16, stream));
    MUST(cudaStreamEndCapture(stream, &captured));
    MUST(cudaGraphInstantiate(&exec, captured, 0));
    bool right = true;
    for (unsigned round = 0; round < 3; round++) {
        for (int i = 0; i < COUNT; i++) values[i] = i + round;
        MUST(cudaGraphLaunch(exec, stream));
        MUST(cudaStreamSynchronize(stream));
        for (int i = 0; i < COUNT; i++) {
            unsigned wanted = (i + round) * FACTOR + 5;
            right = right && copy[i] == wanted && values[i] == (i < 4 ? 0 : wanted);
        }
    }
    check("what a graph did", right);
    MUST(cudaGraphExecDestroy(exec));
    MUST(cudaGraphDestroy(captured));
    MUST(cudaStreamDestroy(stream));
    MUST(cudaFree(values));
    MUST(cudaFree(copy));
}

static void attributes(bool concurrent) {
    char *memory = managed<char>(1 << 20), own[16], *pinned;
    cudaPointerAttributes known;
    MUST(cudaPointerGetAttributes(&known, memory + 100));
    check("its type", known.type == cudaMemoryTypeManaged && known.device == 0);
    check("its addresses", known.devicePointer == memory + 100 && known.hostPointer == memory + 100);
    MUST(cudaMallocHost(&pinned, 100));
    MUST(cudaPointerGetAttributes(&known, pinned));
    check("the type of pinned memory", known.type == cudaMemoryTypeHost);
    MUST(cudaFreeHost(pinned));

    // What a device without concurrent access says of itself.
    cudaError_t of_device = concurrent ? cudaSuccess : cudaErrorInvalidDevice;
    cudaMemLocation host = {cudaMemLocationTypeHost, 0}, device = {cudaMemLocationTypeDevice, 0}, none = {cudaMemLocationTypeDevice, 99};
    memory[0] = 42;
    check("a prefetch to the device", told(cudaMemPrefetchAsync(memory, 1 << 20, device, 0)) == of_device);
    MUST(cudaDeviceSynchronize());
    check("a prefetch to the host", told(cudaMemPrefetchAsync(memory, 1 << 20, host, 0)) == of_device);
    check("a prefetch to nowhere", told(cudaMemPrefetchAsync(memory, 1 << 20, none, 0)) == cudaErrorInvalidDevice);
    MUST(cudaDeviceSynchronize());
    check("a prefetch of other memory", told(cudaMemPrefetchAsync(own, 16, host, 0)) != cudaSuccess || concurrent);
    check("a prefetched byte", memory[0] == 42);
    int prefetched = 0;
    MUST(cudaMemRangeGetAttribute(&prefetched, 4, cudaMemRangeAttributeLastPrefetchLocation, memory, 1 << 20));
    check("the last prefetch", prefetched == (concurrent ? cudaCpuDeviceId : cudaInvalidDeviceId));

    check("a preferred device", told(cudaMemAdvise(memory, 1 << 20, cudaMemAdviseSetPreferredLocation, device)) == of_device);
    check("an accessing device", told(cudaMemAdvise(memory, 1 << 20, cudaMemAdviseSetAccessedBy, device)) == of_device);
    MUST(cudaMemAdvise(memory, 1 << 20, cudaMemAdviseSetPreferredLocation, host));
    MUST(cudaMemAdvise(memory, 8192, cudaMemAdviseSetReadMostly, device));
    int preferred = 0, read_mostly[3] = {9, 9, 9};
    MUST(cudaMemRangeGetAttribute(&preferred, 4, cudaMemRangeAttributePreferredLocation, memory, 1 << 20));
    MUST(cudaMemRangeGetAttribute(&read_mostly[0], 4, cudaMemRangeAttributeReadMostly, memory, 8192));
    MUST(cudaMemRangeGetAttribute(&read_mostly[1], 4, cudaMemRangeAttributeReadMostly, memory, 1 << 20));
    MUST(cudaMemAdvise(memory, 4096, cudaMemAdviseUnsetReadMostly, device));
    MUST(cudaMemRangeGetAttribute(&read_mostly[2], 4, cudaMemRangeAttributeReadMostly, memory, 8192));
    check("the preferred place", preferred == cudaCpuDeviceId);
    check("what is mostly read", read_mostly[0] == 1 && read_mostly[1] == 0 && read_mostly[2] == 0);
    mix<<<16, 128>>>((unsigned *)memory, (1 << 20) / 4, 1);
    MUST(cudaDeviceSynchronize());
    check("advised memory", *(unsigned *)memory % 256 == (42 * FACTOR + 1) % 256);

    MUST(cudaFree(memory));
    check("freeing it twice", told(cudaFree(memory)) == cudaErrorInvalidValue);
    void *nothing = nullptr;
    check("flags that there are not", told(cudaMallocManaged(&nothing, 64, 8)) == cudaErrorInvalidValue);
}

// A variable of a library, by its name; where there is no managed memory, such a library is not supported.
static void variable(bool is_there) {
    static const char ptx[] = ".version 7.5\n.target sm_75\n.address_size 64\n"
        ".visible .global .attribute(.managed) .align 4 .u32 counter;\n"
        ".visible .entry bump() { .reg .u32 %r<2>; ld.global.u32 %r1, [counter]; add.u32 %r1, %r1, 1; st.global.u32 [counter], %r1; ret; }\n";
    cudaLibrary_t library;
    cudaError_t loaded = told(cudaLibraryLoadData(&library, ptx, nullptr, nullptr, 0, nullptr, nullptr, 0));
    if (!is_there) return check("a library with a managed variable", loaded == cudaErrorNotSupported);
    MUST(loaded);
    unsigned *counter;
    size_t bytes;
    cudaKernel_t bump;
    MUST(cudaLibraryGetManaged((void **)&counter, &bytes, library, "counter"));
    MUST(cudaLibraryGetKernel(&bump, library, "bump"));
    *counter = 41;
    MUST(cudaLaunchKernel((const void *)bump, dim3(1), dim3(1), nullptr, 0, 0));
    MUST(cudaDeviceSynchronize());
    check("a managed variable", bytes == 4 && *counter == 42);
    MUST(cudaLibraryUnload(library));
}

template <typename F> static F *driver(const char *name) {
    F *function;
    cudaDriverEntryPointQueryResult found;
    MUST(cudaGetDriverEntryPointByVersion(name, (void **)&function, 13000, cudaEnableDefault, &found));
    return function;
}

// The driver's own words, by its own calls.
static void answers() {
    char *memory = managed<char>(1 << 20);
    auto *get = driver<CUresult(void *, CUpointer_attribute, CUdeviceptr)>("cuPointerGetAttribute");
    for (int number = 1; number <= 21; number++) {
        if (number == 5) continue; // two words, and gone
        unsigned long long value = 0;
        int answer = get(&value, (CUpointer_attribute)number, (CUdeviceptr)(memory + 8));
        bool address = answer == 0 && value - (size_t)memory < 64;
        printf("managed:   attribute %d: %d, %s%lld\n", number, answer, address ? "start + " : "",
               address ? (long long)(value - (size_t)memory) : (long long)value);
    }
    unsigned flags = 0;
    CUdeviceptr seen = 0;
    size_t length = 0;
    void *word = &flags;
    printf("managed:   flags of pinned memory: %d\n", driver<CUresult(unsigned *, void *)>("cuMemHostGetFlags")(&flags, memory));
    printf("managed:   device address as pinned memory: %d\n",
           driver<CUresult(CUdeviceptr *, void *, unsigned)>("cuMemHostGetDevicePointer")(&seen, memory, 0));
    int ranged = driver<CUresult(CUdeviceptr *, size_t *, CUdeviceptr)>("cuMemGetAddressRange")(&seen, &length, (CUdeviceptr)memory + 9);
    printf("managed:   range: %d, start + %lld, %zu bytes\n", ranged, (long long)(seen - (CUdeviceptr)memory), length);
    printf("managed:   registered: %d\n", driver<CUresult(void *, size_t, unsigned)>("cuMemHostRegister")(memory, 4096, 0));
    printf("managed:   freed as pinned memory: %d\n", driver<CUresult(void *)>("cuMemFreeHost")(memory));
    auto *attach = driver<CUresult(CUstream, CUdeviceptr, size_t, unsigned)>("cuStreamAttachMemAsync");
    printf("managed:   attached to the legacy stream alone: %d, half: %d, with no flag: %d, memory of the program: %d\n",
           attach(nullptr, (CUdeviceptr)memory, 0, 4), attach(nullptr, (CUdeviceptr)memory, 4096, 1),
           attach(nullptr, (CUdeviceptr)memory, 0, 0), attach(nullptr, (CUdeviceptr)word, 4, 1));
    auto *advise = driver<CUresult(CUdeviceptr, size_t, CUmem_advise, CUmemLocation)>("cuMemAdvise");
    CUmemLocation nowhere = {(CUmemLocationType)0, 0}, node = {CU_MEM_LOCATION_TYPE_HOST_NUMA, 0};
    for (int advice = 0; advice <= 7; advice++)
        printf("managed:   advice %d of no place: %d, of a node: %d\n", advice,
               advise((CUdeviceptr)memory, 4096, (CUmem_advise)advice, nowhere),
               advise((CUdeviceptr)memory, 4096, (CUmem_advise)advice, node));
    auto *ask = driver<CUresult(void *, size_t, CUmem_range_attribute, CUdeviceptr, size_t)>("cuMemRangeGetAttribute");
    for (int number = 0; number <= 9; number++) {
        int value = 99;
        int answer = ask(&value, 4, (CUmem_range_attribute)number, (CUdeviceptr)memory + 8192, 4096);
        printf("managed:   attribute %d of a range: %d, %d\n", number, answer, value);
    }
    auto *write = driver<CUresult(CUstream, CUdeviceptr, cuuint32_t, unsigned)>("cuStreamWriteValue32");
    int written = write(nullptr, (CUdeviceptr)memory, 5, 0), after = (int)told(cudaDeviceSynchronize());
    printf("managed:   a word written by a stream: %d, then %d\n", written, after);
    MUST(cudaFree(memory));
}

int main(int count, char **words) {
    int is_there = 0, concurrent = 0;
    MUST(cudaDeviceGetAttribute(&is_there, cudaDevAttrManagedMemory, 0));
    MUST(cudaDeviceGetAttribute(&concurrent, cudaDevAttrConcurrentManagedAccess, 0));
    if (is_there) {
        if (count > 1 && !strcmp(words[1], "answers")) answers();
        sizes();
        pointers_in_it();
        two_streams();
        copies();
        graph();
        attributes(concurrent);
    } else {
        void *nothing = nullptr;
        check("memory where there can be none", told(cudaMallocManaged(&nothing, 64)) == cudaErrorNotSupported);
    }
    variable(is_there);
    printf("managed: %s, %d wrong\n", failures ? "failed" : "ok", failures);
    return failures ? 1 : 0;
}
