// Launches with attributes: a cooperative grid that synchronizes as a whole, clusters that share memory, and more than 4 KB of
// parameters. What this GPU does not have is said and left out.
#include <cooperative_groups.h>

#define PROGRAM "cooperative"
#include "../../cuda/check.h"

namespace groups = cooperative_groups;

static int failures = 0;
static void check(const char *what, bool right) {
    printf("cooperative: %s %s\n", what, right ? "is right" : "is wrong");
    failures += !right;
}

__global__ void rounds(unsigned *values, int count) {
    groups::grid_group grid = groups::this_grid();
    for (int round = 0; round < count; round++) {
        unsigned left = values[(grid.thread_rank() + grid.size() - 1) % grid.size()];
        grid.sync();
        values[grid.thread_rank()] += left;
        grid.sync();
    }
}

static void whole_grid() {
    const int blocks = 8, threads = 64, size = blocks * threads, count = 10;
    unsigned *device, host[size], expected[size], next[size];
    MUST(cudaMalloc((void **)&device, sizeof(host)));
    for (int i = 0; i < size; i++) host[i] = expected[i] = i;
    MUST(cudaMemcpy(device, host, sizeof(host), cudaMemcpyHostToDevice));
    int turns = count;
    void *parameters[] = {&device, &turns};
    MUST(cudaLaunchCooperativeKernel((void *)rounds, blocks, threads, parameters, 0, nullptr));
    MUST(cudaMemcpy(host, device, sizeof(host), cudaMemcpyDeviceToHost));
    for (int round = 0; round < count; round++) {
        for (int i = 0; i < size; i++) next[i] = expected[i] + expected[(i + size - 1) % size];
        for (int i = 0; i < size; i++) expected[i] = next[i];
    }
    bool right = true;
    for (int i = 0; i < size; i++) right = right && host[i] == expected[i];
    check("a cooperative grid", right);
}

__global__ void neighbours(unsigned *out) {
#if __CUDA_ARCH__ >= 900
    groups::cluster_group cluster = groups::this_cluster();
    __shared__ unsigned own;
    if (threadIdx.x == 0) own = blockIdx.x * 100;
    cluster.sync();
    unsigned rank = (cluster.block_rank() + 1) % cluster.num_blocks();
    unsigned other = *cluster.map_shared_rank(&own, rank);
    cluster.sync();
    if (threadIdx.x == 0) out[blockIdx.x] = other;
#endif
}

static void clusters() {
    int major = 0;
    MUST(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    if (major < 9) {
        printf("cooperative: no clusters here\n");
        return;
    }
    unsigned *device, host[8];
    MUST(cudaMalloc((void **)&device, sizeof(host)));
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(8);
    config.blockDim = dim3(32);
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = 2;
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    config.attrs = &attribute;
    config.numAttrs = 1;
    int fit = 0;
    MUST(cudaOccupancyMaxActiveClusters(&fit, neighbours, &config));
    MUST(cudaLaunchKernelEx(&config, neighbours, device));
    MUST(cudaMemcpy(host, device, sizeof(host), cudaMemcpyDeviceToHost));
    bool right = fit > 0;
    for (unsigned i = 0; i < 8; i++) right = right && host[i] == (i ^ 1) * 100;
    check("memory shared in a cluster", right);
}

struct Large {
    unsigned words[2000];
};

__global__ void sum(const __grid_constant__ Large large, unsigned *out) {
    unsigned total = 0;
    for (unsigned word : large.words) total += word;
    *out = total;
}

static void parameters() {
    unsigned *device, total = 0;
    Large large;
    for (int i = 0; i < 2000; i++) large.words[i] = i * i;
    unsigned expected = 0;
    for (unsigned word : large.words) expected += word;
    MUST(cudaMalloc((void **)&device, sizeof(total)));
    sum<<<1, 1>>>(large, device);
    MUST(cudaMemcpy(&total, device, sizeof(total), cudaMemcpyDeviceToHost));
    check("8 KB of parameters", total == expected);
}

int main() {
    whole_grid();
    clusters();
    parameters();
    printf("cooperative: %s\n", failures ? "failed" : "ok");
    return failures ? 1 : 0;
}
