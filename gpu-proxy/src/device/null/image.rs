//! What the null device finds in an image: kernels and variables of PTX that the software GPU can read, else those that machine code names.

use vgpu_api::image::FUNCTION_ATTRIBUTES;
use vgpu_api::{Attributes, FunctionInfo};

use crate::device::survey::Elf;
use crate::device::{LOCAL_BYTES, soft};

/// Of every kernel: what stands in the way of no launch that an H100 takes. Numbers: `CUfunction_attribute`.
pub(super) fn attributes(local_bytes: i32) -> Attributes {
    let mut values = vec![0; FUNCTION_ATTRIBUTES];
    for (attribute, value) in
        [(0, 1024), (LOCAL_BYTES, local_bytes), (4, 32), (5, 90), (6, 90), (8, 227 << 10), (9, -1)]
    {
        values[attribute] = value;
    }
    Attributes { values }
}

/// Of one image.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) functions: Vec<FunctionInfo>,
    /// Names and sizes in bytes.
    pub(super) variables: Vec<(String, u64)>,
}

impl Found {
    pub(super) fn of(image: &[u8]) -> Self {
        if let Ok(module) = vgpu_soft::Module::load(image) {
            let variables =
                module.globals().iter().map(|global| (global.name.clone(), global.bytes)).collect();
            return Self { functions: soft::function_infos(&module).collect(), variables };
        }
        let mut found = Self::default();
        // What cannot be read has nothing in it.
        let _ = vgpu_soft::each_machine_code(image, vgpu_soft::COMPUTE_CAPABILITY, |code| {
            if let Some(elf) = Elf::parse(code) {
                found.add(&elf);
            }
        });
        found
    }

    fn add(&mut self, elf: &Elf<'_>) {
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        self.functions.extend(elf.kernels().map(|(name, params)| FunctionInfo {
            name: text(name),
            params,
            attributes: attributes(0),
        }));
        self.variables.extend(elf.sized_variables().map(|(name, bytes)| (text(name), bytes)));
    }
}
