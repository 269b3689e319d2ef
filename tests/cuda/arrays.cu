// CUDA arrays by the driver API: shapes and what they tell, copies of every kind between arrays, device and host memory, levels, what is
// refused and how. `arrays answers` prints what the driver itself says of sizes, numbers and doubtful calls, for the record.
#include <cstring>
#include <unistd.h>
#include <vector>

#define PROGRAM "arrays"
#include "driver.h"

static CUDA_ARRAY3D_DESCRIPTOR deep(size_t width, size_t height, size_t depth, CUarray_format format, unsigned channels,
                                    unsigned flags = 0) {
    CUDA_ARRAY3D_DESCRIPTOR shape = {};
    shape.Width = width;
    shape.Height = height;
    shape.Depth = depth;
    shape.Format = format;
    shape.NumChannels = channels;
    shape.Flags = flags;
    return shape;
}

static std::vector<unsigned char> pattern(size_t bytes) {
    std::vector<unsigned char> all(bytes);
    for (size_t i = 0; i < bytes; i++) all[i] = (unsigned char)(i * 7 + i / 251 + 1);
    return all;
}

struct Place {
    CUmemorytype kind;
    void *host;
    CUdeviceptr device;
    CUarray array;
    size_t x, y, z, pitch, height;
};
static Place on_host(void *host, size_t pitch, size_t height) {
    return {CU_MEMORYTYPE_HOST, host, 0, nullptr, 0, 0, 0, pitch, height};
}
static Place on_device(CUdeviceptr device, size_t pitch, size_t height) {
    return {CU_MEMORYTYPE_DEVICE, nullptr, device, nullptr, 0, 0, 0, pitch, height};
}
static Place in_array(CUarray array, size_t x = 0, size_t y = 0, size_t z = 0) {
    return {CU_MEMORYTYPE_ARRAY, nullptr, 0, array, x, y, z, 0, 0};
}

static int copy(const Place &to, const Place &from, size_t width, size_t height, size_t depth, CUstream stream = nullptr) {
    CUDA_MEMCPY3D copy = {};
    copy.srcMemoryType = from.kind, copy.srcHost = from.host, copy.srcDevice = from.device, copy.srcArray = from.array;
    copy.srcXInBytes = from.x, copy.srcY = from.y, copy.srcZ = from.z, copy.srcPitch = from.pitch, copy.srcHeight = from.height;
    copy.dstMemoryType = to.kind, copy.dstHost = to.host, copy.dstDevice = to.device, copy.dstArray = to.array;
    copy.dstXInBytes = to.x, copy.dstY = to.y, copy.dstZ = to.z, copy.dstPitch = to.pitch, copy.dstHeight = to.height;
    copy.WidthInBytes = width, copy.Height = height, copy.Depth = depth;
    return stream ? CALL(cuMemcpy3DAsync_v2, &copy, stream) : CALL(cuMemcpy3D_v2, &copy);
}

