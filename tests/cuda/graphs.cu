// Stream capture and graphs, by the runtime's API: what a graph computes against the CPU, what may not be done in a capture and
// which error says so. `graphs answers` also prints what the driver answers where CUDA's documents leave it open.
#include <cstring>
#include <cuda.h>
#include <thread>
#include <vector>

#define PROGRAM "graphs"
#include "check.h"
#include "runtime.h"

static const int COUNT = 1 << 12;

__global__ void scale(unsigned *data, unsigned factor, unsigned add) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    data[i] = data[i] * factor + add;
}

__global__ void sum(unsigned *out, const unsigned *a, const unsigned *b) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = a[i] + b[i];
}

struct Memory {
    unsigned *a, *b, *out;
    std::vector<unsigned> host;
    Memory() : host(COUNT) {
        MUST(cudaMalloc(&a, COUNT * 4));
        MUST(cudaMalloc(&b, COUNT * 4));
        MUST(cudaMalloc(&out, COUNT * 4));
    }
    // All words of `out`.
    void is(const char *what, unsigned wanted) {
        MUST(cudaMemcpy(host.data(), out, COUNT * 4, cudaMemcpyDeviceToHost));
        long wrong = 0;
        for (unsigned each : host) wrong += each != wanted;
        expect(what, wrong, 0);
    }
};

static dim3 grid(COUNT / 128), block(128);

// a = 3, b = 4 in another stream, a = a * 2 + 1, b = b * 5, out = a + b.
static void fork_and_join(Memory &m, cudaStream_t one, cudaStream_t two, cudaEvent_t fork, cudaEvent_t join) {
    MUST(cudaEventRecord(fork, one));
    MUST(cudaStreamWaitEvent(two, fork, 0));
    MUST(cudaMemsetAsync(m.a, 0, COUNT * 4, one));
    scale<<<grid, block, 0, one>>>(m.a, 0, 3);
    scale<<<grid, block, 0, one>>>(m.a, 2, 1);
    scale<<<grid, block, 0, two>>>(m.b, 0, 4);
    scale<<<grid, block, 0, two>>>(m.b, 5, 0);
    MUST(cudaEventRecord(join, two));
    MUST(cudaStreamWaitEvent(one, join, 0));
    sum<<<grid, block, 0, one>>>(m.out, m.a, m.b);
    MUST(cudaGetLastError());
}

