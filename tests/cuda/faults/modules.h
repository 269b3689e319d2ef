// Images that are none, and names that are in none.
#pragma once

static int image(const char *what, const char *text) {
    CUmodule module = nullptr;
    return TRY(what, cuModuleLoadData, &module, text);
}

AREA(texts, "PTX") {
    with_context();
    image("nothing", nullptr);
    image("empty", "");
    image("blank", "   \n\n");
    image("rubbish", "rubbish, and more of it");
    image("no version", ".target sm_70\n.address_size 64\n.visible .entry k() { ret; }");
    image("version only", ".version 7.0\n");
    image("a version of the future", ".version 99.9\n.target sm_70\n.address_size 64\n.visible .entry k() { ret; }");
    image("a version that is none", ".version x\n.target sm_70\n.address_size 64\n.visible .entry k() { ret; }");
    image("a target of nobody", ".version 7.0\n.target sm_7777\n.address_size 64\n.visible .entry k() { ret; }");
    image("a newer target than the device", ".version 8.8\n.target sm_120\n.address_size 64\n.visible .entry k() { ret; }");
    image("a target newer than its version", ".version 6.0\n.target sm_90\n.address_size 64\n.visible .entry k() { ret; }");
    image("an address size of 16", ".version 7.0\n.target sm_70\n.address_size 16\n.visible .entry k() { ret; }");
    image("no functions", ".version 7.0\n.target sm_70\n.address_size 64\n");
    image("an instruction that is none", ".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry k() { nonsense; }");
    image("a register of nobody", ".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry k() { mov.u32 %r1, 1; ret; }");
    image("a type that does not fit",
          ".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry k() { .reg .b64 %rd<2>; mov.u32 %rd1, 1; ret; }");
    image("a label of nobody", ".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry k() { bra nowhere; }");
    image("a variable of nobody",
          ".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry k() { .reg .b64 %rd<2>; mov.u64 %rd1, nobody; ret; }");
    image("an end that is missing", ".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry k() { ret;");
    image("one name twice",
          ".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry k() { ret; }\n.visible .entry k() { ret; }");
    image("a function that is in no text",
          ".version 7.0\n.target sm_70\n.address_size 64\n.extern .func f();\n.visible .entry k() { call f; ret; }");
    image("a variable that is in no text",
          ".version 7.0\n.target sm_70\n.address_size 64\n.extern .global .align 4 .u32 v;\n"
          ".visible .entry k() { .reg .b64 %rd<2>; mov.u64 %rd1, v; ret; }");
    image("a variable of more than there is",
          ".version 7.0\n.target sm_70\n.address_size 64\n.visible .global .align 4 .b8 v[1099511627776];\n.visible .entry k() { ret; }");
    image("constants of a MiB",
          ".version 7.0\n.target sm_70\n.address_size 64\n.visible .const .align 4 .b8 v[1048576];\n.visible .entry k() { ret; }");
    image("shared memory of a MiB",
          ".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry k() { .shared .align 4 .b8 v[1048576]; ret; }");
    std::string deep = ".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry k() ";
    image("blocks 10,000 deep", (deep + std::string(10000, '{') + std::string(10000, '}')).c_str());
    TRY("the context after that", cuCtxSynchronize);
}

