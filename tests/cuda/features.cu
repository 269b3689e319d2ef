// What the plain programs do not touch: constant and initialized variables, streams and events, local arrays, calls by
// pointer, doubles, votes, locks between lanes, device-to-device copies.
#include <cmath>
#include <vector>
#define PROGRAM "features"
#include "check.h"
#include "expect.h"

__constant__ float weights[8];
__device__ int counter = 5;
__device__ int plus_one(int a) { return a + 1; }
__device__ int twice(int a) { return a * 2; }
typedef int (*Step)(int);
__device__ Step steps[2] = {plus_one, twice};

__global__ void weigh(float *out) { out[threadIdx.x] = weights[threadIdx.x & 7] * threadIdx.x; }
__global__ void call(int *out) { out[threadIdx.x] = steps[threadIdx.x & 1](threadIdx.x); }
__global__ void count(int by) { atomicAdd(&counter, by); }
__global__ void roots(double *values) { values[threadIdx.x] = sqrt(values[threadIdx.x]) / 3.0; }
__global__ void vote(unsigned *out) {
    unsigned even = __ballot_sync(0xffffffffu, threadIdx.x % 2 == 0);
    if (threadIdx.x == 0) *out = even;
}
__global__ void locked(int *lock, int *value) {
    bool done = false;
    while (!done) {
        if (atomicCAS(lock, 0, 1) == 0) {
            *value = *(volatile int *)value + 1;
            __threadfence();
            atomicExch(lock, 0);
            done = true;
        }
    }
}
__global__ void shuffle_local(int *out, int turn) {
    int own[16];
    for (int i = 0; i < 16; i++) own[(i * turn) & 15] = i;
    int sum = 0;
    for (int i = 0; i < turn; i++) sum += own[i & 15] * (i + 1);
    out[threadIdx.x] = sum;
}
__global__ void hello(int who) { printf("features: hello from the GPU, %d and %.2f\n", who, who / 4.0); }

int main() {
    float host_weights[8], weighed[32];
    for (int i = 0; i < 8; i++) host_weights[i] = i + 0.5f;
    void *memory, *copy;
    MUST(cudaMalloc(&memory, 4096));
    MUST(cudaMalloc(&copy, 4096));
    MUST(cudaMemcpyToSymbol(weights, host_weights, sizeof(host_weights)));
    cudaStream_t stream;
    cudaEvent_t start, end;
    MUST(cudaStreamCreate(&stream));
    MUST(cudaEventCreate(&start));
    MUST(cudaEventCreate(&end));
    MUST(cudaEventRecord(start, stream));
    weigh<<<1, 32, 0, stream>>>((float *)memory);
    MUST(cudaMemcpyAsync(copy, memory, 4096, cudaMemcpyDeviceToDevice, stream));
    MUST(cudaEventRecord(end, stream));
    MUST(cudaStreamSynchronize(stream));
    float milliseconds = -1;
    MUST(cudaEventElapsedTime(&milliseconds, start, end));
    check("the time between events", milliseconds >= 0);
    MUST(cudaMemcpy(weighed, copy, sizeof(weighed), cudaMemcpyDeviceToHost));
    for (int i = 0; i < 32; i++) check("constant memory", weighed[i] == host_weights[i & 7] * i);

    int called[32], counted = 0;
    call<<<1, 32>>>((int *)memory);
    MUST(cudaMemcpy(called, memory, sizeof(called), cudaMemcpyDeviceToHost));
    for (int i = 0; i < 32; i++) check("a call by pointer", called[i] == (i & 1 ? 2 * i : i + 1));
    count<<<3, 32>>>(2);
    MUST(cudaMemcpyFromSymbol(&counted, counter, sizeof(counted)));
    check("a variable with a first value", counted == 5 + 3 * 32 * 2);

    double numbers[32], rooted[32];
    for (int i = 0; i < 32; i++) numbers[i] = i * 1.25;
    MUST(cudaMemcpy(memory, numbers, sizeof(numbers), cudaMemcpyHostToDevice));
    roots<<<1, 32>>>((double *)memory);
    MUST(cudaMemcpy(rooted, memory, sizeof(rooted), cudaMemcpyDeviceToHost));
    for (int i = 0; i < 32; i++) check("double precision", rooted[i] == sqrt(numbers[i]) / 3.0);

    unsigned even = 0;
    vote<<<1, 32>>>((unsigned *)memory);
    MUST(cudaMemcpy(&even, memory, sizeof(even), cudaMemcpyDeviceToHost));
    check("a vote", even == 0x55555555u);

    int lock_and_value[2];
    MUST(cudaMemset(memory, 0, 4096));
    locked<<<2, 64>>>((int *)memory, (int *)memory + 1);
    MUST(cudaMemcpy(lock_and_value, memory, sizeof(lock_and_value), cudaMemcpyDeviceToHost));
    check("a lock between lanes", lock_and_value[0] == 0 && lock_and_value[1] == 128);

    int local = 0, expected = 0, own[16];
    shuffle_local<<<1, 1>>>((int *)memory, 37);
    MUST(cudaMemcpy(&local, memory, sizeof(local), cudaMemcpyDeviceToHost));
    for (int i = 0; i < 16; i++) own[(i * 37) & 15] = i;
    for (int i = 0; i < 37; i++) expected += own[i & 15] * (i + 1);
    check("a local array", local == expected);

    hello<<<1, 1>>>(9);
    MUST(cudaDeviceSynchronize());
    printf("features: %s\n", failures ? "failed" : "ok");
    return failures ? 1 : 0;
}
