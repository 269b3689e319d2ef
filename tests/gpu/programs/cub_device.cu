// CUB's device-wide algorithms with memory of our own for their work, and its block-wide ones in a kernel.
#include <algorithm>
#include <cub/cub.cuh>
#include <numeric>
#include <vector>

#define PROGRAM "cub_device"
#include "../../cuda/check.h"

static int failures = 0;
static void check(const char *what, bool right) {
    printf("cub_device: %s %s\n", what, right ? "as the CPU's" : "is wrong");
    failures += !right;
}

template <typename T> struct Device {
    T *place;
    size_t count;
    explicit Device(size_t count) : count(count) { MUST(cudaMalloc((void **)&place, count * sizeof(T))); }
    explicit Device(const std::vector<T> &host) : Device(host.size()) {
        MUST(cudaMemcpy(place, host.data(), count * sizeof(T), cudaMemcpyHostToDevice));
    }
    ~Device() { cudaFree(place); }
    std::vector<T> back() const {
        std::vector<T> host(count);
        MUST(cudaMemcpy(host.data(), place, count * sizeof(T), cudaMemcpyDeviceToHost));
        return host;
    }
};

// Each algorithm is called twice: how much memory it wants, and with it.
template <typename F> static void worked(F call) {
    size_t bytes = 0;
    MUST(call((void *)nullptr, bytes));
    Device<char> work(bytes + 1);
    MUST(call((void *)work.place, bytes));
}

__global__ void block_sums(const int *in, int *out) {
    typedef cub::BlockReduce<int, 256> Reduce;
    typedef cub::BlockScan<int, 256> Scan;
    __shared__ union {
        typename Reduce::TempStorage reduce;
        typename Scan::TempStorage scan;
    } shared;
    int value = in[blockIdx.x * 256 + threadIdx.x], scanned;
    int sum = Reduce(shared.reduce).Sum(value);
    __syncthreads();
    Scan(shared.scan).InclusiveSum(value, scanned);
    if (threadIdx.x == 0) out[2 * blockIdx.x] = sum;
    if (threadIdx.x == 255) out[2 * blockIdx.x + 1] = scanned;
}

int main() {
    const int count = 1 << 18;
    unsigned state = 11;
    std::vector<int> host(count);
    for (int &value : host) value = (int)(next_random(state) % 2000000) - 1000000;
    Device<int> in(host), out((size_t)count), one((size_t)1);
    std::vector<int> sorted = host;
    std::sort(sorted.begin(), sorted.end());

    worked([&](void *work, size_t &bytes) { return cub::DeviceRadixSort::SortKeys(work, bytes, in.place, out.place, count); });
    check("DeviceRadixSort", out.back() == sorted);

    worked([&](void *work, size_t &bytes) { return cub::DeviceReduce::Sum(work, bytes, in.place, one.place, count); });
    check("DeviceReduce::Sum", one.back()[0] == std::accumulate(host.begin(), host.end(), 0));
    worked([&](void *work, size_t &bytes) { return cub::DeviceReduce::Max(work, bytes, in.place, one.place, count); });
    check("DeviceReduce::Max", one.back()[0] == sorted.back());

    worked([&](void *work, size_t &bytes) { return cub::DeviceScan::ExclusiveSum(work, bytes, in.place, out.place, count); });
    std::vector<int> sums(count);
    for (int i = 1; i < count; i++) sums[i] = (int)((unsigned)sums[i - 1] + (unsigned)host[i - 1]);
    check("DeviceScan", out.back() == sums);

    Device<int> sorted_in(sorted);
    worked([&](void *work, size_t &bytes) { return cub::DeviceSelect::Unique(work, bytes, sorted_in.place, out.place, one.place, count); });
    std::vector<int> single = sorted, some = out.back();
    single.erase(std::unique(single.begin(), single.end()), single.end());
    some.resize(one.back()[0]);
    check("DeviceSelect::Unique", some == single);

    Device<int> bins((size_t)16);
    worked([&](void *work, size_t &bytes) {
        return cub::DeviceHistogram::HistogramEven(work, bytes, in.place, bins.place, 17, -1000000, 1000000, count);
    });
    std::vector<int> expected(16);
    for (int value : host) expected[(size_t)((long long)(value + 1000000) * 16 / 2000000)]++;
    check("DeviceHistogram", bins.back() == expected);

    const int blocks = 64;
    Device<int> of_blocks((size_t)2 * blocks);
    block_sums<<<blocks, 256>>>(in.place, of_blocks.place);
    MUST(cudaDeviceSynchronize());
    std::vector<int> pairs = of_blocks.back();
    bool right = true;
    for (int b = 0; b < blocks; b++) {
        int sum = std::accumulate(host.begin() + 256 * b, host.begin() + 256 * (b + 1), 0);
        right = right && pairs[2 * b] == sum && pairs[2 * b + 1] == sum;
    }
    check("BlockReduce and BlockScan", right);

    printf("cub_device: %s\n", failures ? "failed" : "ok");
    return failures ? 1 : 0;
}
