// Functions of the mathematical library and integer intrinsics, for a range of arguments, compared with the CPU's: the
// compiler makes long sequences of them (range reduction, polynomials, tables in memory), the widest part of an instruction set.
#include <cmath>
#include <vector>
#define PROGRAM "math"
#include "check.h"

const int COUNT = 256, SINGLES = 10, DOUBLES = 7, INTEGERS = 10;

__global__ void singles(const float *in, float *out) {
    float x = in[threadIdx.x], *o = out + threadIdx.x * SINGLES;
    o[0] = sinf(x);
    o[1] = cosf(x * 1000);
    o[2] = expf(x / 10);
    o[3] = logf(fabsf(x) + 0.001f);
    o[4] = powf(fabsf(x), 1.7f);
    o[5] = tanhf(x);
    o[6] = fmodf(x, 1.3f);
    o[7] = x / 3.3f;
    o[8] = sqrtf(fabsf(x));
    o[9] = cbrtf(x);
}

__global__ void doubles(const double *in, double *out) {
    double x = in[threadIdx.x], *o = out + threadIdx.x * DOUBLES;
    o[0] = sin(x);
    o[1] = exp(x / 10);
    o[2] = log(fabs(x) + 0.001);
    o[3] = pow(fabs(x), -1.7);
    o[4] = x / 3.3;
    o[5] = atan2(x, 2.0);
    o[6] = fma(x, x, 1.0);
}

__global__ void integers(const long long *in, long long *out, long long by) {
    long long x = in[threadIdx.x], *o = out + threadIdx.x * INTEGERS;
    o[0] = x / by;
    o[1] = x % by;
    o[2] = (unsigned long long)x / 10;
    o[3] = __clzll(x);
    o[4] = __brevll(x);
    o[5] = __popcll(x);
    o[6] = __umulhi((unsigned)x, 0x9e3779b9u);
    o[7] = __byte_perm((unsigned)x, (unsigned)(x >> 32), 0x6240);
    o[8] = __funnelshift_l((unsigned)x, (unsigned)(x >> 32), 13);
    o[9] = (int)x / 7 + (int)x % 7;
}

template <typename Value> static Value *to_gpu(const std::vector<Value> &values) {
    Value *memory;
    MUST(cudaMalloc(&memory, values.size() * sizeof(Value)));
    MUST(cudaMemcpy(memory, values.data(), values.size() * sizeof(Value), cudaMemcpyHostToDevice));
    return memory;
}

template <typename Value> static std::vector<Value> from_gpu(const Value *memory, int count) {
    std::vector<Value> values(count);
    MUST(cudaMemcpy(values.data(), memory, count * sizeof(Value), cudaMemcpyDeviceToHost));
    return values;
}

static int failures = 0;

static void near(const char *kind, int column, double x, double found, double expected, double limit) {
    double scale = fmax(fabs(expected), 1e-30);
    if (std::isnan(expected) ? std::isnan(found) : fabs(found - expected) <= limit * scale || fabs(found - expected) < limit * 0.01) return;
    if (failures++ < 5) printf("math: %s %d of %.9g is %.17g, not %.17g\n", kind, column, x, found, expected);
}

int main() {
    std::vector<float> f(COUNT);
    std::vector<double> d(COUNT);
    std::vector<long long> n(COUNT);
    unsigned state = 5;
    for (int i = 0; i < COUNT; i++) {
        f[i] = (float)(int)(next_random(state) - (1 << 23)) / (i % 3 ? 65536.0f : 64.0f);
        d[i] = (double)f[i] * 1.0000001;
        n[i] = (long long)((unsigned long long)next_random(state) << 40 | (unsigned long long)next_random(state) << 16 | next_random(state) >> 8);
    }
    n[0] = 0;
    n[1] = -1;
    const long long by = -12345;

    float *singles_out = to_gpu(std::vector<float>(COUNT * SINGLES));
    singles<<<1, COUNT>>>(to_gpu(f), singles_out);
    std::vector<float> fo = from_gpu(singles_out, COUNT * SINGLES);
    double *doubles_out = to_gpu(std::vector<double>(COUNT * DOUBLES));
    doubles<<<1, COUNT>>>(to_gpu(d), doubles_out);
    std::vector<double> dd = from_gpu(doubles_out, COUNT * DOUBLES);
    long long *integers_out = to_gpu(std::vector<long long>(COUNT * INTEGERS));
    integers<<<1, COUNT>>>(to_gpu(n), integers_out, by);
    std::vector<long long> no = from_gpu(integers_out, COUNT * INTEGERS);

    for (int i = 0; i < COUNT; i++) {
        float x = f[i];
        const double expected_f[SINGLES] = {sin((double)x), cos((double)(x * 1000)), exp((double)(x / 10)),
            log((double)(fabsf(x) + 0.001f)), pow((double)fabsf(x), (double)1.7f), tanh((double)x), fmodf(x, 1.3f), x / 3.3f,
            sqrtf(fabsf(x)), cbrt((double)x)};
        for (int k = 0; k < SINGLES; k++) {
            float narrow = (float)expected_f[k];
            if (std::isinf(narrow) || narrow == 0) continue;
            near("single", k, x, fo[i * SINGLES + k], narrow, 1e-6);
        }
        double y = d[i];
        const double expected_d[DOUBLES] = {sin(y), exp(y / 10), log(fabs(y) + 0.001), pow(fabs(y), -1.7), y / 3.3, atan2(y, 2.0), fma(y, y, 1.0)};
        for (int k = 0; k < DOUBLES; k++) {
            if (!std::isinf(expected_d[k])) near("double", k, y, dd[i * DOUBLES + k], expected_d[k], 1e-14);
        }
        unsigned long long u = (unsigned long long)n[i], reversed = 0;
        for (int bit = 0; bit < 64; bit++) reversed |= (u >> bit & 1) << (63 - bit);
        unsigned low = (unsigned)u, high = (unsigned)(u >> 32);
        const long long expected_n[INTEGERS] = {n[i] / by, n[i] % by, (long long)(u / 10), u ? __builtin_clzll(u) : 64,
            (long long)reversed, __builtin_popcountll(u), (long long)((unsigned long long)low * 0x9e3779b9u >> 32),
            (long long)((low & 255) | (high & 255) << 8 | (low >> 16 & 255) << 16 | (high >> 16 & 255) << 24),
            (long long)(unsigned)((u << 13) >> 32), (int)low / 7 + (int)low % 7};
        for (int k = 0; k < INTEGERS; k++) {
            if (no[i * INTEGERS + k] != expected_n[k] && failures++ < 5) {
                printf("math: integer %d of %llx is %llx, not %llx\n", k, u, no[i * INTEGERS + k], expected_n[k]);
            }
        }
    }
    printf("math: %s\n", failures ? "failed" : "ok, as the CPU's");
    return failures ? 1 : 0;
}
