// Graphs that cannot be.
#pragma once

static CUDA_KERNEL_NODE_PARAMS one_thread(CUfunction function) {
    CUDA_KERNEL_NODE_PARAMS what = {};
    what.func = function;
    what.gridDimX = what.gridDimY = what.gridDimZ = what.blockDimX = what.blockDimY = what.blockDimZ = 1;
    return what;
}
static CUgraph new_graph() {
    CUgraph graph;
    NEEDS(cuGraphCreate, &graph, 0);
    return graph;
}
static CUgraphNode empty(CUgraph graph) {
    CUgraphNode node;
    NEEDS(cuGraphAddEmptyNode, &node, graph, nullptr, 0);
    return node;
}

AREA(graph_nodes, "nodes of graphs") {
    CUfunction nothing = kernel(with_kernels(), "nothing");
    CUgraph graph = new_graph(), other = new_graph(), made;
    CUgraphNode node, first = empty(graph), theirs = empty(other);
    CUdeviceptr at = some(4096);
    size_t count;
    TRY("create with flags", cuGraphCreate, &made, 1);
    TRY("create, nowhere to", cuGraphCreate, nullptr, 0);
    CUDA_KERNEL_NODE_PARAMS right = one_thread(nothing), what = right;
    auto launch = [&](const char *name) { TRY(name, cuGraphAddKernelNode_v2, &node, graph, nullptr, 0, &what); };
    TRY("kernel: no description", cuGraphAddKernelNode_v2, &node, graph, nullptr, 0, nullptr);
    TRY("kernel: nowhere to", cuGraphAddKernelNode_v2, nullptr, graph, nullptr, 0, &right);
    TRY("kernel: no graph", cuGraphAddKernelNode_v2, &node, nullptr, nullptr, 0, &right);
    TRY("kernel: needs at nowhere", cuGraphAddKernelNode_v2, &node, graph, nullptr, 1, &right);
    TRY("kernel: needs another graph's", cuGraphAddKernelNode_v2, &node, graph, &theirs, 1, &right);
    CUgraphNode twice[2] = {first, first};
    TRY("kernel: needs one twice", cuGraphAddKernelNode_v2, &node, graph, twice, 2, &right);
    CUgraphNode none[1] = {nullptr};
    TRY("kernel: needs none", cuGraphAddKernelNode_v2, &node, graph, none, 1, &right);
    what.func = nullptr;
    launch("kernel: no function");
    what = right, what.gridDimX = 0;
    launch("kernel: no blocks");
    what = right, what.blockDimX = 2048;
    launch("kernel: 2048 threads");
    what = right, what.sharedMemBytes = 1 << 20;
    launch("kernel: a MiB of shared memory");
    CUDA_MEMSET_NODE_PARAMS set = {at, 64, 1, 1, 64, 4}, wrong = set;
    auto fill = [&](const char *name) { TRY(name, cuGraphAddMemsetNode, &node, graph, nullptr, 0, &wrong, context); };
    TRY("set: no description", cuGraphAddMemsetNode, &node, graph, nullptr, 0, nullptr, context);
    TRY("set: no context", cuGraphAddMemsetNode, &node, graph, nullptr, 0, &set, nullptr);
    wrong.elementSize = 3;
    fill("set: elements of 3 bytes");
    wrong = set, wrong.width = 0;
    fill("set: no width");
    wrong = set, wrong.height = 0;
    fill("set: no height");
    wrong = set, wrong.dst = 0;
    fill("set: at 0");
    wrong = set, wrong.dst = HOST;
    fill("set: host memory");
    wrong = set, wrong.width = 8192;
    fill("set: past the end");
    wrong = set, wrong.pitch = 16;
    fill("set: rows closer than wide");
    wrong = set, wrong.elementSize = 4, wrong.dst = at + 2;
    fill("set: within an element");
    CUDA_MEMCPY3D copy = {};
    TRY("copy: no description", cuGraphAddMemcpyNode, &node, graph, nullptr, 0, nullptr, context);
    TRY("copy: an empty description", cuGraphAddMemcpyNode, &node, graph, nullptr, 0, &copy, context);
    copy.srcMemoryType = CU_MEMORYTYPE_HOST, copy.srcHost = own;
    copy.dstMemoryType = CU_MEMORYTYPE_DEVICE, copy.dstDevice = at;
    copy.WidthInBytes = 8192, copy.Height = copy.Depth = 1;
    TRY("copy: past the end", cuGraphAddMemcpyNode, &node, graph, nullptr, 0, &copy, context);
    copy.WidthInBytes = 0;
    TRY("copy: nothing", cuGraphAddMemcpyNode, &node, graph, nullptr, 0, &copy, context);
    CUDA_HOST_NODE_PARAMS function = {};
    TRY("function: none", cuGraphAddHostNode, &node, graph, nullptr, 0, &function);
    TRY("child: itself", cuGraphAddChildGraphNode, &node, graph, nullptr, 0, graph);
    TRY("child: none", cuGraphAddChildGraphNode, &node, graph, nullptr, 0, nullptr);
    TRY("event: none", cuGraphAddEventRecordNode, &node, graph, nullptr, 0, nullptr);
    TRY("event to wait for: none", cuGraphAddEventWaitNode, &node, graph, nullptr, 0, nullptr);
    CUgraphNodeParams any = {};
    TRY("any: kernel of no function", cuGraphAddNode_v2, &node, graph, nullptr, nullptr, 0, &any);
    any.type = (CUgraphNodeType)99;
    TRY("any: of no kind", cuGraphAddNode_v2, &node, graph, nullptr, nullptr, 0, &any);
    TRY("any: no description", cuGraphAddNode_v2, &node, graph, nullptr, nullptr, 0, nullptr);
    TRY("how many, nowhere to", cuGraphGetNodes, graph, nullptr, nullptr);
    TRY("how many of none", cuGraphGetNodes, nullptr, nullptr, &count);
    CUgraphNodeType type;
    TRY("kind of none", cuGraphNodeGetType, nullptr, &type);
    TRY("kind, nowhere to", cuGraphNodeGetType, first, nullptr);
    TRY("kernel of an empty one", cuGraphKernelNodeGetParams_v2, first, &what);
    TRY("set a kernel of an empty one", cuGraphKernelNodeSetParams_v2, first, &right);
    TRY("child of an empty one", cuGraphChildGraphNodeGetGraph, first, &made);
    TRY("in a clone that is none", cuGraphNodeFindInClone, &node, first, other);
    TRY("clone none", cuGraphClone, &made, nullptr);
    TRY("clone, nowhere to", cuGraphClone, nullptr, graph);
    TRY("destroy no node", cuGraphDestroyNode, nullptr);
    TRY("destroy none", cuGraphDestroy, nullptr);
    TRY("draw to nowhere", cuGraphDebugDotPrint, graph, "/nowhere/at/all.dot", 0);
}

