//! Modules, libraries, kernels: loads and their variables. How their bytes come here: `upload.rs`; launches: `image/functions.rs`.

mod functions;
mod managed;

use std::collections::BTreeMap;

use vgpu_api::{
    Call, ContextId, CuError, CuResult, DevicePtr, ImageHandle, ImageInfo, ImageKind, NewHandle, Staged, kind,
};

use self::managed::Prepared;
use super::Session;
use crate::device::{LoadedImage, Raw};
use crate::worker::ranges::Origin;
use crate::worker::staging;

/// What is to be loaded, and how.
pub(super) struct Load {
    pub(super) image_kind: ImageKind,
    pub(super) upload: u32,
    pub(super) keep: bool,
    /// Where its managed variables shall lie.
    pub(super) block: Option<DevicePtr>,
}

/// What came of a load.
enum Loaded {
    All(Image, ImageInfo),
    /// Nothing: a block of so many bytes is needed.
    Wants(u64),
}

/// A loaded image.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) raw: Raw,
    /// Modules end with their context; libraries are the process's.
    pub(super) context: Option<ContextId>,
    functions: Vec<Function>,
    /// Lengths of its variables.
    globals: Vec<u64>,
    /// What counts for it in each context.
    charged_bytes: u64,
    /// Of a module in its context; of a library in that which it was loaded in, and in others from its first use there on.
    places: BTreeMap<ContextId, Variables>,
    /// The whole load reply, kept when the guest's room for it was too small.
    info: Vec<u8>,
}

/// An image's variables in one context.
#[derive(Debug)]
struct Variables {
    device: u32,
    addresses: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Function {
    raw: Raw,
    param_bytes: u64,
    /// Local memory of a thread; known after its first launch.
    local_bytes: Option<u64>,
}

impl Session {
    pub(super) fn image_load(
        &mut self,
        call: Call,
        image: NewHandle<kind::Image>,
        load: Load,
        out: Staged,
    ) -> CuResult<u64> {
        let Load { image_kind, upload, keep, block } = load;
        let bytes = self.image_bytes(upload)?;
        // Before the device makes anything: after that, nothing on the way to the guest fails.
        out.range(self.staging.len()).ok_or(CuError::INVALID_VALUE)?;
        let (mut loaded, info) = match self.load(call, image.0, image_kind, &bytes, block)? {
            Loaded::All(loaded, info) => (loaded, info),
            Loaded::Wants(block_bytes) => {
                self.uploads.put_back(upload, bytes);
                let info_bytes = ImageInfo { block_bytes, ..ImageInfo::default() }.to_bytes();
                staging::put(&*self.staging, out, &info_bytes)?;
                return Ok(info_bytes.len() as u64);
            }
        };
        let info_bytes = info.to_bytes();
        let length = info_bytes.len() as u64;
        staging::put(&*self.staging, out, &info_bytes)?;
        if length > out.len {
            loaded.info = info_bytes;
        }
        if keep {
            self.uploads.keep(upload, bytes, info);
        }
        self.images.insert(image.0, loaded)?;
        Ok(length)
    }

    /// The guest goes by what the first load told it: what differs from that is not kept.
    pub(super) fn image_load_again(
        &mut self,
        call: Call,
        image: NewHandle<kind::Image>,
        image_kind: ImageKind,
        upload: u32,
    ) -> CuResult<()> {
        let kept = self.uploads.kept(upload)?;
        // It costs the guest a few bytes, and the device perhaps a copy of the code: so that counts here.
        let device = self.device_of(call.context);
        let code_bytes = self.charge(device, kept.bytes.len() as u64)?;
        let (mut loaded, info) = match self.load(call, image.0, image_kind, &kept.bytes, None) {
            Ok(Loaded::All(loaded, info)) => (loaded, info),
            refused => {
                self.quotas.release(device, code_bytes);
                return Err(refused.err().unwrap_or(CuError::INVALID_VALUE));
            }
        };
        loaded.charged_bytes += code_bytes;
        if !kept.is_of(info) {
            self.end_image(loaded);
            return Err(CuError::UNKNOWN);
        }
        self.images.insert(image.0, loaded)
    }

    /// Loads an image and counts its variables: what the device told of them, if more than was counted for them before it was loaded.
    fn load(
        &mut self,
        call: Call,
        handle: ImageHandle,
        image_kind: ImageKind,
        bytes: &[u8],
        block: Option<DevicePtr>,
    ) -> CuResult<Loaded> {
        let context = match image_kind {
            ImageKind::Module => Some(self.context(call.context)?),
            ImageKind::Library if call.context == ContextId::NONE => None,
            ImageKind::Library => Some(self.context(call.context)?),
        };
        self.images.check_free(handle)?;
        self.image_log.clear();
        let Prepared { image: bytes, survey, managed } = match self.prepared(bytes, block)? {
            Ok(prepared) => prepared,
            Err(block_bytes) => return Ok(Loaded::Wants(block_bytes)),
        };
        let device = self.device_of(call.context);
        let charged_bytes = self.charge(device, survey.variable_bytes)?;
        match self.device.load(context, image_kind, &bytes, survey) {
            Ok(loaded) => {
                let owner = (image_kind == ImageKind::Module).then_some(call.context);
                // A library that is loaded in no context is in the first device's primary one.
                let place = context.map_or(ContextId::primary(0), |_| call.context);
                let (image, mut info) = self.counted(owner, (place, device), loaded, charged_bytes)?;
                info.managed = managed;
                Ok(Loaded::All(image, info))
            }
            Err(refused) => {
                self.quotas.release(device, charged_bytes);
                self.image_log = refused.log;
                self.settle(call.context, Err(refused.code))
            }
        }
    }