static void shapes() {
    struct {
        CUDA_ARRAY3D_DESCRIPTOR shape;
        int wanted;
    } cases[] = {
        {deep(100, 0, 0, CU_AD_FORMAT_FLOAT, 1), 0},
        {deep(100, 50, 0, CU_AD_FORMAT_UNSIGNED_INT8, 4, CUDA_ARRAY3D_SURFACE_LDST), 0},
        {deep(100, 50, 7, CU_AD_FORMAT_HALF, 2), 0},
        {deep(100, 0, 7, CU_AD_FORMAT_SIGNED_INT16, 1, CUDA_ARRAY3D_LAYERED), 0},
        {deep(100, 50, 7, CU_AD_FORMAT_SIGNED_INT32, 4, CUDA_ARRAY3D_LAYERED), 0},
        {deep(64, 64, 6, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_CUBEMAP), 0},
        {deep(64, 64, 12, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_CUBEMAP | CUDA_ARRAY3D_LAYERED), 0},
        {deep(64, 64, 0, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_TEXTURE_GATHER), 0},
        {deep(64, 64, 0, CU_AD_FORMAT_UNORM_INT8X2, 2), 0},
        {deep(0, 0, 0, CU_AD_FORMAT_FLOAT, 1), 1},
        {deep(64, 0, 7, CU_AD_FORMAT_FLOAT, 1), 1},
        {deep(64, 64, 0, CU_AD_FORMAT_FLOAT, 3), 1},
        {deep(64, 64, 0, (CUarray_format)0x77, 1), 1},
        {deep(64, 32, 6, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_CUBEMAP), 1},
        {deep(1 << 20, 0, 0, CU_AD_FORMAT_FLOAT, 1), 1},
        {deep(64, 64, 0, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_LAYERED), 1},
    };
    for (auto &each : cases) {
        CUarray array = nullptr;
        GIVES(each.wanted, cuArray3DCreate_v2, &array, &each.shape);
        if (each.wanted) continue;
        CUDA_ARRAY3D_DESCRIPTOR told;
        GIVES(0, cuArray3DGetDescriptor_v2, &told, array);
        expect("what it tells", memcmp(&told, &each.shape, offsetof(CUDA_ARRAY3D_DESCRIPTOR, Flags) + 4), 0);
        CUDA_ARRAY_SPARSE_PROPERTIES sparse;
        GIVES(1, cuArrayGetSparseProperties, &sparse, array);
        CUDA_ARRAY_MEMORY_REQUIREMENTS needs;
        GIVES(1, cuArrayGetMemoryRequirements, &needs, array, 0);
        CUarray plane;
        GIVES(1, cuArrayGetPlane, &plane, array, 0);
        GIVES(0, cuArrayDestroy, array);
    }
    CUDA_ARRAY_DESCRIPTOR flat = {}, told;
    flat.Width = 30, flat.Height = 20, flat.Format = CU_AD_FORMAT_UNSIGNED_INT16, flat.NumChannels = 2;
    CUarray array;
    GIVES(0, cuArrayCreate_v2, &array, &flat);
    GIVES(0, cuArrayGetDescriptor_v2, &told, array);
    expect("what a flat one tells", told.Width == 30 && told.Height == 20 && told.NumChannels == 2, 1);
    GIVES(0, cuArrayDestroy, array);
    size_t most = 0;
    GIVES(0, cuDeviceGetTexture1DLinearMaxWidth, &most, CU_AD_FORMAT_FLOAT, 1, 0);
    expect("a linear texture's length", most >= 1 << 27, 1);
    GIVES(1, cuDeviceGetTexture1DLinearMaxWidth, &most, CU_AD_FORMAT_FLOAT, 3, 0);
}

