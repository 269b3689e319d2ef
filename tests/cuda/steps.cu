// The driver's calls of a training step and of a decoded token, as PyTorch makes them. Through vgpu they wait for 0, 1 and 2 replies of the
// worker: the second word of its marker counts them. NVIDIA's own driver has no such marker, and gives the same results.
// `steps counts`: where nothing is computed, results are not looked at.
#include <cstring>

#define PROGRAM "steps"
#include "driver.h"
#include "ptx.h"

// `add` is launched without a question about it, `sum` is asked about, as cuBLAS does.
static const char LIBRARY[] = PTX_HEAD PTX_ADDS("add") PTX_ADDS("sum");
// What cuDNN compiles for a plan.
static const char ATTENTION[] = PTX_HEAD PTX_ADDS("attention");

static CUcontext context;
static CUfunction add_one, sum;
static CUdeviceptr word;
static void *pinned;
static unsigned launches;

static unsigned long long replies() {
    static auto marker = (const volatile unsigned long long *)dlsym(dlopen("libcuda.so.1", RTLD_NOW), "vgpu_is_shim");
    return marker ? marker[1] : 0;
}

static bool through_vgpu() { return dlsym(dlopen("libcuda.so.1", RTLD_NOW), "vgpu_is_shim"); }

// What PyTorch asks before each operation.
static void asks() {
    CUdevice device;
    unsigned flags;
    int active;
    CUcontext current;
    for (int i = 0; i < 4; i++) GIVES(0, cuCtxGetDevice, &device);
    for (int i = 0; i < 2; i++) GIVES(0, cuDevicePrimaryCtxGetState, 0, &flags, &active);
    GIVES(0, cuCtxSetCurrent, context);
    GIVES(0, cuCtxGetCurrent, &current);
}

static void launch(CUfunction function) {
    unsigned one = 1;
    void *params[] = {&word, &one};
    asks();
    GIVES(0, cuLaunchKernel, function, 1, 1, 1, 1, 1, 1, 0, nullptr, params, nullptr);
    launches++;
}

static void product() {
    int number, blocks;
    GIVES(0, cuDeviceGetAttribute, &number, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 0);
    GIVES(0, cuFuncGetAttribute, &number, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, sum);
    GIVES(0, cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags, &blocks, sum, 128, 0, 0);
    launch(sum);
}

static void training_step() {
    for (int i = 0; i < 2; i++) {
        asks();
        GIVES(0, cuMemsetD8Async, word + 64, 0, 64, nullptr);
    }
    for (int i = 0; i < 18; i++) launch(add_one);
    product();
}

// A plan for another length: its kernel is loaded, asked about and launched. Stack and heap decide on what else is needed.
static void attention() {
    CUmodule module;
    CUfunction function;
    NEEDS(cuModuleLoadData, &module, ATTENTION);
    NEEDS(cuModuleGetFunction, &function, module, "attention");
    size_t bytes;
    for (CUlimit limit : {CU_LIMIT_STACK_SIZE, CU_LIMIT_STACK_SIZE, CU_LIMIT_MALLOC_HEAP_SIZE, CU_LIMIT_STACK_SIZE})
        GIVES(0, cuCtxGetLimit, &bytes, limit);
    int local = -1;
    GIVES(0, cuFuncGetAttribute, &local, CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES, function);
    expect("local memory", local, 0);
    launch(function);
    GIVES(0, cuModuleUnload, module);
}

static unsigned item() {
    asks();
    GIVES(0, cuMemcpyDtoHAsync_v2, pinned, word, 4, nullptr);
    GIVES(0, cuStreamSynchronize, nullptr);
    return *(unsigned *)pinned;
}

static unsigned to_cpu() {
    unsigned value = 0;
    asks();
    GIVES(0, cuMemcpyDtoHAsync_v2, &value, word, 4, nullptr);
    GIVES(0, cuStreamSynchronize, nullptr);
    return value;
}

static bool looks_at_results = true;
static void look(unsigned value) {
    if (looks_at_results) expect("sum", value, launches);
}

// The next batch comes from pinned memory. PyTorch asks whether the copy of the one before is over, to use its memory again.
static CUevent copied;
static void batch() {
    GIVES(0, cuEventQuery, copied);
    GIVES(0, cuMemcpyHtoDAsync_v2, word + 128, (char *)pinned + 32, 16, nullptr);
    GIVES(0, cuEventRecord, copied, nullptr);
}

static void looked_at_step() {
    // The word before the event is written by the device.
    if (looks_at_results) batch();
    training_step(), look(item());
}
static void copied_step() { training_step(), look(to_cpu()); }
static void token() {
    for (int layer = 0; layer < 2; layer++) {
        for (int i = 0; i < 10; i++) launch(add_one);
        product();
        attention();
    }
    look(item()), look(to_cpu());
}

static void counts(const char *what, void (*step)(), int times, int replies_each) {
    // What is asked once is asked now.
    for (int i = 0; i < 2; i++) step();
    NEEDS(cuCtxSynchronize);
    unsigned long long before = replies();
    for (int i = 0; i < times; i++) step();
    if (through_vgpu()) expect(what, replies() - before, (long long)times * replies_each);
    NEEDS(cuCtxSynchronize);
}

int main(int count, char **words) {
    looks_at_results = count < 2 || strcmp(words[1], "counts");
    CUmodule library;
    NEEDS(cuInit, 0);
    NEEDS(cuDevicePrimaryCtxRetain, &context, 0);
    NEEDS(cuCtxSetCurrent, context);
    NEEDS(cuModuleLoadData, &library, LIBRARY);
    NEEDS(cuModuleGetFunction, &add_one, library, "add");
    NEEDS(cuModuleGetFunction, &sum, library, "sum");
    NEEDS(cuMemAlloc_v2, &word, 256);
    NEEDS(cuMemsetD8_v2, word, 0, 256);
    NEEDS(cuMemHostAlloc, &pinned, 64, 0);
    NEEDS(cuEventCreate, &copied, CU_EVENT_DISABLE_TIMING);
    counts("replies of a training step", training_step, 10, 0);
    counts("replies of one with a new batch whose loss is looked at", looked_at_step, 10, 1);
    counts("replies of one whose loss is copied", copied_step, 10, 1);
    counts("replies of a token", token, 32, 2);
    printf("steps: %s, %u launches, %d wrong\n", failures ? "failed" : "ok", launches, failures);
    return failures > 0;
}
