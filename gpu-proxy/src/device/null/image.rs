//! What the null device finds in an image: kernels and variables of PTX that the software GPU can read, else those that machine code names.

use vgpu_api::image::FUNCTION_ATTRIBUTES;
use vgpu_api::{Attributes, CuError, CuResult, DevicePtr, FunctionInfo, GlobalInfo, ImageKind};

use super::Null;
use crate::device::survey::Elf;
use crate::device::{Images, LOCAL_BYTES, LoadError, LoadedImage, Raw, Survey, soft};

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
    pub(super) references: Vec<vgpu_soft::ReferenceInfo>,
}

impl Found {
    pub(super) fn of(image: &[u8]) -> Self {
        if let Ok(module) = vgpu_soft::Module::load(image) {
            let variables =
                module.globals().iter().map(|global| (global.name.clone(), global.bytes)).collect();
            let functions = soft::function_infos(&module).collect();
            return Self { functions, variables, references: module.references().to_vec() };
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

impl Images for Null {
    fn survey(&self, bytes: &[u8]) -> CuResult<Survey> {
        Survey::of(bytes, vgpu_soft::COMPUTE_CAPABILITY)
    }

    fn chosen(&self, image: &[u8]) -> Result<vgpu_soft::Chosen, LoadError> {
        Ok(vgpu_soft::chosen(image, vgpu_soft::COMPUTE_CAPABILITY, true)?)
    }

    fn load(
        &mut self,
        _context: Option<Raw>,
        _kind: ImageKind,
        bytes: &[u8],
        survey: Survey,
    ) -> Result<LoadedImage, LoadError> {
        let raw = self.name();
        let Found { functions, mut variables, references } = Found::of(bytes);
        // They are in order there. What was managed is left in machine code, and nobody's.
        let is_known =
            |name: &str| survey.variables.binary_search_by(|one| one.as_bytes().cmp(name.as_bytes())).is_ok();
        variables.retain(|(name, _)| is_known(name));
        self.references.insert(raw, references);
        let functions = functions.into_iter().zip(0..=0xffff);
        self.variables.insert(raw, variables.iter().map(|(_, bytes)| *bytes).collect());
        let mut globals = Vec::with_capacity(variables.len());
        for (name, bytes) in variables {
            let address =
                self.take_addresses(bytes).map_err(|code| LoadError { code, log: String::new() })?;
            globals.push(GlobalInfo { name, address: DevicePtr(address), bytes });
        }
        Ok(LoadedImage {
            raw,
            functions: functions.map(|(info, place)| (info, Raw(raw.0 | place))).collect(),
            globals,
        })
    }

    fn load_on(&mut self, _context: Raw, image: Raw) -> CuResult<Vec<u64>> {
        let sizes = self.variables.get(&image).cloned().ok_or(CuError::INVALID_HANDLE)?;
        sizes.into_iter().map(|bytes| self.take_addresses(bytes)).collect()
    }

    fn unload(&mut self, image: Raw) -> CuResult<()> {
        self.variables.remove(&image);
        self.references.remove(&image);
        Ok(())
    }

    fn function_attributes(&mut self, _context: Raw, _function: Raw) -> CuResult<Attributes> {
        Ok(attributes(self.local_bytes))
    }

    fn set_function_attribute(&mut self, _: Raw, _: Raw, _attribute: u32, _value: i32) -> CuResult<()> {
        Ok(())
    }
}
