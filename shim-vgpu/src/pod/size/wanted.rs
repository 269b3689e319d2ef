//! Whether somebody still waits for a change, which goes on in a task of its own.

use tokio::sync::oneshot;
use vgpu_codes::Code;

use crate::error::{Error, Result};

/// Of who makes the change.
#[derive(Debug)]
pub struct Wanted(oneshot::Sender<()>);

/// And what who waits for it keeps: it is given up when that is dropped.
pub fn wanted() -> (Wanted, oneshot::Receiver<()>) {
    let (wanted, waits) = oneshot::channel();
    (Wanted(wanted), waits)
}

impl Wanted {
    /// # Errors
    /// `HostFailure`, which nobody reads: it was given up.
    pub fn check(&self) -> Result<()> {
        if self.0.is_closed() {
            return Err(Error::new(Code::HostFailure, "nobody waits for the change any more"));
        }
        Ok(())
    }
}
