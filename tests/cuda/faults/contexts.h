// Too early, without a context, with a wrong one, with one that has ended.
#pragma once

AREA(too_early, "too early") {
    int number = 0;
    CUdeviceptr at;
    CUstream stream;
    const char *text = nullptr;
    TRY("count devices", cuDeviceGetCount, &number);
    TRY("a device", cuDeviceGet, &device, 0);
    TRY("allocate", cuMemAlloc_v2, &at, 16);
    TRY("a stream", cuStreamCreate, &stream, 0);
    TRY("the current context", cuCtxGetCurrent, &context);
    TRY("retain", cuDevicePrimaryCtxRetain, &context, 0);
    TRY("version", cuDriverGetVersion, &number);
    TRY("version, nowhere to", cuDriverGetVersion, nullptr);
    TRY("name of a code", cuGetErrorName, (CUresult)700, &text);
    TRY("name of no code", cuGetErrorName, (CUresult)12345, &text);
    TELL("no name", text != nullptr);
    TRY("text of no code", cuGetErrorString, (CUresult)12345, &text);
    TRY("init with flags", cuInit, 1);
    TRY("init", cuInit, 0);
    TRY("init again", cuInit, 0);
    TRY("name, nowhere to", cuGetErrorName, (CUresult)700, nullptr);
    TRY("text, nowhere to", cuGetErrorString, (CUresult)700, nullptr);
}

AREA(no_context, "no context") {
    CUdeviceptr at;
    CUstream stream;
    CUevent event;
    CUmodule module;
    CUlibrary library;
    CUcontext none = nullptr;
    CUdevice which;
    CUarray array;
    CUgraph graph;
    CUmemoryPool pool;
    size_t free, total;
    unsigned flags;
    void *host;
    NEEDS(cuInit, 0);
    TRY("allocate", cuMemAlloc_v2, &at, 16);
    TRY("free nothing", cuMemFree_v2, 0);
    TRY("free", cuMemFree_v2, NOWHERE);
    TRY("pinned memory", cuMemHostAlloc, &host, 16, 0);
    TRY("memory figures", cuMemGetInfo_v2, &free, &total);
    TRY("synchronize", cuCtxSynchronize);
    TRY("its device", cuCtxGetDevice, &which);
    TRY("its flags", cuCtxGetFlags, &flags);
    TRY("its limit", cuCtxGetLimit, &free, CU_LIMIT_STACK_SIZE);
    TRY("set a limit", cuCtxSetLimit, CU_LIMIT_STACK_SIZE, 1024);
    TRY("pop", cuCtxPopCurrent_v2, &none);
    TRY("push none", cuCtxPushCurrent_v2, nullptr);
    TRY("set none", cuCtxSetCurrent, nullptr);
    TRY("get none", cuCtxGetCurrent, &none);
    TRY("get, nowhere to", cuCtxGetCurrent, nullptr);
    TRY("destroy none", cuCtxDestroy_v2, nullptr);
    TRY("version of none", cuCtxGetApiVersion, nullptr, &flags);
    TRY("a stream", cuStreamCreate, &stream, 0);
    TRY("an event", cuEventCreate, &event, 0);
    TRY("a module", cuModuleLoadData, &module, KERNELS);
    TRY("a library", cuLibraryLoadData, &library, KERNELS, nullptr, nullptr, 0, nullptr, nullptr, 0);
    TRY("a set", cuMemsetD8_v2, NOWHERE, 0, 1);
    TRY("a copy", cuMemcpyHtoD_v2, NOWHERE, own, 1);
    TRY("the legacy stream", cuStreamSynchronize, nullptr);
    TRY("ask the legacy stream", cuStreamQuery, nullptr);
    TRY("an attribute", cuPointerGetAttribute, &flags, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, HOST);
    CUDA_ARRAY_DESCRIPTOR shape = {16, 16, CU_AD_FORMAT_FLOAT, 1};
    TRY("an array", cuArrayCreate_v2, &array, &shape);
    TRY("a graph", cuGraphCreate, &graph, 0);
    TRY("a device's pool", cuDeviceGetDefaultMemPool, &pool, 0);
    TRY("a function of a stream", cuLaunchHostFunc, nullptr, [](void *) {}, nullptr);
    TRY("reserve addresses", cuMemAddressReserve, &at, 2 << 20, 0, 0, 0);
}

