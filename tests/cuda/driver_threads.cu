// Many threads of one program: each with a stream, events and memory that come and go, and all of them in turn in one stream,
// where the order of the host must be the order of the work.
#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#define PROGRAM "driver_threads"
#include "driver.h"

static const char PTX[] = R"(
.version 7.0
.target sm_70
.address_size 64
.visible .entry step(.param .u64 out, .param .u32 factor, .param .u32 summand)
{
    .reg .b32 %r<5>;
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [out];
    ld.param.u32 %r1, [factor];
    ld.param.u32 %r2, [summand];
    ld.global.u32 %r3, [%rd1];
    mad.lo.u32 %r4, %r3, %r1, %r2;
    st.global.u32 [%rd1], %r4;
    ret;
}
)";

static const unsigned THREADS = 8, ROUNDS = 200;

int main() {
    CUcontext context;
    CUmodule module;
    CUfunction step;
    CUstream together;
    CUdeviceptr shared;
    NEEDS(cuInit, 0);
    NEEDS(cuDevicePrimaryCtxRetain, &context, 0);
    NEEDS(cuCtxSetCurrent, context);
    NEEDS(cuModuleLoadData, &module, PTX);
    NEEDS(cuModuleGetFunction, &step, module, "step");
    NEEDS(cuStreamCreate, &together, CU_STREAM_DEFAULT);
    NEEDS(cuMemAlloc_v2, &shared, 4);
    NEEDS(cuMemsetD32_v2, shared, 1, 1);

    std::mutex turn;
    unsigned number = 0, expected = 1;
    std::atomic<int> wrong{0};
    auto work = [&](unsigned id) {
        NEEDS(cuCtxSetCurrent, context);
        for (unsigned round = 0; round < ROUNDS; round++) {
            CUstream stream;
            CUevent event;
            CUdeviceptr own;
            unsigned three = 3, summand = id + round, value = 0;
            NEEDS(cuStreamCreate, &stream, CU_STREAM_NON_BLOCKING);
            NEEDS(cuEventCreate, &event, CU_EVENT_DISABLE_TIMING);
            NEEDS(cuMemAlloc_v2, &own, 4);
            NEEDS(cuMemsetD32Async, own, 5, 1, stream);
            void *parameters[] = {&own, &three, &summand};
            NEEDS(cuLaunchKernel, step, 1, 1, 1, 1, 1, 1, 0, stream, parameters, nullptr);
            NEEDS(cuEventRecord, event, stream);
            NEEDS(cuEventDestroy_v2, event);
            NEEDS(cuMemcpyDtoHAsync_v2, &value, own, 4, stream);
            NEEDS(cuStreamSynchronize, stream);
            wrong += value != 15 + summand;
            NEEDS(cuStreamDestroy_v2, stream);
            NEEDS(cuMemFree_v2, own);

            std::lock_guard<std::mutex> mine(turn);
            unsigned factor = 2 * number + 3;
            void *next[] = {&shared, &factor, &number};
            NEEDS(cuLaunchKernel, step, 1, 1, 1, 1, 1, 1, 0, together, next, nullptr);
            expected = expected * factor + number;
            number++;
        }
    };
    std::vector<std::thread> threads;
    for (unsigned id = 0; id < THREADS; id++) threads.emplace_back(work, id);
    for (auto &thread : threads) thread.join();
    unsigned reached = 0;
    NEEDS(cuMemcpyDtoH_v2, &reached, shared, 4);
    NEEDS(cuCtxSynchronize);
    bool right = wrong == 0 && reached == expected && number == THREADS * ROUNDS;
    printf("driver_threads: %s, %u launches in turn, %d wrong values\n", right ? "ok" : "failed", number, (int)wrong);
    return right ? 0 : 1;
}
