//! What a call costs the program: answered in the process, queued, waited for. One JSON object a line.
//!
//! The library is the built one, opened as a program opens it; the worker is a thread with a device of a few lines. Beside each figure:
//! the cheapest system call (for what is answered or queued here), a byte through a pipe and back (for what waits).

#[path = "../tests/support/mod.rs"]
mod support;

use std::ffi::c_void;
use std::hint::black_box;
use std::io::{Read, Write};
use std::time::Instant;

use support::session::session;

/// So many batches in a benchmark. Without cargo's `--bench` the program is only tried: a few, and the figures mean nothing.
fn batches() -> u32 {
    if std::env::args().any(|word| word == "--bench") { 200 } else { 2 }
}

/// Nanoseconds of one run of `body`: the median of many batches.
fn nanoseconds(batch: u32, mut body: impl FnMut()) -> f64 {
    let mut each: Vec<f64> = (0..batches())
        .map(|_| {
            let start = Instant::now();
            for _ in 0..batch {
                body();
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(batch)
        })
        .collect();
    each.sort_by(f64::total_cmp);
    each[each.len() / 2]
}

/// What a user would use instead: how long it takes, and what it is.
type Instead = (f64, &'static str);

fn figure(name: &str, value: f64, (beside, what): Instead, target: u32) {
    let ratio = value / beside;
    println!(
        r#"{{"name":"{name}","value":{value:.1},"unit":"ns","beside":{beside:.1},"what":"{what}","ratio":{ratio:.3},"target":{target}}}"#
    );
}

/// An export with its type.
macro_rules! export {
    ($session:expr, $name:literal as $t:ty) => {{
        let address = $session.libcuda.symbol($name);
        // SAFETY: the types are those of CUDA's header; the places given later live as long as the calls.
        #[allow(clippy::macro_metavars_in_unsafe, reason = "only a type")]
        unsafe {
            std::mem::transmute::<*mut c_void, $t>(address)
        }
    }};
}

/// A byte to another thread through a pipe, and one back.
fn pipe_round_trip() -> Instead {
    let (mut there, mut back) = (std::io::pipe().expect("a pipe"), std::io::pipe().expect("a pipe"));
    std::thread::spawn(move || {
        let mut byte = [0];
        while there.0.read_exact(&mut byte).is_ok() && back.1.write_all(&byte).is_ok() {}
    });
    let mut byte = [1];
    let round_trip = nanoseconds(20, || {
        there.1.write_all(&byte).expect("written");
        back.0.read_exact(&mut byte).expect("read");
    });
    (round_trip, "byte there and back by pipes")
}

fn main() {
    let session = session();
    let get_current = export!(session, "cuCtxGetCurrent" as extern "C" fn(*mut u64) -> u32);
    let get_attribute = export!(session, "cuDeviceGetAttribute" as extern "C" fn(*mut i32, u32, i32) -> u32);
    let mem_info = export!(session, "cuMemGetInfo_v2" as extern "C" fn(*mut usize, *mut usize) -> u32);
    let synchronize = export!(session, "cuCtxSynchronize" as extern "C" fn() -> u32);
    let export =
        export!(session, "cuGetExportTable" as extern "C" fn(*mut *const *const c_void, *const u8) -> u32);
    let load = export!(session, "cuModuleLoadData" as extern "C" fn(*mut u64, *const i8) -> u32);
    let function = export!(session, "cuModuleGetFunction" as extern "C" fn(*mut u64, u64, *const i8) -> u32);
    type Launch = extern "C" fn(
        u64,
        u32,
        u32,
        u32,
        u32,
        u32,
        u32,
        u32,
        u64,
        *const *const c_void,
        *const c_void,
    ) -> u32;
    let launch = export!(session, "cuLaunchKernel" as Launch);

    let system_call = nanoseconds(1000, || {
        // SAFETY: it has no parameters and changes nothing.
        black_box(unsafe { libc::syscall(libc::SYS_getppid) });
    });
    let system_call = (system_call, "cheapest system call");
    let mut context = 0u64;
    figure(
        "call answered in the guest (cuCtxGetCurrent)",
        nanoseconds(1000, || {
            black_box(get_current(&raw mut context));
        }),
        system_call,
        20,
    );
    let mut value = 0i32;
    figure(
        "device attribute",
        nanoseconds(1000, || {
            black_box(get_attribute(&raw mut value, 75, 0));
        }),
        system_call,
        20,
    );

    let uuid = 0xc693336e_1121_df11_a8c3_68f355d89593u128.to_be_bytes();
    let mut table = std::ptr::null::<*const c_void>();
    assert_eq!(export(&raw mut table, uuid.as_ptr()), 0);
    // SAFETY: the table has four slots: put, delete, get, NULL.
    let [put, _, get, _] = unsafe { *table.cast::<[*const c_void; 4]>() };
    // SAFETY: slot 0 has this type.
    let put = unsafe { std::mem::transmute::<*const c_void, extern "C" fn(u64, u64, u64, u64) -> u32>(put) };
    // SAFETY: slot 2 has this type.
    let get = unsafe { std::mem::transmute::<*const c_void, extern "C" fn(*mut u64, u64, u64) -> u32>(get) };
    assert_eq!(put(0, 0x1230, 42, 0), 0);
    let mut stored = 0u64;
    figure(
        "context-local storage, hit",
        nanoseconds(1000, || {
            black_box(get(&raw mut stored, 0, 0x1230));
        }),
        system_call,
        10,
    );
    assert_eq!(stored, 42);

    let (mut module, mut fill) = (0u64, 0u64);
    assert_eq!(load(&raw mut module, c".version 8.0 bench".as_ptr()), 0);
    assert_eq!(function(&raw mut fill, module, c"fill".as_ptr()), 0);
    let (address, word, count) = (0x7000_0000u64, 1u32, 1u32);
    let params = [(&raw const address).cast(), (&raw const word).cast(), (&raw const count).cast::<c_void>()];
    // Batches that fit the ring, waited for outside of the clock: the program's share, not the device's speed.
    let mut queued: Vec<f64> = (0..batches())
        .map(|_| {
            let start = Instant::now();
            for _ in 0..200 {
                black_box(launch(fill, 1, 1, 1, 32, 1, 1, 0, 0, params.as_ptr(), std::ptr::null()));
            }
            let each = start.elapsed().as_secs_f64() * 1e9 / 200.0;
            assert_eq!(synchronize(), 0);
            each
        })
        .collect();
    queued.sort_by(f64::total_cmp);
    figure("queued launch, 16 bytes of parameters", queued[queued.len() / 2], system_call, 150);

    let (mut free, mut total) = (0usize, 0usize);
    figure(
        "call that waits (cuMemGetInfo)",
        nanoseconds(100, || {
            black_box(mem_info(&raw mut free, &raw mut total));
        }),
        pipe_round_trip(),
        2000,
    );
}
