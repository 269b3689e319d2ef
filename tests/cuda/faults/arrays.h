// Arrays: shapes that are none, copies past their sides.
#pragma once

static CUDA_ARRAY3D_DESCRIPTOR shape(size_t width, size_t height, size_t depth, unsigned flags = 0) {
    return {width, height, depth, CU_AD_FORMAT_FLOAT, 1, flags};
}
static CUarray new_array(size_t width, size_t height, size_t depth = 0, unsigned flags = 0) {
    CUarray array;
    CUDA_ARRAY3D_DESCRIPTOR what = shape(width, height, depth, flags);
    NEEDS(cuArray3DCreate_v2, &array, &what);
    return array;
}

AREA(array_shapes, "shapes of arrays") {
    CUarray array = nullptr, level;
    CUmipmappedArray levels = nullptr;
    with_context();
    auto make = [&](const char *what, CUDA_ARRAY3D_DESCRIPTOR given) {
        if (TRY(what, cuArray3DCreate_v2, &array, &given) == 0) CALL(cuArrayDestroy, array);
    };
    auto with = [&](const char *what, CUarray_format format, unsigned channels) {
        CUDA_ARRAY3D_DESCRIPTOR given = shape(16, 16, 0);
        given.Format = format;
        given.NumChannels = channels;
        make(what, given);
    };
    TRY("no description", cuArray3DCreate_v2, &array, nullptr);
    TRY("old: no description", cuArrayCreate_v2, &array, nullptr);
    CUDA_ARRAY3D_DESCRIPTOR right = shape(16, 16, 0);
    TRY("nowhere to", cuArray3DCreate_v2, nullptr, &right);
    make("no width", shape(0, 0, 0));
    make("no width, a height", shape(0, 16, 0));
    make("a depth without a height", shape(16, 0, 16));
    make("too wide", shape(1 << 22, 0, 0));
    make("too high", shape(16, 1 << 22, 0));
    make("too deep", shape(16, 16, 1 << 22));
    make("all", shape(ALL, ALL, ALL));
    make("more than there is", shape(16384, 16384, 16384));
    with("format 0", (CUarray_format)0, 1);
    with("format 0x77", (CUarray_format)0x77, 1);
    with("no channels", CU_AD_FORMAT_FLOAT, 0);
    with("three channels", CU_AD_FORMAT_FLOAT, 3);
    with("five channels", CU_AD_FORMAT_FLOAT, 5);
    make("flags of nobody", shape(16, 16, 0, 0x80000));
    make("layers, none", shape(16, 16, 0, CUDA_ARRAY3D_LAYERED));
    make("layers, too many", shape(16, 16, 4096, CUDA_ARRAY3D_LAYERED));
    make("a cube of 5 sides", shape(16, 16, 5, CUDA_ARRAY3D_CUBEMAP));
    make("a cube that is not square", shape(16, 8, 6, CUDA_ARRAY3D_CUBEMAP));
    make("cubes of 7 sides", shape(16, 16, 7, CUDA_ARRAY3D_CUBEMAP | CUDA_ARRAY3D_LAYERED));
    make("gather of a line", shape(16, 0, 0, CUDA_ARRAY3D_TEXTURE_GATHER));
    make("gather of depths", shape(16, 16, 16, CUDA_ARRAY3D_TEXTURE_GATHER));
    make("depth textures of depths", shape(16, 16, 16, CUDA_ARRAY3D_DEPTH_TEXTURE));
    make("mapped later", shape(64, 64, 0, CUDA_ARRAY3D_DEFERRED_MAPPING));
    make("sparse", shape(64, 64, 0, CUDA_ARRAY3D_SPARSE));
    TRY("destroy none", cuArrayDestroy, nullptr);
    CUDA_ARRAY_MEMORY_REQUIREMENTS needs;
    CUDA_ARRAY_SPARSE_PROPERTIES sparse;
    CUDA_ARRAY3D_DESCRIPTOR told;
    array = new_array(16, 16);
    TRY("description, nowhere to", cuArray3DGetDescriptor_v2, nullptr, array);
    TRY("description of none", cuArray3DGetDescriptor_v2, &told, nullptr);
    TRY("a plane of no planes", cuArrayGetPlane, &level, array, 0);
    TRY("what it needs", cuArrayGetMemoryRequirements, &needs, array, device);
    TRY("what it needs, of no device", cuArrayGetMemoryRequirements, &needs, array, 99);
    TRY("properties of a dense one", cuArrayGetSparseProperties, &sparse, array);
    auto chain = [&](const char *what, CUDA_ARRAY3D_DESCRIPTOR given, unsigned count) {
        if (TRY(what, cuMipmappedArrayCreate, &levels, &given, count) == 0) CALL(cuMipmappedArrayDestroy, levels);
    };
    chain("no levels", right, 0);
    chain("100 levels", right, 100);
    chain("all levels", right, ~0u);
    chain("levels of no width", shape(0, 0, 0), 1);
    TRY("levels, no description", cuMipmappedArrayCreate, &levels, nullptr, 1);
    TRY("levels, nowhere to", cuMipmappedArrayCreate, nullptr, &right, 1);
    NEEDS(cuMipmappedArrayCreate, &levels, &right, 3);
    TRY("a level past the last", cuMipmappedArrayGetLevel, &level, levels, 3);
    TRY("a level, nowhere to", cuMipmappedArrayGetLevel, nullptr, levels, 0);
    TRY("a level of none", cuMipmappedArrayGetLevel, &level, nullptr, 0);
    TRY("destroy no levels", cuMipmappedArrayDestroy, nullptr);
    NEEDS(cuMipmappedArrayGetLevel, &level, levels, 1);
    TRY("destroy a level", cuArrayDestroy, level);
}

