// Thrust sorts and reduces on the device; the C++ library does on the CPU: integers, so that every order gives the same.
#include <algorithm>
#include <numeric>
#include <vector>

#include <thrust/copy.h>
#include <thrust/count.h>
#include <thrust/device_vector.h>
#include <thrust/functional.h>
#include <thrust/reduce.h>
#include <thrust/sequence.h>
#include <thrust/sort.h>
#include <thrust/transform_reduce.h>

#define PROGRAM "thrust_sorting"
#include "../../cuda/check.h"

struct Square {
    __host__ __device__ unsigned operator()(unsigned x) const { return x * x; }
};
struct IsOdd {
    __host__ __device__ bool operator()(unsigned x) const { return x & 1; }
};

static int failures = 0;
static void check(const char *what, bool right) {
    printf("thrust_sorting: %s %s\n", what, right ? "as the CPU's" : "is wrong");
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
    check("sort", back(sorted) == expected);

    thrust::device_vector<unsigned> keys = device, places(count);
    thrust::sequence(places.begin(), places.end());
    thrust::stable_sort_by_key(keys.begin(), keys.end(), places.begin());
    std::vector<unsigned> order(count);
    std::iota(order.begin(), order.end(), 0u);
    std::stable_sort(order.begin(), order.end(), [&](unsigned a, unsigned b) { return host[a] < host[b]; });
    check("stable_sort_by_key", back(places) == order && back(keys) == expected);

    check("reduce", thrust::reduce(device.begin(), device.end(), 0u) == std::accumulate(host.begin(), host.end(), 0u));
    unsigned squares = 0;
    for (unsigned value : host) squares += value * value;
    check("transform_reduce",
          thrust::transform_reduce(device.begin(), device.end(), Square(), 0u, thrust::plus<unsigned>()) == squares);

    check("count_if", thrust::count_if(device.begin(), device.end(), IsOdd()) == std::count_if(host.begin(), host.end(), IsOdd()));

    printf("thrust_sorting: %s\n", failures ? "failed" : "ok");
    return failures ? 1 : 0;
}
