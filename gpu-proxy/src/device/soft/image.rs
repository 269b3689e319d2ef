//! Images of the software GPU: PTX.

use std::collections::BTreeMap;

use vgpu_api::{Attributes, CuError, CuResult, DevicePtr, FunctionInfo, GlobalInfo, ImageKind, ParamInfo};
use vgpu_soft as gpu;

use super::{Soft, error};
use crate::device::{Images, LoadError, LoadedImage, Raw, Survey};

#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) module: gpu::Module,
    /// Of a module one.
    pub(super) instances: BTreeMap<Home, gpu::Instance>,
    pub(super) kind: ImageKind,
    /// `CUfunction_attribute` 8 of each function: dynamic shared memory it may have.
    pub(super) shared_max: Vec<u32>,
}

/// Where an image has its variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Home {
    /// The primary context of a device, whenever there is one.
    Primary(u32),
    /// A context that was created, by its name.
    Created(u64),
}

impl Images for Soft {
    /// Its variables are counted when they are made: only managed ones are looked for. What cannot be loaded says so later.
    fn survey(&self, bytes: &[u8]) -> CuResult<Survey> {
        let has_some = |text: &str| gpu::managed_variables(text).map_or(true, |found| !found.is_empty());
        let is_managed = matches!(self.chosen(bytes), Ok(gpu::Chosen::Ptx(text)) if text.contains(".managed") && has_some(&text));
        Ok(Survey { is_managed, ..Survey::default() })
    }

    fn chosen(&self, image: &[u8]) -> Result<gpu::Chosen, LoadError> {
        Ok(gpu::chosen(image, gpu::COMPUTE_CAPABILITY, false)?)
    }

    fn load(
        &mut self,
        context: Option<Raw>,
        kind: ImageKind,
        bytes: &[u8],
        _survey: Survey,
    ) -> Result<LoadedImage, LoadError> {
        let module = gpu::Module::load(bytes)?;
        let home = context.map_or(Ok((Home::Primary(0), 0)), |context| self.home(context));
        let (home, device) = home.map_err(|code| LoadError { code, log: String::new() })?;
        let instance = self
            .gpu
            .instantiate_on(device, &module)
            .map_err(|refused| LoadError { code: error(refused.cu_result()), log: refused.to_string() })?;
        let raw = self.name();
        let functions = function_infos(&module)
            .zip(0..=0xffff)
            .map(|(info, place)| (info, Raw(raw.0 | place)))
            .collect::<Vec<_>>();
        let globals = module
            .globals()
            .iter()
            .zip(instance.addresses())
            .map(|(global, address)| GlobalInfo {
                name: global.name.clone(),
                address: DevicePtr(*address),
                bytes: global.bytes,
            })
            .collect();
        let shared_max = vec![gpu::SHARED_BYTES; functions.len()];
        let instances = BTreeMap::from([(home, instance)]);
        self.images.insert(raw, Loaded { module, instances, kind, shared_max });
        Ok(LoadedImage { raw, functions, globals })
    }

    fn load_on(&mut self, context: Raw, image: Raw) -> CuResult<Vec<u64>> {
        self.instantiate_in(context, image)
    }

    fn unload(&mut self, image: Raw) -> CuResult<()> {
        let loaded = self.images.remove(&image).ok_or(CuError::INVALID_HANDLE)?;
        loaded.instances.values().for_each(|instance| self.gpu.unload(instance));
        Ok(())
    }

    fn function_attributes(&mut self, _context: Raw, function: Raw) -> CuResult<Attributes> {
        self.info(function).map(|(info, shared_max)| attributes(info, shared_max))
    }

    fn set_function_attribute(
        &mut self,
        _context: Raw,
        function: Raw,
        attribute: u32,
        value: i32,
    ) -> CuResult<()> {
        let fixed_bytes = self.info(function)?.0.static_shared_bytes;
        if attribute != 8 {
            // Carve-out and cluster shapes are hints to hardware that is not here.
            return if matches!(attribute, 9 | 11..=15) { Ok(()) } else { Err(CuError::INVALID_VALUE) };
        }
        let bytes = u32::try_from(value).map_err(|_| CuError::INVALID_VALUE)?.saturating_add(fixed_bytes);
        let place = (function.0 & 0xffff) as usize;
        let loaded = self.images.get_mut(&Raw(function.0 & !0xffff)).ok_or(CuError::INVALID_HANDLE)?;
        if bytes > gpu::SHARED_BYTES_OPT_IN {
            return Err(CuError::INVALID_VALUE);
        }
        loaded.shared_max[place] = bytes;
        Ok(())
    }
}

impl Soft {
    /// A function's name is its image's and its place in it.
    pub(super) fn function(&self, function: Raw) -> CuResult<(&Loaded, usize)> {
        let place = (function.0 & 0xffff) as usize;
        let loaded = self.images.get(&Raw(function.0 & !0xffff)).ok_or(CuError::INVALID_HANDLE)?;
        if place < loaded.shared_max.len() { Ok((loaded, place)) } else { Err(CuError::INVALID_HANDLE) }
    }

    pub(super) fn info(&self, function: Raw) -> CuResult<(&gpu::FunctionInfo, u32)> {
        let (loaded, place) = self.function(function)?;
        let info = loaded.module.functions().get(place).ok_or(CuError::INVALID_HANDLE)?;
        Ok((info, loaded.shared_max[place]))
    }
}

/// What the guest is told of a module's kernels.
pub(crate) fn function_infos(module: &gpu::Module) -> impl Iterator<Item = FunctionInfo> + '_ {
    module.functions().iter().map(|function| FunctionInfo {
        name: function.name.clone(),
        params: function
            .parameters
            .iter()
            .map(|parameter| ParamInfo { offset: parameter.offset, bytes: parameter.size })
            .collect(),
        attributes: attributes(function, gpu::SHARED_BYTES),
    })
}

/// `CUfunction_attribute` 0 to 15.
fn attributes(info: &gpu::FunctionInfo, shared_max: u32) -> Attributes {
    let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let version = number(gpu::COMPUTE_CAPABILITY.0 * 10 + gpu::COMPUTE_CAPABILITY.1);
    let mut values = vec![0; vgpu_api::image::FUNCTION_ATTRIBUTES];
    values[0] = number(info.max_threads);
    values[1] = number(info.static_shared_bytes);
    values[3] = number(info.local_bytes);
    values[4] = number(info.registers);
    values[5] = version;
    values[6] = version;
    values[8] = number(shared_max.saturating_sub(info.static_shared_bytes));
    values[9] = -1;
    Attributes { values }
}
