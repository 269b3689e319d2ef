//! Numbers for handles: the guest gives them, so making and ending an object needs no reply.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vgpu_api::CuError;
use vgpu_api::handle::{Handle, Kind};

/// Locks, also after a panic of another thread: every change under these locks is whole before anything can panic.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the guest knows of the objects of one kind.
#[derive(Debug)]
pub struct Slab<T> {
    inner: Mutex<Inner<T>>,
    /// Counts the sweeps of [`Slab::retain`]: what threads remember of handles is void after one.
    epoch: AtomicU64,
}

#[derive(Debug)]
struct Inner<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<usize>,
}

impl<T: Clone> Slab<T> {
    pub const fn new() -> Self {
        let inner = Inner { places: Vec::new(), free: Vec::new() };
        Self { inner: Mutex::new(inner), epoch: AtomicU64::new(1) }
    }

    /// Changes when [`Slab::retain`] has forgotten objects. Never 0.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// A new handle for `value`.
    pub fn insert<K: Kind>(&self, value: T) -> Handle<K> {
        let mut inner = lock(&self.inner);
        let place = inner.free.pop().unwrap_or_else(|| {
            inner.places.push((0, None));
            inner.places.len() - 1
        });
        let slot = &mut inner.places[place];
        slot.1 = Some(value);
        Handle::new(slot.0, place as u64)
    }

    /// Ends a handle. `tell` sends word to the worker, and only then is the number given again, with the next generation: else
    /// another thread's word of the new object could pass this one, and the worker would find the place taken.
    pub fn end<K: Kind, R>(&self, handle: Handle<K>, tell: impl FnOnce(T) -> R) -> Result<R, CuError> {
        let (place, value) = self.take(handle)?;
        let told = tell(value);
        lock(&self.inner).free.push(place);
        Ok(told)
    }

    fn take<K: Kind>(&self, handle: Handle<K>) -> Result<(usize, T), CuError> {
        let mut inner = lock(&self.inner);
        let place = usize::try_from(handle.index()).map_err(|_| K::WRONG)?;
        let slot =
            inner.places.get_mut(place).filter(|slot| slot.0 == handle.generation()).ok_or(K::WRONG)?;
        let value = slot.1.take().ok_or(K::WRONG)?;
        slot.0 = (slot.0 + 1) % vgpu_api::handle::GENERATIONS;
        Ok((place, value))
    }

    /// What a handle names.
    pub fn get<K: Kind>(&self, handle: Handle<K>) -> Result<T, CuError> {
        let inner = lock(&self.inner);
        let place = usize::try_from(handle.index()).map_err(|_| K::WRONG)?;
        let slot = inner.places.get(place).filter(|slot| slot.0 == handle.generation()).ok_or(K::WRONG)?;
        slot.1.clone().ok_or(K::WRONG)
    }

    /// Changes what a handle names.
    pub fn set<K: Kind>(&self, handle: Handle<K>, value: T) -> Result<(), CuError> {
        let mut inner = lock(&self.inner);
        let place = usize::try_from(handle.index()).map_err(|_| K::WRONG)?;
        let slot =
            inner.places.get_mut(place).filter(|slot| slot.0 == handle.generation()).ok_or(K::WRONG)?;
        *slot.1.as_mut().ok_or(K::WRONG)? = value;
        Ok(())
    }

    /// Forgets what `keep` refuses, without a word to the worker: it has ended them itself.
    pub fn retain(&self, keep: impl Fn(&T) -> bool) {
        let mut inner = lock(&self.inner);
        for place in 0..inner.places.len() {
            let slot = &mut inner.places[place];
            if slot.1.as_ref().is_some_and(|value| !keep(value)) {
                slot.1 = None;
                slot.0 = (slot.0 + 1) % vgpu_api::handle::GENERATIONS;
                inner.free.push(place);
            }
        }
        self.epoch.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vgpu_api::EventHandle;

    #[test]
    fn an_ended_handle_is_refused_even_when_its_number_is_used_again() {
        let slab = Slab::new();
        let first: EventHandle = slab.insert("first");
        assert_eq!(slab.end(first, |value| value), Ok("first"));
        let second: EventHandle = slab.insert("second");
        assert_eq!(second.index(), first.index());
        assert_eq!(slab.get(first), Err(CuError::INVALID_HANDLE));
        assert_eq!(slab.end(first, |_| ()), Err(CuError::INVALID_HANDLE));
        assert_eq!(slab.get(second), Ok("second"));
    }

    #[test]
    fn a_number_is_not_given_again_before_the_worker_was_told_of_its_end() {
        let slab = Slab::new();
        let first: EventHandle = slab.insert("first");
        let meanwhile = slab.end(first, |_| {
            assert_eq!(slab.get(first), Err(CuError::INVALID_HANDLE), "but it has ended");
            slab.insert::<vgpu_api::kind::Event>("second").index()
        });
        assert_ne!(meanwhile, Ok(first.index()));
        assert_eq!(slab.insert::<vgpu_api::kind::Event>("third").index(), first.index());
    }

    #[test]
    fn a_sweep_ends_handles_and_voids_what_was_remembered() {
        let slab = Slab::new();
        let (one, two): (EventHandle, EventHandle) = (slab.insert(1), slab.insert(2));
        let before = slab.epoch();
        slab.retain(|value| *value == 2);
        assert_eq!((slab.get(one), slab.get(two)), (Err(CuError::INVALID_HANDLE), Ok(2)));
        assert_ne!(slab.epoch(), before);
    }
}
