// What the other programs here leave out: attributes of functions by every name, libraries, modules from files, settings, logs, graph
// nodes that are changed, sets and copies of rarer shapes. A bare driver of NVIDIA's has to say the same.
#include <unistd.h>
#include <cstring>
#include <string>
#include <vector>

#define PROGRAM "driver_rest"
#include "driver.h"

extern "C" CUresult cuProfilerStart(void);
extern "C" CUresult cuProfilerStop(void);

static const char KERNELS[] = R"(
.version 7.0
.target sm_70
.address_size 64
.visible .global .align 4 .u32 base = 40;
.visible .entry add(.param .u64 out, .param .u32 number)
{
    .reg .b32 %r<4>;
    .reg .b64 %rd<3>;
    ld.param.u64 %rd1, [out];
    ld.param.u32 %r1, [number];
    mov.u64 %rd2, base;
    ld.global.u32 %r2, [%rd2];
    add.u32 %r2, %r2, %r1;
    st.global.u32 [%rd1], %r2;
    ret;
}
.visible .entry nothing()
{
    ret;
}
)";

static CUdevice device;
static CUcontext context;
static CUdeviceptr data;

static unsigned word(CUdeviceptr at) {
    unsigned value = 0;
    GIVES(0, cuMemcpyDtoH_v2, &value, at, sizeof value);
    return value;
}

static void contexts() {
    unsigned long long primary_id = 0, id = 0;
    CUcontext made;
    GIVES(0, cuCtxGetId, context, &primary_id);
    GIVES(0, cuCtxGetId, nullptr, &id);
    expect("the current context's id", id == primary_id, 1);
    GIVES(0, cuCtxCreate_v4, &made, nullptr, 0, device);
    GIVES(0, cuCtxGetId, made, &id);
    expect("another context's id", id != primary_id, 1);
    GIVES(0, cuCtxDestroy_v2, made);
    GIVES(0, cuCtxSetCurrent, context);

    int least = 7, greatest = 7;
    GIVES(0, cuCtxGetStreamPriorityRange, &least, &greatest);
    expect("priorities", least == 0 && greatest <= 0, 1);
    GIVES(0, cuCtxGetStreamPriorityRange, nullptr, nullptr);
    CUfunc_cache cache = (CUfunc_cache)9;
    GIVES(0, cuCtxGetCacheConfig, &cache);
    expect("no preference for a cache", cache, CU_FUNC_CACHE_PREFER_NONE);
    GIVES(0, cuCtxSetCacheConfig, CU_FUNC_CACHE_PREFER_L1);
    GIVES(1, cuCtxSetCacheConfig, (CUfunc_cache)4);
    CUsharedconfig banks = (CUsharedconfig)9;
    GIVES(0, cuCtxGetSharedMemConfig, &banks);
    expect("banks of four bytes", banks, CU_SHARED_MEM_CONFIG_FOUR_BYTE_BANK_SIZE);
    GIVES(0, cuCtxSetSharedMemConfig, CU_SHARED_MEM_CONFIG_FOUR_BYTE_BANK_SIZE);
    GIVES(0, cuCtxResetPersistingL2Cache);
    GIVES(0, cuProfilerStart);
    GIVES(0, cuProfilerStop);
}

