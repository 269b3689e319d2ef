//! Start and end: counted, and refused by their causes.

mod support;

use std::ffi::CStr;

use support::{Play, facts};
use vgpu_zone_api::guest::facts::Facts;

const UNINITIALIZED: u32 = 1;

#[test]
fn starts_are_counted_and_only_the_first_one_asks() {
    let play = Play::begin();
    assert_eq!(nv!(play, nvmlShutdown()), UNINITIALIZED);
    let (questions, ()) = play.questions(|| {
        assert_eq!(nv!(play, nvmlInit()), 0);
        assert_eq!(nv!(play, nvmlInit_v2()), 0);
        assert_eq!(nv!(play, nvmlInitWithFlags(1: u32)), 0);
    });
    assert_eq!(questions, 1);
    let mut count = 0_u32;
    let place = &raw mut count;
    for _ in 0..3 {
        assert_eq!(nv!(play, nvmlDeviceGetCount_v2(place: *mut u32)), 0);
        assert_eq!(nv!(play, nvmlShutdown()), 0);
    }
    assert_eq!((count, nv!(play, nvmlDeviceGetCount_v2(place: *mut u32))), (2, UNINITIALIZED));
    assert_eq!(nv!(play, nvmlShutdown()), UNINITIALIZED);
    // What there is may have changed between two sessions.
    play.answer(Ok(Facts { devices: Vec::new(), ..facts() }));
    assert_eq!(nv!(play, nvmlInit_v2()), 0);
    assert_eq!((nv!(play, nvmlDeviceGetCount_v2(place: *mut u32)), count), (0, 0));
}

#[test]
fn a_refusal_is_told_by_its_cause_and_leaves_nothing_started() {
    let play = Play::begin();
    for (code, result) in [
        (0, 9), // the socket ends: no driver
        (401, 9),
        (402, 9),
        (403, 4),
        (404, 23),
        (406, 999),
        (501, 18),
    ] {
        play.answer(Err(code));
        assert_eq!(nv!(play, nvmlInit_v2()), result, "VGPU-{code}");
        assert_eq!(nv!(play, nvmlShutdown()), UNINITIALIZED);
    }
}

#[test]
fn words_are_there_before_the_start() {
    let play = Play::begin();
    let address = play.symbol("nvmlErrorString");
    // SAFETY: the type is that of nvml.h.
    let words = unsafe {
        std::mem::transmute::<*mut std::ffi::c_void, extern "C" fn(u32) -> *const std::ffi::c_char>(address)
    };
    for (number, expected) in
        [(0, c"Success"), (3, c"Not Supported"), (9, c"Driver Not Loaded"), (77, c"Unknown Error")]
    {
        // SAFETY: the library gives a text that lives for ever.
        assert_eq!(unsafe { CStr::from_ptr(words(number)) }, expected);
    }
}

/// The state is the process's own memory: a child of fork has it, and asks by itself.
#[test]
fn a_child_of_fork_goes_on() {
    let play = Play::begin();
    assert_eq!(nv!(play, nvmlInit_v2()), 0);
    let (mut device, mut memory) = (0_usize, [0_u64; 3]);
    let (device_at, memory_at) = (&raw mut device, memory.as_mut_ptr());
    assert_eq!(nv!(play, nvmlDeviceGetHandleByIndex_v2(0: u32, device_at: *mut usize)), 0);
    let address = play.symbol("nvmlDeviceGetMemoryInfo");
    // SAFETY: the type is that of nvml.h.
    let ask = unsafe {
        std::mem::transmute::<*mut std::ffi::c_void, extern "C" fn(usize, *mut u64) -> u32>(address)
    };
    // SAFETY: the child makes one call and ends without running anything of the test's.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let code = ask(device, memory_at);
        // SAFETY: ends the child.
        unsafe { libc::_exit(if code == 0 { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: the child of above, waited for once.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child's call failed");
}
