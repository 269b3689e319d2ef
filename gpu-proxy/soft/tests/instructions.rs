//! One line an instruction form: sources and the result they must give. Sources: PTX ISA 9.0; results worked out by hand or by
//! Rust's own arithmetic.
//!
//! [`ptx!`] makes a kernel around the instruction, gives each row of sources to a thread of its own, and compares. The instruction
//! says `d` for its result and `a`, `b`, `c` for its sources; the letters before it are their widths: `32 32 -> 32`.

mod kernel;

use kernel::{Form, results};

/// `ptx!(name, "instruction", [widths] -> width, [sources] => result, …)`
macro_rules! ptx {
    ($name:ident, $text:expr, [$($from:expr),*] -> $to:expr, $([$($source:expr),*] => $result:expr),+ $(,)?) => {
        #[test]
        fn $name() {
            let form = Form { text: $text, from: &[$($from),*], to: $to };
            let rows = [$(vec![$(bits($source)),*]),+];
            let expected = [$(bits($result)),+];
            for ((row, expected), found) in rows.iter().zip(expected).zip(results(&form, &rows)) {
                assert_eq!(found, expected, "{} of {row:x?}: found {found:#x}, expected {expected:#x}", $text);
            }
        }
    };
}

/// A value as it lies in a register.
trait Bits {
    fn bits(self) -> u64;
}
macro_rules! as_bits {
    ($($t:ty: |$v:ident| $e:expr),* $(,)?) => {$(impl Bits for $t { fn bits(self) -> u64 { let $v = self; $e } })*};
}
as_bits! {
    u64: |v| v, i64: |v| v.cast_unsigned(), u32: |v| v.into(), i32: |v| v.cast_unsigned().into(), u16: |v| v.into(),
    i16: |v| v.cast_unsigned().into(), u8: |v| v.into(), f32: |v| v.to_bits().into(), f64: |v| v.to_bits(),
    bool: |v| v.into(),
}
fn bits(value: impl Bits) -> u64 {
    value.bits()
}

// The judge's own canary: a wrong expectation must be found.
#[test]
#[should_panic(expected = "found 0x3")]
fn a_wrong_result_is_noticed() {
    let form = Form { text: "add.u32 d, a, b;", from: &[32, 32], to: 32 };
    let found = results(&form, &[vec![1, 2]])[0];
    assert_eq!(found, 4, "found {found:#x}");
}

