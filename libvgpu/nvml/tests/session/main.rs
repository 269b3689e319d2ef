//! Every answered call: its result, its bad arguments, and that it fails before the start.

mod devices;
mod links;
mod processes;
#[path = "../support/mod.rs"]
mod support;
mod system;

use std::ffi::{CStr, c_char, c_void};

use support::Play;

const UNINITIALIZED: u32 = 1;
const INVALID_ARGUMENT: u32 = 2;
const NOT_SUPPORTED: u32 = 3;
const NOT_FOUND: u32 = 6;
const INSUFFICIENT_SIZE: u32 = 7;
const TIMEOUT: u32 = 10;
const GPU_IS_LOST: u32 = 15;
const VERSION_MISMATCH: u32 = 25;

#[path = "../../src/answered.rs"]
#[allow(dead_code, reason = "the table needs a part of it")]
mod answered;
#[path = "../../src/names.rs"]
mod names;

/// What a 32-bit word leaves of 8 bytes; behind it may be anything.
const LOW: u64 = 0xffff_ffff;
const NULL: *mut c_void = std::ptr::null_mut();

/// A started session.
fn started() -> Play {
    let play = Play::begin();
    assert_eq!(nv!(play, nvmlInit_v2()), 0);
    play
}

fn device(play: &Play, index: u32) -> usize {
    let mut device = 0;
    let place = &raw mut device;
    assert_eq!(nv!(play, nvmlDeviceGetHandleByIndex_v2(index: u32, place: *mut usize)), 0);
    device
}

/// A call `name(device, place)`: its result and what it wrote.
fn number(play: &Play, name: &str, device: usize) -> (u32, u32) {
    let mut value = 0;
    (call(play, name, device, (&raw mut value).cast()), value)
}

/// A call whose parameters are a device and one place.
fn call(play: &Play, name: &str, device: usize, place: *mut c_void) -> u32 {
    let address = play.symbol(name);
    assert!(!address.is_null(), "{name}");
    // SAFETY: the calls of this test have this type in nvml.h.
    let function =
        unsafe { std::mem::transmute::<*mut c_void, extern "C" fn(usize, *mut c_void) -> u32>(address) };
    function(device, place)
}

fn text(buffer: &[c_char]) -> String {
    // SAFETY: the buffers are zeroed and longer than any text here.
    unsafe { CStr::from_ptr(buffer.as_ptr()) }.to_str().expect("ASCII").to_owned()
}

/// A call `name(place, length)` or `name(device, place, length)`.
fn word(play: &Play, name: &str, device: Option<usize>, length: u32) -> (u32, String) {
    let (address, mut buffer) = (play.symbol(name), [0 as c_char; 128]);
    let place = buffer.as_mut_ptr();
    let code = match device {
        // SAFETY: the calls of this test have this type in nvml.h.
        None => unsafe {
            std::mem::transmute::<*mut c_void, extern "C" fn(*mut c_char, u32) -> u32>(address)(place, length)
        },
        // SAFETY: as above.
        Some(device) => unsafe {
            std::mem::transmute::<*mut c_void, extern "C" fn(usize, *mut c_char, u32) -> u32>(address)(
                device, place, length,
            )
        },
    };
    (code, text(&buffer))
}

/// Most of NVML. A buffer as large as any of its structures is given in each place, so that a call which does more than refuse is seen.
#[test]
fn what_is_not_answered_refuses_and_writes_nothing() {
    let play = Play::begin();
    let refused: Vec<_> =
        names::NAMES.iter().filter(|row| answered::subject_of(row.name).is_none()).collect();
    assert!(refused.len() > 300, "{}", refused.len());
    let mut buffer = vec![0x5a_u8; 64 << 10];
    let place = buffer.as_mut_ptr();
    let ask = |name: &str, first: usize| {
        let address = play.symbol(name);
        assert!(!address.is_null(), "{name}");
        // SAFETY: exports that refuse read at most their first parameter; all have C's calling convention.
        let function = unsafe {
            std::mem::transmute::<*mut c_void, extern "C" fn(usize, *mut u8, *mut u8, *mut u8) -> u32>(
                address,
            )
        };
        function(first, place, place, place)
    };
    for row in &refused {
        assert_eq!(ask(row.name, 0), UNINITIALIZED, "{} before the start", row.name);
    }
    assert_eq!(nv!(play, nvmlInit_v2()), 0);
    let first = device(&play, 0);
    for row in &refused {
        assert_eq!(ask(row.name, first), NOT_SUPPORTED, "{}", row.name);
        let of_none = if row.on_device { INVALID_ARGUMENT } else { NOT_SUPPORTED };
        for none in [0, first.wrapping_sub(1), first + 2, usize::MAX] {
            assert_eq!(ask(row.name, none), of_none, "{} of {none:#x}", row.name);
        }
    }
    assert!(buffer.iter().all(|byte| *byte == 0x5a));
}

#[test]
fn what_is_answered_refuses_before_the_start_and_a_device_that_is_none() {
    let play = Play::begin();
    let free = ["nvmlInit", "nvmlInit_v2", "nvmlInitWithFlags", "nvmlShutdown", "nvmlErrorString"];
    let mut buffer = vec![0_u8; 64 << 10];
    let place = buffer.as_mut_ptr();
    let ask = |name: &str, first: usize| {
        // SAFETY: every place is larger than what the calls read or write; numbers among the parameters are addresses' low halves,
        // and a count read from the buffer is 0.
        let function = unsafe {
            std::mem::transmute::<*mut c_void, extern "C" fn(usize, *mut u8, *mut u8, *mut u8) -> u32>(
                play.symbol(name),
            )
        };
        function(first, place, place, place)
    };
    let rows = names::NAMES
        .iter()
        .filter(|row| answered::subject_of(row.name).is_some() && !free.contains(&row.name));
    let rows: Vec<_> = rows.collect();
    for row in &rows {
        assert_eq!(ask(row.name, 0), UNINITIALIZED, "{}", row.name);
    }
    assert_eq!(nv!(play, nvmlInit_v2()), 0);
    for row in rows.iter().filter(|row| row.on_device) {
        for none in [0, device(&play, 1) + 1, usize::MAX] {
            assert_eq!(ask(row.name, none), INVALID_ARGUMENT, "{} of {none:#x}", row.name);
        }
    }
}