static void captured(Memory &m, cudaStream_t one, cudaStream_t two) {
    cudaEvent_t fork, join;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaStreamCaptureStatus status;
    unsigned long long id = 0;
    size_t count = 0;
    MUST(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
    MUST(cudaEventCreateWithFlags(&join, cudaEventDisableTiming));
    MUST(cudaMemset(m.out, 0, COUNT * 4));
    MUST(cudaStreamBeginCapture(one, cudaStreamCaptureModeGlobal));
    fork_and_join(m, one, two, fork, join);
    MUST(cudaStreamIsCapturing(two, &status));
    expect("the other stream captures too", status, cudaStreamCaptureStatusActive);
    MUST(cudaStreamGetCaptureInfo(one, &status, &id));
    expect("a capture has an id", id != 0, 1);
    MUST(cudaStreamEndCapture(one, &graph));
    MUST(cudaGraphGetNodes(graph, nullptr, &count));
    expect("nodes", (long)count, 6);
    m.is("nothing has run", 0);
    MUST(cudaGraphInstantiate(&exec, graph, 0));
    MUST(cudaGraphDestroy(graph));
    for (int i = 0; i < 10; i++) MUST(cudaGraphLaunch(exec, one));
    MUST(cudaStreamSynchronize(one));
    m.is("what was captured", 3 * 2 + 1 + 4 * 5);

    // A launch is nothing that a capture can hold.
    MUST(cudaStreamBeginCapture(one, cudaStreamCaptureModeThreadLocal));
    GIVES(cudaErrorStreamCaptureUnsupported, cudaGraphLaunch(exec, one));
    GIVES(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(one, &graph));
    MUST(cudaGraphExecDestroy(exec));
    GIVES(cudaErrorInvalidValue, cudaEventQuery(fork));
    MUST(cudaEventDestroy(fork));
    MUST(cudaEventDestroy(join));
}

// Pinned memory: a graph's copies read and write it at each launch.
static void pinned(cudaStream_t stream, Memory &m) {
    unsigned *host;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    MUST(cudaMallocHost(&host, 2 * COUNT * 4));
    MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    MUST(cudaMemcpyAsync(m.out, host, COUNT * 4, cudaMemcpyHostToDevice, stream));
    scale<<<grid, block, 0, stream>>>(m.out, 3, 1);
    MUST(cudaMemcpyAsync(host + COUNT, m.out, COUNT * 4, cudaMemcpyDefault, stream));
    MUST(cudaStreamEndCapture(stream, &graph));
    MUST(cudaGraphInstantiate(&exec, graph, 0));
    MUST(cudaGraphDestroy(graph));
    for (unsigned round = 1; round <= 3; round++) {
        long wrong = 0;
        for (unsigned i = 0; i < COUNT; i++) host[i] = round * i;
        MUST(cudaGraphLaunch(exec, stream));
        MUST(cudaStreamSynchronize(stream));
        for (unsigned i = 0; i < COUNT; i++) wrong += host[COUNT + i] != round * i * 3 + 1;
        expect("pinned memory in a graph", wrong, 0);
    }
    MUST(cudaGraphExecDestroy(exec));
    MUST(cudaFreeHost(host));
}

// Functions of the program among kernels: each sees what came before it, and what comes after sees what it wrote.
struct Call {
    unsigned *word;
    std::vector<unsigned> seen;
};

static void take_turn(void *data) {
    Call &call = *(Call *)data;
    call.seen.push_back(*call.word);
    *call.word += 100;
}

static void take_other_turn(void *data) { *((Call *)data)->word += 1000; }

static void functions(cudaStream_t stream) {
    unsigned *word;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    MUST(cudaMallocHost(&word, COUNT * 4));
    Call call = {word, {}};
    MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    scale<<<grid, block, 0, stream>>>(word, 2, 0);
    MUST(cudaLaunchHostFunc(stream, take_turn, &call));
    scale<<<grid, block, 0, stream>>>(word, 1, 1);
    MUST(cudaLaunchHostFunc(stream, take_turn, &call));
    MUST(cudaStreamEndCapture(stream, &graph));
    MUST(cudaGraphInstantiate(&exec, graph, 0));
    *word = 5;
    MUST(cudaGraphLaunch(exec, stream));
    MUST(cudaGraphLaunch(exec, stream));
    MUST(cudaStreamSynchronize(stream));
    expect("functions in a graph", *word, ((5 * 2 + 201) * 2) + 201);
    expect("calls", (long)call.seen.size(), 4);
    expect("what the third saw", call.seen.size() > 2 ? call.seen[2] : 0, (5 * 2 + 201) * 2);

    // What is launched calls what it was made with; a launch that was queued also after all has ended.
    cudaGraphNode_t nodes[4], last;
    size_t count = 4;
    MUST(cudaGraphGetNodes(graph, nodes, &count));
    cudaHostNodeParams params = {};
    MUST(cudaGraphHostNodeGetParams(nodes[3], &params));
    expect("the function of a node", params.fn == take_turn && params.userData == &call, 1);
    params.fn = take_other_turn;
    MUST(cudaGraphExecHostNodeSetParams(exec, nodes[3], &params));
    MUST(cudaGraphAddHostNode(&last, graph, &nodes[3], 1, &params));
    *word = 5;
    MUST(cudaGraphLaunch(exec, stream));
    MUST(cudaGraphExecDestroy(exec));
    MUST(cudaGraphInstantiate(&exec, graph, 0));
    MUST(cudaGraphDestroy(graph));
    MUST(cudaGraphLaunch(exec, stream));
    MUST(cudaGraphExecDestroy(exec));
    MUST(cudaStreamSynchronize(stream));
    expect("other functions", *word, ((5 * 2 + 101 + 1000) * 2) + 201 + 1000);
    MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    GIVES(cudaErrorStreamCaptureUnsupported, cudaStreamAddCallback(
        stream, [](cudaStream_t, cudaError_t, void *) {}, nullptr, 0));
    GIVES(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(stream, &graph));
    MUST(cudaFreeHost(word));
}

// Memory that a graph allocates: captured, freed in it or not, by whom, and what may not be done with such a graph.
static void allocations(cudaStream_t stream, Memory &m) {
    unsigned *block_a, *block_b, *kept;
    cudaGraph_t graph, other, clone;
    cudaGraphExec_t exec, second;
    MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    MUST(cudaMallocAsync(&block_a, COUNT * 4, stream));
    MUST(cudaMemsetAsync(block_a, 0, COUNT * 4, stream));
    scale<<<grid, block, 0, stream>>>(block_a, 1, 6);
    MUST(cudaMallocAsync(&kept, COUNT * 4, stream));
    MUST(cudaMemcpyAsync(kept, block_a, COUNT * 4, cudaMemcpyDefault, stream));
    MUST(cudaFreeAsync(block_a, stream));
    GIVES(cudaErrorInvalidValue, cudaFreeAsync(block_a, stream));
    MUST(cudaMallocAsync(&block_b, COUNT * 4, stream));
    expect("an address that was freed before", block_a == block_b, 1);
    scale<<<grid, block, 0, stream>>>(kept, 7, 0);
    MUST(cudaMemcpyAsync(block_b, kept, COUNT * 4, cudaMemcpyDefault, stream));
    MUST(cudaMemcpyAsync(m.out, block_b, COUNT * 4, cudaMemcpyDeviceToDevice, stream));
    MUST(cudaFreeAsync(block_b, stream));
    MUST(cudaStreamEndCapture(stream, &graph));
    GIVES(cudaErrorInvalidValue, cudaMemset(kept, 0, 4));
    GIVES(cudaErrorInvalidValue, cudaFree(kept));
    GIVES(cudaErrorNotSupported, cudaGraphClone(&clone, graph));
    MUST(cudaGraphInstantiate(&exec, graph, 0));
    GIVES(cudaErrorNotSupported, cudaGraphInstantiate(&second, graph, 0));
    MUST(cudaMemset(m.out, 0, COUNT * 4));
    MUST(cudaGraphLaunch(exec, stream));
    MUST(cudaStreamSynchronize(stream));
    m.is("memory of a graph", 42);
    // What it left: there for all, and in the way of another launch.
    MUST(cudaMemcpy(m.out, kept, COUNT * 4, cudaMemcpyDeviceToDevice));
    m.is("what a graph did not free", 42);
    GIVES(cudaErrorInvalidValue, cudaGraphLaunch(exec, stream));
    MUST(cudaFreeAsync(kept, stream));
    MUST(cudaGraphLaunch(exec, stream));
    MUST(cudaGraphExecDestroy(exec));
    MUST(cudaMemcpy(m.out, kept, COUNT * 4, cudaMemcpyDeviceToDevice));
    m.is("what outlives that which was launched", 42);
    // A graph that frees it, and one that allocates it again and again.
    MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    scale<<<grid, block, 0, stream>>>(kept, 2, 0);
    MUST(cudaMemcpyAsync(m.out, kept, COUNT * 4, cudaMemcpyDeviceToDevice, stream));
    MUST(cudaFreeAsync(kept, stream));
    MUST(cudaStreamEndCapture(stream, &other));
    MUST(cudaGraphInstantiate(&second, other, 0));
    MUST(cudaGraphLaunch(second, stream));
    MUST(cudaStreamSynchronize(stream));
    m.is("memory that another graph frees", 84);
    GIVES(cudaErrorInvalidValue, cudaGraphLaunch(second, stream));
    MUST(cudaGraphInstantiate(&exec, graph, cudaGraphInstantiateFlagAutoFreeOnLaunch));
    for (int i = 0; i < 3; i++) MUST(cudaGraphLaunch(exec, stream));
    MUST(cudaGraphLaunch(second, stream));
    MUST(cudaStreamSynchronize(stream));
    m.is("after three launches that free first", 84);
    MUST(cudaGraphExecDestroy(exec));
    MUST(cudaGraphExecDestroy(second));
    MUST(cudaGraphDestroy(other));
    MUST(cudaGraphDestroy(graph));
    MUST(cudaDeviceGraphMemTrim(0));
    size_t held = 1;
    MUST(cudaDeviceGetGraphMemAttribute(0, cudaGraphMemAttrReservedMemCurrent, &held));
    expect("bytes that graphs hold in the end", (long)held, 0);

    // Single nodes.
    cudaGraphNode_t node, freed;
    cudaMemAllocNodeParams params = {};
    params.poolProps.allocType = cudaMemAllocationTypePinned;
    params.poolProps.location.type = cudaMemLocationTypeDevice;
    params.bytesize = 1 << 20;
    MUST(cudaGraphCreate(&graph, 0));
    MUST(cudaGraphAddMemAllocNode(&node, graph, nullptr, 0, &params));
    MUST(cudaGraphAddMemFreeNode(&freed, graph, &node, 1, params.dptr));
    GIVES(cudaErrorInvalidValue, cudaGraphAddMemFreeNode(&freed, graph, &node, 1, m.a));
    GIVES(cudaErrorNotSupported, cudaGraphDestroyNode(node));
    cudaMemAllocNodeParams told = {};
    MUST(cudaGraphMemAllocNodeGetParams(node, &told));
    expect("the bytes of a node", (long)told.bytesize, 1 << 20);
    expect("the address of a node", told.dptr == params.dptr, 1);
    params.bytesize = 0;
    GIVES(cudaErrorInvalidValue, cudaGraphAddMemAllocNode(&node, graph, nullptr, 0, &params));
    MUST(cudaGraphDestroy(graph));
}

// Words of memory, by the driver's API: written and waited for at each launch.
static void memory_operations(cudaStream_t stream, Memory &m) {
    CUresult (*write)(cudaStream_t, void *, unsigned, unsigned), (*wait)(cudaStream_t, void *, unsigned, unsigned);
    cudaDriverEntryPointQueryResult found;
    MUST(cudaGetDriverEntryPointByVersion("cuStreamWriteValue32", (void **)&write, 12000, cudaEnableDefault, &found));
    MUST(cudaGetDriverEntryPointByVersion("cuStreamWaitValue32", (void **)&wait, 12000, cudaEnableDefault, &found));
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    size_t count = 0;
    MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    scale<<<grid, block, 0, stream>>>(m.out, 0, 0);
    GIVES(0, write(stream, m.out, 7, 0));
    GIVES(0, wait(stream, m.out, 7, 1));
    scale<<<grid, block, 0, stream>>>(m.out, 2, 0);
    MUST(cudaStreamEndCapture(stream, &graph));
    MUST(cudaGraphGetNodes(graph, nullptr, &count));
    expect("nodes of kernels and words", (long)count, 4);
    MUST(cudaGraphInstantiate(&exec, graph, 0));
    MUST(cudaGraphLaunch(exec, stream));
    MUST(cudaGraphLaunch(exec, stream));
    MUST(cudaStreamSynchronize(stream));
    unsigned words[2];
    MUST(cudaMemcpy(words, m.out, 8, cudaMemcpyDeviceToHost));
    expect("a word that was written", words[0] * 10 + words[1], 140);
    MUST(cudaGraphExecDestroy(exec));
    MUST(cudaGraphDestroy(graph));
}

static cudaGraphNode_t kernel(cudaGraph_t graph, std::vector<cudaGraphNode_t> needs, void *function, void **parameters) {
    cudaKernelNodeParams params = {};
    params.func = function;
    params.gridDim = grid;
    params.blockDim = block;
    params.kernelParams = parameters;
    cudaGraphNode_t node;
    MUST(cudaGraphAddKernelNode(&node, graph, needs.data(), needs.size(), &params));
    return node;
}

static void single_nodes(Memory &m, cudaStream_t stream) {
    cudaGraph_t graph, clone;
    cudaGraphExec_t exec;
    cudaGraphNode_t read, set, write;
    std::vector<unsigned> input(COUNT, 10), output(COUNT, 0);
    MUST(cudaGraphCreate(&graph, 0));
    MUST(cudaGraphAddMemcpyNode1D(&read, graph, nullptr, 0, m.a, input.data(), COUNT * 4, cudaMemcpyHostToDevice));
    cudaMemsetParams fill = {};
    fill.dst = m.b;
    fill.value = 0x01010101;
    fill.elementSize = 4;
    fill.width = COUNT;
    fill.height = 1;
    MUST(cudaGraphAddMemsetNode(&set, graph, nullptr, 0, &fill));
    unsigned factor = 3, add = 1;
    void *scaled[] = {&m.a, &factor, &add}, *summed[] = {&m.out, &m.a, &m.b};
    cudaGraphNode_t first = kernel(graph, {read}, (void *)scale, scaled);
    cudaGraphNode_t last = kernel(graph, {first, set}, (void *)sum, summed);
    MUST(cudaGraphAddMemcpyNode1D(&write, graph, &last, 1, output.data(), m.out, COUNT * 4, cudaMemcpyDeviceToHost));
    MUST(cudaGraphInstantiate(&exec, graph, 0));
    const unsigned ones = 0x01010101;
    auto run = [&](const char *what, unsigned wanted) {
        MUST(cudaGraphLaunch(exec, stream));
        MUST(cudaStreamSynchronize(stream));
        long wrong = 0;
        for (unsigned each : output) wrong += each != wanted;
        expect(what, wrong, 0);
    };
    run("single nodes", 10 * 3 + 1 + ones);
    for (unsigned &each : input) each = 20;
    run("memory of the host at the launch", 20 * 3 + 1 + ones);

    cudaKernelNodeParams params;
    MUST(cudaGraphKernelNodeGetParams(first, &params));
    expect("a parameter that was given", *(unsigned *)params.kernelParams[1], 3);
    factor = 4;
    params.kernelParams = scaled;
    MUST(cudaGraphExecKernelNodeSetParams(exec, first, &params));
    run("another parameter", 20 * 4 + 1 + ones);
    fill.value = 7;
    MUST(cudaGraphExecMemsetNodeSetParams(exec, set, &fill));
    run("another set", 20 * 4 + 1 + 7);
    MUST(cudaGraphNodeSetEnabled(exec, first, 0));
    run("a node that is off", 20 + 7);
    MUST(cudaGraphNodeSetEnabled(exec, first, 1));

    // The graph as it was made, once more, by an update.
    cudaGraphExecUpdateResultInfo info;
    MUST(cudaGraphClone(&clone, graph));
    MUST(cudaGraphExecUpdate(exec, clone, &info));
    expect("an update", info.result, cudaGraphExecUpdateSuccess);
    run("updated", 20 * 3 + 1 + ones);
    cudaGraphNode_t more, twin;
    MUST(cudaGraphNodeFindInClone(&twin, write, clone));
    MUST(cudaGraphAddEmptyNode(&more, clone, &twin, 1));
    GIVES(cudaErrorGraphExecUpdateFailure, cudaGraphExecUpdate(exec, clone, &info));
    expect("why", info.result, cudaGraphExecUpdateErrorTopologyChanged);
    run("as before", 20 * 3 + 1 + ones);

    size_t nodes = 0, edges = 0, roots = 0;
    cudaGraphNodeType type;
    MUST(cudaGraphGetNodes(clone, nullptr, &nodes));
    MUST(cudaGraphGetEdges(clone, nullptr, nullptr, nullptr, &edges));
    MUST(cudaGraphGetRootNodes(clone, nullptr, &roots));
    MUST(cudaGraphNodeGetType(twin, &type));
    expect("nodes, edges, roots", (long)(nodes * 100 + edges * 10 + roots), 6 * 100 + 5 * 10 + 2);
    expect("the type of a copy", type, cudaGraphNodeTypeMemcpy);
    MUST(cudaGraphExecDestroy(exec));

    // A child graph, and rows apart.
    cudaGraph_t outer, inside;
    cudaGraphNode_t child, rows;
    MUST(cudaGraphCreate(&outer, 0));
    MUST(cudaGraphAddChildGraphNode(&child, outer, nullptr, 0, graph));
    MUST(cudaGraphChildGraphNodeGetGraph(child, &inside));
    cudaMemcpy3DParms copy = {};
    copy.srcPtr = make_cudaPitchedPtr(m.out, 256, 256, COUNT / 64);
    copy.dstPtr = make_cudaPitchedPtr(m.a, 256, 256, COUNT / 64);
    copy.extent = make_cudaExtent(128, COUNT / 64, 1);
    copy.kind = cudaMemcpyDeviceToDevice;
    MUST(cudaGraphAddMemcpyNode(&rows, outer, &child, 1, &copy));
    MUST(cudaGraphInstantiate(&exec, outer, 0));
    MUST(cudaGraphLaunch(exec, stream));
    MUST(cudaStreamSynchronize(stream));
    MUST(cudaMemcpy(m.host.data(), m.a, COUNT * 4, cudaMemcpyDeviceToHost));
    long wrong = 0;
    for (int i = 0; i < COUNT; i++) wrong += m.host[i] != 20 * 3 + 1 + (i % 64 < 32 ? ones : 0);
    expect("half rows after a child graph", wrong, 0);
    MUST(cudaGraphExecDestroy(exec));
    MUST(cudaGraphDestroy(outer));
    MUST(cudaGraphDestroy(clone));
    MUST(cudaGraphDestroy(graph));
}

static void refusals(Memory &m, cudaStream_t one, cudaStream_t two) {
    cudaGraph_t graph;
    cudaEvent_t event;
    cudaStream_t blocking;
    unsigned *more;
    MUST(cudaEventCreate(&event));
    MUST(cudaStreamCreate(&blocking));
    GIVES(cudaErrorStreamCaptureUnsupported, cudaStreamBeginCapture(cudaStreamLegacy, cudaStreamCaptureModeGlobal));
    GIVES(cudaErrorIllegalState, cudaStreamEndCapture(one, &graph));
    // A call that a replay would not repeat, and what it leaves.
    MUST(cudaStreamBeginCapture(one, cudaStreamCaptureModeGlobal));
    GIVES(cudaErrorStreamCaptureUnsupported, cudaMalloc(&more, 4096));
    GIVES(cudaErrorStreamCaptureInvalidated, cudaMemsetAsync(m.a, 0, 4, one));
    GIVES(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(one, &graph));
    expect("no graph", graph != nullptr, 0);
    // The same in another thread, and where the capture lets it.
    for (auto mode : {cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeRelaxed}) {
        int there = -1;
        MUST(cudaStreamBeginCapture(one, mode));
        std::thread([&] { there = cudaMalloc(&more, 4096); }).join();
        expect("an allocation by another thread", there, mode == cudaStreamCaptureModeGlobal ? 900 : 0);
        if (there == 0 && mode == cudaStreamCaptureModeRelaxed) GIVES(0, cudaFree(more));
        cudaStreamEndCapture(one, &graph);
        cudaGetLastError();
    }
    MUST(cudaStreamBeginCapture(one, cudaStreamCaptureModeRelaxed));
    GIVES(cudaErrorStreamCaptureUnsupported, cudaStreamSynchronize(one));
    GIVES(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(one, &graph));
    MUST(cudaStreamBeginCapture(one, cudaStreamCaptureModeRelaxed));
    GIVES(cudaErrorStreamCaptureUnsupported, cudaDeviceSynchronize());
    GIVES(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(one, &graph));
    // Dependencies that may not be.
    MUST(cudaEventRecord(event, two));
    MUST(cudaStreamBeginCapture(one, cudaStreamCaptureModeRelaxed));
    GIVES(cudaErrorStreamCaptureIsolation, cudaStreamWaitEvent(one, event, 0));
    GIVES(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(one, &graph));
    MUST(cudaStreamBeginCapture(one, cudaStreamCaptureModeRelaxed));
    MUST(cudaStreamBeginCapture(two, cudaStreamCaptureModeRelaxed));
    MUST(cudaEventRecord(event, one));
    GIVES(cudaErrorStreamCaptureMerge, cudaStreamWaitEvent(two, event, 0));
    GIVES(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(one, &graph));
    GIVES(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(two, &graph));
    MUST(cudaStreamBeginCapture(blocking, cudaStreamCaptureModeRelaxed));
    cudaStreamCaptureStatus status;
    GIVES(cudaErrorStreamCaptureImplicit, cudaStreamIsCapturing(cudaStreamLegacy, &status));
    GIVES(cudaErrorStreamCaptureImplicit, cudaMemsetAsync(m.a, 0, 4, cudaStreamLegacy));
    GIVES(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(blocking, &graph));
    // A fork that does not come back, an end in the wrong place.
    MUST(cudaStreamBeginCapture(one, cudaStreamCaptureModeRelaxed));
    MUST(cudaEventRecord(event, one));
    MUST(cudaStreamWaitEvent(two, event, 0));
    scale<<<grid, block, 0, two>>>(m.a, 1, 0);
    GIVES(cudaErrorStreamCaptureUnjoined, cudaStreamEndCapture(one, &graph));
    MUST(cudaStreamBeginCapture(one, cudaStreamCaptureModeRelaxed));
    MUST(cudaEventRecord(event, one));
    MUST(cudaStreamWaitEvent(two, event, 0));
    GIVES(cudaErrorStreamCaptureUnmatched, cudaStreamEndCapture(two, &graph));
    cudaStreamEndCapture(one, &graph);
    cudaGetLastError();
    MUST(cudaStreamBeginCapture(one, cudaStreamCaptureModeThreadLocal));
    int there = -1;
    std::thread([&] { there = cudaStreamEndCapture(one, &graph); }).join();
    expect("the end by another thread", there, cudaErrorStreamCaptureWrongThread);
    cudaStreamEndCapture(one, &graph);
    cudaGetLastError();
    MUST(cudaStreamDestroy(blocking));
    MUST(cudaEventDestroy(event));
    MUST(cudaDeviceSynchronize());
}

// What the driver takes for executable graphs of `nodes` kernels in `beside` rows.
static void memory_of(Memory &m, cudaStream_t stream, int nodes, int beside) {
    size_t before, made, launched, ended, total;
    std::vector<cudaGraphExec_t> kept(8);
    std::vector<cudaGraphNode_t> all;
    cudaGraph_t graph;
    unsigned factor = 1, add = 0;
    void *scaled[] = {&m.a, &factor, &add};
    if (beside > nodes) return;
    MUST(cudaGraphCreate(&graph, 0));
    for (int i = 0; i < nodes; i++) {
        std::vector<cudaGraphNode_t> needs;
        if (i >= beside) needs.push_back(all[i - beside]);
        all.push_back(kernel(graph, needs, (void *)scale, scaled));
    }
    MUST(cudaMemGetInfo(&before, &total));
    for (auto &exec : kept) MUST(cudaGraphInstantiate(&exec, graph, 0));
    MUST(cudaMemGetInfo(&made, &total));
    for (auto &exec : kept) MUST(cudaGraphLaunch(exec, stream));
    MUST(cudaDeviceSynchronize());
    MUST(cudaMemGetInfo(&launched, &total));
    for (auto &exec : kept) MUST(cudaGraphExecDestroy(exec));
    MUST(cudaGraphDestroy(graph));
    MUST(cudaDeviceSynchronize());
    MUST(cudaMemGetInfo(&ended, &total));
    printf("graphs answers: 8 graphs of %d nodes in %d rows: %zd bytes made, %zd launched, %zd kept\n", nodes, beside,
           (ssize_t)(before - made), (ssize_t)(before - launched), (ssize_t)(before - ended));
}

// What the documents leave open: printed, to be compared by hand.
static void answers(Memory &m, cudaStream_t one, cudaStream_t two) {
    cudaGraph_t graph;
    cudaEvent_t event, never;
    MUST(cudaEventCreate(&event));
    MUST(cudaEventCreate(&never));
    auto say = [](const char *what, int code) {
        printf("graphs answers: %s: %d\n", what, code);
        cudaGetLastError();
    };
    MUST(cudaStreamBeginCapture(one, cudaStreamCaptureModeRelaxed));
    say("begin again", cudaStreamBeginCapture(one, cudaStreamCaptureModeRelaxed));
    say("wait for an event that was never recorded", cudaStreamWaitEvent(one, never, 0));
    say("end", cudaStreamEndCapture(one, &graph));
    MUST(cudaStreamBeginCapture(one, cudaStreamCaptureModeRelaxed));
    MUST(cudaEventRecord(event, one));
    say("ask a captured event", cudaEventQuery(event));
    say("end", cudaStreamEndCapture(one, &graph));
    say("wait for an event of a capture that has ended", cudaStreamWaitEvent(two, event, 0));
    MUST(cudaStreamBeginCapture(one, cudaStreamCaptureModeRelaxed));
    MUST(cudaEventRecord(event, one));
    MUST(cudaStreamWaitEvent(two, event, 0));
    say("end with a stream that joined and did nothing", cudaStreamEndCapture(one, &graph));
    MUST(cudaStreamBeginCapture(one, cudaStreamCaptureModeGlobal));
    say("a pageable copy to the device", cudaMemcpyAsync(m.a, m.host.data(), 4, cudaMemcpyHostToDevice, one));
    say("a pageable copy to the host", cudaMemcpyAsync(m.host.data(), m.a, 4, cudaMemcpyDeviceToHost, one));
    say("ask another stream", cudaStreamQuery(two));
    say("end", cudaStreamEndCapture(one, &graph));
    MUST(cudaStreamBeginCapture(one, cudaStreamCaptureModeGlobal));
    say("free", cudaFree(m.b));
    say("end", cudaStreamEndCapture(one, &graph));
    unsigned *host;
    MUST(cudaMallocHost(&host, 64));
    MUST(cudaStreamBeginCapture(one, cudaStreamCaptureModeGlobal));
    say("a set of pinned memory", cudaMemsetAsync(host, 1, 64, one));
    say("end", cudaStreamEndCapture(one, &graph));
    cudaGraphExec_t sets;
    say("instantiate it", cudaGraphInstantiate(&sets, graph, 0));
    for (auto mode : {cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeRelaxed}) {
        printf("graphs answers: mode %d\n", (int)mode);
        for (cudaStream_t stream : {one, two}) {
            MUST(cudaStreamBeginCapture(one, mode));
            say(stream == one ? "launch a graph" : "launch a graph in another stream", cudaGraphLaunch(sets, stream));
            say("end", cudaStreamEndCapture(one, &graph));
        }
    }
    for (int nodes : {1, 16, 500, 4000})
        for (int beside : {1, 4, 500}) memory_of(m, one, nodes, beside);
}

int main(int argc, char **argv) {
    cudaStream_t one, two;
    Memory m;
    MUST(cudaStreamCreateWithFlags(&one, cudaStreamNonBlocking));
    MUST(cudaStreamCreateWithFlags(&two, cudaStreamNonBlocking));
    captured(m, one, two);
    single_nodes(m, one);
    pinned(one, m);
    functions(one);
    allocations(one, m);
    memory_operations(one, m);
    refusals(m, one, two);
    if (argc > 1 && strcmp(argv[1], "answers") == 0) answers(m, one, two);
    printf("graphs: %s, %d wrong\n", failures ? "failed" : "ok", failures);
    return failures ? 1 : 0;
}
