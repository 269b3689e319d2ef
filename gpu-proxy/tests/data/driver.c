/* A driver of a few lines: it has every function that a worker calls, and knows which context is current. */
#include <stddef.h>
#define ZERO(name) int name(void) { return 0; }
ZERO(cuInit) ZERO(cuDriverGetVersion) ZERO(cuDeviceGet) ZERO(cuDeviceGetName) ZERO(cuCtxDestroy_v2)
ZERO(cuCtxSynchronize) ZERO(cuCtxGetLimit) ZERO(cuCtxSetLimit) ZERO(cuCtxGetStreamPriorityRange) ZERO(cuMemFree_v2)
ZERO(cuMemcpyHtoDAsync_v2) ZERO(cuMemcpyDtoHAsync_v2) ZERO(cuMemcpyAsync) ZERO(cuMemsetD2D8Async)
ZERO(cuMemsetD2D16Async) ZERO(cuMemsetD2D32Async) ZERO(cuMemsetD8Async) ZERO(cuMemsetD16Async) ZERO(cuMemsetD32Async)
ZERO(cuModuleLoadDataEx) ZERO(cuModuleUnload) ZERO(cuModuleGetFunctionCount) ZERO(cuModuleEnumerateFunctions)
ZERO(cuModuleGetGlobal_v2) ZERO(cuLibraryLoadData) ZERO(cuLibraryUnload) ZERO(cuLibraryGetKernelCount)
ZERO(cuLibraryEnumerateKernels) ZERO(cuLibraryGetGlobal) ZERO(cuKernelGetFunction) ZERO(cuKernelGetName)
ZERO(cuKernelGetParamInfo) ZERO(cuFuncGetName) ZERO(cuFuncGetParamInfo) ZERO(cuFuncLoad) ZERO(cuFuncGetAttribute)
ZERO(cuFuncSetAttribute) ZERO(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags)
ZERO(cuOccupancyAvailableDynamicSMemPerBlock) ZERO(cuOccupancyMaxActiveClusters)
ZERO(cuOccupancyMaxPotentialClusterSize) ZERO(cuLaunchKernelEx) ZERO(cuStreamCreateWithPriority)
ZERO(cuStreamDestroy_v2) ZERO(cuStreamSynchronize) ZERO(cuStreamQuery) ZERO(cuStreamWaitEvent) ZERO(cuEventCreate)
ZERO(cuEventDestroy_v2) ZERO(cuEventRecordWithFlags) ZERO(cuEventQuery) ZERO(cuEventSynchronize)
ZERO(cuEventElapsedTime) ZERO(cuMemAddressReserve) ZERO(cuMemAddressFree) ZERO(cuMemCreate) ZERO(cuMemRelease)
ZERO(cuMemMap) ZERO(cuMemUnmap) ZERO(cuMemSetAccess) ZERO(cuMemGetAllocationGranularity) ZERO(cuStreamBatchMemOp_v2)
ZERO(cuStreamSetAttribute)
static int primary, other;
static void *current;
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 16 ? 132 : attribute == 39 ? 2048 : 1;
    return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 2000; return 0; }
int cuMemGetInfo_v2(size_t *free, size_t *total) { *free = 1000; *total = 2000; return current ? 0 : 201; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &primary; return 0; }
int cuCtxCreate_v2(void **context, unsigned flags, int device) { *context = current = &other; return 0; }
int cuCtxSetCurrent(void *context) { current = context; return 0; }
/* An address tells the context it was made in. */
int cuMemAlloc_v2(unsigned long long *address, size_t bytes) {
    *address = current == &primary ? 0x1000 : current == &other ? 0x2000 : 0;
    return *address ? 0 : 201;
}
/* One registration at a time, in the primary context, portable and mapped; one of two pages has another address for the device. */
static void *registered;
static size_t registered_bytes;
int cuMemHostRegister_v2(void *place, size_t bytes, unsigned flags) {
    if (current != &primary || flags != 3) return 1;
    if (registered) return 712;
    registered = place;
    registered_bytes = bytes;
    return 0;
}
int cuMemHostUnregister(void *place) {
    if (registered != place) return 713;
    registered = NULL;
    return 0;
}
int cuMemHostGetDevicePointer_v2(unsigned long long *address, void *place, unsigned flags) {
    *address = (unsigned long long)place + (registered_bytes == 8192 ? 4096 : 0);
    return registered == place ? 0 : 1;
}
