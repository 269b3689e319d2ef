// Device memory is counted: free sinks by what is allocated and comes back; more than there is gives error 2, not a crash.
#define PROGRAM "memory_info"
#include "check.h"

int main() {
    const size_t bytes = 32 << 20;
    size_t before, total, during, after;
    void *block, *impossible = nullptr;
    MUST(cudaMemGetInfo(&before, &total));
    MUST(cudaMalloc(&block, bytes));
    MUST(cudaMemGetInfo(&during, &total));
    int too_much = cudaMalloc(&impossible, total + (1 << 20));
    int forgotten = cudaGetLastError() == too_much && cudaGetLastError() == cudaSuccess;
    MUST(cudaFree(block));
    MUST(cudaMemGetInfo(&after, &total));
    printf("memory_info: %zu MiB of %zu free, %zu with 32 MiB allocated, %zu after; too much gave %d\n", before >> 20,
           total >> 20, during >> 20, after >> 20, too_much);
    bool counted = before <= total && during + bytes <= before && after == before && too_much == 2 && forgotten;
    printf("memory_info: %s\n", counted ? "ok" : "the figures do not fit");
    return counted ? 0 : 1;
}
