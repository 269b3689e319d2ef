// A sum in two ways: a tree in dynamic shared memory with barriers, and shuffles inside warps. Integers, so the sum is exact.
#include <vector>
#define PROGRAM "reduce"
#include "check.h"

__global__ void by_tree(const unsigned *values, unsigned count, unsigned long long *sum) {
    extern __shared__ unsigned part[];
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    part[threadIdx.x] = i < count ? values[i] : 0;
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) atomicAdd(sum, (unsigned long long)part[0]);
}

__global__ void by_shuffles(const unsigned *values, unsigned count, unsigned long long *sum) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    unsigned value = i < count ? values[i] : 0;
    for (int step = 16; step > 0; step /= 2) value += __shfl_down_sync(0xffffffffu, value, step);
    if (threadIdx.x % 32 == 0) atomicAdd(sum, (unsigned long long)value);
}

int main() {
    const unsigned count = 200000;
    std::vector<unsigned> values(count);
    unsigned state = 2;
    unsigned long long expected = 0;
    for (unsigned &value : values) expected += value = next_random(state) & 0xffff;
    unsigned *gpu_values;
    unsigned long long *gpu_sums, sums[2];
    MUST(cudaMalloc(&gpu_values, count * sizeof(unsigned)));
    MUST(cudaMalloc(&gpu_sums, sizeof(sums)));
    MUST(cudaMemcpy(gpu_values, values.data(), count * sizeof(unsigned), cudaMemcpyHostToDevice));
    MUST(cudaMemset(gpu_sums, 0, sizeof(sums)));
    by_tree<<<(count + 255) / 256, 256, 256 * sizeof(unsigned)>>>(gpu_values, count, gpu_sums);
    MUST(cudaGetLastError());
    by_shuffles<<<(count + 127) / 128, 128>>>(gpu_values, count, gpu_sums + 1);
    MUST(cudaGetLastError());
    MUST(cudaMemcpy(sums, gpu_sums, sizeof(sums), cudaMemcpyDeviceToHost));
    if (sums[0] != expected || sums[1] != expected) {
        printf("reduce: %llu by tree and %llu by shuffles, not %llu\n", sums[0], sums[1], expected);
        return 1;
    }
    printf("reduce: ok, %u values sum to %llu both ways\n", count, expected);
    return 0;
}
