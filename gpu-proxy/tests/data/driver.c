/* A driver of a few lines: it has every function that a worker calls, and knows which context is current. */
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#define ZERO(name) int name(void) { return 0; }
ZERO(cuInit) ZERO(cuDriverGetVersion) ZERO(cuDeviceGetName) ZERO(cuCtxDestroy_v2)
ZERO(cuCtxSynchronize) ZERO(cuCtxGetLimit) ZERO(cuCtxSetLimit) ZERO(cuCtxGetStreamPriorityRange) ZERO(cuMemFree_v2)
ZERO(cuMemcpyDtoHAsync_v2) ZERO(cuMemcpyAsync) ZERO(cuMemsetD2D8Async)
ZERO(cuMemsetD2D16Async) ZERO(cuMemsetD2D32Async) ZERO(cuMemsetD8Async) ZERO(cuMemsetD16Async) ZERO(cuMemsetD32Async)
ZERO(cuModuleLoadDataEx) ZERO(cuModuleUnload) ZERO(cuModuleGetFunctionCount) ZERO(cuModuleEnumerateFunctions)
ZERO(cuModuleGetGlobal_v2) ZERO(cuLibraryLoadData) ZERO(cuLibraryUnload) ZERO(cuLibraryGetKernelCount)
ZERO(cuLibraryEnumerateKernels) ZERO(cuKernelGetFunction) ZERO(cuKernelGetName)
ZERO(cuKernelGetParamInfo) ZERO(cuFuncGetName) ZERO(cuFuncGetParamInfo) ZERO(cuFuncLoad) ZERO(cuFuncGetAttribute)
ZERO(cuFuncSetAttribute) ZERO(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags)
ZERO(cuOccupancyAvailableDynamicSMemPerBlock) ZERO(cuOccupancyMaxActiveClusters)
ZERO(cuOccupancyMaxPotentialClusterSize) ZERO(cuLaunchKernelEx)
ZERO(cuStreamSynchronize) ZERO(cuStreamQuery) ZERO(cuEventQuery)
/* For who looks where work goes: aside.c has others. */
#ifndef ASIDE
ZERO(cuMemcpyHtoDAsync_v2) ZERO(cuStreamCreateWithPriority) ZERO(cuStreamDestroy_v2) ZERO(cuStreamWaitEvent) ZERO(cuEventCreate)
ZERO(cuEventDestroy_v2) ZERO(cuEventRecordWithFlags)
#endif
 ZERO(cuEventSynchronize)
ZERO(cuEventElapsedTime) ZERO(cuStreamBatchMemOp_v2)
ZERO(cuStreamSetAttribute) ZERO(cuGraphAddKernelNode_v2) ZERO(cuGraphKernelNodeSetAttribute)
ZERO(cuGraphExecKernelNodeSetParams_v2) ZERO(cuGraphExecMemcpyNodeSetParams) ZERO(cuGraphExecEventRecordNodeSetEvent)
ZERO(cuGraphExecEventWaitNodeSetEvent) ZERO(cuGraphAddEventRecordNode) ZERO(cuGraphUpload)
ZERO(cuMipmappedArrayCreate) ZERO(cuMipmappedArrayGetLevel) ZERO(cuMipmappedArrayDestroy)
ZERO(cuMipmappedArrayGetMemoryRequirements) ZERO(cuTexObjectDestroy) ZERO(cuSurfObjectDestroy)
ZERO(cuDeviceGetTexture1DLinearMaxWidth) ZERO(cuLinkCreate_v2) ZERO(cuLinkAddData_v2) ZERO(cuLinkComplete)
ZERO(cuLinkDestroy) ZERO(cuLaunchHostFunc) ZERO(cuStreamAddCallback) ZERO(cuTensorMapEncodeTiled)
ZERO(cuTensorMapEncodeIm2col) ZERO(cuTensorMapReplaceAddress) ZERO(cuGraphAddHostNode) ZERO(cuGraphAddBatchMemOpNode)
ZERO(cuGraphExecHostNodeSetParams) ZERO(cuGraphExecBatchMemOpNodeSetParams)
ZERO(cuGraphKernelNodeSetParams_v2) ZERO(cuGraphMemsetNodeSetParams) ZERO(cuGraphMemcpyNodeSetParams)
ZERO(cuGraphEventRecordNodeSetEvent) ZERO(cuGraphEventWaitNodeSetEvent) ZERO(cuGraphHostNodeSetParams)
ZERO(cuGraphBatchMemOpNodeSetParams)
static int primary, second, other;
static void *current;
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGetUuid(unsigned char *uuid, int device) { uuid[15] = 16 + device; return 0; }
int cuDeviceGetP2PAttribute(int *value, int attribute, int device, int peer) {
    *value = 100 * attribute + 10 * device + peer;
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 16 ? 132 : attribute == 39 ? 2048 : 1;
    return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 2000; return 0; }