AREA(contexts, "contexts") {
    CUcontext made, other;
    size_t value = 0;
    int least, most;
    unsigned long long id;
    with_context();
    TRY("create with flags of nobody", cuCtxCreate_v4, &made, nullptr, 0x8000, device);
    TRY("create with two kinds of waiting", cuCtxCreate_v4, &made, nullptr, CU_CTX_SCHED_SPIN | CU_CTX_SCHED_BLOCKING_SYNC, device);
    TRY("create of no device", cuCtxCreate_v4, &made, nullptr, 0, 99);
    TRY("create of a device below 0", cuCtxCreate_v4, &made, nullptr, 0, -1);
    TRY("create, nowhere to", cuCtxCreate_v4, nullptr, nullptr, 0, device);
    TRY("a limit of nobody", cuCtxGetLimit, &value, (CUlimit)99);
    TRY("a limit, nowhere to", cuCtxGetLimit, nullptr, CU_LIMIT_STACK_SIZE);
    TRY("set a limit of nobody", cuCtxSetLimit, (CUlimit)99, 1);
    TRY("a stack of no bytes", cuCtxSetLimit, CU_LIMIT_STACK_SIZE, 0);
    TRY("a stack of more than there is", cuCtxSetLimit, CU_LIMIT_STACK_SIZE, HUGE_SIZE);
    TRY("a stack of all", cuCtxSetLimit, CU_LIMIT_STACK_SIZE, ALL);
    TRY("a printf buffer of all", cuCtxSetLimit, CU_LIMIT_PRINTF_FIFO_SIZE, ALL);
    TRY("a heap of all", cuCtxSetLimit, CU_LIMIT_MALLOC_HEAP_SIZE, ALL);
    TRY("granularity of L2", cuCtxSetLimit, CU_LIMIT_MAX_L2_FETCH_GRANULARITY, 1 << 20);
    TRY("persisting L2 of all", cuCtxSetLimit, CU_LIMIT_PERSISTING_L2_CACHE_SIZE, ALL);
    TRY("priorities, nowhere to", cuCtxGetStreamPriorityRange, nullptr, nullptr);
    TRY("priorities, one place", cuCtxGetStreamPriorityRange, &least, nullptr);
    TRY("priorities", cuCtxGetStreamPriorityRange, &least, &most);
    TRY("cache of no kind", cuCtxSetCacheConfig, (CUfunc_cache)99);
    TRY("cache, nowhere to", cuCtxGetCacheConfig, nullptr);
    TRY("banks of no kind", cuCtxSetSharedMemConfig, (CUsharedconfig)99);
    TRY("banks, nowhere to", cuCtxGetSharedMemConfig, nullptr);
    TRY("flags, nowhere to", cuCtxGetFlags, nullptr);
    TRY("set flags of nobody", cuCtxSetFlags, 0x8000);
    TRY("device, nowhere to", cuCtxGetDevice, nullptr);
    TRY("id of none", cuCtxGetId, nullptr, &id);
    TRY("id, nowhere to", cuCtxGetId, context, nullptr);
    TRY("version, nowhere to", cuCtxGetApiVersion, context, nullptr);
    TRY("peer of itself", cuCtxEnablePeerAccess, context, 0);
    TRY("peer of none", cuCtxEnablePeerAccess, nullptr, 0);
    TRY("peer with flags", cuCtxEnablePeerAccess, context, 1);
    TRY("no peer of itself", cuCtxDisablePeerAccess, context);
    TRY("record no event", cuCtxRecordEvent, context, nullptr);
    TRY("wait for no event", cuCtxWaitEvent, context, nullptr);
    TRY("affinity of no kind", cuCtxGetExecAffinity, nullptr, (CUexecAffinityType)9);
    TRY("pop, nowhere to", cuCtxPopCurrent_v2, nullptr);
    TRY("pop once more", cuCtxPopCurrent_v2, &other);
    TRY("detach none", cuCtxDetach, nullptr);
    TRY("attach, nowhere to", cuCtxAttach, nullptr, 0);
}

AREA(primary, "primary context") {
    unsigned flags;
    int active;
    NEEDS(cuInit, 0);
    TRY("release before a retain", cuDevicePrimaryCtxRelease_v2, device);
    TRY("reset before a retain", cuDevicePrimaryCtxReset_v2, device);
    TRY("retain, nowhere to", cuDevicePrimaryCtxRetain, nullptr, device);
    TRY("retain of no device", cuDevicePrimaryCtxRetain, &context, 99);
    TRY("release of no device", cuDevicePrimaryCtxRelease_v2, 99);
    TRY("reset of no device", cuDevicePrimaryCtxReset_v2, 99);
    TRY("flags of nobody", cuDevicePrimaryCtxSetFlags_v2, device, 0x8000);
    TRY("flags of no device", cuDevicePrimaryCtxSetFlags_v2, 99, 0);
    TRY("state of no device", cuDevicePrimaryCtxGetState, 99, &flags, &active);
    TRY("state, nowhere to", cuDevicePrimaryCtxGetState, device, nullptr, nullptr);
    TRY("state, one place", cuDevicePrimaryCtxGetState, device, &flags, nullptr);
    with_context();
    TRY("flags while it is active", cuDevicePrimaryCtxSetFlags_v2, device, CU_CTX_SCHED_SPIN);
    TRY("destroy it", cuCtxDestroy_v2, context);
    TRY("use it after that", cuCtxSynchronize);
    TRY("release", cuDevicePrimaryCtxRelease_v2, device);
    TRY("release once more", cuDevicePrimaryCtxRelease_v2, device);
    TRY("use it after its release", cuCtxSynchronize);
    CUdeviceptr at;
    TRY("allocate after that", cuMemAlloc_v2, &at, 16);
    TRY("retain again", cuDevicePrimaryCtxRetain, &context, device);
    TRY("the current one", cuCtxSynchronize);
    TRY("set it", cuCtxSetCurrent, context);
    TRY("allocate in the new one", cuMemAlloc_v2, &at, 16);
    TRY("reset", cuDevicePrimaryCtxReset_v2, device);
    TRY("memory of before the reset", cuMemFree_v2, at);
    TRY("synchronize after the reset", cuCtxSynchronize);
}

