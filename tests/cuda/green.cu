// Green contexts: two with a part of the multiprocessors each, whose kernels say where they ran; what belongs to them and what to the primary
// context, events between them, ends in every order, wrong uses. `green takes` prints what CUDA's documents leave open, and the device memory
// that one takes.
#include <algorithm>
#include <cstring>
#include <set>
#include <vector>

#define PROGRAM "green"
#include "driver.h"

static const char KERNELS[] = R"(
.version 7.0
.target sm_70
.address_size 64
.visible .entry where(.param .u64 out)
{
    .reg .b32 %r<3>;
    .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [out];
    mov.u32 %r1, %smid;
    mov.u32 %r2, %ctaid.x;
    mul.wide.u32 %rd2, %r2, 4;
    add.u64 %rd3, %rd1, %rd2;
    st.global.u32 [%rd3], %r1;
    ret;
}
.visible .entry add(.param .u64 out, .param .u32 number)
{
    .reg .b32 %r<4>;
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [out];
    ld.param.u32 %r1, [number];
    ld.global.u32 %r2, [%rd1];
    add.u32 %r3, %r2, %r1;
    st.global.u32 [%rd1], %r3;
    ret;
}
)";

static CUdevice device;
static CUcontext primary;
static CUfunction where, add;
static CUdeviceptr data;
static const unsigned BLOCKS = 4096;

static unsigned word(CUdeviceptr at) {
    unsigned value = 0;
    GIVES(0, cuMemcpyDtoH_v2, &value, at, sizeof value);
    return value;
}

static void launch_add(CUstream stream, unsigned number) {
    void *params[] = {&data, &number};
    GIVES(0, cuLaunchKernel, add, 1, 1, 1, 1, 1, 1, 0, stream, params, nullptr);
}

// The multiprocessors that a stream's kernels run on.
static std::set<unsigned> places(CUstream stream) {
    std::vector<unsigned> seen(BLOCKS, ~0u);
    CUdeviceptr out;
    NEEDS(cuMemAlloc_v2, &out, BLOCKS * sizeof(unsigned));
    GIVES(0, cuMemsetD32_v2, out, ~0u, BLOCKS);
    GIVES(0, cuCtxSynchronize);
    void *params[] = {&out};
    GIVES(0, cuLaunchKernel, where, BLOCKS, 1, 1, 64, 1, 1, 0, stream, params, nullptr);
    GIVES(0, cuStreamSynchronize, stream);
    GIVES(0, cuMemcpyDtoH_v2, seen.data(), out, BLOCKS * sizeof(unsigned));
    GIVES(0, cuMemFree_v2, out);
    return {seen.begin(), seen.end()};
}

struct Half {
    CUgreenCtx green;
    CUcontext context;
    CUstream stream;
};

static Half make(CUdevResource *parts, unsigned count) {
    Half half;
    CUdevResourceDesc desc;
    NEEDS(cuDevResourceGenerateDesc, &desc, parts, count);
    NEEDS(cuGreenCtxCreate, &half.green, desc, device, CU_GREEN_CTX_DEFAULT_STREAM);
    NEEDS(cuCtxFromGreenCtx, &half.context, half.green);
    NEEDS(cuGreenCtxStreamCreate, &half.stream, half.green, CU_STREAM_NON_BLOCKING, 0);
    return half;
}

static void end(Half &half) {
    GIVES(0, cuStreamDestroy_v2, half.stream);
    GIVES(0, cuGreenCtxDestroy, half.green);
}

