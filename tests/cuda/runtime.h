// Calls of the runtime's API and what they have to give. A failed one is no longer the runtime's last error then.
#pragma once
#include "expect.h"

#define GIVES(wanted, call)                                    \
    do {                                                       \
        expect(#call, (long long)(call), (long long)(wanted)); \
        cudaGetLastError();                                    \
    } while (0)

// What CUDA's documents leave open: the code is in `answer`, and printed if `tells`.
[[maybe_unused]] static bool tells = false;
[[maybe_unused]] static int answer = 0;
#define ANSWERS(call)                                              \
    do {                                                           \
        answer = (int)(call);                                      \
        cudaGetLastError();                                        \
        if (tells) printf("%s: %s: %d\n", PROGRAM, #call, answer); \
    } while (0)
