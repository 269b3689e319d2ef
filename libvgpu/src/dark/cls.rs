//! Context-local storage. Every call of the runtime API passes here, so a hit must cost a few nanoseconds.
//!
//! One table for the process, and in each thread a few entries it used last. An entry counts while the table's epoch is the
//! one it was read in; each change of the table counts the epoch up.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use vgpu_api::{ContextId, CuError, CuResult};

use crate::core::contexts::current;
use crate::core::process::process;
use crate::core::slab::lock;

/// Called with the context's handle, the key and the value when the context ends.
pub type Destructor = extern "C" fn(u64, u64, u64);

#[derive(Clone, Copy)]
struct Entry {
    value: u64,
    destructor: Option<Destructor>,
}

static TABLE: Mutex<Option<HashMap<(ContextId, u64), Entry>>> = Mutex::new(None);
/// Starts at 1: a thread's empty entries were read in epoch 0.
static EPOCH: AtomicU64 = AtomicU64::new(1);

#[derive(Clone, Copy)]
struct Cached {
    epoch: u64,
    context: ContextId,
    key: u64,
    value: u64,
}

const CACHED: usize = 8;

thread_local! {
    static CACHE: [Cell<Cached>; CACHED] =
        const { [const { Cell::new(Cached { epoch: 0, context: ContextId::NONE, key: 0, value: 0 }) }; CACHED] };
}

/// Keys are addresses: their lowest bits say little.
fn place(key: u64) -> usize {
    usize::try_from((key >> 4 ^ key >> 12) % CACHED as u64).unwrap_or(0)
}

/// The context that a call means: NULL and -1 are the current one.
#[inline]
fn named(raw: u64) -> CuResult<ContextId> {
    match raw {
        0 | u64::MAX => Ok(current()),
        raw => process()?.contexts.named(raw),
    }
}

/// What is stored under a key.
/// # Errors
/// 400 when nothing is.
#[inline]
pub fn get(context: u64, key: u64) -> CuResult<u64> {
    let context = named(context)?;
    let epoch = EPOCH.load(Ordering::Acquire);
    CACHE.with(|cache| {
        let cell = &cache[place(key)];
        let cached = cell.get();
        if cached.epoch == epoch && cached.context == context && cached.key == key {
            return Ok(cached.value);
        }
        let value = look_up(context, key)?;
        cell.set(Cached { epoch, context, key, value });
        Ok(value)
    })
}

#[cold]
fn look_up(context: ContextId, key: u64) -> CuResult<u64> {
    let table = lock(&TABLE);
    let entry = table.as_ref().and_then(|table| table.get(&(context, key))).ok_or(CuError::INVALID_HANDLE)?;
    Ok(entry.value)
}

/// Stores a value, in place of an older one.
/// # Errors
/// 201 without a context.
pub fn put(context: u64, key: u64, value: u64, destructor: Option<Destructor>) -> CuResult<()> {
    let context = named(context)?;
    if context == ContextId::NONE {
        return Err(CuError::INVALID_CONTEXT);
    }
    lock(&TABLE).get_or_insert_default().insert((context, key), Entry { value, destructor });
    EPOCH.fetch_add(1, Ordering::Release);
    Ok(())
}

/// Forgets a value, without its destructor.
/// # Errors
/// 400 when nothing is stored.
pub fn delete(context: u64, key: u64) -> CuResult<()> {
    let context = named(context)?;
    let removed = lock(&TABLE).as_mut().and_then(|table| table.remove(&(context, key)));
    EPOCH.fetch_add(1, Ordering::Release);
    removed.map(|_| ()).ok_or(CuError::INVALID_HANDLE)
}

/// What a context that ended had stored.
#[must_use = "its destructors run in `run`"]
pub struct Ended {
    context: ContextId,
    entries: Vec<(u64, Entry)>,
}

/// Takes out all that a context stored.
pub fn take(context: ContextId) -> Ended {
    let mut entries = Vec::new();
    if let Some(table) = lock(&TABLE).as_mut() {
        table.retain(|(of, key), entry| {
            let stays = *of != context;
            if !stays {
                entries.push((*key, *entry));
            }
            stays
        });
    }
    EPOCH.fetch_add(1, Ordering::Release);
    Ended { context, entries }
}

impl Ended {
    /// Runs the destructors. Never under a lock: they are the program's code and may call anything.
    pub fn run(self) {
        for (key, entry) in self.entries {
            if let Some(destructor) = entry.destructor {
                destructor(self.context.handle().raw(), key, entry.value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::contexts::set_current;
    use std::sync::atomic::AtomicU64;

    static DESTROYED: AtomicU64 = AtomicU64::new(0);
    extern "C" fn note(_context: u64, key: u64, value: u64) {
        DESTROYED.store(key + value, Ordering::Relaxed);
    }

    #[test]
    fn values_belong_to_a_context_and_end_with_it() {
        set_current(ContextId(1));
        assert_eq!(get(0, 0x10), Err(CuError::INVALID_HANDLE));
        put(0, 0x10, 77, Some(note)).unwrap();
        put(0, 0x1010, 78, None).unwrap();
        assert_eq!((get(0, 0x10), get(u64::MAX, 0x10), get(0, 0x1010)), (Ok(77), Ok(77), Ok(78)));
        set_current(ContextId(2));
        assert_eq!(get(0, 0x10), Err(CuError::INVALID_HANDLE));
        set_current(ContextId(1));
        put(0, 0x10, 79, Some(note)).unwrap();
        assert_eq!(get(0, 0x10), Ok(79), "a change is seen by a thread that had read before");
        delete(0, 0x1010).unwrap();
        assert_eq!(get(0, 0x1010), Err(CuError::INVALID_HANDLE));
        take(ContextId(1)).run();
        assert_eq!(DESTROYED.load(Ordering::Relaxed), 0x10 + 79);
        assert_eq!(get(0, 0x10), Err(CuError::INVALID_HANDLE));
        set_current(ContextId::NONE);
    }
}
