//! What one guest asks of one root. Each request is answered by itself: state is only what fids and their nodes hold.
//!
//! Requests may be answered by several threads at once. Not here: their order. A Tflush has nothing to stop, and has to be answered
//! after what it names; that is up to who calls.

mod attributes;
mod contents;
mod fids;
mod names;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;

use self::fids::{Fid, Fids, State, lock};
use crate::budget::Budget;
use crate::message::{self, HEADER_BYTES, NO_FID, Reply, Request};
use crate::node::Node;
use crate::qid::Qids;
use crate::wire::{Malformed, Qid, Text};

/// Below this a name or a file's attributes may not fit. Linux asks for no less.
const MSIZE_MIN: u32 = 4096;
const VERSION: &[u8] = b"9P2000.L";

/// What a guest can make a session keep.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a message, at least 4096. Half a ring's, or less.
    pub msize_max: u32,
    /// Fids at a time. Each has a node, mostly shared, and a descriptor when it is open.
    pub fids_max: usize,
    /// Nodes at a time, each of which has a descriptor: those of fids, and those on the way to them, which each walk finds anew.
    pub nodes_max: usize,
    /// Bytes of extended attributes that are read or written at a time.
    pub values_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { msize_max: 512 << 10, fids_max: 8192, nodes_max: 32 << 10, values_bytes_max: 1 << 20 }
    }
}

/// A place to answer at: its memory is kept from one request to the next.
#[derive(Debug, Default)]
pub struct Desk {
    contents: Vec<u8>,
    frame: Vec<u8>,
}

/// One guest's use of one root.
#[derive(Debug)]
pub struct Session {
    root: Arc<Node>,
    limits: Limits,
    /// What was agreed; 0 before a Tversion.
    msize: AtomicU32,
    fids: Fids,
    qids: Qids,
    values: Budget,
}

impl Session {
    /// A session that has nothing but `root`, a directory. `/proc` has to be there: files are opened through `/proc/self/fd`.
    /// # Errors
    /// `ENOTDIR`, `ENFILE` without room for a node, and those of `statx(2)`.
    pub fn new(root: OwnedFd, limits: Limits) -> Result<Self, Errno> {
        Ok(Session {
            root: Arc::new(Node::root(root, &Budget::new(limits.nodes_max))?),
            limits: Limits { msize_max: limits.msize_max.max(MSIZE_MIN), ..limits },
            msize: AtomicU32::new(0),
            fids: Fids::new(limits.fids_max),
            qids: Qids::default(),
            values: Budget::new(limits.values_bytes_max),
        })
    }

    /// The size that no message exceeds.
    pub fn msize(&self) -> u32 {
        match self.msize.load(Ordering::Relaxed) {
            0 => self.limits.msize_max,
            agreed => agreed,
        }
    }