static CUcontext ended_context() {
    CUcontext made;
    with_context();
    NEEDS(cuCtxCreate_v4, &made, nullptr, 0, device);
    NEEDS(cuCtxDestroy_v2, made);
    return made;
}
AREA(ended_set, "a context that has ended: set") {
    CUcontext made = ended_context(), current;
    CUdeviceptr at;
    CUstream stream;
    int same = 0;
    TRY("set", cuCtxSetCurrent, made);
    if (CALL(cuCtxGetCurrent, &current) == 0) same = current == made;
    TELL("current", same);
    TRY("synchronize", cuCtxSynchronize);
    TRY("allocate", cuMemAlloc_v2, &at, 16);
    TRY("a stream", cuStreamCreate, &stream, 0);
    TRY("set the primary one", cuCtxSetCurrent, context);
    TRY("allocate there", cuMemAlloc_v2, &at, 16);
}
AREA(ended_push, "a context that has ended: push") { TRY("push", cuCtxPushCurrent_v2, ended_context()); }
AREA(ended_version, "a context that has ended: version") {
    unsigned version;
    TRY("version", cuCtxGetApiVersion, ended_context(), &version);
}
AREA(ended_destroy, "a context that has ended: destroy") { TRY("destroy", cuCtxDestroy_v2, ended_context()); }
AREA(ended_id, "a context that has ended: id") {
    unsigned long long id;
    TRY("id", cuCtxGetId, ended_context(), &id);
}

AREA(ended_elsewhere, "a context that ended in another thread") {
    CUcontext made;
    CUdeviceptr at;
    with_context();
    NEEDS(cuCtxCreate_v4, &made, nullptr, 0, device);
    std::thread([&] { TRY("destroy", cuCtxDestroy_v2, made); }).join();
    TRY("synchronize", cuCtxSynchronize);
    TRY("allocate", cuMemAlloc_v2, &at, 16);
    TRY("pop", cuCtxPopCurrent_v2, &made);
    TRY("synchronize below", cuCtxSynchronize);
}

AREA(left_memory, "what a context left: memory") {
    CUcontext made;
    unsigned kind;
    with_context();
    NEEDS(cuCtxCreate_v4, &made, nullptr, 0, device);
    CUdeviceptr at = some(4096);
    NEEDS(cuCtxDestroy_v2, made);
    TRY("kind", cuPointerGetAttribute, &kind, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, at);
    TRY("copy", cuMemcpyDtoH_v2, own, at, 16);
    TRY("free", cuMemFree_v2, at);
}
AREA(left_stream, "what a context left: a stream") {
    CUcontext made;
    with_context();
    NEEDS(cuCtxCreate_v4, &made, nullptr, 0, device);
    CUstream stream = new_stream();
    NEEDS(cuCtxDestroy_v2, made);
    TRY("synchronize", cuStreamSynchronize, stream);
}
AREA(left_event, "what a context left: an event") {
    CUcontext made;
    with_context();
    NEEDS(cuCtxCreate_v4, &made, nullptr, 0, device);
    CUevent event = new_event();
    NEEDS(cuCtxDestroy_v2, made);
    TRY("query", cuEventQuery, event);
}
AREA(left_module, "what a context left: a module") {
    CUcontext made;
    CUmodule module;
    CUfunction function;
    with_context();
    NEEDS(cuCtxCreate_v4, &made, nullptr, 0, device);
    NEEDS(cuModuleLoadData, &module, KERNELS);
    NEEDS(cuCtxDestroy_v2, made);
    TRY("a function", cuModuleGetFunction, &function, module, "nothing");
}

AREA(other_context, "of another context") {
    CUcontext made;
    CUmodule module = with_kernels();
    CUfunction function = kernel(module, "nothing");
    CUstream stream = new_stream();
    CUevent event = new_event();
    CUdeviceptr at = some(4096);
    NEEDS(cuCtxCreate_v4, &made, nullptr, 0, device);
    TRY("launch its function", cuLaunchKernel, function, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr);
    TRY("launch its function in its stream", cuLaunchKernel, function, 1, 1, 1, 1, 1, 1, 0, stream, nullptr, nullptr);
    TRY("its stream", cuStreamSynchronize, stream);
    TRY("record its event", cuEventRecord, event, nullptr);
    TRY("record its event in its stream", cuEventRecord, event, stream);
    TRY("wait for its event", cuStreamWaitEvent, nullptr, event, 0);
    TRY("set its memory", cuMemsetD8_v2, at, 1, 4096);
    TRY("set its memory in its stream", cuMemsetD8Async, at, 1, 4096, stream);
    TRY("free its memory", cuMemFree_v2, at);
    TRY("its event is no end of ours", cuEventSynchronize, event);
    TRY("destroy its stream", cuStreamDestroy_v2, stream);
    TRY("unload its module", cuModuleUnload, module);
}
