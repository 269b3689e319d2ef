//! Memory of the host that containers have at /dev/shm, and huge pages wherever: in the guest it is the guest's, one for all that have the same folder,
//! wherever.
//!
//! A file system of huge pages has none of its bytes but by mappings, which no share carries. CRI gives a pod's containers one in memory at /dev/shm; a volume in memory may take its place. A folder of a disk stays a volume.
//! What was a volume before it came to be at /dev/shm stays one: a folder is never two things in one pod ([`Memories`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    num::NonZeroU64,
    os::unix::fs::MetadataExt,
    path::Path,
};

use vgpu_agent_api::pod::Memory;

use super::{Spec, field, guest, refuse::refused};
use crate::error::Result;

/// As large as containerd makes it where nothing else is asked for.
pub(super) const BYTES: NonZeroU64 = NonZeroU64::new(64 << 20).unwrap();
/// Source: Linux `include/uapi/linux/magic.h`, `TMPFS_MAGIC`.
const TMPFS: rustix::fs::FsWord = 0x0102_1994;
/// `HUGETLBFS_MAGIC`.
const HUGETLBFS: rustix::fs::FsWord = 0x9584_58f6;

/// What a pod's containers have of the host's file systems in memory, each known by its device.
#[derive(Debug, Default, Clone)]
pub struct Memories {
    /// In the guest's memory: this folder alone, by its inode.
    shared: BTreeMap<u64, u64>,
    /// As a volume.
    carried: BTreeSet<u64>,
}

/// Something on a file system in memory.
struct Found {
    number: usize,
    /// It is to be the guest's, unless it is a volume already.
    ours: bool,
    /// Of a huge page.
    page: Option<NonZeroU64>,
    device: u64,
    inode: u64,
    bytes: NonZeroU64,
}

impl Spec {
    /// Which of the container's mounts, by their numbers, are the guest's memory; `known` learns of all of them.
    ///
    /// # Errors
    /// [`vgpu_codes::Code::SpecRefused`] with the field, for a part of what is memory of the guest: the guest's has no such part.
    pub fn memories(&self, bundle: &Path, known: &mut Memories) -> Result<BTreeMap<usize, Memory>> {
        let binds = self.list("/mounts").iter().enumerate().filter(|(_, mount)| guest::is_bind(mount));
        let found: Vec<Found> = binds
            .filter_map(|(number, mount)| {
                let at_shm = field(mount, "destination") == "/dev/shm";
                found(number, at_shm, &bundle.join(field(mount, "source")))
            })
            .collect();
        let mut pod = known.clone();
        for one in found.iter().filter(|one| one.ours && !pod.carried.contains(&one.device)) {
            pod.shared.entry(one.device).or_insert(one.inode);
        }
        let mut memories = BTreeMap::new();
        for Found { number, device, inode, bytes, page, .. } in found {
            match pod.shared.get(&device) {
                Some(shared) if *shared == inode => {
                    let name = u128::from(device) << 64 | u128::from(inode);
                    let memory = Memory::new(name, bytes);
                    memories.insert(number, page.map_or(memory, |page| memory.of_pages(page)));
                }
                Some(_) => {
                    let what = "a part of a file system in memory that containers of this pod have at \
                                /dev/shm or of huge pages: it is the guest's, whole";
                    return refused(&format!("mounts[{number}].source"), what);
                }
                None => {
                    pod.carried.insert(device);
                }
            }
        }
        *known = pod;
        Ok(memories)
    }
}