static void devices() {
    int major = 0, minor = 0, wanted = 0, supported = -1;
    GIVES(0, cuDeviceComputeCapability, &major, &minor, device);
    GIVES(0, cuDeviceGetAttribute, &wanted, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device);
    expect("major", major, wanted);
    GIVES(0, cuDeviceGetAttribute, &wanted, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device);
    expect("minor", minor, wanted);
    char bus[16] = {};
    CUdevice same = -1;
    GIVES(0, cuDeviceGetPCIBusId, bus, sizeof bus, device);
    GIVES(0, cuDeviceGetByPCIBusId, &same, bus);
    expect("the device at its place on the bus", same, device);
    GIVES(101, cuDeviceGetByPCIBusId, &same, "ffff:1f:1f.0");
    GIVES(0, cuDeviceGetExecAffinitySupport, &supported, CU_EXEC_AFFINITY_TYPE_SM_COUNT, device);
    expect("affinity without MPS", supported, 0);
    unsigned flags = 9;
    int active = 9;
    // Of a primary context that is alive its flags can be set since CUDA 11.
    GIVES(0, cuDevicePrimaryCtxSetFlags_v2, device, CU_CTX_SCHED_BLOCKING_SYNC);
    GIVES(0, cuDevicePrimaryCtxGetState, device, &flags, &active);
    expect("its flags", (flags & CU_CTX_SCHED_MASK) == CU_CTX_SCHED_BLOCKING_SYNC && active == 1, 1);
    GIVES(0, cuDevicePrimaryCtxSetFlags_v2, device, 0);
    const char *text = nullptr;
    GIVES(0, cuGetErrorString, CUDA_ERROR_OUT_OF_MEMORY, &text);
    expect("the text of an error", text && !strcmp(text, "out of memory"), 1);
}

static void functions() {
    CUmodule module, owner = nullptr;
    CUfunction add, other[3] = {};
    unsigned count = 0;
    const char *name = nullptr;
    GIVES(0, cuModuleLoadFatBinary, &module, KERNELS);
    GIVES(0, cuModuleGetFunctionCount, &count, module);
    expect("functions of the module", count, 2);
    GIVES(0, cuModuleEnumerateFunctions, other, 2, module);
    GIVES(0, cuModuleGetFunction, &add, module, "add");
    expect("it is one of them", other[0] == add || other[1] == add, 1);
    GIVES(0, cuFuncGetName, &name, add);
    expect("its name", name && !strcmp(name, "add"), 1);
    GIVES(0, cuFuncGetModule, &owner, add);
    expect("its module", owner == module, 1);
    GIVES(0, cuFuncLoad, add);
    CUfunctionLoadingState state = (CUfunctionLoadingState)9;
    GIVES(0, cuFuncIsLoaded, &state, add);
    expect("it is loaded", state, CU_FUNCTION_LOADING_STATE_LOADED);
    GIVES(0, cuFuncSetCacheConfig, add, CU_FUNC_CACHE_PREFER_SHARED);
    GIVES(0, cuFuncSetSharedMemConfig, add, CU_SHARED_MEM_CONFIG_FOUR_BYTE_BANK_SIZE);
    CUmoduleLoadingMode mode = (CUmoduleLoadingMode)9;
    GIVES(0, cuModuleGetLoadingMode, &mode);
    expect("loaded when needed, unless the environment says otherwise", mode == CU_MODULE_LAZY_LOADING || getenv("CUDA_MODULE_LOADING"), 1);
    unsigned two = 2;
    void *parameters[] = {&data, &two};
    GIVES(0, cuLaunchCooperativeKernel, add, 1, 1, 1, 1, 1, 1, 0, nullptr, parameters);
    expect("what a cooperative kernel wrote", word(data), 42);
    int grid = 0, block = 0, plain_grid = 0, plain_block = 0;
    GIVES(0, cuOccupancyMaxPotentialBlockSize, &plain_grid, &plain_block, add, nullptr, 0, 0);
    GIVES(0, cuOccupancyMaxPotentialBlockSizeWithFlags, &grid, &block, add, nullptr, 0, 0, CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE);
    expect("the best block", grid == plain_grid && block == plain_block && block > 0, 1);
    GIVES(0, cuOccupancyMaxPotentialBlockSizeWithFlags, &grid, &block, add, nullptr, 0, 64, 0);
    expect("the best block below a limit", block, 64);
    CUlaunchConfig config = {};
    config.gridDimX = 4, config.gridDimY = config.gridDimZ = 1;
    config.blockDimX = 32, config.blockDimY = config.blockDimZ = 1;
    CUlaunchAttribute cluster = {};
    cluster.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    cluster.value.clusterDim.x = 2, cluster.value.clusterDim.y = cluster.value.clusterDim.z = 1;
    config.attrs = &cluster, config.numAttrs = 1;
    int has = 0, size = 0, clusters = 0;
    GIVES(0, cuDeviceGetAttribute, &has, CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH, device);
    if (has) {
        GIVES(0, cuOccupancyMaxPotentialClusterSize, &size, add, &config);
        expect("blocks of a cluster", size >= 2 && size <= 16, 1);
        GIVES(0, cuOccupancyMaxActiveClusters, &clusters, add, &config);
        expect("clusters at once", clusters > 0, 1);
    }
    GIVES(1, cuOccupancyMaxActiveClusters, &clusters, nullptr, &config);
    GIVES(0, cuModuleUnload, module);
}

