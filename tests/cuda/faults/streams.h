// Streams and events.
#pragma once

AREA(streams, "streams") {
    CUstream stream;
    CUcontext its;
    CUdevice which;
    int priority = 0;
    unsigned flags;
    unsigned long long id = 0;
    with_context();
    TRY("flags of nobody", cuStreamCreate, &stream, 0x80);
    TRY("nowhere to", cuStreamCreate, nullptr, 0);
    TRY("with a priority, nowhere to", cuStreamCreateWithPriority, nullptr, 0, 0);
    TRY("with a priority, flags of nobody", cuStreamCreateWithPriority, &stream, 0x80, 0);
    TRY("a priority far too high", cuStreamCreateWithPriority, &stream, 0, -1000);
    TRY("ask for it", cuStreamGetPriority, stream, &priority);
    TELL("what it became", priority);
    TRY("a priority far too low", cuStreamCreateWithPriority, &stream, 0, 1000);
    TRY("ask for the low one", cuStreamGetPriority, stream, &priority);
    TELL("what the low one became", priority);
    TRY("priority, nowhere to", cuStreamGetPriority, stream, nullptr);
    TRY("flags, nowhere to", cuStreamGetFlags, stream, nullptr);
    TRY("context, nowhere to", cuStreamGetCtx, stream, nullptr);
    TRY("device, nowhere to", cuStreamGetDevice, stream, nullptr);
    TRY("number, nowhere to", cuStreamGetId, stream, nullptr);
    TRY("number of the legacy stream", cuStreamGetId, CU_STREAM_LEGACY, &id);
    TELL("the legacy stream's", id);
    TRY("number of the stream of NULL", cuStreamGetId, nullptr, &id);
    TELL("NULL's", id);
    TRY("number of the thread's stream", cuStreamGetId, CU_STREAM_PER_THREAD, &id);
    TRY("flags of the legacy stream", cuStreamGetFlags, nullptr, &flags);
    TELL("the legacy stream's flags", flags);
    TRY("priority of the legacy stream", cuStreamGetPriority, nullptr, &priority);
    TELL("the legacy stream's priority", priority);
    TRY("context of the legacy stream", cuStreamGetCtx, nullptr, &its);
    TRY("device of the legacy stream", cuStreamGetDevice, nullptr, &which);
    TRY("destroy none", cuStreamDestroy_v2, nullptr);
    TRY("destroy the legacy stream", cuStreamDestroy_v2, CU_STREAM_LEGACY);
    TRY("destroy the thread's stream", cuStreamDestroy_v2, CU_STREAM_PER_THREAD);
    TRY("wait for no event", cuStreamWaitEvent, stream, nullptr, 0);
    CUevent event = new_event();
    TRY("wait with flags of nobody", cuStreamWaitEvent, stream, event, 0x80);
    TRY("wait for an event that was never recorded", cuStreamWaitEvent, stream, event, 0);
    TRY("attach memory with flags of nobody", cuStreamAttachMemAsync, stream, some(16), 0, 0x80);
    TRY("attach memory that is not managed", cuStreamAttachMemAsync, stream, some(16), 0, CU_MEM_ATTACH_SINGLE);
    TRY("a function that is none", cuLaunchHostFunc, stream, nullptr, nullptr);
    TRY("a callback that is none", cuStreamAddCallback, stream, nullptr, nullptr, 0);
    TRY("a callback with flags", cuStreamAddCallback, stream, [](CUstream, CUresult, void *) {}, nullptr, 1);
    TRY("a second end", cuStreamDestroy_v2, stream);
}

