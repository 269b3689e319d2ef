//! What a process of this machine costs while it waits.

use std::fs;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Its part of the memory that it shares, and all of its own, in KiB. Source: `proc_pid_smaps(5)`, `Pss`.
    pub pss_kib: u64,
    /// Of that, what is no file's, as code is.
    pub anonymous_kib: u64,
    /// Its threads.
    pub threads: usize,
    /// Its open descriptors.
    pub descriptors: usize,
}

impl Cost {
    /// Of a process that lives.
    ///
    /// # Panics
    /// It does not, or is another user's.
    pub fn of(pid: i32) -> Self {
        let entries = |name| fs::read_dir(format!("/proc/{pid}/{name}")).expect("it lives").count();
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it lives");
        let kib = |name: &str| {
            let field = rollup.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
            field.and_then(|kib| kib.parse().ok()).expect("a number of KiB")
        };
        Cost {
            pss_kib: kib("Pss:"),
            anonymous_kib: kib("Pss_Anon:"),
            threads: entries("task"),
            descriptors: entries("fd"),
        }
    }
}