static void libraries() {
    char path[] = "/tmp/driver_rest-XXXXXX";
    int file = mkstemp(path);
    expect("a file", write(file, KERNELS, sizeof KERNELS - 1), sizeof KERNELS - 1);
    close(file);
    CUmodule module;
    CUfunction add;
    GIVES(0, cuModuleLoad, &module, path);
    GIVES(0, cuModuleGetFunction, &add, module, "add");
    GIVES(0, cuModuleUnload, module);
    GIVES(301, cuModuleLoad, &module, "/nowhere/at/all.ptx");

    CUlibrary library, owner = nullptr;
    CUkernel kernel, all[2] = {};
    unsigned count = 0;
    const char *name = nullptr;
    size_t offset = 9, bytes = 9;
    CUdeviceptr at = 0;
    GIVES(0, cuLibraryLoadFromFile, &library, path, nullptr, nullptr, 0, nullptr, nullptr, 0);
    unlink(path);
    GIVES(0, cuLibraryGetKernelCount, &count, library);
    expect("kernels of the library", count, 2);
    GIVES(0, cuLibraryEnumerateKernels, all, 2, library);
    GIVES(0, cuLibraryGetKernel, &kernel, library, "add");
    expect("it is one of them", all[0] == kernel || all[1] == kernel, 1);
    GIVES(500, cuLibraryGetKernel, &kernel, library, "subtract");
    GIVES(0, cuKernelGetName, &name, kernel);
    expect("its name", name && !strcmp(name, "add"), 1);
    GIVES(0, cuKernelGetLibrary, &owner, kernel);
    expect("its library", owner == library, 1);
    GIVES(0, cuKernelGetParamInfo, kernel, 1, &offset, &bytes);
    expect("its second parameter", offset == 8 && bytes == 4, 1);
    GIVES(1, cuKernelGetParamInfo, kernel, 2, &offset, &bytes);
    int most = 0;
    GIVES(0, cuKernelGetAttribute, &most, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, kernel, device);
    expect("threads of a block", most >= 32 && most <= 1024, 1);
    GIVES(0, cuKernelSetAttribute, CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 50, kernel, device);
    GIVES(0, cuKernelGetAttribute, &most, CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, kernel, device);
    expect("the carve-out that was set", most, 50);
    GIVES(0, cuKernelSetCacheConfig, kernel, CU_FUNC_CACHE_PREFER_L1, device);
    GIVES(0, cuLibraryGetGlobal, &at, &bytes, library, "base");
    expect("a variable's bytes", bytes, 4);
    expect("what it begins with", word(at), 40);
    GIVES(500, cuLibraryGetManaged, &at, &bytes, library, "base");
    GIVES(0, cuLibraryGetModule, &module, library);
    GIVES(0, cuModuleGetFunction, &add, module, "add");
    unsigned three = 3;
    void *parameters[] = {&data, &three};
    GIVES(0, cuLaunchKernel, (CUfunction)kernel, 1, 1, 1, 1, 1, 1, 0, nullptr, parameters, nullptr);
    expect("what the library's kernel wrote", word(data), 43);
    GIVES(0, cuLibraryUnload, library);
}

