// Texture and surface objects by the runtime: every kind of resource, filter, address mode and format against the same on the CPU, and
// surfaces that are written and read. `textures answers` prints the numbers that objects get.
#define PROGRAM "textures"
#include "check.h"
#include <cmath>
#include <cstring>
#include <vector>

static int failures = 0;
static void expect(const char *what, float got, float wanted, float by = 0) {
    bool right = got == wanted || std::fabs(got - wanted) <= by;
    if (!right) printf("textures: %s: %g, not %g\n", what, got, wanted);
    failures += !right;
}

// One thread a point.
__global__ void read_1d(cudaTextureObject_t t, const float *at, float *out, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) out[i] = tex1D<float>(t, at[i]);
}
__global__ void read_2d(cudaTextureObject_t t, const float *x, const float *y, float *out, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) out[i] = tex2D<float>(t, x[i], y[i]);
}
__global__ void read_3d(cudaTextureObject_t t, const float *x, const float *y, float *out, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) out[i] = tex3D<float>(t, x[i], y[i], x[i]);
}
__global__ void read_layers(cudaTextureObject_t t, const float *x, const float *y, float *out, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) out[i] = tex2DLayered<float>(t, x[i], y[i], i % 3);
}
__global__ void read_level(cudaTextureObject_t t, const float *levels, float *out, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) out[i] = tex2DLod<float>(t, 0.5f, 0.5f, levels[i]);
}
__global__ void fetch(cudaTextureObject_t t, float *out, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) out[i] = tex1Dfetch<float>(t, i - 2);
}
__global__ void gather(cudaTextureObject_t t, float4 *out) { *out = tex2Dgather<float4>(t, 3.f, 2.f, 0); }
__global__ void four(cudaTextureObject_t t, float4 *out) { out[threadIdx.x] = tex2D<float4>(t, threadIdx.x + 0.5f, 1.5f); }
__global__ void four_integers(cudaTextureObject_t t, int4 *out) { out[threadIdx.x] = tex2D<int4>(t, threadIdx.x + 0.5f, 1.5f); }
__global__ void twice(cudaSurfaceObject_t from, cudaSurfaceObject_t to, int width, int height) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < width && y < height) surf2Dwrite(2 * surf2Dread<float>(from, x * 4, y), to, x * 4, y);
}
__global__ void slices(cudaSurfaceObject_t s, int width) {
    for (int x = 0; x < width; x++) surf3Dwrite(make_float2(x, threadIdx.x), s, x * 8, 1, threadIdx.x);
}

static const int WIDTH = 8, HEIGHT = 6;
static float texel(int x, int y) { return (float)(x * x + 10 * y); }

static int place(cudaTextureAddressMode mode, int i, int size) {
    int wrapped = ((i % size) + size) % size, mirrored = ((i % (2 * size)) + 2 * size) % (2 * size);
    switch (mode) {
    case cudaAddressModeWrap: return wrapped;
    case cudaAddressModeMirror: return mirrored < size ? mirrored : 2 * size - 1 - mirrored;
    case cudaAddressModeBorder: return i < 0 || i >= size ? -1 : i;
    default: return i < 0 ? 0 : i >= size ? size - 1 : i;
    }
}
static float outside(const cudaTextureDesc &d, int x, int y) {
    x = place(d.addressMode[0], x, WIDTH), y = place(d.addressMode[1], y, HEIGHT);
    return x < 0 || y < 0 ? d.borderColor[0] : texel(x, y);
}
static float on_cpu(const cudaTextureDesc &d, float x, float y) {
    if (d.normalizedCoords) x *= WIDTH, y *= HEIGHT;
    if (d.filterMode == cudaFilterModePoint) return outside(d, (int)std::floor(x), (int)std::floor(y));
    float bx = std::floor(x - 0.5f), by = std::floor(y - 0.5f), a = x - 0.5f - bx, b = y - 0.5f - by;
    float low = (1 - a) * outside(d, (int)bx, (int)by) + a * outside(d, (int)bx + 1, (int)by);
    float high = (1 - a) * outside(d, (int)bx, (int)by + 1) + a * outside(d, (int)bx + 1, (int)by + 1);
    return (1 - b) * low + b * high;
}

