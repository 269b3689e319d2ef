// Texture and surface references, as programs of before CUDA 12 have them: linear memory, rows, arrays and levels that a module's code
// names, surfaces that it writes, and what is told of each setting. nvcc compiles no such code any more, so the PTX is written here.
// `texref answers` prints what the driver itself says where CUDA's documents say nothing, the calls that may crash it last;
// `texref unbound` what is read by a reference that was never bound, `texref unbound again` by one that was; `texref unknown N` what is told
// of the Nth setting that CUDA does not know, and read by it.
#include <cmath>
#include <cstring>
#include <vector>

#define CUDA_ENABLE_DEPRECATED
#define PROGRAM "texref"
#include "driver.h"

#include "texref/code.h"

static const int WIDTH = 8, HEIGHT = 6, COUNT = 64;
static CUmodule module_;
static CUdeviceptr out;

static CUfunction function(const char *name) {
    CUfunction found;
    NEEDS(cuModuleGetFunction, &found, module_, name);
    return found;
}
static CUtexref reference(const char *name) {
    CUtexref found;
    NEEDS(cuModuleGetTexRef, &found, module_, name);
    return found;
}
static CUdeviceptr filled(const std::vector<float> &values) {
    CUdeviceptr memory;
    NEEDS(cuMemAlloc_v2, &memory, 4 * values.size());
    NEEDS(cuMemcpyHtoD_v2, memory, values.data(), 4 * values.size());
    return memory;
}
static std::vector<float> result(size_t count) {
    std::vector<float> all(count);
    NEEDS(cuMemcpyDtoH_v2, all.data(), out, 4 * count);
    return all;
}
static std::vector<float> counted(size_t count, float first) {
    std::vector<float> all(count);
    for (size_t i = 0; i < count; i++) all[i] = first + (float)i;
    return all;
}
static void launch(const char *name, unsigned blocks, unsigned threads, void **params) {
    NEEDS(cuLaunchKernel, function(name), blocks, 1, 1, threads, 1, 1, 0, nullptr, params, nullptr);
}
// `count` elements from index `first` on, to the place `to` of the results.
static void fetch(int first, unsigned count, size_t to = 0) {
    CUdeviceptr at = out + 4 * to;
    void *params[] = {&at, &first};
    launch("fetch", 1, count, params);
}
static void near(const char *what, float got, float wanted, float by) {
    if (!(std::fabs(got - wanted) <= by)) printf("texref: %s: %g, not %g\n", what, got, wanted), failures++;
}

static CUDA_ARRAY3D_DESCRIPTOR shape(size_t width, size_t height, size_t depth, CUarray_format format, unsigned channels,
                                     unsigned flags = 0) {
    CUDA_ARRAY3D_DESCRIPTOR made = {};
    made.Width = width, made.Height = height, made.Depth = depth;
    made.Format = format, made.NumChannels = channels, made.Flags = flags;
    return made;
}
static void copy(CUarray array, void *host, size_t width_bytes, size_t height, size_t depth, bool out_of) {
    CUDA_MEMCPY3D copy = {};
    CUmemorytype from = out_of ? CU_MEMORYTYPE_ARRAY : CU_MEMORYTYPE_HOST, to = out_of ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_ARRAY;
    copy.srcMemoryType = from, copy.dstMemoryType = to;
    copy.srcArray = copy.dstArray = array, copy.srcHost = copy.dstHost = host;
    copy.srcPitch = copy.dstPitch = width_bytes, copy.srcHeight = copy.dstHeight = height;
    copy.WidthInBytes = width_bytes, copy.Height = height, copy.Depth = depth;
    NEEDS(cuMemcpy3D_v2, &copy);
}
static CUarray array_of(const CUDA_ARRAY3D_DESCRIPTOR &made, void *bytes, size_t element) {
    CUarray array;
    NEEDS(cuArray3DCreate_v2, &array, &made);
    copy(array, bytes, made.Width * element, made.Height ? made.Height : 1, made.Depth ? made.Depth : 1, false);
    return array;
}

