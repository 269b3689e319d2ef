// What `texref answers`, `texref unbound` and `texref unknown` print. Included by `texref.cu` alone.
#pragma once

#define SAY(name, ...) printf("%-28s %d\n", #name "(" #__VA_ARGS__ ")", CALL(name, __VA_ARGS__)), fflush(stdout)
static void answers() {
    CUtexref ref, same, row = reference("row"), picture_ = reference("picture"), again = reference("row");
    CUsurfref canvas;
    printf("one name, one reference: %d\n", row == again);
    NEEDS(cuModuleGetSurfRef, &canvas, module_, "canvas");
    NEEDS(cuTexRefCreate, &ref);
    for (CUtexref one : {ref, reference("volume")}) {
        CUarray_format format = (CUarray_format)99;
        CUaddress_mode mode[3] = {(CUaddress_mode)9, (CUaddress_mode)9, (CUaddress_mode)9};
        CUfilter_mode filter = (CUfilter_mode)9, between = (CUfilter_mode)9;
        int channels = 99, anisotropy = 99;
        unsigned flags = 99;
        float bias = 99, least = 99, most = 99, colour[4] = {99, 99, 99, 99};
        printf("nothing was set:\n");
        SAY(cuTexRefGetFormat, &format, &channels, one);
        for (int i = 0; i < 3; i++) SAY(cuTexRefGetAddressMode, &mode[i], one, i);
        SAY(cuTexRefGetFilterMode, &filter, one);
        SAY(cuTexRefGetMipmapFilterMode, &between, one);
        SAY(cuTexRefGetMipmapLevelBias, &bias, one);
        SAY(cuTexRefGetMipmapLevelClamp, &least, &most, one);
        SAY(cuTexRefGetMaxAnisotropy, &anisotropy, one);
        SAY(cuTexRefGetBorderColor, colour, one);
        SAY(cuTexRefGetFlags, &flags, one);
        printf("format %d %d, modes %d %d %d, filters %d %d, bias %g, levels %g %g, anisotropy %d, border %g %g, flags %u\n", format,
               channels, mode[0], mode[1], mode[2], filter, between, bias, least, most, anisotropy, colour[0], colour[3], flags);
    }
    CUdeviceptr memory = filled(counted(65536, 0)), address = 0;
    size_t before = 99;
    CUarray array = array_of(shape(WIDTH, HEIGHT, 0, CU_AD_FORMAT_FLOAT, 1), picture().data(), 4);
    SAY(cuTexRefSetFormat, row, CU_AD_FORMAT_FLOAT, 3);
    SAY(cuTexRefSetFormat, row, (CUarray_format)0x77, 1);
    SAY(cuTexRefSetAddressMode, row, 3, CU_TR_ADDRESS_MODE_WRAP);
    SAY(cuTexRefSetAddressMode, row, -1, CU_TR_ADDRESS_MODE_WRAP);
    SAY(cuTexRefSetAddressMode, row, 0, (CUaddress_mode)4);
    SAY(cuTexRefSetFilterMode, row, (CUfilter_mode)2);
    SAY(cuTexRefSetFlags, row, 4);
    SAY(cuTexRefSetFlags, row, CU_TRSF_SRGB);
    SAY(cuTexRefSetMaxAnisotropy, row, 99);
    SAY(cuTexRefSetFlags, row, 0);
    SAY(cuTexRefSetFormat, row, CU_AD_FORMAT_FLOAT, 1);
    for (size_t step : {4, 16, 32, 64, 256, 512}) {
        SAY(cuTexRefSetAddress_v2, &before, row, memory + step, 4096);
        SAY(cuTexRefGetAddress_v2, &address, row);
        printf("%zu bytes in: %zu before, told %zu in\n", step, before, (size_t)(address - memory));
    }
    SAY(cuTexRefSetAddress_v2, nullptr, row, memory + 4, 4096);
    SAY(cuTexRefSetAddress_v2, &before, row, memory, 0);
    SAY(cuTexRefSetAddress_v2, &before, row, memory, 1 << 30);
    SAY(cuTexRefSetAddress_v2, &before, row, 4096, 16);
    SAY(cuTexRefSetAddress_v2, &before, row, 0, 0);
    SAY(cuTexRefGetAddress_v2, &address, row);
    printf("the address of nothing: %llu\n", (unsigned long long)address);
    SAY(cuTexRefSetArray, picture_, array, 0);
    SAY(cuTexRefSetArray, picture_, array, 3);
    SAY(cuTexRefSetArray, picture_, array, CU_TRSA_OVERRIDE_FORMAT);
    SAY(cuTexRefSetFormat, picture_, CU_AD_FORMAT_FLOAT, 4);
    CUarray_format format = (CUarray_format)99;
    int channels = 99;
    SAY(cuTexRefGetFormat, &format, &channels, picture_);
    printf("an array's format, and then another: %d %d\n", format, channels);
    SAY(cuSurfRefSetArray, canvas, array, 1);
    SAY(cuSurfRefSetArray, canvas, array, 0);
    SAY(cuParamSetTexRef, function("fetch"), CU_PARAM_TR_DEFAULT, row);
    SAY(cuParamSetTexRef, function("fetch"), 0, row);
    SAY(cuParamSetTexRef, function("fetch"), CU_PARAM_TR_DEFAULT, ref);
    SAY(cuModuleGetTexRef, &same, module_, "canvas");
    SAY(cuModuleGetTexRef, &same, module_, "");
    size_t bytes = 0;
    SAY(cuModuleGetGlobal_v2, &address, &bytes, module_, "row");
    SAY(cuModuleGetGlobal_v2, &address, &bytes, module_, "canvas");
    SAY(cuTexRefSetMipmapFilterMode, ref, (CUfilter_mode)2);
    SAY(cuTexRefGetAddress_v2, &address, ref);
    SAY(cuTexRefDestroy, ref);
    CUDA_ARRAY3D_DESCRIPTOR made = shape(16, 16, 0, CU_AD_FORMAT_FLOAT, 1);
    CUmipmappedArray mipmap;
    NEEDS(cuMipmappedArrayCreate, &mipmap, &made, 3);
    SAY(cuTexRefSetMipmappedArray, picture_, mipmap, 0);
    SAY(cuTexRefSetMipmappedArray, picture_, mipmap, 2);
    // From here on a driver may crash.
    SAY(cuTexRefSetMipmappedArray, picture_, nullptr, CU_TRSA_OVERRIDE_FORMAT);
    SAY(cuTexRefSetArray, picture_, nullptr, CU_TRSA_OVERRIDE_FORMAT);
    SAY(cuSurfRefSetArray, canvas, nullptr, 0);
    SAY(cuTexRefSetFlags, nullptr, 0);
}