struct Points {
    std::vector<float> x, y;
    float *dx, *dy, *out;
    int count;
    // Multiples of 1/16 of an element: weights that hardware has exactly.
    explicit Points(bool normalized) : count(2000) {
        unsigned state = 1;
        for (int i = 0; i < count; i++) {
            float px = (float)(next_random(state) % (WIDTH * 48)) / 16 - WIDTH, py = (float)(next_random(state) % (HEIGHT * 48)) / 16 - HEIGHT;
            x.push_back(normalized ? px / WIDTH : px);
            y.push_back(normalized ? py / HEIGHT : py);
        }
        MUST(cudaMalloc(&dx, 4 * count));
        MUST(cudaMalloc(&dy, 4 * count));
        MUST(cudaMalloc(&out, 4 * count));
        MUST(cudaMemcpy(dx, x.data(), 4 * count, cudaMemcpyHostToDevice));
        MUST(cudaMemcpy(dy, y.data(), 4 * count, cudaMemcpyHostToDevice));
    }
    std::vector<float> result() {
        std::vector<float> all(count);
        MUST(cudaGetLastError());
        MUST(cudaMemcpy(all.data(), out, 4 * count, cudaMemcpyDeviceToHost));
        return all;
    }
    ~Points() {
        cudaFree(dx);
        cudaFree(dy);
        cudaFree(out);
    }
};

static cudaTextureObject_t texture(const cudaResourceDesc &resource, const cudaTextureDesc &how) {
    cudaTextureObject_t object;
    MUST(cudaCreateTextureObject(&object, &resource, &how, nullptr));
    return object;
}

static std::vector<float> picture() {
    std::vector<float> all;
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++) all.push_back(texel(x, y));
    return all;
}

static void two_dimensions() {
    cudaChannelFormatDesc floats = cudaCreateChannelDesc<float>();
    cudaArray_t array;
    std::vector<float> all = picture();
    MUST(cudaMallocArray(&array, &floats, WIDTH, HEIGHT));
    MUST(cudaMemcpy2DToArray(array, 0, 0, all.data(), WIDTH * 4, WIDTH * 4, HEIGHT, cudaMemcpyHostToDevice));
    cudaResourceDesc in_array = {}, pitched = {};
    in_array.resType = cudaResourceTypeArray;
    in_array.res.array.array = array;
    void *rows;
    size_t pitch;
    MUST(cudaMallocPitch(&rows, &pitch, WIDTH * 4, HEIGHT));
    MUST(cudaMemcpy2D(rows, pitch, all.data(), WIDTH * 4, WIDTH * 4, HEIGHT, cudaMemcpyHostToDevice));
    pitched.resType = cudaResourceTypePitch2D;
    pitched.res.pitch2D.devPtr = rows;
    pitched.res.pitch2D.desc = floats;
    pitched.res.pitch2D.width = WIDTH;
    pitched.res.pitch2D.height = HEIGHT;
    pitched.res.pitch2D.pitchInBytes = pitch;
    const cudaTextureAddressMode modes[] = {cudaAddressModeClamp, cudaAddressModeBorder, cudaAddressModeWrap, cudaAddressModeMirror};
    for (int which = 0; which < 32; which++) {
        cudaTextureDesc how = {};
        how.normalizedCoords = which & 1;
        how.filterMode = which & 2 ? cudaFilterModeLinear : cudaFilterModePoint;
        how.addressMode[0] = how.addressMode[1] = modes[which >> 2 & 3];
        how.borderColor[0] = 5;
        if (!how.normalizedCoords && (which >> 2 & 3) > 1) continue; // Only normalized coordinates wrap.
        Points points(how.normalizedCoords);
        cudaTextureObject_t object = texture(which & 16 ? pitched : in_array, how);
        read_2d<<<(points.count + 127) / 128, 128>>>(object, points.dx, points.dy, points.out, points.count);
        std::vector<float> got = points.result();
        int wrong = 0;
        for (int i = 0; i < points.count; i++) {
            float wanted = on_cpu(how, points.x[i], points.y[i]);
            // A normalized coordinate may be a hair beside the border of two elements, or a 256th beside its weight.
            bool near = std::fabs(got[i] - wanted) <= (how.filterMode == cudaFilterModeLinear ? 0.5f : 0);
            if (!near && how.normalizedCoords && how.filterMode == cudaFilterModePoint) {
                float hair = 1e-3f / WIDTH;
                for (int side = 0; side < 4; side++)
                    near |= got[i] == on_cpu(how, points.x[i] + (side & 1 ? hair : -hair), points.y[i] + (side & 2 ? hair : -hair));
            }
            wrong += !near;
        }
        char name[64];
        snprintf(name, sizeof(name), "points of two dimensions, way %d", which);
        expect(name, (float)wrong, 0);
        MUST(cudaDestroyTextureObject(object));
    }
    // What it was made of comes back.
    cudaTextureDesc how = {}, told;
    how.addressMode[0] = cudaAddressModeClamp;
    cudaTextureObject_t object = texture(in_array, how);
    cudaResourceDesc what;
    MUST(cudaGetTextureObjectResourceDesc(&what, object));
    MUST(cudaGetTextureObjectTextureDesc(&told, object));
    expect("its array", what.res.array.array == array, 1);
    expect("its address mode", told.addressMode[0], cudaAddressModeClamp);
    MUST(cudaDestroyTextureObject(object));
    MUST(cudaFreeArray(array));
    MUST(cudaFree(rows));
}

