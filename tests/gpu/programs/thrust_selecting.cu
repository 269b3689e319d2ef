// Thrust scans and selects on the device; the C++ library does on the CPU.
#include <algorithm>
#include <iterator>
#include <numeric>
#include <vector>

#include <thrust/binary_search.h>
#include <thrust/copy.h>
#include <thrust/device_vector.h>
#include <thrust/execution_policy.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/partition.h>
#include <thrust/reduce.h>
#include <thrust/scan.h>
#include <thrust/sort.h>
#include <thrust/transform.h>
#include <thrust/unique.h>

#define PROGRAM "thrust_selecting"
#include "../../cuda/check.h"

struct Square {
    __host__ __device__ unsigned operator()(unsigned x) const { return x * x; }
};
struct IsOdd {
    __host__ __device__ bool operator()(unsigned x) const { return x & 1; }
};

static int failures = 0;
static void check(const char *what, bool right) {
    printf("thrust_selecting: %s %s\n", what, right ? "as the CPU's" : "is wrong");
    failures += !right;
}

static std::vector<unsigned> back(const thrust::device_vector<unsigned> &values) {
    std::vector<unsigned> host(values.size());
    thrust::copy(values.begin(), values.end(), host.begin());
    return host;
}

int main() {
    const int count = 1 << 18;
    unsigned state = 7;
    std::vector<unsigned> host(count);
    for (unsigned &value : host) value = next_random(state) % 100000;
    const thrust::device_vector<unsigned> device(host.begin(), host.end());

    thrust::device_vector<unsigned> sorted = device;
    thrust::sort(sorted.begin(), sorted.end());
    std::vector<unsigned> expected = host;
    std::sort(expected.begin(), expected.end());

    thrust::device_vector<unsigned> summed(count);
    thrust::inclusive_scan(device.begin(), device.end(), summed.begin());
    std::vector<unsigned> sums(count);
    std::partial_sum(host.begin(), host.end(), sums.begin());
    check("inclusive_scan", back(summed) == sums);

    thrust::device_vector<unsigned> single = sorted;
    single.erase(thrust::unique(single.begin(), single.end()), single.end());
    std::vector<unsigned> alone = expected;
    alone.erase(std::unique(alone.begin(), alone.end()), alone.end());
    check("unique", back(single) == alone);

    thrust::device_vector<unsigned> parted = device;
    thrust::stable_partition(parted.begin(), parted.end(), IsOdd());
    std::vector<unsigned> halves = host;
    std::stable_partition(halves.begin(), halves.end(), IsOdd());
    check("stable_partition", back(parted) == halves);

    thrust::device_vector<unsigned> odd(count);
    auto end = thrust::copy_if(device.begin(), device.end(), odd.begin(), IsOdd());
    odd.resize(end - odd.begin());
    std::vector<unsigned> some;
    std::copy_if(host.begin(), host.end(), std::back_inserter(some), IsOdd());
    check("copy_if", back(odd) == some);

    thrust::device_vector<unsigned> key_sums(count), key_values(count);
    auto ends = thrust::reduce_by_key(sorted.begin(), sorted.end(), thrust::counting_iterator<unsigned>(0), key_values.begin(), key_sums.begin());
    key_sums.resize(ends.second - key_sums.begin());
    std::vector<unsigned> by_key;
    for (int i = 0; i < count; i++) {
        if (i == 0 || expected[i] != expected[i - 1]) by_key.push_back(0);
        by_key.back() += i;
    }
    check("reduce_by_key", back(key_sums) == by_key);

    thrust::device_vector<unsigned> found(1000);
    thrust::lower_bound(sorted.begin(), sorted.end(), thrust::counting_iterator<unsigned>(0), thrust::counting_iterator<unsigned>(1000), found.begin());
    std::vector<unsigned> bounds(1000);
    for (unsigned i = 0; i < 1000; i++) bounds[i] = std::lower_bound(expected.begin(), expected.end(), i) - expected.begin();
    check("lower_bound", back(found) == bounds);

    thrust::device_vector<unsigned> both(count);
    cudaStream_t stream;
    MUST(cudaStreamCreate(&stream));
    thrust::transform(thrust::cuda::par.on(stream), device.begin(), device.end(), both.begin(), Square());
    MUST(cudaStreamSynchronize(stream));
    std::vector<unsigned> powers(count);
    std::transform(host.begin(), host.end(), powers.begin(), Square());
    check("transform on a stream", back(both) == powers);

    printf("thrust_selecting: %s\n", failures ? "failed" : "ok");
    return failures ? 1 : 0;
}
