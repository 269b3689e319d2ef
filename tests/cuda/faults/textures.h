// Textures and surfaces of what is none.
#pragma once

AREA(textures, "textures") {
    with_context();
    CUDA_RESOURCE_DESC told;
    CUtexObject object;
    CUarray plain = new_array(16, 16), layered = new_array(16, 16, 4, CUDA_ARRAY3D_LAYERED);
    CUdeviceptr at = some(1 << 16);
    auto make = [&](const char *what, const std::function<void(CUDA_RESOURCE_DESC &, CUDA_TEXTURE_DESC &)> &change) {
        CUDA_RESOURCE_DESC resource = {};
        CUDA_TEXTURE_DESC how = {};
        resource.resType = CU_RESOURCE_TYPE_ARRAY;
        resource.res.array.hArray = plain;
        change(resource, how);
        if (TRY(what, cuTexObjectCreate, &object, &resource, &how, nullptr) == 0) CALL(cuTexObjectDestroy, object);
    };
    auto linear = [&](CUDA_RESOURCE_DESC &resource, CUdeviceptr from, size_t bytes) {
        resource.resType = CU_RESOURCE_TYPE_LINEAR;
        resource.res.linear.devPtr = from;
        resource.res.linear.format = CU_AD_FORMAT_FLOAT;
        resource.res.linear.numChannels = 1;
        resource.res.linear.sizeInBytes = bytes;
    };
    auto pitched = [&](CUDA_RESOURCE_DESC &resource, CUdeviceptr from, size_t width, size_t height, size_t pitch) {
        resource.resType = CU_RESOURCE_TYPE_PITCH2D;
        resource.res.pitch2D = {from, CU_AD_FORMAT_FLOAT, 1, width, height, pitch};
    };
    using R = CUDA_RESOURCE_DESC;
    using T = CUDA_TEXTURE_DESC;
    CUDA_RESOURCE_DESC right = {};
    right.resType = CU_RESOURCE_TYPE_ARRAY;
    right.res.array.hArray = plain;
    CUDA_TEXTURE_DESC how = {};
    TRY("no resource", cuTexObjectCreate, &object, nullptr, &how, nullptr);
    TRY("no description", cuTexObjectCreate, &object, &right, nullptr, nullptr);
    TRY("nowhere to", cuTexObjectCreate, nullptr, &right, &how, nullptr);
    make("as it should be", [](R &, T &) {});
    make("a resource of no kind", [](R &resource, T &) { resource.resType = (CUresourcetype)99; });
    make("no array", [](R &resource, T &) { resource.res.array.hArray = nullptr; });
    make("resource flags", [](R &resource, T &) { resource.flags = 1; });
    make("linear: nothing", [&](R &resource, T &) { linear(resource, at, 0); });
    make("linear: at 0", [&](R &resource, T &) { linear(resource, 0, 64); });
    make("linear: at nowhere", [&](R &resource, T &) { linear(resource, NOWHERE, 64); });
    make("linear: host memory", [&](R &resource, T &) { linear(resource, HOST, 64); });
    make("linear: unaligned", [&](R &resource, T &) { linear(resource, at + 4, 64); });
    make("linear: past the end", [&](R &resource, T &) { linear(resource, at, 64 << 20); });
    make("linear: all", [&](R &resource, T &) { linear(resource, at, ALL); });
    make("linear: no format", [&](R &resource, T &) { linear(resource, at, 64), resource.res.linear.format = (CUarray_format)0; });
    make("linear: three channels", [&](R &resource, T &) { linear(resource, at, 64), resource.res.linear.numChannels = 3; });
    make("linear: filtered", [&](R &resource, T &t) { linear(resource, at, 64), t.filterMode = CU_TR_FILTER_MODE_LINEAR; });
    make("linear: normalized", [&](R &resource, T &t) { linear(resource, at, 64), t.flags = CU_TRSF_NORMALIZED_COORDINATES; });
    make("rows: no width", [&](R &resource, T &) { pitched(resource, at, 0, 4, 64); });
    make("rows: no height", [&](R &resource, T &) { pitched(resource, at, 16, 0, 64); });
    make("rows: closer than wide", [&](R &resource, T &) { pitched(resource, at, 64, 4, 64); });
    make("rows: unaligned distance", [&](R &resource, T &) { pitched(resource, at, 4, 4, 36); });
    make("rows: unaligned", [&](R &resource, T &) { pitched(resource, at + 64, 4, 4, 512); });
    make("rows: past the end", [&](R &resource, T &) { pitched(resource, at, 16, 65000, 512); });
    make("rows: too high", [&](R &resource, T &) { pitched(resource, at, 16, 1 << 22, 512); });
    make("address mode 99", [](R &, T &t) { t.addressMode[0] = (CUaddress_mode)99; });
    make("filter 99", [](R &, T &t) { t.filterMode = (CUfilter_mode)99; });
    make("filter of levels 99", [](R &, T &t) { t.mipmapFilterMode = (CUfilter_mode)99; });
    make("flags of nobody", [](R &, T &t) { t.flags = 0x8000; });
    make("filtered integers", [](R &, T &t) { t.filterMode = CU_TR_FILTER_MODE_LINEAR, t.flags = CU_TRSF_READ_AS_INTEGER; });
    make("wrapped, not normalized", [](R &, T &t) { t.addressMode[0] = CU_TR_ADDRESS_MODE_WRAP; });
    make("anisotropy of 99", [](R &, T &t) { t.maxAnisotropy = 99; });
    make("levels of no levels", [&](R &resource, T &) {
        resource.resType = CU_RESOURCE_TYPE_MIPMAPPED_ARRAY;
        resource.res.mipmap.hMipmappedArray = nullptr;
    });
    CUDA_RESOURCE_VIEW_DESC view = {};
    auto viewed = [&](const char *what, const CUDA_RESOURCE_DESC &resource) {
        if (TRY(what, cuTexObjectCreate, &object, &resource, &how, &view) == 0) CALL(cuTexObjectDestroy, object);
    };
    view.format = CU_RES_VIEW_FORMAT_FLOAT_1X32;
    view.width = view.height = 16;
    viewed("a view as it should be", right);
    view.width = 99;
    viewed("a view that is wider", right);
    view.width = 16, view.format = (CUresourceViewFormat)99;
    viewed("a view of format 99", right);
    view.format = CU_RES_VIEW_FORMAT_FLOAT_4X32;
    viewed("a view of larger elements", right);
    view.format = CU_RES_VIEW_FORMAT_FLOAT_1X32, view.lastMipmapLevel = 5;
    viewed("a view of levels", right);
    view.lastMipmapLevel = 0, view.lastLayer = 9;
    right.res.array.hArray = layered;
    viewed("a view of layers that are none", right);
    view.lastLayer = 0;
    CUDA_RESOURCE_DESC line = {};
    linear(line, at, 64);
    viewed("a view of linear memory", line);
    TRY("destroy 0", cuTexObjectDestroy, 0);
    TRY("destroy nobody's", cuTexObjectDestroy, 12345);
    TRY("destroy all", cuTexObjectDestroy, ~0ull);
    TRY("resource of nobody's", cuTexObjectGetResourceDesc, &told, 12345);
    TRY("resource of 0", cuTexObjectGetResourceDesc, &told, 0);
    NEEDS(cuTexObjectCreate, &object, &line, &how, nullptr);
    TRY("resource, nowhere to", cuTexObjectGetResourceDesc, nullptr, object);
    TRY("view of one without", cuTexObjectGetResourceViewDesc, &view, object);
    TRY("destroy", cuTexObjectDestroy, object);
    TRY("destroy twice", cuTexObjectDestroy, object);
    TRY("the context after that", cuCtxSynchronize);
}

