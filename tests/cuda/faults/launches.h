// Launches of every wrong shape.
#pragma once

static int shaped(const char *what, CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                  unsigned shared = 0) {
    return TRY(what, cuLaunchKernel, function, gx, gy, gz, bx, by, bz, shared, nullptr, nullptr, nullptr);
}

AREA(shapes, "shapes of launches") {
    CUmodule module = with_kernels();
    CUfunction nothing = kernel(module, "nothing"), fixed = kernel(module, "reqntid"), most = kernel(module, "maxntid");
    shaped("grid 0 wide", nothing, 0, 1, 1, 1, 1, 1);
    shaped("grid 0 high", nothing, 1, 0, 1, 1, 1, 1);
    shaped("grid 0 deep", nothing, 1, 1, 0, 1, 1, 1);
    shaped("block 0 wide", nothing, 1, 1, 1, 0, 1, 1);
    shaped("block 0 high", nothing, 1, 1, 1, 1, 0, 1);
    shaped("block 0 deep", nothing, 1, 1, 1, 1, 1, 0);
    shaped("block 1025 wide", nothing, 1, 1, 1, 1025, 1, 1);
    shaped("block 1025 high", nothing, 1, 1, 1, 1, 1025, 1);
    shaped("block 65 deep", nothing, 1, 1, 1, 1, 1, 65);
    shaped("block of 2048", nothing, 1, 1, 1, 32, 32, 2);
    shaped("block of all", nothing, 1, 1, 1, ~0u, ~0u, ~0u);
    shaped("block of 2 to the 32", nothing, 1, 1, 1, 1 << 16, 1 << 16, 1);
    shaped("grid 65536 high", nothing, 1, 65536, 1, 1, 1, 1);
    shaped("grid 65536 deep", nothing, 1, 1, 65536, 1, 1, 1);
    shaped("grid 2 to the 31 wide", nothing, 1u << 31, 1, 1, 1, 1, 1);
    shaped("grid of all", nothing, ~0u, ~0u, ~0u, 1, 1, 1);
    shaped("48 KiB and a byte of shared memory", nothing, 1, 1, 1, 1, 1, 1, 49153);
    shaped("a MiB of shared memory", nothing, 1, 1, 1, 1, 1, 1, 1 << 20);
    shaped("all shared memory", nothing, 1, 1, 1, 1, 1, 1, ~0u);
    shaped("another shape than required", fixed, 1, 1, 1, 64, 1, 1);
    shaped("more threads than declared", most, 1, 1, 1, 65, 1, 1);
    shaped("as many threads as declared", most, 1, 1, 1, 64, 1, 1);
    shaped("no function", nullptr, 1, 1, 1, 1, 1, 1);
    TRY("all of them behind us", cuCtxSynchronize);
}

AREA(parameters, "parameters of launches") {
    CUmodule module = with_kernels();
    CUfunction store = kernel(module, "store"), nothing = kernel(module, "nothing");
    CUdeviceptr at = some(64);
    void *words[] = {&at};
    size_t bytes = 8, one = 1, many = 4096, none = 0, all = ALL;
    void *packed[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &at, CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes, CU_LAUNCH_PARAM_END};
    unsigned char zero = 0;
    void *short_of[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &zero, CU_LAUNCH_PARAM_BUFFER_SIZE, &one, CU_LAUNCH_PARAM_END};
    void *empty[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &at, CU_LAUNCH_PARAM_BUFFER_SIZE, &none, CU_LAUNCH_PARAM_END};
    void *no_size[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &at, CU_LAUNCH_PARAM_END};
    void *no_buffer[] = {CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes, CU_LAUNCH_PARAM_END};
    void *strange[] = {(void *)9, &at, CU_LAUNCH_PARAM_END};
    void *only_end[] = {CU_LAUNCH_PARAM_END};
    static char page[4096];
    memcpy(page, &at, sizeof at);
    void *long_one[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, page, CU_LAUNCH_PARAM_BUFFER_SIZE, &many, CU_LAUNCH_PARAM_END};
    void *endless[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, page, CU_LAUNCH_PARAM_BUFFER_SIZE, &all, CU_LAUNCH_PARAM_END};
    auto launch = [&](const char *what, CUfunction function, void **parameters, void **extra) {
        TRY(what, cuLaunchKernel, function, 1, 1, 1, 1, 1, 1, 0, nullptr, parameters, extra);
    };
    launch("both forms", store, words, packed);
    launch("packed", store, nullptr, packed);
    // What is left out is zeros: the first word of what the launch gives.
    TRY("packed, too short", cuLaunchKernel, kernel(module, "shared"), 1, 1, 1, 1, 1, 1, 4, nullptr, nullptr, short_of);
    launch("packed, empty", store, nullptr, empty);
    launch("packed, longer", store, nullptr, long_one);
    launch("packed, no size", store, nullptr, no_size);
    launch("packed, no buffer", store, nullptr, no_buffer);
    launch("packed, a word of nobody", store, nullptr, strange);
    launch("packed, nothing", store, nullptr, only_end);
    launch("to a kernel without parameters", nothing, words, nullptr);
    launch("packed, to a kernel without parameters", nothing, nullptr, packed);
    TRY("all of them behind us", cuCtxSynchronize);
    launch("packed, endless", store, nullptr, endless);
    launch("none of one", store, nullptr, nullptr);
    void *nowhere[] = {nullptr};
    launch("one at nowhere", store, nowhere, nullptr);
}

