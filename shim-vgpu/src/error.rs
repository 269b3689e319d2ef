//! What goes wrong in the shim, and what containerd is told of it.
//!
//! Every error carries a code of `vgpu-codes`, whose row decides the ttrpc code. NOT_FOUND counts as success in containerd's stop and
//! delete paths, and UNIMPLEMENTED from Create makes it try another protocol: both are exact here.

use std::error::Error as StdError;

use tokio::task::JoinError;
use ttrpc::{Code as Rpc, Error as TtrpcError};
use vgpu_agent_api::wire::TEXT_CHARS_MAX;
use vgpu_codes::{Code, with_causes};

/// The shim's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn StdError + Send + Sync>;

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The shim's own answer.
    #[error("{what}")]
    Own {
        /// The stable code; it knows who is at fault and what to do.
        code: Code,
        /// What failed, on what. One sentence without a full stop.
        what: String,
        /// The cause; its text is not part of `what`.
        source: Option<Source>,
    },
    /// guest-init's answer, passed on as it came: it speaks the same Task API.
    #[error("{message}")]
    Guest {
        /// What it answered.
        rpc: Rpc,
        /// Its text.
        message: String,
    },
    /// What another process of this program reported, code and remedy included.
    #[error("{0}")]
    Relayed(String),
}

impl Error {
    /// An error without a cause of its own.
    pub fn new(code: Code, what: impl Into<String>) -> Self {
        Error::Own { code, what: what.into(), source: None }
    }

    /// An error that was caused by another.
    pub fn caused(code: Code, what: impl Into<String>, source: impl Into<Source>) -> Self {
        Error::Own { code, what: what.into(), source: Some(source.into()) }
    }

    /// What the guest's ttrpc answered, or why it did not: gone, or silent for longer than our own limit.
    pub fn from_guest(what: &str, error: TtrpcError) -> Self {
        match error {
            TtrpcError::RpcStatus(status) => {
                let rpc = status.code.enum_value_or_default();
                match rpc {
                    Rpc::DEADLINE_EXCEEDED => {
                        Error::new(Code::GuestSilent, format!("{what}: no answer in time"))
                    }
                    _ => Error::Guest { rpc, message: shortened(status.message) },
                }
            }
            // ttrpc's word for bytes that are no answer.
            TtrpcError::Others(why) => {
                Error::caused(Code::ProtocolBroken, format!("{what}: the guest's answer can't be read"), why)
            }
            other => Error::caused(Code::GuestGone, format!("{what}: the guest is gone"), other),
        }
    }

    /// The last report that a process of this program left on its stderr; none if it is not of the usual form (a panic's).
    pub fn relayed(stderr: &str) -> Option<Self> {
        let (_, report) = stderr.trim().rsplit_once(&format!("{}: ", crate::PROGRAM))?;
        report.starts_with("VGPU-").then(|| Error::Relayed(report.to_owned()))
    }

    /// The stable code, where it is an own error.
    pub fn code(&self) -> Option<Code> {
        match self {
            Error::Own { code, .. } => Some(*code),
            Error::Guest { .. } | Error::Relayed(_) => None,
        }
    }

    /// What containerd is told.
    pub fn rpc(&self) -> Rpc {
        match self {
            Error::Own { code, .. } => vgpu_agent_api::rpc(code.rpc() as i32),
            Error::Guest { rpc, .. } => *rpc,
            Error::Relayed(_) => Rpc::INTERNAL,
        }
    }

    /// The same error for an answer to Create, which must never say UNIMPLEMENTED.
    pub fn for_create(self) -> Self {
        match self {
            Error::Guest { rpc: Rpc::UNIMPLEMENTED, message } => Error::new(Code::GuestRefused, message),
            Error::Own { code: Code::NotImplemented, what, source } => {
                Error::Own { code: Code::SpecRefused, what, source }
            }
            other => other,
        }
    }

