// The other zone: fills its device memory with a pattern, says where it lies and which handles it holds, and waits to be killed.
// Every second it looks whether the pattern is still whole wherever it was planted: it says so, or ends with 1. See pattern_probe.
#include <cuda.h>
#include <unistd.h>
#include <vector>
#define PROGRAM "pattern_plant"
#include "check.h"
#include "pattern.h"

__device__ uint64_t variable[64];

__global__ void plant(uint64_t *words, size_t count, uint64_t pattern) {
    for (size_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) words[i] = pattern;
}

static bool is_whole(const char *planted, const void *region, size_t bytes) {
    std::vector<uint64_t> seen(bytes / sizeof(uint64_t));
    MUST(cudaMemcpy(seen.data(), region, bytes, cudaMemcpyDeviceToHost));
    for (uint64_t word : seen) {
        if (word != PATTERN) {
            printf("pattern_plant: the pattern planted %s is damaged: %llx\n", planted, (unsigned long long)word);
            return false;
        }
    }
    return true;
}

int main() {
    const size_t count = 1 << 17, half = count / 2;
    setvbuf(stdout, nullptr, _IOLBF, 0);
    uint64_t *by_kernel, *by_copy;
    void *global;
    std::vector<uint64_t> host(count, PATTERN);
    MUST(cudaMalloc(&by_kernel, count * sizeof(uint64_t)));
    MUST(cudaMalloc(&by_copy, count * sizeof(uint64_t)));
    plant<<<16, 128>>>(by_kernel, count, PATTERN);
    MUST(cudaMemcpy(by_copy, host.data(), count * sizeof(uint64_t), cudaMemcpyHostToDevice));
    MUST(cudaGetSymbolAddress(&global, variable));
    MUST(cudaMemcpy(global, host.data(), sizeof(variable), cudaMemcpyHostToDevice));
    cudaStream_t stream;
    cudaEvent_t event;
    cudaFunction_t function;
    MUST(cudaStreamCreate(&stream));
    MUST(cudaEventCreate(&event));
    MUST(cudaGetFuncBySymbol(&function, (const void *)plant));
    MUST(cudaDeviceSynchronize());
    printf("pattern_plant: planted %p %p %p %p handles %p %p %p\n", (void *)by_kernel, (void *)(by_kernel + half), (void *)by_copy,
           global, (void *)stream, (void *)event, (void *)function);
    for (unsigned long round = 1;; round++) {
        sleep(5); // emulated, this and what is to be seen beside it share a CPU
        bool whole = is_whole("by a kernel", by_kernel, count * sizeof(uint64_t)) &&
                     is_whole("by a copy", by_copy, count * sizeof(uint64_t)) && is_whole("in a variable", global, sizeof(variable));
        if (!whole) return 1;
        printf("pattern_plant: whole, round %lu\n", round);
    }
}
