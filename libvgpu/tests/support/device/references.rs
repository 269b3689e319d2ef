//! Texture and surface references: every module has a texture `picture` and a surface `canvas`; what is set is written down.

use vgpu_api::texture::Resource;
use vgpu_api::*;

use super::FakeDevice;

impl FakeDevice {
    fn told(&mut self, name: &'static str, what: String) -> CuResult<()> {
        self.saw(name)?;
        self.seen.lock().unwrap().references.push(what);
        Ok(())
    }
}

#[allow(non_snake_case, reason = "CUDA's names")]
impl FakeDevice {
    pub(super) fn cuModuleGetTexRef(
        &mut self,
        call: Call,
        texref: NewHandle<kind::TexRef>,
        image: ImageHandle,
        symbol: String,
    ) -> CuResult<()> {
        self.told("texref of", format!("{image:?}"))?;
        if symbol != "picture" {
            return Err(CuError::NOT_FOUND);
        }
        self.named.insert(("texref", texref.0.index()), image);
        self.occupy(call, "texref", texref.0)
    }

    pub(super) fn cuModuleGetSurfRef(
        &mut self,
        call: Call,
        surfref: NewHandle<kind::SurfRef>,
        image: ImageHandle,
        symbol: String,
    ) -> CuResult<()> {
        self.told("surfref of", format!("{image:?}"))?;
        if symbol != "canvas" {
            return Err(CuError::NOT_FOUND);
        }
        self.named.insert(("surfref", surfref.0.index()), image);
        self.occupy(call, "surfref", surfref.0)
    }

    pub(super) fn cuTexRefCreate(&mut self, call: Call, texref: NewHandle<kind::TexRef>) -> CuResult<()> {
        self.saw("texref create")?;
        self.occupy(call, "texref", texref.0)
    }

    pub(super) fn cuTexRefDestroy(&mut self, _: Call, texref: GoneHandle<kind::TexRef>) -> CuResult<()> {
        self.places.remove(&("texref", texref.0.index()));
        self.saw("texref destroy")
    }

    pub(super) fn vgpuTexRefBind(
        &mut self,
        _: Call,
        texref: TexRefHandle,
        resource: Resource,
        told: bool,
    ) -> CuResult<u64> {
        self.told("texref bind", format!("{texref:?} {resource:?}"))?;
        let before = if let Resource::Linear(row) = resource { row.at.0 % 32 } else { 0 };
        if told || before == 0 { Ok(before) } else { Err(CuError::INVALID_VALUE) }
    }

    pub(super) fn vgpuTexRefUnbind(&mut self, _: Call, texref: TexRefHandle) -> CuResult<()> {
        self.told("texref unbind", format!("{texref:?}"))
    }

    pub(super) fn cuTexRefSetFormat(
        &mut self,
        _: Call,
        texref: TexRefHandle,
        format: u32,
        channels: u32,
    ) -> CuResult<()> {
        self.told("texref format", format!("{texref:?} {format} {channels}"))
    }

    pub(super) fn vgpuTexRefSet(
        &mut self,
        _: Call,
        texref: TexRefHandle,
        SamplerSetting { field, words }: SamplerSetting,
    ) -> CuResult<()> {
        self.told("texref set", format!("{texref:?} {field:?} {words:?}"))
    }

    pub(super) fn cuSurfRefSetArray(
        &mut self,
        _: Call,
        surfref: SurfRefHandle,
        array: ArrayHandle,
    ) -> CuResult<()> {
        self.told("surfref bind", format!("{surfref:?} {array:?}"))
    }
}
