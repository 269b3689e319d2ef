// NVML beside CUDA in one process: libnvidia-ml.so.1, opened as PyTorch opens it, has to say of the device, its memory and this process
// what CUDA says. With a driver of NVIDIA's some of it differs (memory is the whole card's): then it is printed and not judged.
#include <cuda.h>
#include <dlfcn.h>
#include <unistd.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>

template <typename Function> Function *symbol(const char *library, const char *name) {
    void *handle = dlopen(library, RTLD_NOW);
    void *found = handle ? dlsym(handle, name) : nullptr;
    if (!found) {
        printf("nvml_query: no %s: %s\n", name, dlerror());
        exit(1);
    }
    return (Function *)found;
}
#define CU(name, ...) ((int)symbol<decltype(name)>("libcuda.so.1", #name)(__VA_ARGS__))
// nvml.h is no part of the toolkit that these programs are built with: its types are written here.
#define NV(name, types, ...) (symbol<int types>("libnvidia-ml.so.1", #name)(__VA_ARGS__))

typedef void *Device;
struct Memory { unsigned long long total, free, used; };
struct Process { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; };
struct Fabric { unsigned version; unsigned char cluster[16]; int status; unsigned clique; unsigned char state; unsigned health; };

static int failures = 0;
static void expect(const char *what, bool right) {
    if (!right) printf("nvml_query: wrong: %s\n", what);
    failures += !right;
}

static Memory memory_of(Device device) {
    Memory memory = {};
    expect("memory", NV(nvmlDeviceGetMemoryInfo, (Device, Memory *), device, &memory) == 0);
    expect("memory adds up", memory.total == memory.free + memory.used);
    return memory;
}

int main() {
    bool vgpu = dlsym(dlopen("libcuda.so.1", RTLD_NOW), "vgpu_is_shim") != nullptr;
    unsigned count = 0;
    expect("refused before nvmlInit", NV(nvmlDeviceGetCount_v2, (unsigned *), &count) == 1);
    int started = NV(nvmlInit_v2, (), );
    if (started != 0) {
        printf("nvml_query: nvmlInit_v2: %d, %s\n", started, symbol<const char *(int)>("libnvidia-ml.so.1", "nvmlErrorString")(started));
        return 1;
    }
    expect("count", NV(nvmlDeviceGetCount_v2, (unsigned *), &count) == 0 && count >= 1);

    // NVML comes first, and needs no CUDA: what it costs is no worker.
    Device device = nullptr;
    CUdevice cuda;
    CUcontext context;
    CUuuid uuid;
    char bus[32] = "", name[96] = "", cuda_name[96] = "", text[96] = "", of_cuda[96] = "GPU-";
    int version = 0, cuda_version = 0, major = 0, minor = 0, cuda_major = 0, cuda_minor = 0;
    expect("cuInit", CU(cuInit, 0) == 0 && CU(cuDeviceGet, &cuda, 0) == 0);
    expect("PCI id", CU(cuDeviceGetPCIBusId, bus, sizeof bus, cuda) == 0);
    expect("handle by CUDA's PCI id", NV(nvmlDeviceGetHandleByPciBusId_v2, (const char *, Device *), bus, &device) == 0);
    expect("name", NV(nvmlDeviceGetName, (Device, char *, unsigned), device, name, sizeof name) == 0);
    expect("CUDA's name", CU(cuDeviceGetName, cuda_name, sizeof cuda_name, cuda) == 0 && !strcmp(name, cuda_name));
    expect("UUID", NV(nvmlDeviceGetUUID, (Device, char *, unsigned), device, text, sizeof text) == 0);
    expect("CUDA's UUID", CU(cuDeviceGetUuid, &uuid, cuda) == 0);
    for (int i = 0; i < 16; i++) {
        bool dash = i == 4 || i == 6 || i == 8 || i == 10;
        sprintf(of_cuda + strlen(of_cuda), dash ? "-%02x" : "%02x", (unsigned char)uuid.bytes[i]);
    }
    expect("the same UUID", !strcmp(text, of_cuda));
    expect("versions", NV(nvmlSystemGetCudaDriverVersion_v2, (int *), &version) == 0 && CU(cuDriverGetVersion, &cuda_version) == 0);
    expect("the same version", version == cuda_version);
    expect("capability", NV(nvmlDeviceGetCudaComputeCapability, (Device, int *, int *), device, &major, &minor) == 0);
    CU(cuDeviceGetAttribute, &cuda_major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, cuda);
    CU(cuDeviceGetAttribute, &cuda_minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, cuda);
    expect("the same capability", major == cuda_major && minor == cuda_minor);

    expect("context", CU(cuDevicePrimaryCtxRetain, &context, cuda) == 0 && CU(cuCtxSetCurrent, context) == 0);
    const size_t bytes = 32 << 20;
    size_t total = 0, free_before = 0, free_after = 0;
    CUdeviceptr at = 0;
    Memory before = memory_of(device);
    expect("cuMemGetInfo", CU(cuMemGetInfo_v2, &free_before, &total) == 0);
    expect("cuMemAlloc", CU(cuMemAlloc_v2, &at, bytes) == 0);
    Memory after = memory_of(device);
    expect("cuMemGetInfo", CU(cuMemGetInfo_v2, &free_after, &total) == 0);
    printf("nvml_query: %s, %s, %s; NVML %llu total, %llu then %llu used; CUDA %zu total, %zu then %zu free\n", name, text, bus,
           after.total, before.used, after.used, total, free_before, free_after);
    if (vgpu) {
        expect("CUDA's total", after.total == total);
        // Where the grant is all, others on the card count for CUDA's free memory and not for ours.
        expect("CUDA's free", free_before <= before.free && free_after <= after.free);
        expect("what was allocated is used", after.used - before.used == bytes);
    }

    unsigned processes = 0, room = 16;
    Process list[16];
    int asked = NV(nvmlDeviceGetComputeRunningProcesses_v3, (Device, unsigned *, Process *), device, &processes, nullptr);
    expect("a count", asked == 7 && processes >= 1);
    asked = NV(nvmlDeviceGetComputeRunningProcesses_v3, (Device, unsigned *, Process *), device, &room, list);
    bool found = false;
    for (unsigned i = 0; asked == 0 && i < room; i++) {
        printf("nvml_query: process %u: %llu bytes\n", list[i].pid, list[i].used);
        found |= list[i].pid == (unsigned)getpid() && list[i].used >= bytes;
    }
    if (vgpu) expect("this process is in the list", found);

    Fabric fabric = {};
    fabric.version = sizeof fabric | 2u << 24;
    int fabric_asked = NV(nvmlDeviceGetGpuFabricInfoV, (Device, Fabric *), device, &fabric);
    unsigned type = 0;
    int link = NV(nvmlDeviceGetNvLinkRemoteDeviceType, (Device, unsigned, unsigned *), device, 0, &type);
    printf("nvml_query: fabric %d, state %d; link %d\n", fabric_asked, fabric.state, link);
    if (vgpu) expect("no fabric, no link", fabric_asked == 0 && fabric.state == 0 && link == 3);

    CU(cuMemFree_v2, at);
    CU(cuCtxSynchronize);
    if (vgpu) expect("freed memory is free", memory_of(device).used == before.used);
    expect("end", NV(nvmlShutdown, (), ) == 0 && NV(nvmlShutdown, (), ) == 1);
    if (failures == 0) printf("nvml_query: ok, NVML and CUDA agree\n");
    return failures ? 1 : 0;
}
