//! The tables themselves.

use std::ffi::c_void;
use std::sync::atomic::AtomicU64;

use vgpu_api::handle::kind;
use vgpu_api::symbols::Mode;
use vgpu_api::{CuError, CuResult, Stream};

use super::cls::{self, Destructor};
use super::integrity::{Inputs, answer};
use crate::abi::{In, Out, Raw, guard};
use crate::calls::context::{cuCtxCreate_v2, cuCtxGetCurrent, cuCtxGetId};
use crate::calls::device::device;
use crate::calls::launch::cuLaunchKernel;
use crate::calls::module::cuModuleLoadData;
use crate::calls::stream::cuStreamGetId;
use crate::core::contexts::{enter, enter_with};
use crate::core::process::{process, told_version};
use crate::core::streams::{LEGACY, resolve};
use crate::log::say;

/// A slot.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Slot(*const c_void);
// SAFETY: addresses of functions of this library, or a number.
unsafe impl Sync for Slot {}

/// What stands where nobody has said what belongs there. A table's number is the first word of its UUID.
extern "C" fn unknown<const TABLE: u32, const SLOT: usize>(a: usize, b: usize, c: usize, d: usize) -> u32 {
    say!(
        "slot {SLOT} of the private table {TABLE:08x} was called: nobody knows what it does ({a:x} {b:x} {c:x} {d:x})"
    );
    CuError::NOT_SUPPORTED.code()
}

