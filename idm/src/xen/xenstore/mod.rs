//! A client of xenstored: the small tree in which domains find each other.
//!
//! Start at [`Client::connect`]; what can be asked is [`Store`], of the client or of a [`Transaction`].
//! Calls block for one round trip (a thread of the client's reads the answers, so several threads may ask at once). A [`Watch`] is a
//! descriptor that becomes readable: from tokio put it into an `AsyncFd`, and the calls into `spawn_blocking`.
//! Rule: bounded in every direction; an answer that makes no sense ends the connection, and everybody who waits is told.

mod client;
#[cfg(test)]
mod tests;
mod transaction;
mod value;
mod watch;
mod wire;

use std::io;

use rustix::io::Errno;

pub use client::Client;
pub use transaction::Transaction;
pub use value::{Permissions, decimal};
pub use watch::Watch;
pub use wire::{Op, Refusal};

use super::DomId;

/// Puts messages together from pieces of `bytes`, and looks at each as an answer.
#[cfg(fuzzing)]
pub(crate) fn fuzz_messages(bytes: &[u8]) {
    let piece = bytes.first().map_or(1, |&first| usize::from(first) + 1);
    let mut decoder = wire::Decoder::default();
    for piece in bytes.chunks(piece) {
        decoder.push(piece);
        loop {
            match decoder.next() {
                Ok(Some(message)) => {
                    assert!(wire::strings(&message.payload).count() <= message.payload.len());
                    let _ = message.answer_to(Op::Read, 0);
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// Why xenstored did not do it.
#[derive(Debug, thiserror::Error)]
pub enum XsError {
    /// There is neither socket nor device, or the one that there is could not be opened.
    #[error("no way to xenstored by {} or {}", client::SOCKET, client::DEVICE)]
    Connect(#[source] io::Error),
    /// xenstored said no.
    #[error("xenstored refused {op:?} of {path}: {refusal}")]
    Refused {
        /// What was asked.
        op: Op,
        /// Of which node.
        path: String,
        /// Its answer.
        refusal: Refusal,
    },
    /// The connection is gone, for good.
    #[error("the connection to xenstored ended: {0}")]
    Gone(String),
    /// No answer in time.
    #[error("xenstored did not answer {op:?} of {path} in time")]
    Late {
        /// What was asked.
        op: Op,
        /// Of which node.
        path: String,
    },
    /// Ours: no path that xenstored takes.
    #[error("{0:?} is no xenstore path")]
    BadPath(String),
    /// Ours: more than a message holds.
    #[error("{0:?} is too long for a xenstore message")]
    TooLong(Op),
    /// A node holds something else than it should. If a guest may write it, the guest's fault.
    #[error("{path} holds {value:?}, not {expected}")]
    Value {
        /// The node.
        path: String,
        /// What it holds, shortened.
        value: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// Others changed the same nodes each time.
    #[error("a transaction met a conflict {0} times")]
    Conflicts(u32),
}

impl XsError {
    /// Whether the node, or the domain it belongs to, isn't there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { refusal: Refusal::Missing, .. })
    }

    /// Whether there was neither a socket nor a device to connect by: no Xen, or a kernel without its part of it.
    pub fn is_no_xen(&self) -> bool {
        let Self::Connect(cause) = self else { return false };
        let errno = Errno::from_io_error(cause);
        errno.is_some_and(|errno| matches!(errno, Errno::NOENT | Errno::NODEV | Errno::NXIO))
    }

    pub(super) fn value(path: &str, value: &[u8], expected: &'static str) -> Self {
        let value = String::from_utf8_lossy(&value[..value.len().min(64)]).into_owned();
        Self::Value { path: path.to_owned(), value, expected }
    }
}

/// What can be asked of the tree. All paths absolute, or (through the device only) relative to this domain's own.
pub trait Store {
    /// One round trip.
    #[doc(hidden)]
    fn ask(&self, op: Op, path: &str, payload: &[&[u8]]) -> Result<Vec<u8>, XsError>;

    /// The value of a node.
    ///
    /// # Errors
    /// [`XsError::is_missing`]: there is none.
    fn read(&self, path: &str) -> Result<Vec<u8>, XsError> {
        self.ask(Op::Read, path, &[path.as_bytes(), b"\0"])
    }

    /// The value of a node that may be missing.
    ///
    /// # Errors
    /// As [`Store::read`], but for a missing node.
    fn read_if_there(&self, path: &str) -> Result<Option<Vec<u8>>, XsError> {
        match self.read(path) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A node that holds a decimal of at most `max`, and nothing else.
    ///
    /// # Errors
    /// [`XsError::Value`] if it holds anything else.
    fn read_decimal(&self, path: &str, max: u32) -> Result<u32, XsError> {
        let value = self.read(path)?;
        decimal(&value, max).ok_or_else(|| XsError::value(path, &value, "a decimal in its bounds"))
    }

    /// Sets a node, made with its parents if it is missing.
    ///
    /// # Errors
    /// `EACCES`: it belongs to somebody else.
    fn write(&self, path: &str, value: impl AsRef<[u8]>) -> Result<(), XsError> {
        self.ask(Op::Write, path, &[path.as_bytes(), b"\0", value.as_ref()]).map(drop)
    }

    /// Makes a node and its parents, if they are missing.
    ///
    /// # Errors
    /// `EACCES`.
    fn mkdir(&self, path: &str) -> Result<(), XsError> {
        self.ask(Op::Mkdir, path, &[path.as_bytes(), b"\0"]).map(drop)
    }

    /// Removes a node and all below it. A missing one is fine, a missing parent too.
    ///
    /// # Errors
    /// `EACCES`.
    fn remove(&self, path: &str) -> Result<(), XsError> {
        match self.ask(Op::Rm, path, &[path.as_bytes(), b"\0"]) {
            Err(error) if error.is_missing() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Names of the nodes right below `path`: as many as one message of 4096 bytes holds.
    ///
    /// # Errors
    /// `E2BIG`: more than that (oxenstored has no way to ask for parts).
    fn list(&self, path: &str) -> Result<Vec<String>, XsError> {
        let answer = self.ask(Op::Directory, path, &[path.as_bytes(), b"\0"])?;
        Ok(wire::strings(&answer).map(|name| String::from_utf8_lossy(name).into_owned()).collect())
    }

    /// Gives a node its owner and readers.
    ///
    /// # Errors
    /// `EACCES`, `EPERM`: not ours to give.
    fn set_permissions(&self, path: &str, permissions: &Permissions) -> Result<(), XsError> {
        self.ask(Op::SetPerms, path, &[path.as_bytes(), b"\0", &permissions.payload()]).map(drop)
    }

    /// Whether xenstored serves the domain: false once it is destroyed.
    ///
    /// # Errors
    /// `EACCES`: only privileged domains may ask, and some xenstoreds allow the asked domain itself.
    fn is_introduced(&self, domain: DomId) -> Result<bool, XsError> {
        let number = domain.get().to_string();
        let answer = self.ask(Op::IsDomainIntroduced, &number, &[number.as_bytes(), b"\0"])?;
        match &answer[..] {
            b"T\0" => Ok(true),
            b"F\0" => Ok(false),
            other => Err(XsError::value(&number, other, "T or F")),
        }
    }
}