static float texel(int x, int y) { return (float)(x * x + 10 * y); }
static std::vector<float> picture() {
    std::vector<float> all;
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++) all.push_back(texel(x, y));
    return all;
}
struct Place {
    float x, y;
};
// What `picture` gives there, four channels each.
static std::vector<float> look(const std::vector<Place> &places) {
    CUdeviceptr at;
    NEEDS(cuMemAlloc_v2, &at, places.size() * sizeof(Place));
    NEEDS(cuMemcpyHtoD_v2, at, places.data(), places.size() * sizeof(Place));
    void *params[] = {&at, &out};
    launch("look", (unsigned)places.size() / COUNT, COUNT, params);
    std::vector<float> all = result(4 * places.size());
    NEEDS(cuMemFree_v2, at);
    return all;
}

static void linear() {
    CUtexref row = reference("row");
    std::vector<float> one = counted(4096, 1), other = counted(4096, 10001);
    CUdeviceptr first = filled(one), second = filled(other), told = 0;
    size_t before = 9;
    GIVES(0, cuTexRefSetFormat, row, CU_AD_FORMAT_FLOAT, 1);
    GIVES(0, cuTexRefSetFlags, row, 0);
    GIVES(0, cuTexRefSetAddress_v2, &before, row, first, 4 * one.size());
    expect("bytes before an allocation", before, 0);
    GIVES(0, cuTexRefGetAddress_v2, &told, row);
    expect("the address told", told, first);
    CUarray array;
    GIVES(1, cuTexRefGetArray, &array, row);
    fetch(0, COUNT);
    // Launches keep what was bound when they were queued.
    GIVES(0, cuTexRefSetAddress_v2, &before, row, second, 4 * other.size());
    fetch(100, COUNT, COUNT);
    GIVES(0, cuTexRefSetAddress_v2, nullptr, row, first, 4 * 32);
    fetch(-2, COUNT, 2 * COUNT);
    std::vector<float> got = result(3 * COUNT);
    for (int i = 0; i < COUNT; i++) {
        near("linear memory", got[i], one[i], 0);
        near("other linear memory", got[COUNT + i], other[100 + i], 0);
        near("around linear memory", got[2 * COUNT + i], i < 2 || i >= 34 ? 0 : one[i - 2], 0);
    }
    // From a place where no texture can start it reads from before that, and says how many bytes.
    GIVES(0, cuTexRefSetAddress_v2, &before, row, first + 4 * 100, 4 * 1000);
    expect("whole elements before that", before % 4, 0);
    fetch((int)before / 4, COUNT);
    got = result(COUNT);
    for (int i = 0; i < COUNT; i++) near("within linear memory", got[i], one[100 + i], 0);
    // The format may come after the address.
    GIVES(0, cuTexRefSetAddress_v2, nullptr, row, first, 4 * one.size());
    GIVES(0, cuTexRefSetFormat, row, CU_AD_FORMAT_FLOAT, 2);
    fetch(0, COUNT);
    got = result(COUNT);
    for (int i = 0; i < COUNT; i++) near("pairs", got[i], one[2 * i], 0);
    NEEDS(cuMemFree_v2, first);
    NEEDS(cuMemFree_v2, second);
}

static void rows() {
    CUtexref ref = reference("picture");
    std::vector<float> texels = picture();
    CUdeviceptr memory;
    size_t pitch;
    NEEDS(cuMemAllocPitch_v2, &memory, &pitch, WIDTH * 4, HEIGHT, 4);
    CUDA_MEMCPY2D copy = {};
    copy.srcMemoryType = CU_MEMORYTYPE_HOST, copy.srcHost = texels.data(), copy.srcPitch = WIDTH * 4;
    copy.dstMemoryType = CU_MEMORYTYPE_DEVICE, copy.dstDevice = memory, copy.dstPitch = pitch;
    copy.WidthInBytes = WIDTH * 4, copy.Height = HEIGHT;
    NEEDS(cuMemcpy2D_v2, &copy);
    CUDA_ARRAY_DESCRIPTOR flat = {};
    flat.Width = WIDTH, flat.Height = HEIGHT, flat.Format = CU_AD_FORMAT_FLOAT, flat.NumChannels = 1;
    for (int dimension = 0; dimension < 2; dimension++)
        GIVES(0, cuTexRefSetAddressMode, ref, dimension, CU_TR_ADDRESS_MODE_CLAMP);
    GIVES(0, cuTexRefSetFilterMode, ref, CU_TR_FILTER_MODE_POINT);
    GIVES(0, cuTexRefSetFlags, ref, 0);
    GIVES(0, cuTexRefSetAddress2D_v3, ref, &flat, memory, pitch);
    std::vector<Place> places;
    for (int i = 0; i < COUNT; i++) places.push_back({(float)(i % 10) - 0.5f, (float)(i / 8) - 0.5f});
    std::vector<float> got = look(places);
    for (int i = 0; i < COUNT; i++) {
        int x = (int)std::floor(places[i].x), y = (int)std::floor(places[i].y);
        x = x < 0 ? 0 : x >= WIDTH ? WIDTH - 1 : x, y = y < 0 ? 0 : y >= HEIGHT ? HEIGHT - 1 : y;
        near("rows of memory", got[4 * i], texel(x, y), 0);
    }
    GIVES(1, cuTexRefSetAddress2D_v3, ref, &flat, memory + 4, pitch);
    GIVES(1, cuTexRefSetAddress2D_v3, ref, &flat, memory, pitch + 4);
    NEEDS(cuMemFree_v2, memory);
}

