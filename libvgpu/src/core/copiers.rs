//! Threads that help the one that asked with large work: one alone moves a fifth of what the bus does.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use super::slab::lock;
use super::threads;

/// With the thread that asks. Four move some 30 GB/s (host of an H100): several times what NVIDIA's library does, and half of the bus. The
/// other processors are the program's.
const THREADS_MAX: usize = 4;

/// Work that several threads may do at once.
pub trait Shared: Send + Sync {
    /// Does pieces of it until none is left.
    fn help(&self);
}

/// The threads. They start with the first work that is offered, and sleep while there is none.
#[derive(Default)]
pub struct Copiers {
    state: Mutex<State>,
    offered: Condvar,
}

#[derive(Default)]
struct State {
    is_started: bool,
    offers: VecDeque<Arc<Offer>>,
}

struct Offer {
    work: Arc<dyn Shared>,
    state: Mutex<At>,
    left: Condvar,
}

#[derive(Default)]
struct At {
    work: usize,
    is_closed: bool,
}

/// An offer that stands. Dropped, it waits until nobody is at the work.
pub struct Offered<'a> {
    copiers: &'a Copiers,
    offer: Arc<Offer>,
}

impl fmt::Debug for Copiers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copiers").finish_non_exhaustive()
    }
}

impl Copiers {
    /// Lets the threads begin with `work`. Where the process has one processor, or the system no thread for us, nobody does.
    pub fn offer(&'static self, work: Arc<dyn Shared>) -> Offered<'static> {
        let offer = Arc::new(Offer { work, state: Mutex::default(), left: Condvar::new() });
        let mut state = lock(&self.state);
        if !state.is_started {
            state.is_started = true;
            let processors = thread::available_parallelism().map_or(1, usize::from);
            for _ in 1..processors.min(THREADS_MAX) {
                // With fewer it is slower, not wrong.
                let _ = threads::start("vgpu-copy", || self.run());
            }
        }
        state.offers.push_back(Arc::clone(&offer));
        drop(state);
        self.offered.notify_all();
        Offered { copiers: self, offer }
    }

    fn run(&self) {
        loop {
            let state = lock(&self.state);
            let waited = self.offered.wait_while(state, |state| state.offers.is_empty());
            let first = waited.unwrap_or_else(PoisonError::into_inner).offers.front().cloned();
            if let Some(offer) = first {
                offer.help();
                self.withdraw(&offer);
            }
        }
    }

    fn withdraw(&self, offer: &Arc<Offer>) {
        lock(&self.state).offers.retain(|other| !Arc::ptr_eq(other, offer));
    }
}

/// One thread at the work. Dropped, also by a panic, it has left.
struct Helper<'a>(&'a Offer);

impl Drop for Helper<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).work -= 1;
        self.0.left.notify_all();
    }
}

impl Offer {
    fn help(&self) {
        if let Some(_here) = self.enter() {
            self.work.help();
        }
    }

    fn enter(&self) -> Option<Helper<'_>> {
        let mut at = lock(&self.state);
        if at.is_closed {
            return None;
        }
        at.work += 1;
        Some(Helper(self))
    }
}

impl Drop for Offered<'_> {
    fn drop(&mut self) {
        self.copiers.withdraw(&self.offer);
        let mut at = lock(&self.offer.state);
        at.is_closed = true;
        let waited = self.offer.left.wait_while(at, |at| at.work > 0);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Counts down.
    struct Count {
        left: AtomicUsize,
        done: AtomicUsize,
    }

    impl Shared for Count {
        fn help(&self) {
            let one_less = |left: usize| left.checked_sub(1);
            while self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
                std::hint::black_box(());
                self.done.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    #[test]
    fn when_an_offer_is_gone_all_pieces_are_done_and_nobody_is_at_them() {
        let copiers: &'static Copiers = Box::leak(Box::default());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for pieces in (0..200).chain([100_000]) {
                        let count =
                            Arc::new(Count { left: AtomicUsize::new(pieces), done: AtomicUsize::new(0) });
                        let offered = copiers.offer(Arc::clone(&count) as Arc<dyn Shared>);
                        count.help();
                        drop(offered);
                        assert_eq!(count.done.load(Ordering::Relaxed), pieces);
                    }
                });
            }
        });
        assert!(lock(&copiers.state).offers.is_empty(), "what nobody wants stays with nobody");
    }
}