AREA(graph_edges, "edges of graphs") {
    with_context();
    CUgraph graph = new_graph(), other = new_graph();
    CUgraphNode one = empty(graph), two = empty(graph), theirs = empty(other), none = nullptr;
    CUgraphExec exec;
    auto join = [&](const char *what, CUgraphNode *from, CUgraphNode *to, size_t count = 1) {
        TRY(what, cuGraphAddDependencies_v2, graph, from, to, nullptr, count);
    };
    join("to itself", &one, &one);
    join("to another graph's", &one, &theirs);
    join("to none", &one, &none);
    join("nowhere", nullptr, nullptr);
    join("none", nullptr, nullptr, 0);
    join("as it should be", &one, &two);
    join("once more", &one, &two);
    CUgraphEdgeData data = {};
    data.type = 99;
    TRY("of kind 99", cuGraphAddDependencies_v2, graph, &one, &two, &data, 1);
    join("in a ring", &two, &one);
    TRY("instantiate a ring", cuGraphInstantiateWithFlags, &exec, graph, 0);
    TRY("take one away", cuGraphRemoveDependencies_v2, graph, &two, &one, nullptr, 1);
    TRY("take one away that is not there", cuGraphRemoveDependencies_v2, graph, &two, &one, nullptr, 1);
    size_t count = 0;
    TRY("how many, nowhere to", cuGraphGetEdges_v2, graph, nullptr, nullptr, nullptr, nullptr);
    TRY("how many", cuGraphGetEdges_v2, graph, nullptr, nullptr, nullptr, &count);
    TELL("so many", count);
    TRY("needs of none", cuGraphNodeGetDependencies_v2, nullptr, nullptr, nullptr, &count);
    TRY("roots, nowhere to", cuGraphGetRootNodes, graph, nullptr, nullptr);
}

