//! What is slow to make, begun at once beside everything else: half of its time it waits for the network or is one thread's work.

use std::path::PathBuf;
use std::thread;

use crate::cuda_programs;
use crate::dist;
use crate::dom0;
use crate::error::Result;
use crate::progress::Steps;

/// Makes one artifact, or waits for whoever does.
type Make = fn(&Steps) -> Result<PathBuf>;

/// All that a boot needs and no change of ours makes anew.
pub const ALL: &[Make] = &[dom0::tree, dist::guest_kernel, cuda_programs::build];

/// Does `work` while these are made. Who needs one asks for it and gets its failure.
pub fn beside<T>(steps: &Steps, made: &[Make], work: impl FnOnce() -> Result<T>) -> Result<T> {
    dom0::may_be_made(steps)?;
    thread::scope(|scope| {
        let makers: Vec<_> = made.iter().map(|make| scope.spawn(|| make(steps))).collect();
        let outcome = work();
        if let (Err(failure), true) = (&outcome, makers.iter().any(|maker| !maker.is_finished())) {
            // It takes minutes, and is of use the next time.
            eprintln!("{failure}\n(what is being made beside it is finished first)");
        }
        outcome
    })
}