// An ELF of CUDA's machine (190) for compute capability 9.0 with so many sections at `sections`.
static std::string cubin(unsigned char width, unsigned short machine, unsigned long long sections, unsigned short count) {
    unsigned char head[64] = {0x7f, 'E', 'L', 'F', width, 1, 1, 0x33, 7};
    head[16] = 2;
    memcpy(head + 18, &machine, 2);
    head[20] = 128;
    memcpy(head + 40, &sections, 8);
    unsigned flags = 0x5a055a;
    memcpy(head + 48, &flags, 4);
    head[52] = 64, head[54] = 56, head[58] = 64;
    memcpy(head + 60, &count, 2);
    // What a driver reads beyond its end is zeros.
    return std::string((char *)head, sizeof head) + std::string(65536, '\0');
}
static void cubin_area(unsigned char width, unsigned short machine, unsigned long long sections, unsigned short count) {
    CUmodule module;
    CUlibrary library;
    with_context();
    std::string bytes = cubin(width, machine, sections, count);
    TRY("as a module", cuModuleLoadData, &module, bytes.data());
    TRY("as a library", cuLibraryLoadData, &library, bytes.data(), nullptr, nullptr, 0, nullptr, nullptr, 0);
    TRY("the context after that", cuCtxSynchronize);
}
AREA(cubin_empty, "a cubin without sections") { cubin_area(2, 190, 0, 0); }
AREA(cubin_machine, "a cubin of another machine") { cubin_area(2, 62, 0, 0); }
AREA(cubin_width, "a cubin of 32 bits") { cubin_area(1, 190, 0, 0); }
AREA(cubin_zeros, "a cubin with sections of zeros") { cubin_area(2, 190, 4096, 4); }
AREA(cubin_far, "a cubin with sections far away") { cubin_area(2, 190, 1ull << 40, 4); }
AREA(cubin_wraps, "a cubin with sections around the end") { cubin_area(2, 190, ~0ull - 63, 0xffff); }

static void fatbin_area(unsigned short version, unsigned short head_bytes, unsigned long long bytes, unsigned kind) {
    CUmodule module;
    with_context();
    std::vector<unsigned char> image(65536, 0);
    unsigned magic = 0xba55ed50, entry_head = 64;
    memcpy(&image[0], &magic, 4);
    memcpy(&image[4], &version, 2);
    memcpy(&image[6], &head_bytes, 2);
    memcpy(&image[8], &bytes, 8);
    memcpy(&image[16], &kind, 2);
    image[18] = 1;
    memcpy(&image[20], &entry_head, 4);
    unsigned long long payload = 64;
    memcpy(&image[24], &payload, 8);
    TRY("as data", cuModuleLoadData, &module, image.data());
    TRY("as a fat binary", cuModuleLoadFatBinary, &module, image.data());
    TRY("the context after that", cuCtxSynchronize);
}
AREA(fatbin_empty, "a fat binary of nothing") { fatbin_area(1, 16, 0, 0); }
AREA(fatbin_version, "a fat binary of another version") { fatbin_area(99, 16, 128, 2); }
AREA(fatbin_kind, "a fat binary of another kind") { fatbin_area(1, 16, 128, 99); }
AREA(fatbin_zeros, "a fat binary with machine code of zeros") { fatbin_area(1, 16, 128, 2); }
AREA(fatbin_text, "a fat binary with PTX of zeros") { fatbin_area(1, 16, 128, 1); }

