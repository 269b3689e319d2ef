//! Requests about what objects contain: files, directories, extended attributes. And locks of files.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::Session;
use super::fids::{Fid, State, lock};
use crate::message::{Range, Reply};
use crate::readdir;
use crate::wire::{Data, Text};
use crate::xattr::{NewValue, Value};

/// What of Linux's open flags has a meaning here, as the protocol numbers them. The rest says how the guest's kernel is to treat its own
/// open file (`O_DIRECT`), or is about making one. Source: Linux `include/net/9p/9p.h`, `P9_DOTL_*`.
const FLAGS: [(u32, OFlags); 7] = [
    (0o1000, OFlags::TRUNC),
    (0o2000, OFlags::APPEND),
    (0o4000, OFlags::NONBLOCK),
    (0o10000, OFlags::DSYNC),
    (0o200_000, OFlags::DIRECTORY),
    (0o1_000_000, OFlags::NOATIME),
    (0o4_000_000, OFlags::SYNC),
];
/// Source: the same, `P9_LOCK_TYPE_*`, `P9_LOCK_SUCCESS`.
const LOCK_KINDS: [u8; 3] = [0, 1, 2];
const UNLOCKED: u8 = 2;
const LOCK_SUCCESS: u8 = 0;

pub(super) fn open_flags(told: u32) -> Result<OFlags, Errno> {
    let access = match told & 3 {
        0 => OFlags::RDONLY,
        1 => OFlags::WRONLY,
        2 => OFlags::RDWR,
        _ => return Err(Errno::INVAL),
    };
    Ok(FLAGS.iter().filter(|(bit, _)| told & bit != 0).fold(access, |flags, (_, more)| flags | *more))
}

impl Session {
    pub(super) fn open<'c>(&self, fid: u32, flags: u32) -> Result<Reply<'c>, Errno> {
        let fid = self.fids.get(fid)?;
        let mut fid = lock(&fid);
        fid.must_be_named()?;
        let open = fid.node.open(open_flags(flags)?)?;
        fid.state = match fid.node.kind() {
            FileType::Directory => State::Directory(open),
            _ => State::File(Arc::new(open)),
        };
        Ok(Reply::Lopen { qid: self.qid(&fid.node), unit: 0 })
    }

