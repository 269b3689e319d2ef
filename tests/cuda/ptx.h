// Parts of the PTX that programs bring as text.
#pragma once

#define PTX_HEAD ".version 7.0\n.target sm_70\n.address_size 64\n"

// A kernel that adds a number to a word.
#define PTX_ADDS(name)                                                \
    ".visible .entry " name "(.param .u64 out, .param .u32 number)\n" \
    "{\n"                                                             \
    "    .reg .b32 %r<3>;\n"                                          \
    "    .reg .b64 %rd<2>;\n"                                         \
    "    ld.param.u64 %rd1, [out];\n"                                 \
    "    ld.param.u32 %r1, [number];\n"                               \
    "    ld.global.u32 %r2, [%rd1];\n"                                \
    "    add.u32 %r2, %r2, %r1;\n"                                    \
    "    st.global.u32 [%rd1], %r2;\n"                                \
    "    ret;\n"                                                      \
    "}\n"