ptx!(add_wraps, "add.s32 d, a, b;", [32, 32] -> 32, [i32::MAX, 1] => i32::MIN, [-5, 7] => 2);
ptx!(add_64, "add.s64 d, a, b;", [64, 64] -> 64, [i64::MAX, 1i64] => i64::MIN, [1u64 << 40, 5u64] => (1u64 << 40) + 5);
ptx!(add_16, "add.s16 d, a, b;", [16, 16] -> 16, [i16::MAX, 1i16] => i16::MIN);
ptx!(add_sat, "add.sat.s32 d, a, b;", [32, 32] -> 32, [i32::MAX, 1] => i32::MAX, [i32::MIN, -1] => i32::MIN, [1, 2] => 3);
ptx!(sub_wraps, "sub.u32 d, a, b;", [32, 32] -> 32, [0u32, 1u32] => u32::MAX);
ptx!(mul_lo, "mul.lo.s32 d, a, b;", [32, 32] -> 32, [-3, 7] => -21, [1 << 20, 1 << 20] => 0);
ptx!(mul_hi_signed, "mul.hi.s32 d, a, b;", [32, 32] -> 32, [-1, 1] => -1, [1 << 30, 8] => 2);
ptx!(mul_hi_unsigned, "mul.hi.u32 d, a, b;", [32, 32] -> 32, [u32::MAX, u32::MAX] => u32::MAX - 1);
ptx!(mul_hi_64, "mul.hi.u64 d, a, b;", [64, 64] -> 64, [u64::MAX, u64::MAX] => u64::MAX - 1);
ptx!(mul_wide_signed, "mul.wide.s32 d, a, b;", [32, 32] -> 64, [-2, 3] => -6i64, [i32::MIN, i32::MIN] => 1i64 << 62);
ptx!(mul_wide_16, "mul.wide.u16 d, a, b;", [16, 16] -> 32, [u16::MAX, u16::MAX] => 65535u32 * 65535);
ptx!(mad_lo, "mad.lo.s32 d, a, b, c;", [32, 32, 32] -> 32, [-3, 7, 30] => 9);
ptx!(mad_wide, "mad.wide.s32 d, a, b, c;", [32, 32, 64] -> 64, [-3, 7, -(1i64 << 40)] => -(1i64 << 40) - 21);
ptx!(div_signed, "div.s32 d, a, b;", [32, 32] -> 32, [-7, 2] => -3, [i32::MIN, -1] => i32::MIN, [5, 0] => -1);
ptx!(rem_signed, "rem.s32 d, a, b;", [32, 32] -> 32, [-7, 2] => -1, [i32::MIN, -1] => 0);
ptx!(div_64, "div.u64 d, a, b;", [64, 64] -> 64, [u64::MAX, 10u64] => u64::MAX / 10);
ptx!(min_max, "min.s32 d, a, b;", [32, 32] -> 32, [-1, 1] => -1);
ptx!(max_unsigned, "max.u32 d, a, b;", [32, 32] -> 32, [u32::MAX, 1u32] => u32::MAX);
ptx!(abs, "abs.s32 d, a;", [32] -> 32, [-5] => 5, [i32::MIN] => i32::MIN);
ptx!(neg, "neg.s32 d, a;", [32] -> 32, [5] => -5);
ptx!(sad, "sad.u32 d, a, b, c;", [32, 32, 32] -> 32, [3u32, 10u32, 1u32] => 8u32);