/// None if it is on no file system in memory. At /dev/shm only a folder can be.
fn found(number: usize, at_shm: bool, source: &Path) -> Option<Found> {
    let system =
        rustix::fs::statfs(source).ok().filter(|system| [TMPFS, HUGETLBFS].contains(&system.f_type))?;
    let file = fs::metadata(source).ok()?;
    let block = u64::try_from(system.f_bsize).ok()?;
    let bytes = system.f_blocks.checked_mul(block).and_then(NonZeroU64::new).unwrap_or(BYTES);
    let page = NonZeroU64::new(block).filter(|_| system.f_type == HUGETLBFS);
    let ours = (at_shm || page.is_some()) && file.is_dir();
    Some(Found { number, ours, page, device: file.dev(), inode: file.ino(), bytes })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;
    use vgpu_codes::Code;

    use super::*;
    use crate::spec::tests::spec;

    /// A file system in memory of 1 MiB with a folder and a file, a link to it, and a folder beside it.
    struct World {
        dir: tempfile::TempDir,
        known: Memories,
    }

    impl World {
        fn new() -> Self {
            let world = World { dir: tempfile::tempdir().unwrap(), known: Memories::default() };
            let [memory, link, disk] = ["memory", "link", "disk"].map(|name| world.at(name));
            fs::create_dir(&memory).unwrap();
            fs::create_dir(&disk).unwrap();
            std::os::unix::fs::symlink(&memory, &link).unwrap();
            crate::mount::small_tmpfs(&memory, 1 << 20, 16).unwrap();
            fs::create_dir(world.at("memory/part")).unwrap();
            fs::write(world.at("memory/file"), "").unwrap();
            world
        }

        fn at(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        /// Of a container with these binds, which come third in its spec: the numbers and sizes of those that are memory.
        fn asked(&mut self, binds: &[(&str, &str)]) -> Result<Vec<(usize, u64)>> {
            let binds = binds.iter().map(
                |(source, destination)| json!({"destination": destination, "type": "bind", "source": source}),
            );
            let spec = spec(|s| s["mounts"].as_array_mut().unwrap().extend(binds));
            let found = spec.memories(self.dir.path(), &mut self.known)?;
            let names: BTreeSet<_> = found.values().map(|memory| memory.name()).collect();
            assert!(names.len() <= 1, "{names:?}");
            Ok(found.into_iter().map(|(number, memory)| (number, memory.bytes().get())).collect())
        }
    }

    impl Drop for World {
        fn drop(&mut self) {
            let _ = crate::mount::take_away(self.dir.path());
        }
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_folder_in_memory_at_dev_shm_is_the_guests_wherever_else_it_is() {
        let mut pod = World::new();
        assert_eq!(pod.asked(&[("disk", "/dev/shm")]).unwrap(), [], "a volume as any other");
        assert_eq!(pod.asked(&[("/dev/null", "/dev/shm")]).unwrap(), [], "no folder");
        let both = pod.asked(&[("memory", "/data"), ("disk", "/d"), ("link", "/dev/shm")]).unwrap();
        assert_eq!(both, [(2, MIB), (4, MIB)]);
        assert_eq!(pod.asked(&[("memory", "/cache")]).unwrap(), [(2, MIB)], "in a later container");
        for part in ["memory/part", "memory/file"] {
            for destination in ["/data", "/dev/shm"] {
                let error = pod.asked(&[("disk", "/d"), (part, destination)]).unwrap_err();
                assert_eq!(error.code(), Some(Code::SpecRefused));
                assert!(error.to_string().starts_with("mounts[3].source asks for a part of"), "{error}");
            }
        }
    }

    #[test]
    fn a_folder_of_huge_pages_is_the_guests_with_its_size_of_pages() {
        let mut pod = World::new();
        let huge = pod.at("huge");
        fs::create_dir(&huge).unwrap();
        let none = rustix::mount::MountFlags::empty();
        rustix::mount::mount("huge", &huge, "hugetlbfs", none, Some(c"pagesize=2M")).unwrap();
        fs::create_dir(huge.join("part")).unwrap();
        let binds = json!({"destination": "/huge", "type": "bind", "source": "huge"});
        let spec = spec(|s| s["mounts"].as_array_mut().unwrap().push(binds));
        let found = spec.memories(pod.dir.path(), &mut pod.known).unwrap();
        assert_eq!(
            found.into_iter().map(|(number, memory)| (number, memory.page())).collect::<Vec<_>>(),
            [(2, NonZeroU64::new(2 << 20))]
        );
        let error = pod.asked(&[("huge/part", "/part")]).unwrap_err();
        assert!(error.to_string().starts_with("mounts[2].source asks for a part of"), "{error}");
    }

    #[test]
    fn what_was_a_volume_before_stays_one() {
        let mut pod = World::new();
        assert_eq!(pod.asked(&[("memory/part", "/data")]).unwrap(), []);
        assert_eq!(pod.asked(&[("memory", "/dev/shm")]).unwrap(), []);
        assert_eq!(pod.asked(&[("memory", "/dev/shm"), ("memory", "/data")]).unwrap(), []);
    }
}
