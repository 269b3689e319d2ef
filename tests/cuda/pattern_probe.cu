// pattern_probe 0xADDRESS... handles 0xHANDLE...: tries addresses and handles of another zone (pattern_plant prints them): copies
// from and to them, kernels that read and write them, and their use as stream, event, function, module, context, library in driver
// calls. The first address is also tried as a handle, and the first handle as an address.
// Each attempt runs in a process of its own, as a kernel's fault ends its context. Exit code 1: bytes of the pattern were seen, or
// an attempt did not take place or hung; 0: all were refused, met an own object, or hurt the process itself (a unified copy takes an
// address that is no device memory of its own for a host pointer, as CUDA does). First and last the judge finds its own pattern.
#include <cuda.h>
#include <dlfcn.h>
#include <csignal>
#include <cstring>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>
#define PROGRAM "pattern_probe"
#include "check.h"
#include "pattern.h"

// How an attempt went, as exit codes of its process. Others say that it did not take place: 1 is MUST's, 2 is driver()'s.
enum { OWN_OBJECT = 10, BAD_VALUE, BAD_CONTEXT, BAD_HANDLE, BAD_ADDRESS, OTHER_ERROR, SEEN };
// What no process exits with.
const int CRASHED = 256, HUNG = 257, KILLED = 258;

__global__ void read_words(const uint64_t *from, uint64_t *to, int count) {
    for (int i = 0; i < count; i++) to[i] = from[i];
}
__global__ void write_words(uint64_t *to, int count) {
    for (int i = 0; i < count; i++) to[i] = 0;
}

template <typename Function> Function *driver(const char *name) {
    static void *library = dlopen("libcuda.so.1", RTLD_NOW);
    void *symbol = library ? dlsym(library, name) : nullptr;
    if (!symbol) {
        printf("pattern_probe: libcuda.so.1 has no %s\n", name);
        exit(2);
    }
    return (Function *)symbol;
}

// An attempt returns the CUDA result; `seen` is what it could read.
typedef int (*Attempt)(uint64_t value, std::vector<unsigned char> &seen);

static int copy_out(uint64_t value, std::vector<unsigned char> &seen) {
    return driver<decltype(cuMemcpyDtoH_v2)>("cuMemcpyDtoH_v2")(seen.data(), value, seen.size());
}
static int copy_out_unified(uint64_t value, std::vector<unsigned char> &seen) {
    return cudaMemcpy(seen.data(), (void *)value, seen.size(), cudaMemcpyDefault);
}
static int copy_to_own(uint64_t value, std::vector<unsigned char> &seen) {
    void *own;
    MUST(cudaMalloc(&own, seen.size()));
    int result = driver<decltype(cuMemcpyDtoD_v2)>("cuMemcpyDtoD_v2")((CUdeviceptr)own, value, seen.size());
    if (result == 0) result = cudaDeviceSynchronize();
    cudaMemcpy(seen.data(), own, seen.size(), cudaMemcpyDeviceToHost);
    return result;
}
static int copy_in(uint64_t value, std::vector<unsigned char> &seen) {
    std::vector<unsigned char> zeros(seen.size());
    return driver<decltype(cuMemcpyHtoD_v2)>("cuMemcpyHtoD_v2")(value, zeros.data(), zeros.size());
}
static int set_bytes(uint64_t value, std::vector<unsigned char> &seen) {
    return driver<decltype(cuMemsetD8_v2)>("cuMemsetD8_v2")(value, 0, seen.size());
}
static int release(uint64_t value, std::vector<unsigned char> &) {
    return driver<decltype(cuMemFree_v2)>("cuMemFree_v2")(value);
}
static int read_by_kernel(uint64_t value, std::vector<unsigned char> &seen) {
    uint64_t *own;
    MUST(cudaMalloc(&own, seen.size()));
    read_words<<<1, 1>>>((const uint64_t *)value, own, (int)(seen.size() / 8));
    int result = cudaDeviceSynchronize();
    cudaMemcpy(seen.data(), own, seen.size(), cudaMemcpyDeviceToHost);
    return result;
}
static int write_by_kernel(uint64_t value, std::vector<unsigned char> &seen) {
    write_words<<<1, 1>>>((uint64_t *)value, (int)(seen.size() / 8));
    return cudaDeviceSynchronize();
}
static int as_stream(uint64_t value, std::vector<unsigned char> &) {
    return driver<decltype(cuStreamSynchronize)>("cuStreamSynchronize")((CUstream)value);
}
static int as_event(uint64_t value, std::vector<unsigned char> &) {
    return driver<decltype(cuEventQuery)>("cuEventQuery")((CUevent)value);
}
static int as_function(uint64_t value, std::vector<unsigned char> &seen) {
    // The parameters of pattern_plant's kernel: were it A's function, it would write where we say.
    uint64_t *own, count = seen.size() / 8, pattern = ~PATTERN;
    MUST(cudaMalloc(&own, seen.size()));
    void *parameters[] = {&own, &count, &pattern};
    auto launch = driver<decltype(cuLaunchKernel)>("cuLaunchKernel");
    int result = launch((CUfunction)value, 1, 1, 1, 32, 1, 1, 0, nullptr, parameters, nullptr);
    int later = cudaDeviceSynchronize();
    return result ? result : later;
}
static int as_module(uint64_t value, std::vector<unsigned char> &) {
    CUfunction function;
    return driver<decltype(cuModuleGetFunction)>("cuModuleGetFunction")(&function, (CUmodule)value, "plant");
}
static int as_library(uint64_t value, std::vector<unsigned char> &) {
    return driver<decltype(cuLibraryUnload)>("cuLibraryUnload")((CUlibrary)value);
}
static int as_context(uint64_t value, std::vector<unsigned char> &seen) {
    int result = driver<decltype(cuCtxSetCurrent)>("cuCtxSetCurrent")((CUcontext)value);
    return result ? result : copy_out(value, seen);
}

