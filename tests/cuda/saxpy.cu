// y = a x + y with a fused multiply-add and a grid-stride loop, compared with the CPU bit for bit.
#include <cmath>
#include <vector>
#define PROGRAM "saxpy"
#include "check.h"

__global__ void saxpy(int count, float a, const float *x, float *y) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) y[i] = fmaf(a, x[i], y[i]);
}

int main() {
    const int count = 100003;  // prime: the last block is not full
    const float a = 1.7f;
    std::vector<float> x(count), y(count), result(count);
    unsigned state = 1;
    for (int i = 0; i < count; i++) {
        x[i] = next_random(state) / 1024.0f;
        y[i] = next_random(state) / -4096.0f;
    }
    float *gx, *gy;
    MUST(cudaMalloc(&gx, count * sizeof(float)));
    MUST(cudaMalloc(&gy, count * sizeof(float)));
    MUST(cudaMemcpy(gx, x.data(), count * sizeof(float), cudaMemcpyHostToDevice));
    MUST(cudaMemcpy(gy, y.data(), count * sizeof(float), cudaMemcpyHostToDevice));
    saxpy<<<64, 128>>>(count, a, gx, gy);
    MUST(cudaGetLastError());
    MUST(cudaMemcpy(result.data(), gy, count * sizeof(float), cudaMemcpyDeviceToHost));
    for (int i = 0; i < count; i++) {
        if (result[i] != fmaf(a, x[i], y[i])) {
            printf("saxpy: y[%d] is %.9g, not %.9g\n", i, result[i], fmaf(a, x[i], y[i]));
            return 1;
        }
    }
    printf("saxpy: ok, %d values as the CPU's\n", count);
    return 0;
}
