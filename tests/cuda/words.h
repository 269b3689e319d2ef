// Kernels that work on words.
#pragma once

__global__ void fill(unsigned *words, unsigned count, unsigned value) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) words[i] = value + i;
}

__global__ void add(unsigned *to, const unsigned *from, unsigned count) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) to[i] += from[i];
}
