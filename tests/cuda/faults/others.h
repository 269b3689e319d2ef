// The linker, names between processes, tensor maps, functions by name.
#pragma once

AREA(linker, "the linker") {
    CUlinkState linker = nullptr;
    void *image = nullptr, *value = (void *)99;
    size_t bytes;
    CUjit_option option = (CUjit_option)999;
    with_context();
    TRY("nowhere to", cuLinkCreate_v2, 0, nullptr, nullptr, nullptr);
    TRY("options at nowhere", cuLinkCreate_v2, 1, nullptr, nullptr, &linker);
    TRY("an option of nobody", cuLinkCreate_v2, 1, &option, &value, &linker);
    TRY("destroy none", cuLinkDestroy, nullptr);
    NEEDS(cuLinkCreate_v2, 0, nullptr, nullptr, &linker);
    auto add = [&](const char *what, int kind, const char *text, size_t size) {
        TRY(what, cuLinkAddData_v2, linker, (CUjitInputType)kind, (void *)text, size, "it", 0, nullptr, nullptr);
    };
    add("of kind 99", 99, KERNELS, sizeof KERNELS);
    add("nothing", CU_JIT_INPUT_PTX, nullptr, 0);
    add("no bytes", CU_JIT_INPUT_PTX, KERNELS, 0);
    add("rubbish as PTX", CU_JIT_INPUT_PTX, "rubbish", 8);
    add("rubbish as machine code", CU_JIT_INPUT_CUBIN, "rubbish and more of it, and more, and more, and more, and more", 63);
    add("rubbish as a library", CU_JIT_INPUT_LIBRARY, "rubbish and more of it, and more, and more, and more, and more", 63);
    TRY("a file that is not there", cuLinkAddFile_v2, linker, CU_JIT_INPUT_PTX, "/nowhere/at/all.ptx", 0, nullptr, nullptr);
    TRY("a file of no name", cuLinkAddFile_v2, linker, CU_JIT_INPUT_PTX, nullptr, 0, nullptr, nullptr);
    NEEDS(cuLinkDestroy, linker);
    NEEDS(cuLinkCreate_v2, 0, nullptr, nullptr, &linker);
    TRY("complete, nowhere to", cuLinkComplete, linker, nullptr, nullptr);
    NEEDS(cuLinkDestroy, linker);
    NEEDS(cuLinkCreate_v2, 0, nullptr, nullptr, &linker);
    TRY("complete nothing", cuLinkComplete, linker, &image, &bytes);
    NEEDS(cuLinkDestroy, linker);
    NEEDS(cuLinkCreate_v2, 0, nullptr, nullptr, &linker);
    add("as it should be", CU_JIT_INPUT_PTX, KERNELS, sizeof KERNELS);
    TRY("complete", cuLinkComplete, linker, &image, &bytes);
    TRY("complete twice", cuLinkComplete, linker, &image, &bytes);
    add("after the end", CU_JIT_INPUT_PTX, KERNELS, sizeof KERNELS);
    TRY("the context after that", cuCtxSynchronize);
}
AREA(ended_linker, "a linker that has ended") {
    CUlinkState linker;
    with_context();
    NEEDS(cuLinkCreate_v2, 0, nullptr, nullptr, &linker);
    NEEDS(cuLinkDestroy, linker);
    TRY("destroy", cuLinkDestroy, linker);
}

AREA(names, "names between processes") {
    CUipcMemHandle memory = {};
    CUipcEventHandle events = {};
    CUdeviceptr at;
    CUevent event;
    with_context();
    TRY("of host memory", cuIpcGetMemHandle, &memory, HOST);
    TRY("of nobody's memory", cuIpcGetMemHandle, &memory, NOWHERE);
    TRY("of 0", cuIpcGetMemHandle, &memory, 0);
    TRY("nowhere to", cuIpcGetMemHandle, nullptr, some(16));
    TRY("of no event", cuIpcGetEventHandle, &events, nullptr);
    memset(&memory, 0x5a, sizeof memory), memset(&events, 0x5a, sizeof events);
    TRY("memory of rubbish", cuIpcOpenMemHandle_v2, &at, memory, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
    TRY("memory with flags of nobody", cuIpcOpenMemHandle_v2, &at, memory, 0x80);
    TRY("an event of rubbish", cuIpcOpenEventHandle, &event, events);
    TRY("close nobody's", cuIpcCloseMemHandle, NOWHERE);
    TRY("close plain memory", cuIpcCloseMemHandle, some(16));
}

AREA(tensor_maps, "tensor maps") {
    alignas(64) CUtensorMap map;
    cuuint64_t sizes[] = {64, 32}, strides[] = {256};
    cuuint32_t box[] = {16, 8}, steps[] = {1, 1};
    with_context();
    CUdeviceptr at = some(1 << 16);
    auto encode = [&](const char *what, CUtensorMap *to, int rank, CUdeviceptr from, int type = CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
                      int swizzle = CU_TENSOR_MAP_SWIZZLE_NONE) {
        TRY(what, cuTensorMapEncodeTiled, to, (CUtensorMapDataType)type, rank, (void *)from, sizes, strides, box, steps,
            CU_TENSOR_MAP_INTERLEAVE_NONE, (CUtensorMapSwizzle)swizzle, CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    };
    encode("nowhere to", nullptr, 2, at);
    encode("no rank", &map, 0, at);
    encode("a rank of 6", &map, 6, at);
    encode("at 0", &map, 2, 0);
    encode("unaligned", &map, 2, at + 4);
    encode("of type 99", &map, 2, at, 99);
    encode("swizzle 99", &map, 2, at, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 99);
    strides[0] = 8;
    encode("rows closer than 16 bytes", &map, 2, at);
    strides[0] = 256, box[0] = 0;
    encode("an empty box", &map, 2, at);
    box[0] = 257;
    encode("a box too wide", &map, 2, at);
    box[0] = 16, steps[0] = 9;
    encode("steps of 9", &map, 2, at);
    steps[0] = 1, sizes[0] = 0;
    encode("an empty tensor", &map, 2, at);
    sizes[0] = 1ull << 40;
    encode("a tensor too wide", &map, 2, at);
    TRY("no map", cuTensorMapReplaceAddress, nullptr, (void *)at);
}

AREA(tables, "functions by name") {
    const void *table;
    void *function;
    CUdriverProcAddressQueryResult found;
    static const CUuuid nobody = {};
    with_context();
    TRY("a private table of nobody", cuGetExportTable, &table, &nobody);
    TRY("a function of nobody", cuGetProcAddress_v2, "cuNobody", &function, 12000, 0, &found);
    TRY("a function of no name", cuGetProcAddress_v2, nullptr, &function, 12000, 0, &found);
    TRY("a function, nowhere to", cuGetProcAddress_v2, "cuInit", nullptr, 12000, 0, &found);
    TRY("a function of version 0", cuGetProcAddress_v2, "cuInit", &function, 0, 0, &found);
    TRY("a function of a version to come", cuGetProcAddress_v2, "cuInit", &function, 99000, 0, &found);
    TRY("a function with flags of nobody", cuGetProcAddress_v2, "cuInit", &function, 12000, 0x80, &found);
}
