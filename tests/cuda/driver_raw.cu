// The driver API alone, found by dlopen as libraries do that bring no cudart: PTX from a string, launch with kernelParams and
// with `extra`, module variables, names that do not exist.
#define PROGRAM "driver_raw"
#include "driver.h"

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
    NEEDS(cuInit, 0);
    NEEDS(cuDriverGetVersion, &version);
    NEEDS(cuDeviceGetCount, &devices);
    NEEDS(cuDeviceGet, &device, 0);
    NEEDS(cuDevicePrimaryCtxRetain, &context, device);
    NEEDS(cuCtxSetCurrent, context);
    NEEDS(cuModuleLoadData, &module, PTX);
    NEEDS(cuModuleGetFunction, &function, module, "times_three");
    NEEDS(cuModuleGetGlobal_v2, &bias, &bias_bytes, module, "bias");
    NEEDS(cuMemAlloc_v2, &memory, count * 4);

    for (int round = 0; round < 3; round++) {
        unsigned offset = 2000 + round, result[count], n = count;
        NEEDS(cuMemcpyHtoD_v2, bias, &offset, 4);
        NEEDS(cuMemsetD32_v2, memory, 0, count);
        if (round == 0) {
            void *parameters[] = {&memory, &n};
            NEEDS(cuLaunchKernel, function, 8, 1, 1, 128, 1, 1, 0, nullptr, parameters, nullptr);
        } else {
            struct {
                CUdeviceptr out;
                unsigned count;
            } packed = {memory, n};
            // The last time the count is left out, and is 0.
            size_t bytes = round == 1 ? 12 : 8;
            void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &packed, CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes, CU_LAUNCH_PARAM_END};
            NEEDS(cuLaunchKernel, function, 8, 1, 1, 128, 1, 1, 0, nullptr, nullptr, extra);
        }
        NEEDS(cuCtxSynchronize);
        NEEDS(cuMemcpyDtoH_v2, result, memory, sizeof(result));
        for (unsigned i = 0; i < count; i++) failures += result[i] != (round < 2 ? 3 * i + offset : 0);
    }
    int missing = CALL(cuModuleGetFunction, &function, module, "no_such_kernel");
    int wrong = CALL(cuModuleLoadData, &broken, ".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry k() { nonsense; }");
    int beyond = CALL(cuMemcpyDtoH_v2, &version, memory + count * 4, 4);
    NEEDS(cuMemFree_v2, memory);
    int twice = CALL(cuMemFree_v2, memory);
    NEEDS(cuModuleUnload, module);
    NEEDS(cuDevicePrimaryCtxRelease_v2, device);
    printf("driver_raw: missing function %d, wrong PTX %d, copy past the end %d, second free %d\n", missing, wrong, beyond, twice);
    bool right = failures == 0 && bias_bytes == 4 && missing == 500 && wrong == 218 && beyond == 1 && twice == 1;
    printf("driver_raw: %s, %d wrong values\n", right ? "ok" : "failed", failures);
    return right ? 0 : 1;
}
