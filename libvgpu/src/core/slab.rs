//! Numbers for handles: the guest gives them, so making and ending an object needs no reply.

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
}

#[derive(Debug)]
struct Inner<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<usize>,
}

impl<T: Clone> Slab<T> {
    pub const fn new() -> Self {
        Self { inner: Mutex::new(Inner { places: Vec::new(), free: Vec::new() }) }
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

    /// Ends a handle; its number is given again with the next generation.
    pub fn remove<K: Kind>(&self, handle: Handle<K>) -> Result<T, CuError> {
        let mut inner = lock(&self.inner);
        let place = usize::try_from(handle.index()).map_err(|_| K::WRONG)?;
        let slot =
            inner.places.get_mut(place).filter(|slot| slot.0 == handle.generation()).ok_or(K::WRONG)?;
        let value = slot.1.take().ok_or(K::WRONG)?;
        slot.0 = (slot.0 + 1) % vgpu_api::handle::GENERATIONS;
        inner.free.push(place);
        Ok(value)
    }

    /// What a handle names.
    pub fn get<K: Kind>(&self, handle: Handle<K>) -> Result<T, CuError> {
        let inner = lock(&self.inner);
        let place = usize::try_from(handle.index()).map_err(|_| K::WRONG)?;
        let slot = inner.places.get(place).filter(|slot| slot.0 == handle.generation()).ok_or(K::WRONG)?;
        slot.1.clone().ok_or(K::WRONG)
    }

    /// Whether any object is what `wanted` says.
    pub fn any(&self, wanted: impl Fn(&T) -> bool) -> bool {
        lock(&self.inner).places.iter().any(|slot| slot.1.as_ref().is_some_and(&wanted))
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
        assert_eq!(slab.remove(first), Ok("first"));
        let second: EventHandle = slab.insert("second");
        assert_eq!(second.index(), first.index());
        assert_eq!(slab.get(first), Err(CuError::INVALID_HANDLE));
        assert_eq!(slab.remove(first), Err(CuError::INVALID_HANDLE));
        assert_eq!(slab.get(second), Ok("second"));
    }
}
