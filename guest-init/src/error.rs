//! Why guest-init could not do something. One table to ttrpc's codes: the code's own (`vgpu-codes`).

use std::io;

use vgpu_agent_api::wire::TEXT_CHARS_MAX;
use vgpu_codes::Code;

/// An error as the shim and its user see it. Its text starts with the stable code.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// A request's or a spec's field that cannot be used.
    #[error("{field}: {why}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The container's or exec's command cannot be executed.
    #[error("{0}")]
    CommandMissing(String),
    /// The call does not fit the state.
    #[error("cannot {operation} a process that is {state}")]
    WrongState {
        /// What was asked.
        operation: &'static str,
        /// What it is.
        state: &'static str,
    },
    /// A Delete came while it was being made.
    #[error("{0} was deleted while it was being created")]
    TakenBack(String),
    /// No such container, exec or process; also a process that has ended.
    #[error("{0} not found")]
    NotFound(String),
    /// An id that is in use.
    #[error("{0} already exists")]
    Taken(String),
    /// Not done by vgpu.
    #[error("{0} is not supported")]
    NotSupported(&'static str),
    /// The OCI library refused or failed.
    #[error("{operation}: {text}")]
    Oci {
        /// Which step.
        operation: &'static str,
        /// What the library said.
        text: String,
    },
    /// The versions of shim and guest do not meet.
    #[error("{0}")]
    Version(String),
    /// A system call failed.
    #[error("{what}")]
    Io {
        /// What was tried, on what.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// What every fallible function here returns.
pub type Result<T> = std::result::Result<T, GuestError>;

impl GuestError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Invalid { .. } => Code::SpecInvalid,
            Self::CommandMissing(_) => Code::CommandMissing,
            Self::WrongState { .. } | Self::TakenBack(_) => Code::WrongState,
            Self::NotFound(_) => Code::NoSuchTask,
            Self::Taken(_) => Code::IdTaken,
            Self::NotSupported(_) => Code::NotImplemented,
            Self::Version(_) => Code::ProtocolVersion,
            Self::Oci { .. } | Self::Io { .. } => Code::GuestRefused,
        }
    }
}

/// Names what was tried when a system call fails.
pub trait During<T> {
    /// `what` is an infinitive clause: "mount /proc".
    fn during(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> During<T> for std::result::Result<T, E> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| GuestError::Io { what: what(), source: source.into() })
    }
}

impl From<GuestError> for ttrpc::Error {
    fn from(error: GuestError) -> Self {
        let text = format!("{}: {}", error.code(), vgpu_codes::with_causes(&error));
        // A command's name may be longer than an answer.
        let text = text.chars().take(TEXT_CHARS_MAX).collect::<String>();
        ttrpc::Error::RpcStatus(ttrpc::get_status(vgpu_agent_api::rpc(error.code().rpc() as i32), text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_and_keeps_its_code() {
        let error = GuestError::CommandMissing("ä".repeat(1 << 20));
        let ttrpc::Error::RpcStatus(status) = error.into() else { panic!("no status") };
        assert_eq!(status.message().chars().count(), TEXT_CHARS_MAX);
        assert!(status.message().starts_with("VGPU-"), "{}", &status.message()[..100]);
    }

    #[test]
    fn a_process_that_is_gone_is_not_found_for_containerd() {
        let ttrpc::Error::RpcStatus(status) = GuestError::NotFound("process 7".into()).into() else {
            panic!("no status");
        };
        assert_eq!(status.code(), ttrpc::Code::NOT_FOUND);
        assert_eq!(status.message(), "VGPU-206: process 7 not found");
    }

    #[test]
    fn the_cause_is_told_once() {
        let failed: io::Result<()> = Err(io::Error::from_raw_os_error(libc::ENOENT));
        let ttrpc::Error::RpcStatus(status) = failed.during(|| "mount /x".into()).unwrap_err().into() else {
            panic!("no status");
        };
        assert_eq!(status.message(), "VGPU-304: mount /x: No such file or directory (os error 2)");
    }
}
