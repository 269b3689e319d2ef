//! Processes of the container.

use super::*;

#[test]
fn a_processs_name_is_its_first_word_and_cut_to_fit() {
    let play = started();
    let own = std::process::id();
    let mut name = [0 as c_char; 4096];
    let place = name.as_mut_ptr();
    assert_eq!(nv!(play, nvmlSystemGetProcessName(own: u32, place: *mut c_char, 4096: u32)), 0);
    let whole = text(&name);
    assert_eq!(Some(whole.as_str()), std::env::args().next().as_deref());
    assert_eq!(nv!(play, nvmlSystemGetProcessName(own: u32, place: *mut c_char, 4: u32)), 0);
    assert_eq!(text(&name), whole[..3]);
    assert_eq!(nv!(play, nvmlSystemGetProcessName(own: u32, place: *mut c_char, 0: u32)), INVALID_ARGUMENT);
    assert_eq!(nv!(play, nvmlSystemGetProcessName(own: u32, NULL: *mut c_void, 9: u32)), INVALID_ARGUMENT);
    let nobody = u32::MAX;
    assert_eq!(nv!(play, nvmlSystemGetProcessName(nobody: u32, place: *mut c_char, 9: u32)), NOT_FOUND);
}

#[test]
fn processes_are_the_containers_own_in_every_version() {
    const ROOM: u32 = 4;
    let play = started();
    let first = device(&play, 0);
    // Words of 8 bytes an entry: pid, bytes, instances.
    for (name, words) in [
        ("nvmlDeviceGetComputeRunningProcesses", 2),
        ("nvmlDeviceGetComputeRunningProcesses_v2", 3),
        ("nvmlDeviceGetComputeRunningProcesses_v3", 3),
    ] {
        let (address, mut count, mut list) = (play.symbol(name), 0_u32, [0x55_u64; 16]);
        // SAFETY: the type is that of nvml.h.
        let function = unsafe {
            std::mem::transmute::<*mut c_void, extern "C" fn(usize, *mut u32, *mut u64) -> u32>(address)
        };
        assert_eq!(function(first, &raw mut count, std::ptr::null_mut()), INSUFFICIENT_SIZE, "{name}");
        assert_eq!(count, 2);
        count = 1;
        assert_eq!((function(first, &raw mut count, list.as_mut_ptr()), count), (INSUFFICIENT_SIZE, 2));
        assert_eq!(list, [0x55; 16], "{name}: nothing is written without room for all");
        count = ROOM;
        assert_eq!((function(first, &raw mut count, list.as_mut_ptr()), count), (0, 2));
        let pids: Vec<_> =
            list.chunks(words).take(2).map(|entry| u32::try_from(entry[0] & LOW).expect("32 bits")).collect();
        let bytes: Vec<_> = list.chunks(words).take(2).map(|entry| entry[1]).collect();
        assert_eq!((pids, bytes), (vec![12, 14], vec![500 << 20, 18 << 20]), "{name}");
        assert!(words == 2 || list[2] == u64::MAX, "{name}: no instance");
        assert_eq!(list[2 * words], 0x55);
        assert_eq!(function(first, std::ptr::null_mut(), list.as_mut_ptr()), INVALID_ARGUMENT, "{name}");
        count = ROOM;
        assert_eq!(function(first, &raw mut count, std::ptr::null_mut()), INVALID_ARGUMENT, "{name}");
    }
    for kind in ["Graphics", "MPSCompute"] {
        for version in ["", "_v2", "_v3"] {
            let name = format!("nvmlDeviceGet{kind}RunningProcesses{version}");
            let (address, mut count) = (play.symbol(&name), 0_u32);
            // SAFETY: as above.
            let function = unsafe {
                std::mem::transmute::<*mut c_void, extern "C" fn(usize, *mut u32, *mut u64) -> u32>(address)
            };
            assert_eq!((function(first, &raw mut count, std::ptr::null_mut()), count), (0, 0), "{name}");
            assert_eq!(function(first, std::ptr::null_mut(), std::ptr::null_mut()), INVALID_ARGUMENT);
        }
    }
}

/// `nvmlProcessDetailList_v1_t`.
#[repr(C)]
struct DetailList {
    version: u32,
    mode: u32,
    count: u32,
    list: *mut u64,
}

#[test]
fn the_detailed_list_says_the_same() {
    let play = started();
    let second = device(&play, 1);
    const VERSION: u32 = 24 | 1 << 24;
    let one = [13, 1, u64::MAX, u64::MAX];
    for (version, mode, room, expected, written) in [
        (VERSION, 0, 0, (INSUFFICIENT_SIZE, 1), [0; 4]),
        (VERSION, 0, 1, (0, 1), one),
        (VERSION, 1, 1, (0, 0), [0; 4]),
        (VERSION, 2, 1, (0, 0), [0; 4]),
        (VERSION, 3, 1, (INVALID_ARGUMENT, 1), [0; 4]),
        (24 | 2 << 24, 0, 1, (VERSION_MISMATCH, 1), [0; 4]),
    ] {
        let mut list = [0_u64; 5];
        let mut asked = DetailList { version, mode, count: room, list: list.as_mut_ptr() };
        let place = &raw mut asked;
        let code = nv!(play, nvmlDeviceGetRunningProcessDetailList(second: usize, place: *mut DetailList));
        assert_eq!((code, asked.count), expected, "{version:#x}, mode {mode}");
        list[0] &= LOW;
        assert_eq!((&list[..4], list[4]), (&written[..], 0), "mode {mode}");
    }
}