AREA(attributes, "attributes of launches") {
    CUmodule module = with_kernels();
    CUfunction nothing = kernel(module, "nothing");
    CUlaunchAttribute attributes[2] = {};
    CUlaunchConfig config = {};
    config.gridDimX = config.gridDimY = config.gridDimZ = config.blockDimX = config.blockDimY = config.blockDimZ = 1;
    TRY("no shape", cuLaunchKernelEx, nullptr, nothing, nullptr, nullptr);
    config.numAttrs = 1;
    TRY("one at nowhere", cuLaunchKernelEx, &config, nothing, nullptr, nullptr);
    config.attrs = attributes;
    auto launch = [&](const char *what) { TRY(what, cuLaunchKernelEx, &config, nothing, nullptr, nullptr); };
    launch("one to ignore");
    attributes[0].id = (CUlaunchAttributeID)99;
    launch("one of nobody");
    attributes[0].id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    auto cluster = [&](const char *what, unsigned x, unsigned y, unsigned z, unsigned grid) {
        attributes[0].value.clusterDim = {x, y, z};
        config.gridDimX = grid;
        launch(what);
    };
    cluster("a cluster 0 wide", 0, 1, 1, 1);
    cluster("a cluster of one", 1, 1, 1, 1);
    cluster("a cluster wider than the grid", 2, 1, 1, 1);
    cluster("a cluster that does not divide the grid", 2, 1, 1, 3);
    cluster("a cluster of 9", 9, 1, 1, 9);
    cluster("a cluster of 16", 16, 1, 1, 16);
    cluster("a cluster of all", ~0u, ~0u, ~0u, 16);
    attributes[0] = {};
    config.gridDimX = 1;
    attributes[0].id = CU_LAUNCH_ATTRIBUTE_PRIORITY;
    attributes[0].value.priority = 1000;
    launch("priority 1000");
    attributes[0].id = CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE;
    attributes[0].value.clusterSchedulingPolicyPreference = (CUclusterSchedulingPolicy)99;
    launch("scheduling 99");
    attributes[0].id = CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN;
    attributes[0].value.memSyncDomain = (CUlaunchMemSyncDomain)99;
    launch("domain 99");
    attributes[0].id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE;
    attributes[0].value.cooperative = 1;
    launch("cooperative");
    config.gridDimX = 1 << 20;
    launch("cooperative, more blocks than fit");
    TRY("cooperative by its own call, more blocks than fit", cuLaunchCooperativeKernel, nothing, 1 << 20, 1, 1, 1, 1, 1, 0, nullptr, nullptr);
    TRY("cooperative, no function", cuLaunchCooperativeKernel, nullptr, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr);
    TRY("cooperative, grid 0 wide", cuLaunchCooperativeKernel, nothing, 0, 1, 1, 1, 1, 1, 0, nullptr, nullptr);
    config.gridDimX = 0;
    config.numAttrs = 0;
    launch("grid 0 wide");
    TRY("all of them behind us", cuCtxSynchronize);
}