static void other_dimensions() {
    cudaChannelFormatDesc floats = cudaCreateChannelDesc<float>();
    cudaTextureDesc how = {};
    how.addressMode[0] = how.addressMode[1] = how.addressMode[2] = cudaAddressModeClamp;
    how.filterMode = cudaFilterModeLinear;
    // One dimension, a row of i squared.
    float row[WIDTH];
    for (int i = 0; i < WIDTH; i++) row[i] = texel(i, 0);
    cudaArray_t array;
    MUST(cudaMallocArray(&array, &floats, WIDTH));
    MUST(cudaMemcpy2DToArray(array, 0, 0, row, sizeof(row), sizeof(row), 1, cudaMemcpyHostToDevice));
    cudaResourceDesc resource = {};
    resource.resType = cudaResourceTypeArray;
    resource.res.array.array = array;
    Points points(false);
    cudaTextureObject_t object = texture(resource, how);
    read_1d<<<(points.count + 127) / 128, 128>>>(object, points.dx, points.out, points.count);
    std::vector<float> got = points.result();
    for (int i = 0; i < points.count && failures < 10; i++)
        expect("a point of one dimension", got[i], on_cpu(how, points.x[i], 0.5f), 0.25f);
    MUST(cudaDestroyTextureObject(object));
    MUST(cudaFreeArray(array));
    // Three dimensions and layers: slice z is the picture plus 100 z.
    std::vector<float> all;
    for (int z = 0; z < 3; z++)
        for (float value : picture()) all.push_back(value + 100 * z);
    for (unsigned flags : {0u, (unsigned)cudaArrayLayered}) {
        MUST(cudaMalloc3DArray(&array, &floats, make_cudaExtent(WIDTH, HEIGHT, 3), flags));
        cudaMemcpy3DParms copy = {};
        copy.srcPtr = make_cudaPitchedPtr(all.data(), WIDTH * 4, WIDTH, HEIGHT);
        copy.dstArray = array;
        copy.extent = make_cudaExtent(WIDTH, HEIGHT, 3);
        copy.kind = cudaMemcpyHostToDevice;
        MUST(cudaMemcpy3D(&copy));
        resource.res.array.array = array;
        object = texture(resource, how);
        if (flags) read_layers<<<(points.count + 127) / 128, 128>>>(object, points.dx, points.dy, points.out, points.count);
        else read_3d<<<(points.count + 127) / 128, 128>>>(object, points.dx, points.dy, points.out, points.count);
        got = points.result();
        for (int i = 0; i < points.count && failures < 10; i++) {
            float z = std::fmin(std::fmax(points.x[i] - 0.5f, 0), 2), slice = flags ? i % 3 : z;
            expect(flags ? "a point of a layer" : "a point of three dimensions", got[i],
                   on_cpu(how, points.x[i], points.y[i]) + 100 * slice, 1.0f);
        }
        MUST(cudaDestroyTextureObject(object));
        MUST(cudaFreeArray(array));
    }
}

