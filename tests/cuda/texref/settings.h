// How a reference reads: each setting, what is told of it, what a driver refuses of them. Included by `texref.cu` alone.
#pragma once

static void settings() {
    CUtexref ref, none;
    GIVES(500, cuModuleGetTexRef, &none, module_, "nobody");
    NEEDS(cuTexRefCreate, &ref);
    CUdeviceptr memory = filled(counted(1024, 0)), address = 0;
    float border[4] = {1, 2, 3, 4}, colour[4] = {}, bias = 0, least = 0, most = 0;
    for (int dimension = 0; dimension < 3; dimension++) {
        CUaddress_mode unset = (CUaddress_mode)9;
        GIVES(0, cuTexRefGetAddressMode, &unset, ref, dimension);
        expect("an address mode that was not set", unset, CU_TR_ADDRESS_MODE_CLAMP);
    }
    // A driver takes most of what CUDA does not know.
    GIVES(0, cuTexRefSetFormat, ref, (CUarray_format)0x77, 1);
    GIVES(0, cuTexRefSetAddressMode, ref, 0, (CUaddress_mode)4);
    GIVES(0, cuTexRefSetFilterMode, ref, (CUfilter_mode)2);
    GIVES(0, cuTexRefSetFlags, ref, 4);
    GIVES(1, cuTexRefSetMipmapFilterMode, ref, (CUfilter_mode)2);
    CUaddress_mode unknown = (CUaddress_mode)9;
    GIVES(0, cuTexRefGetAddressMode, &unknown, ref, 0);
    expect("an address mode that CUDA does not know", unknown, CU_TR_ADDRESS_MODE_CLAMP);
    GIVES(0, cuTexRefSetFormat, ref, CU_AD_FORMAT_FLOAT, 1);
    GIVES(0, cuTexRefSetFilterMode, ref, CU_TR_FILTER_MODE_POINT);
    GIVES(0, cuTexRefSetFlags, ref, 0);
    GIVES(1, cuTexRefSetFormat, ref, CU_AD_FORMAT_FLOAT, 3);
    GIVES(1, cuTexRefSetAddressMode, ref, 3, CU_TR_ADDRESS_MODE_WRAP);
    GIVES(1, cuTexRefSetAddressMode, ref, -1, CU_TR_ADDRESS_MODE_WRAP);
    GIVES(400, cuTexRefSetFlags, nullptr, 0);
    size_t before = 9, length = 0;
    GIVES(0, cuTexRefSetAddress_v2, &before, ref, memory, 0);
    expect("bytes before no bytes", before, 0);
    GIVES(0, cuTexRefSetAddress_v2, &before, ref, memory + 16, 256);
    GIVES(0, cuTexRefGetAddress_v2, &address, ref);
    expect("where a texture starts", address + before, memory + 16);
    GIVES(0, cuTexRefSetAddress_v2, &before, ref, 0, 0);
    GIVES(0, cuTexRefGetAddress_v2, &address, ref);
    GIVES(400, cuTexRefSetArray, ref, nullptr, CU_TRSA_OVERRIDE_FORMAT);
    GIVES(0, cuParamSetTexRef, function("fetch"), CU_PARAM_TR_DEFAULT, reference("row"));
    GIVES(0, cuParamSetTexRef, function("fetch"), 0, reference("row"));
    GIVES(1, cuModuleGetGlobal_v2, &address, &length, module_, "row");
    GIVES(1, cuModuleGetGlobal_v2, &address, &length, module_, "canvas");
    GIVES(0, cuTexRefSetFormat, ref, CU_AD_FORMAT_SIGNED_INT16, 2);
    GIVES(0, cuTexRefSetAddressMode, ref, 0, CU_TR_ADDRESS_MODE_MIRROR);
    GIVES(0, cuTexRefSetAddressMode, ref, 1, CU_TR_ADDRESS_MODE_BORDER);
    GIVES(0, cuTexRefSetFilterMode, ref, CU_TR_FILTER_MODE_LINEAR);
    GIVES(0, cuTexRefSetMipmapFilterMode, ref, CU_TR_FILTER_MODE_LINEAR);
    GIVES(0, cuTexRefSetMipmapLevelBias, ref, 0.5f);
    GIVES(0, cuTexRefSetMipmapLevelClamp, ref, 1.0f, 3.0f);
    GIVES(0, cuTexRefSetMaxAnisotropy, ref, 4);
    GIVES(0, cuTexRefSetBorderColor, ref, border);
    GIVES(0, cuTexRefSetFlags, ref, CU_TRSF_READ_AS_INTEGER | CU_TRSF_NORMALIZED_COORDINATES);
    GIVES(0, cuTexRefSetAddress_v2, nullptr, ref, memory, 4096);
    CUarray_format format;
    CUaddress_mode first, second;
    CUfilter_mode filter, between;
    int channels = 0, anisotropy = 0;
    unsigned flags = 0;
    GIVES(0, cuTexRefGetFormat, &format, &channels, ref);
    GIVES(0, cuTexRefGetAddressMode, &first, ref, 0);
    GIVES(0, cuTexRefGetAddressMode, &second, ref, 1);
    GIVES(0, cuTexRefGetFilterMode, &filter, ref);
    GIVES(0, cuTexRefGetMipmapFilterMode, &between, ref);
    GIVES(0, cuTexRefGetMipmapLevelBias, &bias, ref);
    GIVES(0, cuTexRefGetMipmapLevelClamp, &least, &most, ref);
    GIVES(0, cuTexRefGetMaxAnisotropy, &anisotropy, ref);
    GIVES(0, cuTexRefGetBorderColor, colour, ref);
    GIVES(0, cuTexRefGetFlags, &flags, ref);
    GIVES(0, cuTexRefGetAddress_v2, &address, ref);
    expect("the format told", format * 10 + channels, CU_AD_FORMAT_SIGNED_INT16 * 10 + 2);
    expect("address modes told", first * 10 + second, CU_TR_ADDRESS_MODE_MIRROR * 10 + CU_TR_ADDRESS_MODE_BORDER);
    expect("filters told", filter * 10 + between, 11);
    expect("the anisotropy told", anisotropy, 4);
    expect("flags told", flags, 3);
    expect("the address told", address, memory);
    near("the bias told", bias, 0.5f, 0);
    near("the lowest level told", least, 1, 0);
    near("the highest level told", most, 3, 0);
    for (int i = 0; i < 4; i++) near("the border told", colour[i], border[i], 0);
    GIVES(0, cuTexRefDestroy, ref);
    NEEDS(cuMemFree_v2, memory);
}