static void arrays() {
    CUtexref ref = reference("picture");
    std::vector<float> texels = picture();
    CUarray array = array_of(shape(WIDTH, HEIGHT, 0, CU_AD_FORMAT_FLOAT, 1), texels.data(), 4), told;
    for (int dimension = 0; dimension < 2; dimension++)
        GIVES(0, cuTexRefSetAddressMode, ref, dimension, CU_TR_ADDRESS_MODE_WRAP);
    GIVES(0, cuTexRefSetFilterMode, ref, CU_TR_FILTER_MODE_LINEAR);
    GIVES(0, cuTexRefSetFlags, ref, CU_TRSF_NORMALIZED_COORDINATES);
    GIVES(0, cuTexRefSetArray, ref, array, CU_TRSA_OVERRIDE_FORMAT);
    GIVES(0, cuTexRefGetArray, &told, ref);
    expect("the array told", told == array, 1);
    CUdeviceptr address;
    GIVES(1, cuTexRefGetAddress_v2, &address, ref);
    // Multiples of 1/16 of an element: weights that hardware has exactly.
    std::vector<Place> places;
    for (int i = 0; i < 4 * COUNT; i++)
        places.push_back({(float)(i * 5 - 64) / 16 / WIDTH, (float)(i * 3 - 32) / 16 / HEIGHT});
    std::vector<float> got = look(places);
    for (int i = 0; i < 4 * COUNT; i++) {
        float x = places[i].x * WIDTH - 0.5f, y = places[i].y * HEIGHT - 0.5f, a = x - std::floor(x), b = y - std::floor(y);
        auto at = [&](int right, int down) {
            int column = (int)std::floor(x) + right, line = (int)std::floor(y) + down;
            return texel((column % WIDTH + WIDTH) % WIDTH, (line % HEIGHT + HEIGHT) % HEIGHT);
        };
        float wanted = (1 - b) * ((1 - a) * at(0, 0) + a * at(1, 0)) + b * ((1 - a) * at(0, 1) + a * at(1, 1));
        // Coordinates are not exact: sixths.
        near("an array between its elements", got[4 * i], wanted, 0.5f);
    }
    // What lies outside, and another array before the first has ended.
    unsigned char bytes[4 * 4 * 4];
    for (int i = 0; i < (int)sizeof bytes; i++) bytes[i] = (unsigned char)(4 * i);
    CUarray small = array_of(shape(4, 4, 0, CU_AD_FORMAT_UNSIGNED_INT8, 4), bytes, 4);
    float border[4] = {0.2f, 0.4f, 0.6f, 1};
    for (int dimension = 0; dimension < 2; dimension++)
        GIVES(0, cuTexRefSetAddressMode, ref, dimension, CU_TR_ADDRESS_MODE_BORDER);
    GIVES(0, cuTexRefSetBorderColor, ref, border);
    GIVES(0, cuTexRefSetFilterMode, ref, CU_TR_FILTER_MODE_POINT);
    GIVES(0, cuTexRefSetArray, ref, small, CU_TRSA_OVERRIDE_FORMAT);
    places.clear();
    for (int i = 0; i < COUNT; i++) places.push_back({((float)(i % 8) - 1.5f) / 4, ((float)(i / 8) - 1.5f) / 4});
    got = look(places);
    for (int i = 0; i < COUNT; i++) {
        int x = (int)std::floor(4 * places[i].x), y = (int)std::floor(4 * places[i].y);
        bool inside = x >= 0 && x < 4 && y >= 0 && y < 4;
        for (int channel = 0; channel < 4; channel++) {
            float wanted = inside ? (float)bytes[4 * (4 * y + x) + channel] / 255 : border[channel];
            near("bytes as fractions, and a border", got[4 * i + channel], wanted, 1e-6f);
        }
    }
    // An array may end while it is bound; the next is read as if nothing were.
    GIVES(0, cuTexRefSetFlags, ref, 0);
    for (int dimension = 0; dimension < 2; dimension++)
        GIVES(0, cuTexRefSetAddressMode, ref, dimension, CU_TR_ADDRESS_MODE_CLAMP);
    NEEDS(cuArrayDestroy, array);
    NEEDS(cuArrayDestroy, small);
    CUarray next = array_of(shape(WIDTH, HEIGHT, 0, CU_AD_FORMAT_FLOAT, 1), texels.data(), 4);
    GIVES(0, cuTexRefSetArray, ref, next, CU_TRSA_OVERRIDE_FORMAT);
    got = look(std::vector<Place>(COUNT, {3.5f, 2.5f}));
    near("an array after one that has ended", got[0], texel(3, 2), 0);
    NEEDS(cuArrayDestroy, next);
}