static void boxes() {
    // 50 x 40 x 6 elements of 8 bytes; boxes of 30 x 20 x 3.
    CUDA_ARRAY3D_DESCRIPTOR shape = deep(50, 40, 6, CU_AD_FORMAT_FLOAT, 2), layered = shape;
    layered.Flags = CUDA_ARRAY3D_LAYERED;
    CUarray one, other;
    GIVES(0, cuArray3DCreate_v2, &one, &shape);
    GIVES(0, cuArray3DCreate_v2, &other, &layered);
    const size_t width = 240, height = 20, depth = 3, pitch = 400, rows = 40;
    std::vector<unsigned char> source = pattern(pitch * rows * 6), back(width * height * depth);
    CUdeviceptr block;
    GIVES(0, cuMemAlloc_v2, &block, pitch * rows * 6);
    CUstream stream;
    GIVES(0, cuStreamCreate, &stream, CU_STREAM_NON_BLOCKING);
    expect("all of it", copy(in_array(one), on_host(source.data(), pitch, rows), pitch, rows, 6), 0);
    expect("between arrays", copy(in_array(other, 80, 5, 2), in_array(one, 16, 3, 1), width, height, depth), 0);
    expect("to the device", copy(on_device(block, 512, 25), in_array(other, 80, 5, 2), width, height, depth), 0);
    expect("from the device", copy(in_array(other, 0, 0, 0), on_device(block, 512, 25), width, height, depth, stream), 0);
    GIVES(0, cuStreamSynchronize, stream);
    expect("to the host", copy(on_host(back.data(), width, height), in_array(other), width, height, depth), 0);
    int wrong = 0;
    for (size_t z = 0; z < depth; z++)
        for (size_t y = 0; y < height; y++)
            wrong += memcmp(&back[(z * height + y) * width], &source[((z + 1) * rows + y + 3) * pitch + 16], width) != 0;
    expect("rows that came back otherwise", wrong, 0);
    expect("past a row", copy(in_array(one, 168), on_host(back.data(), width, height), width, height, 1), 1);
    expect("past the rows", copy(in_array(one, 0, 21), on_host(back.data(), width, height), width, height, 1), 1);
    expect("past the slices", copy(in_array(one, 0, 0, 4), on_host(back.data(), width, height), width, height, depth), 1);
    // Two dimensions, by both forms.
    CUDA_MEMCPY2D flat = {};
    std::vector<unsigned char> row(width);
    flat.srcMemoryType = CU_MEMORYTYPE_ARRAY, flat.srcArray = one, flat.srcXInBytes = 8, flat.srcY = 39;
    flat.dstMemoryType = CU_MEMORYTYPE_HOST, flat.dstHost = row.data(), flat.dstPitch = width;
    flat.WidthInBytes = width, flat.Height = 1;
    GIVES(0, cuMemcpy2DUnaligned_v2, &flat);
    expect("the last row", memcmp(row.data(), &source[39 * pitch + 8], width), 0);
    GIVES(0, cuMemcpy2D_v2, &flat);
    GIVES(0, cuMemFree_v2, block);
    GIVES(0, cuStreamDestroy_v2, stream);
    GIVES(0, cuArrayDestroy, one);
    GIVES(0, cuArrayDestroy, other);
    // Large enough to go in pieces: 4 MB.
    CUDA_ARRAY3D_DESCRIPTOR large = deep(1024, 256, 0, CU_AD_FORMAT_UNSIGNED_INT32, 4);
    std::vector<unsigned char> much = pattern(1024 * 256 * 16), again(much.size());
    GIVES(0, cuArray3DCreate_v2, &one, &large);
    expect("much there", copy(in_array(one), on_host(much.data(), 16384, 256), 16384, 256, 1), 0);
    expect("and back", copy(on_host(again.data(), 16384, 256), in_array(one), 16384, 256, 1), 0);
    expect("the same", memcmp(much.data(), again.data(), much.size()), 0);
    GIVES(0, cuArrayDestroy, one);
}

static void rows() {
    CUDA_ARRAY3D_DESCRIPTOR floats = deep(256, 0, 0, CU_AD_FORMAT_FLOAT, 1), words = deep(256, 0, 0, CU_AD_FORMAT_SIGNED_INT32, 1);
    CUarray one, other;
    GIVES(0, cuArray3DCreate_v2, &one, &floats);
    GIVES(0, cuArray3DCreate_v2, &other, &words);
    std::vector<unsigned char> source = pattern(1024), back(1024);
    CUdeviceptr block;
    GIVES(0, cuMemAlloc_v2, &block, 1024);
    GIVES(0, cuMemcpyHtoA_v2, one, 0, source.data(), 1024);
    GIVES(0, cuMemcpyAtoA_v2, other, 0, one, 0, 1024);
    GIVES(0, cuMemcpyAtoD_v2, block, other, 256, 512);
    GIVES(0, cuMemcpyDtoA_v2, one, 512, block, 512);
    GIVES(0, cuMemcpyAtoH_v2, back.data(), one, 512, 512);
    expect("a row's way", memcmp(back.data(), &source[256], 512), 0);
    GIVES(0, cuMemcpyHtoAAsync_v2, one, 0, source.data(), 512, nullptr);
    GIVES(0, cuMemcpyAtoHAsync_v2, back.data(), one, 0, 512, nullptr);
    GIVES(0, cuCtxSynchronize);
    expect("a row's way in a stream", memcmp(back.data(), source.data(), 512), 0);
    GIVES(1, cuMemcpyHtoA_v2, one, 1020, source.data(), 8);
    GIVES(0, cuMemFree_v2, block);
    GIVES(0, cuArrayDestroy, one);
    GIVES(0, cuArrayDestroy, other);
}

