// Calls of the driver by name, and what they have to give. A program defines PROGRAM before it includes this.
#pragma once
#include <cuda.h>
#include <dlfcn.h>
#include <cstdio>
#include <cstdlib>

#include "expect.h"

template <typename Function> static Function *driver(const char *name) {
    static void *library = dlopen("libcuda.so.1", RTLD_NOW);
    void *symbol = library ? dlsym(library, name) : nullptr;
    if (!symbol) {
        printf("%s: no %s: %s\n", PROGRAM, name, dlerror());
        exit(1);
    }
    return (Function *)symbol;
}
// Names as exported: the header's macros would give the plain name another form's type.
#define CALL(name, ...) ((int)driver<decltype(name)>(#name)(__VA_ARGS__))

#define GIVES(wanted, name, ...) expect(#name, CALL(name, __VA_ARGS__), wanted)
// For what the rest can't do without.
#define NEEDS(name, ...)                                                \
    do {                                                                \
        int code = CALL(name, __VA_ARGS__);                             \
        if (code) {                                                     \
            printf("%s: failed, %s gave %d\n", PROGRAM, #name, code);   \
            exit(1);                                                    \
        }                                                               \
    } while (0)
