//! How much of what programs have changed in mapped files may wait for its way to the node.
//!
//! 9p sends what a dying process has changed in its mappings before the process is gone, so before its exit is told (README, "Mapped
//! files"). By itself the kernel lets a fifth of the memory wait, and a SIGKILL would not end in the time that the shim gives it.

use std::{fs, path::Path};

use crate::error::{During, Result};

/// Where the kernel takes the limits. Source: Linux `Documentation/admin-guide/sysctl/vm.rst`.
const LIMITS: &str = "/proc/sys/vm";
/// Who changes more than this waits.
const BYTES_MAX: u64 = 128 << 20;
/// Of a small guest's memory: this part at most.
const PART: u64 = 8;
/// Of the limit: from this part on it is sent, without anybody's waiting.
const SENT_PART: u64 = 4;

/// Bounds it, for a guest of so much memory.
/// # Errors
/// The kernel takes no such limit.
pub fn bound() -> Result<()> {
    let memory = rustix::system::sysinfo();
    bound_at(Path::new(LIMITS), memory.totalram.saturating_mul(memory.mem_unit.into()))
}

fn bound_at(limits: &Path, memory_bytes: u64) -> Result<()> {
    let bytes = BYTES_MAX.min(memory_bytes / PART);
    for (name, bytes) in [("dirty_bytes", bytes), ("dirty_background_bytes", bytes / SENT_PART)] {
        fs::write(limits.join(name), bytes.to_string()).during(|| format!("set vm.{name}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_its_way_to_the_node_is_bounded() {
        let limits = tempfile::tempdir().unwrap();
        for (memory_mib, bytes, sent) in
            [(64, 8 << 20, 2 << 20), (1024, 128 << 20, 32 << 20), (65536, 128 << 20, 32 << 20)]
        {
            bound_at(limits.path(), memory_mib << 20).unwrap();
            let now = ["dirty_bytes", "dirty_background_bytes"]
                .map(|name| fs::read_to_string(limits.path().join(name)).unwrap().parse::<u64>().unwrap());
            assert_eq!(now, [bytes, sent], "{memory_mib} MiB");
        }
        assert!(bound_at(&limits.path().join("none"), 1 << 30).is_err());
    }
}
