// What `launches` plays: a kernel with more parameters than 4 KB, and those for which launches have attributes.
#pragma once

// `big` is 16,384 bytes: of its words those at 0, 4092, 4096 and at the end.
static const char PLAIN[] = R"(
.version 8.1
.target sm_75
.address_size 64

.visible .entry big(.param .u64 out, .param .align 4 .b8 words[16384])
{
    .reg .b32 %r<5>;
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [out];
    ld.param.u32 %r1, [words];
    ld.param.u32 %r2, [words+4092];
    ld.param.u32 %r3, [words+4096];
    ld.param.u32 %r4, [words+16380];
    st.global.u32 [%rd1], %r1;
    st.global.u32 [%rd1+4], %r2;
    st.global.u32 [%rd1+8], %r3;
    st.global.u32 [%rd1+12], %r4;
    ret;
}

// Each block waits until all have come, and then writes how many have.
.visible .entry meet(.param .u64 out, .param .u64 count)
{
    .reg .pred %p<2>;
    .reg .b32 %r<6>;
    .reg .b64 %rd<6>;
    ld.param.u64 %rd1, [out];
    ld.param.u64 %rd2, [count];
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %nctaid.x;
    atom.global.add.u32 %r3, [%rd2], 1;
again:
    ld.volatile.global.u32 %r4, [%rd2];
    setp.lt.u32 %p1, %r4, %r2;
    @%p1 bra again;
    mul.wide.u32 %rd3, %r1, 4;
    add.s64 %rd4, %rd1, %rd3;
    st.global.u32 [%rd4], %r4;
    ret;
}
)";

// For compute capability 9.0 and later.
static const char DEPENDENT[] = R"(
.version 8.1
.target sm_90
.address_size 64

// Lets the next kernel begin, and writes long after that.
.visible .entry first(.param .u64 out)
{
    .reg .pred %p<2>;
    .reg .b32 %r<3>;
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [out];
    griddepcontrol.launch_dependents;
    mov.u32 %r1, 0;
again:
    add.u32 %r1, %r1, 1;
    ld.volatile.global.u32 %r2, [%rd1];
    setp.lt.u32 %p1, %r1, 2000;
    @%p1 bra again;
    st.global.u32 [%rd1], 20;
    ret;
}

// Doubles what that has written.
.visible .entry second(.param .u64 out)
{
    .reg .b32 %r<3>;
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [out];
    griddepcontrol.wait;
    ld.volatile.global.u32 %r1, [%rd1];
    add.u32 %r2, %r1, %r1;
    st.global.u32 [%rd1], %r2;
    ret;
}
)";

// For devices that have clusters: of each block its place in its cluster, and how many that has.
static const char CLUSTERS[] = R"(
.version 8.1
.target sm_90
.address_size 64

.visible .entry ranks(.param .u64 out)
{
    .reg .b32 %r<4>;
    .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [out];
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %cluster_ctarank;
    mov.u32 %r3, %cluster_nctarank;
    mul.wide.u32 %rd2, %r1, 8;
    add.s64 %rd3, %rd1, %rd2;
    st.global.u32 [%rd3], %r2;
    st.global.u32 [%rd3+4], %r3;
    ret;
}
)";
