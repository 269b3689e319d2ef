// cudart's own initialisation, from the shared library of CUDA 12 and of CUDA 13: everything it asks the driver before the
// first kernel, then memory there and back.
#include <cuda_runtime_api.h>
#include <cstring>
#define PROGRAM "cudart_init"
#include "check.h"

int main() {
    int runtime = 0, driver = 0, count = 0;
    MUST(cudaRuntimeGetVersion(&runtime));
    MUST(cudaDriverGetVersion(&driver));
    MUST(cudaGetDeviceCount(&count));
    MUST(cudaSetDevice(0));
    void *memory;
    char there[] = "there and back", back[sizeof(there)] = "";
    MUST(cudaMalloc(&memory, sizeof(there)));
    MUST(cudaMemcpy(memory, there, sizeof(there), cudaMemcpyHostToDevice));
    MUST(cudaMemcpy(back, memory, sizeof(back), cudaMemcpyDeviceToHost));
    MUST(cudaFree(memory));
    MUST(cudaDeviceSynchronize());
    bool right = count >= 1 && strcmp(there, back) == 0;
    printf("cudart_init: %s, runtime %d, driver %d, %d device(s)\n", right ? "ok" : "failed", runtime, driver, count);
    return right ? 0 : 1;
}