static void linear_memory() {
    const int count = 100;
    float values[count], *memory, *out, got[count + 4];
    for (int i = 0; i < count; i++) values[i] = i + 0.5f;
    MUST(cudaMalloc(&memory, sizeof(values)));
    MUST(cudaMalloc(&out, sizeof(got)));
    MUST(cudaMemcpy(memory, values, sizeof(values), cudaMemcpyHostToDevice));
    cudaResourceDesc resource = {};
    resource.resType = cudaResourceTypeLinear;
    resource.res.linear.devPtr = memory;
    resource.res.linear.desc = cudaCreateChannelDesc<float>();
    resource.res.linear.sizeInBytes = sizeof(values);
    cudaTextureDesc how = {};
    cudaTextureObject_t object = texture(resource, how);
    fetch<<<1, count + 4>>>(object, out, count + 4);
    MUST(cudaGetLastError());
    MUST(cudaMemcpy(got, out, sizeof(got), cudaMemcpyDeviceToHost));
    for (int i = 0; i < count + 4; i++) expect("an element of a row", got[i], i < 2 || i >= count + 2 ? 0 : values[i - 2]);
    MUST(cudaDestroyTextureObject(object));
    MUST(cudaFree(memory));
    MUST(cudaFree(out));
}

static void formats_and_gathers() {
    uchar4 bytes[4][8];
    for (int y = 0; y < 4; y++)
        for (int x = 0; x < 8; x++) bytes[y][x] = make_uchar4(x * 30, y * 50, 255, 128 + x);
    cudaChannelFormatDesc format = cudaCreateChannelDesc<uchar4>(), integers = cudaCreateChannelDesc<char4>();
    cudaArray_t array, as_integers;
    MUST(cudaMallocArray(&array, &format, 8, 4));
    MUST(cudaMallocArray(&as_integers, &integers, 8, 4));
    MUST(cudaMemcpy2DToArray(array, 0, 0, bytes, 32, 32, 4, cudaMemcpyHostToDevice));
    MUST(cudaMemcpy2DArrayToArray(as_integers, 0, 0, array, 0, 0, 32, 4, cudaMemcpyDeviceToDevice));
    cudaResourceDesc resource = {};
    resource.resType = cudaResourceTypeArray;
    resource.res.array.array = array;
    cudaTextureDesc how = {};
    how.readMode = cudaReadModeNormalizedFloat;
    float4 *out, got[8];
    MUST(cudaMalloc(&out, sizeof(got)));
    cudaTextureObject_t object = texture(resource, how);
    four<<<1, 8>>>(object, out);
    MUST(cudaMemcpy(got, out, sizeof(got), cudaMemcpyDeviceToHost));
    for (int x = 0; x < 8; x++) {
        expect("a byte as a fraction", got[x].x, x * 30 / 255.f, 1e-6f);
        expect("the last of four", got[x].w, (128 + x) / 255.f, 1e-6f);
    }
    MUST(cudaDestroyTextureObject(object));
    resource.res.array.array = as_integers;
    how.readMode = cudaReadModeElementType;
    object = texture(resource, how);
    int4 whole[8];
    four_integers<<<1, 8>>>(object, (int4 *)out);
    MUST(cudaMemcpy(whole, out, sizeof(whole), cudaMemcpyDeviceToHost));
    for (int x = 0; x < 8; x++) {
        expect("a byte as it is", whole[x].y, 50);
        expect("a negative one", whole[x].w, (float)(signed char)(128 + x));
    }
    MUST(cudaDestroyTextureObject(object));
    MUST(cudaFreeArray(array));
    MUST(cudaFreeArray(as_integers));
    std::vector<float> all = picture();
    cudaChannelFormatDesc floats = cudaCreateChannelDesc<float>();
    MUST(cudaMallocArray(&array, &floats, WIDTH, HEIGHT, cudaArrayTextureGather));
    MUST(cudaMemcpy2DToArray(array, 0, 0, all.data(), WIDTH * 4, WIDTH * 4, HEIGHT, cudaMemcpyHostToDevice));
    resource.res.array.array = array;
    object = texture(resource, how);
    gather<<<1, 1>>>(object, out);
    MUST(cudaMemcpy(got, out, sizeof(float4), cudaMemcpyDeviceToHost));
    expect("gathered: left, below", got[0].x, texel(2, 2));
    expect("gathered: right, below", got[0].y, texel(3, 2));
    expect("gathered: right, above", got[0].z, texel(3, 1));
    expect("gathered: left, above", got[0].w, texel(2, 1));
    MUST(cudaDestroyTextureObject(object));
    MUST(cudaFreeArray(array));
    MUST(cudaFree(out));
}

