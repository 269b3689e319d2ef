//! What failed, for `cuLogs*`: the last hundred calls of this process that gave an error, a line each. Nothing is formatted until somebody
//! reads. Source: CUDA Driver API, "Error Log Management Functions".
//!
//! A number says which entry an iterator reads next; entries are counted from 0 and wrap after 2³².

use std::collections::VecDeque;
use std::ffi::{c_char, c_void};
use std::fmt::Write;
use std::ptr::with_exposed_provenance_mut;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vgpu_api::CuError;
use vgpu_api::result::describe;

use super::process::forked;

/// `CUlogsCallback`.
pub type LogCallback =
    unsafe extern "C" fn(data: *mut c_void, level: u32, message: *mut c_char, bytes: usize);

/// Entries that are kept.
const KEPT: usize = 100;
/// `CU_LOG_LEVEL_ERROR`.
const ERROR: u32 = 0;
/// Stands before what is left of more.
const TRUNCATED: &str = "[CUDA][W] older messages are left out\n";
/// Tries to have the lock in a call that failed: it is held for some instructions, but for ever in a child of fork whose parent's other
/// thread had it.
const TRIES: usize = 1000;

#[derive(Debug, Clone, Copy)]
struct Entry {
    call: &'static str,
    error: CuError,
    /// Since 1970.
    at: Duration,
    thread: u64,
}

#[derive(Debug, Clone, Copy)]
struct Listener {
    handle: u64,
    callback: LogCallback,
    data: u64,
}

#[derive(Debug)]
struct Logs {
    entries: VecDeque<Entry>,
    /// The number of the oldest entry.
    oldest: u32,
    listeners: Vec<Listener>,
    last_handle: u64,
    /// Threads that tell: what fails in a callback is told to nobody.
    telling: Vec<Telling>,
}

#[derive(Debug, Clone, Copy)]
struct Telling {
    thread: u64,
    /// Whose callback it is in; 0: in none.
    handle: u64,
}

/// A thread has left a callback.
static LEFT: Condvar = Condvar::new();

static LOGS: Mutex<Logs> = Mutex::new(Logs {
    entries: VecDeque::new(),
    oldest: 0,
    listeners: Vec::new(),
    last_handle: 0,
    telling: Vec::new(),
});

fn logs() -> MutexGuard<'static, Logs> {
    LOGS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn logs_soon() -> Option<MutexGuard<'static, Logs>> {
    for _ in 0..TRIES {
        match LOGS.try_lock() {
            Ok(logs) => return Some(logs),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
    None
}

/// A call gave this error, whose code is returned: noted, and told to whoever listens. "Not ready" is no error.
#[cold]
pub fn failed(call: &'static str, error: CuError) -> u32 {
    if error != CuError::NOT_READY {
        note(call, error);
    }
    error.code()
}

fn note(call: &'static str, error: CuError) {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let entry = Entry { call, error, at, thread: this_thread() };
    let Some(mut logs) = logs_soon() else { return };
    if logs.entries.len() == KEPT {
        logs.entries.pop_front();
        logs.oldest = logs.oldest.wrapping_add(1);
    }
    logs.entries.push_back(entry);
    if logs.listeners.is_empty() || logs.telling.iter().any(|telling| telling.thread == entry.thread) {
        return;
    }
    let handles: Vec<u64> = logs.listeners.iter().map(|listener| listener.handle).collect();
    logs.telling.push(Telling { thread: entry.thread, handle: 0 });
    drop(logs);
    let mut text = entry.text();
    text.push('\0');
    for handle in handles {
        // It may be that it listens no more.
        let Some(listener) = go_on(entry.thread, handle) else { continue };
        // Its own copy: it may write there.
        let mut message = text.clone().into_bytes();
        let data = with_exposed_provenance_mut(usize::try_from(listener.data).unwrap_or(0));
        // SAFETY: a function that the program gave to be called so, with its own word; the message ends with a NUL.
        unsafe { (listener.callback)(data, ERROR, message.as_mut_ptr().cast(), message.len() - 1) }
    }
    if let Some(mut logs) = logs_unless_forked() {
        logs.telling.retain(|telling| telling.thread != entry.thread);
        LEFT.notify_all();
    }
}

/// A callback may have made a child, where the lock may be held for ever.
fn logs_unless_forked() -> Option<MutexGuard<'static, Logs>> {
    if forked() { logs_soon() } else { Some(logs()) }
}

/// A thread that tells leaves the callback that it was in, and goes to the next, if that one still listens.
fn go_on(thread: u64, handle: u64) -> Option<Listener> {
    let mut logs = logs_unless_forked()?;
    let listener = logs.listeners.iter().find(|listener| listener.handle == handle).copied();
    let place = logs.telling.iter_mut().find(|telling| telling.thread == thread)?;
    place.handle = listener.map_or(0, |listener| listener.handle);
    LEFT.notify_all();
    listener
}

