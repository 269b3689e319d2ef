//! What went wrong in a task, in one line: xtask has one reader, a person at a terminal.

use std::fmt;

/// A task's failure: what was tried, and why it did not work.
#[derive(Debug, Clone)]
pub struct Failure {
    what: String,
}

/// What a task returns.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure that has no cause below it.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.what)
    }
}

/// Names what was tried when something below fails.
pub trait Context<T> {
    /// `what` reads as "cannot …".
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|cause| Failure::new(format!("{}: {cause}", what())))
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.ok_or_else(|| Failure::new(what()))
    }
}