static void levels() {
    CUDA_ARRAY3D_DESCRIPTOR shape = deep(64, 32, 0, CU_AD_FORMAT_UNSIGNED_INT8, 1), told;
    CUmipmappedArray whole;
    CUarray level, again;
    GIVES(0, cuMipmappedArrayCreate, &whole, &shape, 99);
    GIVES(0, cuMipmappedArrayGetLevel, &level, whole, 6);
    GIVES(1, cuMipmappedArrayGetLevel, &level, whole, 7);
    GIVES(0, cuMipmappedArrayGetLevel, &level, whole, 2);
    GIVES(0, cuMipmappedArrayGetLevel, &again, whole, 2);
    GIVES(0, cuArray3DGetDescriptor_v2, &told, level);
    expect("a level's sides", told.Width == 16 && told.Height == 8, 1);
    std::vector<unsigned char> source = pattern(128), back(128);
    expect("a level there", copy(in_array(level), on_host(source.data(), 16, 8), 16, 8, 1), 0);
    expect("and back", copy(on_host(back.data(), 16, 8), in_array(again), 16, 8, 1), 0);
    expect("the same", memcmp(source.data(), back.data(), 128), 0);
    CUDA_ARRAY_SPARSE_PROPERTIES sparse;
    GIVES(1, cuMipmappedArrayGetSparseProperties, &sparse, whole);
    CUDA_ARRAY_MEMORY_REQUIREMENTS needs;
    GIVES(1, cuMipmappedArrayGetMemoryRequirements, &needs, whole, 0);
    GIVES(0, cuMipmappedArrayDestroy, whole);
}