static void levels() {
    cudaChannelFormatDesc floats = cudaCreateChannelDesc<float>();
    cudaMipmappedArray_t whole;
    MUST(cudaMallocMipmappedArray(&whole, &floats, make_cudaExtent(16, 16, 0), 3));
    for (int level = 0; level < 3; level++) {
        cudaArray_t array;
        cudaExtent size;
        cudaChannelFormatDesc told;
        unsigned flags;
        MUST(cudaGetMipmappedArrayLevel(&array, whole, level));
        MUST(cudaArrayGetInfo(&told, &size, &flags, array));
        expect("a level's width", (float)size.width, (float)(16 >> level));
        std::vector<float> all(size.width * size.height, 8.f - 3 * level);
        MUST(cudaMemcpy2DToArray(array, 0, 0, all.data(), size.width * 4, size.width * 4, size.height, cudaMemcpyHostToDevice));
    }
    cudaResourceDesc resource = {};
    resource.resType = cudaResourceTypeMipmappedArray;
    resource.res.mipmap.mipmap = whole;
    const float asked[] = {0, 0.25f, 0.75f, 1, 1.5f, 2, 9, -1};
    float *levels, *out, got[8];
    MUST(cudaMalloc(&levels, sizeof(asked)));
    MUST(cudaMalloc(&out, sizeof(asked)));
    MUST(cudaMemcpy(levels, asked, sizeof(asked), cudaMemcpyHostToDevice));
    for (cudaTextureFilterMode between : {cudaFilterModePoint, cudaFilterModeLinear}) {
        cudaTextureDesc how = {};
        how.normalizedCoords = 1;
        how.addressMode[0] = how.addressMode[1] = cudaAddressModeClamp;
        how.mipmapFilterMode = between;
        how.maxMipmapLevelClamp = 2;
        cudaTextureObject_t object = texture(resource, how);
        read_level<<<1, 8>>>(object, levels, out, 8);
        MUST(cudaGetLastError());
        MUST(cudaMemcpy(got, out, sizeof(got), cudaMemcpyDeviceToHost));
        for (int i = 0; i < 8; i++) {
            float level = std::fmin(std::fmax(asked[i], 0), 2);
            if (between == cudaFilterModePoint && level == 1.5f) continue; // Either neighbour.
            expect("a level", got[i], 8 - 3 * (between == cudaFilterModePoint ? std::floor(level + 0.5f) : level), 0.02f);
        }
        MUST(cudaDestroyTextureObject(object));
    }
    MUST(cudaFreeMipmappedArray(whole));
    MUST(cudaFree(levels));
    MUST(cudaFree(out));
}

static cudaSurfaceObject_t surface(cudaArray_t array) {
    cudaResourceDesc resource = {};
    resource.resType = cudaResourceTypeArray;
    resource.res.array.array = array;
    cudaSurfaceObject_t object;
    MUST(cudaCreateSurfaceObject(&object, &resource));
    return object;
}

