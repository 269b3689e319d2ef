//! Arrays, textures and surfaces: what the calls do with `FakeArrays`.

use vgpu_api::*;

use super::FakeDevice;
use crate::support::arrays::FakeArrays;

impl FakeDevice {
    pub(super) fn count_arrays(&self) {
        self.seen.lock().unwrap().array_counts = self.arrays.counts();
    }

    /// What changes the arrays, and what is left of them for tests to see.
    pub(super) fn with_arrays<T>(
        &mut self,
        name: &'static str,
        change: impl FnOnce(&mut FakeArrays) -> CuResult<T>,
    ) -> CuResult<T> {
        self.saw(name)?;
        let result = change(&mut self.arrays);
        self.count_arrays();
        result
    }

    /// The rows of a side in device memory.
    pub(super) fn linear_rows(place: LinearPlace, size: Extent) -> Vec<DevicePtr> {
        let row = |z: u64, y: u64| DevicePtr(place.at.0 + (z * place.height + y) * place.pitch);
        (0..size.depth).flat_map(|z| (0..size.height).map(move |y| row(z, y))).collect()
    }
}

#[allow(non_snake_case, reason = "CUDA's names")]
impl FakeDevice {
    pub(super) fn vgpuArrayCreate(
        &mut self,
        call: Call,
        array: NewHandle<kind::Array>,
        shape: ArrayShape,
    ) -> CuResult<()> {
        self.with_arrays("array create", |arrays| arrays.create(call.context, array.0, shape))
    }

    pub(super) fn cuArrayDestroy(&mut self, _: Call, array: GoneHandle<kind::Array>) -> CuResult<()> {
        self.with_arrays("array destroy", |arrays| arrays.destroy(array.0))
    }

    pub(super) fn vgpuMipmapCreate(
        &mut self,
        call: Call,
        mipmap: NewHandle<kind::Mipmap>,
        shape: ArrayShape,
        levels: u32,
    ) -> CuResult<()> {
        self.with_arrays("mipmap create", |arrays| {
            arrays.create_mipmap(call.context, mipmap.0, shape, levels)
        })
    }

    pub(super) fn vgpuMipmapLevel(
        &mut self,
        _: Call,
        array: NewHandle<kind::Array>,
        mipmap: MipmapHandle,
        level: u32,
    ) -> CuResult<()> {
        self.with_arrays("mipmap level", |arrays| arrays.level(array.0, mipmap, level))
    }

    pub(super) fn cuMipmappedArrayDestroy(
        &mut self,
        _: Call,
        mipmap: GoneHandle<kind::Mipmap>,
    ) -> CuResult<()> {
        self.with_arrays("mipmap destroy", |arrays| arrays.destroy_mipmap(mipmap.0))
    }

    pub(super) fn vgpuArrayWrite(
        &mut self,
        _: Call,
        to: ArrayPlace,
        size: Extent,
        bytes: &[u8],
        stream: Stream,
    ) -> CuResult<()> {
        self.stream(stream)?;
        self.with_arrays("array write", |arrays| arrays.write(to, size, bytes))
    }

    pub(super) fn vgpuArrayWriteStaged(
        &mut self,
        _: Call,
        to: ArrayPlace,
        size: Extent,
        src: Staged,
        stream: Stream,
    ) -> CuResult<()> {
        self.stream(stream)?;
        let bytes = self.staging.read(src);
        self.with_arrays("array write staged", |arrays| arrays.write(to, size, &bytes))
    }

    pub(super) fn vgpuArrayReadStaged(
        &mut self,
        _: Call,
        dst: Staged,
        from: ArrayPlace,
        size: Extent,
        stream: Stream,
    ) -> CuResult<()> {
        self.stream(stream)?;
        let bytes = self.with_arrays("array read", |arrays| arrays.read(from, size))?;
        assert_eq!(bytes.len() as u64, dst.len);
        self.staging.write(dst, &bytes);
        Ok(())
    }

    pub(super) fn vgpuCopyBox(
        &mut self,
        _: Call,
        to: BoxSide,
        from: BoxSide,
        size: Extent,
        stream: Stream,
    ) -> CuResult<()> {
        self.stream(stream)?;
        let width = usize::try_from(size.width_bytes).unwrap();
        let bytes = match from {
            BoxSide::Array(place) => self.with_arrays("box", |arrays| arrays.read(place, size))?,
            BoxSide::Linear(place) => {
                let mut bytes = Vec::new();
                for row in Self::linear_rows(place, size) {
                    bytes.extend_from_slice(self.bytes(row, size.width_bytes)?);
                }
                bytes
            }
        };
        match to {
            BoxSide::Array(place) => self.with_arrays("box", |arrays| arrays.write(place, size, &bytes)),
            BoxSide::Linear(place) => {
                for (row, bytes) in Self::linear_rows(place, size).into_iter().zip(bytes.chunks(width)) {
                    self.bytes(row, size.width_bytes)?.copy_from_slice(bytes);
                }
                Ok(())
            }
        }
    }

    pub(super) fn vgpuTextureCreate(&mut self, call: Call, texture: Texture) -> CuResult<Object> {
        let array = match texture.resource {
            texture::Resource::Array(array) => Some(array),
            _ => None,
        };
        self.with_arrays("texture create", |arrays| arrays.create_object(call.context, array))
    }

    pub(super) fn cuTexObjectDestroy(&mut self, call: Call, texture: Object) -> CuResult<()> {
        self.with_arrays("texture destroy", |arrays| arrays.destroy_object(call.context, texture))
    }

    pub(super) fn vgpuSurfaceCreate(&mut self, call: Call, array: ArrayHandle) -> CuResult<Object> {
        self.with_arrays("surface create", |arrays| arrays.create_object(call.context, Some(array)))
    }

    pub(super) fn cuSurfObjectDestroy(&mut self, call: Call, surface: Object) -> CuResult<()> {
        self.with_arrays("surface destroy", |arrays| arrays.destroy_object(call.context, surface))
    }

    pub(super) fn cuDeviceGetTexture1DLinearMaxWidth(
        &mut self,
        _: Call,
        device: u32,
        format: u32,
        channels: u32,
    ) -> CuResult<u64> {
        self.saw("linear max")?;
        Ok(u64::from(1000 * device + 10 * format + channels))
    }
}