    /// The text that a user reads: code, what, each cause once, what to do.
    pub fn report(&self) -> String {
        let Error::Own { code, .. } = self else { return self.to_string() };
        let text = format!("{code}: {}", with_causes(self));
        // Wrong states and unknown ids are found by clients themselves; advice would only hide the sentence.
        if matches!(code, Code::WrongState | Code::NoSuchTask | Code::IdTaken) {
            return text;
        }
        format!("{text}. {}", code.remedy())
    }
}

/// A guest's text as it may reach users and logs: a hostile one may be megabytes, or hold what terminals obey.
fn shortened(text: String) -> String {
    let end = text.char_indices().nth(TEXT_CHARS_MAX).map_or(text.len(), |(at, _)| at);
    text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl From<Error> for TtrpcError {
    /// Always a status: everything else reaches containerd as UNKNOWN with Rust's debug text.
    fn from(error: Error) -> Self {
        TtrpcError::RpcStatus(ttrpc::get_status(error.rpc(), error.report()))
    }
}

/// Gives a foreign error its code and says what failed.
pub trait OrFail<T> {
    /// Turns the error into ours; `what` is only made when there is one.
    ///
    /// # Errors
    /// The error itself, as the cause.
    fn or_fail(self, code: Code, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Source>> OrFail<T> for std::result::Result<T, E> {
    fn or_fail(self, code: Code, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::caused(code, what(), source))
    }
}

/// Runs what blocks (mounts, tools, fsync) beside the reactor.
///
/// # Errors
/// Those of `work`; a panic in it is a defect of ours and becomes [`Code::HostFailure`].
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    unless_panicked(tokio::task::spawn_blocking(work).await)
}

/// Runs `work` to its end, whatever becomes of who waits for it.
///
/// # Errors
/// As [`blocking`].
pub async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    unless_panicked(tokio::spawn(work).await)
}

fn unless_panicked<T>(done: Result<Result<T>, JoinError>) -> Result<T> {
    done.unwrap_or_else(|panic| Err(Error::caused(Code::HostFailure, "a task of the shim panicked", panic)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn a_report_names_code_cause_and_remedy_once() {
        let error: Result<()> =
            Err(io::Error::other("disk full")).or_fail(Code::HostFailure, || "cannot write x".into());
        let text = error.unwrap_err().report();
        assert!(text.starts_with("VGPU-105: cannot write x: disk full. "), "{text}");
        assert!(text.ends_with(Code::HostFailure.remedy()), "{text}");
        assert_eq!(text.matches("disk full").count(), 1);
    }

    #[test]
    fn every_code_reaches_containerd_as_a_status_with_its_own_code() {
        for &code in Code::ALL {
            let TtrpcError::RpcStatus(status) = Error::new(code, "x").into() else {
                panic!("{code}: no status")
            };
            assert_ne!(status.code(), Rpc::UNKNOWN, "{code}");
            assert_eq!(status.code() as i32, code.rpc() as i32, "{code}");
        }
    }

    #[test]
    fn create_never_says_unimplemented() {
        let guest = Error::Guest { rpc: Rpc::UNIMPLEMENTED, message: "x".into() }.for_create();
        assert_eq!(guest.rpc(), Rpc::INTERNAL);
        assert_eq!(Error::new(Code::NotImplemented, "x").for_create().rpc(), Rpc::INVALID_ARGUMENT);
    }

    #[test]
    fn a_guests_text_is_short_and_harmless() {
        let status = ttrpc::get_status(Rpc::INTERNAL, format!("\u{1b}[2J\n{}", "ä".repeat(1 << 20)));
        let error = Error::from_guest("create", TtrpcError::RpcStatus(status));
        assert!(error.to_string().starts_with(" [2J ä") && error.to_string().chars().count() == 2000);
    }

    #[test]
    fn a_lost_connection_is_no_not_found() {
        let error = Error::from_guest("kill", TtrpcError::RemoteClosed);
        assert_eq!(error.rpc(), Rpc::UNAVAILABLE);
    }
}