static void levels() {
    CUtexref ref = reference("picture");
    CUDA_ARRAY3D_DESCRIPTOR made = shape(16, 16, 0, CU_AD_FORMAT_FLOAT, 1);
    CUmipmappedArray mipmap, told;
    NEEDS(cuMipmappedArrayCreate, &mipmap, &made, 3);
    for (int i = 0; i < 3; i++) {
        CUarray array;
        NEEDS(cuMipmappedArrayGetLevel, &array, mipmap, i);
        size_t side = 16 >> i;
        std::vector<float> texels(side * side, 100.0f * (float)(i + 1));
        copy(array, texels.data(), 4 * side, side, 1, false);
    }
    for (int dimension = 0; dimension < 2; dimension++)
        GIVES(0, cuTexRefSetAddressMode, ref, dimension, CU_TR_ADDRESS_MODE_CLAMP);
    GIVES(0, cuTexRefSetFilterMode, ref, CU_TR_FILTER_MODE_LINEAR);
    GIVES(0, cuTexRefSetFlags, ref, CU_TRSF_NORMALIZED_COORDINATES);
    GIVES(0, cuTexRefSetMipmapFilterMode, ref, CU_TR_FILTER_MODE_LINEAR);
    GIVES(0, cuTexRefSetMipmapLevelBias, ref, 0.0f);
    GIVES(0, cuTexRefSetMipmapLevelClamp, ref, 0.0f, 2.0f);
    GIVES(0, cuTexRefSetMaxAnisotropy, ref, 1);
    GIVES(0, cuTexRefSetMipmappedArray, ref, mipmap, CU_TRSA_OVERRIDE_FORMAT);
    GIVES(0, cuTexRefGetMipmappedArray, &told, ref);
    expect("the levels told", told == mipmap, 1);
    for (float which : {0.0f, 1.0f, 1.5f, 2.0f, 9.0f}) {
        void *params[] = {&out, &which};
        launch("level", 1, 1, params);
        near("levels", result(1)[0], 100 * (1 + (which > 2 ? 2 : which)), 0);
    }
    NEEDS(cuMipmappedArrayDestroy, mipmap);
}

