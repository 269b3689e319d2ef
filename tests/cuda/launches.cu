// Launches by each of their forms, and by attributes: more parameters than 4 KB, kernels of libraries in a function's place, blocks that
// wait for each other, kernels that begin before the one before is over, clusters where the device has them.
#include <vector>

#define PROGRAM "launches"
#include "driver.h"

#include "launches/code.h"

static const int BLOCKS = 4;
static CUdeviceptr out;

static CUfunction function(CUmodule module, const char *name) {
    CUfunction found;
    NEEDS(cuModuleGetFunction, &found, module, name);
    return found;
}
static CUmodule loaded(const char *text) {
    CUmodule module;
    NEEDS(cuModuleLoadData, &module, text);
    return module;
}
static void clear() { NEEDS(cuMemsetD32_v2, out, 0, 64); }
static std::vector<unsigned> words(size_t count) {
    std::vector<unsigned> all(count);
    NEEDS(cuMemcpyDtoH_v2, all.data(), out, 4 * count);
    return all;
}
static void hold(const char *what, const std::vector<unsigned> &wanted) {
    std::vector<unsigned> got = words(wanted.size());
    for (size_t i = 0; i < wanted.size(); i++) expect(what, got[i], wanted[i]);
    clear();
}
static CUlaunchConfig config(unsigned blocks, CUlaunchAttribute *attributes, unsigned count) {
    CUlaunchConfig made = {};
    made.gridDimX = blocks, made.gridDimY = made.gridDimZ = 1;
    made.blockDimX = made.blockDimY = made.blockDimZ = 1;
    made.attrs = attributes, made.numAttrs = count;
    return made;
}

struct Big {
    CUdeviceptr out;
    unsigned words[4096];
};

static void parameters() {
    CUmodule module = loaded(PLAIN);
    CUfunction big = function(module, "big");
    static Big given;
    given.out = out;
    auto fill = [](unsigned by) {
        for (unsigned i = 0; i < 4096; i++) given.words[i] = by * i;
        return std::vector<unsigned>{0, by * 1023, by * 1024, by * 4095};
    };
    void *apart[] = {&given.out, given.words};
    std::vector<unsigned> wanted = fill(3);
    GIVES(0, cuLaunchKernel, big, 1, 1, 1, 1, 1, 1, 0, nullptr, apart, nullptr);
    // They are taken over at once.
    std::vector<unsigned> next = fill(5);
    hold("more than 4 KB, one by one", wanted);
    size_t bytes = 8 + sizeof given.words;
    void *packed[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &given, CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes, CU_LAUNCH_PARAM_END};
    GIVES(0, cuLaunchKernel, big, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, packed);
    hold("more than 4 KB, packed", next);
    CUlaunchConfig plain = config(1, nullptr, 0);
    wanted = fill(7);
    GIVES(0, cuLaunchKernelEx, &plain, big, apart, nullptr);
    hold("more than 4 KB, by a configuration", wanted);

    CUlibrary library;
    CUkernel kernel;
    CUfunction same;
    NEEDS(cuLibraryLoadData, &library, PLAIN, nullptr, nullptr, 0, nullptr, nullptr, 0);
    NEEDS(cuLibraryGetKernel, &kernel, library, "big");
    wanted = fill(9);
    GIVES(0, cuLaunchKernel, (CUfunction)kernel, 1, 1, 1, 1, 1, 1, 0, nullptr, apart, nullptr);
    hold("a kernel in a function's place", wanted);
    NEEDS(cuKernelGetFunction, &same, kernel);
    wanted = fill(11);
    GIVES(0, cuLaunchKernelEx, &plain, same, apart, nullptr);
    hold("the function of a kernel", wanted);
    GIVES(0, cuLibraryUnload, library);
    GIVES(0, cuModuleUnload, module);
}

static void together() {
    CUmodule module = loaded(PLAIN);
    CUfunction meet = function(module, "meet");
    CUdeviceptr count = out + 128;
    void *given[] = {&out, &count};
    CUlaunchAttribute attributes[2] = {};
    attributes[0].id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE, attributes[0].value.cooperative = 1;
    attributes[1].id = CU_LAUNCH_ATTRIBUTE_PRIORITY, attributes[1].value.priority = 0;
    CUlaunchConfig at_once = config(BLOCKS, attributes, 2);
    GIVES(0, cuLaunchKernelEx, &at_once, meet, given, nullptr);
    hold("blocks that have come", std::vector<unsigned>(BLOCKS, BLOCKS));
    GIVES(0, cuLaunchCooperativeKernel, meet, BLOCKS, 1, 1, 1, 1, 1, 0, nullptr, given);
    hold("blocks that have come, by the call of their own", std::vector<unsigned>(BLOCKS, BLOCKS));
    GIVES(0, cuModuleUnload, module);
}

static void dependent() {
    CUmodule module = loaded(DEPENDENT);
    CUfunction first = function(module, "first"), second = function(module, "second");
    CUstream stream;
    NEEDS(cuStreamCreate, &stream, CU_STREAM_NON_BLOCKING);
    CUlaunchAttribute attribute = {};
    attribute.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    attribute.value.programmaticStreamSerializationAllowed = 1;
    CUlaunchConfig plain = config(1, nullptr, 0), early = config(1, &attribute, 1);
    plain.hStream = early.hStream = stream;
    void *given[] = {&out};
    NEEDS(cuCtxSynchronize);
    for (int round = 0; round < 20; round++) {
        GIVES(0, cuLaunchKernelEx, &plain, first, given, nullptr);
        GIVES(0, cuLaunchKernelEx, &early, second, given, nullptr);
    }
    GIVES(0, cuStreamSynchronize, stream);
    hold("what a kernel that began early has waited for", {40});
    GIVES(0, cuStreamDestroy_v2, stream);
    GIVES(0, cuModuleUnload, module);
}

static void clusters() {
    CUmodule module = loaded(CLUSTERS);
    CUfunction ranks = function(module, "ranks");
    CUlaunchAttribute attribute = {};
    attribute.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    attribute.value.clusterDim.x = 2, attribute.value.clusterDim.y = attribute.value.clusterDim.z = 1;
    CUlaunchConfig pairs = config(BLOCKS, &attribute, 1);
    void *given[] = {&out};
    GIVES(0, cuLaunchKernelEx, &pairs, ranks, given, nullptr);
    hold("places in clusters", {0, 2, 1, 2, 0, 2, 1, 2});
    GIVES(0, cuModuleUnload, module);
}

int main() {
    CUdevice device;
    CUcontext context;
    int major = 0, has_clusters = 0;
    NEEDS(cuInit, 0);
    NEEDS(cuDeviceGet, &device, 0);
    NEEDS(cuDevicePrimaryCtxRetain, &context, device);
    NEEDS(cuCtxSetCurrent, context);
    NEEDS(cuDeviceGetAttribute, &major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device);
    NEEDS(cuDeviceGetAttribute, &has_clusters, CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH, device);
    NEEDS(cuMemAlloc_v2, &out, 256);
    clear();
    parameters();
    together();
    if (major >= 9) dependent();
    if (has_clusters) clusters();
    GIVES(0, cuMemFree_v2, out);
    GIVES(0, cuDevicePrimaryCtxRelease_v2, device);
    if (!failures) printf("launches: ok%s\n", has_clusters ? ", with clusters" : "");
    return failures != 0;
}
