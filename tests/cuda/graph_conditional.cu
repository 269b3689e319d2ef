// Conditional nodes of graphs: bodies that run by what kernels say, once, again and again, or one of several; filled node by node and by
// captures, one in another; instantiated again, and taken over by what was made of others. `graph_conditional answers` also prints what a driver
// says where CUDA's documents leave it open.
#include <cstring>
#include <vector>

#define PROGRAM "graph_conditional"
#include "check.h"
#include "runtime.h"

// With which code documents do not say.
#define REFUSED(call)                   \
    do {                                \
        ANSWERS(call);                  \
        expect(#call, answer != 0, 1);  \
    } while (0)

// words[0] counts rounds; the loop goes on while there are fewer than `rounds`.
__global__ void count(unsigned *words, cudaGraphConditionalHandle loop, unsigned rounds) {
    words[0]++;
    cudaGraphSetConditional(loop, words[0] < rounds);
}

// What is chosen is a word of the program's.
__global__ void choose(const unsigned *word, cudaGraphConditionalHandle handle) { cudaGraphSetConditional(handle, *word); }

// Every third round is told.
__global__ void third(const unsigned *words, cudaGraphConditionalHandle handle) { cudaGraphSetConditional(handle, words[0] % 3 == 0); }

__global__ void add(unsigned *word, unsigned value) { *word += value; }

static cudaGraphNode_t kernel(cudaGraph_t graph, std::vector<cudaGraphNode_t> needs, void *function, std::vector<void *> parameters) {
    cudaKernelNodeParams launch = {};
    cudaGraphNode_t node;
    launch.func = function, launch.gridDim = dim3(1), launch.blockDim = dim3(1), launch.kernelParams = parameters.data();
    MUST(cudaGraphAddKernelNode(&node, graph, needs.data(), needs.size(), &launch));
    return node;
}

static cudaGraphNode_t conditional(cudaGraph_t graph, std::vector<cudaGraphNode_t> needs, cudaGraphConditionalHandle handle,
                                   cudaGraphConditionalNodeType type, unsigned size, std::vector<cudaGraph_t> &bodies) {
    cudaGraphNodeParams params = {};
    cudaGraphNode_t node;
    params.type = cudaGraphNodeTypeConditional;
    params.conditional.handle = handle, params.conditional.type = type, params.conditional.size = size;
    MUST(cudaGraphAddNode(&node, graph, needs.data(), nullptr, needs.size(), &params));
    bodies.assign(params.conditional.phGraph_out, params.conditional.phGraph_out + size);
    return node;
}

struct Words {
    unsigned *device, host[8];
    Words() { MUST(cudaMalloc(&device, sizeof host)); }
    ~Words() { cudaFree(device); }
    void set(std::vector<unsigned> words) {
        words.resize(8);
        MUST(cudaMemcpy(device, words.data(), sizeof host, cudaMemcpyHostToDevice));
    }
    void is(const char *what, std::vector<unsigned> wanted) {
        MUST(cudaMemcpy(host, device, sizeof host, cudaMemcpyDeviceToHost));
        for (size_t i = 0; i < wanted.size(); i++) expect(what, host[i], wanted[i]);
    }
};

static void run(cudaGraphExec_t exec, cudaStream_t stream) {
    MUST(cudaGraphLaunch(exec, stream));
    MUST(cudaStreamSynchronize(stream));
}

// A loop whose body has a captured kernel, and another conditional node in it.
static void loops(cudaStream_t stream) {
    Words words;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaGraphConditionalHandle loop, inner;
    std::vector<cudaGraph_t> body, inside;
    unsigned *counted = words.device, *told = words.device + 1, *last = words.device + 2, rounds = 10, one = 1, seven = 7;
    MUST(cudaGraphCreate(&graph, 0));
    MUST(cudaGraphConditionalHandleCreate(&loop, graph, 1, cudaGraphCondAssignDefault));
    MUST(cudaGraphConditionalHandleCreate(&inner, graph, 0, cudaGraphCondAssignDefault));
    cudaGraphNode_t node = conditional(graph, {}, loop, cudaGraphCondTypeWhile, 1, body);
    kernel(graph, {node}, (void *)add, {&last, &seven});
    cudaGraphNode_t set = kernel(body[0], {}, (void *)count, {&counted, &loop, &rounds});
    set = kernel(body[0], {set}, (void *)third, {&counted, &inner});
    set = conditional(body[0], {set}, inner, cudaGraphCondTypeIf, 1, inside);
    kernel(inside[0], {}, (void *)add, {&told, &one});
    MUST(cudaStreamBeginCaptureToGraph(stream, body[0], &set, nullptr, 1, cudaStreamCaptureModeGlobal));
    add<<<1, 1, 0, stream>>>(words.device + 3, 2);
    MUST(cudaMemsetAsync(words.device + 4, 1, 4, stream));
    MUST(cudaStreamEndCapture(stream, &body[0]));
    MUST(cudaGraphInstantiate(&exec, graph, 0));
    for (int i = 0; i < 3; i++) {
        words.set({});
        run(exec, stream);
        words.is("rounds, told, after, captured", {10, 3, 7, 20, 0x01010101});
    }
    // A count that is at its end before runs one round.
    words.set({100});
    run(exec, stream);
    words.is("one round", {101, 0, 7, 2});
    MUST(cudaGraphDestroy(graph));
    words.set({8});
    run(exec, stream);
    words.is("after the graph's end", {10, 1, 7, 4});
    MUST(cudaGraphExecDestroy(exec));
}

// One of two bodies, one of three, none.
static void choices(cudaStream_t stream) {
    Words words;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaGraphConditionalHandle either, which;
    std::vector<cudaGraph_t> two, three;
    unsigned *chosen = words.device, *places[6], values[] = {1, 10, 100, 1000, 10000};
    for (int i = 0; i < 6; i++) places[i] = words.device + i;
    MUST(cudaGraphCreate(&graph, 0));
    MUST(cudaGraphConditionalHandleCreate(&either, graph));
    MUST(cudaGraphConditionalHandleCreate(&which, graph, 0, 0));
    cudaGraphNode_t first = kernel(graph, {}, (void *)choose, {&chosen, &either});
    cudaGraphNode_t second = kernel(graph, {first}, (void *)choose, {&chosen, &which});
    conditional(graph, {second}, either, cudaGraphCondTypeIf, 2, two);
    conditional(graph, {second}, which, cudaGraphCondTypeSwitch, 3, three);
    for (int i = 0; i < 2; i++) kernel(two[i], {}, (void *)add, {&places[1 + i], &values[i]});
    for (int i = 0; i < 3; i++) kernel(three[i], {}, (void *)add, {&places[3 + i], &values[2 + i]});
    MUST(cudaGraphInstantiate(&exec, graph, 0));
    const std::vector<unsigned> wanted[] = {{0, 0, 10, 100, 0, 0}, {1, 1, 0, 0, 1000, 0}, {2, 1, 0, 0, 0, 10000}, {3, 1, 0, 0, 0, 0}};
    for (unsigned value = 0; value < 4; value++) {
        words.set({value});
        run(exec, stream);
        words.is("either and which", wanted[value]);
    }
    MUST(cudaGraphExecDestroy(exec));
    MUST(cudaGraphDestroy(graph));
}

static void refusals() {
    cudaGraph_t graph, clone;
    cudaGraphExec_t exec, second;
    cudaGraphNode_t node;
    cudaGraphConditionalHandle handle;
    std::vector<cudaGraph_t> body;
    MUST(cudaGraphCreate(&graph, 0));
    REFUSED(cudaGraphConditionalHandleCreate(&handle, graph, 0, 2));
    MUST(cudaGraphConditionalHandleCreate(&handle, graph, 0, 0));
    cudaGraphNodeParams params = {};
    params.type = cudaGraphNodeTypeConditional;
    params.conditional.handle = handle, params.conditional.type = cudaGraphCondTypeWhile, params.conditional.size = 2;
    REFUSED(cudaGraphAddNode(&node, graph, nullptr, nullptr, 0, &params));
    ANSWERS(cudaGraphInstantiate(&exec, graph, 0));
    node = conditional(graph, {}, handle, cudaGraphCondTypeIf, 1, body);
    cudaGraphNodeType type;
    MUST(cudaGraphNodeGetType(node, &type));
    expect("the type of the node", type, cudaGraphNodeTypeConditional);
    REFUSED(cudaGraphClone(&clone, graph));
    ANSWERS(cudaGraphAddChildGraphNode(&node, graph, nullptr, 0, body[0]));
    ANSWERS(cudaGraphDestroy(body[0]));
    answer = (int)cudaGraphInstantiate(&exec, graph, 0);
    expect("instantiate", answer, 0);
    if (failures == 0) {
        // Only one may exist at any time.
        REFUSED(cudaGraphInstantiate(&second, graph, 0));
        MUST(cudaGraphExecDestroy(exec));
    }
    MUST(cudaGraphDestroy(graph));
}

// A loop of so many rounds if it begins at all; every third round `value` is told, as it is behind the loop.
struct Looped {
    cudaGraph_t graph;
    cudaGraphConditionalHandle loop, inner;
    cudaGraphNode_t counting;
    Looped(Words &words, unsigned rounds, unsigned begins, unsigned value, unsigned choices = 1, bool swapped = false) {
        std::vector<cudaGraph_t> body, inside;
        unsigned *counted = words.device, *told = words.device + 1, *last = words.device + 2;
        MUST(cudaGraphCreate(&graph, 0));
        if (swapped) MUST(cudaGraphConditionalHandleCreate(&inner, graph, 0, cudaGraphCondAssignDefault));
        MUST(cudaGraphConditionalHandleCreate(&loop, graph, begins, cudaGraphCondAssignDefault));
        if (!swapped) MUST(cudaGraphConditionalHandleCreate(&inner, graph, 0, cudaGraphCondAssignDefault));
        cudaGraphNode_t node = conditional(graph, {}, loop, cudaGraphCondTypeWhile, 1, body);
        kernel(graph, {node}, (void *)add, {&last, &value});
        counting = kernel(body[0], {}, (void *)count, {&counted, &loop, &rounds});
        node = kernel(body[0], {counting}, (void *)third, {&counted, &inner});
        conditional(body[0], {node}, inner, cudaGraphCondTypeIf, choices, inside);
        kernel(inside[0], {}, (void *)add, {&told, &value});
    }
    // The same loop with another number of rounds.
    void set(Words &words, unsigned rounds) {
        unsigned *counted = words.device;
        void *parameters[] = {&counted, &loop, &rounds};
        cudaKernelNodeParams launch = {};
        launch.func = (void *)count, launch.gridDim = dim3(1), launch.blockDim = dim3(1), launch.kernelParams = parameters;
        MUST(cudaGraphKernelNodeSetParams(counting, &launch));
    }
};

static void runs(const char *what, cudaGraphExec_t exec, Words &words, cudaStream_t stream, std::vector<unsigned> wanted) {
    words.set({});
    run(exec, stream);
    words.is(what, wanted);
}

// One at a time, as often as wanted.
static void again(cudaStream_t stream) {
    Words words;
    Looped looped(words, 6, 1, 5);
    cudaGraphExec_t exec, second;
    MUST(cudaGraphInstantiate(&exec, looped.graph, 0));
    runs("first made", exec, words, stream, {6, 10, 5});
    REFUSED(cudaGraphInstantiate(&second, looped.graph, 0));
    runs("still there", exec, words, stream, {6, 10, 5});
    for (unsigned rounds = 6; rounds < 12; rounds += 3) {
        MUST(cudaGraphExecDestroy(exec));
        looped.set(words, rounds);
        MUST(cudaGraphInstantiate(&exec, looped.graph, 0));
        for (int i = 0; i < 2; i++) runs("made again", exec, words, stream, {rounds, rounds / 3 * 5, 5});
    }
    // A node that was added since.
    MUST(cudaGraphExecDestroy(exec));
    unsigned *behind = words.device + 3, nine = 9;
    kernel(looped.graph, {}, (void *)add, {&behind, &nine});
    MUST(cudaGraphInstantiate(&exec, looped.graph, 0));
    runs("made with more", exec, words, stream, {9, 15, 5, 9});
    MUST(cudaGraphDestroy(looped.graph));
    runs("after the graph's end", exec, words, stream, {9, 15, 5, 9});
    MUST(cudaGraphExecDestroy(exec));
}

// Kernels and defaults of another graph of the same shape, whose numbers are its own.
static void updates(cudaStream_t stream) {
    Words words;
    Looped ten(words, 10, 1, 7), four(words, 4, 1, 2), none(words, 5, 0, 3), wider(words, 10, 1, 7, 2), swapped(words, 3, 1, 4, 1, true);
    cudaGraphExec_t exec, own;
    cudaGraphExecUpdateResultInfo info;
    MUST(cudaGraphInstantiate(&exec, ten.graph, 0));
    runs("ten rounds", exec, words, stream, {10, 21, 7});
    MUST(cudaGraphExecUpdate(exec, four.graph, &info));
    expect("what an update says", info.result, cudaGraphExecUpdateSuccess);
    for (int i = 0; i < 2; i++) runs("four rounds", exec, words, stream, {4, 2, 2});
    MUST(cudaGraphExecUpdate(exec, none.graph, &info));
    runs("a default of 0", exec, words, stream, {0, 0, 3});
    ten.set(words, 12);
    MUST(cudaGraphExecUpdate(exec, ten.graph, &info));
    runs("its own graph, changed", exec, words, stream, {12, 28, 7});
    REFUSED(cudaGraphExecUpdate(exec, wider.graph, &info));
    expect("it is a failure of the update", answer, cudaErrorGraphExecUpdateFailure);
    runs("what was not changed", exec, words, stream, {12, 28, 7});
    // Who gave it is as good as before.
    MUST(cudaGraphInstantiate(&own, four.graph, 0));
    runs("the other's own", own, words, stream, {4, 2, 2});
    runs("beside the other's own", exec, words, stream, {12, 28, 7});
    MUST(cudaGraphExecDestroy(own));
    if (tells) {
        printf("graph_conditional: numbers of two graphs: %llx %llx, %llx %llx\n", (unsigned long long)ten.loop,
               (unsigned long long)ten.inner, (unsigned long long)four.loop, (unsigned long long)four.inner);
        ANSWERS(cudaGraphExecUpdate(exec, swapped.graph, &info));
        MUST(cudaGraphExecUpdate(exec, four.graph, &info));
        ANSWERS(cudaGraphInstantiate(&own, four.graph, 0));
        if (!answer) MUST(cudaGraphExecDestroy(own));
    }
    MUST(cudaGraphExecUpdate(exec, four.graph, &info));
    if (tells) {
        MUST(cudaGraphDestroy(four.graph));
        words.set({});
        run(exec, stream);
        words.is("what an ended graph gave", {});
        printf("graph_conditional: when the graph that gave it has ended: %u, %u, %u\n", words.host[0], words.host[1], words.host[2]);
    } else {
        MUST(cudaGraphDestroy(four.graph));
    }
    for (cudaGraph_t graph : {ten.graph, none.graph, wider.graph, swapped.graph}) MUST(cudaGraphDestroy(graph));
    MUST(cudaGraphExecDestroy(exec));
}

int main(int argc, char **argv) {
    tells = argc > 1 && !strcmp(argv[1], "answers");
    cudaStream_t stream;
    MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    loops(stream);
    choices(stream);
    refusals();
    again(stream);
    updates(stream);
    if (failures) {
        printf("graph_conditional: failed, %d differences\n", failures);
        return 1;
    }
    printf("graph_conditional: ok, bodies ran as kernels said\n");
    return 0;
}