static void surfaces() {
    cudaChannelFormatDesc floats = cudaCreateChannelDesc<float>(), pairs = cudaCreateChannelDesc<float2>();
    cudaArray_t from, to, deep;
    std::vector<float> all = picture(), got(all.size());
    MUST(cudaMallocArray(&from, &floats, WIDTH, HEIGHT, cudaArraySurfaceLoadStore));
    MUST(cudaMallocArray(&to, &floats, WIDTH, HEIGHT, cudaArraySurfaceLoadStore));
    MUST(cudaMemcpy2DToArray(from, 0, 0, all.data(), WIDTH * 4, WIDTH * 4, HEIGHT, cudaMemcpyHostToDevice));
    cudaSurfaceObject_t source = surface(from), target = surface(to);
    twice<<<dim3(2, 2), dim3(4, 4)>>>(source, target, WIDTH, HEIGHT);
    MUST(cudaGetLastError());
    MUST(cudaMemcpy2DFromArray(got.data(), WIDTH * 4, to, 0, 0, WIDTH * 4, HEIGHT, cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < all.size(); i++) expect("what a surface got", got[i], 2 * all[i]);
    MUST(cudaDestroySurfaceObject(source));
    MUST(cudaDestroySurfaceObject(target));
    MUST(cudaFreeArray(from));
    MUST(cudaFreeArray(to));
    MUST(cudaMalloc3DArray(&deep, &pairs, make_cudaExtent(WIDTH, 2, 3), cudaArraySurfaceLoadStore));
    target = surface(deep);
    slices<<<1, 3>>>(target, WIDTH);
    MUST(cudaGetLastError());
    float2 rows[3][2][WIDTH];
    cudaMemcpy3DParms copy = {};
    copy.srcArray = deep;
    copy.dstPtr = make_cudaPitchedPtr(rows, WIDTH * 8, WIDTH, 2);
    copy.extent = make_cudaExtent(WIDTH, 2, 3);
    copy.kind = cudaMemcpyDeviceToHost;
    MUST(cudaMemcpy3D(&copy));
    for (int z = 0; z < 3; z++)
        for (int x = 0; x < WIDTH; x++) {
            expect("x of a pair in a slice", rows[z][1][x].x, (float)x);
            expect("z of a pair in a slice", rows[z][1][x].y, (float)z);
        }
    MUST(cudaDestroySurfaceObject(target));
    MUST(cudaFreeArray(deep));
}

static void answers() {
    cudaChannelFormatDesc floats = cudaCreateChannelDesc<float>();
    cudaArray_t array;
    MUST(cudaMallocArray(&array, &floats, 8, 8, cudaArraySurfaceLoadStore));
    cudaResourceDesc resource = {};
    resource.resType = cudaResourceTypeArray;
    resource.res.array.array = array;
    cudaTextureDesc how = {}, other = {};
    other.filterMode = cudaFilterModeLinear;
    printf("textures: numbers %llx %llx %llx", texture(resource, how), texture(resource, how), texture(resource, other));
    printf(", surfaces %llx %llx\n", surface(array), surface(array));
    MUST(cudaMallocArray(&array, &floats, 8, 8));
    resource.res.array.array = array;
    cudaSurfaceObject_t target;
    printf("textures: a surface of an array that is for none: %d\n", (int)cudaCreateSurfaceObject(&target, &resource));
    printf("textures: destroyed twice or none: %d %d\n", (int)cudaDestroyTextureObject(12345), (int)cudaDestroySurfaceObject(12345));
}

int main(int count, char **words) {
    if (count > 1 && !strcmp(words[1], "answers")) {
        answers();
        return 0;
    }
    two_dimensions();
    other_dimensions();
    linear_memory();
    formats_and_gathers();
    levels();
    surfaces();
    printf("textures: %s\n", failures ? "wrong" : "ok, textures and surfaces as on the CPU");
    return failures ? 1 : 0;
}
