//! The guest's handles: numbers that it chooses, each for a node and what was opened of it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::message::NO_FID;
use crate::node::Node;
use crate::xattr::{NewValue, Value};

#[derive(Debug)]
pub(super) struct Fid {
    pub(super) node: Arc<Node>,
    /// Whose attach it comes from: who owns what is made by it.
    pub(super) user: u32,
    pub(super) state: State,
}

/// ```text
/// Named ─ lopen, lcreate ─► File, Directory        a walk of xattrs makes Value; Named ─ xattrcreate ─► NewValue
/// ```
#[derive(Debug)]
pub(super) enum State {
    Named,
    /// Several reads and writes of one file may run at once.
    File(Arc<OwnedFd>),
    Directory(OwnedFd),
    Value(Value),
    NewValue(NewValue),
}

impl Fid {
    pub(super) fn named(node: Arc<Node>, user: u32) -> Self {
        Fid { node, user, state: State::Named }
    }

    /// A fid is opened once.
    pub(super) fn must_be_named(&self) -> Result<(), Errno> {
        if matches!(self.state, State::Named) { Ok(()) } else { Err(Errno::INVAL) }
    }
}

/// A fid of the table. It is locked by who uses it; at most one is locked at a time.
pub(super) type Shared = Arc<Mutex<Fid>>;

#[derive(Debug)]
pub(super) struct Fids {
    table: Mutex<BTreeMap<u32, Shared>>,
    max: usize,
}

impl Fids {
    pub(super) fn new(max: usize) -> Self {
        Fids { table: Mutex::default(), max }
    }

    pub(super) fn get(&self, fid: u32) -> Result<Shared, Errno> {
        lock(&self.table).get(&fid).cloned().ok_or(Errno::BADF)
    }

    /// The node of a fid.
    pub(super) fn node(&self, fid: u32) -> Result<Arc<Node>, Errno> {
        Ok(Arc::clone(&lock(&*self.get(fid)?).node))
    }

    /// A number that is not in use.
    pub(super) fn insert(&self, number: u32, fid: Fid) -> Result<(), Errno> {
        let mut table = lock(&self.table);
        let is_full = table.len() >= self.max;
        match table.entry(number) {
            Entry::Vacant(place) if number != NO_FID => {
                if is_full {
                    return Err(Errno::NFILE);
                }
                place.insert(Arc::new(Mutex::new(fid)));
                Ok(())
            }
            _ => Err(Errno::INVAL),
        }
    }

    pub(super) fn remove(&self, fid: u32) -> Result<Shared, Errno> {
        lock(&self.table).remove(&fid).ok_or(Errno::BADF)
    }

    pub(super) fn clear(&self) {
        // Dropped when the table is free again: many files are closed then.
        let all = std::mem::take(&mut *lock(&self.table));
        drop(all);
    }
}

/// A request that panicked has left a fid as it was, or as its last whole step made it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
