// Many of everything, none left, more than one process.
#pragma once

AREA_ALONE(exhausted, "no memory left") {
    CUmodule module = with_kernels();
    CUfunction nothing = kernel(module, "nothing");
    std::vector<CUdeviceptr> held;
    CUdeviceptr at;
    CUarray array;
    CUmipmappedArray levels;
    void *pinned;
    CUmemGenericAllocationHandle piece;
    CUmemAllocationProp right = piece_on_device();
    CUmemoryPool pool;
    int code = 0;
    for (size_t bytes : {(size_t)1 << 30, (size_t)64 << 20, (size_t)2 << 20})
        while ((code = CALL(cuMemAlloc_v2, &at, bytes)) == 0) held.push_back(at);
    TELL("allocations until there is none", code);
    TRY("16 MiB", cuMemAlloc_v2, &at, 16 << 20);
    CUDA_ARRAY3D_DESCRIPTOR large = shape(2048, 2048, 0);
    TRY("an array", cuArray3DCreate_v2, &array, &large);
    TRY("levels", cuMipmappedArrayCreate, &levels, &large, 4);
    TRY("memory without addresses", cuMemCreate, &piece, 16 << 20, &right, 0);
    NEEDS(cuDeviceGetDefaultMemPool, &pool, device);
    TRY("of a pool", cuMemAllocFromPoolAsync, &at, 16 << 20, pool, nullptr);
    TRY("a launch", cuLaunchKernel, nothing, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr);
    TRY("an event", cuEventRecord, new_event(), nullptr);
    TRY("host memory", cuMemHostAlloc, &pinned, 4096, 0);
    TRY("all of it", cuCtxSynchronize);
    int freed = 0;
    for (CUdeviceptr each : held) freed |= CALL(cuMemFree_v2, each);
    TELL("free all", freed);
    TRY("16 MiB after that", cuMemAlloc_v2, &at, 16 << 20);
}

AREA(many, "10,000 streams and events") {
    const int count = 10000;
    CUmodule module = with_kernels();
    CUfunction nothing = kernel(module, "nothing");
    std::vector<CUstream> streams(count);
    std::vector<CUevent> events(count);
    auto all = [&](const char *what, const std::function<int(int)> &call) {
        int worst = 0;
        for (int i = 0; i < count; i++) worst |= call(i);
        TELL(what, worst);
    };
    all("streams", [&](int i) { return CALL(cuStreamCreate, &streams[i], CU_STREAM_NON_BLOCKING); });
    all("events", [&](int i) { return CALL(cuEventCreate, &events[i], CU_EVENT_DISABLE_TIMING); });
    all("launch", [&](int i) { return CALL(cuLaunchKernel, nothing, 1, 1, 1, 1, 1, 1, 0, streams[i], nullptr, nullptr); });
    all("record", [&](int i) { return CALL(cuEventRecord, events[i], streams[i]); });
    all("wait for the one before", [&](int i) { return CALL(cuStreamWaitEvent, streams[i], events[(i + count - 1) % count], 0); });
    TRY("all of it", cuCtxSynchronize);
    all("asked", [&](int i) { return CALL(cuEventQuery, events[i]); });
    all("streams end", [&](int i) { return CALL(cuStreamDestroy_v2, streams[i]); });
    all("events end", [&](int i) { return CALL(cuEventDestroy_v2, events[i]); });
    TRY("after that", cuCtxSynchronize);
}

AREA(threads, "64 threads") {
    CUmodule module = with_kernels();
    CUfunction store = kernel(module, "store");
    std::vector<int> codes(64, 0), wrong(64, 0), refused(64, 0);
    std::vector<std::thread> all;
    for (int i = 0; i < 64; i++)
        all.emplace_back([&, i] {
            int code = CALL(cuCtxSetCurrent, context);
            for (int round = 0; round < 20 && code == 0; round++) {
                CUstream stream;
                CUdeviceptr at;
                unsigned value = 0;
                code |= CALL(cuStreamCreate, &stream, CU_STREAM_NON_BLOCKING);
                code |= CALL(cuMemAlloc_v2, &at, 4096);
                code |= CALL(cuMemsetD8Async, at, 9, 4096, stream);
                void *words[] = {&at};
                code |= CALL(cuLaunchKernel, store, 1, 1, 1, 1, 1, 1, 0, stream, words, nullptr);
                refused[i] |= CALL(cuMemFree_v2, at + 256) != 1;
                refused[i] |= CALL(cuMemcpyDtoH_v2, &value, at + 4094, 4) != 1;
                code |= CALL(cuStreamSynchronize, stream);
                code |= CALL(cuMemcpyDtoH_v2, &value, at, 4);
                wrong[i] |= value != 1;
                code |= CALL(cuMemFree_v2, at);
                code |= CALL(cuStreamDestroy_v2, stream);
            }
            codes[i] = code;
        });
    for (auto &each : all) each.join();
    int code = 0, bad = 0, other = 0;
    for (int i = 0; i < 64; i++) code |= codes[i], bad += wrong[i], other += refused[i];
    TELL("codes", code);
    TELL("wrong values", bad);
    TELL("other answers to what is wrong", other);
    TRY("after that", cuCtxSynchronize);
}

// The code of a call in a child of this process, or "crashes".
static void in_child(const char *what, const std::function<int()> &call) {
    tried(what, [&] {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            alarm(10);
            int code = call();
            // More than eight bits.
            _exit(code > 199 ? 200 : code);
        }
        int status = 0;
        waitpid(child, &status, 0);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    });
}
AREA(forked, "a child of fork") {
    CUmodule module = with_kernels();
    CUfunction nothing = kernel(module, "nothing");
    CUdeviceptr at = some(16);
    in_child("count devices", [] {
        int count;
        return CALL(cuDeviceGetCount, &count);
    });
    in_child("init", [] { return CALL(cuInit, 0); });
    in_child("allocate", [] {
        CUdeviceptr more;
        return CALL(cuMemAlloc_v2, &more, 16);
    });
    in_child("copy", [=] { return CALL(cuMemcpyDtoH_v2, own, at, 16); });
    in_child("launch", [=] { return CALL(cuLaunchKernel, nothing, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr); });
    in_child("synchronize", [] { return CALL(cuCtxSynchronize); });
    in_child("the current context", [] {
        CUcontext current;
        return CALL(cuCtxGetCurrent, &current);
    });
    in_child("free", [=] { return CALL(cuMemFree_v2, at); });
    TRY("the parent after that", cuMemcpyDtoH_v2, own, at, 16);
    TRY("its launch", cuLaunchKernel, nothing, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr);
    TRY("its end", cuCtxSynchronize);
}
AREA(forked_before, "a child of fork, before the start") {
    in_child("all of it", [] {
        with_context();
        CUdeviceptr at = some(16);
        return CALL(cuMemsetD8_v2, at, 1, 16);
    });
    in_child("once more", [] {
        with_context();
        return CALL(cuCtxSynchronize);
    });
}
