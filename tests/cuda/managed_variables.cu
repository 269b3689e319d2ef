// Managed variables: host code and kernels name them, at one address: first values, arrays, structures, pointers among them, atomics,
// copies by their symbols, what is told of them. Built twice: as PTX, and with machine code for compute capability 9.0 beside it.
// `managed_variables answers` prints what a driver says where the documents say nothing.
#include <cstring>
#include <cuda_runtime.h>
#define PROGRAM "managed_variables"
#include "check.h"
#include "expect.h"

static const int COUNT = 1000;

struct Pair {
    double value;
    int *to;
};

__managed__ int number = 5;
__managed__ unsigned char bytes[7] = {1, 2, 3, 4, 5, 6, 7};
__managed__ float table[COUNT];
__managed__ int *pointer;
__managed__ unsigned counter;
__managed__ Pair pairs[3] = {{0.5, nullptr}, {-2.25, nullptr}};
__managed__ float4 wide = {1, 2, 3, 4};
__managed__ int *seen[2];
__device__ int plain = 7;
__device__ int *to_number;

__device__ __noinline__ int add_to(int *place, int what) { return *place += what; }

__global__ void remember() { to_number = &number; }
// Each thread reads several of them, one writes.
__global__ void step(int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < COUNT) table[i] = table[i] * 2 + n + bytes[i % 7] + plain;
    atomicAdd(&counter, 1u);
    if (i == 0) {
        add_to(&number, n);
        add_to(pointer, 100);
        pairs[2].value = pairs[0].value + pairs[1].value;
        pairs[2].to = &number;
        wide = make_float4(wide.w, wide.z, wide.y, wide.x);
        seen[0] = to_number;
        seen[1] = &number;
    }
}
__global__ void after_it() {
    number = number * 2 + plain;
    bytes[6] = (unsigned char)(bytes[0] + (int)pairs[2].value);
}

// The error that a call gave, which is no longer the last one.
static cudaError_t told(cudaError_t error) {
    cudaGetLastError();
    return error;
}

static void first_values() {
    check("a first value", number == 5);
    check("first values of an array", bytes[0] == 1 && bytes[6] == 7);
    check("first values of structures", pairs[0].value == 0.5 && pairs[1].value == -2.25 && !pairs[2].to);
    check("a wide first value", wide.x == 1 && wide.w == 4);
    bool zeros = !pointer && !counter;
    for (float value : table) zeros = zeros && value == 0;
    check("what has none", zeros);
}

static void in_turn() {
    int other = 3, wanted = number;
    int *apart;
    MUST(cudaMallocManaged(&apart, sizeof *apart));
    *apart = other;
    float values[COUNT];
    for (int i = 0; i < COUNT; i++) values[i] = table[i] = (float)(i % 13);
    bool right = true;
    remember<<<1, 1>>>();
    for (int round = 1; round <= 20; round++) {
        pointer = round % 2 ? &number : apart;
        unsigned before = counter;
        unsigned char of_bytes[7];
        memcpy(of_bytes, bytes, 7);
        step<<<8, 128>>>(round);
        after_it<<<1, 1>>>();
        MUST(cudaDeviceSynchronize());
        wanted += round;
        (round % 2 ? wanted : other) += 100;
        wanted = wanted * 2 + 7;
        right = right && number == wanted && *apart == other && counter == before + 1024;
        for (int i = 0; i < COUNT; i++) {
            values[i] = values[i] * 2 + round + of_bytes[i % 7] + 7;
            right = right && table[i] == values[i];
        }
        // What the host changes the next kernel sees.
        wanted = number = wanted % 1000;
        for (int i = 0; i < COUNT; i++) values[i] = table[i] = (float)((int)values[i] % 100);
        bytes[3] = (unsigned char)round;
    }
    check("what host and kernels made of them in turn", right);
    check("a pointer in one", pairs[2].to == &number && pairs[2].value == -1.75);
    check("its address in a kernel, and in a variable of the device", seen[0] == &number && seen[1] == &number);
    check("a byte", bytes[6] == 0);
    check("a structure of four", wide.x == 1 && wide.w == 4);
    MUST(cudaFree(apart));
}