static void memory() {
    size_t before, during, after, total, tries = 0;
    CUDA_ARRAY3D_DESCRIPTOR shape = deep(1024, 1024, 0, CU_AD_FORMAT_FLOAT, 4), impossible = deep(16384, 16384, 16384, CU_AD_FORMAT_FLOAT, 4);
    CUarray array, none;
    // A GPU that others use, too, is no measure at each look; nor does a driver give all back that it took beside the array.
    const auto counted = [&] { return before >= during + (16 << 20); };
    const auto given_back = [&] { return after >= during + (16 << 20); };
    do {
        usleep(tries * 100'000);
        GIVES(0, cuMemGetInfo_v2, &before, &total);
        GIVES(0, cuArray3DCreate_v2, &array, &shape);
        GIVES(0, cuMemGetInfo_v2, &during, &total);
        GIVES(2, cuArray3DCreate_v2, &none, &impossible);
        GIVES(0, cuArrayDestroy, array);
        GIVES(0, cuMemGetInfo_v2, &after, &total);
    } while (!(counted() && given_back()) && ++tries < 5);
    expect("an array is counted", counted(), 1);
    expect("and no more when it has ended", given_back(), 1);
}

// What a driver says where CUDA's documents do not: by eye, native beside vgpu.
static void answers() {
    const CUDA_ARRAY3D_DESCRIPTOR shapes[] = {
        deep(1, 0, 0, CU_AD_FORMAT_UNSIGNED_INT8, 1), deep(4096, 0, 0, CU_AD_FORMAT_FLOAT, 1),
        deep(16, 16, 0, CU_AD_FORMAT_FLOAT, 1),       deep(100, 100, 0, CU_AD_FORMAT_FLOAT, 1),
        deep(1000, 1000, 0, CU_AD_FORMAT_FLOAT, 4),   deep(4096, 4096, 0, CU_AD_FORMAT_UNSIGNED_INT8, 1),
        deep(33, 33, 33, CU_AD_FORMAT_FLOAT, 1),      deep(256, 256, 256, CU_AD_FORMAT_HALF, 1),
        deep(256, 256, 64, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_LAYERED),
    };
    for (const auto &shape : shapes) {
        CUDA_ARRAY3D_DESCRIPTOR deferred = shape;
        deferred.Flags |= CUDA_ARRAY3D_DEFERRED_MAPPING;
        CUDA_ARRAY_MEMORY_REQUIREMENTS needs = {};
        CUarray array = nullptr, many[64] = {};
        int code = CALL(cuArray3DCreate_v2, &array, &deferred), asked = -1;
        if (!code) {
            asked = CALL(cuArrayGetMemoryRequirements, &needs, array, 0);
            CALL(cuArrayDestroy, array);
        }
        size_t before, after, total;
        CALL(cuMemGetInfo_v2, &before, &total);
        for (CUarray &each : many) CALL(cuArray3DCreate_v2, &each, &shape);
        CALL(cuMemGetInfo_v2, &after, &total);
        printf("arrays: %zu x %zu x %zu format %x: deferred %d, asked %d: %zu bytes at %zu; %zu bytes each of 64\n", shape.Width,
               shape.Height, shape.Depth, shape.Format, code, asked, needs.size, needs.alignment, (before - after) / 64);
        for (CUarray each : many) CALL(cuArrayDestroy, each);
    }
    CUDA_ARRAY3D_DESCRIPTOR flat = deep(64, 64, 0, CU_AD_FORMAT_FLOAT, 1);
    CUarray array, level, again;
    CUmipmappedArray whole;
    std::vector<unsigned char> bytes(65536);
    CALL(cuArray3DCreate_v2, &array, &flat);
    printf("arrays: a row past the first of two dimensions: %d, from offset 256: %d\n",
           CALL(cuMemcpyHtoA_v2, array, 0, bytes.data(), 512), CALL(cuMemcpyHtoA_v2, array, 256, bytes.data(), 64));
    printf("arrays: width within an element: %d, start: %d\n", copy(in_array(array), on_host(bytes.data(), 64, 1), 6, 1, 1),
           copy(in_array(array, 2), on_host(bytes.data(), 64, 1), 8, 1, 1));
    CALL(cuMipmappedArrayCreate, &whole, &flat, 3);
    CALL(cuMipmappedArrayGetLevel, &level, whole, 1);
    CALL(cuMipmappedArrayGetLevel, &again, whole, 1);
    printf("arrays: a level has one name: %d; zero levels: %d\n", level == again, CALL(cuMipmappedArrayCreate, &whole, &flat, 0));
    CUDA_ARRAY3D_DESCRIPTOR gather = deep(64, 64, 4, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_TEXTURE_GATHER);
    printf("arrays: gather of layers: %d\n", CALL(cuArray3DCreate_v2, &array, &gather));
}

int main(int count, char **words) {
    CUdevice device;
    CUcontext context;
    GIVES(0, cuInit, 0);
    GIVES(0, cuDeviceGet, &device, 0);
    GIVES(0, cuDevicePrimaryCtxRetain, &context, device);
    GIVES(0, cuCtxSetCurrent, context);
    if (count > 1 && !strcmp(words[1], "answers")) {
        answers();
        return 0;
    }
    shapes();
    boxes();
    rows();
    levels();
    memory();
    GIVES(0, cuCtxSynchronize);
    printf("arrays: %s\n", failures ? "wrong" : "ok, shapes, copies, levels and refusals as documented");
    return failures ? 1 : 0;
}