static void splits(CUdevResource all) {
    CUdevResource parts[2], rest;
    unsigned groups = 0, least = all.sm.minSmPartitionSize;
    GIVES(0, cuDevSmResourceSplitByCount, nullptr, &groups, &all, nullptr, 0, least);
    expect("there are groups", groups > 0, 1);
    expect("no more than fit", groups * least <= all.sm.smCount, 1);
    // All of them are made when so many are wanted, and with the rest they are the whole.
    std::vector<CUdevResource> each(groups);
    unsigned made = groups, sum = 0;
    GIVES(0, cuDevSmResourceSplitByCount, each.data(), &made, &all, &rest, 0, least);
    expect("as many as were told", made, groups);
    for (CUdevResource &one : each) sum += one.sm.smCount;
    expect("multiprocessors of all groups and of the rest", sum + (rest.type == CU_DEV_RESOURCE_TYPE_SM ? rest.sm.smCount : 0), all.sm.smCount);
    made = 1;
    GIVES(0, cuDevSmResourceSplitByCount, parts, &made, &all, &rest, 0, least);
    expect("one group", made, 1);
    expect("its type", parts[0].type, CU_DEV_RESOURCE_TYPE_SM);
    expect("at least so many", parts[0].sm.smCount >= least, 1);
    expect("all of them", parts[0].sm.smCount + rest.sm.smCount, all.sm.smCount);
    made = 1;
    GIVES(0, cuDevSmResourceSplitByCount, parts, &made, &all, nullptr, CU_DEV_SM_RESOURCE_SPLIT_IGNORE_SM_COSCHEDULING, 1);
    expect("one group apart", made, 1);

    CUdevResource none;
    memset(&none, 0, sizeof none);
    made = 1;
    GIVES(CUDA_ERROR_INVALID_RESOURCE_TYPE, cuDevSmResourceSplitByCount, parts, &made, &none, nullptr, 0, least);
    GIVES(CUDA_ERROR_INVALID_VALUE, cuDevSmResourceSplitByCount, parts, nullptr, &all, nullptr, 0, least);
    GIVES(CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION, cuDevSmResourceSplitByCount, parts, &made, &all, nullptr, 0, all.sm.smCount + 1);
    GIVES(CUDA_ERROR_INVALID_RESOURCE_TYPE, cuDeviceGetDevResource, device, &none, CU_DEV_RESOURCE_TYPE_INVALID);
}

static void streams(Half &one, Half &other) {
    CUcontext context;
    CUgreenCtx green;
    unsigned long long id = 0, other_id = 0;
    GIVES(0, cuStreamGetCtx, one.stream, &context);
    expect("a stream's context", context == one.context, 1);
    GIVES(0, cuStreamGetCtx_v2, one.stream, &context, &green);
    expect("its primary one", context == primary && green == one.green, 1);
    GIVES(0, cuStreamGetGreenCtx, one.stream, &green);
    expect("its green one", green == one.green, 1);
    GIVES(0, cuStreamGetGreenCtx, nullptr, &green);
    expect("of no green context", green == nullptr, 1);
    GIVES(0, cuGreenCtxGetId, one.green, &id);
    GIVES(0, cuGreenCtxGetId, other.green, &other_id);
    expect("two ids", id != other_id, 1);

    GIVES(0, cuCtxPushCurrent_v2, one.context);
    GIVES(0, cuStreamGetGreenCtx, nullptr, &green);
    expect("of the current one", green == one.green, 1);
    CUdevice on = -1;
    GIVES(0, cuCtxGetDevice, &on);
    expect("its device", on, device);
    CUstream made;
    GIVES(0, cuStreamCreate, &made, CU_STREAM_NON_BLOCKING);
    GIVES(0, cuStreamGetGreenCtx, made, &green);
    expect("made while it is current", green == one.green, 1);
    GIVES(0, cuStreamDestroy_v2, made);
    // Memory is the primary context's; the null stream is the green one's.
    CUdeviceptr mine;
    GIVES(0, cuMemAlloc_v2, &mine, 4096);
    GIVES(0, cuMemsetD32Async, mine, 5, 4, nullptr);
    GIVES(0, cuCtxSynchronize);
    GIVES(0, cuCtxPopCurrent_v2, nullptr);
    expect("a word of it", word(mine), 5);
    GIVES(0, cuMemFree_v2, mine);
}

// Each waits for the other in turn, by events of streams and of whole contexts.
static void events(Half &one, Half &other) {
    CUevent event;
    GIVES(0, cuEventCreate, &event, CU_EVENT_DISABLE_TIMING);
    GIVES(0, cuMemsetD32_v2, data, 0, 1);
    GIVES(0, cuCtxSynchronize);
    for (unsigned round = 1; round <= 50; round++) {
        launch_add(one.stream, round);
        GIVES(0, cuEventRecord, event, one.stream);
        GIVES(0, cuStreamWaitEvent, other.stream, event, 0);
        launch_add(other.stream, round);
        GIVES(0, cuGreenCtxRecordEvent, other.green, event);
        GIVES(0, cuGreenCtxWaitEvent, one.green, event);
    }
    GIVES(0, cuStreamSynchronize, one.stream);
    GIVES(0, cuStreamSynchronize, other.stream);
    expect("all rounds", word(data), 50 * 51);
    GIVES(0, cuEventDestroy_v2, event);
}

