// The driver API alone, found by dlopen as libraries do that bring no cudart: PTX from a string, launch with kernelParams and
// with `extra`, module variables, names that do not exist.
#include <cuda.h>
#include <dlfcn.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>

template <typename Function> Function *driver(const char *name) {
    static void *library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!library) {
        printf("driver_raw: %s\n", dlerror());
        exit(1);
    }
    void *symbol = dlsym(library, name);
    if (!symbol) {
        printf("driver_raw: libcuda.so.1 has no %s\n", name);
        exit(1);
    }
    return (Function *)symbol;
}
#define DRIVER(call) driver<decltype(call)>(#call)
#define MUST(name, ...)                                                   \
    do {                                                                  \
        CUresult must_result = DRIVER(name)(__VA_ARGS__);                 \
        if (must_result != CUDA_SUCCESS) {                                \
            printf("driver_raw: %s: error %d\n", #name, (int)must_result); \
            exit(1);                                                      \
        }                                                                 \
    } while (0)

static const char PTX[] = R"(
.version 7.0
.target sm_70
.address_size 64
.visible .global .align 4 .u32 bias = 1000;
.visible .entry times_three(.param .u64 out, .param .u32 count)
{
    .reg .pred %p;
    .reg .b32 %r<6>;
    .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [out];
    ld.param.u32 %r1, [count];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.u32 %r4, %r2, %r3, %r4;
    setp.ge.u32 %p, %r4, %r1;
    @%p bra done;
    ld.global.u32 %r5, [bias];
    mad.lo.u32 %r5, %r4, 3, %r5;
    mul.wide.u32 %rd2, %r4, 4;
    add.u64 %rd1, %rd1, %rd2;
    st.global.u32 [%rd1], %r5;
done:
    ret;
}
)";

int main() {
    const unsigned count = 1000;
    int version = 0, devices = 0;
    CUdevice device;
    CUcontext context;
    CUmodule module, broken;
    CUfunction function;
    CUdeviceptr memory, bias;
    size_t bias_bytes = 0;
    MUST(cuInit, 0);
    MUST(cuDriverGetVersion, &version);
    MUST(cuDeviceGetCount, &devices);
    MUST(cuDeviceGet, &device, 0);
    MUST(cuDevicePrimaryCtxRetain, &context, device);
    MUST(cuCtxSetCurrent, context);
    MUST(cuModuleLoadData, &module, PTX);
    MUST(cuModuleGetFunction, &function, module, "times_three");
    MUST(cuModuleGetGlobal_v2, &bias, &bias_bytes, module, "bias");
    MUST(cuMemAlloc_v2, &memory, count * 4);

    int failures = 0;
    for (int round = 0; round < 3; round++) {
        unsigned offset = 2000 + round, result[count], n = count;
        MUST(cuMemcpyHtoD_v2, bias, &offset, 4);
        MUST(cuMemsetD32_v2, memory, 0, count);
        if (round == 0) {
            void *parameters[] = {&memory, &n};
            MUST(cuLaunchKernel, function, 8, 1, 1, 128, 1, 1, 0, nullptr, parameters, nullptr);
        } else {
            struct {
                CUdeviceptr out;
                unsigned count;
            } packed = {memory, n};
            // The last time the count is left out, and is 0.
            size_t bytes = round == 1 ? 12 : 8;
            void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &packed, CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes, CU_LAUNCH_PARAM_END};
            MUST(cuLaunchKernel, function, 8, 1, 1, 128, 1, 1, 0, nullptr, nullptr, extra);
        }
        MUST(cuCtxSynchronize);
        MUST(cuMemcpyDtoH_v2, result, memory, sizeof(result));
        for (unsigned i = 0; i < count; i++) failures += result[i] != (round < 2 ? 3 * i + offset : 0);
    }
    int missing = DRIVER(cuModuleGetFunction)(&function, module, "no_such_kernel");
    int wrong = DRIVER(cuModuleLoadData)(&broken, ".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry k() { nonsense; }");
    int beyond = DRIVER(cuMemcpyDtoH_v2)(&version, memory + count * 4, 4);
    MUST(cuMemFree_v2, memory);
    int twice = DRIVER(cuMemFree_v2)(memory);
    MUST(cuModuleUnload, module);
    MUST(cuDevicePrimaryCtxRelease_v2, device);
    printf("driver_raw: missing function %d, wrong PTX %d, copy past the end %d, second free %d\n", missing, wrong, beyond, twice);
    bool right = failures == 0 && bias_bytes == 4 && missing == 500 && wrong == 218 && beyond == 1 && twice == 1;
    printf("driver_raw: %s, %d wrong values\n", right ? "ok" : "failed", failures);
    return right ? 0 : 1;
}