// What kernels read by a reference to nothing.
static void unbound(bool was_bound) {
    CUtexref row = reference("row");
    size_t before = 99;
    float value = 99;
    NEEDS(cuMemcpyHtoD_v2, out, &value, 4);
    if (was_bound) {
        CUdeviceptr memory = filled(counted(64, 7));
        SAY(cuTexRefSetFormat, row, CU_AD_FORMAT_FLOAT, 1);
        SAY(cuTexRefSetAddress_v2, &before, row, memory, 256);
        SAY(cuTexRefSetAddress_v2, &before, row, 0, 0);
    }
    fetch(0, 1);
    SAY(cuCtxSynchronize);
    SAY(cuMemcpyDtoH_v2, &value, out, 4);
    printf("read through nothing: %g\n", value);
}

// One setting that CUDA does not know, of a texture that a kernel reads: what is told of it, and what came of the launch.
static void unknown(int which) {
    CUtexref row = reference("row");
    CUdeviceptr memory = filled(counted(64, 7));
    size_t before = 99;
    float value = 99;
    int mode = 99, channels = 99;
    unsigned flags = 99;
    NEEDS(cuMemcpyHtoD_v2, out, &value, 4);
    NEEDS(cuTexRefSetFormat, row, CU_AD_FORMAT_FLOAT, 1);
    NEEDS(cuTexRefSetAddress_v2, nullptr, row, memory, 256);
    switch (which) {
    case 0:
        SAY(cuTexRefSetFormat, row, (CUarray_format)0x77, 1);
        SAY(cuTexRefGetFormat, (CUarray_format *)&mode, &channels, row);
        break;
    case 1:
        SAY(cuTexRefSetAddressMode, row, 0, (CUaddress_mode)4);
        SAY(cuTexRefGetAddressMode, (CUaddress_mode *)&mode, row, 0);
        break;
    case 2:
        SAY(cuTexRefSetFilterMode, row, (CUfilter_mode)2);
        SAY(cuTexRefGetFilterMode, (CUfilter_mode *)&mode, row);
        break;
    case 3:
        SAY(cuTexRefSetFlags, row, 4);
        SAY(cuTexRefGetFlags, &flags, row);
        break;
    default:
        SAY(cuTexRefSetAddress_v2, &before, row, memory, 0);
    }
    printf("told: mode or format %d, channels %d, flags %u\n", mode, channels, flags);
    int first = 0;
    void *params[] = {&out, &first};
    SAY(cuLaunchKernel, function("fetch"), 1, 1, 1, 1, 1, 1, 0, nullptr, params, nullptr);
    SAY(cuCtxSynchronize);
    SAY(cuMemcpyDtoH_v2, &value, out, 4);
    printf("read: %g\n", value);
}