AREA(stream_attributes, "attributes of streams") {
    CUstreamAttrValue value = {};
    with_context();
    CUstream stream = new_stream(), other = new_stream();
    TRY("get one of nobody", cuStreamGetAttribute, stream, (CUstreamAttrID)99, &value);
    TRY("set one of nobody", cuStreamSetAttribute, stream, (CUstreamAttrID)99, &value);
    TRY("get 0", cuStreamGetAttribute, stream, (CUstreamAttrID)0, &value);
    TRY("get one of launches", cuStreamGetAttribute, stream, (CUstreamAttrID)CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, &value);
    TRY("set one of launches", cuStreamSetAttribute, stream, (CUstreamAttrID)CU_LAUNCH_ATTRIBUTE_COOPERATIVE, &value);
    TRY("get, nowhere to", cuStreamGetAttribute, stream, CU_STREAM_ATTRIBUTE_PRIORITY, nullptr);
    TRY("set to nothing", cuStreamSetAttribute, stream, CU_STREAM_ATTRIBUTE_PRIORITY, nullptr);
    value.syncPolicy = (CUsynchronizationPolicy)-1;
    TRY("synchronization policy -1", cuStreamSetAttribute, stream, CU_STREAM_ATTRIBUTE_SYNCHRONIZATION_POLICY, &value);
    value.syncPolicy = (CUsynchronizationPolicy)99;
    TRY("synchronization policy 99", cuStreamSetAttribute, stream, CU_STREAM_ATTRIBUTE_SYNCHRONIZATION_POLICY, &value);
    value.syncPolicy = (CUsynchronizationPolicy)0;
    TRY("synchronization policy 0", cuStreamSetAttribute, stream, CU_STREAM_ATTRIBUTE_SYNCHRONIZATION_POLICY, &value);
    TRY("synchronization policy", cuStreamGetAttribute, stream, CU_STREAM_ATTRIBUTE_SYNCHRONIZATION_POLICY, &value);
    TELL("what it is", value.syncPolicy);
    memset(&value, 0, sizeof value);
    value.priority = 99;
    TRY("priority 99", cuStreamSetAttribute, stream, CU_STREAM_ATTRIBUTE_PRIORITY, &value);
    value.memSyncDomain = (CUlaunchMemSyncDomain)99;
    TRY("domain 99", cuStreamSetAttribute, stream, CU_STREAM_ATTRIBUTE_MEM_SYNC_DOMAIN, &value);
    memset(&value, 0, sizeof value);
    value.accessPolicyWindow.num_bytes = ALL;
    TRY("a window of all bytes", cuStreamSetAttribute, stream, CU_STREAM_ATTRIBUTE_ACCESS_POLICY_WINDOW, &value);
    value.accessPolicyWindow.num_bytes = 16;
    value.accessPolicyWindow.hitRatio = 2;
    TRY("a ratio of 2", cuStreamSetAttribute, stream, CU_STREAM_ATTRIBUTE_ACCESS_POLICY_WINDOW, &value);
    TRY("copy to the same", cuStreamCopyAttributes, stream, stream);
    TRY("copy", cuStreamCopyAttributes, stream, other);
    TRY("copy from the legacy stream", cuStreamCopyAttributes, stream, nullptr);
}

AREA(stream_memory, "words of streams") {
    with_context();
    CUstream stream = new_stream();
    CUdeviceptr word = some(64);
    CUstreamBatchMemOpParams ops[2] = {};
    TRY("write to nowhere", cuStreamWriteValue32_v2, stream, 0, 1, 0);
    TRY("write within a word", cuStreamWriteValue32_v2, stream, word + 2, 1, 0);
    TRY("write within 64 bits", cuStreamWriteValue64_v2, stream, word + 4, 1, 0);
    TRY("write with flags of nobody", cuStreamWriteValue32_v2, stream, word, 1, 0x80);
    TRY("write past the end", cuStreamWriteValue32_v2, stream, word + (64 << 20), 1, 0);
    TRY("write to host memory", cuStreamWriteValue32_v2, stream, HOST, 1, 0);
    TRY("wait at nowhere", cuStreamWaitValue32_v2, stream, 0, 0, CU_STREAM_WAIT_VALUE_EQ);
    TRY("wait within a word", cuStreamWaitValue32_v2, stream, word + 2, 0, CU_STREAM_WAIT_VALUE_GEQ);
    TRY("wait with flags of nobody", cuStreamWaitValue32_v2, stream, word, 0, 0x80);
    TRY("wait at host memory", cuStreamWaitValue32_v2, stream, HOST, 0, CU_STREAM_WAIT_VALUE_GEQ);
    TRY("a batch of none", cuStreamBatchMemOp_v2, stream, 0, ops, 0);
    TRY("a batch of nothing", cuStreamBatchMemOp_v2, stream, 1, nullptr, 0);
    ops[0].operation = (CUstreamBatchMemOpType)99;
    TRY("a batch of no kind", cuStreamBatchMemOp_v2, stream, 1, ops, 0);
    ops[0].operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    ops[0].writeValue.address = word;
    TRY("a batch with flags", cuStreamBatchMemOp_v2, stream, 1, ops, 1);
    ops[1] = ops[0];
    ops[1].writeValue.address = 0;
    TRY("a batch whose second is wrong", cuStreamBatchMemOp_v2, stream, 2, ops, 0);
    TRY("far too many", cuStreamBatchMemOp_v2, stream, 1 << 30, ops, 0);
    TRY("the stream after that", cuStreamSynchronize, stream);
}