static void symbols() {
    int copy = 0, fresh = 4711;
    void *address;
    size_t size;
    MUST(cudaMemcpyFromSymbol(&copy, number, sizeof copy));
    check("a copy from its symbol", copy == number);
    MUST(cudaMemcpyToSymbol(number, &fresh, sizeof fresh));
    check("a copy to its symbol", number == fresh);
    float some[2] = {1.5f, 2.5f};
    MUST(cudaMemcpyToSymbol(table, some, sizeof some, 40));
    check("a copy into an array", table[10] == 1.5f && table[11] == 2.5f);
    MUST(cudaGetSymbolAddress(&address, table));
    MUST(cudaGetSymbolSize(&size, table));
    check("its symbol's address and size", address == table && size == sizeof table);
    float *memory, back[4] = {};
    MUST(cudaMalloc(&memory, sizeof table));
    MUST(cudaMemcpy(memory, table, sizeof table, cudaMemcpyDefault));
    MUST(cudaMemcpy(back, memory + 10, 8, cudaMemcpyDeviceToHost));
    MUST(cudaMemset(table, 0, 44));
    MUST(cudaMemcpy(table, memory + 10, 8, cudaMemcpyDeviceToDevice));
    MUST(cudaDeviceSynchronize());
    check("copies by its address", back[0] == 1.5f && back[1] == 2.5f && table[0] == 1.5f && table[10] == 0 && table[11] == 2.5f);
    MUST(cudaFree(memory));
}

static void what_is_told() {
    cudaPointerAttributes known;
    MUST(cudaPointerGetAttributes(&known, &table[3]));
    check("its type", known.type == cudaMemoryTypeManaged);
    check("its addresses", known.devicePointer == &table[3] && known.hostPointer == &table[3]);
    cudaFuncAttributes of_step;
    MUST(cudaFuncGetAttributes(&of_step, step));
    check("attributes of a kernel that names one", of_step.maxThreadsPerBlock >= 128 && of_step.sharedSizeBytes == 0);
    // Taken, or refused where a device has no concurrent access: the value stays.
    cudaMemLocation device = {cudaMemLocationTypeDevice, 0};
    float before = table[11];
    cudaError_t prefetched = told(cudaMemPrefetchAsync(table, sizeof table, device, 0));
    MUST(cudaDeviceSynchronize());
    check("a prefetch", (prefetched == cudaSuccess || prefetched == cudaErrorInvalidDevice) && table[11] == before);
}

// The driver's own words.
static void answers() {
    printf("managed_variables:   freed: %d, as pinned memory: %d\n", (int)told(cudaFree(table)), (int)told(cudaFreeHost(table)));
    cudaStream_t stream;
    MUST(cudaStreamCreate(&stream));
    printf("managed_variables:   attached to a stream: %d, half: %d\n", (int)told(cudaStreamAttachMemAsync(stream, table, 0, 4)),
           (int)told(cudaStreamAttachMemAsync(stream, table, sizeof table / 2, 1)));
    printf("managed_variables:   registered: %d\n", (int)told(cudaHostRegister(table, sizeof table, 0)));
    MUST(cudaStreamDestroy(stream));
}

int main(int count, char **words) {
    int is_there = 0;
    MUST(cudaDeviceGetAttribute(&is_there, cudaDevAttrManagedMemory, 0));
    if (!is_there) {
        printf("managed_variables: NOT TRIED: the device has no managed memory\n");
        return 77;
    }
    first_values();
    in_turn();
    symbols();
    what_is_told();
    if (count > 1 && !strcmp(words[1], "answers")) answers();
    printf("managed_variables: %s, %d wrong\n", failures ? "failed" : "ok", failures);
    return failures ? 1 : 0;
}
