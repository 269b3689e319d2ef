//! One image, whatever is loaded, and what it says of itself; tensor maps.

use vgpu_api::wire::to_vec;
use vgpu_api::*;

use super::{DEEP_BYTES, FakeDevice};

/// Of the managed variables of one that has some.
const BLOCK_BYTES: u64 = 1000;

/// `fill(u64 dst, u32 value, u32 count)` writes words; `fault()` makes 700 stick.
fn image_info(extra_functions: usize) -> ImageInfo {
    let function = |name: &str, params: &[(u32, u32)]| FunctionInfo {
        name: name.into(),
        params: params.iter().map(|(offset, bytes)| ParamInfo { offset: *offset, bytes: *bytes }).collect(),
        attributes: Attributes { values: vec![1024, 0, 0, 0, 16, 90, 90, 0, 49152, -1, 0, 0, 0, 0, 0, 0] },
    };
    let mut functions = vec![function("fill", &[(0, 8), (8, 4), (12, 4)]), function("fault", &[])];
    functions.extend((0..extra_functions).map(|number| function(&format!("extra_{number:060}"), &[(0, 8)])));
    let globals = vec![GlobalInfo { name: "table".into(), address: DevicePtr(0x7000_0000), bytes: 64 }];
    ImageInfo { functions, globals, ..ImageInfo::default() }
}

#[allow(non_snake_case, reason = "CUDA's names")]
impl FakeDevice {
    pub(super) fn vgpuUpload(
        &mut self,
        _: Call,
        upload: u32,
        total: u64,
        offset: u64,
        bytes: &[u8],
    ) -> CuResult<()> {
        let mut seen = self.seen.lock().unwrap();
        let image = seen.uploads.entry(upload).or_default();
        assert_eq!(
            (image.len() as u64, total >= offset + bytes.len() as u64),
            (offset, true),
            "chunks in order"
        );
        image.extend_from_slice(bytes);
        Ok(())
    }

    pub(super) fn vgpuImageLoad(
        &mut self,
        call: Call,
        image: NewHandle<kind::Image>,
        _: ImageKind,
        upload: u32,
        keep: bool,
        out: Staged,
    ) -> CuResult<u64> {
        self.saw("image load")?;
        // One that says "managed" has managed variables.
        if self.seen.lock().unwrap().uploads[&upload].windows(7).any(|bytes| bytes == b"managed") {
            self.waiting.insert(upload);
            let info = ImageInfo { block_bytes: BLOCK_BYTES, ..ImageInfo::default() };
            return Ok(self.put(out, &info.to_bytes()));
        }
        self.load(call, image, upload, keep, out, Vec::new())
    }

    /// A word, and a table behind it.
    pub(super) fn vgpuImageLoadManaged(
        &mut self,
        call: Call,
        image: NewHandle<kind::Image>,
        _: ImageKind,
        ManagedImage { upload, keep, block }: ManagedImage,
        out: Staged,
    ) -> CuResult<u64> {
        self.saw("image load managed")?;
        assert!(self.waiting.remove(&upload), "it was told how long its block is to be");
        assert_eq!(block.0 % image::MANAGED_ALIGN, 0);
        let part = self.parts.range(..=block.0).next_back().map(|(start, bytes)| start + bytes);
        assert!(part.is_some_and(|end| block.0 + BLOCK_BYTES <= end), "in a part that was added");
        let offset = usize::try_from(block.0 - idm::arena::WINDOW as u64).unwrap();
        self.arena.write(offset, &40_u32.to_le_bytes());
        let one = |name: &str, offset: u64, bytes| GlobalInfo {
            name: name.into(),
            address: DevicePtr(block.0 + offset),
            bytes,
        };
        let managed = vec![one("counter", 0, 4), one("numbers", 16, BLOCK_BYTES - 16)];
        self.load(call, image, upload, keep, out, managed)
    }

