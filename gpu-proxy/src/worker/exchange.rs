//! Memory that this worker shares with others of its zone, as its session sees it.

use std::fmt;
use std::os::fd::OwnedFd;

use vgpu_api::CuResult;

use crate::exchange::{Answer, Question, ask};

/// Knows what processes of the zone share.
pub trait Exchange: fmt::Debug + Send {
    /// Asks, and waits for the answer, which does not take long.
    ///
    /// # Errors
    /// What the program gets.
    fn ask(&mut self, question: Question, fd: Option<OwnedFd>) -> CuResult<(Answer, Option<OwnedFd>)>;

    /// Says that something is no more. Nobody who is left could do anything about a refusal.
    fn tell(&mut self, question: Question) {
        if let Err(error) = self.ask(question, None) {
            log::warn!("the supervisor is told of the end of shared memory and says {}", error.code());
        }
    }
}

/// The supervisor at the other end of a socket.
#[derive(Debug)]
pub struct Supervisor(pub OwnedFd);

impl Exchange for Supervisor {
    fn ask(&mut self, question: Question, fd: Option<OwnedFd>) -> CuResult<(Answer, Option<OwnedFd>)> {
        ask(&self.0, question, fd)
    }
}