AREA(array_copies, "copies of arrays") {
    with_context();
    CUarray line = new_array(64, 0), flat_array = new_array(64, 64), deep = new_array(64, 64, 4);
    TRY("in, past the end", cuMemcpyHtoA_v2, line, 0, own, 257);
    TRY("in, from past the end", cuMemcpyHtoA_v2, line, 256, own, 4);
    TRY("in, around the end", cuMemcpyHtoA_v2, line, ALL - 3, own, 8);
    TRY("in, nothing", cuMemcpyHtoA_v2, line, 0, own, 0);
    TRY("in, to none", cuMemcpyHtoA_v2, nullptr, 0, own, 16);
    TRY("out, past the end", cuMemcpyAtoH_v2, own, line, 0, 257);
    TRY("between, past the end", cuMemcpyAtoA_v2, line, 0, flat_array, 0, 257);
    TRY("to memory that is none", cuMemcpyAtoD_v2, NOWHERE, line, 0, 16);
    TRY("a row past the first of two dimensions", cuMemcpyHtoA_v2, flat_array, 0, own, 512);
    auto with = [&](const char *what, const std::function<void(CUDA_MEMCPY3D &)> &change) {
        CUDA_MEMCPY3D copy = {};
        copy.srcMemoryType = CU_MEMORYTYPE_HOST;
        copy.srcHost = own;
        copy.srcPitch = 256;
        copy.srcHeight = 16;
        copy.dstMemoryType = CU_MEMORYTYPE_ARRAY;
        copy.dstArray = flat_array;
        copy.WidthInBytes = 64;
        copy.Height = 4;
        copy.Depth = 1;
        change(copy);
        TRY(what, cuMemcpy3D_v2, &copy);
    };
    with("as it should be", [](CUDA_MEMCPY3D &) {});
    with("width within an element", [](CUDA_MEMCPY3D &copy) { copy.WidthInBytes = 6; });
    with("start within an element", [](CUDA_MEMCPY3D &copy) { copy.dstXInBytes = 2; });
    with("past its width", [](CUDA_MEMCPY3D &copy) { copy.dstXInBytes = 196; });
    with("past its height", [](CUDA_MEMCPY3D &copy) { copy.dstY = 61; });
    with("past its depth", [](CUDA_MEMCPY3D &copy) { copy.dstZ = 1; });
    with("two slices of one", [](CUDA_MEMCPY3D &copy) { copy.Depth = 2; });
    with("past the depth of a deep one", [=](CUDA_MEMCPY3D &copy) { copy.dstArray = deep, copy.Depth = 4, copy.dstZ = 1; });
    with("a level of one without", [](CUDA_MEMCPY3D &copy) { copy.dstLOD = 1; });
    with("all of it", [](CUDA_MEMCPY3D &copy) { copy.WidthInBytes = copy.Height = copy.Depth = ALL; });
    with("start around the end", [](CUDA_MEMCPY3D &copy) { copy.dstXInBytes = ALL - 3; });
    TRY("the context after that", cuCtxSynchronize);
}

AREA(ended_array, "an array that has ended: destroy") {
    with_context();
    CUarray array = new_array(16, 16);
    NEEDS(cuArrayDestroy, array);
    TRY("destroy", cuArrayDestroy, array);
}
AREA(ended_array_copy, "an array that has ended: copy") {
    with_context();
    CUarray array = new_array(16, 0);
    NEEDS(cuArrayDestroy, array);
    TRY("copy", cuMemcpyHtoA_v2, array, 0, own, 16);
}
AREA(ended_levels, "levels that have ended") {
    CUmipmappedArray levels;
    CUarray level;
    CUDA_ARRAY3D_DESCRIPTOR right = shape(16, 16, 0);
    with_context();
    NEEDS(cuMipmappedArrayCreate, &levels, &right, 3);
    NEEDS(cuMipmappedArrayDestroy, levels);
    TRY("a level", cuMipmappedArrayGetLevel, &level, levels, 0);
}
AREA(ended_level, "a level of levels that have ended") {
    CUmipmappedArray levels;
    CUarray level;
    CUDA_ARRAY3D_DESCRIPTOR right = shape(16, 0, 0);
    with_context();
    NEEDS(cuMipmappedArrayCreate, &levels, &right, 1);
    NEEDS(cuMipmappedArrayGetLevel, &level, levels, 0);
    NEEDS(cuMipmappedArrayDestroy, levels);
    TRY("copy", cuMemcpyHtoA_v2, level, 0, own, 16);
}
