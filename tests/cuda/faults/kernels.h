// What the areas share: a primary context and kernels that do what they should not.
#pragma once

static const char KERNELS[] = R"(
.version 7.0
.target sm_70
.address_size 64
.extern .func __assertfail(.param .b64 m, .param .b64 f, .param .b32 l, .param .b64 n, .param .b64 c);
.extern .shared .align 4 .b8 dynamic[];
.visible .global .align 4 .u32 number = 7;
.global .align 1 .b8 message[2] = {97, 0};
.visible .const .align 4 .u32 constant = 9;
.visible .entry nothing() { ret; }
.visible .entry reqntid() .reqntid 32, 1, 1 { ret; }
.visible .entry maxntid() .maxntid 64, 1, 1 { ret; }
.visible .entry store(.param .u64 at)
{
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [at];
    st.global.u32 [%rd1], 1;
    ret;
}
.visible .entry load(.param .u64 at, .param .u64 out)
{
    .reg .b32 %r<2>;
    .reg .b64 %rd<3>;
    ld.param.u64 %rd1, [at];
    ld.param.u64 %rd2, [out];
    ld.global.u32 %r1, [%rd1];
    st.global.u32 [%rd2], %r1;
    ret;
}
.visible .entry atomic(.param .u64 at)
{
    .reg .b32 %r<2>;
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [at];
    atom.global.add.u32 %r1, [%rd1], 1;
    ret;
}
.visible .entry generic(.param .u64 at)
{
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [at];
    st.u32 [%rd1], 1;
    ret;
}
.visible .entry shared(.param .u32 at)
{
    .reg .b32 %r<3>;
    mov.u32 %r1, dynamic;
    ld.param.u32 %r2, [at];
    add.u32 %r1, %r1, %r2;
    st.volatile.shared.u32 [%r1], %r2;
    ret;
}
.visible .entry trap_here() { trap; ret; }
.visible .entry asserts()
{
    .reg .b64 %rd<2>;
    mov.u64 %rd1, message;
    cvta.global.u64 %rd1, %rd1;
    {
        .param .b64 m;
        .param .b64 f;
        .param .b32 l;
        .param .b64 n;
        .param .b64 c;
        st.param.b64 [m], %rd1;
        st.param.b64 [f], %rd1;
        st.param.b32 [l], 1;
        st.param.b64 [n], %rd1;
        st.param.b64 [c], 1;
        call.uni __assertfail, (m, f, l, n, c);
    }
    ret;
}
)";

static CUdevice device = 0;
static CUcontext context;

static void with_context() {
    NEEDS(cuInit, 0);
    NEEDS(cuDevicePrimaryCtxRetain, &context, device);
    NEEDS(cuCtxSetCurrent, context);
}
static CUmodule with_kernels() {
    CUmodule module;
    with_context();
    NEEDS(cuModuleLoadData, &module, KERNELS);
    return module;
}
static CUfunction kernel(CUmodule module, const char *name) {
    CUfunction function;
    NEEDS(cuModuleGetFunction, &function, module, name);
    return function;
}
static CUdeviceptr some(size_t bytes) {
    CUdeviceptr at;
    NEEDS(cuMemAlloc_v2, &at, bytes);
    return at;
}
static CUstream new_stream() {
    CUstream stream;
    NEEDS(cuStreamCreate, &stream, CU_STREAM_NON_BLOCKING);
    return stream;
}
static CUevent new_event() {
    CUevent event;
    NEEDS(cuEventCreate, &event, 0);
    return event;
}
// An address of this process that is no device's.
static char own[1 << 16];
static const CUdeviceptr HOST = (CUdeviceptr)own;
// Nobody's address, and sizes whose sum with an address, or whose product, is more than 64 bits.
static const CUdeviceptr NOWHERE = 0x7000000000;
static const size_t HUGE_SIZE = (size_t)1 << 60, ALL = ~(size_t)0;