static const struct {
    const char *what;
    Attempt attempt;
    bool takes_address;
} ATTEMPTS[] = {
    {"copy to the host", copy_out, true},       {"unified copy", copy_out_unified, true},
    {"copy to own memory", copy_to_own, true},  {"copy from the host", copy_in, true},
    {"memset", set_bytes, true},                {"free", release, true},
    {"read by a kernel", read_by_kernel, true}, {"write by a kernel", write_by_kernel, true},
    {"as a stream", as_stream, false},          {"as an event", as_event, false},
    {"as a function", as_function, false},      {"as a module", as_module, false},
    {"as a library", as_library, false},        {"as a context", as_context, false},
};

// Runs one attempt in a process of its own.
static int apart(Attempt attempt, uint64_t value) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        MUST(cudaFree(nullptr));
        std::vector<unsigned char> seen(4096, 0xee);
        int result = attempt(value, seen);
        // A call may only have been queued: its error comes with the next one that waits.
        int later = cudaDeviceSynchronize();
        if (result == 0) result = later;
        if (holds_pattern(seen.data(), seen.size())) _exit(SEEN);
        switch (result) {
        case 0: _exit(OWN_OBJECT);
        case 1: _exit(BAD_VALUE);
        case 201: _exit(BAD_CONTEXT);
        case 400: _exit(BAD_HANDLE);
        case 700: _exit(BAD_ADDRESS);
        default: _exit(OTHER_ERROR);
        }
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) return KILLED;
    if (WIFEXITED(status)) return WEXITSTATUS(status);
    int signal = WTERMSIG(status);
    return signal == SIGSEGV || signal == SIGBUS ? CRASHED : signal == SIGALRM ? HUNG : KILLED;
}

// The judge has to be able to find the pattern: in memory of our own it must.
static int own_pattern(uint64_t, std::vector<unsigned char> &seen) {
    void *own;
    std::vector<uint64_t> pattern(seen.size() / 8, PATTERN);
    MUST(cudaMalloc(&own, seen.size()));
    MUST(cudaMemcpy(own, pattern.data(), seen.size(), cudaMemcpyHostToDevice));
    return read_by_kernel((uint64_t)own, seen);
}

static const char *name(int result) {
    switch (result) {
    case OWN_OBJECT: return "succeeded on an own object, nothing of the pattern";
    case BAD_VALUE: return "refused, invalid value";
    case BAD_CONTEXT: return "refused, invalid context";
    case BAD_HANDLE: return "refused, invalid handle";
    case BAD_ADDRESS: return "refused, illegal address";
    case OTHER_ERROR: return "refused, another error";
    case CRASHED: return "crashed by its own wild pointer";
    case SEEN: return "SAW THE PATTERN";
    case HUNG: return "HUNG";
    default: return "DID NOT TAKE PLACE";
    }
}
static bool harmless(int result) {
    return (result >= OWN_OBJECT && result <= OTHER_ERROR) || result == CRASHED;
}

static bool finds_own_pattern() {
    int result = apart(own_pattern, 0);
    printf("pattern_probe: the pattern in own memory: %s (%d)\n", name(result), result);
    return result == SEEN;
}

int main(int count, char **words) {
    int handles = 1;
    while (handles < count && strcmp(words[handles], "handles") != 0) handles++;
    if (handles < 2 || handles > count - 2) {
        printf("usage: pattern_probe 0xADDRESS... handles 0xHANDLE...\n");
        return 2;
    }
    int failures = !finds_own_pattern();
    for (int i = 1; i < count; i++) {
        if (i == handles) continue;
        uint64_t value = strtoull(words[i], nullptr, 0);
        bool first = i == 1 || i == handles + 1;
        for (const auto &each : ATTEMPTS) {
            if (each.takes_address != (i < handles) && !first) continue;
            int result = apart(each.attempt, value);
            printf("pattern_probe: %s, %s: %s (%d)\n", words[i], each.what, name(result), result);
            failures += !harmless(result);
        }
    }
    failures += !finds_own_pattern();
    printf("pattern_probe: %s\n", failures ? "failed" : "ok, nothing of the other zone was seen");
    return failures ? 1 : 0;
}
