//! Requests and answers of a connection that callers share: numbers given out, messages written and waited for, and the thread that reads.

use std::sync::{MutexGuard, PoisonError};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::super::XsError;
use super::super::value::decimal;
use super::super::wire::{self, Decoder, Message, Op, Refusal};
use super::{Answer, Door, Shared, State};

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock, and a state that is half changed would still be safe to end.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a request, once fewer than `UNANSWERED_MAX` others are under way.
    pub(super) fn enlist(&self, op: Op, path: &str) -> Result<u32, XsError> {
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

    pub(super) fn await_answer(&self, number: u32, op: Op, path: &str) -> Result<Message, XsError> {
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

    pub(super) fn wait_until<'a>(
        &self,
        state: MutexGuard<'a, State>,
        deadline: Instant,
    ) -> Option<MutexGuard<'a, State>> {
        let left = deadline.checked_duration_since(Instant::now())?;
        Some(self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Writes a message whole.
    pub(super) fn send(&self, op: Op, path: &str, message: &[u8]) -> Result<(), XsError> {
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

    pub(super) fn read_until_the_end(&self) {
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
    pub(super) fn end(&self, why: String) {
        let mut state = self.state();
        if state.ended.is_none() {
            state.ended = Some(why);
            state.watches.values().for_each(|signal| signal.end());
        }
        drop(state);
        self.changed.notify_all();
    }
}
