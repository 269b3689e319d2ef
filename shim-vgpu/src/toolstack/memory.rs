//! How a domain comes to have more or less memory while it lives, over what a toolstack does at once ([`Levers`]).
//!
//! libxl's `mem-set` goes up to what the domain was made with, and no further; Xen's bound and the guest's aim are all that it sets, so that both
//! are set here. Source: libxl `libxl_mem.c`; Linux `drivers/xen/xen-balloon.c`, `watch_target`.

use std::{
    thread,
    time::{Duration, Instant},
};

use vgpu_codes::{Code, with_causes};

use crate::error::{Error, OrFail, Result};

/// For a guest to take all that it is to grow by, of memory that Xen has free: so much, and so much more for each GiB, which takes a kernel a part of a
/// second. Whoever asked for it is waited for meanwhile, so that there is an end to what a guest can make of that.
const LIMIT: Duration = Duration::from_secs(10);
const LIMIT_OF_GIB: Duration = Duration::from_secs(1);
const LIMIT_MAX: Duration = Duration::from_secs(30);
/// A step: its kernel pays for what it keeps about the pages of one, 16 MiB, with what it has already.
const STEP_MIB: u64 = 1024;
/// Between two looks, at first and at most.
const LOOK: Duration = Duration::from_millis(20);
const LOOK_MAX: Duration = Duration::from_secs(1);

/// One domain's memory, in MiB, and the time that passes for it. Each fails with `HostFailure`.
pub trait Levers {
    /// What it has, in whole MiB, rounded down.
    fn has(&self) -> Result<u64>;
    /// What Xen has left.
    fn free(&self) -> Result<u64>;
    /// The most that Xen lets it have.
    fn bound(&self, mib: u64) -> Result<()>;
    /// What its guest tries to have.
    fn aim(&self, mib: u64) -> Result<()>;

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wait(&self, pause: Duration) {
        thread::sleep(pause);
    }
}

/// Has a domain come to `mib`. It has grown when this returns; it shrinks when its guest gives memory back. One whose guest has not taken all of it within
/// 10 s and 1 s a GiB, at most 30 s, is as it was before.
///
/// # Errors
/// `HostResource` if Xen has not as much, or the guest does not take it: it is as it was then. Those of the levers, also where it cannot be set back.
pub fn set(domain: &impl Levers, mib: u64) -> Result<()> {
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
    let grown = domain.bound(mib).and_then(|()| grow(domain, has, mib));
    if let Err(error) = &grown {
        // Both, whatever becomes of one: it must not get later what it has not got now.
        let (aim, bound) = (domain.aim(has), domain.bound(has));
        let what = || format!("{}, and it cannot be set back to {has} MiB", with_causes(error));
        aim.and(bound).or_fail(Code::HostFailure, what)?;
    }
    grown
}

fn grow(domain: &impl Levers, from_mib: u64, to_mib: u64) -> Result<()> {
    let limit = limit(to_mib - from_mib);
    let deadline = domain.now() + limit;
    let mut aim = from_mib;
    while aim < to_mib {
        aim = to_mib.min(aim + STEP_MIB);
        domain.aim(aim)?;
        let mut pause = LOOK;
        while domain.has()? + 1 < aim {
            if domain.now() > deadline {
                let (more, limit) = (to_mib - from_mib, limit.as_secs());
                let what =
                    format!("the domain does not take the {more} MiB that it is to grow by within {limit} s");
                return Err(Error::new(Code::HostResource, what));
            }
            domain.wait(pause);
            pause = LOOK_MAX.min(2 * pause);
        }
    }
    Ok(())
}

