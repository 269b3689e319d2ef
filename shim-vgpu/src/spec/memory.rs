//! Memory of the host that containers have at /dev/shm: in the guest it is the guest's, one for all that name the same folder.
//!
//! CRI gives a pod's containers one file system in memory there; a volume in memory may take its place.

use std::{num::NonZeroU64, path::Path};

use sha2::{Digest, Sha256};
use vgpu_agent_api::pod::Memory;

/// As large as containerd makes it where nothing else is asked for.
const BYTES: NonZeroU64 = NonZeroU64::new(64 << 20).unwrap();
/// Source: Linux `include/uapi/linux/magic.h`, `TMPFS_MAGIC`.
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

/// The memory in place of the folder `source` of the host, of its size if that is one of memory with a limit.
pub fn of(source: &Path) -> Memory {
    let folder = source.canonicalize().unwrap_or_else(|_| source.to_owned());
    let digest = Sha256::digest(folder.as_os_str().as_encoded_bytes());
    // Half of a digest is enough for the folders of one pod.
    let name = digest.iter().take(16).fold(0, |name, byte| name << 8 | u128::from(*byte));
    Memory::new(name, size(&folder).unwrap_or(BYTES))
}

fn size(folder: &Path) -> Option<NonZeroU64> {
    let found = rustix::fs::statfs(folder).ok().filter(|found| found.f_type == TMPFS)?;
    let block = u64::try_from(found.f_bsize).ok()?;
    NonZeroU64::new(found.f_blocks.checked_mul(block)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_have_their_names_and_file_systems_in_memory_their_sizes() {
        let dir = tempfile::tempdir().unwrap();
        let (small, link) = (dir.path().join("small"), dir.path().join("link"));
        std::fs::create_dir(&small).unwrap();
        std::os::unix::fs::symlink(&small, &link).unwrap();
        crate::mount::small_tmpfs(&small, 1 << 20, 16).unwrap();
        let (one, same, other) = (of(&small), of(&link), of(Path::new("/no/such")));
        crate::mount::take_away(&small).unwrap();
        assert_eq!((&one, one.bytes().get()), (&same, 1 << 20));
        assert_ne!(one.name(), other.name());
        assert_eq!(other.bytes(), BYTES);
    }
}
