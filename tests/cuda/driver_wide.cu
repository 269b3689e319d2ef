// The breadth of the driver API that programs use beside launches: contexts by every form, sets, pitched copies, pinned
// memory, streams and events with their times, attributes, occupancy, variables, what is refused and how. Not for a bare driver of
// NVIDIA's: handles are used after their end, which vgpu refuses and that driver does not survive.
#include <cstring>
#include <vector>

#define PROGRAM "driver_wide"
#include "driver.h"

// Forms that older programs link to and today's header no longer declares.
extern "C" CUresult cuCtxCreate_v2(CUcontext *, unsigned, CUdevice);
extern "C" CUresult cuCtxCreate_v3(CUcontext *, CUexecAffinityParam *, int, unsigned, CUdevice);

static const char PTX[] = R"(
.version 7.0
.target sm_70
.address_size 64
.visible .global .align 4 .u32 bias = 7;
.visible .entry scale(.param .u64 out, .param .u32 factor, .param .u32 count)
{
    .reg .pred %p;
    .reg .b32 %r<8>;
    .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [out];
    ld.param.u32 %r6, [factor];
    ld.param.u32 %r1, [count];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.u32 %r4, %r2, %r3, %r4;
    setp.ge.u32 %p, %r4, %r1;
    @%p bra done;
    ld.global.u32 %r5, [bias];
    mul.wide.u32 %rd2, %r4, 4;
    add.u64 %rd1, %rd1, %rd2;
    ld.global.u32 %r7, [%rd1];
    mad.lo.u32 %r7, %r7, %r6, %r5;
    st.global.u32 [%rd1], %r7;
done:
    ret;
}
)";

static void contexts(CUdevice device) {
    CUcontext primary, again, made, current;
    CUctxCreateParams none = {};
    unsigned flags, version;
    int active;
    GIVES(0, cuDevicePrimaryCtxGetState, device, &flags, &active);
    expect("not active before a retain", active, 0);
    GIVES(0, cuDevicePrimaryCtxRetain, &primary, device);
    GIVES(0, cuDevicePrimaryCtxRetain, &again, device);
    expect("one primary context", primary == again, 1);
    GIVES(0, cuDevicePrimaryCtxRelease_v2, device);
    GIVES(0, cuDevicePrimaryCtxGetState, device, &flags, &active);
    expect("active while it is retained", active, 1);
    GIVES(0, cuCtxSetCurrent, primary);
    GIVES(0, cuCtxCreate_v2, &made, CU_CTX_SCHED_AUTO, device);
    GIVES(0, cuCtxGetApiVersion, made, &version);
    GIVES(0, cuCtxPopCurrent_v2, &current);
    expect("the made one was current", current == made, 1);
    GIVES(0, cuCtxPushCurrent_v2, made);
    GIVES(0, cuCtxDestroy_v2, made);
    GIVES(0, cuCtxCreate_v3, &made, nullptr, 0, CU_CTX_SCHED_SPIN, device);
    GIVES(0, cuCtxGetFlags, &flags);
    expect("flags", flags & CU_CTX_SCHED_MASK, CU_CTX_SCHED_SPIN);
    GIVES(0, cuCtxDestroy_v2, made);
    GIVES(0, cuCtxCreate_v4, &made, nullptr, 0, device);
    GIVES(0, cuCtxDestroy_v2, made);
    GIVES(0, cuCtxCreate_v4, &made, &none, 0, device);
    CUdeviceptr held;
    GIVES(0, cuMemAlloc_v2, &held, 1 << 20);
    GIVES(0, cuCtxDestroy_v2, made);
    GIVES(0, cuCtxGetCurrent, &current);
    expect("the primary context is current again", current == primary, 1);
    GIVES(0, cuCtxSetCurrent, made);
    GIVES(709, cuCtxSynchronize);
    GIVES(0, cuCtxSetCurrent, primary);
    GIVES(0, cuDevicePrimaryCtxReset_v2, device);
    GIVES(0, cuCtxSetCurrent, primary);
    GIVES(0, cuCtxSynchronize);
}