fn this_thread() -> u64 {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::syscall(libc::SYS_gettid) }.cast_unsigned()
}

/// Has `callback` hear of every error from now on. Its handle.
pub fn listen(callback: LogCallback, data: u64) -> u64 {
    let mut logs = logs();
    logs.last_handle += 1;
    let handle = logs.last_handle;
    logs.listeners.push(Listener { handle, callback, data });
    handle
}

/// Ends that, and waits until no thread is in the callback. Who is in a callback itself does not wait: two such threads could wait for
/// each other.
///
/// # Errors
/// 1: there is no such handle.
pub fn unlisten(handle: u64) -> Result<(), CuError> {
    let mut logs = logs();
    let place = logs.listeners.iter().position(|listener| listener.handle == handle);
    logs.listeners.remove(place.ok_or(CuError::INVALID_VALUE)?);
    let this = this_thread();
    if !logs.telling.iter().any(|telling| telling.thread == this) {
        let is_in = |logs: &mut Logs| logs.telling.iter().any(|telling| telling.handle == handle);
        drop(LEFT.wait_while(logs, is_in).unwrap_or_else(PoisonError::into_inner));
    }
    Ok(())
}

/// The number of the next entry.
pub fn next() -> u32 {
    logs().next()
}

/// The lines from the entry `from` on (`None`: all), as many of the newest as fit into `room` bytes; where some are missing a line at the head says so.
/// With the number of the next entry; `None`: there are some, and not one fits.
pub fn lines(from: Option<u32>, room: usize) -> (Option<String>, u32) {
    let logs = logs();
    let next = logs.next();
    let kept = u32::try_from(logs.entries.len()).unwrap_or(u32::MAX);
    let asked = from.map_or(kept, |from| next.wrapping_sub(from));
    // An iterator of nobody's, as one that is ahead of all, reads everything.
    let lost = from.is_some() && asked > kept;
    let wanted = asked.min(kept) as usize;
    let texts: Vec<_> =
        logs.entries.iter().skip(logs.entries.len() - wanted).map(|entry| entry.text() + "\n").collect();
    if !lost && texts.iter().map(String::len).sum::<usize>() <= room {
        return (Some(texts.concat()), next);
    }
    let mut left = room.saturating_sub(TRUNCATED.len());
    let fit = texts.iter().rev().take_while(|text| {
        let fits = text.len() <= left;
        left = left.saturating_sub(if fits { text.len() } else { left });
        fits
    });
    match fit.count() {
        0 => (None, next),
        count => (Some(TRUNCATED.to_owned() + &texts[texts.len() - count..].concat()), next),
    }
}

impl Logs {
    fn next(&self) -> u32 {
        self.oldest.wrapping_add(u32::try_from(self.entries.len()).unwrap_or(u32::MAX))
    }
}

impl Entry {
    /// `[time of day, UTC][thread][CUDA][E] call: what it gave`.
    fn text(&self) -> String {
        let (seconds, millis) = (self.at.as_secs() % 86400, self.at.subsec_millis());
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let said = describe(self.error.code()).map_or("", |row| row.1.trim_end_matches('\0'));
        let mut text = String::new();
        let _ = write!(text, "[{hours:02}:{minutes:02}:{seconds:02}.{millis:03}][{}][CUDA][E] ", self.thread);
        let _ = write!(text, "{}: {said} ({})", self.call, self.error.code());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_fit_and_what_is_missing_is_said() {
        // The only test that fails calls in this process.
        let first = next();
        for error in [CuError::NOT_READY, CuError::INVALID_VALUE, CuError::OUT_OF_MEMORY] {
            failed("cuX", error);
        }
        let (all, end) = lines(Some(first), usize::MAX);
        let all = all.unwrap();
        assert_eq!((all.lines().count(), end), (2, first.wrapping_add(2)), "{all}");
        assert!(all.ends_with("[CUDA][E] cuX: out of memory (2)\n"), "{all}");
        let last = all.lines().next_back().unwrap().len() + 1;
        let (one, _) = lines(Some(first), TRUNCATED.len() + last);
        assert_eq!(one.unwrap(), format!("{TRUNCATED}{}", &all[all.len() - last..]));
        assert_eq!(lines(Some(first), TRUNCATED.len() + last - 1).0, None);
        assert_eq!(lines(Some(end), 0).0.unwrap(), "", "nothing new");
        for _ in 0..KEPT {
            failed("cuY", CuError::INVALID_VALUE);
        }
        let (rest, _) = lines(Some(first), usize::MAX);
        assert_eq!(rest.unwrap().lines().count(), KEPT + 1, "two were overwritten, which is said");
    }
}
