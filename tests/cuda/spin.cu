// Works until it is killed: spin [SECONDS] [endless]. Holds 64 MiB, says "allocated", then launches a kernel five times a second, and
// says so at every fifth: a software GPU shares its CPU with all that is to be seen beside it.
// With "endless" it launches one that never ends. A GPU that goes away is an error and an end, not a hang.
#include <cstring>
#include <ctime>
#include <unistd.h>
#define PROGRAM "spin"
#include "check.h"

__global__ void turn(unsigned *values, unsigned rounds) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x, value = values[i];
    for (unsigned round = 0; round < rounds; round++) value = value * 1664525u + 1013904223u;
    values[i] = value;
}

__global__ void forever(volatile unsigned *values) {
    while (values[0] != 1) values[1] = values[1] + 1;
}

int main(int count, char **words) {
    const size_t bytes = 64 << 20;
    long seconds = count > 1 ? atol(words[1]) : 0;
    bool endless = count > 2 && strcmp(words[2], "endless") == 0;
    setvbuf(stdout, nullptr, _IOLBF, 0);
    unsigned *values;
    MUST(cudaMalloc(&values, bytes));
    MUST(cudaMemset(values, 0, bytes));
    MUST(cudaDeviceSynchronize());
    printf("spin: allocated %zu bytes at %p\n", bytes, (void *)values);
    if (endless) {
        forever<<<1, 1>>>(values);
        MUST(cudaDeviceSynchronize());
    }
    time_t start = time(nullptr);
    for (unsigned long launches = 1; seconds == 0 || time(nullptr) - start < seconds; launches++) {
        turn<<<4, 64>>>(values, 1000);
        MUST(cudaDeviceSynchronize());
        usleep(200 * 1000);
        if (launches % 5 == 0) printf("spin: %lu launches\n", launches);
    }
    printf("spin: ok, done after %ld s\n", seconds);
    return 0;
}