ptx!(and_or_not, "and.b32 t, a, b; or.b32 t, t, 0x10; not.b32 d, t;", [32, 32] -> 32, [0xff0fu32, 0x00ffu32] => !0x1fu32);
ptx!(xor, "xor.b64 d, a, b;", [64, 64] -> 64, [u64::MAX, 1u64] => u64::MAX - 1);
ptx!(cnot, "cnot.b32 d, a;", [32] -> 32, [0u32] => 1u32, [7u32] => 0u32);
ptx!(lop3, "lop3.b32 d, a, b, c, 0xe8;", [32, 32, 32] -> 32, [0b1100u32, 0b1010u32, 0b0110u32] => 0b1110u32);
ptx!(shl_past_the_end, "shl.b32 d, a, b;", [32, 32] -> 32, [1u32, 31u32] => 1u32 << 31, [1u32, 32u32] => 0u32, [1u32, u32::MAX] => 0u32);
ptx!(shr_signed, "shr.s32 d, a, b;", [32, 32] -> 32, [-8, 1] => -4, [-8, 99] => -1);
ptx!(shr_unsigned, "shr.u64 d, a, b;", [64, 32] -> 64, [1u64 << 63, 63u32] => 1u64, [1u64 << 63, 64u32] => 0u64);
ptx!(shf, "shf.l.wrap.b32 d, a, b, c;", [32, 32, 32] -> 32, [0x8000_0000u32, 1u32, 1u32] => 3u32);
ptx!(shf_clamp, "shf.r.clamp.b32 d, a, b, c;", [32, 32, 32] -> 32, [1u32, 7u32, 32u32] => 7u32, [0u32, 1u32, 1u32] => 1u32 << 31);
ptx!(bfe_signed, "bfe.s32 d, a, b, c;", [32, 32, 32] -> 32, [0x0000_0f00u32, 8u32, 4u32] => -1, [0x0700, 8, 4] => 7, [-1, 4, 0] => 0, [i32::MIN, 28, 8] => -8);
ptx!(bfe_unsigned, "bfe.u32 d, a, b, c;", [32, 32, 32] -> 32, [0xabcd_1234u32, 4u32, 8u32] => 0x23u32, [u32::MAX, 40u32, 8u32] => 0u32);
ptx!(bfi, "bfi.b32 d, a, b, 8, 4;", [32, 32] -> 32, [0xau32, 0xffff_ffffu32] => 0xffff_faffu32);
ptx!(bfi_64, "bfi.b64 d, a, b, 32, 32;", [64, 64] -> 64, [7u64, 9u64] => (7u64 << 32) + 9);
ptx!(popc, "popc.b64 d, a;", [64] -> 32, [u64::MAX] => 64u32);
ptx!(clz, "clz.b32 d, a;", [32] -> 32, [1u32] => 31u32, [0u32] => 32u32);
ptx!(brev, "brev.b32 d, a;", [32] -> 32, [1u32] => 1u32 << 31);
ptx!(bfind, "bfind.u32 d, a;", [32] -> 32, [0x80u32] => 7u32, [0u32] => u32::MAX);
ptx!(bfind_signed, "bfind.s32 d, a;", [32] -> 32, [-1] => u32::MAX, [-128] => 6u32);
ptx!(bfind_shift, "bfind.shiftamt.u32 d, a;", [32] -> 32, [1u32] => 31u32);
ptx!(prmt, "prmt.b32 d, a, b, c;", [32, 32, 32] -> 32, [0x3322_1180u32, 0x7766_5544u32, 0x7531u32] => 0x7755_3311u32, [0x3322_1180u32, 0u32, 0x8888u32] => u32::MAX);
ptx!(prmt_f4e, "prmt.b32.f4e d, a, b, c;", [32, 32, 32] -> 32, [0x3322_1100u32, 0x7766_5544u32, 1u32] => 0x4433_2211u32);
ptx!(carry_chain, "add.cc.u32 t, a, b; addc.u32 d, a, 0;", [32, 32] -> 32, [u32::MAX, 1u32] => 0u32, [5u32, 1u32] => 5u32);
ptx!(borrow_chain, "sub.cc.u32 t, a, b; subc.u32 d, 10, 0;", [32, 32] -> 32, [1u32, 2u32] => 9u32, [2u32, 1u32] => 10u32);
ptx!(dp4a, "dp4a.s32.s32 d, a, b, c;", [32, 32, 32] -> 32, [0xff01_0203u32, 0x0101_0101u32, 100] => 105);

