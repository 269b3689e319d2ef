// Functions that a stream calls, the linker, tensor maps, user objects: what programs ask of the driver beside memory and launches.
// A bare driver of NVIDIA's has to say the same.
#include <unistd.h>
#include <atomic>
#include <chrono>
#include <cstring>
#include <vector>

#define PROGRAM "driver_more"
#include "driver.h"
#include "ptx.h"

static const char ADD[] = PTX_HEAD PTX_ADDS("add");
static const char CALLS[] = R"(
.version 7.0
.target sm_70
.address_size 64
.extern .func (.param .b32 result) forty_two();
.visible .entry answer(.param .u64 out)
{
    .reg .b32 %r<2>;
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [out];
    {
        .param .b32 told;
        call.uni (told), forty_two, ();
        ld.param.b32 %r1, [told];
    }
    st.global.u32 [%rd1], %r1;
    ret;
}
)";
static const char CALLED[] = R"(
.version 7.0
.target sm_70
.address_size 64
.visible .func (.param .b32 result) forty_two()
{
    .reg .b32 %r<2>;
    mov.u32 %r1, 42;
    st.param.b32 [result], %r1;
    ret;
}
)";

static CUdeviceptr data;

static unsigned number() {
    unsigned value = 0;
    GIVES(0, cuMemcpyDtoH_v2, &value, data, sizeof value);
    return value;
}

static std::vector<long> ran;
static std::atomic<int> code_in_function{-1};
static CUstream told_stream;
static int told_status = -1;

static void note(void *which) { ran.push_back((long)which); }
static void note_told(CUstream stream, CUresult status, void *which) {
    told_stream = stream;
    told_status = status;
    ran.push_back((long)which);
}
static void sleeps(void *) { usleep(60000); }
static void calls_cuda(void *) {
    size_t free, total;
    code_in_function = CALL(cuMemGetInfo_v2, &free, &total);
}

static void host_functions(CUfunction add) {
    CUstream stream, other;
    CUevent start, end;
    GIVES(0, cuStreamCreate, &stream, CU_STREAM_NON_BLOCKING);
    GIVES(0, cuStreamCreate, &other, CU_STREAM_NON_BLOCKING);
    GIVES(0, cuMemsetD32_v2, data, 0, 1);
    unsigned one = 1;
    void *parameters[] = {&data, &one};
    for (long i = 0; i < 100; i++) {
        GIVES(0, cuLaunchKernel, add, 1, 1, 1, 1, 1, 1, 0, stream, parameters, nullptr);
        if (i % 2) GIVES(0, cuLaunchHostFunc, stream, note, (void *)i);
        else GIVES(0, cuStreamAddCallback, stream, note_told, (void *)i, 0);
    }
    GIVES(0, cuStreamSynchronize, stream);
    expect("functions that ran", (long)ran.size(), 100);
    int wrong = 0;
    for (size_t i = 0; i < ran.size(); i++) wrong += ran[i] != (long)i;
    expect("functions out of order", wrong, 0);
    expect("the callback's stream", told_stream == stream, 1);
    expect("the callback's status", told_status, 0);
    expect("kernels between them", number(), 100);

    GIVES(0, cuEventCreate, &start, 0);
    GIVES(0, cuEventCreate, &end, 0);
    GIVES(0, cuEventRecord, start, stream);
    GIVES(0, cuLaunchHostFunc, stream, sleeps, nullptr);
    GIVES(0, cuEventRecord, end, stream);
    auto then = std::chrono::steady_clock::now();
    // Of another stream: it waits by the event alone.
    GIVES(0, cuStreamWaitEvent, other, end, 0);
    GIVES(0, cuStreamSynchronize, other);
    long waited = (std::chrono::steady_clock::now() - then) / std::chrono::milliseconds(1);
    float milliseconds = 0;
    GIVES(0, cuEventElapsedTime_v2, &milliseconds, start, end);
    expect("the stream waited for the function", milliseconds > 50, 1);
    printf("driver_more: a function of 60 ms: %.1f ms between events, %ld ms until the stream was done\n", milliseconds, waited);

    GIVES(0, cuLaunchHostFunc, stream, calls_cuda, nullptr);
    GIVES(0, cuStreamSynchronize, stream);
    expect("a call from a function", code_in_function, 800);
    GIVES(1, cuLaunchHostFunc, stream, nullptr, nullptr);
    GIVES(1, cuStreamAddCallback, stream, nullptr, nullptr, 0);
    GIVES(1, cuStreamAddCallback, stream, note_told, nullptr, 1);

    auto before = std::chrono::steady_clock::now();
    for (int i = 0; i < 1000; i++) {
        CALL(cuLaunchHostFunc, stream, note, nullptr);
        CALL(cuStreamSynchronize, stream);
    }
    double micros = (std::chrono::steady_clock::now() - before) / std::chrono::nanoseconds(1) / 1e6;
    printf("driver_more: a function and its wait: %.1f us\n", micros);
    GIVES(0, cuEventDestroy_v2, start);
    GIVES(0, cuEventDestroy_v2, end);
    GIVES(0, cuStreamDestroy_v2, other);
    GIVES(0, cuStreamDestroy_v2, stream);
}