    fn counted(
        &mut self,
        context: Option<ContextId>,
        (place, device): (ContextId, u32),
        loaded: LoadedImage,
        mut charged_bytes: u64,
    ) -> CuResult<(Image, ImageInfo)> {
        let LoadedImage { raw, functions, globals } = loaded;
        let granule = self.device.granule_bytes();
        let of_globals = globals.iter().try_fold(0_u64, |sum, global| {
            sum.checked_add(global.bytes.max(1).checked_next_multiple_of(granule)?)
        });
        let more = of_globals.map(|bytes| bytes.saturating_sub(charged_bytes)).ok_or(CuError::OUT_OF_MEMORY);
        match more.and_then(|more| self.quotas.charge(device, more).map(|()| more)) {
            Ok(more) => charged_bytes += more,
            Err(error) => {
                self.quotas.release(device, charged_bytes);
                let _ = self.device.unload(raw);
                return Err(error);
            }
        }
        for global in &globals {
            self.ranges.insert(global.address.0, global.bytes, 0, Origin::Global(device));
        }
        let functions_here = functions
            .iter()
            .map(|(info, raw)| Function { raw: *raw, param_bytes: info.param_bytes(), local_bytes: None })
            .collect();
        let addresses = globals.iter().map(|global| global.address.0).collect();
        let functions = functions.into_iter().map(|(info, _)| info).collect();
        let image = Image {
            raw,
            context,
            functions: functions_here,
            globals: globals.iter().map(|global| global.bytes).collect(),
            charged_bytes,
            places: BTreeMap::from([(place, Variables { device, addresses })]),
            info: Vec::new(),
        };
        Ok((image, ImageInfo { functions, globals, ..ImageInfo::default() }))
    }

    pub(super) fn image_info(&mut self, image: ImageHandle, offset: u64, out: Staged) -> CuResult<()> {
        let info = &self.images.get(image)?.info;
        let rest = usize::try_from(offset).ok().and_then(|offset| info.get(offset..));
        staging::put(&*self.staging, out, rest.ok_or(CuError::INVALID_VALUE)?)
    }

    pub(super) fn image_log(&mut self, out: Staged) -> CuResult<u64> {
        staging::put(&*self.staging, out, self.image_log.as_bytes())?;
        Ok(out.len.min(self.image_log.len() as u64))
    }

    pub(super) fn image_unload(&mut self, handle: ImageHandle) -> CuResult<()> {
        let image = self.images.remove(handle)?;
        image.context.into_iter().for_each(|owner| self.end_references_in(handle, owner));
        self.end_image(image);
        self.end_kept();
        Ok(())
    }

    pub(super) fn end_image(&mut self, image: Image) {
        self.graphs.something_ended();
        let _ = self.device.unload(image.raw);
        for variables in image.places.into_values() {
            self.end_variables(variables, image.charged_bytes);
        }
    }

    fn end_variables(&mut self, Variables { device, addresses }: Variables, charged_bytes: u64) {
        for address in addresses {
            self.ranges.remove(address);
        }
        self.quotas.release(device, charged_bytes);
    }

    /// A context that `cuCtxCreate` made has ended, and with it what libraries had there.
    pub(super) fn end_libraries_in(&mut self, id: ContextId) {
        let in_it = self.images.iter_mut();
        let in_it = in_it.filter_map(|image| Some((image.places.remove(&id)?, image.charged_bytes)));
        for (variables, charged_bytes) in in_it.collect::<Vec<_>>() {
            self.end_variables(variables, charged_bytes);
        }
    }

    /// That an image can be used in a context: a library is in another one than it was loaded in from its first use there on, and its
    /// variables, which each context has of its own, count from then on.
    pub(super) fn is_loaded_for(&mut self, id: ContextId, context: Raw, handle: ImageHandle) -> CuResult<()> {
        let image = self.images.get(handle)?;
        if image.context.is_some() || image.places.contains_key(&id) {
            return Ok(());
        }
        let (raw, sizes, charged_bytes) = (image.raw, image.globals.clone(), image.charged_bytes);
        let device = self.device_of(id);
        self.quotas.charge(device, charged_bytes)?;
        let loaded = self.device.load_on(context, raw).and_then(|addresses| {
            if addresses.len() == sizes.len() { Ok(addresses) } else { Err(CuError::UNKNOWN) }
        });
        let addresses = loaded.inspect_err(|_| self.quotas.release(device, charged_bytes));
        let addresses = self.settle(id, addresses)?;
        for (address, bytes) in addresses.iter().zip(sizes) {
            self.ranges.insert(*address, bytes, 0, Origin::Global(device));
        }
        self.images.get_mut(handle)?.places.insert(id, Variables { device, addresses });
        Ok(())
    }

    pub(super) fn image_variables(
        &mut self,
        call: Call,
        handle: ImageHandle,
        first: u64,
        out: Staged,
    ) -> CuResult<()> {
        let context = self.context(call.context)?;
        self.is_loaded_for(call.context, context, handle)?;
        let variables = self.images.get(handle)?.places.get(&call.context).ok_or(CuError::INVALID_HANDLE)?;
        let rest = usize::try_from(first).ok().and_then(|first| variables.addresses.get(first..));
        let bytes: Vec<u8> =
            rest.ok_or(CuError::INVALID_VALUE)?.iter().flat_map(|address| address.to_le_bytes()).collect();
        staging::put(&*self.staging, out, &bytes)
    }
}