ptx!(add_f32, "add.f32 d, a, b;", [32, 32] -> 32, [1.5f32, 2.25f32] => 3.75f32, [f32::MAX, f32::MAX] => f32::INFINITY);
ptx!(add_makes_the_canonical_nan, "add.f32 d, a, b;", [32, 32] -> 32, [f32::INFINITY, f32::NEG_INFINITY] => 0x7fff_ffffu32);
ptx!(add_rz, "add.rz.f32 d, a, b;", [32, 32] -> 32, [1f32, f32::EPSILON * 0.75] => 1f32);
ptx!(add_rp, "add.rp.f32 d, a, b;", [32, 32] -> 32, [1f32, f32::EPSILON * 0.25] => 1f32 + f32::EPSILON);
ptx!(add_sat_f32, "add.sat.f32 d, a, b;", [32, 32] -> 32, [0.75f32, 0.75f32] => 1f32, [-2f32, 1f32] => 0f32, [f32::NAN, 1f32] => 0f32);
ptx!(mul_ftz, "mul.ftz.f32 d, a, b;", [32, 32] -> 32, [f32::MIN_POSITIVE, 0.5f32] => 0f32, [-f32::from_bits(1), 1f32] => -0f32);
ptx!(mul_keeps_subnormals, "mul.f32 d, a, b;", [32, 32] -> 32, [f32::MIN_POSITIVE, 0.5f32] => f32::MIN_POSITIVE / 2.0);
ptx!(fma_rounds_once, "fma.rn.f32 d, a, b, c;", [32, 32, 32] -> 32, [1.0000001f32, 1.0000001f32, -1f32] => 1.0000001f32.mul_add(1.0000001, -1.0));
ptx!(fma_f64, "fma.rn.f64 d, a, b, c;", [64, 64, 64] -> 64, [0.1f64, 10f64, -1f64] => 0.1f64.mul_add(10.0, -1.0));
ptx!(div_rn, "div.rn.f32 d, a, b;", [32, 32] -> 32, [1f32, 3f32] => 1f32 / 3.0, [1f32, 0f32] => f32::INFINITY);
ptx!(sqrt_rn, "sqrt.rn.f64 d, a;", [64] -> 64, [2f64] => 2f64.sqrt(), [-0f64] => -0f64);
ptx!(rcp, "rcp.rn.f32 d, a;", [32] -> 32, [4f32] => 0.25f32);
ptx!(rsqrt, "rsqrt.approx.f32 d, a;", [32] -> 32, [4f32] => 0.5f32);
ptx!(ex2, "ex2.approx.ftz.f32 d, a;", [32] -> 32, [10f32] => 1024f32, [-200f32] => 0f32);
ptx!(lg2, "lg2.approx.f32 d, a;", [32] -> 32, [1024f32] => 10f32);
ptx!(neg_flips_the_sign_of_nan, "neg.f32 d, a;", [32] -> 32, [0x7fc0_0001u32] => 0xffc0_0001u32);
ptx!(abs_f64, "abs.f64 d, a;", [64] -> 64, [-2.5f64] => 2.5f64);
ptx!(min_prefers_numbers, "min.f32 d, a, b;", [32, 32] -> 32, [f32::NAN, 3f32] => 3f32, [-0f32, 0f32] => -0f32);
ptx!(min_nan, "min.NaN.f32 d, a, b;", [32, 32] -> 32, [f32::NAN, 3f32] => 0x7fff_ffffu32);
ptx!(copysign, "copysign.f32 d, a, b;", [32, 32] -> 32, [-1f32, 5f32] => -5f32);
ptx!(add_f16, "add.f16 d, a, b;", [16, 16] -> 16, [0x3c00u16, 0x4000u16] => 0x4200u16);
ptx!(fma_f16x2, "fma.rn.f16x2 d, a, b, c;", [32, 32, 32] -> 32, [0x3c00_4000u32, 0x4000_4000u32, 0x3c00_3c00u32] => 0x4200_4500u32);

ptx!(cvt_widens_by_sign, "cvt.s64.s32 d, a;", [32] -> 64, [-1] => -1i64);
ptx!(cvt_widens_by_zero, "cvt.u64.u32 d, a;", [32] -> 64, [-1] => 0xffff_ffffu64);
ptx!(cvt_cuts, "cvt.u32.u64 d, a;", [64] -> 32, [0x1_2345_6789u64] => 0x2345_6789u32);
ptx!(cvt_s8_into_32_bits, "cvt.s32.s8 d, a;", [32] -> 32, [0x80u32] => -128);
ptx!(cvt_u16_of_s8, "cvt.u16.s8 d, a;", [16] -> 32, [0x80u16] => 0xff80u32);
ptx!(cvt_sat, "cvt.sat.u8.s32 d, a;", [32] -> 32, [300] => 255u32, [-3] => 0u32, [7] => 7u32);
ptx!(cvt_float_to_int_cuts, "cvt.rzi.s32.f32 d, a;", [32] -> 32, [-1.9f32] => -1, [3e9f32] => i32::MAX, [f32::NAN] => 0);
ptx!(cvt_float_to_int_rounds, "cvt.rni.s32.f32 d, a;", [32] -> 32, [2.5f32] => 2, [3.5f32] => 4, [-2.5f32] => -2);
ptx!(cvt_floor, "cvt.rmi.f32.f32 d, a;", [32] -> 32, [-1.5f32] => -2f32);
ptx!(cvt_ceil_64, "cvt.rpi.s64.f64 d, a;", [64] -> 64, [1.25f64] => 2i64, [-1e300f64] => i64::MIN);
ptx!(cvt_int_to_float, "cvt.rn.f32.s32 d, a;", [32] -> 32, [16_777_217] => 16_777_216f32);
ptx!(cvt_int_to_float_up, "cvt.rp.f32.u32 d, a;", [32] -> 32, [16_777_217u32] => 16_777_218f32);
ptx!(cvt_narrows_a_double, "cvt.rn.f32.f64 d, a;", [64] -> 32, [0.1f64] => 0.1f32);
ptx!(cvt_narrows_down, "cvt.rm.f32.f64 d, a;", [64] -> 32, [0.1f64] => 0.1f32.next_down());
ptx!(cvt_half, "cvt.rn.f16.f32 d, a;", [32] -> 16, [1.5f32] => 0x3e00u16, [1e6f32] => 0x7c00u16);
ptx!(cvt_from_half, "cvt.f32.f16 d, a;", [16] -> 32, [0x3e00u16] => 1.5f32);
ptx!(cvt_f32_sat, "cvt.sat.f32.f32 d, a;", [32] -> 32, [1.5f32] => 1f32, [-1f32] => 0f32);
ptx!(cvt_pair_of_halves, "cvt.rn.f16x2.f32 d, a, b;", [32, 32] -> 32, [1f32, 2f32] => 0x3c00_4000u32);

