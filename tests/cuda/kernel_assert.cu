// What kernels print comes out at the next synchronising call, in order; a failed assert is error 710, its text on standard error.
#include <cassert>
#define PROGRAM "kernel_assert"
#include "check.h"

__global__ void count() { printf("kernel_assert: thread %d of block %d\n", threadIdx.x, blockIdx.x); }
__global__ void fail(int number) {
    if (threadIdx.x == 0) printf("kernel_assert: about to fail\n");
    assert(number != 7);
}

int main() {
    printf("kernel_assert: before\n");
    count<<<1, 3>>>();
    MUST(cudaDeviceSynchronize());
    printf("kernel_assert: after\n");
    fail<<<1, 1>>>(7);
    int failed = cudaDeviceSynchronize();
    int again = cudaDeviceSynchronize();
    printf(failed == 710 && again == 710 ? "kernel_assert: ok, 710 and sticky\n" : "kernel_assert: %d, then %d\n", failed, again);
    return failed == 710 && again == 710 ? 0 : 1;
}
