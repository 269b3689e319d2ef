// What ends a context: what the calls after it say.
#pragma once

// A kernel's fault is nobody's answer yet when it is launched.
static CUmodule queued() {
    setenv("VGPU_SYNC", "0", 1);
    return with_kernels();
}

static void fault(const char *name, const std::vector<void *> &parameters, unsigned shared = 0, CUmodule module = nullptr) {
    if (!module) module = queued();
    CUfunction function = kernel(module, name), nothing = kernel(module, "nothing");
    CUdeviceptr at = some(4096), more;
    CUstream stream = new_stream(), another;
    CUevent event = new_event();
    CUcontext current;
    CUmodule loaded;
    void *pinned;
    size_t free, total;
    unsigned kind;
    TRY("launch", cuLaunchKernel, function, 1, 1, 1, 1, 1, 1, shared, nullptr, (void **)parameters.data(), nullptr);
    if (TRY("synchronize", cuCtxSynchronize) == 0) return;
    TRY("synchronize once more", cuCtxSynchronize);
    TRY("then launch", cuLaunchKernel, nothing, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr);
    TRY("allocate", cuMemAlloc_v2, &more, 16);
    TRY("copy out", cuMemcpyDtoH_v2, own, at, 16);
    TRY("queue a set", cuMemsetD8Async, at, 1, 16, stream);
    TRY("ask a stream", cuStreamQuery, stream);
    TRY("wait for a stream", cuStreamSynchronize, stream);
    TRY("record", cuEventRecord, event, stream);
    TRY("ask an event", cuEventQuery, event);
    TRY("a stream", cuStreamCreate, &another, CU_STREAM_NON_BLOCKING);
    TRY("pinned memory", cuMemHostAlloc, &pinned, 16, 0);
    TRY("a module", cuModuleLoadData, &loaded, KERNELS);
    TRY("figures of memory", cuMemGetInfo_v2, &free, &total);
    TRY("an attribute", cuPointerGetAttribute, &kind, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, at);
    TRY("the current context", cuCtxGetCurrent, &current);
    TRY("what is wrong besides", cuMemcpyDtoH_v2, nullptr, 0, 16);
    TRY("destroy an event", cuEventDestroy_v2, event);
    TRY("destroy a stream", cuStreamDestroy_v2, stream);
    TRY("free", cuMemFree_v2, at);
    TRY("unload", cuModuleUnload, module);
}
AREA(fault_store, "fault: a store to nowhere") {
    CUdeviceptr to = NOWHERE;
    fault("store", {&to});
}
AREA(fault_load, "fault: a load from 0") {
    CUdeviceptr from = 0;
    CUmodule module = queued();
    CUdeviceptr to = some(16);
    fault("load", {&from, &to}, 0, module);
}
AREA(fault_generic, "fault: a generic store to nowhere") {
    CUdeviceptr to = NOWHERE;
    fault("generic", {&to});
}
AREA(fault_atomic, "fault: an atomic at nowhere") {
    CUdeviceptr at = NOWHERE;
    fault("atomic", {&at});
}
AREA(fault_misaligned, "fault: a store within a word") {
    CUmodule module = queued();
    CUdeviceptr to = some(4096) + 1;
    fault("store", {&to}, 0, module);
}
AREA(fault_misaligned_atomic, "fault: an atomic within a word") {
    CUmodule module = queued();
    CUdeviceptr at = some(4096) + 2;
    fault("atomic", {&at}, 0, module);
}
AREA(fault_freed, "fault: a store to freed memory") {
    CUmodule module = queued();
    CUdeviceptr to = some(256 << 20);
    NEEDS(cuMemFree_v2, to);
    fault("store", {&to}, 0, module);
}
AREA(fault_far, "fault: a store past all addresses") {
    CUdeviceptr to = ALL - 3;
    fault("store", {&to});
}
AREA(fault_shared, "fault: shared memory past its end") {
    unsigned at = 1 << 20;
    fault("shared", {&at}, 1024);
}
AREA(fault_shared_misaligned, "fault: shared memory within a word") {
    unsigned at = 2;
    fault("shared", {&at}, 1024);
}
AREA(fault_trap, "fault: a trap") { fault("trap_here", {}); }
AREA(fault_assert, "fault: an assertion") { fault("asserts", {}); }
AREA(fault_read_only, "fault: a store to what may be read") {
    CUmodule module = queued();
    CUdeviceptr base;
    CUmemGenericAllocationHandle piece;
    CUmemAllocationProp right = piece_on_device();
    CUmemAccessDesc read = {right.location, CU_MEM_ACCESS_FLAGS_PROT_READ};
    NEEDS(cuMemAddressReserve, &base, PIECE, 0, 0, 0);
    NEEDS(cuMemCreate, &piece, PIECE, &right, 0);
    NEEDS(cuMemMap, base, PIECE, 0, piece, 0);
    NEEDS(cuMemSetAccess, base, PIECE, &read, 1);
    fault("store", {&base}, 0, module);
}
AREA(fault_unmapped, "fault: a store to what is not mapped") {
    CUmodule module = queued();
    CUdeviceptr base;
    NEEDS(cuMemAddressReserve, &base, PIECE, 0, 0, 0);
    fault("store", {&base}, 0, module);
}