ptx!(setp_signed, "setp.lt.s32 p, a, b; selp.u32 d, 1, 0, p;", [32, 32] -> 32, [-1, 1] => 1u32, [1, 1] => 0u32);
ptx!(setp_unsigned, "setp.lt.u32 p, a, b; selp.u32 d, 1, 0, p;", [32, 32] -> 32, [-1, 1] => 0u32);
ptx!(setp_ordered_ne_of_nan, "setp.ne.f32 p, a, b; selp.u32 d, 1, 0, p;", [32, 32] -> 32, [f32::NAN, 1f32] => 0u32, [2f32, 1f32] => 1u32);
ptx!(setp_unordered, "setp.ltu.f32 p, a, b; selp.u32 d, 1, 0, p;", [32, 32] -> 32, [f32::NAN, 1f32] => 1u32, [2f32, 1f32] => 0u32);
ptx!(setp_nan, "setp.nan.f32 p, a, b; selp.u32 d, 1, 0, p;", [32, 32] -> 32, [f32::NAN, 1f32] => 1u32);
ptx!(
    setp_with_both_results,
    "setp.gt.s32 q, b, 0; setp.lt.and.s32 p|q, a, 5, q; selp.u32 t, 1, 0, p; selp.u32 d, 10, 0, q; add.u32 d, d, t;",
    [32, 32] -> 32,
    [1, 1] => 1u32, [9, 1] => 10u32, [1, 0] => 0u32
);
ptx!(setp_with_a_negated_predicate, "setp.gt.s32 q, b, 0; setp.lt.or.s32 p, a, 5, !q; selp.u32 d, 1, 0, p;", [32, 32] -> 32, [9, 1] => 0u32, [9, 0] => 1u32);
ptx!(set, "set.lt.u32.s32 d, a, b;", [32, 32] -> 32, [1, 2] => u32::MAX, [2, 1] => 0u32);
ptx!(slct, "slct.u32.s32 d, a, b, c;", [32, 32, 32] -> 32, [1u32, 2u32, -1] => 2u32, [1u32, 2u32, 0] => 1u32);
ptx!(testp, "testp.infinite.f32 p, a; selp.u32 d, 1, 0, p;", [32] -> 32, [f32::INFINITY] => 1u32, [1f32] => 0u32);
ptx!(a_guard_that_its_own_instruction_writes, "setp.gt.s32 p, a, 0; mov.u32 d, 0; @p setp.lt.and.s32 p|q, b, 5, p; @p mov.u32 d, 1;", [32, 32] -> 32, [1, 1] => 1u32, [1, 9] => 0u32, [0, 9] => 0u32);

