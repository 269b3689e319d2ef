//! The arrays of the device of a few lines: bytes, row after row.

use std::collections::{BTreeSet, HashMap};

use vgpu_api::array::Extent;
use vgpu_api::*;

/// One array or level.
struct Array {
    context: ContextId,
    shape: ArrayShape,
    bytes: Vec<u8>,
    level_of: Option<MipmapHandle>,
}

#[derive(Default)]
pub struct FakeArrays {
    arrays: HashMap<u64, Array>,
    mipmaps: HashMap<u64, (ContextId, ArrayShape, u32)>,
    objects: BTreeSet<(ContextId, Object)>,
}

/// Arrays of more bytes are too much for the device.
const BYTES_MAX: u64 = 1 << 28;

impl FakeArrays {
    /// Arrays, mipmapped arrays and objects that live.
    pub fn counts(&self) -> [usize; 3] {
        [self.arrays.len(), self.mipmaps.len(), self.objects.len()]
    }

    fn add(&mut self, handle: ArrayHandle, array: Array) -> CuResult<()> {
        let taken = self.arrays.keys().any(|raw| ArrayHandle::parse(*raw).unwrap().index() == handle.index());
        assert!(!taken, "a place in use is given again");
        self.arrays.insert(handle.raw(), array);
        Ok(())
    }

    pub fn create(&mut self, context: ContextId, handle: ArrayHandle, shape: ArrayShape) -> CuResult<()> {
        let bytes = shape.bytes().filter(|bytes| *bytes <= BYTES_MAX).ok_or(CuError::OUT_OF_MEMORY)?;
        let bytes = vec![0xcd; usize::try_from(bytes).unwrap()];
        self.add(handle, Array { context, shape, bytes, level_of: None })
    }

    pub fn destroy(&mut self, handle: ArrayHandle) -> CuResult<()> {
        self.arrays.remove(&handle.raw()).map(drop).ok_or(CuError::INVALID_HANDLE)
    }

    pub fn create_mipmap(
        &mut self,
        context: ContextId,
        handle: MipmapHandle,
        shape: ArrayShape,
        levels: u32,
    ) -> CuResult<()> {
        let small = shape.bytes_of_levels(levels).is_some_and(|bytes| bytes <= BYTES_MAX);
        self.mipmaps.insert(handle.raw(), (context, shape, levels));
        if small { Ok(()) } else { Err(CuError::OUT_OF_MEMORY) }
    }

    pub fn level(&mut self, handle: ArrayHandle, of: MipmapHandle, level: u32) -> CuResult<()> {
        let (context, shape, levels) = *self.mipmaps.get(&of.raw()).ok_or(CuError::INVALID_HANDLE)?;
        assert!(level < levels);
        let shape = shape.level(level);
        let bytes = vec![0xcd; usize::try_from(shape.bytes().unwrap()).unwrap()];
        self.add(handle, Array { context, shape, bytes, level_of: Some(of) })
    }

    pub fn destroy_mipmap(&mut self, handle: MipmapHandle) -> CuResult<()> {
        self.arrays.retain(|_, array| array.level_of != Some(handle));
        self.mipmaps.remove(&handle.raw()).map(drop).ok_or(CuError::INVALID_HANDLE)
    }

    /// Where each row of a box lies, and all the array's bytes.
    fn rows(&mut self, place: ArrayPlace, size: Extent) -> CuResult<(Vec<usize>, &mut [u8])> {
        let array = self.arrays.get_mut(&place.array.raw()).ok_or(CuError::INVALID_HANDLE)?;
        array.shape.check_box(place.corner(), size)?;
        let [width, height, _] = array.shape.extent();
        let pitch = width * array.shape.element()?.bytes();
        let row = |z: u64, y: u64| (place.z + z) * pitch * height + (place.y + y) * pitch + place.x_bytes;
        let rows = (0..size.depth).flat_map(|z| (0..size.height).map(move |y| row(z, y)));
        Ok((rows.map(|row| usize::try_from(row).unwrap()).collect(), &mut array.bytes))
    }

    pub fn write(&mut self, to: ArrayPlace, size: Extent, bytes: &[u8]) -> CuResult<()> {
        assert_eq!(size.bytes(), Some(bytes.len() as u64), "rows without gaps");
        let (rows, array) = self.rows(to, size)?;
        for (row, bytes) in rows.into_iter().zip(bytes.chunks(usize::try_from(size.width_bytes).unwrap())) {
            array[row..row + bytes.len()].copy_from_slice(bytes);
        }
        Ok(())
    }

    pub fn read(&mut self, from: ArrayPlace, size: Extent) -> CuResult<Vec<u8>> {
        let width = usize::try_from(size.width_bytes).unwrap();
        let (rows, array) = self.rows(from, size)?;
        Ok(rows.into_iter().flat_map(|row| array[row..row + width].to_vec()).collect())
    }

    /// Two contexts get the same number for their first object, as on hardware.
    pub fn create_object(&mut self, context: ContextId, array: Option<ArrayHandle>) -> CuResult<Object> {
        if array.is_some_and(|array| !self.arrays.contains_key(&array.raw())) {
            return Err(CuError::INVALID_HANDLE);
        }
        let free = (1..).map(Object).find(|object| !self.objects.contains(&(context, *object))).unwrap();
        self.objects.insert((context, free));
        Ok(free)
    }

    pub fn destroy_object(&mut self, context: ContextId, object: Object) -> CuResult<()> {
        if self.objects.remove(&(context, object)) { Ok(()) } else { Err(CuError::INVALID_VALUE) }
    }

    pub fn end_context(&mut self, context: ContextId) {
        self.arrays.retain(|_, array| array.context != context);
        self.mipmaps.retain(|_, (owner, ..)| *owner != context);
        self.objects.retain(|(owner, _)| *owner != context);
    }
}