static void ends(CUdevResource *parts) {
    Half half = make(parts, 1);
    CUdevResource has;
    GIVES(0, cuGreenCtxGetDevResource, half.green, &has, CU_DEV_RESOURCE_TYPE_SM);
    expect("what it has", has.sm.smCount, parts[0].sm.smCount);
    GIVES(0, cuCtxGetDevResource, half.context, &has, CU_DEV_RESOURCE_TYPE_SM);
    expect("the same by its context", has.sm.smCount, parts[0].sm.smCount);
    launch_add(half.stream, 1);
    end(half);
    GIVES(0, cuCtxSynchronize);
    half = make(parts, 1);
    GIVES(0, cuGreenCtxDestroy, half.green);
    GIVES(CUDA_ERROR_CONTEXT_IS_DESTROYED, cuStreamQuery, half.stream);
    GIVES(CUDA_ERROR_CONTEXT_IS_DESTROYED, cuStreamDestroy_v2, half.stream);
}

static void wrong(CUdevResource *parts) {
    CUdevResourceDesc desc;
    CUgreenCtx green;
    CUstream stream;
    NEEDS(cuDevResourceGenerateDesc, &desc, parts, 1);
    GIVES(CUDA_ERROR_INVALID_VALUE, cuGreenCtxCreate, &green, desc, device, 0);
    GIVES(CUDA_ERROR_INVALID_VALUE, cuGreenCtxCreate, nullptr, desc, device, CU_GREEN_CTX_DEFAULT_STREAM);
    GIVES(CUDA_ERROR_INVALID_VALUE, cuDevResourceGenerateDesc, nullptr, parts, 1);
    Half half = make(parts, 1);
    GIVES(CUDA_ERROR_INVALID_VALUE, cuGreenCtxStreamCreate, &stream, half.green, 0, 0);
    end(half);
}

// Prints what the documents leave open.
static void takes(CUdevResource all, CUdevResource *parts) {
    size_t before = 0, after = 0, total = 0;
    Half halves[4];
    printf("%u multiprocessors, groups of %u and multiples of %u\n", all.sm.smCount, all.sm.minSmPartitionSize,
           all.sm.smCoscheduledAlignment);
    for (Half &half : halves) {
        NEEDS(cuMemGetInfo_v2, &before, &total);
        half = make(parts, 1);
        launch_add(half.stream, 0);
        GIVES(0, cuCtxSynchronize);
        NEEDS(cuMemGetInfo_v2, &after, &total);
        printf("one with a stream that was used takes %lld bytes\n", (long long)before - (long long)after);
    }
    CUdevResource some[2], rest;
    unsigned made = 2;
    printf("no groups wanted: %d\n", CALL(cuDevSmResourceSplitByCount, some, &(made = 0), &all, &rest, 0, all.sm.minSmPartitionSize));
    printf("unknown flags: %d\n", CALL(cuDevSmResourceSplitByCount, some, &(made = 1), &all, &rest, 8, all.sm.minSmPartitionSize));
    printf("a part is split: %d\n", CALL(cuDevSmResourceSplitByCount, some, &(made = 1), parts, &rest, 0, all.sm.minSmPartitionSize));
    unsigned groups = 0;
    CALL(cuDevSmResourceSplitByCount, nullptr, &groups, &all, nullptr, 0, all.sm.minSmPartitionSize);
    std::vector<CUdevResource> each(groups + 1);
    made = groups + 1;
    int code = CALL(cuDevSmResourceSplitByCount, each.data(), &made, &all, &rest, 0, all.sm.minSmPartitionSize);
    printf("more groups than there are: %d, %u of %u, the rest %u of type %d\n", code, made, groups, rest.sm.smCount, rest.type);
    CUdevResourceDesc desc;
    CUdevResource twice[] = {parts[0], parts[0]};
    printf("a part twice: %d\n", CALL(cuDevResourceGenerateDesc, &desc, twice, 2));
    // NVIDIA's driver 580 takes these.
    CUdevResource two[] = {parts[0], each[0]};
    printf("parts of two splits: %d\n", CALL(cuDevResourceGenerateDesc, &desc, two, 2));
    printf("no parts: %d\n", CALL(cuDevResourceGenerateDesc, &desc, twice, 0));
    printf("the context of NULL: %d\n", CALL(cuCtxFromGreenCtx, &halves[0].context, nullptr));
    printf("the id of NULL, no green context current: %d\n", CALL(cuGreenCtxGetId, nullptr, (unsigned long long *)&total));
    GIVES(0, cuCtxPushCurrent_v2, halves[1].context);
    CUstream stream = nullptr;
    CUcontext context;
    CUgreenCtx green;
    printf("a stream that blocks, made while one is current: %d\n", CALL(cuStreamCreate, &stream, 0));
    printf("the thread's stream while one is current: %d\n", CALL(cuStreamGetCtx_v2, CU_STREAM_PER_THREAD, &context, &green));
    printf("and used: %d\n", CALL(cuStreamQuery, CU_STREAM_PER_THREAD));
    printf("a capture of its null stream: %d\n", CALL(cuStreamBeginCapture_v2, nullptr, CU_STREAM_CAPTURE_MODE_GLOBAL));
    GIVES(0, cuCtxPopCurrent_v2, nullptr);
    printf("its context destroyed by cuCtxDestroy: %d\n", CALL(cuCtxDestroy_v2, halves[1].context));
    GIVES(0, cuCtxPushCurrent_v2, halves[2].context);
    GIVES(0, cuStreamDestroy_v2, halves[2].stream);
    printf("destroyed while it is current: %d\n", CALL(cuGreenCtxDestroy, halves[2].green));
    printf("and waited for: %d\n", CALL(cuCtxSynchronize));
    CALL(cuCtxSetCurrent, primary);
}