static void run_linked(CUlinkState linker, const char *name, void **parameters) {
    void *image;
    size_t bytes = 0;
    CUmodule module;
    CUfunction function;
    GIVES(0, cuLinkComplete, linker, &image, &bytes);
    expect("an image", bytes > 0, 1);
    GIVES(0, cuModuleLoadData, &module, image);
    GIVES(0, cuLinkDestroy, linker);
    GIVES(0, cuModuleGetFunction, &function, module, name);
    GIVES(0, cuLaunchKernel, function, 1, 1, 1, 1, 1, 1, 0, nullptr, parameters, nullptr);
    GIVES(0, cuCtxSynchronize);
    GIVES(0, cuModuleUnload, module);
}

static void links() {
    char info[1024] = "x", error[1024] = "x";
    CUjit_option options[] = {CU_JIT_WALL_TIME, CU_JIT_INFO_LOG_BUFFER, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES,
                              CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES, CU_JIT_LOG_VERBOSE};
    void *values[] = {nullptr, info, (void *)sizeof info, error, (void *)sizeof error, (void *)1};
    CUlinkState linker;
    GIVES(0, cuMemsetD32_v2, data, 100, 1);
    GIVES(0, cuLinkCreate_v2, 6, options, values, &linker);
    GIVES(0, cuLinkAddData_v2, linker, CU_JIT_INPUT_PTX, (void *)ADD, sizeof ADD, "add.ptx", 0, nullptr, nullptr);
    unsigned five = 5;
    void *parameters[] = {&data, &five};
    run_linked(linker, "add", parameters);
    expect("what the linked kernel added", number(), 105);
    float milliseconds;
    memcpy(&milliseconds, values, sizeof milliseconds);
    printf("driver_more: linked in %.2f ms; info %zu bytes, errors %zu bytes\n", milliseconds, (size_t)values[2], (size_t)values[4]);

    values[2] = (void *)sizeof info, values[4] = (void *)sizeof error;
    GIVES(0, cuLinkCreate_v2, 6, options, values, &linker);
    char broken[] = ".version 7.0\n.target sm_70\nrubbish";
    GIVES(218, cuLinkAddData_v2, linker, CU_JIT_INPUT_PTX, broken, sizeof broken, "broken.ptx", 0, nullptr, nullptr);
    expect("words about it", strlen(error) > 0, 1);
    GIVES(301, cuLinkAddFile_v2, linker, CU_JIT_INPUT_PTX, "/nowhere/at/all.ptx", 0, nullptr, nullptr);
    GIVES(1, cuLinkAddData_v2, linker, CU_JIT_INPUT_PTX, nullptr, 0, "nothing", 0, nullptr, nullptr);
    GIVES(0, cuLinkDestroy, linker);

    GIVES(0, cuLinkCreate_v2, 0, nullptr, nullptr, &linker);
    GIVES(0, cuLinkAddData_v2, linker, CU_JIT_INPUT_PTX, (void *)CALLED, sizeof CALLED, "called", 0, nullptr, nullptr);
    int second = CALL(cuLinkAddData_v2, linker, CU_JIT_INPUT_PTX, (void *)CALLS, sizeof CALLS, "calls", 0, nullptr, nullptr);
    if (second == 801) {
        printf("driver_more: this device links one text\n");
        GIVES(0, cuLinkDestroy, linker);
        return;
    }
    expect("a second text", second, 0);
    void *where[] = {&data};
    run_linked(linker, "answer", where);
    expect("what a function of another text gave", number(), 42);
}

