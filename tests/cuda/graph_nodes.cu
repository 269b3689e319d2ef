// Graphs beyond `graphs`: copies with arrays and levels, single and captured, changed and updated; user objects that graphs own.
// `graph_nodes answers` also prints what a driver says where CUDA's documents leave it open.
#include <atomic>
#include <chrono>
#include <cstring>
#include <cuda.h>
#include <thread>
#include <vector>

#define PROGRAM "graph_nodes"
#include "check.h"
#include "runtime.h"

static const int WIDTH = 24, HEIGHT = 10, DEPTH = 3, COUNT = WIDTH * HEIGHT * DEPTH;

__global__ void twice(unsigned *data, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) data[i] *= 2;
}

static void run(cudaGraphExec_t exec, cudaStream_t stream) {
    MUST(cudaGraphLaunch(exec, stream));
    MUST(cudaStreamSynchronize(stream));
}

static void is(const char *what, const std::vector<unsigned> &got, unsigned factor, unsigned add) {
    long wrong = 0;
    for (size_t i = 0; i < got.size(); i++) wrong += got[i] != (unsigned)i * factor + add;
    expect(what, wrong, 0);
}

static cudaMemcpy3DParms box(cudaExtent extent, cudaMemcpyKind kind) {
    cudaMemcpy3DParms copy = {};
    copy.extent = extent, copy.kind = kind;
    return copy;
}

// Host to array to array to device memory, a kernel, and back by way of an array.
static void array_nodes(cudaStream_t stream) {
    cudaChannelFormatDesc word = cudaCreateChannelDesc<unsigned>();
    cudaExtent extent = make_cudaExtent(WIDTH, HEIGHT, DEPTH);
    cudaArray_t one, two;
    MUST(cudaMalloc3DArray(&one, &word, extent));
    MUST(cudaMalloc3DArray(&two, &word, extent));
    unsigned *device;
    MUST(cudaMalloc(&device, COUNT * 4));
    std::vector<unsigned> input(COUNT), output(COUNT);
    for (int i = 0; i < COUNT; i++) input[i] = i;
    auto rows = [](unsigned *at) { return make_cudaPitchedPtr(at, WIDTH * 4, WIDTH, HEIGHT); };

    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaGraphNode_t put, across, down, kernel, up, get;
    MUST(cudaGraphCreate(&graph, 0));
    cudaMemcpy3DParms copy = box(extent, cudaMemcpyHostToDevice);
    copy.srcPtr = rows(input.data()), copy.dstArray = one;
    MUST(cudaGraphAddMemcpyNode(&put, graph, nullptr, 0, &copy));
    copy = box(extent, cudaMemcpyDeviceToDevice);
    copy.srcArray = one, copy.dstArray = two;
    MUST(cudaGraphAddMemcpyNode(&across, graph, &put, 1, &copy));
    copy = box(extent, cudaMemcpyDeviceToDevice);
    copy.srcArray = two, copy.dstPtr = rows(device);
    MUST(cudaGraphAddMemcpyNode(&down, graph, &across, 1, &copy));
    int count = COUNT;
    void *parameters[] = {&device, &count};
    cudaKernelNodeParams launch = {};
    launch.func = (void *)twice, launch.gridDim = dim3((COUNT + 127) / 128), launch.blockDim = dim3(128);
    launch.kernelParams = parameters;
    MUST(cudaGraphAddKernelNode(&kernel, graph, &down, 1, &launch));
    copy = box(extent, cudaMemcpyDeviceToDevice);
    copy.srcPtr = rows(device), copy.dstArray = one;
    MUST(cudaGraphAddMemcpyNode(&up, graph, &kernel, 1, &copy));
    copy = box(extent, cudaMemcpyDeviceToHost);
    copy.srcArray = one, copy.dstPtr = rows(output.data());
    MUST(cudaGraphAddMemcpyNode(&get, graph, &up, 1, &copy));
    MUST(cudaGraphInstantiate(&exec, graph, 0));
    run(exec, stream);
    is("boxes through arrays", output, 2, 0);
    for (unsigned &each : input) each += 5;
    run(exec, stream);
    is("host memory of the launch", output, 2, 10);

    cudaMemcpy3DParms told = {};
    MUST(cudaGraphMemcpyNodeGetParams(across, &told));
    expect("the arrays of a node", told.srcArray == one && told.dstArray == two, 1);

    // Into the second array, and from there.
    cudaGraph_t clone;
    cudaGraphNode_t twin;
    cudaGraphExecUpdateResultInfo info;
    MUST(cudaGraphClone(&clone, graph));
    copy = box(extent, cudaMemcpyDeviceToDevice);
    copy.srcPtr = rows(device), copy.dstArray = two;
    MUST(cudaGraphNodeFindInClone(&twin, up, clone));
    MUST(cudaGraphMemcpyNodeSetParams(twin, &copy));
    copy = box(extent, cudaMemcpyDeviceToHost);
    copy.srcArray = two, copy.dstPtr = rows(output.data());
    MUST(cudaGraphNodeFindInClone(&twin, get, clone));
    MUST(cudaGraphMemcpyNodeSetParams(twin, &copy));
    std::fill(output.begin(), output.end(), 0);
    ANSWERS(cudaGraphExecUpdate(exec, clone, &info));
    cudaGraphExec_t changed;
    MUST(cudaGraphInstantiate(&changed, clone, 0));
    run(changed, stream);
    is("through the other array", output, 2, 10);

    // Another kind of memory.
    copy = box(extent, cudaMemcpyDeviceToDevice);
    copy.srcArray = one, copy.dstPtr = rows(device);
    MUST(cudaGraphMemcpyNodeSetParams(twin, &copy));
    GIVES(cudaErrorGraphExecUpdateFailure, cudaGraphExecUpdate(exec, clone, &info));
    copy = box(extent, cudaMemcpyDeviceToDevice);
    copy.srcArray = two, copy.dstArray = one;
    ANSWERS(cudaGraphExecMemcpyNodeSetParams(exec, across, &copy));
    MUST(cudaGraphExecDestroy(changed));
    MUST(cudaGraphExecDestroy(exec));
    MUST(cudaGraphDestroy(clone));
    MUST(cudaGraphDestroy(graph));
    MUST(cudaFree(device));
    MUST(cudaFreeArray(one));
    MUST(cudaFreeArray(two));
}