int main(int count, char **words) {
    CUmodule module;
    CUdevResource all, parts[2], rest;
    NEEDS(cuInit, 0);
    NEEDS(cuDeviceGet, &device, 0);
    NEEDS(cuDevicePrimaryCtxRetain, &primary, device);
    NEEDS(cuCtxSetCurrent, primary);
    NEEDS(cuModuleLoadData, &module, KERNELS);
    NEEDS(cuModuleGetFunction, &where, module, "where");
    NEEDS(cuModuleGetFunction, &add, module, "add");
    NEEDS(cuMemAlloc_v2, &data, 4096);
    NEEDS(cuDeviceGetDevResource, device, &all, CU_DEV_RESOURCE_TYPE_SM);
    // Two halves, as far as there are whole groups.
    unsigned half = all.sm.smCount / 2 / all.sm.smCoscheduledAlignment * all.sm.smCoscheduledAlignment, made = 2;
    NEEDS(cuDevSmResourceSplitByCount, parts, &made, &all, &rest, 0, half);
    expect("two halves", made, 2);
    if (count > 1 && !strcmp(words[1], "takes")) {
        takes(all, parts);
        return 0;
    }
    int processors = 0;
    GIVES(0, cuDeviceGetAttribute, &processors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device);
    expect("as many as the device has", all.sm.smCount, processors);
    splits(all);

    Half one = make(&parts[0], 1), other = make(&parts[1], 1);
    std::set<unsigned> ours = places(one.stream), theirs = places(other.stream), both;
    std::set_intersection(ours.begin(), ours.end(), theirs.begin(), theirs.end(), std::inserter(both, both.begin()));
    expect("multiprocessors of both", both.size(), 0);
    expect("no more than one has", ours.size() <= parts[0].sm.smCount && !ours.empty(), 1);
    expect("no more than the other has", theirs.size() <= parts[1].sm.smCount && !theirs.empty(), 1);
    // The null stream of a current one.
    GIVES(0, cuCtxPushCurrent_v2, one.context);
    std::set<unsigned> null = places(nullptr);
    both.clear();
    std::set_intersection(null.begin(), null.end(), theirs.begin(), theirs.end(), std::inserter(both, both.begin()));
    expect("apart from the other's in the null stream too", both.size(), 0);
    GIVES(0, cuCtxPopCurrent_v2, nullptr);
    streams(one, other);
    events(one, other);
    end(one);
    end(other);
    // Parts of one split together.
    Half whole = make(parts, 2);
    CUdevResource has;
    GIVES(0, cuGreenCtxGetDevResource, whole.green, &has, CU_DEV_RESOURCE_TYPE_SM);
    expect("both halves", has.sm.smCount, parts[0].sm.smCount + parts[1].sm.smCount);
    end(whole);
    ends(parts);
    wrong(parts);
    GIVES(0, cuMemFree_v2, data);
    GIVES(0, cuModuleUnload, module);
    GIVES(0, cuDevicePrimaryCtxRelease_v2, device);
    if (failures) return 1;
    printf("green: ok, two halves of the multiprocessors\n");
    return 0;
}