AREA(surfaces, "surfaces") {
    with_context();
    CUsurfObject object = 0;
    CUarray plain = new_array(16, 16), right = new_array(16, 16, 0, CUDA_ARRAY3D_SURFACE_LDST);
    CUDA_RESOURCE_DESC resource = {}, told;
    resource.resType = CU_RESOURCE_TYPE_ARRAY;
    TRY("no resource", cuSurfObjectCreate, &object, nullptr);
    TRY("no array", cuSurfObjectCreate, &object, &resource);
    resource.res.array.hArray = plain;
    TRY("an array that is for none", cuSurfObjectCreate, &object, &resource);
    resource.res.array.hArray = right;
    TRY("nowhere to", cuSurfObjectCreate, nullptr, &resource);
    resource.flags = 1;
    TRY("resource flags", cuSurfObjectCreate, &object, &resource);
    resource.flags = 0;
    resource.resType = CU_RESOURCE_TYPE_LINEAR;
    resource.res.linear = {some(64), CU_AD_FORMAT_FLOAT, 1, 64};
    TRY("linear memory", cuSurfObjectCreate, &object, &resource);
    TRY("destroy 0", cuSurfObjectDestroy, 0);
    TRY("destroy nobody's", cuSurfObjectDestroy, 12345);
    TRY("resource of nobody's", cuSurfObjectGetResourceDesc, &told, 12345);
    resource = {};
    resource.resType = CU_RESOURCE_TYPE_ARRAY;
    resource.res.array.hArray = right;
    NEEDS(cuSurfObjectCreate, &object, &resource);
    TRY("as a texture", cuTexObjectDestroy, object);
    TRY("destroy", cuSurfObjectDestroy, object);
    TRY("destroy twice", cuSurfObjectDestroy, object);
    TRY("the context after that", cuCtxSynchronize);
}
AREA(ended_texture_array, "a texture of an array that has ended") {
    with_context();
    CUtexObject object;
    CUDA_TEXTURE_DESC how = {};
    CUDA_RESOURCE_DESC resource = {};
    resource.resType = CU_RESOURCE_TYPE_ARRAY;
    resource.res.array.hArray = new_array(16, 16);
    NEEDS(cuArrayDestroy, resource.res.array.hArray);
    TRY("create", cuTexObjectCreate, &object, &resource, &how, nullptr);
}
