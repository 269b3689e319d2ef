// What a capture refuses, and what that makes of it.
#pragma once

AREA(captures, "captures") {
    CUstreamCaptureStatus status;
    CUstreamCaptureMode mode = (CUstreamCaptureMode)99;
    CUgraph graph;
    with_context();
    CUstream stream = new_stream();
    TRY("begin in the legacy stream", cuStreamBeginCapture_v2, nullptr, CU_STREAM_CAPTURE_MODE_GLOBAL);
    TRY("begin in mode 99", cuStreamBeginCapture_v2, stream, mode);
    TRY("begin in a graph that is none", cuStreamBeginCaptureToGraph, stream, nullptr, nullptr, nullptr, 0, CU_STREAM_CAPTURE_MODE_GLOBAL);
    TRY("end without a begin", cuStreamEndCapture, stream, &graph);
    TRY("end in the legacy stream", cuStreamEndCapture, nullptr, &graph);
    TRY("status, nowhere to", cuStreamIsCapturing, stream, nullptr);
    TRY("status of the legacy stream", cuStreamIsCapturing, nullptr, &status);
    TRY("details, nowhere to", cuStreamGetCaptureInfo_v3, stream, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr);
    TRY("needs of no capture", cuStreamUpdateCaptureDependencies_v2, stream, nullptr, nullptr, 0, CU_STREAM_SET_CAPTURE_DEPENDENCIES);
    TRY("exchange mode 99", cuThreadExchangeStreamCaptureMode, &mode);
    TRY("exchange, nowhere to", cuThreadExchangeStreamCaptureMode, nullptr);
    NEEDS(cuStreamBeginCapture_v2, stream, CU_STREAM_CAPTURE_MODE_RELAXED);
    TRY("begin twice", cuStreamBeginCapture_v2, stream, CU_STREAM_CAPTURE_MODE_RELAXED);
    TRY("needs of nobody", cuStreamUpdateCaptureDependencies_v2, stream, nullptr, nullptr, 1, CU_STREAM_SET_CAPTURE_DEPENDENCIES);
    TRY("needs with flags of nobody", cuStreamUpdateCaptureDependencies_v2, stream, nullptr, nullptr, 0, 99);
    TRY("end", cuStreamEndCapture, stream, &graph);
    NEEDS(cuStreamBeginCapture_v2, stream, CU_STREAM_CAPTURE_MODE_RELAXED);
    TRY("destroy a stream that captures", cuStreamDestroy_v2, stream);
    TRY("the context after that", cuCtxSynchronize);
}
AREA(capture_end_nowhere, "a capture that ends nowhere") {
    with_context();
    CUstream stream = new_stream();
    NEEDS(cuStreamBeginCapture_v2, stream, CU_STREAM_CAPTURE_MODE_RELAXED);
    TRY("end, nowhere to", cuStreamEndCapture, stream, nullptr);
    TRY("the stream after that", cuStreamSynchronize, stream);
}

static void each_in_a_capture(CUstreamCaptureMode mode) {
    static CUmodule module = with_kernels();
    static CUfunction nothing = kernel(module, "nothing");
    static CUstream stream = new_stream(), other = new_stream();
    static CUevent event = new_event(), outside = new_event();
    static CUdeviceptr at = some(4096), spare;
    static CUgraph graph;
    NEEDS(cuEventRecord, outside, other);
    NEEDS(cuCtxSynchronize);
    static std::string after;
    auto in = [&](const char *what, const std::function<int()> &call) {
        CUgraph made = nullptr;
        NEEDS(cuStreamBeginCapture_v2, stream, mode);
        tried(what, call);
        after = std::string(what) + ", end";
        tried(after.c_str(), [&] { return CALL(cuStreamEndCapture, stream, &made); });
        CALL(cuCtxSynchronize);
    };
    in("nothing", [] { return 0; });
    in("ask it", [] { return CALL(cuStreamQuery, stream); });
    in("wait for it", [] { return CALL(cuStreamSynchronize, stream); });
    in("wait for all", [] { return CALL(cuCtxSynchronize); });
    in("wait for another", [] { return CALL(cuStreamSynchronize, other); });
    in("ask another", [] { return CALL(cuStreamQuery, other); });
    in("the legacy stream", [] { return CALL(cuMemsetD8Async, at, 0, 16, nullptr); });
    in("allocate", [] { return CALL(cuMemAlloc_v2, &spare, 16); });
    in("free", [] { return CALL(cuMemFree_v2, NOWHERE); });
    in("pinned memory", [] {
        void *more;
        return CALL(cuMemHostAlloc, &more, 16, 0);
    });
    in("load a module", [] {
        CUmodule more;
        return CALL(cuModuleLoadData, &more, KERNELS);
    });
    in("make a stream", [] {
        CUstream more;
        return CALL(cuStreamCreate, &more, CU_STREAM_NON_BLOCKING);
    });
    in("make an event", [] {
        CUevent more;
        return CALL(cuEventCreate, &more, 0);
    });
    in("figures of memory", [] {
        size_t free, total;
        return CALL(cuMemGetInfo_v2, &free, &total);
    });
    in("a copy that waits", [] { return CALL(cuMemcpyHtoD_v2, at, own, 16); });
    in("a set that waits", [] { return CALL(cuMemsetD8_v2, at, 0, 16); });
    in("a copy past the end", [] { return CALL(cuMemcpyDtoDAsync_v2, at, at + 2048, 4096, stream); });
    in("a set of nothing", [] { return CALL(cuMemsetD8Async, at, 0, 0, stream); });
    in("a set at 0", [] { return CALL(cuMemsetD8Async, 0, 0, 16, stream); });
    in("a launch of no blocks", [] { return CALL(cuLaunchKernel, nothing, 0, 1, 1, 1, 1, 1, 0, stream, nullptr, nullptr); });
    in("a launch of 2048 threads", [] { return CALL(cuLaunchKernel, nothing, 1, 1, 1, 2048, 1, 1, 0, stream, nullptr, nullptr); });
    in("record and ask", [] {
        int code = CALL(cuEventRecord, event, stream);
        return code ? code : CALL(cuEventQuery, event);
    });
    in("record and wait", [] {
        int code = CALL(cuEventRecord, event, stream);
        return code ? code : CALL(cuEventSynchronize, event);
    });
    in("wait for what is outside", [] { return CALL(cuStreamWaitEvent, stream, outside, 0); });
    in("outside waits for an event in it", [] {
        int code = CALL(cuEventRecord, event, stream);
        return code ? code : CALL(cuStreamWaitEvent, other, event, 0);
    });
    // The other stream had joined.
    CALL(cuStreamEndCapture, other, &graph);
    in("a callback", [] { return CALL(cuStreamAddCallback, stream, [](CUstream, CUresult, void *) {}, nullptr, 0); });
    in("set a limit", [] { return CALL(cuCtxSetLimit, CU_LIMIT_STACK_SIZE, 1024); });
    in("end a graph that can be launched and is none", [] { return CALL(cuGraphExecDestroy, nullptr); });
    in("free in the order of the stream, nobody's", [] { return CALL(cuMemFreeAsync, NOWHERE, stream); });
}
AREA(capture_global, "in a capture, global") { each_in_a_capture(CU_STREAM_CAPTURE_MODE_GLOBAL); }
AREA(capture_thread, "in a capture, thread") { each_in_a_capture(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL); }
AREA(capture_relaxed, "in a capture, relaxed") { each_in_a_capture(CU_STREAM_CAPTURE_MODE_RELAXED); }