    pub(super) fn read<'c>(
        &self,
        fid: u32,
        offset: u64,
        count: u32,
        contents: &'c mut Vec<u8>,
    ) -> Result<Reply<'c>, Errno> {
        let count = self.room(count);
        let file = {
            let fid = self.fids.get(fid)?;
            let fid = lock(&fid);
            match &fid.state {
                State::File(file) => Arc::clone(file),
                State::Value(value) => {
                    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(value.bytes.len());
                    contents.clear();
                    contents.extend(value.bytes[from..].iter().take(count));
                    return Ok(Reply::Read { data: Data(contents) });
                }
                State::Directory(_) => return Err(Errno::ISDIR),
                State::Named | State::NewValue(_) => return Err(Errno::BADF),
            }
        };
        if contents.len() < count {
            contents.resize(count, 0);
        }
        let length = rustix::io::pread(&*file, &mut contents[..count], position(offset)?)?;
        Ok(Reply::Read { data: Data(&contents[..length]) })
    }

    pub(super) fn write<'c>(&self, fid: u32, offset: u64, data: &[u8]) -> Result<Reply<'c>, Errno> {
        let file = {
            let fid = self.fids.get(fid)?;
            let mut fid = lock(&fid);
            match &mut fid.state {
                State::File(file) => Some(Arc::clone(file)),
                State::NewValue(value) => {
                    value.write(offset, data)?;
                    None
                }
                _ => return Err(Errno::BADF),
            }
        };
        let length = match file {
            Some(file) => rustix::io::pwrite(&*file, data, position(offset)?)?,
            None => data.len(),
        };
        // Never more than a message has, whose size has 32 bits.
        Ok(Reply::Write { count: u32::try_from(length).unwrap_or(u32::MAX) })
    }

    pub(super) fn read_directory<'c>(
        &self,
        fid: u32,
        offset: u64,
        count: u32,
        contents: &'c mut Vec<u8>,
    ) -> Result<Reply<'c>, Errno> {
        let fid = self.fids.get(fid)?;
        // Locked throughout: the descriptor has one position.
        let fid = lock(&fid);
        let State::Directory(directory) = &fid.state else { return Err(Errno::BADF) };
        readdir::read(&fid.node, directory, &self.qids, (offset, self.room(count)), contents)?;
        Ok(Reply::Readdir { entries: Data(contents) })
    }

    pub(super) fn sync<'c>(&self, fid: u32, data_only: bool) -> Result<Reply<'c>, Errno> {
        let fid = self.fids.get(fid)?;
        let sync = |fd: &OwnedFd| if data_only { rustix::fs::fdatasync(fd) } else { rustix::fs::fsync(fd) };
        let file = match &lock(&fid).state {
            State::File(file) => Arc::clone(file),
            State::Directory(directory) => return sync(directory).map(|()| Reply::Fsync {}),
            _ => return Err(Errno::BADF),
        };
        sync(&file).map(|()| Reply::Fsync {})
    }

    /// Who in this guest may lock what, its kernel has decided before it asks; and nobody else asks here. So none is refused. A volume
    /// of two pods is locked in each of them alone.
    pub(super) fn lock<'c>(&self, fid: u32, kind: u8) -> Result<Reply<'c>, Errno> {
        self.must_be_lockable(fid, kind)?;
        Ok(Reply::Lock { status: LOCK_SUCCESS })
    }

    /// The guest's kernel has looked among its own.
    pub(super) fn look_for_lock<'c>(
        &self,
        fid: u32,
        range: Range,
        client: Text<'c>,
    ) -> Result<Reply<'c>, Errno> {
        self.must_be_lockable(fid, range.kind)?;
        Ok(Reply::Getlock { range: Range { kind: UNLOCKED, ..range }, client })
    }

    fn must_be_lockable(&self, fid: u32, kind: u8) -> Result<(), Errno> {
        let fid = self.fids.get(fid)?;
        let is_file = matches!(lock(&fid).state, State::File(_));
        match (is_file, LOCK_KINDS.contains(&kind)) {
            (true, true) => Ok(()),
            (true, false) => Err(Errno::INVAL),
            (false, _) => Err(Errno::BADF),
        }
    }

    /// A fid to read a value, or the list of names, from.
    pub(super) fn find_value<'c>(&self, fid: u32, new_fid: u32, name: &[u8]) -> Result<Reply<'c>, Errno> {
        let from = self.fids.get(fid)?;
        let (node, user) = {
            let from = lock(&from);
            (Arc::clone(&from.node), from.user)
        };
        let value = Value::read(&node, name, &self.values)?;
        let size = u64::try_from(value.bytes.len()).unwrap_or(u64::MAX);
        self.fids.insert(new_fid, Fid { node, user, state: State::Value(value) })?;
        Ok(Reply::Xattrwalk { size })
    }

    /// The fid becomes the value's, which is written and then clunked.
    pub(super) fn new_value<'c>(
        &self,
        fid: u32,
        name: &[u8],
        size: u64,
        flags: u32,
    ) -> Result<Reply<'c>, Errno> {
        let fid = self.fids.get(fid)?;
        let mut fid = lock(&fid);
        fid.must_be_named()?;
        fid.state = State::NewValue(NewValue::new(name, size, flags, &self.values)?);
        Ok(Reply::Xattrcreate {})
    }
}

/// The kernel's offsets are signed.
fn position(offset: u64) -> Result<u64, Errno> {
    if i64::try_from(offset).is_ok() { Ok(offset) } else { Err(Errno::INVAL) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_open_flags_only_the_known_pass() {
        assert_eq!(open_flags(0), Ok(OFlags::RDONLY));
        assert_eq!(open_flags(0o1001), Ok(OFlags::WRONLY | OFlags::TRUNC));
        assert_eq!(open_flags(0o2002), Ok(OFlags::RDWR | OFlags::APPEND));
        assert_eq!(open_flags(3), Err(Errno::INVAL));
        let all = open_flags(u32::MAX - 1).unwrap();
        assert!(!all.intersects(OFlags::CREATE | OFlags::EXCL | OFlags::DIRECT | OFlags::PATH));
        assert!(!all.contains(OFlags::TMPFILE), "{all:?}");
    }
}