AREA(modules, "modules") {
    CUmodule module = with_kernels(), other;
    CUfunction function;
    CUdeviceptr at;
    size_t bytes;
    unsigned count;
    TRY("load, nowhere to", cuModuleLoadData, nullptr, KERNELS);
    TRY("a fat binary that is PTX", cuModuleLoadFatBinary, &other, KERNELS);
    TRY("a fat binary of nothing", cuModuleLoadFatBinary, &other, nullptr);
    TRY("a file of no name", cuModuleLoad, &other, nullptr);
    TRY("a file of an empty name", cuModuleLoad, &other, "");
    TRY("a file that is not there", cuModuleLoad, &other, "/nowhere/at/all.cubin");
    TRY("a folder", cuModuleLoad, &other, "/tmp");
    TRY("an empty file", cuModuleLoad, &other, "/dev/null");
    CUjit_option option = (CUjit_option)999;
    void *value = nullptr;
    TRY("an option of nobody", cuModuleLoadDataEx, &other, KERNELS, 1, &option, &value);
    TRY("options at nowhere", cuModuleLoadDataEx, &other, KERNELS, 1, nullptr, nullptr);
    option = CU_JIT_OPTIMIZATION_LEVEL;
    value = (void *)99;
    TRY("optimization 99", cuModuleLoadDataEx, &other, KERNELS, 1, &option, &value);
    option = CU_JIT_MAX_REGISTERS;
    value = (void *)-1;
    TRY("registers below 0", cuModuleLoadDataEx, &other, KERNELS, 1, &option, &value);
    option = CU_JIT_TARGET;
    value = (void *)5;
    TRY("target 5", cuModuleLoadDataEx, &other, KERNELS, 1, &option, &value);
    TRY("a function of no name", cuModuleGetFunction, &function, module, nullptr);
    TRY("a function of an empty name", cuModuleGetFunction, &function, module, "");
    TRY("a function of nobody", cuModuleGetFunction, &function, module, "nobody");
    TRY("a variable as a function", cuModuleGetFunction, &function, module, "number");
    TRY("a function, nowhere to", cuModuleGetFunction, nullptr, module, "nothing");
    TRY("a function of no module", cuModuleGetFunction, &function, nullptr, "nothing");
    TRY("a variable of nobody", cuModuleGetGlobal_v2, &at, &bytes, module, "nobody");
    TRY("a variable of no name", cuModuleGetGlobal_v2, &at, &bytes, module, nullptr);
    TRY("a function as a variable", cuModuleGetGlobal_v2, &at, &bytes, module, "nothing");
    TRY("a variable, nowhere to", cuModuleGetGlobal_v2, nullptr, nullptr, module, "number");
    TRY("a variable of no module", cuModuleGetGlobal_v2, &at, &bytes, nullptr, "number");
    TRY("how many, nowhere to", cuModuleGetFunctionCount, nullptr, module);
    TRY("how many of none", cuModuleGetFunctionCount, &count, nullptr);
    TRY("list, nowhere to", cuModuleEnumerateFunctions, nullptr, 1, module);
    TRY("list of none", cuModuleEnumerateFunctions, &function, 1, nullptr);
    TRY("list no functions", cuModuleEnumerateFunctions, &function, 0, module);
    TRY("mode, nowhere to", cuModuleGetLoadingMode, nullptr);
    TRY("unload none", cuModuleUnload, nullptr);
    NEEDS(cuModuleGetGlobal_v2, &at, &bytes, module, "number");
    TRY("free a variable", cuMemFree_v2, at);
    TRY("past the end of a variable", cuMemcpyDtoH_v2, own, at, 1 << 20);
}
AREA(ended_module_unload, "a module that has ended: unload") {
    CUmodule module = with_kernels();
    NEEDS(cuModuleUnload, module);
    TRY("unload", cuModuleUnload, module);
}
AREA(ended_module_function, "a module that has ended: a function") {
    CUmodule module = with_kernels();
    CUfunction function;
    NEEDS(cuModuleUnload, module);
    TRY("a function", cuModuleGetFunction, &function, module, "nothing");
}
AREA(ended_module_launch, "a module that has ended: launch") {
    CUmodule module = with_kernels();
    CUfunction function = kernel(module, "nothing");
    NEEDS(cuModuleUnload, module);
    TRY("launch", cuLaunchKernel, function, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr);
}
AREA(ended_module_variable, "a module that has ended: its variable") {
    CUmodule module = with_kernels();
    CUdeviceptr at;
    size_t bytes;
    NEEDS(cuModuleGetGlobal_v2, &at, &bytes, module, "number");
    NEEDS(cuModuleUnload, module);
    TRY("copy", cuMemcpyDtoH_v2, own, at, 4);
}