    /// The reply to `frame`, a whole message.
    /// # Errors
    /// The guest broke the protocol, and the session is over. What it may ask and cannot have is a reply.
    pub fn answer<'d>(&self, frame: &[u8], desk: &'d mut Desk) -> Result<&'d [u8], Malformed> {
        let (kind, tag, body) = message::split(frame, self.msize())?;
        let Desk { contents, frame } = desk;
        let outcome = match Request::parse(kind, body) {
            Ok(request) => self.perform(&request, contents),
            // A kernel that knows more messages than we do goes on without them.
            Err(Malformed::Type(_)) => Err(Errno::OPNOTSUPP),
            Err(malformed) => return Err(malformed),
        };
        outcome.unwrap_or_else(error).frame(tag, frame);
        if u32::try_from(frame.len()).is_ok_and(|length| length <= self.msize()) {
            return Ok(frame);
        }
        error(Errno::MSGSIZE).frame(tag, frame);
        Ok(frame)
    }

    fn perform<'c>(&self, request: &Request<'c>, contents: &'c mut Vec<u8>) -> Result<Reply<'c>, Errno> {
        if !matches!(request, Request::Version { .. }) && self.msize.load(Ordering::Relaxed) == 0 {
            return Err(Errno::PROTO);
        }
        match *request {
            Request::Version { msize, version } => self.version(msize, version.0),
            Request::Attach { fid, auth_fid, tree, user, .. } => self.attach(fid, auth_fid, tree.0, user),
            Request::Walk { fid, new_fid, ref names } => self.walk(fid, new_fid, names),
            Request::Clunk { fid } => self.clunk(fid),
            Request::Flush { .. } => Ok(Reply::Flush {}),
            Request::Lopen { fid, flags } => self.open(fid, flags),
            Request::Lcreate { fid, name, flags, mode, gid } => self.create(fid, name.0, flags, (mode, gid)),
            Request::Read { fid, offset, count } => self.read(fid, offset, count, contents),
            Request::Write { fid, offset, data } => self.write(fid, offset, data.0),
            Request::Readdir { fid, offset, count } => self.read_directory(fid, offset, count, contents),
            Request::Fsync { fid, data_only } => self.sync(fid, data_only != 0),
            Request::Lock { fid, kind, .. } => self.lock(fid, kind),
            Request::Getlock { fid, range, client } => self.look_for_lock(fid, range, client),
            Request::Xattrwalk { fid, new_fid, name } => self.find_value(fid, new_fid, name.0),
            Request::Xattrcreate { fid, name, size, flags } => self.new_value(fid, name.0, size, flags),
            Request::Getattr { fid, .. } => self.attributes(fid),
            Request::Setattr { fid, ref changes } => self.change(fid, changes),
            Request::Statfs { fid } => self.file_system(fid),
            Request::Readlink { fid } => self.read_link(fid, contents),
            Request::Symlink { fid, name, target, gid } => self.symlink(fid, name.0, target.0, gid),
            Request::Mknod { fid, name, mode, gid, .. } => self.special(fid, name.0, (mode, gid)),
            Request::Mkdir { fid, name, mode, gid } => self.directory(fid, name.0, (mode, gid)),
            Request::Link { directory, fid, name } => self.link(directory, fid, name.0),
            Request::Renameat { old_directory, old_name, new_directory, new_name } => {
                self.rename((old_directory, old_name.0), (new_directory, new_name.0))
            }
            Request::Unlinkat { fid, name, flags } => self.unlink(fid, name.0, flags),
            // By a fid alone nobody knows which of its names is meant. Linux asks by directory and name.
            Request::Rename { .. } => Err(Errno::OPNOTSUPP),
            // The fid goes, whatever becomes of the rest. Source: Plan 9's manual, remove(5).
            Request::Remove { fid } => self.fids.remove(fid).and(Err(Errno::OPNOTSUPP)),
            Request::Auth { .. } => Err(Errno::OPNOTSUPP),
        }
    }

    /// Begins anew: all fids are gone.
    fn version<'c>(&self, msize: u32, version: &[u8]) -> Result<Reply<'c>, Errno> {
        self.fids.clear();
        self.msize.store(0, Ordering::Relaxed);
        if msize < MSIZE_MIN {
            return Err(Errno::MSGSIZE);
        }
        let msize = msize.min(self.limits.msize_max);
        if version != VERSION {
            return Ok(Reply::Version { msize, version: Text(b"unknown") });
        }
        self.msize.store(msize, Ordering::Relaxed);
        Ok(Reply::Version { msize, version: Text(VERSION) })
    }

    /// One for each user of the guest's. There is one tree, without a name.
    fn attach<'c>(&self, fid: u32, auth_fid: u32, tree: &[u8], user: u32) -> Result<Reply<'c>, Errno> {
        if auth_fid != NO_FID {
            return Err(Errno::OPNOTSUPP);
        }
        if !tree.is_empty() {
            return Err(Errno::NOENT);
        }
        self.fids.insert(fid, Fid::named(Arc::clone(&self.root), user))?;
        Ok(Reply::Attach { qid: self.qid(&self.root) })
    }

    fn clunk<'c>(&self, fid: u32) -> Result<Reply<'c>, Errno> {
        let fid = self.fids.remove(fid)?;
        let fid = lock(&fid);
        if let State::NewValue(value) = &fid.state {
            value.set(&fid.node)?;
        }
        Ok(Reply::Clunk {})
    }

    fn qid(&self, node: &Node) -> Qid {
        self.qids.of(node.id(), node.kind())
    }

    /// `count`, or what fits behind a header and a count.
    fn room(&self, count: u32) -> usize {
        let most = usize::try_from(self.msize()).unwrap_or(usize::MAX) - HEADER_BYTES - size_of::<u32>();
        usize::try_from(count).unwrap_or(usize::MAX).min(most)
    }
}

/// Numbers of errors are those of the host's kernel, which is the guest's kind, too.
fn error<'c>(errno: Errno) -> Reply<'c> {
    Reply::Lerror { errno: errno.raw_os_error().unsigned_abs() }
}
