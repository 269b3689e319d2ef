//! The connection: who asks waits for the answer with his number; one thread reads them all.
//!
//! ```text
//!   request() ── one write, whole ──▶ xenstored ──▶ reading thread ─┬─ answer, by number ──▶ who waits for it
//!                                                                  └─ watch event, by token ──▶ that watch's signal
//! ```

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::super::metrics::COUNTERS;
use super::value::{check_path, decimal};
use super::watch::Signal;
use super::wire::{self, Decoder, Message, Op, Refusal};
use super::{Store, XsError};

/// Where xenstored listens in its own domain.
pub(super) const SOCKET: &str = "/run/xenstored/socket";
/// The door of every other domain.
pub(super) const DEVICE: &str = "/dev/xen/xenbus";
/// xenstored lets a domain have 20 unanswered requests; more callers wait their turn.
const UNANSWERED_MAX: usize = 16;
/// xenstored answers in microseconds; even under emulation on a busy machine this means that it is hung.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

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

impl Client {
    /// Connects by xenstored's socket if there is one, else by the device.
    ///
    /// # Errors
    /// [`XsError::Connect`]: not a Xen domain, xenfs's module missing, or no permission.
    pub fn connect() -> Result<Self, XsError> {
        match UnixStream::connect(SOCKET) {
            Ok(socket) => Self::over_socket(socket),
            Err(_) => Self::over_device(),
        }
        .map_err(XsError::Connect)
    }

    /// Whether the connection is over for good: xenstored is gone, was silent for too long or spoke nonsense. Another one may do.
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

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock, and a state that is half changed would still be safe to end.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a request, once fewer than [`UNANSWERED_MAX`] others are under way.
    fn enlist(&self, op: Op, path: &str) -> Result<u32, XsError> {
        let deadline = Instant::now() + self.answer_limit;
        let mut state = self.state();
        loop {
            if let Some(why) = &state.ended {
                return Err(XsError::Gone(why.clone()));
            }
            if state.requests.len() < self.door.unanswered_max() {
                break;
            }
            state = self
                .wait_until(state, deadline)
                .ok_or_else(|| XsError::Late { op, path: path.to_owned() })?;
        }
        loop {
            state.last_request = state.last_request.wrapping_add(1);
            let number = state.last_request;
            // 0 is the watch events' number.
            if number != 0 && !state.requests.contains_key(&number) {
                state.requests.insert(number, Answer::Awaited(op));
                return Ok(number);
            }
        }
    }

    fn await_answer(&self, number: u32, op: Op, path: &str) -> Result<Message, XsError> {
        let deadline = Instant::now() + self.answer_limit;
        let mut state = self.state();
        loop {
            if let Some(Answer::Here(_)) = state.requests.get(&number)
                && let Some(Answer::Here(message)) = state.requests.remove(&number)
            {
                drop(state);
                self.changed.notify_all();
                return Ok(message);
            }
            if let Some(why) = &state.ended {
                return Err(XsError::Gone(why.clone()));
            }
            match self.wait_until(state, deadline) {
                Some(again) => state = again,
                None => {
                    let mut state = self.state();
                    // It may have come just now; then it goes unread, and nothing more is due.
                    match state.requests.remove(&number) {
                        Some(Answer::Awaited(op)) => {
                            drop(state.requests.insert(number, Answer::Unwanted(op)))
                        }
                        Some(Answer::Here(message)) => return Ok(message),
                        Some(Answer::Unwanted(_)) | None => {}
                    }
                    return Err(XsError::Late { op, path: path.to_owned() });
                }
            }
        }
    }