AREA(libraries, "libraries") {
    CUlibrary library, other;
    CUkernel nothing, found;
    CUmodule module;
    CUfunction function;
    CUdeviceptr at;
    size_t bytes;
    int value;
    unsigned count;
    const char *name;
    void *pointer;
    with_context();
    auto load = [&](const char *what, CUlibrary *to, const void *code) {
        TRY(what, cuLibraryLoadData, to, code, nullptr, nullptr, 0, nullptr, nullptr, 0);
    };
    load("nothing", &other, nullptr);
    load("rubbish", &other, "rubbish, and more of it");
    load("nowhere to", nullptr, KERNELS);
    CUlibraryOption option = (CUlibraryOption)99;
    pointer = nullptr;
    TRY("an option of nobody", cuLibraryLoadData, &other, KERNELS, nullptr, nullptr, 0, &option, &pointer, 1);
    TRY("options at nowhere", cuLibraryLoadData, &other, KERNELS, nullptr, nullptr, 0, nullptr, nullptr, 1);
    TRY("a file that is not there", cuLibraryLoadFromFile, &other, "/nowhere/at/all", nullptr, nullptr, 0, nullptr, nullptr, 0);
    NEEDS(cuLibraryLoadData, &library, KERNELS, nullptr, nullptr, 0, nullptr, nullptr, 0);
    NEEDS(cuLibraryGetKernel, &nothing, library, "nothing");
    TRY("a kernel of nobody", cuLibraryGetKernel, &found, library, "nobody");
    TRY("a kernel of no name", cuLibraryGetKernel, &found, library, nullptr);
    TRY("a kernel of none", cuLibraryGetKernel, &found, nullptr, "nothing");
    TRY("a kernel, nowhere to", cuLibraryGetKernel, nullptr, library, "nothing");
    TRY("how many, nowhere to", cuLibraryGetKernelCount, nullptr, library);
    TRY("how many of none", cuLibraryGetKernelCount, &count, nullptr);
    TRY("list, nowhere to", cuLibraryEnumerateKernels, nullptr, 1, library);
    TRY("a module, nowhere to", cuLibraryGetModule, nullptr, library);
    TRY("a module of none", cuLibraryGetModule, &module, nullptr);
    TRY("a variable of nobody", cuLibraryGetGlobal, &at, &bytes, library, "nobody");
    TRY("a managed variable of nobody", cuLibraryGetManaged, &at, &bytes, library, "nobody");
    TRY("a plain variable as managed", cuLibraryGetManaged, &at, &bytes, library, "number");
    TRY("an address of nobody", cuLibraryGetUnifiedFunction, &pointer, library, "nobody");
    TRY("a function of none", cuKernelGetFunction, &function, nullptr);
    TRY("a function, nowhere to", cuKernelGetFunction, nullptr, nothing);
    TRY("attribute 99", cuKernelGetAttribute, &value, (CUfunction_attribute)99, nothing, device);
    TRY("attribute on no device", cuKernelGetAttribute, &value, CU_FUNC_ATTRIBUTE_NUM_REGS, nothing, 99);
    TRY("attribute of none", cuKernelGetAttribute, &value, CU_FUNC_ATTRIBUTE_NUM_REGS, nullptr, device);
    TRY("set what is only read", cuKernelSetAttribute, CU_FUNC_ATTRIBUTE_NUM_REGS, 8, nothing, device);
    TRY("a MiB of shared memory", cuKernelSetAttribute, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 1 << 20, nothing, device);
    TRY("cache of no kind", cuKernelSetCacheConfig, nothing, (CUfunc_cache)99, device);
    TRY("name, nowhere to", cuKernelGetName, nullptr, nothing);
    TRY("name of none", cuKernelGetName, &name, nullptr);
    TRY("a parameter of nothing", cuKernelGetParamInfo, nothing, 0, &bytes, &bytes);
    TRY("library of none", cuKernelGetLibrary, &other, nullptr);
    TRY("unload none", cuLibraryUnload, nullptr);
}
AREA(ended_library, "a library that has ended") {
    CUlibrary library;
    with_context();
    NEEDS(cuLibraryLoadData, &library, KERNELS, nullptr, nullptr, 0, nullptr, nullptr, 0);
    NEEDS(cuLibraryUnload, library);
    TRY("unload", cuLibraryUnload, library);
}
AREA(ended_library_kernel, "a library that has ended: a kernel") {
    CUlibrary library;
    CUkernel found;
    with_context();
    NEEDS(cuLibraryLoadData, &library, KERNELS, nullptr, nullptr, 0, nullptr, nullptr, 0);
    NEEDS(cuLibraryUnload, library);
    TRY("a kernel", cuLibraryGetKernel, &found, library, "nothing");
}
