// What every program here needs: a call that failed ends it, with a line that says which.
#pragma once
#include <cstdio>
#include <cstdlib>

#define MUST(call)                                                                                             \
    do {                                                                                                       \
        cudaError_t must_error = (call);                                                                       \
        if (must_error != cudaSuccess) {                                                                       \
            printf("%s: %s: error %d, %s\n", PROGRAM, #call, (int)must_error, cudaGetErrorString(must_error)); \
            exit(1);                                                                                           \
        }                                                                                                      \
    } while (0)

// Numbers that look random and are the same in every run.
static inline unsigned next_random(unsigned &state) {
    state = state * 1664525u + 1013904223u;
    return state >> 8;
}
