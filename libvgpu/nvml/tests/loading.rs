//! What loading and a session leave in a process. Its own program: it counts threads and descriptors.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use support::{Library, Play, built};

const UNINITIALIZED: u32 = 1;

fn entries(dir: &str) -> BTreeSet<String> {
    let names = fs::read_dir(dir).expect("Linux has it").map(|entry| entry.expect("readable").file_name());
    names.map(|name| name.to_string_lossy().into_owned()).collect()
}

/// Threads of this process, and what it has open.
fn footprint() -> (usize, BTreeSet<String>) {
    let open = entries("/proc/self/fd");
    // The descriptor that reads the list is gone again.
    let open = open.into_iter().filter(|fd| fs::read_link(format!("/proc/self/fd/{fd}")).is_ok()).collect();
    (entries("/proc/self/task").len(), open)
}

#[test]
fn loading_starts_no_thread_and_opens_nothing_and_a_session_leaves_nothing_open() {
    let play = Play::begin();
    let before = footprint();
    let library = Library::at(&built());
    let (mut count, mut device) = (0_u32, 0_usize);
    let (count_at, device_at) = (&raw mut count, &raw mut device);
    assert_eq!(nv!(library, nvmlDeviceGetCount_v2(count_at: *mut u32)), UNINITIALIZED);
    assert_eq!(footprint(), before, "before nvmlInit");
    assert_eq!(nv!(library, nvmlInit_v2()), 0);
    assert_eq!(nv!(library, nvmlDeviceGetHandleByIndex_v2(0: u32, device_at: *mut usize)), 0);
    let mut memory = [0_u64; 3];
    let place = memory.as_mut_ptr();
    assert_eq!(nv!(library, nvmlDeviceGetMemoryInfo(device: usize, place: *mut u64)), 0);
    // The door's own end of the last socket may take a moment.
    let start = Instant::now();
    while footprint() != before && start.elapsed() < Duration::from_secs(5) {
        std::thread::yield_now();
    }
    assert_eq!(footprint(), before, "between two calls");
    assert_eq!(nv!(library, nvmlShutdown()), 0);
    // A program that closes what its destructors still call: the library stays.
    library.close();
    assert_eq!(nv!(play, nvmlShutdown()), UNINITIALIZED);
}
