// What cudart finds at its start: the device, its properties, every attribute it answers.
#define PROGRAM "device_query"
#include "check.h"

int main() {
    int driver = 0, runtime = 0, count = 0;
    MUST(cudaDriverGetVersion(&driver));
    MUST(cudaRuntimeGetVersion(&runtime));
    MUST(cudaGetDeviceCount(&count));
    printf("device_query: driver %d, runtime %d, %d device(s)\n", driver, runtime, count);
    cudaDeviceProp properties;
    MUST(cudaGetDeviceProperties(&properties, 0));
    printf("device_query: %s, compute capability %d.%d, %zu MiB, %d multiprocessors, warps of %d\n", properties.name,
           properties.major, properties.minor, properties.totalGlobalMem >> 20, properties.multiProcessorCount,
           properties.warpSize);
    int known = 0;
    for (int id = 1; id < 148; id++) {
        int value;
        if (cudaDeviceGetAttribute(&value, (cudaDeviceAttr)id, 0) != cudaSuccess) continue;
        printf("  %d=%d", id, value);
        if (++known % 10 == 0) printf("\n");
    }
    bool plausible = driver >= runtime && count >= 1 && properties.major >= 7 && properties.warpSize == 32 &&
                     properties.maxThreadsPerBlock >= 1024 && properties.totalGlobalMem > 0 && known > 100;
    printf("\ndevice_query: %s, %d attributes answered\n", plausible ? "ok" : "not plausible", known);
    return plausible ? 0 : 1;
}
