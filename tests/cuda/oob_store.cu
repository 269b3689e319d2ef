// A store far outside every allocation: error 700, and the same from every later call, as on hardware.
#define PROGRAM "oob_store"
#include "check.h"

__global__ void store(int *base, long long index) { base[index] = 42; }

int main() {
    int *small;
    MUST(cudaMalloc(&small, 4 * sizeof(int)));
    store<<<1, 1>>>(small, 3);
    MUST(cudaDeviceSynchronize());
    printf("oob_store: a store inside is fine\n");
    store<<<1, 1>>>(small, 1ll << 40);
    int after_launch = cudaDeviceSynchronize();
    void *more;
    int next_call = cudaMalloc(&more, 16);
    int a_copy = cudaMemcpy(&more, small, 4, cudaMemcpyDeviceToHost);
    printf("oob_store: synchronize gave %d, then cudaMalloc %d, cudaMemcpy %d\n", after_launch, next_call, a_copy);
    bool sticky = after_launch == 700 && next_call == 700 && a_copy == 700;
    printf(sticky ? "oob_store: ok, 700 and sticky\n" : "oob_store: expected 700 three times\n");
    return sticky ? 0 : 1;
}
