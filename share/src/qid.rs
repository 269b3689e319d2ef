//! Identities of objects, over all file systems of the share.
//!
//! The guest takes `qid.path` for the inode number of one file system. Here it is made of device and inode by a keyed hash: no table is
//! kept, the same object has the same number while a session lives, and two objects meet once in 2^64: of a million files, any two do
//! with a probability of 3·10^-8. The key is the session's own, so nobody can look for such a pair.

use std::hash::{BuildHasher as _, RandomState};

use rustix::fs::{FileType, Statx};

use crate::wire::Qid;

/// What the host takes for an object's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ObjectId {
    device: (u32, u32),
    inode: u64,
}

impl ObjectId {
    pub(crate) fn new(stat: &Statx) -> Self {
        ObjectId { device: (stat.stx_dev_major, stat.stx_dev_minor), inode: stat.stx_ino }
    }

    /// Of an entry that nobody could look at: its directory's file system, and the number that this tells.
    pub(crate) fn beside(self, inode: u64) -> Self {
        ObjectId { inode, ..self }
    }
}

/// The numbering of one session.
#[derive(Debug, Default)]
pub(crate) struct Qids(RandomState);

impl Qids {
    pub(crate) fn of(&self, id: ObjectId, kind: FileType) -> Qid {
        let bits = match kind {
            FileType::Directory => Qid::DIRECTORY,
            FileType::Symlink => Qid::SYMLINK,
            _ => 0,
        };
        // Linux keeps no contents of a file of version 0 but what is mapped (fs/9p/fid.h); the guest relies on that (guest-init/README.md).
        Qid { kind: bits, version: 0, path: self.0.hash_one(id) }
    }

    /// The number of an object's file system.
    pub(crate) fn device(&self, id: ObjectId) -> u64 {
        self.0.hash_one(id.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(major: u32, minor: u32, inode: u64) -> ObjectId {
        ObjectId { device: (major, minor), inode }
    }

    #[test]
    fn objects_of_several_file_systems_have_numbers_of_their_own_that_stay() {
        let qids = Qids::default();
        let of = |id| qids.of(id, FileType::RegularFile).path;
        let ids = (0..8).flat_map(|major| {
            (0..8).flat_map(move |minor| (0..64).map(move |inode| id(major, minor, inode << (inode % 40))))
        });
        let ids: std::collections::HashSet<_> = ids.collect();
        let numbers: std::collections::HashSet<_> = ids.iter().map(|id| of(*id)).collect();
        assert_eq!(numbers.len(), ids.len());
        assert_eq!(of(id(8, 1, 2)), of(id(8, 1, 2)));
        assert_ne!(
            Qids::default().of(id(8, 1, 2), FileType::RegularFile).path,
            of(id(8, 1, 2)),
            "one key for all"
        );
    }

    #[test]
    fn a_qid_tells_directories_and_links() {
        let kind = |kind| Qids::default().of(id(1, 1, 1), kind).kind;
        assert_eq!(kind(FileType::Directory), 0x80);
        assert_eq!(kind(FileType::Symlink), 0x02);
        assert_eq!([FileType::RegularFile, FileType::Fifo, FileType::Socket].map(kind), [0; 3]);
    }

    #[test]
    fn no_qid_lets_a_guest_keep_contents() {
        let versions =
            (0..100).map(|inode| Qids::default().of(id(1, 1, inode), FileType::RegularFile).version);
        assert!(versions.into_iter().all(|version| version == 0));
    }
}