static void sets() {
    const size_t PITCH = 64;
    std::vector<unsigned char> host(PITCH * 4);
    auto is = [&](const char *what, size_t width, unsigned value, size_t each) {
        GIVES(0, cuMemcpyDtoH_v2, host.data(), data, host.size());
        int wrong = 0;
        for (size_t row = 0; row < 4; row++)
            for (size_t i = 0; i < PITCH; i++) {
                unsigned char wanted = i < width * each ? (unsigned char)(value >> 8 * (i % each)) : 0xee;
                wrong += host[row * PITCH + i] != wanted;
            }
        expect(what, wrong, 0);
        GIVES(0, cuMemsetD8_v2, data, 0xee, host.size());
    };
    GIVES(0, cuMemsetD8_v2, data, 0xee, host.size());
    GIVES(0, cuMemsetD2D8Async, data, PITCH, 0x5a, 33, 4, nullptr);
    is("rows of bytes", 33, 0x5a, 1);
    GIVES(0, cuMemsetD2D16_v2, data, PITCH, 0x1234, 9, 4);
    is("rows of halves", 9, 0x1234, 2);
    GIVES(0, cuMemsetD2D16Async, data, PITCH, 0x4321, 11, 4, nullptr);
    is("rows of halves, queued", 11, 0x4321, 2);
    GIVES(0, cuMemsetD2D32Async, data, PITCH, 0x12345678, 7, 4, nullptr);
    is("rows of words, queued", 7, 0x12345678, 4);
    for (int row = 0; row < 4; row++) GIVES(0, cuMemsetD16Async, data + row * PITCH, 0x0fed, 5, nullptr);
    is("halves, queued", 5, 0x0fed, 2);

    // Between contexts of one device a peer's copy is a plain one.
    GIVES(0, cuMemsetD32_v2, data, 77, 64);
    GIVES(0, cuMemcpyPeerAsync, data + 1024, context, data, context, 256, nullptr);
    expect("a peer's copy", word(data + 1024 + 252), 77);
    CUDA_MEMCPY3D_PEER box = {};
    box.srcMemoryType = box.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    box.srcContext = box.dstContext = context;
    box.srcDevice = data, box.dstDevice = data + 2048;
    box.srcPitch = 64, box.dstPitch = 128;
    box.WidthInBytes = 64, box.Height = 2, box.Depth = 1;
    GIVES(0, cuMemsetD32_v2, data + 2048, 1, 64);
    GIVES(0, cuMemcpy3DPeerAsync, &box, nullptr);
    expect("a peer's box", word(data + 2048 + 128 + 60), 77);
    expect("beside it", word(data + 2048 + 64), 1);
    unsigned on = 1;
    GIVES(0, cuPointerSetAttribute, &on, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, data);
    GIVES(1, cuPointerSetAttribute, &on, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, data);
}

static void streams() {
    CUstream stream;
    CUdevice of = -1;
    unsigned flags = 9;
    GIVES(0, cuStreamCreate, &stream, CU_STREAM_NON_BLOCKING);
    GIVES(0, cuStreamGetDevice, stream, &of);
    expect("the stream's device", of, device);
    GIVES(0, cuStreamGetFlags, stream, &flags);
    expect("the stream's flags", flags, CU_STREAM_NON_BLOCKING);
    GIVES(0, cuStreamGetFlags, nullptr, &flags);
    expect("the default stream's flags", flags, CU_STREAM_DEFAULT);
    GIVES(0, cuStreamDestroy_v2, stream);
}

static int heard = 0;
static void hears(void *, CUlogLevel, char *, size_t) { heard++; }

