//! What is told of the system, NVIDIA's private table, events.

use std::time::{Duration, Instant};

use support::facts;

use super::*;

#[test]
fn the_system_is_told_with_the_versions_that_cuda_tells() {
    let play = started();
    assert_eq!(word(&play, "nvmlSystemGetDriverVersion", None, 80), (0, "580.159.04".into()));
    assert_eq!(word(&play, "nvmlSystemGetNVMLVersion", None, 80), (0, "13.580.159.04".into()));
    assert_eq!(word(&play, "nvmlSystemGetDriverVersion", None, 11).0, 0, "just room");
    assert_eq!(word(&play, "nvmlSystemGetDriverVersion", None, 10).0, INSUFFICIENT_SIZE);
    assert_eq!(nv!(play, nvmlSystemGetDriverVersion(NULL: *mut c_void, 80: u32)), INVALID_ARGUMENT);
    let mut version = 0;
    let place = &raw mut version;
    // The driver has a newer one than this release answers for.
    assert_eq!((nv!(play, nvmlSystemGetCudaDriverVersion_v2(place: *mut i32)), version), (0, 13000));
    assert_eq!(nv!(play, nvmlSystemGetCudaDriverVersion(place: *mut i32)), 0);
    assert_eq!(nv!(play, nvmlSystemGetCudaDriverVersion_v2(NULL: *mut c_void)), INVALID_ARGUMENT);
    let mut count = 9_u32;
    let place = &raw mut count;
    for name in ["nvmlUnitGetCount", "nvmlGetExcludedDeviceCount"] {
        count = 9;
        let address = play.symbol(name);
        // SAFETY: the type is that of nvml.h.
        let function = unsafe { std::mem::transmute::<*mut c_void, extern "C" fn(*mut u32) -> u32>(address) };
        assert_eq!((function(place), count), (0, 0), "{name}");
    }
    assert_eq!((nv!(play, nvmlSystemGetHicVersion(place: *mut u32, NULL: *mut c_void)), count), (0, 0));
    assert_eq!(nv!(play, nvmlUnitGetHandleByIndex(0: u32, place: *mut u32)), INVALID_ARGUMENT);
}

#[test]
fn nobody_here_computes_confidentially() {
    let play = started();
    let mut state = [7_u32; 4];
    let place = state.as_mut_ptr();
    assert_eq!(nv!(play, nvmlSystemGetConfComputeState(place: *mut u32)), 0);
    assert_eq!(state, [0, 0, 0, 7]);
    for (version, code, written) in [(20 | 1 << 24, 0, 0), (20 | 2 << 24, VERSION_MISMATCH, 7)] {
        let mut settings = [version, 7, 7, 7, 7, 7];
        let place = settings.as_mut_ptr();
        assert_eq!(nv!(play, nvmlSystemGetConfComputeSettings(place: *mut u32)), code);
        assert_eq!(settings, [version, written, written, written, written, 7]);
    }
    assert_eq!(nv!(play, nvmlSystemGetConfComputeSettings(NULL: *mut c_void)), INVALID_ARGUMENT);
}

