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
    /// Counts the sweeps of [`Slab::retain`] and [`Slab::end_with_owner`]: what threads remember of handles is void after one.
    epoch: AtomicU64,
}

#[derive(Debug)]
struct Inner<T> {
    places: Vec<Slot<T>>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    /// Of a free place: what ended there with its owner, and is known until the number is given again.
    value: Option<T>,
    is_free: bool,
}

impl<T> Slot<T> {
    /// Takes the value out: its handle names nothing any more.
    fn clear(&mut self) -> Option<T> {
        let value = self.value.take()?;
        self.generation = (self.generation + 1) % vgpu_api::handle::GENERATIONS;
        Some(value)
    }
}

impl<T> Inner<T> {
    fn slot<K: Kind>(&mut self, handle: Handle<K>) -> Result<(usize, &mut Slot<T>), CuError> {
        let place = usize::try_from(handle.index()).map_err(|_| K::WRONG)?;
        let slot = self.places.get_mut(place).filter(|slot| slot.generation == handle.generation());
        Ok((place, slot.ok_or(K::WRONG)?))
    }

    fn give_back(&mut self, place: usize) {
        if let Some(slot) = self.places.get_mut(place).filter(|slot| !slot.is_free) {
            slot.is_free = true;
            self.free.push(place);
        }
    }
}

// What ends is dropped when the table is unlocked: its end may send calls, or look here.
impl<T: Clone> Slab<T> {
    pub const fn new() -> Self {
        let inner = Inner { places: Vec::new(), free: Vec::new() };
        Self { inner: Mutex::new(inner), epoch: AtomicU64::new(1) }
    }

    /// Changes when objects were forgotten without a word to the worker. Never 0.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// A new handle for `value`.
    pub fn insert<K: Kind>(&self, value: T) -> Handle<K> {
        let mut inner = lock(&self.inner);
        let place = inner.free.pop().unwrap_or_else(|| {
            inner.places.push(Slot { generation: 0, value: None, is_free: true });
            inner.places.len() - 1
        });
        let slot = &mut inner.places[place];
        let ended = slot.clear();
        (slot.value, slot.is_free) = (Some(value), false);
        let handle = Handle::new(slot.generation, place as u64);
        drop(inner);
        drop(ended);
        handle
    }

    /// Ends a handle. `tell` sends word to the worker, and only then is the number given again, with the next generation: else
    /// another thread's word of the new object could pass this one, and the worker would find the place taken.
    pub fn end<K: Kind, R>(&self, handle: Handle<K>, tell: impl FnOnce(T) -> R) -> Result<R, CuError> {
        let (place, value) = self.take(handle)?;
        let told = tell(value);
        lock(&self.inner).give_back(place);
        Ok(told)
    }

    fn take<K: Kind>(&self, handle: Handle<K>) -> Result<(usize, T), CuError> {
        let mut inner = lock(&self.inner);
        let (place, slot) = inner.slot(handle)?;
        let value = if slot.is_free { None } else { slot.clear() };
        Ok((place, value.ok_or(K::WRONG)?))
    }

    /// What a handle names.
    pub fn get<K: Kind>(&self, handle: Handle<K>) -> Result<T, CuError> {
        lock(&self.inner).slot(handle)?.1.value.clone().ok_or(K::WRONG)
    }

    /// Changes what a handle names.
    pub fn set<K: Kind>(&self, handle: Handle<K>, value: T) -> Result<(), CuError> {
        let mut inner = lock(&self.inner);
        let known = inner.slot(handle)?.1.value.as_mut().ok_or(K::WRONG)?;
        let before = std::mem::replace(known, value);
        drop(inner);
        drop(before);
        Ok(())
    }

    /// Forgets what `keep` refuses, without a word to the worker: it has ended them itself.
    pub fn retain(&self, mut keep: impl FnMut(&T) -> bool) {
        let mut inner = lock(&self.inner);
        let mut ended = Vec::new();
        for place in 0..inner.places.len() {
            let slot = &mut inner.places[place];
            if slot.value.as_ref().is_some_and(|value| !keep(value)) {
                ended.extend(slot.clear());
                inner.give_back(place);
            }
        }
        drop(inner);
        self.epoch.fetch_add(1, Ordering::Release);
        drop(ended);
    }

    /// Ends what `ends` says, without a word to the worker: it has ended them with their owner. Each stays known, so that it can be told what
    /// became of it, until its number is given again. Those that ended.
    pub fn end_with_owner<K: Kind>(&self, ends: impl Fn(&T) -> bool) -> Vec<(Handle<K>, T)> {
        let mut inner = lock(&self.inner);
        let mut ended = Vec::new();
        for place in 0..inner.places.len() {
            let slot = &inner.places[place];
            if let Some(value) = slot.value.as_ref().filter(|value| !slot.is_free && ends(value)) {
                ended.push((Handle::new(slot.generation, place as u64), value.clone()));
                inner.give_back(place);
            }
        }
        drop(inner);
        self.epoch.fetch_add(1, Ordering::Release);
        ended
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};
    use std::thread;
    use std::time::Duration;

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

    #[test]
    fn what_ended_with_its_owner_is_known_until_its_number_is_given_again() {
        let slab = Slab::new();
        let [one, two]: [EventHandle; 2] = [slab.insert(1), slab.insert(2)];
        assert_eq!(slab.end_with_owner(|value| *value == 1), [(one, 1)]);
        assert_eq!(slab.end_with_owner::<vgpu_api::kind::Event>(|value| *value == 1), [], "once");
        assert_eq!((slab.get(one), slab.end(one, |_| ())), (Ok(1), Err(CuError::INVALID_HANDLE)));
        let third: EventHandle = slab.insert(3);
        assert_eq!((third.index(), slab.get(one)), (one.index(), Err(CuError::INVALID_HANDLE)));
        // Swept later, its place is not given out twice.
        slab.end_with_owner::<vgpu_api::kind::Event>(|value| *value == 3);
        slab.retain(|value| *value == 2);
        let [fourth, fifth]: [EventHandle; 2] = [slab.insert(4), slab.insert(5)];
        assert_eq!([two, fourth, fifth].map(|handle| slab.get(handle)), [Ok(2), Ok(4), Ok(5)]);
        assert_eq!((fourth.index(), fifth.index()), (0, 2));
    }

    /// The end of a graph gives memory back, which are calls.
    #[test]
    fn what_ends_may_look_at_the_table_that_it_was_in() {
        static TABLE: Slab<Arc<Last>> = Slab::new();
        #[derive(Debug)]
        struct Last(mpsc::Sender<bool>);
        impl Drop for Last {
            fn drop(&mut self) {
                let _ = self.0.send(TABLE.get(EventHandle::new(0, 0)).is_err());
            }
        }
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let ended: EventHandle = TABLE.insert(Arc::new(Last(tell.clone())));
            TABLE.retain(|_| false);
            let changed: EventHandle = TABLE.insert(Arc::new(Last(tell.clone())));
            assert_eq!(changed.index(), ended.index());
            TABLE.set(changed, Arc::new(Last(tell))).unwrap();
        });
        for what in ["a sweep", "a change"] {
            assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok(true), "{what} waits for itself");
        }
    }
}