static void tensor_maps(CUdevice device) {
    alignas(64) CUtensorMap here, there, moved;
    cuuint64_t sizes[] = {64, 32}, strides[] = {256};
    cuuint32_t box[] = {16, 8}, steps[] = {1, 1};
    auto encode = [&](CUtensorMap *map, int rank, CUdeviceptr address) {
        return CALL(cuTensorMapEncodeTiled, map, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, rank, (void *)address, sizes, strides, box, steps,
                    CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_64B, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                    CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    };
    int has = 0;
    GIVES(0, cuDeviceGetAttribute, &has, CU_DEVICE_ATTRIBUTE_TENSOR_MAP_ACCESS_SUPPORTED, device);
    expect("no rank", encode(&here, 0, data), 1);
    expect("a rank too high", encode(&here, 6, data), 1);
    if (!has) {
        expect("a tensor map", encode(&here, 2, data), 801);
        return;
    }
    memset(&here, 0, sizeof here), memset(&there, 0, sizeof there);
    expect("a tensor map", encode(&here, 2, data), 0);
    expect("another", encode(&there, 2, data + 4096), 0);
    expect("they differ", memcmp(&here, &there, sizeof here) != 0, 1);
    moved = here;
    GIVES(0, cuTensorMapReplaceAddress, &moved, (void *)(data + 4096));
    expect("moved", memcmp(&moved, &there, sizeof moved), 0);
    expect("not at a multiple of 16", encode(&here, 2, data + 4), 1);
    strides[0] = 250;
    expect("a stride that is no multiple of 16", encode(&here, 2, data), 1);
}

static int destroyed = 0;
static void destroy(void *which) { destroyed += (long)which; }

static void others(CUcontext context) {
    CUuserObject object;
    GIVES(1, cuUserObjectCreate, &object, (void *)7, destroy, 1, 0);
    GIVES(0, cuUserObjectCreate, &object, (void *)7, destroy, 1, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC);
    GIVES(0, cuUserObjectRetain, object, 2);
    GIVES(0, cuUserObjectRelease, object, 2);
    expect("with an owner", destroyed, 0);
    GIVES(0, cuUserObjectRelease, object, 1);
    // NVIDIA's driver may call it later.
    for (int i = 0; i < 1000 && !destroyed; i++) usleep(1000);
    expect("without an owner", destroyed, 7);
    CUevent event;
    GIVES(0, cuEventCreate, &event, 0);
    GIVES(0, cuCtxRecordEvent, context, event);
    GIVES(0, cuCtxWaitEvent, context, event);
    GIVES(0, cuEventSynchronize, event);
    GIVES(0, cuEventDestroy_v2, event);
    // As many as there are, or that there is no such thing: drivers differ.
    CUexecAffinityParam affinity = {};
    int all = 0, code = CALL(cuCtxGetExecAffinity, &affinity, CU_EXEC_AFFINITY_TYPE_SM_COUNT);
    GIVES(0, cuDeviceGetAttribute, &all, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 0);
    expect("all multiprocessors", code == 0 ? affinity.param.smCount.val : all, all);
    if (code != 0) expect("affinity is not offered", code, 224);
}

int main() {
    CUdevice device;
    CUcontext context;
    CUmodule module;
    CUfunction add;
    GIVES(0, cuInit, 0);
    GIVES(0, cuDeviceGet, &device, 0);
    GIVES(0, cuDevicePrimaryCtxRetain, &context, device);
    GIVES(0, cuCtxSetCurrent, context);
    GIVES(0, cuMemAlloc_v2, &data, 1 << 16);
    GIVES(0, cuModuleLoadData, &module, ADD);
    GIVES(0, cuModuleGetFunction, &add, module, "add");
    host_functions(add);
    links();
    tensor_maps(device);
    others(context);
    GIVES(0, cuModuleUnload, module);
    GIVES(0, cuMemFree_v2, data);
    GIVES(0, cuDevicePrimaryCtxRelease_v2, device);
    printf("driver_more: %s, %d wrong\n", failures ? "failed" : "ok", failures);
    return failures ? 1 : 0;
}