/// What NVIDIA's own nvidia-smi asks beside the header's calls.
#[test]
fn the_private_table_gives_handles_and_named_processes_and_refuses_the_rest() {
    const ENTRY: usize = 4128;
    let play = Play::begin();
    let mut mine = facts();
    mine.processes[0].pid = std::process::id();
    play.answer(Ok(mine));
    assert_eq!(nv!(play, nvmlInit_v2()), 0);
    let table = |id: u128| {
        let (mut table, id) = (std::ptr::dangling::<*mut c_void>(), id.to_be_bytes());
        let (place, id) = (&raw mut table, id.as_ptr());
        let code = nv!(play, nvmlInternalGetExportTable(place: *mut *const *mut c_void, id: *const u8));
        (code, table)
    };
    assert_eq!(table(1), (INVALID_ARGUMENT, std::ptr::null()));
    let (code, table) = table(0xc4fe3e6c_c98f_6c4e_a327_ee696e12f7c4);
    assert_eq!(code, 0);
    // SAFETY: a table of the library starts with its size in bytes.
    let slots = unsafe { std::slice::from_raw_parts(table, 256) };
    assert_eq!(slots[0].addr(), 256 * 8);

    let (first, mut found) = (device(&play, 0), 0_usize);
    // SAFETY: the type that nvidia-smi calls it by.
    let by_index =
        unsafe { std::mem::transmute::<*mut c_void, extern "C" fn(u32, *mut usize) -> u32>(slots[81]) };
    assert_eq!((by_index(0, &raw mut found), found), (0, first));
    assert_eq!(by_index(2, &raw mut found), INVALID_ARGUMENT);

    for (slot, expected) in [(213, 2), (214, 0), (215, 0)] {
        let (mut count, mut list) = (3_u32, vec![0x55_u8; 3 * ENTRY]);
        // SAFETY: as above.
        let ask = unsafe {
            std::mem::transmute::<*mut c_void, extern "C" fn(usize, *mut u32, *mut u8) -> u32>(slots[slot])
        };
        assert_eq!((ask(first, &raw mut count, list.as_mut_ptr()), count), (0, expected), "slot {slot}");
        assert!(list[expected as usize * ENTRY..].iter().all(|byte| *byte == 0x55), "slot {slot}");
        if expected > 0 {
            assert_eq!(list[..4], std::process::id().to_le_bytes());
            assert_eq!(list[8..16], (500_u64 << 20).to_le_bytes());
            let name = list[32..ENTRY].split(|byte| *byte == 0).next().expect("a first part");
            assert_eq!(Some(name), std::env::args().next().as_ref().map(String::as_bytes));
            // The second one cannot be seen from here, most likely.
            assert_eq!(list[ENTRY..ENTRY + 4], 14_u32.to_le_bytes());
        }
        count = 0;
        let none = if expected > 0 { INSUFFICIENT_SIZE } else { 0 };
        assert_eq!(ask(first, &raw mut count, std::ptr::null_mut()), none);
        assert_eq!(ask(0, &raw mut count, std::ptr::null_mut()), INVALID_ARGUMENT);
    }
    // SAFETY: as above.
    let line = unsafe { std::mem::transmute::<*mut c_void, extern "C" fn(*const c_char) -> u32>(slots[26]) };
    assert_eq!(line(c"a line".as_ptr()), 0, "nvidia-smi prints nothing after a refusal");
    let known = [0, 26, 81, 213, 214, 215];
    for (number, slot) in slots.iter().enumerate().filter(|(number, _)| !known.contains(number)) {
        // SAFETY: whatever it is called with, it looks at nothing.
        let ask = unsafe { std::mem::transmute::<*mut c_void, extern "C" fn(usize, *mut u32) -> u32>(*slot) };
        assert_eq!(ask(first, std::ptr::null_mut()), NOT_SUPPORTED, "slot {number}");
    }
}

#[test]
fn a_set_of_events_waits_for_none() {
    let play = started();
    let first = device(&play, 0);
    let (mut sets, mut types, mut data) = ([0_usize; 2], 7_u64, [0x55_u8; 32]);
    for set in &mut sets {
        let place = &raw mut *set;
        assert_eq!(nv!(play, nvmlEventSetCreate(place: *mut usize)), 0);
    }
    let [set, other] = sets;
    assert_ne!(set, other);
    assert_eq!(nv!(play, nvmlEventSetCreate(NULL: *mut c_void)), INVALID_ARGUMENT);
    let types_at = &raw mut types;
    assert_eq!(
        (nv!(play, nvmlDeviceGetSupportedEventTypes(first: usize, types_at: *mut u64)), types),
        (0, 0)
    );
    assert_eq!(nv!(play, nvmlDeviceRegisterEvents(first: usize, 0: u64, set: usize)), 0);
    assert_eq!(nv!(play, nvmlDeviceRegisterEvents(first: usize, 8: u64, set: usize)), NOT_SUPPORTED);
    assert_eq!(nv!(play, nvmlDeviceRegisterEvents(first: usize, 0: u64, 99: usize)), INVALID_ARGUMENT);
    assert_eq!(nv!(play, nvmlDeviceRegisterEvents(0: usize, 0: u64, set: usize)), INVALID_ARGUMENT);
    let data_at = data.as_mut_ptr();
    let began = Instant::now();
    assert_eq!(nv!(play, nvmlEventSetWait_v2(set: usize, data_at: *mut u8, 30: u32)), TIMEOUT);
    assert!(began.elapsed() >= Duration::from_millis(30));
    assert_eq!(nv!(play, nvmlEventSetWait(set: usize, data_at: *mut u8, 0: u32)), TIMEOUT);
    assert_eq!(nv!(play, nvmlEventSetWait_v2(set: usize, NULL: *mut c_void, 0: u32)), INVALID_ARGUMENT);
    assert_eq!(data, [0x55; 32]);
    assert_eq!(nv!(play, nvmlEventSetFree(set: usize)), 0);
    assert_eq!(nv!(play, nvmlEventSetFree(set: usize)), INVALID_ARGUMENT);
    assert_eq!(nv!(play, nvmlEventSetWait_v2(set: usize, data_at: *mut u8, 0: u32)), INVALID_ARGUMENT);
    assert_eq!(nv!(play, nvmlEventSetFree(other: usize)), 0);
}