static void memory() {
    size_t before, total, during, base_bytes, pitch;
    CUdeviceptr block, pitched, base;
    GIVES(0, cuMemGetInfo_v2, &before, &total);
    GIVES(0, cuMemAlloc_v2, &block, 1 << 20);
    GIVES(0, cuMemGetInfo_v2, &during, &total);
    expect("what is allocated is not free", before - during >= 1 << 20 && before <= total, 1);
    GIVES(0, cuMemGetAddressRange_v2, &base, &base_bytes, block + 1000);
    expect("the range of an address", base == block && base_bytes == 1 << 20, 1);

    unsigned char bytes[64];
    GIVES(0, cuMemsetD32_v2, block, 0x04030201, 16);
    GIVES(0, cuMemsetD16_v2, block + 8, 0x0605, 4);
    GIVES(0, cuMemsetD8_v2, block + 32, 9, 3);
    GIVES(0, cuMemsetD2D8_v2, block + 40, 8, 0xaa, 2, 3);
    GIVES(0, cuMemcpyDtoH_v2, bytes, block, sizeof(bytes));
    const unsigned char wanted[64] = {1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 5, 6, 5, 6, 5, 6, 1, 2, 3, 4, 1, 2,
                                      3, 4, 1, 2, 3, 4, 1, 2, 3, 4, 9, 9, 9, 4, 1, 2, 3, 4, 0xaa, 0xaa, 3, 4,
                                      1, 2, 3, 4, 0xaa, 0xaa, 3, 4, 1, 2, 3, 4, 0xaa, 0xaa, 3, 4, 1, 2, 3, 4};
    expect("sets of 8, 16 and 32 bits and of rows", memcmp(bytes, wanted, sizeof(bytes)), 0);
    GIVES(1, cuMemsetD32_v2, block + 2, 0, 1);
    GIVES(1, cuMemcpyHtoD_v2, block + (1 << 20) - 8, bytes, 9);

    // A picture of 100 rows of 300 bytes, to pitched rows and back, a part of it.
    std::vector<unsigned char> picture(300 * 100), part(50 * 20, 0);
    for (size_t i = 0; i < picture.size(); i++) picture[i] = (unsigned char)(i * 7 + i / 300);
    GIVES(0, cuMemAllocPitch_v2, &pitched, &pitch, 300, 100, 4);
    expect("the pitch", pitch >= 300 && pitch % 4 == 0, 1);
    CUDA_MEMCPY2D there = {}, back = {};
    there.srcMemoryType = CU_MEMORYTYPE_HOST;
    there.srcHost = picture.data();
    there.srcPitch = 300;
    there.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    there.dstDevice = pitched;
    there.dstPitch = pitch;
    there.WidthInBytes = 300;
    there.Height = 100;
    GIVES(0, cuMemcpy2D_v2, &there);
    back.srcMemoryType = CU_MEMORYTYPE_DEVICE;
    back.srcDevice = pitched;
    back.srcPitch = pitch;
    back.srcXInBytes = 30;
    back.srcY = 40;
    back.dstMemoryType = CU_MEMORYTYPE_HOST;
    back.dstHost = part.data();
    back.dstPitch = 50;
    back.WidthInBytes = 50;
    back.Height = 20;
    GIVES(0, cuMemcpy2D_v2, &back);
    int wrong = 0;
    for (int y = 0; y < 20; y++)
        for (int x = 0; x < 50; x++) wrong += part[y * 50 + x] != picture[(y + 40) * 300 + x + 30];
    expect("a part of a picture", wrong, 0);
    // The same bytes as two slices of 50 rows, device to device.
    CUDA_MEMCPY3D slices = {};
    slices.srcMemoryType = slices.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    slices.srcDevice = pitched;
    slices.srcPitch = pitch;
    slices.srcHeight = 50;
    slices.dstDevice = block;
    slices.dstPitch = 300;
    slices.dstHeight = 50;
    slices.WidthInBytes = 300;
    slices.Height = 50;
    slices.Depth = 2;
    GIVES(0, cuMemcpy3D_v2, &slices);
    std::vector<unsigned char> whole(300 * 100);
    GIVES(0, cuMemcpyDtoH_v2, whole.data(), block, whole.size());
    expect("slices", whole == picture, 1);
    GIVES(0, cuMemFree_v2, pitched);

    unsigned kind = 0, host_flags = 0;
    void *pinned;
    GIVES(0, cuPointerGetAttribute, &kind, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, block + 5);
    expect("device memory", kind, CU_MEMORYTYPE_DEVICE);
    GIVES(1, cuPointerGetAttribute, &kind, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (CUdeviceptr)bytes);
    GIVES(0, cuMemHostAlloc, &pinned, 1 << 20, CU_MEMHOSTALLOC_PORTABLE);
    GIVES(0, cuMemHostGetFlags, &host_flags, pinned);
    expect("flags of pinned memory", host_flags & CU_MEMHOSTALLOC_PORTABLE, CU_MEMHOSTALLOC_PORTABLE);
    GIVES(0, cuPointerGetAttribute, &kind, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (CUdeviceptr)pinned);
    expect("host memory", kind, CU_MEMORYTYPE_HOST);
    memset(pinned, 0x5a, 1 << 20);
    GIVES(0, cuMemcpyAsync, block, (CUdeviceptr)pinned, 1 << 20, nullptr);
    GIVES(0, cuStreamSynchronize, nullptr);
    memset(pinned, 0, 1 << 20);
    GIVES(0, cuMemcpyAsync, (CUdeviceptr)pinned, block, 1 << 20, nullptr);
    GIVES(0, cuStreamSynchronize, nullptr);
    expect("there and back", ((char *)pinned)[0] == 0x5a && ((char *)pinned)[(1 << 20) - 1] == 0x5a, 1);
    GIVES(0, cuMemHostRegister_v2, picture.data(), picture.size(), 0);
    GIVES(712, cuMemHostRegister_v2, picture.data() + 8, 8, 0);
    GIVES(0, cuMemHostUnregister, picture.data());
    GIVES(713, cuMemHostUnregister, picture.data());
    GIVES(0, cuMemFreeHost, pinned);
    GIVES(0, cuMemFree_v2, block);
    GIVES(2, cuMemAlloc_v2, &block, total + (1 << 20));
    GIVES(1, cuMemAlloc_v2, &block, 0);
}

