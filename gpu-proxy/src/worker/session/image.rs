//! Modules, libraries, kernels: loads, attributes, launches. How their bytes come here: `upload.rs`.

use std::collections::BTreeMap;

use vgpu_api::launch::{LaunchAttributes, attribute};
use vgpu_api::{
    Attributes, Call, ContextId, CuError, CuResult, DevicePtr, FunctionHandle, ImageHandle, ImageInfo,
    ImageKind, Launch, LaunchAttribute, NewHandle, Staged, kind,
};

use super::Session;
use crate::device::{DeviceLaunch, LOCAL_BYTES, LoadedImage, NO_MANAGED_VARIABLES, Raw};
use crate::worker::ranges::Origin;
use crate::worker::staging;

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
        image_kind: ImageKind,
        upload: u32,
        keep: bool,
        out: Staged,
    ) -> CuResult<u64> {
        let bytes = self.image_bytes(upload)?;
        // Before the device makes anything: after that, nothing on the way to the guest fails.
        out.range(self.staging.len()).ok_or(CuError::INVALID_VALUE)?;
        let (mut loaded, info) = self.load(call, image.0, image_kind, &bytes)?;
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
        let (mut loaded, info) = self
            .load(call, image.0, image_kind, &kept.bytes)
            .inspect_err(|_| self.quotas.release(device, code_bytes))?;
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
    ) -> CuResult<(Image, ImageInfo)> {
        let context = match image_kind {
            ImageKind::Module => Some(self.context(call.context)?),
            ImageKind::Library if call.context == ContextId::NONE => None,
            ImageKind::Library => Some(self.context(call.context)?),
        };
        self.images.check_free(handle)?;
        self.image_log.clear();
        let survey = self.device.survey(bytes)?;
        if survey.is_managed {
            self.image_log = NO_MANAGED_VARIABLES.to_owned();
            return Err(CuError::NOT_SUPPORTED);
        }
        let device = self.device_of(call.context);
        let charged_bytes = self.charge(device, survey.variable_bytes)?;
        match self.device.load(context, image_kind, bytes, survey) {
            Ok(loaded) => {
                let owner = (image_kind == ImageKind::Module).then_some(call.context);
                // A library that is loaded in no context is in the first device's primary one.
                let place = context.map_or(ContextId::primary(0), |_| call.context);
                self.counted(owner, (place, device), loaded, charged_bytes)
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
        Ok((image, ImageInfo { functions, globals }))
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

    fn function(&self, handle: FunctionHandle) -> CuResult<Function> {
        let image = self.images.get(handle.image())?;
        image.functions.get(usize::from(handle.ordinal())).copied().ok_or(CuError::INVALID_HANDLE)
    }

    /// A function in the call's context, into which the driver loads what it belongs to as soon as it is asked about.
    fn function_in(&mut self, call: Call, handle: FunctionHandle) -> CuResult<(Raw, Function)> {
        let (context, function) = (self.context(call.context)?, self.function(handle)?);
        self.is_loaded_for(call.context, context, handle.image())?;
        Ok((context, function))
    }

    pub(super) fn function_attributes(
        &mut self,
        call: Call,
        function: FunctionHandle,
    ) -> CuResult<Attributes> {
        let (context, function) = self.function_in(call, function)?;
        self.device.function_attributes(context, function.raw)
    }

    pub(super) fn set_function_attribute(
        &mut self,
        call: Call,
        function: FunctionHandle,
        attribute: u32,
        value: i32,
    ) -> CuResult<()> {
        let (context, function) = self.function_in(call, function)?;
        self.device.set_function_attribute(context, function.raw, attribute, value)
    }

    pub(super) fn max_active_blocks(
        &mut self,
        call: Call,
        function: FunctionHandle,
        threads: u32,
        shared: u64,
        flags: u32,
    ) -> CuResult<u32> {
        let (context, function) = self.function_in(call, function)?;
        self.device.max_active_blocks(context, function.raw, threads, shared, flags)
    }

    pub(super) fn available_shared(
        &mut self,
        call: Call,
        function: FunctionHandle,
        blocks: u32,
        threads: u32,
    ) -> CuResult<u64> {
        let (context, function) = self.function_in(call, function)?;
        self.device.available_shared(context, function.raw, blocks, threads)
    }

    pub(super) fn max_active_clusters(&mut self, call: Call, launch: &Launch<'_>) -> CuResult<u32> {
        let (context, place) = self.place_of(call, launch.shape.stream)?;
        self.is_loaded_for(context, place.context, launch.shape.function.image())?;
        let launch = self.device_launch(launch, false)?;
        self.device.max_active_clusters(place, &launch)
    }

    pub(super) fn max_cluster_size(&mut self, call: Call, launch: &Launch<'_>) -> CuResult<u32> {
        let (context, place) = self.place_of(call, launch.shape.stream)?;
        self.is_loaded_for(context, place.context, launch.shape.function.image())?;
        let launch = self.device_launch(launch, false)?;
        self.device.max_cluster_size(place, &launch)
    }

    pub(super) fn launch(&mut self, call: Call, launch: &Launch<'_>) -> CuResult<()> {
        let (function, stream) = (launch.shape.function, launch.shape.stream);
        let (context, place) = self.place(call, stream)?;
        self.is_loaded_for(context, place.context, function.image())?;
        let launch = self.device_launch(launch, true)?;
        let green = self.green_of(stream);
        self.make_room_for_threads((context, green), place.context, function)?;
        self.wait_for_turn(place);
        let result = self.device.launch(place, &launch);
        self.settle(context, result)
    }

    /// Counts the local memory that a launch makes the context keep, or a green one of it, for as many threads as the device has room for.
    pub(super) fn make_room_for_threads(
        &mut self,
        runs_in: (ContextId, Option<ContextId>),
        context: Raw,
        handle: FunctionHandle,
    ) -> CuResult<()> {
        let threads = self.device.costs().resident_threads;
        if threads == 0 {
            return Ok(());
        }
        let function = self.function(handle)?;
        let needs = match function.local_bytes {
            Some(bytes) => bytes,
            None => {
                let attributes = self.device.function_attributes(context, function.raw)?;
                let bytes = attributes.values.get(LOCAL_BYTES).copied().unwrap_or(0);
                let bytes = u64::try_from(bytes).unwrap_or(0);
                let place = usize::from(handle.ordinal());
                let image = self.images.get_mut(handle.image())?;
                image.functions.get_mut(place).ok_or(CuError::INVALID_HANDLE)?.local_bytes = Some(bytes);
                bytes
            }
        };
        self.make_room(runs_in, needs, threads)
    }

    /// Resolves a launch's names and checks it. The parameter block has to cover the kernel's layout, else the driver would read
    /// past it; addresses inside of it are the GPU's matter.
    pub(super) fn device_launch<'a>(
        &self,
        launch: &Launch<'a>,
        with_params: bool,
    ) -> CuResult<DeviceLaunch<'a>> {
        let shape = &launch.shape;
        let function = self.function(shape.function)?;
        if with_params && (launch.params.len() as u64) < function.param_bytes {
            return Err(CuError::INVALID_VALUE);
        }
        self.check_attributes(launch.attributes)?;
        Ok(DeviceLaunch {
            function: function.raw,
            grid: shape.grid,
            block: shape.block,
            shared_bytes: shape.shared_bytes,
            attributes: launch.attributes,
            params: launch.params,
        })
    }

    /// Lets pass what holds neither a handle nor an unchecked address.
    fn check_attributes(&self, attributes: LaunchAttributes<'_>) -> CuResult<()> {
        attributes.iter().try_for_each(|each| match each.id {
            // Events in attributes: not translated yet, so not passed on.
            attribute::PROGRAMMATIC_EVENT | attribute::LAUNCH_COMPLETION_EVENT => Err(CuError::NOT_SUPPORTED),
            attribute::ACCESS_POLICY_WINDOW => self.check_window(&each),
            id if attribute::travels(id) => Ok(()),
            _ => Err(CuError::INVALID_VALUE),
        })
    }

    /// That a window's addresses are the process's.
    pub(super) fn check_window(&self, window: &LaunchAttribute) -> CuResult<()> {
        let word = |place| u64::from(window.word(place).unwrap_or(0));
        self.ranges.check(DevicePtr(word(0) | word(4) << 32), word(8) | word(12) << 32)
    }
}