AREA(graph_launches, "launches of graphs") {
    CUmodule module = with_kernels();
    CUfunction nothing = kernel(module, "nothing");
    CUgraph graph = new_graph(), longer = new_graph();
    CUgraphNode node, first = empty(graph);
    CUgraphExec exec, other;
    CUgraphExecUpdateResultInfo info = {};
    CUDA_KERNEL_NODE_PARAMS right = one_thread(nothing), what = right;
    NEEDS(cuGraphAddKernelNode_v2, &node, graph, nullptr, 0, &right);
    empty(longer);
    TRY("instantiate none", cuGraphInstantiateWithFlags, &exec, nullptr, 0);
    TRY("instantiate, nowhere to", cuGraphInstantiateWithFlags, nullptr, graph, 0);
    TRY("instantiate with flags of nobody", cuGraphInstantiateWithFlags, &exec, graph, 0x8000);
    TRY("instantiate with no description", cuGraphInstantiateWithParams, &exec, graph, nullptr);
    NEEDS(cuGraphInstantiateWithFlags, &exec, graph, 0);
    NEEDS(cuGraphInstantiateWithFlags, &other, longer, 0);
    CUstream stream = new_stream();
    TRY("launch none", cuGraphLaunch, nullptr, stream);
    TRY("upload none", cuGraphUpload, nullptr, stream);
    TRY("destroy none", cuGraphExecDestroy, nullptr);
    TRY("update with none", cuGraphExecUpdate_v2, exec, nullptr, &info);
    TRY("update of none", cuGraphExecUpdate_v2, nullptr, graph, &info);
    TRY("update, nowhere to tell", cuGraphExecUpdate_v2, exec, graph, nullptr);
    TRY("update with another", cuGraphExecUpdate_v2, exec, longer, &info);
    TELL("why not", info.result);
    TRY("set a node of another", cuGraphExecKernelNodeSetParams_v2, other, node, &right);
    TRY("set an empty node", cuGraphExecKernelNodeSetParams_v2, exec, first, &right);
    TRY("set no node", cuGraphExecKernelNodeSetParams_v2, exec, nullptr, &right);
    TRY("set to nothing", cuGraphExecKernelNodeSetParams_v2, exec, node, nullptr);
    what.blockDimX = 2048;
    TRY("set to 2048 threads", cuGraphExecKernelNodeSetParams_v2, exec, node, &what);
    what = right, what.func = nullptr;
    TRY("set to no function", cuGraphExecKernelNodeSetParams_v2, exec, node, &what);
    unsigned on = 1;
    TRY("is an empty node on", cuGraphNodeGetEnabled, exec, first, &on);
    TRY("turn an empty node off", cuGraphNodeSetEnabled, exec, first, 0);
    TRY("turn a node of another off", cuGraphNodeSetEnabled, other, node, 0);
    TRY("is it on, nowhere to", cuGraphNodeGetEnabled, exec, node, nullptr);
    cuuint64_t flags;
    TRY("flags, nowhere to", cuGraphExecGetFlags, exec, nullptr);
    TRY("flags of none", cuGraphExecGetFlags, nullptr, &flags);
    TRY("launch", cuGraphLaunch, exec, stream);
    TRY("the stream after that", cuStreamSynchronize, stream);
}
AREA(ended_graph, "a graph that has ended: destroy") {
    with_context();
    CUgraph graph = new_graph();
    NEEDS(cuGraphDestroy, graph);
    TRY("destroy", cuGraphDestroy, graph);
}
AREA(ended_graph_node, "a graph that has ended: its node") {
    with_context();
    CUgraph graph = new_graph();
    CUgraphNode node = empty(graph);
    CUgraphNodeType type;
    NEEDS(cuGraphDestroy, graph);
    TRY("kind", cuGraphNodeGetType, node, &type);
}
AREA(ended_node, "a node that has ended") {
    with_context();
    CUgraph graph = new_graph();
    CUgraphNode node = empty(graph);
    NEEDS(cuGraphDestroyNode, node);
    TRY("destroy", cuGraphDestroyNode, node);
}
AREA(ended_exec, "a graph to launch that has ended: launch") {
    with_context();
    CUgraph graph = new_graph();
    CUgraphExec exec;
    empty(graph);
    NEEDS(cuGraphInstantiateWithFlags, &exec, graph, 0);
    NEEDS(cuGraphExecDestroy, exec);
    TRY("launch", cuGraphLaunch, exec, new_stream());
}
AREA(ended_exec_destroy, "a graph to launch that has ended: destroy") {
    with_context();
    CUgraph graph = new_graph();
    CUgraphExec exec;
    empty(graph);
    NEEDS(cuGraphInstantiateWithFlags, &exec, graph, 0);
    NEEDS(cuGraphExecDestroy, exec);
    TRY("destroy", cuGraphExecDestroy, exec);
}
AREA(user_objects, "user objects") {
    CUuserObject object;
    with_context();
    CUgraph graph = new_graph();
    auto end = [](void *) {};
    TRY("without its flag", cuUserObjectCreate, &object, own, end, 1, 0);
    TRY("no count", cuUserObjectCreate, &object, own, end, 0, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC);
    TRY("no destructor", cuUserObjectCreate, &object, own, nullptr, 1, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC);
    TRY("nowhere to", cuUserObjectCreate, nullptr, own, end, 1, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC);
    TRY("retain none", cuUserObjectRetain, nullptr, 1);
    TRY("release none", cuUserObjectRelease, nullptr, 1);
    NEEDS(cuUserObjectCreate, &object, own, end, 2, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC);
    TRY("retain no count", cuUserObjectRetain, object, 0);
    TRY("retain far too many", cuUserObjectRetain, object, ~0u);
    TRY("release no count", cuUserObjectRelease, object, 0);
    TRY("a graph, no count", cuGraphRetainUserObject, graph, object, 0, 0);
    TRY("a graph, flags of nobody", cuGraphRetainUserObject, graph, object, 1, 0x80);
    TRY("no graph", cuGraphRetainUserObject, nullptr, object, 1, 0);
    TRY("a graph that has none", cuGraphReleaseUserObject, graph, object, 1);
}
