//! The connection: who asks waits for the answer with his number; one thread reads them all.
//!
//! ```text
//!   request() ── one write, whole ──▶ xenstored ──▶ reading thread ─┬─ answer, by number ──▶ who waits for it
//!                                                                  └─ watch event, by token ──▶ that watch's signal
//! ```

mod shared;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::EventfdFlags;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::super::metrics::COUNTERS;
use super::value::check_path;
use super::watch::Signal;
use super::wire::{self, Message, Op};
use super::{Store, XsError};
use crate::connect::reach;
use crate::error::ChannelError;

/// Where xenstored listens in its own domain.
pub(super) const SOCKET: &str = "/run/xenstored/socket";
/// The door of every other domain.
pub(super) const DEVICE: &str = "/dev/xen/xenbus";
/// xenstored lets a domain have 20 unanswered requests; more callers wait their turn.
const UNANSWERED_MAX: usize = 16;
/// xenstored answers in microseconds; even under emulation on a busy machine this means that it is hung.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// For xenstored to open its door.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A connection to xenstored. Clones share it; it ends with the last of them.
#[derive(Debug, Clone)]
pub struct Client(Arc<Connection>);

#[derive(Debug)]
struct Connection {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    door: Door,
    /// Held while a message is written: two writers would mix their pieces.
    writing: Mutex<()>,
    state: Mutex<State>,
    /// Something in `state` changed that a caller may wait for.
    changed: Condvar,
    /// Written to end the reading thread.
    stop: OwnedFd,
    answer_limit: Duration,
}

#[derive(Debug)]
enum Door {
    Socket(OwnedFd),
    Device(OwnedFd),
}

