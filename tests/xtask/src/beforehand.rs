//! What is slow to make, begun at once beside everything else: half of its time it waits for the network or is one thread's work.

use std::path::PathBuf;
use std::thread;

use crate::cuda_programs;
use crate::dist;
use crate::dom0;
use crate::error::{Failure, Result};
use crate::host;
use crate::progress::Steps;

/// Makes one artifact, or waits for whoever does.
type Make = fn(&Steps) -> Result<PathBuf>;

/// All that a boot needs and no change of ours makes anew; [`dom0::may_be_made`] is asked before.
pub const ALL: &[Make] = &[dom0::tree, dist::guest_kernel, cuda_programs::build];

/// Does `work` while these are made. Who needs one asks for it and gets its failure.
pub fn beside<T>(steps: &Steps, made: &[Make], work: impl FnOnce() -> Result<T>) -> Result<T> {
    thread::scope(|scope| {
        let begin = |make: &Make| {
            let make = *make;
            scope.spawn(move || {
                stand_back();
                make(steps)
            })
        };
        let makers: Vec<_> = made.iter().map(begin).collect();
        let outcome = work();
        if outcome.is_err() && makers.iter().any(|maker| !maker.is_finished()) {
            // It takes minutes, and is of use the next time.
            eprintln!("(something failed; what is being made beside it is finished first)");
        }
        // Their failures are told to who asked for them; a panic is told to nobody else.
        let panics = makers.into_iter().filter_map(|maker| maker.join().err()).count();
        let value = outcome?;
        if panics > 0 { Err(Failure::new("what makes an artifact beforehand panicked")) } else { Ok(value) }
    })
}

/// This thread, and every process that it starts, gets what others leave of the processor: tests with deadlines run beside it.
fn stand_back() {
    let thread = std::fs::read_link("/proc/thread-self").ok();
    let id = thread.as_deref().and_then(|link| link.file_name()?.to_str());
    // Linux has a niceness a thread. Where it cannot be set, all is only slower.
    id.map(|id| host::succeeds("renice", &["-n", "19", "-p", id]));
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn niceness() -> String {
        let said = Command::new("nice").output().expect("Debian has it").stdout;
        String::from_utf8_lossy(&said).trim().into()
    }

    #[test]
    fn what_is_made_beside_work_stands_back_and_work_does_not() {
        let steps = Steps::quiet().expect("scratch");
        let before = niceness();
        let make: Make = |_| {
            assert_eq!(niceness(), "19");
            Ok(PathBuf::new())
        };
        let in_front = beside(&steps, &[make], || Ok(niceness())).expect("no assertion of the maker fails");
        assert_eq!(in_front, before);
    }

    #[test]
    fn a_maker_that_panics_is_a_failure_and_one_that_fails_is_its_users() {
        let steps = Steps::quiet().expect("scratch");
        let (fails, panics): (Make, Make) =
            (|_| Err(Failure::new("no")), |_| panic!("as this test wants it"));
        assert_eq!(beside(&steps, &[fails], || Ok(7)).expect("nobody asked for it"), 7);
        assert!(beside(&steps, &[panics], || Ok(())).is_err());
        let own = beside(&steps, &[panics], || Err::<(), _>(Failure::new("own")));
        assert_eq!(own.expect_err("both failed").to_string(), "own");
    }
}