fn limit(more_mib: u64) -> Duration {
    let gib = u32::try_from(more_mib.div_ceil(1024)).unwrap_or(u32::MAX);
    LIMIT_MAX.min(LIMIT + LIMIT_OF_GIB.saturating_mul(gib))
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, ops::RangeInclusive};

    use super::*;

    /// A domain of 512 MiB on a node with 8 GiB more, and a clock that stands still until it is waited.
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
        /// How long it lets each aim be waited for.
        delay: Duration,
        /// Nobody can bound it to more or less than these.
        bounds: RangeInclusive<u64>,
        begun: Instant,
        now: Duration,
        /// When it was given its last aim.
        aimed: Duration,
    }

    impl Levers for Domain {
        fn has(&self) -> Result<u64> {
            let mut state = self.0.borrow_mut();
            let goal = state.aims.last().map_or(512, |&aim| aim.min(state.bound).min(state.takes));
            if goal < state.has || state.now >= state.aimed + state.delay {
                state.has = goal.min(state.has.saturating_add(state.pace));
            }
            Ok(state.has)
        }

        fn free(&self) -> Result<u64> {
            Ok(8192)
        }

        fn bound(&self, mib: u64) -> Result<()> {
            let mut state = self.0.borrow_mut();
            if !state.bounds.contains(&mib) {
                return Err(Error::new(Code::HostFailure, "xl is away"));
            }
            state.bound = mib;
            Ok(())
        }

        fn aim(&self, mib: u64) -> Result<()> {
            let mut state = self.0.borrow_mut();
            state.aims.push(mib);
            state.aimed = state.now;
            Ok(())
        }

        fn now(&self) -> Instant {
            let state = self.0.borrow();
            state.begun + state.now
        }

        fn wait(&self, pause: Duration) {
            self.0.borrow_mut().now += pause;
        }
    }

    fn domain(takes: u64, pace: u64) -> Domain {
        let (now, aimed, delay) = Default::default();
        let (aims, begun) = (Vec::new(), Instant::now());
        let bounds = 0..=u64::MAX;
        let state = State { has: 512, bound: 512, aims, takes, pace, delay, bounds, begun, now, aimed };
        Domain(RefCell::new(state))
    }

    #[test]
    fn it_grows_in_steps_that_its_guest_takes_one_after_the_other() {
        let domain = domain(u64::MAX, 300);
        set(&domain, 3000).unwrap();
        let state = domain.0.into_inner();
        assert_eq!((state.aims, state.has, state.bound), (vec![1536, 2560, 3000], 3000, 3000));
    }

    #[test]
    fn it_shrinks_and_is_not_waited_for() {
        let domain = domain(u64::MAX, u64::MAX);
        set(&domain, 256).unwrap();
        let state = domain.0.into_inner();
        assert_eq!((state.aims, state.bound, state.has), (vec![256], 256, 512));
    }

    #[test]
    fn more_than_xen_has_is_refused_before_anything_is_changed() {
        let domain = domain(u64::MAX, u64::MAX);
        let error = set(&domain, 512 + 8193).unwrap_err();
        assert_eq!(error.code(), Some(Code::HostResource));
        assert!(error.to_string().contains("to grow by 8193 MiB, and Xen has 8192 MiB free"), "{error}");
        let state = domain.0.into_inner();
        assert_eq!((state.aims, state.bound), (vec![], 512));
    }

    /// One that takes nothing, and one that stops on the way: neither gets later what it did not take.
    #[test]
    fn a_guest_that_does_not_take_it_is_told_to_be_as_it_was_and_held_to_that() {
        for (takes, aims) in [(512, vec![1536, 512]), (2000, vec![1536, 2560, 512])] {
            let domain = domain(takes, u64::MAX);
            let error = set(&domain, 3000).unwrap_err();
            assert_eq!(error.code(), Some(Code::HostResource));
            assert!(error.to_string().contains("does not take the 2488 MiB"), "{error}");
            assert_eq!(domain.has().unwrap(), 512);
            let state = domain.0.into_inner();
            assert_eq!((state.aims, state.bound), (aims, 512), "{takes}");
        }
    }

    /// However many steps it makes of it.
    #[test]
    fn a_guest_has_one_limit_for_all_that_it_is_to_take() {
        let domain = domain(u64::MAX, u64::MAX);
        domain.0.borrow_mut().delay = Duration::from_secs(9);
        let error = set(&domain, 512 + 5 * 1024).unwrap_err();
        assert_eq!(error.code(), Some(Code::HostResource));
        assert!(
            error.to_string().ends_with("does not take the 5120 MiB that it is to grow by within 15 s"),
            "{error}"
        );
        assert_eq!(domain.has().unwrap(), 512);
        let state = domain.0.into_inner();
        assert_eq!((state.aims, state.bound), (vec![1536, 2560, 512], 512));
        assert!((15..=16).contains(&state.now.as_secs()), "{:?}", state.now);
        let limits = [1, 1024, 1025, 20 << 10, 21 << 10, u64::MAX].map(|mib| limit(mib).as_secs());
        assert_eq!(limits, [11, 11, 12, 30, 30, 30]);
    }

    #[test]
    fn a_bound_that_cannot_be_raised_leaves_the_aim_as_it_was() {
        let domain = domain(u64::MAX, u64::MAX);
        domain.0.borrow_mut().bounds = 0..=512;
        let error = set(&domain, 1024).unwrap_err();
        assert_eq!(error.code(), Some(Code::HostFailure));
        let state = domain.0.into_inner();
        assert_eq!((state.aims, state.bound), (vec![512], 512));
    }

    #[test]
    fn one_that_cannot_be_set_back_says_so_and_why_it_did_not_grow() {
        let domain = domain(512, u64::MAX);
        domain.0.borrow_mut().bounds = 513..=u64::MAX;
        let error = set(&domain, 3000).unwrap_err();
        assert_eq!(error.code(), Some(Code::HostFailure));
        let report = error.report();
        assert!(report.contains("does not take the 2488 MiB"), "{report}");
        assert!(report.contains("cannot be set back to 512 MiB: xl is away"), "{report}");
        assert_eq!(domain.0.into_inner().aims.last(), Some(&512));
    }
}
