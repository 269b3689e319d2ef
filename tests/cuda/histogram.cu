// A histogram of bytes: atomics in shared memory, then in global memory.
#include <vector>
#define PROGRAM "histogram"
#include "check.h"

__global__ void count_bytes(const unsigned char *data, int count, unsigned *bins) {
    __shared__ unsigned own[256];
    own[threadIdx.x] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) atomicAdd(&own[data[i]], 1u);
    __syncthreads();
    atomicAdd(&bins[threadIdx.x], own[threadIdx.x]);
}

int main() {
    const int count = 300001;
    std::vector<unsigned char> data(count);
    unsigned expected[256] = {}, bins[256], state = 4;
    for (unsigned char &byte : data) expected[byte = (unsigned char)(next_random(state) % 199)]++;
    unsigned char *gpu_data;
    unsigned *gpu_bins;
    MUST(cudaMalloc(&gpu_data, count));
    MUST(cudaMalloc(&gpu_bins, sizeof(bins)));
    MUST(cudaMemcpy(gpu_data, data.data(), count, cudaMemcpyHostToDevice));
    MUST(cudaMemset(gpu_bins, 0, sizeof(bins)));
    count_bytes<<<24, 256>>>(gpu_data, count, gpu_bins);
    MUST(cudaGetLastError());
    MUST(cudaMemcpy(bins, gpu_bins, sizeof(bins), cudaMemcpyDeviceToHost));
    for (int i = 0; i < 256; i++) {
        if (bins[i] != expected[i]) {
            printf("histogram: bin %d holds %u, not %u\n", i, bins[i], expected[i]);
            return 1;
        }
    }
    printf("histogram: ok, %d bytes in 256 bins as the CPU's\n", count);
    return 0;
}
