// Pinned host memory: copies both ways on two streams with events, sets, rows, one address for host and device, kernels that work in it
// without a copy, what is registered. `pinned answers` prints what the driver says of each kind of memory, to be compared by eye.
#include <cuda.h>
#include <cstring>
#include <vector>
#define PROGRAM "pinned"
#include "check.h"
#include "expect.h"

static const int COUNT = 3 << 16;
static const int ROUNDS = 6;

__global__ void mix(unsigned *values, int count, unsigned round) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
        values[i] = values[i] * 2654435761u + round;
}
__global__ void sum(const unsigned *values, int count, unsigned *total) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
        atomicAdd(total, values[i]);
}

// Each stream copies in, computes, copies out, round after round; the host fills a buffer again when the event says that it was read.
static void two_streams() {
    cudaStream_t streams[2];
    cudaEvent_t read[2], written[2];
    unsigned *in[2], *out[2], *device[2];
    for (int s = 0; s < 2; s++) {
        MUST(cudaStreamCreateWithFlags(&streams[s], cudaStreamNonBlocking));
        MUST(cudaEventCreateWithFlags(&read[s], cudaEventDisableTiming));
        MUST(cudaEventCreateWithFlags(&written[s], cudaEventDisableTiming));
        MUST(cudaMallocHost(&in[s], COUNT * sizeof(unsigned)));
        MUST(cudaMallocHost(&out[s], COUNT * sizeof(unsigned)));
        MUST(cudaMalloc(&device[s], COUNT * sizeof(unsigned)));
        memset(out[s], 0, COUNT * sizeof(unsigned));
    }
    std::vector<unsigned> wanted(COUNT);
    bool right = true;
    unsigned state = 1;
    for (unsigned round = 0; round < ROUNDS; round++) {
        int s = round % 2;
        MUST(cudaEventSynchronize(read[s]));
        for (int i = 0; i < COUNT; i++) in[s][i] = next_random(state);
        for (int i = 0; i < COUNT; i++) wanted[i] = in[s][i] * 2654435761u + round;
        MUST(cudaMemcpyAsync(device[s], in[s], COUNT * sizeof(unsigned), cudaMemcpyHostToDevice, streams[s]));
        MUST(cudaEventRecord(read[s], streams[s]));
        mix<<<16, 128, 0, streams[s]>>>(device[s], COUNT, round);
        MUST(cudaMemcpyAsync(out[s], device[s], COUNT * sizeof(unsigned), cudaMemcpyDeviceToHost, streams[s]));
        MUST(cudaEventRecord(written[s], streams[s]));
        // The other stream waits for this one and adds nothing.
        MUST(cudaStreamWaitEvent(streams[1 - s], written[s], 0));
        MUST(cudaEventSynchronize(written[s]));
        right = right && !memcmp(out[s], wanted.data(), COUNT * sizeof(unsigned));
    }
    check("a round trip of two streams", right);
    for (int s = 0; s < 2; s++) {
        MUST(cudaFreeHost(in[s]));
        MUST(cudaFreeHost(out[s]));
        MUST(cudaFree(device[s]));
        MUST(cudaEventDestroy(read[s]));
        MUST(cudaEventDestroy(written[s]));
        MUST(cudaStreamDestroy(streams[s]));
    }
}

static void in_place(bool can_map) {
    unsigned *host, *seen = nullptr, *total, expected = 0, got = 0;
    MUST(cudaHostAlloc(&host, COUNT * sizeof(unsigned), can_map ? cudaHostAllocMapped : cudaHostAllocDefault));
    for (int i = 0; i < COUNT; i++) host[i] = i;
    cudaError_t mapped = cudaHostGetDevicePointer(&seen, host, 0);
    if (!can_map) {
        check("a device address where none can be", mapped != cudaSuccess && cudaGetLastError() == mapped);
        MUST(cudaFreeHost(host));
        return;
    }
    check("the device address", mapped == cudaSuccess && seen == host);
    MUST(cudaMalloc(&total, sizeof(unsigned)));
    MUST(cudaMemset(total, 0, sizeof(unsigned)));
    mix<<<16, 128>>>(seen, COUNT, 3);
    sum<<<16, 128>>>(seen, COUNT, total);
    MUST(cudaMemcpy(&got, total, sizeof(unsigned), cudaMemcpyDeviceToHost));
    bool right = true;
    for (int i = 0; i < COUNT; i++) {
        unsigned value = i * 2654435761u + 3;
        right = right && host[i] == value;
        expected += value;
    }
    check("what a kernel wrote in place", right);
    check("what a kernel read in place", got == expected);
    MUST(cudaMemset(host, 0xa5, 4096));
    MUST(cudaDeviceSynchronize());
    check("a set", host[0] == 0xa5a5a5a5u && host[1023] == 0xa5a5a5a5u && host[1024] != 0xa5a5a5a5u);
    MUST(cudaFree(total));
    MUST(cudaFreeHost(host));
    printf("pinned: kernels reach pinned memory\n");
}

static void rows() {
    const int width = 96, height = 50, pitch = 160;
    unsigned char *host, *back;
    void *device;
    size_t device_pitch;
    cudaStream_t stream;
    MUST(cudaStreamCreate(&stream));
    MUST(cudaMallocHost(&host, pitch * height));
    MUST(cudaMallocHost(&back, width * height));
    MUST(cudaMallocPitch(&device, &device_pitch, width, height));
    for (int i = 0; i < pitch * height; i++) host[i] = (unsigned char)(i * 7 + i / pitch);
    MUST(cudaMemcpy2DAsync(device, device_pitch, host, pitch, width, height, cudaMemcpyHostToDevice, stream));
    MUST(cudaMemcpy2DAsync(back, width, device, device_pitch, width, height, cudaMemcpyDeviceToHost, stream));
    MUST(cudaStreamSynchronize(stream));
    bool right = true;
    for (int y = 0; y < height; y++) right = right && !memcmp(back + y * width, host + y * pitch, width);
    check("rows", right);
    MUST(cudaFree(device));
    MUST(cudaFreeHost(host));
    MUST(cudaFreeHost(back));
    MUST(cudaStreamDestroy(stream));
}

