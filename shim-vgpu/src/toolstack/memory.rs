//! How a domain comes to have more or less memory while it lives, over what a toolstack does at once ([`Levers`]).
//!
//! libxl's `mem-set` goes up to what the domain was made with, and no further; Xen's bound and the guest's aim are all that it sets, so that both
//! are set here. Source: libxl `libxl_mem.c`; Linux `drivers/xen/xen-balloon.c`, `watch_target`.

use std::{
    thread,
    time::{Duration, Instant},
};

use vgpu_codes::Code;

use crate::error::{Error, Result};

/// For a guest to take a step of memory that Xen has free: to add 128 MiB takes a kernel milliseconds.
pub const STEP_LIMIT: Duration = Duration::from_secs(10);
/// A step: its kernel pays for what it keeps about the pages of one, 16 MiB, with what it has already.
const STEP_MIB: u64 = 1024;
/// Between two looks, at first and at most.
const LOOK: Duration = Duration::from_millis(20);
const LOOK_MAX: Duration = Duration::from_secs(1);

/// One domain's memory, in MiB. Each fails with `HostFailure`.
pub trait Levers {
    /// What it has, in whole MiB, rounded down.
    fn has(&self) -> Result<u64>;
    /// What Xen has left.
    fn free(&self) -> Result<u64>;
    /// The most that Xen lets it have.
    fn bound(&self, mib: u64) -> Result<()>;
    /// What its guest tries to have.
    fn aim(&self, mib: u64) -> Result<()>;
}

/// Has a domain come to `mib`. It has grown when this returns; it shrinks when its guest gives memory back. One whose guest takes nothing for
/// `step_limit` is as it was before.
///
/// # Errors
/// `HostResource` if Xen has not as much, or the guest does not take it, and those of the levers.
pub fn set(domain: &impl Levers, mib: u64, step_limit: Duration) -> Result<()> {
    let has = domain.has()?;
    if mib <= has {
        domain.aim(mib)?;
        return domain.bound(mib);
    }
    let more = mib - has;
    let free = domain.free()?;
    if free < more {
        let what = format!("the domain is to grow by {more} MiB, and Xen has {free} MiB free");
        return Err(Error::new(Code::HostResource, what));
    }
    let grown = domain.bound(mib).and_then(|()| grow(domain, has, mib, step_limit));
    if grown.is_err() {
        // Both, whatever becomes of one: it must not get later what it has not got now.
        let (aim, bound) = (domain.aim(has), domain.bound(has));
        aim.and(bound)?;
    }
    grown
}

fn grow(domain: &impl Levers, from_mib: u64, to_mib: u64, step_limit: Duration) -> Result<()> {
    let mut aim = from_mib;
    while aim < to_mib {
        aim = to_mib.min(aim + STEP_MIB);
        domain.aim(aim)?;
        let (deadline, mut pause) = (Instant::now() + step_limit, LOOK);
        while domain.has()? + 1 < aim {
            if Instant::now() > deadline {
                let more = to_mib - from_mib;
                let what = format!("the domain does not take the {more} MiB that it is to grow by");
                return Err(Error::new(Code::HostResource, what));
            }
            thread::sleep(pause);
            pause = LOOK_MAX.min(2 * pause);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// For who never takes what it is to take.
    const LIMIT: Duration = Duration::from_millis(30);
    /// For who is not to give up.
    const LONG: Duration = Duration::from_secs(600);

    /// A domain of 512 MiB on a node with 4 GiB more.
    #[derive(Debug)]
    struct Domain(RefCell<State>);

    #[derive(Debug)]
    struct State {
        has: u64,
        bound: u64,
        /// What its guest was told, one after the other.
        aims: Vec<u64>,
        /// More than this its guest never takes.
        takes: u64,
        /// What it takes from one look to the next.
        pace: u64,
        /// Nobody can bound it to more than this.
        bound_max: u64,
    }

    impl Levers for Domain {
        fn has(&self) -> Result<u64> {
            let mut state = self.0.borrow_mut();
            let goal = state.aims.last().map_or(512, |&aim| aim.min(state.bound).min(state.takes));
            state.has = goal.min(state.has.saturating_add(state.pace));
            Ok(state.has)
        }

        fn free(&self) -> Result<u64> {
            Ok(4096)
        }

        fn bound(&self, mib: u64) -> Result<()> {
            let mut state = self.0.borrow_mut();
            if mib > state.bound_max {
                return Err(Error::new(Code::HostFailure, "xl is away"));
            }
            state.bound = mib;
            Ok(())
        }

        fn aim(&self, mib: u64) -> Result<()> {
            self.0.borrow_mut().aims.push(mib);
            Ok(())
        }
    }

    fn domain(takes: u64, pace: u64) -> Domain {
        let state = State { has: 512, bound: 512, aims: Vec::new(), takes, pace, bound_max: u64::MAX };
        Domain(RefCell::new(state))
    }

    #[test]
    fn it_grows_in_steps_that_its_guest_takes_one_after_the_other() {
        let domain = domain(u64::MAX, 300);
        set(&domain, 3000, LONG).unwrap();
        let state = domain.0.into_inner();
        assert_eq!((state.aims, state.has, state.bound), (vec![1536, 2560, 3000], 3000, 3000));
    }

    #[test]
    fn it_shrinks_and_is_not_waited_for() {
        let domain = domain(u64::MAX, u64::MAX);
        set(&domain, 256, LONG).unwrap();
        let state = domain.0.into_inner();
        assert_eq!((state.aims, state.bound, state.has), (vec![256], 256, 512));
    }

    #[test]
    fn more_than_xen_has_is_refused_before_anything_is_changed() {
        let domain = domain(u64::MAX, u64::MAX);
        let error = set(&domain, 512 + 4097, LONG).unwrap_err();
        assert_eq!(error.code(), Some(Code::HostResource));
        assert!(error.to_string().contains("to grow by 4097 MiB, and Xen has 4096 MiB free"), "{error}");
        let state = domain.0.into_inner();
        assert_eq!((state.aims, state.bound), (vec![], 512));
    }

    /// One that takes nothing, and one that stops on the way: neither gets later what it did not take.
    #[test]
    fn a_guest_that_does_not_take_it_is_told_to_be_as_it_was_and_held_to_that() {
        for (takes, aims) in [(512, vec![1536, 512]), (2000, vec![1536, 2560, 512])] {
            let domain = domain(takes, u64::MAX);
            let error = set(&domain, 3000, LIMIT).unwrap_err();
            assert_eq!(error.code(), Some(Code::HostResource));
            assert!(error.to_string().contains("does not take the 2488 MiB"), "{error}");
            assert_eq!(domain.has().unwrap(), 512);
            let state = domain.0.into_inner();
            assert_eq!((state.aims, state.bound), (aims, 512), "{takes}");
        }
    }

    #[test]
    fn a_bound_that_cannot_be_raised_leaves_the_aim_as_it_was() {
        let domain = domain(u64::MAX, u64::MAX);
        domain.0.borrow_mut().bound_max = 512;
        let error = set(&domain, 1024, LONG).unwrap_err();
        assert_eq!(error.code(), Some(Code::HostFailure));
        let state = domain.0.into_inner();
        assert_eq!((state.aims, state.bound), (vec![512], 512));
    }
}