static void work() {
    const unsigned count = 4096;
    CUmodule module;
    CUfunction function;
    CUdeviceptr data, bias;
    CUstream stream, other;
    CUevent start, end, untimed;
    size_t bias_bytes, offset, bytes;
    int value, blocks, grid, block;
    GIVES(0, cuModuleLoadData, &module, PTX);
    GIVES(0, cuModuleGetFunction, &function, module, "scale");
    GIVES(0, cuModuleGetGlobal_v2, &bias, &bias_bytes, module, "bias");
    GIVES(500, cuModuleGetGlobal_v2, &bias, &bias_bytes, module, "nothing");
    GIVES(0, cuModuleGetGlobal_v2, &bias, &bias_bytes, module, "bias");
    GIVES(0, cuMemcpyDtoH_v2, &value, bias, 4);
    expect("the first value of a variable", value, 7);
    GIVES(0, cuFuncGetAttribute, &value, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, function);
    expect("threads of a block", value >= 128, 1);
    GIVES(0, cuFuncSetAttribute, function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 16384);
    GIVES(0, cuFuncGetAttribute, &value, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, function);
    expect("dynamic shared memory", value, 16384);
    GIVES(1, cuFuncGetAttribute, &value, (CUfunction_attribute)99, function);
    GIVES(0, cuFuncGetParamInfo, function, 1, &offset, &bytes);
    expect("the second parameter", offset == 8 && bytes == 4, 1);
    GIVES(0, cuOccupancyMaxActiveBlocksPerMultiprocessor, &blocks, function, 128, 0);
    expect("blocks of a multiprocessor", blocks >= 1, 1);
    GIVES(0, cuOccupancyMaxPotentialBlockSize, &grid, &block, function, nullptr, 0, 0);
    expect("a good block", grid >= 1 && block >= 32 && block % 32 == 0, 1);
    GIVES(0, cuOccupancyAvailableDynamicSMemPerBlock, &bytes, function, 1, 128);
    expect("shared memory that is left", bytes > 0, 1);

    GIVES(0, cuStreamCreate, &stream, CU_STREAM_NON_BLOCKING);
    GIVES(0, cuStreamCreateWithPriority, &other, CU_STREAM_DEFAULT, -1);
    GIVES(0, cuEventCreate, &start, CU_EVENT_DEFAULT);
    GIVES(0, cuEventCreate, &end, CU_EVENT_DEFAULT);
    GIVES(0, cuEventCreate, &untimed, CU_EVENT_DISABLE_TIMING);
    GIVES(0, cuMemAlloc_v2, &data, count * 4);
    GIVES(0, cuMemsetD32Async, data, 5, count, stream);
    GIVES(0, cuEventRecord, start, stream);
    unsigned factor = 3, n = count;
    void *parameters[] = {&data, &factor, &n};
    GIVES(0, cuLaunchKernel, function, count / 128, 1, 1, 128, 1, 1, 0, stream, parameters, nullptr);
    GIVES(0, cuEventRecord, end, stream);
    GIVES(0, cuStreamWaitEvent, other, end, 0);
    GIVES(0, cuLaunchKernel, function, count / 128, 1, 1, 128, 1, 1, 0, other, parameters, nullptr);
    GIVES(0, cuStreamSynchronize, other);
    GIVES(0, cuStreamQuery, other);
    GIVES(0, cuEventSynchronize, end);
    GIVES(0, cuEventQuery, end);
    float milliseconds = -1;
    GIVES(0, cuEventElapsedTime_v2, &milliseconds, start, end);
    expect("the time between events", milliseconds >= 0 && milliseconds < 60000, 1);
    GIVES(400, cuEventElapsedTime_v2, &milliseconds, start, untimed);
    std::vector<unsigned> result(count);
    GIVES(0, cuMemcpyDtoH_v2, result.data(), data, count * 4);
    int wrong = 0;
    for (unsigned each : result) wrong += each != (5 * 3 + 7) * 3 + 7;
    expect("wrong values", wrong, 0);

    GIVES(1, cuLaunchKernel, function, 0, 1, 1, 128, 1, 1, 0, stream, parameters, nullptr);
    GIVES(1, cuLaunchKernel, function, 1, 1, 1, 4096, 1, 1, 0, stream, parameters, nullptr);
    GIVES(1, cuLaunchKernel, function, 1, 1, 1, 128, 1, 1, 1 << 20, stream, parameters, nullptr);
    GIVES(400, cuLaunchKernel, (CUfunction)stream, 1, 1, 1, 128, 1, 1, 0, stream, parameters, nullptr);
    GIVES(0, cuStreamDestroy_v2, stream);
    GIVES(400, cuStreamSynchronize, stream);
    GIVES(0, cuStreamDestroy_v2, other);
    GIVES(0, cuEventDestroy_v2, start);
    GIVES(400, cuEventRecord, start, nullptr);
    GIVES(0, cuEventDestroy_v2, end);
    GIVES(0, cuEventDestroy_v2, untimed);
    GIVES(0, cuMemFree_v2, data);
    GIVES(0, cuModuleUnload, module);
    GIVES(400, cuModuleUnload, module);
    GIVES(0, cuCtxSynchronize);
}

int main() {
    CUdevice device;
    int count = 0;
    GIVES(3, cuDeviceGetCount, &count);
    GIVES(0, cuInit, 0);
    GIVES(0, cuDeviceGetCount, &count);
    GIVES(0, cuDeviceGet, &device, 0);
    GIVES(101, cuDeviceGet, &device, count);
    GIVES(0, cuDeviceGet, &device, 0);
    contexts(device);
    memory();
    work();
    GIVES(0, cuDevicePrimaryCtxRelease_v2, device);
    printf("driver_wide: %s, %d wrong\n", failures ? "failed" : "ok", failures);
    return failures ? 1 : 0;
}
