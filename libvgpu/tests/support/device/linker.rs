//! A linker that puts texts behind each other.

use vgpu_api::*;

use super::FakeDevice;

#[allow(non_snake_case, reason = "CUDA's names")]
impl FakeDevice {
    pub(super) fn cuLinkCreate_v2(
        &mut self,
        call: Call,
        linker: NewHandle<kind::Linker>,
        options: Vec<JitOption>,
        info_bytes: u32,
        error_bytes: u32,
    ) -> CuResult<()> {
        assert!(options.iter().all(|each| link::option::travels(each.option)), "{options:?}");
        assert!(info_bytes.max(error_bytes) <= link::LOG_BYTES_MAX);
        self.occupy(call, "linker", linker.0)?;
        self.linked.clear();
        self.saw("link create")
    }

    pub(super) fn cuLinkAddData_v2(
        &mut self,
        _: Call,
        _: LinkerHandle,
        _input: u32,
        upload: u32,
        name: String,
        _: Vec<JitOption>,
    ) -> CuResult<()> {
        self.saw("link add")?;
        let bytes = self.seen.lock().unwrap().uploads.remove(&upload).ok_or(CuError::INVALID_VALUE)?;
        if bytes.windows(6).any(|word| word == b"broken") {
            return Err(CuError::INVALID_PTX);
        }
        self.linked.extend_from_slice(name.as_bytes());
        self.linked.extend_from_slice(&bytes);
        Ok(())
    }

    pub(super) fn cuLinkComplete(&mut self, _: Call, _: LinkerHandle) -> CuResult<u64> {
        self.saw("link complete")?;
        Ok(self.linked.len() as u64)
    }

    pub(super) fn vgpuLinkImage(
        &mut self,
        _: Call,
        _: LinkerHandle,
        offset: u64,
        out: Staged,
    ) -> CuResult<()> {
        let rest = self.linked[usize::try_from(offset).unwrap()..].to_vec();
        self.put(out, &rest);
        Ok(())
    }

    pub(super) fn vgpuLinkLog(
        &mut self,
        _: Call,
        _: LinkerHandle,
        errors: bool,
        out: Staged,
    ) -> CuResult<u64> {
        let log: &[u8] = if errors { b"line 1: no such instruction" } else { b"linked" };
        Ok(self.put(out, log).min(out.len))
    }

    pub(super) fn vgpuLinkTold(&mut self, _: Call, _: LinkerHandle) -> CuResult<LinkTold> {
        Ok(LinkTold { wall_ms: 1.5, threads: 256 })
    }

    pub(super) fn cuLinkDestroy(&mut self, _: Call, linker: GoneHandle<kind::Linker>) -> CuResult<()> {
        self.places.remove(&("linker", linker.0.index()));
        self.saw("link destroy")
    }
}