macro_rules! table {
    ($(#[$meta:meta])* $name:ident[$number:literal; $slots:literal] $($slot:literal => $function:expr,)*) => {
        $(#[$meta])*
        pub static $name: [Slot; $slots] = {
            let mut slots = unknowns!($number; $slots);
            slots[0] = Slot(std::ptr::without_provenance($slots * size_of::<Slot>()));
            $(slots[$slot] = Slot($function as *const c_void);)*
            slots
        };
    };
}

/// As many unknown slots as a table has. A const generic needs its number written out.
macro_rules! unknowns {
    ($table:literal; $slots:literal) => {
        unknowns!($table; $slots;
            0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19
            20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39
            40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59
            60 61 62 63 64 65 66 67 68 69 70 71 72 73 74 75 76 77 78 79
            80 81 82 83 84 85 86 87 88 89 90 91 92 93 94 95 96 97 98
        )
    };
    ($table:literal; $slots:literal; $($slot:literal)*) => {{
        let all = [$(Slot(unknown::<$table, $slot> as *const c_void),)*];
        let mut slots = [all[0]; $slots];
        let mut i = 0;
        while i < slots.len() {
            slots[i] = all[i];
            i += 1;
        }
        slots
    }};
}

table! {
    /// What cudart asks of the driver beside the public API.
    CUDART_INTERFACE[0x6bd5fb6c; 13]
    1 => module_from_cubin,
    2 => primary_context,
    6 => module_ext1,
    7 => nothing,
    8 => module_ext2,
    9 => launch_kernel,
    12 => load_compilers,
}

table! {
    /// cuBLAS calls slot 2 at each of its calls.
    TOOLS_TLS[0x42d85a81; 4]
    2 => cuCtxGetCurrent,
}

table! {
    /// Buffers that a tool would fill.
    CALLBACK_HOOKS[0xa094798c; 7]
    1 => nothing,
    2 => hooks_large,
    4 => nothing,
    6 => hooks_small,
}

/// No size, NULL at the end: see `cls.rs`.
pub static CONTEXT_LOCAL_STORAGE: [Slot; 4] = [
    Slot(cls_put as *const c_void),
    Slot(cls_delete as *const c_void),
    Slot(cls_get as *const c_void),
    Slot(std::ptr::null()),
];

table! {
    /// A way past `cuCtxCreate`'s tools.
    CTX_CREATE_BYPASS[0x0ca50b8c; 2]
    1 => cuCtxCreate_v2,
}

table! {
    /// See `integrity.rs`.
    INTEGRITY_CHECK[0xd4082055; 3]
    1 => integrity_check,
}

table! {
    /// Whether a context is a wrapped one. Ours are not.
    CONTEXT_CHECKS[0x263e8860; 4]
    2 => context_check,
    3 => nothing,
}

table! {
    /// cuBLASLt calls slot 4 at each matrix product, cuSOLVER and cuFFT slot 51, and cuSOLVER slot 39 with what it got; cudart from 13.4 reads the size at its start.
    TABLE_2131[0x21318c60; 95]
    4 => ctx_get_id,
    39 => stream_id,
    51 => stream_of,
}

table! {
    /// cuFFT asks for the one function of a module.
    TABLE_6E16[0x6e163fbe; 99]
    7 => each_function,
}

table! {
    /// cuBLASLt on sm_90 crashes without it, and does without the map that slot 4 would give.
    TABLE_1734[0x1734dc26; 17]
    4 => processor_map,
}

/// The table of a UUID. The others are refused on purpose: with f8cff951 cudart would skip its start.
pub fn find(uuid: &[u8; 16]) -> Option<&'static [Slot]> {
    Some(match u128::from_be_bytes(*uuid) {
        0x6bd5fb6c_5bf4_e74a_8987_d93912fd9df9 => &CUDART_INTERFACE,
        0x42d85a81_23f6_cb47_8298_f6e78a3aecdc => &TOOLS_TLS,
        0xa094798c_2e74_2e74_93f2_0800200c0a66 => &CALLBACK_HOOKS,
        0xc693336e_1121_df11_a8c3_68f355d89593 => &CONTEXT_LOCAL_STORAGE,
        0x0ca50b8c_1004_929a_89a7_d0df10e77286 => &CTX_CREATE_BYPASS,
        0xd4082055_bde6_704b_8d34_ba123c66e1f2 => &INTEGRITY_CHECK,
        0x263e8860_7cd2_6143_92f6_bbd5006dfa7e => &CONTEXT_CHECKS,
        0x21318c60_9714_3248_8ca6_41ff7324c8f2 => &TABLE_2131,
        0x6e163fbe_b958_444d_835c_e182aff1991e => &TABLE_6E16,
        0x1734dc26_800d_4745_8726_c0f1e7dd8bca => &TABLE_1734,
        _ => return None,
    })
}

extern "C" fn nothing() -> u32 {
    0
}

/// Called by cudart 13.3 and later: the compilers are the worker's.
extern "C" fn load_compilers() -> u32 {
    0
}

extern "C" fn module_from_cubin(out: Out<u64>, image: In<u8>) -> u32 {
    cuModuleLoadData(out, image)
}

extern "C" fn module_ext1(out: Out<u64>, image: In<u8>, _a: Raw, _b: Raw, _c: u32) -> u32 {
    cuModuleLoadData(out, image)
}

extern "C" fn module_ext2(image: In<u8>, out: Out<u64>, _a: Raw, _b: Raw, _c: u32) -> u32 {
    cuModuleLoadData(out, image)
}

/// The handle of the primary context, which need not exist yet.
extern "C" fn primary_context(out: Out<u64>, dev: i32) -> u32 {
    guard(|| {
        let process = process()?;
        let (ordinal, _) = device(process, dev)?;
        let number = process.contexts.number(ordinal)?;
        out.set(vgpu_api::ContextId::primary(number).handle().raw())
    })
}

/// `extra` in place of parameters; the legacy default stream.
#[allow(clippy::too_many_arguments, reason = "the table's signature")]
extern "C" fn launch_kernel(
    function: Raw,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    shared_bytes: u32,
    stream: Raw,
    extra: In<u64>,
) -> u32 {
    // SAFETY: null is always allowed.
    let no_params = unsafe { In::from_raw(std::ptr::null()) };
    cuLaunchKernel(
        function,
        grid_x,
        grid_y,
        grid_z,
        block_x,
        block_y,
        block_z,
        shared_bytes,
        stream,
        no_params,
        extra,
    )
}

static HOOKS_LARGE: [AtomicU64; 1024] = [const { AtomicU64::new(0) }; 1024];
static HOOKS_SMALL: [AtomicU64; 14] = [const { AtomicU64::new(0) }; 14];

extern "C" fn hooks_large(place: Out<*const AtomicU64>, len: Out<usize>) -> u32 {
    guard(|| {
        place.set(HOOKS_LARGE.as_ptr())?;
        len.set(HOOKS_LARGE.len())
    })
}

extern "C" fn hooks_small(place: Out<*const AtomicU64>, len: Out<usize>) -> u32 {
    guard(|| {
        place.set(HOOKS_SMALL.as_ptr())?;
        len.set(HOOKS_SMALL.len())
    })
}

extern "C" fn cls_put(context: Raw, key: u64, value: u64, destructor: Option<Destructor>) -> u32 {
    guard(|| cls::put(context.0, key, value, destructor))
}

extern "C" fn cls_delete(context: Raw, key: u64) -> u32 {
    guard(|| cls::delete(context.0, key))
}

extern "C" fn cls_get(out: Out<u64>, context: Raw, key: u64) -> u32 {
    guard(|| out.set(cls::get(context.0, key)?))
}

extern "C" fn context_check(_context: Raw, wrapped: Out<u32>, _unwrapped: Out<u64>) -> u32 {
    guard(|| wrapped.set(0))
}

extern "C" fn ctx_get_id(context: Raw, out: Out<u64>) -> u32 {
    cuCtxGetId(context, out)
}

/// The one handle of a stream that 0, 1, 2 or its own handle names. Source: seen with NVIDIA's driver 580 on an H100.
extern "C" fn stream_of(context: Raw, stream: Raw, out: Out<u64>, _flags: u64) -> u32 {
    guard(|| {
        let process = process()?;
        let entered =
            if context.0 == 0 { enter()? } else { enter_with(process, process.contexts.named(context.0)?)? };
        out.set(match resolve(entered, stream.0, Mode::Legacy)? {
            Stream::Legacy => LEGACY,
            Stream::Made(handle) => handle.raw(),
        })
    })
}

/// `cuStreamGetId` of what [`stream_of`] gave. Source: as there.
extern "C" fn stream_id(_context: Raw, stream: Raw, out: Out<u64>, _flags: u64) -> u32 {
    if stream.0 == 0 { CuError::INVALID_VALUE.code() } else { cuStreamGetId(stream, out) }
}

extern "C" fn processor_map(_map: Out<*const u8>, _len: Out<usize>) -> u32 {
    CuError::NOT_SUPPORTED.code()
}

/// Calls back for each function of a module and returns their number.
extern "C" fn each_function(
    _context: Raw,
    module: Raw,
    callback: Option<extern "C" fn(*mut c_void, u64)>,
    user: *mut c_void,
) -> u32 {
    let mut count = 0;
    let given = guard(|| {
        let image = enter()?.process.images.get::<kind::Module>(module.0)?;
        for ordinal in 0..image.functions.len() {
            if let Some(callback) = callback {
                callback(user, image.function_at(ordinal)?.raw());
            }
            count += 1;
        }
        Ok(())
    });
    if given == 0 { count } else { 0 }
}

extern "C" fn integrity_check(version: u32, unix_seconds: u64, out: Out<[u64; 2]>) -> u32 {
    guard(|| check(version, unix_seconds, out))
}

fn check(version: u32, unix_seconds: u64, out: Out<[u64; 2]>) -> CuResult<()> {
    let address = |place: *const c_void| place.expose_provenance() as u64;
    // SAFETY: it only reads the calling thread's own id.
    let thread = unsafe { libc::pthread_self() };
    let devices = process().map_or(&[][..], |process| &process.devices);
    out.set(answer(&Inputs {
        driver_version: told_version(),
        version,
        pid: std::process::id(),
        thread: u32::try_from(thread as u64 & 0xffff_ffff).unwrap_or(0),
        cudart_table: address(CUDART_INTERFACE.as_ptr().cast()),
        integrity_table: address(INTEGRITY_CHECK.as_ptr().cast()),
        check: address(integrity_check as *const c_void),
        unix_seconds,
        devices,
    }))
}
