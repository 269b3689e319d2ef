// What `texref` plays: kernels that name three textures and a surface of their module.
#pragma once

static const char CODE[] = R"(
.version 7.0
.target sm_75
.address_size 64
.global .texref row;
.global .texref picture;
.global .texref volume;
.global .surfref canvas;

.visible .entry fetch(.param .u64 out, .param .s32 first)
{
    .reg .b32 %r<4>;
    .reg .f32 %f<5>;
    .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [out];
    ld.param.s32 %r1, [first];
    mov.u32 %r2, %tid.x;
    add.s32 %r3, %r1, %r2;
    tex.1d.v4.f32.s32 {%f1, %f2, %f3, %f4}, [row, {%r3}];
    mul.wide.u32 %rd2, %r2, 4;
    add.s64 %rd3, %rd1, %rd2;
    st.global.f32 [%rd3], %f1;
    ret;
}

.visible .entry look(.param .u64 places, .param .u64 out)
{
    .reg .b32 %r<4>;
    .reg .f32 %f<7>;
    .reg .b64 %rd<7>;
    ld.param.u64 %rd1, [places];
    ld.param.u64 %rd2, [out];
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %tid.x;
    mad.lo.u32 %r3, %r1, 64, %r2;
    mul.wide.u32 %rd3, %r3, 8;
    add.s64 %rd4, %rd1, %rd3;
    ld.global.v2.f32 {%f1, %f2}, [%rd4];
    tex.2d.v4.f32.f32 {%f3, %f4, %f5, %f6}, [picture, {%f1, %f2}];
    mul.wide.u32 %rd5, %r3, 16;
    add.s64 %rd6, %rd2, %rd5;
    st.global.v4.f32 [%rd6], {%f3, %f4, %f5, %f6};
    ret;
}

.visible .entry level(.param .u64 out, .param .f32 which)
{
    .reg .f32 %f<7>;
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [out];
    ld.param.f32 %f1, [which];
    mov.f32 %f2, 0f3F000000;
    tex.level.2d.v4.f32.f32 {%f3, %f4, %f5, %f6}, [picture, {%f2, %f2}], %f1;
    st.global.f32 [%rd1], %f3;
    ret;
}

.visible .entry deep(.param .u64 out)
{
    .reg .b32 %r<4>;
    .reg .f32 %f<8>;
    .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [out];
    mov.u32 %r1, %tid.x;
    cvt.rn.f32.u32 %f1, %r1;
    mov.f32 %f2, 0f3F800000;
    tex.3d.v4.f32.f32 {%f4, %f5, %f6, %f7}, [volume, {%f1, %f2, %f1, %f1}];
    mul.wide.u32 %rd2, %r1, 4;
    add.s64 %rd3, %rd1, %rd2;
    st.global.f32 [%rd3], %f4;
    ret;
}

.visible .entry paint(.param .u32 more)
{
    .reg .b32 %r<7>;
    ld.param.u32 %r1, [more];
    mov.u32 %r2, %tid.x;
    mov.u32 %r3, %ctaid.x;
    shl.b32 %r4, %r2, 2;
    suld.b.2d.b32.trap {%r5}, [canvas, {%r4, %r3}];
    mad.lo.u32 %r6, %r5, 2, %r1;
    sust.b.2d.b32.trap [canvas, {%r4, %r3}], {%r6};
    ret;
}
)";
