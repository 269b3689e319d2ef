//! A linker that has nothing to link with: one PTX text goes through as it is. For devices that take PTX where others take machine code.

use std::collections::HashMap;

use vgpu_api::link::INPUT_PTX;
use vgpu_api::{CuError, CuResult};

use super::Raw;

/// Linkers by name.
#[derive(Debug, Default)]
pub(super) struct PassThrough {
    linkers: HashMap<Raw, Linker>,
}

#[derive(Debug, Default)]
struct Linker {
    text: Option<Vec<u8>>,
    error_log: String,
}

impl PassThrough {
    pub(super) fn create(&mut self, name: Raw) -> Raw {
        self.linkers.insert(name, Linker::default());
        name
    }

    /// Takes PTX that `check` finds good; it says else what is wrong.
    pub(super) fn add(
        &mut self,
        name: Raw,
        input: u32,
        bytes: &[u8],
        check: impl FnOnce(&[u8]) -> Result<(), (CuError, String)>,
    ) -> CuResult<()> {
        let linker = self.linkers.get_mut(&name).ok_or(CuError::INVALID_HANDLE)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        let text = &bytes[..end];
        let good = if input != INPUT_PTX {
            Err((CuError::NO_BINARY_FOR_GPU, "this device has no machine code".into()))
        } else if linker.text.is_some() {
            Err((CuError::NOT_SUPPORTED, "this device links one PTX text".into()))
        } else {
            check(text)
        };
        match good {
            Ok(()) => linker.text = Some(text.to_vec()),
            Err((code, log)) => {
                linker.error_log = log;
                return Err(code);
            }
        }
        Ok(())
    }

    pub(super) fn complete(&self, name: Raw) -> CuResult<Vec<u8>> {
        let linker = self.linkers.get(&name).ok_or(CuError::INVALID_HANDLE)?;
        linker.text.clone().ok_or(CuError::INVALID_VALUE)
    }

    pub(super) fn log(&self, name: Raw, errors: bool) -> CuResult<Vec<u8>> {
        let linker = self.linkers.get(&name).ok_or(CuError::INVALID_HANDLE)?;
        Ok(if errors { linker.error_log.clone().into_bytes() } else { Vec::new() })
    }

    pub(super) fn destroy(&mut self, name: Raw) -> CuResult<()> {
        self.linkers.remove(&name).map(drop).ok_or(CuError::INVALID_HANDLE)
    }
}
