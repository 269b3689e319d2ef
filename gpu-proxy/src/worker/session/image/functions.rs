//! Functions of images: what is asked of them, and launches.

use vgpu_api::launch::{LaunchAttributes, attribute};
use vgpu_api::{
    Attributes, Call, ContextId, CuError, CuResult, DevicePtr, FunctionHandle, Launch, LaunchAttribute,
};

use super::super::Session;
use super::Function;
use crate::device::{DeviceLaunch, LOCAL_BYTES, Place, Raw};

impl Session {
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

    pub(in crate::worker::session) fn function_attributes(
        &mut self,
        call: Call,
        function: FunctionHandle,
    ) -> CuResult<Attributes> {
        let (context, function) = self.function_in(call, function)?;
        self.device.function_attributes(context, function.raw)
    }

    pub(in crate::worker::session) fn set_function_attribute(
        &mut self,
        call: Call,
        function: FunctionHandle,
        attribute: u32,
        value: i32,
    ) -> CuResult<()> {
        let (context, function) = self.function_in(call, function)?;
        self.device.set_function_attribute(context, function.raw, attribute, value)
    }

    pub(in crate::worker::session) fn max_active_blocks(
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

    pub(in crate::worker::session) fn available_shared(
        &mut self,
        call: Call,
        function: FunctionHandle,
        blocks: u32,
        threads: u32,
    ) -> CuResult<u64> {
        let (context, function) = self.function_in(call, function)?;
        self.device.available_shared(context, function.raw, blocks, threads)
    }

    pub(in crate::worker::session) fn max_active_clusters(
        &mut self,
        call: Call,
        launch: &Launch<'_>,
    ) -> CuResult<u32> {
        let (place, launch) = self.shaped(call, launch)?;
        self.device.max_active_clusters(place, &launch)
    }

    pub(in crate::worker::session) fn max_cluster_size(
        &mut self,
        call: Call,
        launch: &Launch<'_>,
    ) -> CuResult<u32> {
        let (place, launch) = self.shaped(call, launch)?;
        self.device.max_cluster_size(place, &launch)
    }

    /// A launch that is asked about, without parameters, and where it would go.
    fn shaped<'a>(&mut self, call: Call, launch: &Launch<'a>) -> CuResult<(Place, DeviceLaunch<'a>)> {
        let (context, place) = self.place_of(call, launch.shape.stream)?;
        self.is_loaded_for(context, place.context, launch.shape.function.image())?;
        Ok((place, self.device_launch(launch, false)?))
    }

    pub(in crate::worker::session) fn launch(&mut self, call: Call, launch: &Launch<'_>) -> CuResult<()> {
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
    pub(in crate::worker::session) fn make_room_for_threads(
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
    pub(in crate::worker::session) fn device_launch<'a>(
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
    pub(in crate::worker::session) fn check_window(&self, window: &LaunchAttribute) -> CuResult<()> {
        let word = |place| u64::from(window.word(place).unwrap_or(0));
        self.ranges.check(DevicePtr(word(0) | word(4) << 32), word(8) | word(12) << 32)
    }
}
