//! Requests about names: walks, and what makes, moves and removes them.

use std::sync::Arc;

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::Session;
use super::contents::open_flags;
use super::fids::{Fid, State, lock};
use crate::make::{self, Owner};
use crate::message::Reply;
use crate::name::{Name, Step};
use crate::node::Node;
use crate::wire::{Qid, Text};

/// Source: Linux `include/net/9p/9p.h`, `P9_DOTL_EXCL`, `P9_DOTL_AT_REMOVEDIR`.
const MUST_BE_NEW: u32 = 0o200;
const REMOVE_DIRECTORY: u32 = 0x200;
/// Source: `linux/limits.h`, `PATH_MAX`.
const TARGET_BYTES_MAX: usize = 4095;

impl Session {
    /// As far as it goes: an answer with fewer qids than names makes no fid. Source: Plan 9's manual, walk(5).
    pub(super) fn walk<'c>(&self, fid: u32, new_fid: u32, names: &[Text<'_>]) -> Result<Reply<'c>, Errno> {
        let from = self.fids.get(fid)?;
        let (mut node, user) = {
            let from = lock(&from);
            if new_fid == fid {
                from.must_be_named()?;
            }
            (Arc::clone(&from.node), from.user)
        };
        let mut qids = Vec::with_capacity(names.len());
        for name in names {
            node = match step(&node, name.0) {
                Ok(next) => next,
                Err(errno) if qids.is_empty() => return Err(errno),
                Err(_) => return Ok(Reply::Walk { qids }),
            };
            qids.push(self.qid(&node));
        }
        if new_fid == fid {
            let mut from = lock(&from);
            // Another request may have opened it meanwhile.
            from.must_be_named()?;
            from.node = node;
        } else {
            self.fids.insert(new_fid, Fid::named(node, user))?;
        }
        Ok(Reply::Walk { qids })
    }

    /// The fid of the directory becomes the new file's.
    pub(super) fn create<'c>(
        &self,
        fid: u32,
        name: &[u8],
        flags: u32,
        (mode, group): (u32, u32),
    ) -> Result<Reply<'c>, Errno> {
        let fid = self.fids.get(fid)?;
        let mut fid = lock(&fid);
        fid.must_be_named()?;
        let owner = Owner::new(fid.user, group)?;
        let must_be_new = flags & MUST_BE_NEW != 0;
        let (node, open) =
            make::file(&fid.node, Name::new(name)?, open_flags(flags)?, (mode, owner), must_be_new)?;
        (fid.node, fid.state) = (Arc::new(node), State::File(Arc::new(open)));
        Ok(Reply::Lcreate { qid: self.qid(&fid.node), unit: 0 })
    }

    pub(super) fn directory<'c>(
        &self,
        fid: u32,
        name: &[u8],
        (mode, group): (u32, u32),
    ) -> Result<Reply<'c>, Errno> {
        let qid =
            self.made(fid, name, group, |parent, name, owner| make::directory(parent, name, mode, owner))?;
        Ok(Reply::Mkdir { qid })
    }

    pub(super) fn special<'c>(
        &self,
        fid: u32,
        name: &[u8],
        (mode, group): (u32, u32),
    ) -> Result<Reply<'c>, Errno> {
        let qid =
            self.made(fid, name, group, |parent, name, owner| make::special(parent, name, mode, owner))?;
        Ok(Reply::Mknod { qid })
    }

    pub(super) fn symlink<'c>(
        &self,
        fid: u32,
        name: &[u8],
        target: &[u8],
        group: u32,
    ) -> Result<Reply<'c>, Errno> {
        if target.len() > TARGET_BYTES_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let qid =
            self.made(fid, name, group, |parent, name, owner| make::symlink(parent, name, target, owner))?;
        Ok(Reply::Symlink { qid })
    }

    pub(super) fn link<'c>(&self, directory: u32, fid: u32, name: &[u8]) -> Result<Reply<'c>, Errno> {
        let (parent, node) = (self.fids.node(directory)?, self.fids.node(fid)?);
        make::link(&parent, Name::new(name)?, &node)?;
        Ok(Reply::Link {})
    }

    pub(super) fn rename<'c>(&self, old: (u32, &[u8]), new: (u32, &[u8])) -> Result<Reply<'c>, Errno> {
        let (from, to) = (self.fids.node(old.0)?, self.fids.node(new.0)?);
        let (old, new) = (Name::new(old.1)?, Name::new(new.1)?);
        rustix::fs::renameat(from.fd(), old.bytes(), to.fd(), new.bytes())?;
        Ok(Reply::Renameat {})
    }

    pub(super) fn unlink<'c>(&self, fid: u32, name: &[u8], flags: u32) -> Result<Reply<'c>, Errno> {
        let flags = match flags {
            0 => AtFlags::empty(),
            REMOVE_DIRECTORY => AtFlags::REMOVEDIR,
            _ => return Err(Errno::INVAL),
        };
        rustix::fs::unlinkat(self.fids.node(fid)?.fd(), Name::new(name)?.bytes(), flags)?;
        Ok(Reply::Unlinkat {})
    }

    /// What `make` makes called `name` in the directory of a fid, for the fid's user.
    fn made(
        &self,
        fid: u32,
        name: &[u8],
        group: u32,
        make: impl FnOnce(&Arc<Node>, Name<'_>, Owner) -> Result<Node, Errno>,
    ) -> Result<Qid, Errno> {
        let (parent, user) = {
            let fid = self.fids.get(fid)?;
            let fid = lock(&fid);
            (Arc::clone(&fid.node), fid.user)
        };
        let node = make(&parent, Name::new(name)?, Owner::new(user, group)?)?;
        Ok(self.qid(&node))
    }
}

fn step(node: &Arc<Node>, name: &[u8]) -> Result<Arc<Node>, Errno> {
    if node.kind() != FileType::Directory {
        return Err(Errno::NOTDIR);
    }
    match Step::new(name)? {
        Step::Up => Ok(node.parent()),
        Step::Down(name) => Ok(Arc::new(node.child(name)?)),
    }
}