int cuMemGetInfo_v2(size_t *free, size_t *total) { *free = 1000; *total = 2000; return current ? 0 : 201; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = device ? &second : &primary; return 0; }
static int other_device;
int cuCtxCreate_v2(void **context, unsigned flags, int device) { *context = current = &other; other_device = device; return 0; }
/* What is no context, though it is a pointer of the driver's. */
static void *no_context = &no_context;
int cuCtxSetCurrent(void *context) {
    if (context == no_context) puts("driver: no context was made current"), fflush(stdout);
    current = context;
    return 0;
}
/* An address tells the context it was made in. */
int cuMemAlloc_v2(unsigned long long *address, size_t bytes) {
    *address = current == &primary ? 0x1000 : current == &other ? 0x2000 : current == &second ? 0x3000 : 0;
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
#define SAY(...) (printf(__VA_ARGS__), fflush(stdout))
#define TELL(...) do { printf("driver: " __VA_ARGS__); SAY("\n"); } while (0)
/* What several devices do with each other. */
static const char *named(void *context) {
    return context == &primary ? "the first" : context == &second ? "the second" : context == &other ? "another" : "none";
}
int cuCtxEnablePeerAccess(void *peer, unsigned flags) { TELL("%s reaches %s %u", named(current), named(peer), flags); return 0; }
int cuCtxDisablePeerAccess(void *peer) { TELL("%s leaves %s", named(current), named(peer)); return 0; }
int cuMemcpyPeerAsync(unsigned long long to, void *to_context, unsigned long long from, void *from_context, size_t bytes, void *stream) {
    TELL("%zu bytes from %llx of %s to %llx of %s in %s", bytes, from, named(from_context), to, named(to_context), named(current));
    return 0;
}
/* A library's variable lies where the current context is. */
int cuLibraryGetGlobal(unsigned long long *address, size_t *bytes, void *library, const char *name) {
    *address = current == &second ? 0x9000 : 0x8000;
    *bytes = 4;
    return 0;
}
/* Memory without an address: each call says what it was given; access to 8 MiB and to 10 MiB is refused, and so is the
   end of a mapping of 10 MiB. */
typedef unsigned long long u64;
static u64 memories;
struct properties { unsigned kind, handle_types, location; int device; void *metadata; unsigned char flags[8]; };
int cuMemGetAllocationGranularity(size_t *bytes, const struct properties *p, unsigned option) { *bytes = 2 << 20; return 0; }
int cuMemCreate(u64 *memory, size_t bytes, const struct properties *p, u64 flags) {
    *memory = ++memories;
    SAY("vmm: create %llu of %zu on %d, types %u\n", *memory, bytes, p->device, p->handle_types);
    return 0;
}
int cuMemRelease(u64 memory) { SAY("vmm: release %llu\n", memory); return 0; }
int cuMemAddressReserve(u64 *at, size_t bytes, size_t alignment, u64 wanted, u64 flags) {
    static u64 pieces;
    *at = bytes == 2 << 20 ? 0x50000000 + (pieces++ << 21) : 0x40000000;
    SAY("vmm: reserve %zu\n", bytes);
    return 0;
}
int cuMemAddressFree(u64 at, size_t bytes) { SAY("vmm: unreserve %zu at %llx\n", bytes, at); return 0; }
int cuMemMap(u64 at, size_t bytes, size_t offset, u64 memory, u64 flags) {
    SAY("vmm: map %zu of %llu at %llx\n", bytes, memory, at);
    return 0;
}
int cuMemUnmap(u64 at, size_t bytes) { SAY("vmm: unmap %zu at %llx\n", bytes, at); return bytes == 10 << 20; }
struct access { unsigned location; int device; unsigned flags; };
int cuMemSetAccess(u64 at, size_t bytes, const struct access *a, size_t count) {
    SAY("vmm: access %u of %d to %zu at %llx\n", a->flags, a->device, bytes, at);
    return bytes == 8 << 20 || bytes == 10 << 20;
}
int cuMemExportToShareableHandle(int *fd, u64 memory, unsigned type, u64 flags) {
    *fd = open("/dev/null", O_RDONLY);
    SAY("vmm: export %llu as %u\n", memory, type);
    return 0;
}
int cuMemImportFromShareableHandle(u64 *memory, void *fd, unsigned type) {
    *memory = ++memories;
    SAY("vmm: import %llu as %u, %s\n", *memory, type, fcntl((int)(size_t)fd, F_GETFD) < 0 ? "closed" : "open");
    return 0;
}
struct side {
    size_t x, y, z, level; unsigned kind; void *host; unsigned long long device; void *array, *reserved; size_t pitch, height;
};
struct copy { struct side from, to; size_t width, height, depth; };
/* Graphs: each call says what it was given. A node is a number from 0x100 on; there is no place for an event's wait, and no third kind of
   edge. */
static size_t nodes;
static const char *copied_from;
static int add(void **node, const char *kind, void *const *needs, size_t count) {
    *node = (void *)(0x100 + nodes++);
    printf("driver: node %p: %s after", *node, kind);
    for (size_t i = 0; i < count; i++) printf(" %p", needs[i]);
    puts(current == &other ? " in the other context" : " in the primary context");
    fflush(stdout);
    return 0;
}
int cuGraphCreate(void **graph, unsigned flags) { static int one; *graph = &one; TELL("graph made"); return 0; }
int cuGraphDestroy(void *graph) { TELL("graph ended"); return 0; }
int cuGraphAddEmptyNode(void **node, void *graph, void *const *needs, size_t count) {
    return add(node, "nothing", needs, count);
}
int cuGraphAddEventWaitNode(void **node, void *graph, void *const *needs, size_t count, void *event) { return 1; }
struct fill { unsigned long long at; size_t pitch; unsigned value, element; size_t width, height; };
int cuGraphAddMemsetNode(void **node, void *graph, void *const *needs, size_t count, const struct fill *p, void *context) {
    TELL("set %llx %zu %u %u %zu %zu", p->at, p->pitch, p->value, p->element, p->width, p->height);
    return context == current ? add(node, "set", needs, count) : 201;
}
int cuGraphAddMemcpyNode(void **node, void *graph, void *const *needs, size_t count, const struct copy *p, void *context) {
    TELL("copy %u %llx %zu %zu to %u %llx %zu %zu: %zu %zu %zu", p->from.kind, p->from.device, p->from.pitch, p->from.height,
        p->to.kind, p->to.device, p->to.pitch, p->to.height, p->width, p->height, p->depth);
    if (p->from.kind == 1) copied_from = p->from.host;
    return context == current ? add(node, "copy", needs, count) : 201;
}
int cuGraphAddDependencies_v2(void *graph, void *const *from, void *const *to, const unsigned char *data, size_t count) {
    TELL("edge %p %p %d %d %d", *from, *to, data[0], data[1], data[2]);
    return data[2] > 1;
}
int cuGraphInstantiateWithFlags(void **exec, void *graph, unsigned long long flags) {
    static int one;
    *exec = &one;
    TELL("instantiated %llu", flags);
    return 0;
}
int cuGraphExecUpdate_v2(void *exec, void *graph, void *info) { TELL("updated"); return nodes > 8 ? 910 : 0; }
int cuGraphExecMemsetNodeSetParams(void *exec, void *node, const struct fill *p, void *context) {
    TELL("node %p sets %u", node, p->value);
    return 0;
}
int cuGraphNodeSetEnabled(void *exec, void *node, unsigned enabled) { TELL("node %p is %u", node, enabled); return 0; }
int cuGraphLaunch(void *exec, void *stream) { TELL("launched with %.4s", copied_from); return 0; }
int cuGraphExecDestroy(void *exec) { TELL("exec ended"); return 0; }
/* Arrays: what is asked is written down, so that a test sees every field where cuda.h has it. */
struct deep { size_t width, height, depth; unsigned format, channels, flags; };
static int arrays;
int cuArray3DCreate_v2(void **array, const struct deep *d) {
    SAY("array %zu %zu %zu format %u channels %u flags %u\n", d->width, d->height, d->depth, d->format, d->channels, d->flags);
    *array = (char *)0x7000 + arrays++;
    return current == &primary ? 0 : 201;
}
int cuArrayDestroy(void *array) { SAY("array %p destroyed, %d live\n", array, --arrays); return 0; }
struct needs { size_t bytes, alignment; unsigned reserved[4]; };
int cuArrayGetMemoryRequirements(struct needs *needs, void *array, int device) { needs->bytes = 65536; return 0; }
static void say(const char *which, const struct side *s) {
    SAY("%s %zu %zu %zu kind %u host %d device %llx array %p pitch %zu %zu, ", which, s->x, s->y, s->z, s->kind,
           s->host != NULL, s->device, s->array, s->pitch, s->height);
}
int cuMemcpy3DPeerAsync(const struct copy *c, void *stream) { return 801; }
int cuMemcpy3DAsync_v2(const struct copy *c, void *stream) {
    say("copy from", &c->from);
    say("to", &c->to);
    SAY("size %zu %zu %zu\n", c->width, c->height, c->depth);
    return 0;
}
struct resource {
    unsigned kind;
    union {
        void *array;
        struct { unsigned long long at; unsigned format, channels; size_t width, height, pitch; } rows;
        int all[32];
    } of;
    unsigned flags;
};
struct texture {
    unsigned address[3], filter, flags, anisotropy, mip_filter;
    float bias, least, most, border[4];
    int reserved[12];
};
struct view { unsigned format; size_t width, height, depth; unsigned levels[2], layers[2], reserved[16]; };
int cuTexObjectCreate(unsigned long long *out, const struct resource *r, const struct texture *t, const struct view *v) {
    if (r->kind < 2) SAY("texture of %p, ", r->of.array);
    else SAY("texture at %llx format %u channels %u %zu %zu %zu, ", r->of.rows.at, r->of.rows.format, r->of.rows.channels,
                r->of.rows.width, r->of.rows.height, r->of.rows.pitch);
    SAY("address %u %u %u filter %u flags %u %u %u, %g %g %g, border %g %g, view %d %zu %u %u\n", t->address[0], t->address[1],
           t->address[2], t->filter, t->flags, t->anisotropy, t->mip_filter, t->bias, t->least, t->most, t->border[0],
           t->border[3], v != NULL, v ? v->height : 0, v ? v->levels[1] : 0, v ? v->layers[0] : 0);
    *out = 77;
    return 0;
}
int cuSurfObjectCreate(unsigned long long *out, const struct resource *r) {
    SAY("surface of %p\n", r->of.array);
    *out = 78;
    return r->kind;
}