static void many_pieces() {
    std::vector<unsigned char *> pieces;
    for (int i = 1; i <= 200; i++) {
        unsigned char *piece;
        MUST(cudaMallocHost(&piece, i * 37));
        memset(piece, i, i * 37);
        pieces.push_back(piece);
    }
    bool right = true;
    for (int i = 1; i <= 200; i++) {
        for (int j = 0; j < i * 37; j++) right = right && pieces[i - 1][j] == (unsigned char)i;
        MUST(cudaFreeHost(pieces[i - 1]));
    }
    check("many pieces", right);
}

static void attributes(bool can_map) {
    char *host, plain[16];
    cudaPointerAttributes known;
    MUST(cudaMallocHost(&host, 1 << 20));
    MUST(cudaPointerGetAttributes(&known, host + 100));
    if (known.type != cudaMemoryTypeHost || known.device != 0)
        printf("pinned: memory of type %d on device %d\n", known.type, known.device);
    check("the type of pinned memory", known.type == cudaMemoryTypeHost && known.device == 0);
    check("its host address", known.hostPointer == host + 100);
    if (can_map) check("its device address", known.devicePointer == host + 100);
    MUST(cudaPointerGetAttributes(&known, plain));
    check("the type of other memory", known.type == cudaMemoryTypeUnregistered);
    MUST(cudaFreeHost(host));
    check("freeing it twice", cudaFreeHost(host) == cudaErrorInvalidValue && cudaGetLastError() == cudaErrorInvalidValue);
}

static void registered() {
    std::vector<unsigned> own(COUNT), back(COUNT);
    unsigned *device;
    for (int i = 0; i < COUNT; i++) own[i] = i * 3;
    MUST(cudaMalloc(&device, COUNT * sizeof(unsigned)));
    MUST(cudaHostRegister(own.data(), COUNT * sizeof(unsigned), cudaHostRegisterDefault));
    MUST(cudaMemcpyAsync(device, own.data(), COUNT * sizeof(unsigned), cudaMemcpyHostToDevice));
    mix<<<16, 128>>>(device, COUNT, 1);
    MUST(cudaMemcpyAsync(back.data(), device, COUNT * sizeof(unsigned), cudaMemcpyDeviceToHost));
    MUST(cudaDeviceSynchronize());
    MUST(cudaHostUnregister(own.data()));
    bool right = true;
    for (int i = 0; i < COUNT; i++) right = right && back[i] == own[i] * 2654435761u + 1;
    check("registered memory", right);
    MUST(cudaFree(device));
}

// The driver's own words, by its own calls: cudart has fewer.
static void answers() {
    typedef CUresult Get(void *, CUpointer_attribute, CUdeviceptr);
    typedef CUresult Flags(unsigned *, void *);
    Get *get;
    Flags *flags_of;
    cudaDriverEntryPointQueryResult found;
    MUST(cudaGetDriverEntryPointByVersion("cuPointerGetAttribute", (void **)&get, 12000, cudaEnableDefault, &found));
    MUST(cudaGetDriverEntryPointByVersion("cuMemHostGetFlags", (void **)&flags_of, 12000, cudaEnableDefault, &found));
    static char own[1 << 20];
    char *pinned, *small, *mapped, *device;
    MUST(cudaMallocHost(&pinned, 3 << 20));
    MUST(cudaMallocHost(&small, 100));
    MUST(cudaHostAlloc(&mapped, 3 << 20, cudaHostAllocMapped | cudaHostAllocPortable));
    MUST(cudaMalloc(&device, 3 << 20));
    MUST(cudaHostRegister(own, sizeof(own), cudaHostRegisterDefault));
    struct { const char *name; char *at; } kinds[] = {{"pinned", pinned}, {"small", small}, {"mapped", mapped},
                                                      {"registered", own}, {"device", device}};
    for (auto &kind : kinds) {
        unsigned flags = 0;
        int code = flags_of(&flags, kind.at);
        printf("pinned: %s at a multiple of %zu, flags %d: %u\n", kind.name,
               (size_t)((size_t)kind.at & -(size_t)kind.at), code, flags);
        for (int number = 1; number <= 21; number++) {
            if (number == 5) continue; // two words, and gone
            unsigned long long value = 0, twice = ~0ull;
            get(&twice, (CUpointer_attribute)number, (CUdeviceptr)(kind.at + 8));
            int answer = get(&value, (CUpointer_attribute)number, (CUdeviceptr)(kind.at + 8));
            bool address = value - (size_t)kind.at < 64 && answer == 0 && value != 0;
            int bytes = 8;
            while (bytes && (unsigned char)(twice >> (8 * bytes - 8)) == 0xff) bytes--;
            printf("pinned:   attribute %d: %d, %s%lld, in %d bytes\n", number, answer, address ? "start + " : "",
                   address ? (long long)(value - (size_t)kind.at) : (long long)value, bytes);
        }
    }
}

int main(int count, char **words) {
    int can_map = 0;
    MUST(cudaDeviceGetAttribute(&can_map, cudaDevAttrCanMapHostMemory, 0));
    if (count > 1 && !strcmp(words[1], "answers")) answers();
    two_streams();
    in_place(can_map);
    rows();
    many_pieces();
    attributes(can_map);
    registered();
    printf("pinned: %s, %d wrong\n", failures ? "failed" : "ok", failures);
    return failures ? 1 : 0;
}
