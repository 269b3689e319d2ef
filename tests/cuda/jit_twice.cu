// PTX that takes a driver long to compile, loaded twice, its result against the CPU's: jit_twice [SEED]. What a driver has compiled of a
// seed it keeps for the next process, so the times of two runs say whether it was found. They are printed, not judged.
#include <string>
#include <time.h>
#define PROGRAM "jit_twice"
#include "driver.h"

static const unsigned ROUNDS = 20000;

static unsigned next(unsigned &state) { return state = state * 1664525u + 1013904223u; }

static double now() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

// One thread's work in one long line: nothing of it can be left out, and each number is the seed's.
static std::string text_of(unsigned seed, unsigned &value) {
    std::string text = ".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry work(.param .u64 out)\n{\n"
                       ".reg .b32 %v, %t;\n.reg .b64 %a;\nld.param.u64 %a, [out];\nld.global.u32 %v, [%a];\n";
    char line[128];
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned factor = next(seed) | 1, addend = next(seed);
        snprintf(line, sizeof line, "mad.lo.u32 %%v, %%v, %u, %u;\nshr.u32 %%t, %%v, 7;\nxor.b32 %%v, %%v, %%t;\n", factor, addend);
        text += line;
        value = value * factor + addend;
        value ^= value >> 7;
    }
    return text + "st.global.u32 [%a], %v;\nret;\n}\n";
}

int main(int count, char **words) {
    unsigned wanted = 77, start = wanted, got = 0;
    std::string text = text_of(count > 1 ? (unsigned)atol(words[1]) : 1, wanted);
    CUcontext context;
    CUdeviceptr out;
    double took[2];
    NEEDS(cuInit, 0);
    NEEDS(cuDevicePrimaryCtxRetain, &context, 0);
    NEEDS(cuCtxSetCurrent, context);
    NEEDS(cuMemAlloc_v2, &out, 4);
    for (double &time : took) {
        CUmodule module;
        CUfunction work;
        double before = now();
        NEEDS(cuModuleLoadData, &module, text.c_str());
        NEEDS(cuModuleGetFunction, &work, module, "work");
        void *parameters[] = {&out};
        NEEDS(cuMemcpyHtoD_v2, out, &start, 4);
        NEEDS(cuLaunchKernel, work, 1, 1, 1, 1, 1, 1, 0, nullptr, parameters, nullptr);
        NEEDS(cuMemcpyDtoH_v2, &got, out, 4);
        time = now() - before;
        expect("the kernel's word", got, wanted);
        NEEDS(cuModuleUnload, module);
    }
    NEEDS(cuMemFree_v2, out);
    printf("jit_twice: %s, loaded and run in %.0f ms, again in %.0f ms\n", failures ? "failed" : "ok", took[0], took[1]);
    return failures != 0;
}