AREA(functions, "functions") {
    CUmodule module = with_kernels(), its;
    CUfunction nothing = kernel(module, "nothing"), store = kernel(module, "store");
    int value = 0;
    size_t at, bytes;
    const char *name;
    CUfunctionLoadingState state;
    TRY("attribute 99", cuFuncGetAttribute, &value, (CUfunction_attribute)99, nothing);
    TRY("attribute -1", cuFuncGetAttribute, &value, (CUfunction_attribute)-1, nothing);
    TRY("attribute, nowhere to", cuFuncGetAttribute, nullptr, CU_FUNC_ATTRIBUTE_NUM_REGS, nothing);
    TRY("attribute of none", cuFuncGetAttribute, &value, CU_FUNC_ATTRIBUTE_NUM_REGS, nullptr);
    auto set = [&](const char *what, CUfunction_attribute which, int to) { TRY(what, cuFuncSetAttribute, nothing, which, to); };
    set("set attribute 99", (CUfunction_attribute)99, 1);
    set("set what is only read", CU_FUNC_ATTRIBUTE_NUM_REGS, 8);
    set("shared memory below 0", CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, -1);
    set("a MiB of shared memory", CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 1 << 20);
    set("a share of 101", CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 101);
    set("a share of -1", CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, -1);
    set("a share of -2", CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, -2);
    set("a required cluster of -1", CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH, -1);
    set("clusters that are not portable: 2", CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 2);
    set("scheduling 99", CU_FUNC_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE, 99);
    TRY("cache of no kind", cuFuncSetCacheConfig, nothing, (CUfunc_cache)99);
    TRY("cache of none", cuFuncSetCacheConfig, nullptr, CU_FUNC_CACHE_PREFER_L1);
    TRY("banks of no kind", cuFuncSetSharedMemConfig, nothing, (CUsharedconfig)99);
    TRY("module, nowhere to", cuFuncGetModule, nullptr, nothing);
    TRY("module of none", cuFuncGetModule, &its, nullptr);
    TRY("name, nowhere to", cuFuncGetName, nullptr, nothing);
    TRY("name of none", cuFuncGetName, &name, nullptr);
    TRY("a parameter of nothing", cuFuncGetParamInfo, nothing, 0, &at, &bytes);
    TRY("a parameter past the last", cuFuncGetParamInfo, store, 1, &at, &bytes);
    TRY("a parameter far past the last", cuFuncGetParamInfo, store, ALL, &at, &bytes);
    TRY("a parameter, nowhere to", cuFuncGetParamInfo, store, 0, nullptr, nullptr);
    TRY("loaded, none", cuFuncIsLoaded, &state, nullptr);
    TRY("loaded, nowhere to", cuFuncIsLoaded, nullptr, nothing);
    TRY("load none", cuFuncLoad, nullptr);
    TRY("old: block 0 wide", cuFuncSetBlockShape, nothing, 0, 1, 1);
    TRY("old: block of 2048", cuFuncSetBlockShape, nothing, 2048, 1, 1);
    TRY("old: parameters past all", cuParamSetSize, nothing, 1 << 30);
    TRY("old: a parameter before the first", cuParamSeti, nothing, -4, 1);
    TRY("old: shared memory of all", cuFuncSetSharedSize, nothing, ~0u);
    TRY("old: grid 0 wide", cuLaunchGrid, nothing, 0, 1);
}

AREA(occupancy, "occupancy") {
    CUmodule module = with_kernels();
    CUfunction nothing = kernel(module, "nothing");
    int value = 0, grid, block;
    size_t bytes;
    CUlaunchConfig config = {};
    auto blocks = [&](const char *what, int *to, CUfunction function, int threads, size_t shared) {
        TRY(what, cuOccupancyMaxActiveBlocksPerMultiprocessor, to, function, threads, shared);
    };
    blocks("nowhere to", nullptr, nothing, 32, 0);
    blocks("no function", &value, nullptr, 32, 0);
    blocks("no threads", &value, nothing, 0, 0);
    blocks("less than no threads", &value, nothing, -1, 0);
    value = -1;
    blocks("2048 threads", &value, nothing, 2048, 0);
    TELL("blocks of 2048 threads", value);
    value = -1;
    blocks("all shared memory", &value, nothing, 32, ALL);
    TELL("blocks with all shared memory", value);
    TRY("flags of nobody", cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags, &value, nothing, 32, 0, 99);
    TRY("a good block, nowhere to", cuOccupancyMaxPotentialBlockSize, nullptr, nullptr, nothing, nullptr, 0, 0);
    TRY("a good block of none", cuOccupancyMaxPotentialBlockSize, &grid, &block, nullptr, nullptr, 0, 0);
    TRY("a good block with all shared memory", cuOccupancyMaxPotentialBlockSize, &grid, &block, nothing, nullptr, ALL, 0);
    TRY("a good block below 0", cuOccupancyMaxPotentialBlockSize, &grid, &block, nothing, nullptr, 0, -1);
    TRY("a good block, flags of nobody", cuOccupancyMaxPotentialBlockSizeWithFlags, &grid, &block, nothing, nullptr, 0, 0, 99);
    TRY("shared memory, nowhere to", cuOccupancyAvailableDynamicSMemPerBlock, nullptr, nothing, 1, 32);
    TRY("shared memory of no blocks", cuOccupancyAvailableDynamicSMemPerBlock, &bytes, nothing, 0, 32);
    TRY("shared memory of no threads", cuOccupancyAvailableDynamicSMemPerBlock, &bytes, nothing, 1, 0);
    TRY("shared memory of many blocks", cuOccupancyAvailableDynamicSMemPerBlock, &bytes, nothing, 1000, 32);
    TRY("clusters of no shape", cuOccupancyMaxActiveClusters, &value, nothing, nullptr);
    TRY("clusters of an empty shape", cuOccupancyMaxActiveClusters, &value, nothing, &config);
    TRY("a cluster of no shape", cuOccupancyMaxPotentialClusterSize, &value, nothing, nullptr);
    TRY("a cluster of an empty shape", cuOccupancyMaxPotentialClusterSize, &value, nothing, &config);
    TRY("a cluster, nowhere to", cuOccupancyMaxPotentialClusterSize, nullptr, nothing, &config);
}