AREA(events, "events") {
    CUevent event, untimed, between;
    float milliseconds;
    with_context();
    TRY("flags of nobody", cuEventCreate, &event, 0x80);
    TRY("for processes, with times", cuEventCreate, &event, CU_EVENT_INTERPROCESS);
    TRY("nowhere to", cuEventCreate, nullptr, 0);
    TRY("destroy none", cuEventDestroy_v2, nullptr);
    TRY("record none", cuEventRecord, nullptr, nullptr);
    TRY("ask none", cuEventQuery, nullptr);
    TRY("wait for none", cuEventSynchronize, nullptr);
    NEEDS(cuEventCreate, &event, 0);
    NEEDS(cuEventCreate, &between, 0);
    NEEDS(cuEventCreate, &untimed, CU_EVENT_DISABLE_TIMING);
    TRY("ask one that was never recorded", cuEventQuery, event);
    TRY("wait for one that was never recorded", cuEventSynchronize, event);
    TRY("time from one that was never recorded", cuEventElapsedTime_v2, &milliseconds, event, between);
    NEEDS(cuEventRecord, event, nullptr);
    NEEDS(cuEventRecord, untimed, nullptr);
    NEEDS(cuCtxSynchronize);
    TRY("time to one that was never recorded", cuEventElapsedTime_v2, &milliseconds, event, between);
    TRY("time to one without times", cuEventElapsedTime_v2, &milliseconds, event, untimed);
    TRY("time from none", cuEventElapsedTime_v2, &milliseconds, nullptr, event);
    TRY("time, nowhere to", cuEventElapsedTime_v2, nullptr, event, event);
    TRY("time to itself", cuEventElapsedTime_v2, &milliseconds, event, event);
    TRY("record with flags of nobody", cuEventRecordWithFlags, event, nullptr, 0x80);
    TRY("record as external, no capture", cuEventRecordWithFlags, event, nullptr, CU_EVENT_RECORD_EXTERNAL);
    CUipcEventHandle handle;
    TRY("name of one for this process", cuIpcGetEventHandle, &handle, event);
    TRY("name, nowhere to", cuIpcGetEventHandle, nullptr, event);
}

static CUstream ended_stream() {
    with_context();
    CUstream stream = new_stream();
    NEEDS(cuStreamDestroy_v2, stream);
    return stream;
}
AREA(ended_stream_sync, "a stream that has ended: synchronize") { TRY("synchronize", cuStreamSynchronize, ended_stream()); }
AREA(ended_stream_query, "a stream that has ended: query") { TRY("query", cuStreamQuery, ended_stream()); }
AREA(ended_stream_destroy, "a stream that has ended: destroy") { TRY("destroy", cuStreamDestroy_v2, ended_stream()); }
AREA(ended_stream_set, "a stream that has ended: set memory") {
    CUstream stream = ended_stream();
    TRY("set", cuMemsetD8Async, some(16), 0, 16, stream);
}
AREA(ended_stream_launch, "a stream that has ended: launch") {
    CUfunction function = kernel(with_kernels(), "nothing");
    TRY("launch", cuLaunchKernel, function, 1, 1, 1, 1, 1, 1, 0, ended_stream(), nullptr, nullptr);
}
static CUevent ended_event() {
    with_context();
    CUevent event = new_event();
    NEEDS(cuEventDestroy_v2, event);
    return event;
}
AREA(ended_event_query, "an event that has ended: query") { TRY("query", cuEventQuery, ended_event()); }
AREA(ended_event_sync, "an event that has ended: synchronize") { TRY("synchronize", cuEventSynchronize, ended_event()); }
AREA(ended_event_record, "an event that has ended: record") { TRY("record", cuEventRecord, ended_event(), nullptr); }
AREA(ended_event_wait, "an event that has ended: wait") { TRY("wait", cuStreamWaitEvent, nullptr, ended_event(), 0); }
AREA(ended_event_destroy, "an event that has ended: destroy") { TRY("destroy", cuEventDestroy_v2, ended_event()); }
AREA(event_as_stream, "an event as a stream") {
    with_context();
    TRY("synchronize", cuStreamSynchronize, (CUstream)new_event());
}
AREA(stream_as_event, "a stream as an event") {
    with_context();
    TRY("query", cuEventQuery, (CUevent)new_stream());
}
AREA(function_as_stream, "a function as a stream") {
    CUfunction function = kernel(with_kernels(), "nothing");
    TRY("launch", cuLaunchKernel, function, 1, 1, 1, 1, 1, 1, 0, (CUstream)function, nullptr, nullptr);
}