static void volumes() {
    CUtexref ref = reference("volume");
    std::vector<float> texels = counted(4 * 4 * 4, 0);
    CUarray array = array_of(shape(4, 4, 4, CU_AD_FORMAT_FLOAT, 1), texels.data(), 4);
    for (int dimension = 0; dimension < 3; dimension++)
        GIVES(0, cuTexRefSetAddressMode, ref, dimension, CU_TR_ADDRESS_MODE_CLAMP);
    GIVES(0, cuTexRefSetFilterMode, ref, CU_TR_FILTER_MODE_POINT);
    GIVES(0, cuTexRefSetFlags, ref, 0);
    GIVES(0, cuTexRefSetArray, ref, array, CU_TRSA_OVERRIDE_FORMAT);
    void *params[] = {&out};
    launch("deep", 1, 4, params);
    std::vector<float> got = result(4);
    for (int i = 0; i < 4; i++) near("a volume", got[i], (float)(16 * i + 4 + i), 0);
    NEEDS(cuArrayDestroy, array);
}

static void surfaces() {
    CUsurfref canvas, again;
    NEEDS(cuModuleGetSurfRef, &canvas, module_, "canvas");
    GIVES(500, cuModuleGetSurfRef, &again, module_, "nobody");
    std::vector<unsigned> texels(WIDTH * HEIGHT), got(WIDTH * HEIGHT);
    CUDA_ARRAY3D_DESCRIPTOR made = shape(WIDTH, HEIGHT, 0, CU_AD_FORMAT_UNSIGNED_INT32, 1, CUDA_ARRAY3D_SURFACE_LDST);
    for (unsigned round = 0; round < 3; round++) {
        for (int i = 0; i < WIDTH * HEIGHT; i++) texels[i] = 1000 * round + (unsigned)i;
        CUarray array = array_of(made, texels.data(), 4), told;
        GIVES(0, cuSurfRefSetArray, canvas, array, 0);
        GIVES(0, cuSurfRefGetArray, &told, canvas);
        expect("the surface's array told", told == array, 1);
        void *params[] = {&round};
        launch("paint", HEIGHT, WIDTH, params);
        copy(array, got.data(), 4 * WIDTH, HEIGHT, 1, true);
        for (int i = 0; i < WIDTH * HEIGHT; i++) expect("a surface", got[i], 2 * texels[i] + round);
        // Bound still: the next round binds another one.
        NEEDS(cuArrayDestroy, array);
    }
}

#include "texref/settings.h"

static void unbound_at_the_end() {
    // A module ends while an array is bound in it, and the array after it.
    std::vector<float> texels = picture();
    CUarray array = array_of(shape(WIDTH, HEIGHT, 0, CU_AD_FORMAT_FLOAT, 1), texels.data(), 4);
    GIVES(0, cuTexRefSetArray, reference("picture"), array, CU_TRSA_OVERRIDE_FORMAT);
    NEEDS(cuModuleUnload, module_);
    NEEDS(cuArrayDestroy, array);
    NEEDS(cuModuleLoadData, &module_, CODE);
    CUdeviceptr memory = filled(counted(256, 7));
    GIVES(0, cuTexRefSetFormat, reference("row"), CU_AD_FORMAT_FLOAT, 1);
    GIVES(0, cuTexRefSetAddress_v2, nullptr, reference("row"), memory, 1024);
    fetch(5, 1);
    near("a module loaded again", result(1)[0], 12, 0);
    NEEDS(cuMemFree_v2, memory);
}

#include "texref/answers.h"

int main(int count, char **words) {
    CUdevice device;
    CUcontext context;
    NEEDS(cuInit, 0);
    NEEDS(cuDeviceGet, &device, 0);
    NEEDS(cuDevicePrimaryCtxRetain, &context, device);
    NEEDS(cuCtxSetCurrent, context);
    NEEDS(cuModuleLoadData, &module_, CODE);
    NEEDS(cuMemAlloc_v2, &out, 16 * 4 * COUNT);
    const char *asked = count > 1 ? words[1] : "";
    if (!strcmp(asked, "answers")) return answers(), 0;
    if (!strcmp(asked, "unbound")) return unbound(count > 2), 0;
    if (!strcmp(asked, "unknown")) return unknown(count > 2 ? atoi(words[2]) : 0), 0;
    linear();
    rows();
    arrays();
    levels();
    volumes();
    surfaces();
    settings();
    unbound_at_the_end();
    NEEDS(cuMemFree_v2, out);
    NEEDS(cuModuleUnload, module_);
    if (failures) return printf("texref: %d wrong\n", failures), 1;
    printf("texref: ok, references to linear memory, rows, arrays, levels, volumes and surfaces read and write what is bound\n");
    return 0;
}