    fn load(
        &mut self,
        call: Call,
        image_handle: NewHandle<kind::Image>,
        upload: u32,
        keep: bool,
        out: Staged,
        managed: Vec<GlobalInfo>,
    ) -> CuResult<u64> {
        let image = self.seen.lock().unwrap().uploads[&upload].clone();
        if image.starts_with(b".broken") {
            return Err(CuError::INVALID_PTX);
        }
        self.occupy(call, "image", image_handle.0)?;
        // An image that says "many" has so many functions that the reply needs several pieces.
        let many = if image.windows(4).any(|word| word == b"many") { 40_000 } else { 0 };
        let mut info = image_info(many);
        let says = |word: &str| image.windows(word.len()).any(|bytes| bytes == word.as_bytes());
        if says("deep") {
            info.functions.iter_mut().for_each(|function| function.attributes.values[3] = DEEP_BYTES);
            self.deep.insert(image_handle.0.raw());
        }
        // One that says "lazy" has functions whose attributes are to be asked for, one that says "constant" no variable.
        if says("lazy") {
            info.functions.iter_mut().for_each(|function| function.attributes = Attributes::default());
        }
        if says("constant") {
            info.globals.clear();
        }
        info.managed = managed;
        self.info = info.to_bytes();
        if keep {
            self.kept.insert(upload);
        }
        let info = self.info.clone();
        Ok(self.put(out, &info))
    }

    pub(super) fn vgpuImageLoadAgain(
        &mut self,
        call: Call,
        image: NewHandle<kind::Image>,
        _: ImageKind,
        upload: u32,
    ) -> CuResult<()> {
        self.saw("image load again")?;
        assert!(self.kept.contains(&upload), "never kept, or let go of");
        self.occupy(call, "image", image.0)
    }

    pub(super) fn vgpuUploadForget(&mut self, _: Call, upload: u32) -> CuResult<()> {
        assert!(self.kept.remove(&upload) || self.waiting.remove(&upload), "kept, or it waits for a block");
        self.saw("upload forget")
    }

    pub(super) fn vgpuImageInfo(
        &mut self,
        _: Call,
        _: ImageHandle,
        offset: u64,
        out: Staged,
    ) -> CuResult<()> {
        let rest = self.info[usize::try_from(offset).unwrap()..].to_vec();
        self.put(out, &rest);
        Ok(())
    }

    /// A megabyte behind where they were loaded, in any other context.
    pub(super) fn vgpuImageVariables(
        &mut self,
        _: Call,
        _: ImageHandle,
        first: u64,
        out: Staged,
    ) -> CuResult<()> {
        self.saw("image variables")?;
        let addresses = image_info(0).globals.into_iter().map(|global| global.address.0 + (1 << 20));
        let bytes: Vec<u8> =
            addresses.skip(usize::try_from(first).unwrap()).flat_map(u64::to_le_bytes).collect();
        self.put(out, &bytes);
        Ok(())
    }

    pub(super) fn vgpuImageLog(&mut self, _: Call, out: Staged) -> CuResult<u64> {
        Ok(self.put(out, b"line 1: no such instruction"))
    }

    pub(super) fn vgpuImageUnload(&mut self, _: Call, image: GoneHandle<kind::Image>) -> CuResult<()> {
        self.places.remove(&("image", image.0.index()));
        for (place, _) in self.named.extract_if(|_, of| *of == image.0) {
            self.places.remove(&place);
        }
        self.saw("image unload")
    }

    pub(super) fn vgpuFunctionAttributes(
        &mut self,
        _: Call,
        function: FunctionHandle,
    ) -> CuResult<Attributes> {
        self.saw("function attributes")?;
        let mut attributes = image_info(0).functions[0].attributes.clone();
        if self.deep.contains(&function.image().raw()) {
            attributes.values[3] = DEEP_BYTES;
        }
        Ok(attributes)
    }

    pub(super) fn cuFuncSetAttribute(&mut self, _: Call, _: FunctionHandle, _: u32, _: i32) -> CuResult<()> {
        self.saw("set attribute")
    }

    /// Says what it was made of, as far as there is room.
    pub(super) fn vgpuTensorMapEncode(&mut self, _: Call, spec: TensorSpec) -> CuResult<TensorMap> {
        self.saw("tensor map")?;
        assert!(spec.is_whole(), "{spec:?}");
        if spec.address == DevicePtr(0) {
            return Err(CuError::INVALID_VALUE);
        }
        let (bytes, mut map) = (to_vec(&spec), [0; 128]);
        let kept = bytes.len().min(128);
        map[..kept].copy_from_slice(&bytes[..kept]);
        Ok(TensorMap(map))
    }

    pub(super) fn cuTensorMapReplaceAddress(
        &mut self,
        _: Call,
        map: TensorMap,
        address: DevicePtr,
    ) -> CuResult<TensorMap> {
        self.saw("tensor map address")?;
        let mut map = map.0;
        map[8..16].copy_from_slice(&address.0.to_le_bytes());
        Ok(TensorMap(map))
    }
}
