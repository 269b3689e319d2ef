//! `/proc/self/status`, and the capabilities' names.

use std::fs;

use serde_json::{Value, json};

/// In the order of their bits. Source: `linux/capability.h`.
const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Lines "Name:\tvalue". Source: `proc_pid_status(5)`.
pub struct Status(String);

impl Status {
    pub fn read() -> std::io::Result<Self> {
        fs::read_to_string("/proc/self/status").map(Self)
    }

    /// The words behind a name; none where this kernel has no such line.
    pub fn words(&self, name: &str) -> Vec<&str> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|words| words.split_whitespace().collect()).unwrap_or_default()
    }

    /// The first word.
    pub fn word(&self, name: &str) -> Value {
        self.words(name).first().map_or(Value::Null, |word| json!(word))
    }

    /// The words as numbers.
    pub fn numbers(&self, name: &str) -> Vec<u64> {
        self.words(name).iter().filter_map(|word| word.parse().ok()).collect()
    }

    /// The first word as a number.
    pub fn number(&self, name: &str) -> Value {
        self.numbers(name).first().map_or(Value::Null, |number| json!(number))
    }

    /// A set of capabilities, by names.
    pub fn capabilities(&self, name: &str) -> Vec<String> {
        let bits = self.words(name).first().and_then(|bits| u64::from_str_radix(bits, 16).ok());
        capabilities(bits.unwrap_or(0))
    }
}

fn capabilities(bits: u64) -> Vec<String> {
    let has = |bit: &usize| bits & (1 << bit) != 0;
    let name = |bit: usize| CAPABILITIES.get(bit).map_or_else(|| format!("CAP_{bit}"), |name| (*name).into());
    (0..64).filter(has).map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_by_their_whole_name() {
        let status =
            Status("Seccomp_filters:\t1\nSeccomp:\t2\nGroups:\t7 8 \nCapEff:\t0000000000000021\n".into());
        assert_eq!(status.number("Seccomp"), 2);
        assert_eq!(status.numbers("Groups"), [7, 8]);
        assert_eq!(status.capabilities("CapEff"), ["CAP_CHOWN", "CAP_KILL"]);
        assert_eq!(status.word("Umask"), Value::Null);
    }

    #[test]
    fn a_capability_that_is_newer_than_the_names_is_told_by_its_bit() {
        assert_eq!(capabilities(1 << 40 | 1 << 41), ["CAP_CHECKPOINT_RESTORE", "CAP_41"]);
    }
}
