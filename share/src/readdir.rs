//! Directories, read in pieces: any piece from the offset that the last one told.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, RawDir, SeekFrom};
use rustix::io::Errno;

use crate::message::Entry;
use crate::node::{self, Node};
use crate::qid::{ObjectId, Qids};

/// What one call of the kernel fills at most.
const BATCH_BYTES: usize = 32 << 10;

/// Puts entries from `offset` on into `reply`, as many as `count` bytes hold. None is the end.
pub(crate) fn read(
    node: &Arc<Node>,
    directory: &OwnedFd,
    qids: &Qids,
    (offset, count): (u64, usize),
    reply: &mut Vec<u8>,
) -> Result<(), Errno> {
    reply.clear();
    if i64::try_from(offset).is_err() {
        return Err(Errno::INVAL);
    }
    rustix::fs::seek(directory, SeekFrom::Start(offset))?;
    let mut batch = vec![MaybeUninit::uninit(); BATCH_BYTES];
    let mut entries = RawDir::new(directory, &mut batch);
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            // What was read already is told first; the next call meets the failure again.
            Err(_) if !reply.is_empty() => return Ok(()),
            Err(errno) => return Err(errno),
        };
        let name = entry.file_name().to_bytes();
        let (id, kind) = identity(node, directory, name, (entry.ino(), entry.file_type()));
        let told =
            Entry { qid: qids.of(id, kind), next: entry.next_entry_cookie(), kind: entry_kind(kind), name };
        if reply.len() + told.bytes() > count {
            // An empty answer would be the end.
            return if reply.is_empty() { Err(Errno::INVAL) } else { Ok(()) };
        }
        told.put(reply);
    }
    Ok(())
}

/// As a walk to it would find it: what is mounted there counts, and layers may number their files apart. An entry that is gone again is
/// told as the directory tells it.
fn identity(
    node: &Arc<Node>,
    directory: &OwnedFd,
    name: &[u8],
    told: (u64, FileType),
) -> (ObjectId, FileType) {
    match name {
        b"." => (node.id(), FileType::Directory),
        // The kernel's may lie above the root.
        b".." => (node.parent().id(), FileType::Directory),
        _ => match node::stat_at(directory.as_fd(), name, AtFlags::empty()) {
            Ok(stat) => (ObjectId::new(&stat), node::kind(&stat)),
            Err(_) => (node.id().beside(told.0), told.1),
        },
    }
}

/// Source: `readdir(3)`, `d_type`.
fn entry_kind(kind: FileType) -> u8 {
    match kind {
        FileType::Fifo => 1,
        FileType::CharacterDevice => 2,
        FileType::Directory => 4,
        FileType::BlockDevice => 6,
        FileType::RegularFile => 8,
        FileType::Symlink => 10,
        FileType::Socket => 12,
        FileType::Unknown => 0,
    }
}