impl Door {
    /// The device keeps one message for each open file and hands it to a kernel thread by reference: a second one that is written before
    /// the first was sent overwrites it, and xenstored refuses the mixture (EINVAL). An answer says that the first was sent.
    /// Source: Linux `drivers/xen/xenbus/xenbus_xs.c`, `xenbus_dev_request_and_reply`.
    fn unanswered_max(&self) -> usize {
        match self {
            Door::Socket(_) => UNANSWERED_MAX,
            Door::Device(_) => 1,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    last_request: u32,
    requests: HashMap<u32, Answer>,
    last_token: u32,
    watches: HashMap<u32, Arc<Signal>>,
    /// Whether a transaction is open, or about to be.
    transacting: bool,
    /// Why the connection ended.
    ended: Option<String>,
}

#[derive(Debug)]
enum Answer {
    Awaited(Op),
    Here(Message),
    /// Whoever asked has left; the answer is still due and counts.
    Unwanted(Op),
}

/// Connects within `limit`, or EAGAIN: xenstored has room for a caller or two before its door, the others wait, and for one that is stopped
/// without end.
pub(super) fn knock(path: &Path, limit: Duration) -> Result<UnixStream, Errno> {
    reach(path, limit).map_err(|error| match error {
        ChannelError::System { source, .. } => source,
        _ => Errno::AGAIN,
    })
}

impl Client {
    /// Connects by xenstored's socket if there is one, else by the device. Waits at most [`CONNECT_LIMIT`].
    ///
    /// # Errors
    /// [`XsError::Connect`]: not a Xen domain, xenfs's module missing, no permission, or a xenstored that does not answer its door.
    pub fn connect() -> Result<Self, XsError> {
        match knock(Path::new(SOCKET), CONNECT_LIMIT) {
            Ok(socket) => Self::over_socket(socket),
            Err(Errno::NOENT) => Self::over_device(),
            Err(errno) => Err(errno.into()),
        }
        .map_err(XsError::Connect)
    }

    /// Whether the connection is over for good: xenstored is gone, took no more bytes for too long or spoke nonsense. Another one may do.
    pub fn has_ended(&self) -> bool {
        self.0.shared.state().ended.is_some()
    }

    /// A client at the other end of `socket` than a xenstored.
    ///
    /// # Errors
    /// No descriptor or thread to be had.
    pub fn over_socket(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Self::start(Door::Socket(socket.into()), ANSWER_LIMIT)
    }

    fn over_device() -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Self::start(Door::Device(rustix::fs::open(DEVICE, flags, Mode::empty())?), ANSWER_LIMIT)
    }

    #[cfg(test)]
    pub(super) fn impatient(socket: UnixStream, answer_limit: Duration) -> Self {
        socket.set_nonblocking(true).unwrap();
        Self::start(Door::Socket(socket.into()), answer_limit).unwrap()
    }

    fn start(door: Door, answer_limit: Duration) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            door,
            writing: Mutex::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
            stop: rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?,
            answer_limit,
        });
        let reader = thread::Builder::new().name("xenstore".into()).stack_size(64 << 10).spawn({
            let shared = Arc::clone(&shared);
            move || shared.read_until_the_end()
        })?;
        Ok(Self(Arc::new(Connection { shared, reader: Some(reader) })))
    }

    /// Whether paths without a leading slash mean this domain's own (`/local/domain/<id>/…`): only through the device.
    pub fn has_relative_paths(&self) -> bool {
        matches!(self.0.shared.door, Door::Device(_))
    }

    pub(super) fn request(
        &self,
        op: Op,
        transaction: u32,
        path: &str,
        payload: &[&[u8]],
    ) -> Result<Vec<u8>, XsError> {
        check_path(path)?;
        let shared = &*self.0.shared;
        let number = shared.enlist(op, path)?;
        let message = wire::request(op, number, transaction, payload);
        let sent = message.ok_or(XsError::TooLong(op)).and_then(|message| shared.send(op, path, &message));
        if let Err(error) = sent {
            shared.state().requests.remove(&number);
            shared.changed.notify_all();
            return Err(error);
        }
        COUNTERS.xenstore_requests.add(1);
        match shared.await_answer(number, op, path)?.answer_to(op, transaction) {
            Ok(payload) => Ok(payload),
            Err(Ok(refusal)) => Err(XsError::Refused { op, path: path.to_owned(), refusal }),
            Err(Err(why)) => {
                shared.end(why.to_owned());
                Err(self.gone())
            }
        }
    }

    /// Waits until no transaction of this connection is open, for as long as for an answer.
    ///
    /// # Errors
    /// [`XsError::Late`], [`XsError::Gone`].
    pub(super) fn transaction_turn(&self) -> Result<Turn<'_>, XsError> {
        let shared = &*self.0.shared;
        let deadline = Instant::now() + shared.answer_limit;
        let mut state = shared.state();
        while state.transacting {
            if let Some(why) = &state.ended {
                return Err(XsError::Gone(why.clone()));
            }
            let late = || XsError::Late { op: Op::TransactionStart, path: "/".to_owned() };
            state = shared.wait_until(state, deadline).ok_or_else(late)?;
        }
        state.transacting = true;
        Ok(Turn(shared))
    }

    /// A token for a new watch, whose events go to `signal`.
    pub(super) fn register(&self, signal: &Arc<Signal>) -> Result<u32, XsError> {
        let mut state = self.0.shared.state();
        if let Some(why) = &state.ended {
            return Err(XsError::Gone(why.clone()));
        }
        loop {
            state.last_token = state.last_token.wrapping_add(1);
            let token = state.last_token;
            if let std::collections::hash_map::Entry::Vacant(free) = state.watches.entry(token) {
                free.insert(Arc::clone(signal));
                return Ok(token);
            }
        }
    }

    pub(super) fn forget(&self, token: u32) {
        self.0.shared.state().watches.remove(&token);
    }

    pub(super) fn gone(&self) -> XsError {
        XsError::Gone(self.0.shared.state().ended.clone().unwrap_or_default())
    }
}

impl Store for Client {
    fn ask(&self, op: Op, path: &str, payload: &[&[u8]]) -> Result<Vec<u8>, XsError> {
        self.request(op, 0, path, payload)
    }
}

/// The right to have a transaction open, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a Shared);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state().transacting = false;
        self.0.changed.notify_all();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.shared.stop, &1_u64.to_ne_bytes());
        if let Some(reader) = self.reader.take() {
            // A thread that panicked has nothing more to say.
            let _ = reader.join();
        }
    }
}

impl Door {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Self::Socket(fd) | Self::Device(fd) => fd.as_fd(),
        }
    }
}