// What a program can do about it.
static CUcontext broken(bool primary_one) {
    CUcontext made;
    CUdeviceptr to = NOWHERE;
    void *words[] = {&to};
    CUmodule module = queued();
    if (!primary_one) {
        NEEDS(cuCtxCreate_v4, &made, nullptr, 0, device);
        NEEDS(cuModuleLoadData, &module, KERNELS);
    }
    NEEDS(cuLaunchKernel, kernel(module, "store"), 1, 1, 1, 1, 1, 1, 0, nullptr, words, nullptr);
    TRY("the fault", cuCtxSynchronize);
    return primary_one ? context : made;
}
AREA(after_reset, "after a fault: reset") {
    CUdeviceptr at;
    broken(true);
    TRY("reset", cuDevicePrimaryCtxReset_v2, device);
    TRY("synchronize", cuCtxSynchronize);
    TRY("allocate", cuMemAlloc_v2, &at, 16);
    TRY("retain", cuDevicePrimaryCtxRetain, &context, device);
    TRY("set", cuCtxSetCurrent, context);
    TRY("allocate in it", cuMemAlloc_v2, &at, 16);
}
AREA(after_release, "after a fault: release") {
    CUdeviceptr at;
    broken(true);
    TRY("release", cuDevicePrimaryCtxRelease_v2, device);
    TRY("retain", cuDevicePrimaryCtxRetain, &context, device);
    TRY("set", cuCtxSetCurrent, context);
    TRY("allocate in it", cuMemAlloc_v2, &at, 16);
}
AREA(after_destroy, "after a fault: destroy") {
    CUdeviceptr at;
    CUcontext made = broken(false), fresh;
    TRY("destroy", cuCtxDestroy_v2, made);
    TRY("set the primary one", cuCtxSetCurrent, context);
    TRY("allocate in the primary one", cuMemAlloc_v2, &at, 16);
    TRY("synchronize the primary one", cuCtxSynchronize);
    TRY("create", cuCtxCreate_v4, &fresh, nullptr, 0, device);
    TRY("allocate in a new one", cuMemAlloc_v2, &at, 16);
}
AREA(after_other, "after a fault: another context") {
    CUdeviceptr at;
    CUcontext fresh;
    broken(false);
    TRY("set the primary one", cuCtxSetCurrent, context);
    TRY("allocate in the primary one", cuMemAlloc_v2, &at, 16);
    TRY("synchronize the primary one", cuCtxSynchronize);
    TRY("create", cuCtxCreate_v4, &fresh, nullptr, 0, device);
    TRY("devices", cuDeviceGet, &device, 0);
}