ptx!(mov_packs, "mov.b64 d, {a, b};", [32, 32] -> 64, [1u32, 2u32] => (2u64 << 32) + 1);
ptx!(mov_unpacks, "mov.b64 {t, d}, a;", [64] -> 32, [(7u64 << 32) + 1] => 7u32);
ptx!(mov_negative, "mov.u32 d, -2;", [32] -> 32, [0u32] => -2);
ptx!(mov_float, "mov.f32 d, 0f3F800000;", [32] -> 32, [0u32] => 1f32);
ptx!(special_registers, "mov.u32 d, %laneid; mov.u32 t, %ntid.x; add.u32 d, d, t;", [32] -> 32, [0u32] => 2u32, [0u32] => 3u32);
ptx!(generic_shared, "mov.u64 x, sh; cvta.shared.u64 x, x; st.u32 [x+4], a; mov.u32 t, sh; ld.shared.u32 d, [t+4];", [32] -> 32, [77u32] => 77u32);
ptx!(local_memory_is_the_threads_own, "mov.u64 x, loc; st.local.u32 [x], a; bar.sync 0; ld.local.u32 d, [loc];", [32] -> 32, [5u32] => 5u32, [6u32] => 6u32);
ptx!(bytes_are_sign_extended, "st.local.u32 [loc], a; ld.local.s8 d, [loc+1];", [32] -> 32, [0x8000u32] => -128);
ptx!(vectors_go_there_and_back, "st.local.v2.u32 [loc], {a, b}; ld.local.v2.u32 {t, d}, [loc]; sub.u32 d, d, t;", [32, 32] -> 32, [3u32, 10u32] => 7u32);
ptx!(shuffle_down, "shfl.sync.down.b32 d|p, a, 1, 31, 7;", [32] -> 32, [1u32] => 2u32, [2u32] => 3u32, [3u32] => 0u32);
ptx!(shuffle_index, "shfl.sync.idx.b32 d, a, 0, 31, 3;", [32] -> 32, [9u32] => 9u32, [4u32] => 9u32);
ptx!(ballot, "setp.gt.u32 p, a, 1; vote.sync.ballot.b32 d, p, 7;", [32] -> 32, [1u32] => 6u32, [2u32] => 6u32, [3u32] => 6u32);
ptx!(match_any, "match.any.sync.b32 d, a, 7;", [32] -> 32, [1u32] => 5u32, [2u32] => 2u32, [1u32] => 5u32);
ptx!(redux, "redux.sync.max.s32 d, a, 7;", [32] -> 32, [-1] => 3, [3] => 3, [-9] => 3);
ptx!(bar_red, "setp.gt.u32 p, a, 1; bar.red.popc.u32 d, 0, p;", [32] -> 32, [1u32] => 2u32, [2u32] => 2u32, [3u32] => 2u32);
ptx!(atomic_add_returns_the_old_value, "mov.u32 t, 5; st.shared.u32 [sh], t; atom.shared.add.u32 d, [sh], a;", [32] -> 32, [1u32] => 5u32);
ptx!(atomic_cas, "st.shared.u32 [sh], a; atom.shared.cas.b32 t, [sh], 3, b; ld.shared.u32 d, [sh];", [32, 32] -> 32, [3u32, 8u32] => 8u32);
ptx!(atomic_inc_wraps, "st.shared.u32 [sh], a; atom.shared.inc.u32 t, [sh], 7; ld.shared.u32 d, [sh];", [32] -> 32, [7u32] => 0u32);
ptx!(lanes_that_part_meet_again, "setp.eq.u32 p, a, 1; @p bra L1; mov.u32 d, 20; bra L2; L1: mov.u32 d, 10; L2: bar.warp.sync 3; shfl.sync.bfly.b32 d, d, 1, 31, 3;", [32] -> 32, [1u32] => 20u32, [0u32] => 10u32);