static void logs() {
    CUlogsCallbackHandle handle = nullptr;
    CUlogIterator iterator = 0;
    GIVES(0, cuLogsRegisterCallback, hears, nullptr, &handle);
    GIVES(0, cuLogsCurrent, &iterator, 0);
    GIVES(1, cuMemAlloc_v2, nullptr, 1);
    char text[25600];
    size_t bytes = sizeof text;
    GIVES(0, cuLogsDumpToMemory, &iterator, text, &bytes, 0);
    // What a driver finds worth a line is its own matter: told and written is the same.
    int lines = 0;
    for (size_t i = 0; i < bytes; i++) lines += text[i] == '\n';
    expect("lines told and written", lines, heard);
    printf("driver_rest: %d lines of a call that failed\n", lines);
    bytes = sizeof text;
    GIVES(0, cuLogsDumpToMemory, &iterator, text, &bytes, 0);
    expect("nothing since", bytes, 0);
    GIVES(0, cuLogsUnregisterCallback, handle);
}

static void nodes() {
    CUgraph graph;
    CUgraphExec exec;
    CUgraphNode record, wait, set, copy;
    CUevent first, second, got = nullptr;
    GIVES(0, cuEventCreate, &first, CU_EVENT_DISABLE_TIMING);
    GIVES(0, cuEventCreate, &second, CU_EVENT_DISABLE_TIMING);
    GIVES(0, cuGraphCreate, &graph, 0);
    GIVES(0, cuGraphAddEventRecordNode, &record, graph, nullptr, 0, first);
    GIVES(0, cuGraphEventRecordNodeSetEvent, record, second);
    GIVES(0, cuGraphEventRecordNodeGetEvent, record, &got);
    expect("the event that a node records", got == second, 1);
    GIVES(0, cuGraphAddEventWaitNode, &wait, graph, &record, 1, first);
    CUDA_MEMSET_NODE_PARAMS sets = {};
    sets.dst = data, sets.elementSize = 4, sets.width = 4, sets.height = 1, sets.value = 5;
    GIVES(0, cuGraphAddMemsetNode, &set, graph, &wait, 1, &sets, context);
    CUDA_MEMCPY3D box = {}, told = {};
    box.srcMemoryType = box.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    box.srcDevice = data, box.dstDevice = data + 64;
    box.WidthInBytes = 16, box.Height = box.Depth = 1;
    GIVES(0, cuGraphAddMemcpyNode, &copy, graph, &set, 1, &box, context);
    GIVES(0, cuGraphMemcpyNodeGetParams, copy, &told);
    expect("what a copy's node was given", told.srcDevice == data && told.dstDevice == data + 64 && told.WidthInBytes == 16, 1);
    GIVES(0, cuGraphInstantiateWithFlags, &exec, graph, 0);
    GIVES(0, cuGraphLaunch, exec, nullptr);
    expect("what the graph copied", word(data + 64), 5);
    sets.value = 6;
    GIVES(0, cuGraphExecMemsetNodeSetParams, exec, set, &sets, context);
    GIVES(0, cuGraphExecEventRecordNodeSetEvent, exec, record, first);
    GIVES(0, cuGraphExecEventWaitNodeSetEvent, exec, wait, second);
    GIVES(0, cuGraphLaunch, exec, nullptr);
    GIVES(0, cuEventSynchronize, first);
    expect("what it copies now", word(data + 64), 6);
    GIVES(0, cuGraphExecDestroy, exec);
    GIVES(0, cuGraphDestroy, graph);
    GIVES(0, cuEventDestroy_v2, first);
    GIVES(0, cuEventDestroy_v2, second);
}

int main() {
    NEEDS(cuInit, 0);
    NEEDS(cuDeviceGet, &device, 0);
    NEEDS(cuDevicePrimaryCtxRetain, &context, device);
    NEEDS(cuCtxSetCurrent, context);
    NEEDS(cuMemAlloc_v2, &data, 1 << 16);
    contexts();
    devices();
    functions();
    libraries();
    sets();
    streams();
    logs();
    nodes();
    GIVES(0, cuMemFree_v2, data);
    GIVES(0, cuDevicePrimaryCtxRelease_v2, device);
    printf("driver_rest: %s, %d wrong\n", failures ? "failed" : "ok", failures);
    return failures ? 1 : 0;
}
