//! What the guest's handles stand for: one slab a kind. The guest chooses index and generation; both are checked each time.

use vgpu_api::{CuError, CuResult, Handle, kind::*};

/// Things of one kind at once. Far above what programs hold; bounds what a hostile guest makes us keep.
const ENTRIES_MAX: usize = 1 << 20;
/// The guest gives out indexes densely, but its threads' records may pass each other: a new index may lie this far past the end.
const SLACK: usize = 4096;

/// A kind of handle.
pub trait SlabKind: vgpu_api::handle::Kind {}
impl SlabKind for Stream {}
impl SlabKind for Event {}
impl SlabKind for Image {}
impl SlabKind for Memory {}
impl SlabKind for Pool {}
impl SlabKind for GraphExec {}
impl SlabKind for Array {}
impl SlabKind for Mipmap {}
impl SlabKind for Linker {}
impl SlabKind for TexRef {}
impl SlabKind for SurfRef {}

/// Things by handle.
#[derive(Debug)]
pub struct Slab<T> {
    entries: Vec<Option<(u32, T)>>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Whether a new thing may have this handle. Asked before the device makes the thing.
    ///
    /// # Errors
    /// 400 for an index in use or out of reach.
    pub fn check_free<K: SlabKind>(&self, handle: Handle<K>) -> CuResult<usize> {
        let index = usize::try_from(handle.index()).map_err(|_| CuError::INVALID_HANDLE)?;
        let reachable = index < ENTRIES_MAX && index <= self.entries.len() + SLACK;
        let taken = self.entries.get(index).is_some_and(Option::is_some);
        if reachable && !taken { Ok(index) } else { Err(CuError::INVALID_HANDLE) }
    }

    /// Keeps `thing` under `handle`.
    ///
    /// # Errors
    /// As [`Slab::check_free`].
    pub fn insert<K: SlabKind>(&mut self, handle: Handle<K>, thing: T) -> CuResult<()> {
        let index = self.check_free(handle)?;
        if index >= self.entries.len() {
            self.entries.resize_with(index + 1, || None);
        }
        self.entries[index] = Some((handle.generation(), thing));
        Ok(())
    }

    /// The thing of a handle.
    ///
    /// # Errors
    /// What CUDA says of a wrong handle of its kind, for one that is not there or of another generation.
    pub fn get<K: SlabKind>(&self, handle: Handle<K>) -> CuResult<&T> {
        match usize::try_from(handle.index()).ok().and_then(|index| self.entries.get(index)) {
            Some(Some((generation, thing))) if *generation == handle.generation() => Ok(thing),
            _ => Err(K::WRONG),
        }
    }

    /// The thing of a handle, to change it.
    ///
    /// # Errors
    /// As [`Slab::get`].
    pub fn get_mut<K: SlabKind>(&mut self, handle: Handle<K>) -> CuResult<&mut T> {
        let index = usize::try_from(handle.index()).map_err(|_| K::WRONG)?;
        match self.entries.get_mut(index) {
            Some(Some((generation, thing))) if *generation == handle.generation() => Ok(thing),
            _ => Err(K::WRONG),
        }
    }

    /// Takes the thing out.
    ///
    /// # Errors
    /// As [`Slab::get`].
    pub fn remove<K: SlabKind>(&mut self, handle: Handle<K>) -> CuResult<T> {
        self.get(handle)?;
        usize::try_from(handle.index())
            .ok()
            .and_then(|index| self.entries.get_mut(index))
            .and_then(Option::take)
            .map(|(_, thing)| thing)
            .ok_or(K::WRONG)
    }

    /// Forgets what is at a handle's place, of whichever generation, if `is_over` says so.
    pub fn forget_at<K: SlabKind>(&mut self, handle: Handle<K>, is_over: impl FnOnce(&T) -> bool) {
        let entry = usize::try_from(handle.index()).ok().and_then(|index| self.entries.get_mut(index));
        if let Some(entry) = entry
            && entry.as_ref().is_some_and(|(_, thing)| is_over(thing))
        {
            *entry = None;
        }
    }

    /// All things.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().flatten().map(|(_, thing)| thing)
    }

    /// All things, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut().flatten().map(|(_, thing)| thing)
    }

    /// Takes out all things that `ends` says.
    pub fn remove_where(&mut self, mut ends: impl FnMut(&T) -> bool) -> Vec<T> {
        self.entries
            .iter_mut()
            .filter(|entry| entry.as_ref().is_some_and(|(_, thing)| ends(thing)))
            .filter_map(|entry| entry.take().map(|(_, thing)| thing))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use vgpu_api::{EventHandle, MemoryHandle, StreamHandle};

    use super::*;

    #[test]
    fn a_stale_generation_and_a_free_index_are_400() {
        let mut slab = Slab::default();
        let old = StreamHandle::new(1, 3);
        slab.insert(old, "a").unwrap();
        assert_eq!(slab.insert(StreamHandle::new(2, 3), "b"), Err(CuError::INVALID_HANDLE));
        assert_eq!(slab.remove(old), Ok("a"));
        assert_eq!(slab.remove(old), Err(CuError::INVALID_HANDLE));
        slab.insert(StreamHandle::new(2, 3), "b").unwrap();
        assert_eq!(slab.get(old), Err(CuError::INVALID_HANDLE));
        assert_eq!(slab.get(StreamHandle::new(2, 4)), Err(CuError::INVALID_HANDLE));
    }

    #[test]
    fn a_wrong_handle_gives_the_number_of_its_kind() {
        let mut slab = Slab::<u8>::default();
        let nobody = MemoryHandle::new(0, 0);
        assert_eq!(slab.get(nobody), Err(CuError::INVALID_VALUE));
        assert_eq!(slab.remove(nobody), Err(CuError::INVALID_VALUE));
        assert_eq!(slab.get_mut(nobody), Err(CuError::INVALID_VALUE));
        slab.insert(nobody, 1).unwrap();
        assert_eq!(
            slab.insert(nobody, 1),
            Err(CuError::INVALID_HANDLE),
            "a guest that gives numbers out twice"
        );
    }

    #[test]
    fn an_index_far_away_takes_no_memory() {
        let mut slab = Slab::<u8>::default();
        assert!(slab.insert(EventHandle::new(0, SLACK as u64 + 1), 0).is_err());
        assert!(slab.insert(EventHandle::new(0, u64::MAX), 0).is_err());
        assert!(slab.insert(EventHandle::new(0, SLACK as u64), 0).is_ok());
    }
}
