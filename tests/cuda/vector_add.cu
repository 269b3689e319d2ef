// c = a + b for 65536 floats, compared with the CPU's sums. Says "vector_add: ok" and exits with 0 when all are right.
#include <cstdio>
#include <vector>

static void must(cudaError_t error, const char *what) {
    if (error != cudaSuccess) {
        printf("vector_add: %s: %s\n", what, cudaGetErrorString(error));
        exit(1);
    }
}

__global__ void add(const float *a, const float *b, float *c, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) c[i] = a[i] + b[i];
}

int main() {
    const int count = 1 << 16;
    const size_t bytes = count * sizeof(float);
    std::vector<float> a(count), b(count), c(count);
    for (int i = 0; i < count; i++) {
        a[i] = 0.5f * i;
        b[i] = 1000.0f - i;
    }
    float *on_gpu[3];
    for (float *&p : on_gpu) must(cudaMalloc(&p, bytes), "cudaMalloc");
    must(cudaMemcpy(on_gpu[0], a.data(), bytes, cudaMemcpyHostToDevice), "copy a");
    must(cudaMemcpy(on_gpu[1], b.data(), bytes, cudaMemcpyHostToDevice), "copy b");
    add<<<(count + 255) / 256, 256>>>(on_gpu[0], on_gpu[1], on_gpu[2], count);
    must(cudaGetLastError(), "launch");
    must(cudaMemcpy(c.data(), on_gpu[2], bytes, cudaMemcpyDeviceToHost), "copy c");
    for (int i = 0; i < count; i++) {
        if (c[i] != a[i] + b[i]) {
            printf("vector_add: c[%d] is %f, not %f\n", i, c[i], a[i] + b[i]);
            return 1;
        }
    }
    for (float *p : on_gpu) must(cudaFree(p), "cudaFree");
    printf("vector_add: ok, %d sums as the CPU's\n", count);
    return 0;
}