// What a stream copies to and from arrays and a level while it captures.
static void captured_arrays(cudaStream_t stream) {
    cudaChannelFormatDesc word = cudaCreateChannelDesc<unsigned>();
    cudaArray_t flat, level;
    cudaMipmappedArray_t levels;
    MUST(cudaMallocArray(&flat, &word, WIDTH, HEIGHT));
    MUST(cudaMallocMipmappedArray(&levels, &word, make_cudaExtent(WIDTH * 2, HEIGHT * 2, 0), 2));
    MUST(cudaGetMipmappedArrayLevel(&level, levels, 1));
    unsigned *pinned;
    MUST(cudaMallocHost(&pinned, WIDTH * HEIGHT * 4));
    std::vector<unsigned> input(WIDTH * HEIGHT), output(WIDTH * HEIGHT);
    for (size_t i = 0; i < input.size(); i++) input[i] = (unsigned)i * 3 + 1;
    const size_t pitch = WIDTH * 4;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    size_t nodes = 0;
    MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    MUST(cudaMemcpy2DToArrayAsync(flat, 0, 0, input.data(), pitch, pitch, HEIGHT, cudaMemcpyHostToDevice, stream));
    cudaMemcpy3DParms copy = box(make_cudaExtent(WIDTH, HEIGHT, 1), cudaMemcpyDeviceToDevice);
    copy.srcArray = flat, copy.dstArray = level;
    MUST(cudaMemcpy3DAsync(&copy, stream));
    MUST(cudaMemcpy2DFromArrayAsync(pinned, pitch, level, 0, 0, pitch, HEIGHT, cudaMemcpyDeviceToHost, stream));
    MUST(cudaMemcpy2DFromArrayAsync(output.data(), pitch, level, 0, 0, pitch, HEIGHT, cudaMemcpyDeviceToHost, stream));
    MUST(cudaStreamEndCapture(stream, &graph));
    MUST(cudaGraphGetNodes(graph, nullptr, &nodes));
    expect("nodes of captured copies", (long)nodes, 4);
    MUST(cudaGraphInstantiate(&exec, graph, 0));
    for (unsigned &each : input) each += 7;
    run(exec, stream);
    is("captured copies", output, 3, 8);
    is("captured copies to pinned memory", std::vector<unsigned>(pinned, pinned + WIDTH * HEIGHT), 3, 8);
    MUST(cudaGraphExecDestroy(exec));
    MUST(cudaGraphDestroy(graph));
    MUST(cudaFreeHost(pinned));
    MUST(cudaFreeMipmappedArray(levels));
    MUST(cudaFreeArray(flat));
}

static std::atomic<int> destroyed{0};
static void destroy(void *) { destroyed++; }

static void become(const char *what, int count) {
    for (int i = 0; i < 2000 && destroyed != count; i++) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    expect(what, destroyed, count);
}

// References of a graph, its copy and what was instantiated; of a captured graph, as who captures has it.
static void user_objects(cudaStream_t stream) {
    cudaUserObject_t object;
    cudaGraph_t graph, clone;
    cudaGraphExec_t exec;
    cudaGraphNode_t node;
    MUST(cudaGraphCreate(&graph, 0));
    MUST(cudaGraphAddEmptyNode(&node, graph, nullptr, 0));
    MUST(cudaUserObjectCreate(&object, nullptr, destroy, 1, cudaUserObjectNoDestructorSync));
    GIVES(cudaErrorInvalidValue, cudaGraphRetainUserObject(graph, object, 0, 0));
    MUST(cudaGraphRetainUserObject(graph, object, 1, cudaGraphUserObjectMove));
    MUST(cudaGraphClone(&clone, graph));
    MUST(cudaGraphInstantiate(&exec, clone, 0));
    MUST(cudaGraphDestroy(graph));
    MUST(cudaGraphDestroy(clone));
    MUST(cudaGraphLaunch(exec, stream));
    expect("what can be launched owns it", destroyed, 0);
    MUST(cudaGraphExecDestroy(exec));
    become("the last owner is gone", 1);

    cudaStreamCaptureStatus status;
    MUST(cudaUserObjectCreate(&object, nullptr, destroy, 2, cudaUserObjectNoDestructorSync));
    MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    MUST(cudaStreamGetCaptureInfo(stream, &status, nullptr, &graph));
    MUST(cudaGraphRetainUserObject(graph, object, 1, cudaGraphUserObjectMove));
    MUST(cudaStreamEndCapture(stream, &graph));
    MUST(cudaGraphReleaseUserObject(graph, object, 1));
    MUST(cudaUserObjectRelease(object, 1));
    become("nobody has any of two", 2);
    MUST(cudaGraphDestroy(graph));
}

int main(int argc, char **argv) {
    tells = argc > 1 && !strcmp(argv[1], "answers");
    cudaStream_t stream;
    MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    array_nodes(stream);
    captured_arrays(stream);
    user_objects(stream);
    if (failures) {
        printf("graph_nodes: failed, %d differences\n", failures);
        return 1;
    }
    printf("graph_nodes: ok, copies with arrays and user objects in graphs\n");
    return 0;
}
