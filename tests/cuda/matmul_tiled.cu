// A product of two 96 x 96 matrices by tiles of 16 x 16 in shared memory. Small integers, so every sum is exact.
#include <vector>
#define PROGRAM "matmul_tiled"
#include "check.h"

const int TILE = 16, SIDE = 96;

__global__ void product(const float *a, const float *b, float *c) {
    __shared__ float tile_a[TILE][TILE], tile_b[TILE][TILE];
    int x = threadIdx.x, y = threadIdx.y, row = blockIdx.y * TILE + y, column = blockIdx.x * TILE + x;
    float sum = 0;
    for (int at = 0; at < SIDE; at += TILE) {
        tile_a[y][x] = a[row * SIDE + at + x];
        tile_b[y][x] = b[(at + y) * SIDE + column];
        __syncthreads();
        for (int k = 0; k < TILE; k++) sum += tile_a[y][k] * tile_b[k][x];
        __syncthreads();
    }
    c[row * SIDE + column] = sum;
}

int main() {
    const size_t bytes = SIDE * SIDE * sizeof(float);
    std::vector<float> a(SIDE * SIDE), b(SIDE * SIDE), c(SIDE * SIDE);
    unsigned state = 3;
    for (float &value : a) value = (float)(next_random(state) % 17) - 8;
    for (float &value : b) value = (float)(next_random(state) % 17) - 8;
    float *ga, *gb, *gc;
    MUST(cudaMalloc(&ga, bytes));
    MUST(cudaMalloc(&gb, bytes));
    MUST(cudaMalloc(&gc, bytes));
    MUST(cudaMemcpy(ga, a.data(), bytes, cudaMemcpyHostToDevice));
    MUST(cudaMemcpy(gb, b.data(), bytes, cudaMemcpyHostToDevice));
    product<<<dim3(SIDE / TILE, SIDE / TILE), dim3(TILE, TILE)>>>(ga, gb, gc);
    MUST(cudaGetLastError());
    MUST(cudaMemcpy(c.data(), gc, bytes, cudaMemcpyDeviceToHost));
    for (int row = 0; row < SIDE; row++) {
        for (int column = 0; column < SIDE; column++) {
            float expected = 0;
            for (int k = 0; k < SIDE; k++) expected += a[row * SIDE + k] * b[k * SIDE + column];
            if (c[row * SIDE + column] != expected) {
                printf("matmul_tiled: c[%d][%d] is %g, not %g\n", row, column, c[row * SIDE + column], expected);
                return 1;
            }
        }
    }
    printf("matmul_tiled: ok, %d x %d as the CPU's\n", SIDE, SIDE);
    return 0;
}