    fn wait_until<'a>(
        &self,
        state: MutexGuard<'a, State>,
        deadline: Instant,
    ) -> Option<MutexGuard<'a, State>> {
        let left = deadline.checked_duration_since(Instant::now())?;
        Some(self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Writes a message whole.
    fn send(&self, op: Op, path: &str, message: &[u8]) -> Result<(), XsError> {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let deadline = Instant::now() + self.answer_limit;
        let mut rest = message;
        while !rest.is_empty() {
            let written = match &self.door {
                Door::Socket(socket) => rustix::net::send(socket, rest, SendFlags::NOSIGNAL),
                Door::Device(device) => rustix::io::write(device, rest),
            };
            match written {
                Ok(bytes) => rest = rest.get(bytes..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let left = deadline.checked_duration_since(Instant::now());
                    let Some(left) = left.filter(|left| !left.is_zero()) else {
                        self.end("xenstored takes no more requests".to_owned());
                        return Err(XsError::Late { op, path: path.to_owned() });
                    };
                    let timeout = rustix::event::Timespec::try_from(left).ok();
                    let _ = rustix::event::poll(
                        &mut [PollFd::from_borrowed_fd(self.door.fd(), PollFlags::OUT)],
                        timeout.as_ref(),
                    );
                }
                // The device answers a bad WATCH by the errno of the write, and has dropped the message then.
                Err(errno) if matches!(self.door, Door::Device(_)) => {
                    let refusal = Refusal::from_errno(errno);
                    return Err(XsError::Refused { op, path: path.to_owned(), refusal });
                }
                Err(errno) => {
                    self.end(errno.to_string());
                    return Err(XsError::Gone(errno.to_string()));
                }
            }
        }
        Ok(())
    }

    fn read_until_the_end(&self) {
        let mut decoder = Decoder::default();
        let mut piece = [0; 4096];
        let why = loop {
            let mut waited = [
                PollFd::from_borrowed_fd(self.door.fd(), PollFlags::IN),
                PollFd::new(&self.stop, PollFlags::IN),
            ];
            match rustix::event::poll(&mut waited, None) {
                Ok(_) if !waited[1].revents().is_empty() => break "closed".to_owned(),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => break errno.to_string(),
            }
            match rustix::io::read(self.door.fd(), &mut piece) {
                Ok(0) => break "xenstored closed it".to_owned(),
                Ok(bytes) => decoder.push(&piece[..bytes]),
                Err(Errno::AGAIN | Errno::INTR) => continue,
                Err(errno) => break errno.to_string(),
            }
            if let Err(why) = self.deliver_all(&mut decoder) {
                break why.to_owned();
            }
        };
        self.end(why);
    }

    fn deliver_all(&self, decoder: &mut Decoder) -> Result<(), &'static str> {
        while let Some(message) = decoder.next()? {
            if message.op == Op::WatchEvent {
                self.deliver_event(&message)?;
                continue;
            }
            let mut state = self.state();
            let number = self.number_of(&message, &state);
            match state.requests.get_mut(&number) {
                Some(slot @ Answer::Awaited(_)) => *slot = Answer::Here(message),
                Some(Answer::Unwanted(_)) => drop(state.requests.remove(&number)),
                Some(Answer::Here(_)) | None => return Err("an answer to nothing that was asked"),
            }
            drop(state);
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Which request a message answers. The kernel behind the device answers WATCH and UNWATCH itself, always with OK and without
    /// a number: any such request will do.
    fn number_of(&self, message: &Message, state: &State) -> u32 {
        let by_kernel = matches!(self.door, Door::Device(_)) && matches!(message.op, Op::Watch | Op::Unwatch);
        if !by_kernel || message.request != 0 {
            return message.request;
        }
        let asks_that = |answer: &Answer| matches!(answer, Answer::Awaited(op) | Answer::Unwanted(op) if *op == message.op);
        state.requests.iter().find(|(_, answer)| asks_that(answer)).map_or(0, |(&number, _)| number)
    }

    /// An event of a watch that is gone meanwhile is no fault; one without a token is.
    fn deliver_event(&self, message: &Message) -> Result<(), &'static str> {
        let mut strings = wire::strings(&message.payload);
        let token = strings.nth(1).ok_or("a watch event without a token")?;
        if let Some(token) = decimal(token, u32::MAX)
            && let Some(signal) = self.state().watches.get(&token)
        {
            signal.fire();
        }
        Ok(())
    }

    /// Ends the connection for everybody, once: who waits for an answer or an event is told why.
    fn end(&self, why: String) {
        let mut state = self.state();
        if state.ended.is_none() {
            state.ended = Some(why);
            state.watches.values().for_each(|signal| signal.end());
        }
        drop(state);
        self.changed.notify_all();
    }
}

impl Door {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Self::Socket(fd) | Self::Device(fd) => fd.as_fd(),
        }
    }
}
