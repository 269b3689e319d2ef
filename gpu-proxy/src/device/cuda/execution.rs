//! Launches of the driver, and what fits.

use std::ptr;

use vgpu_api::launch::attribute;
use vgpu_api::{CuError, CuResult, Printed};

use super::table::{Attribute, Config, NULL, Ptr};
use super::{Cuda, host, number, size};
use crate::device::{DeviceLaunch, Execution, HostFunction, Place, Raw};

/// `CU_LAUNCH_PARAM_BUFFER_POINTER` and `…_SIZE`. Source: cuda.h.
pub(super) const PARAM_POINTER: Ptr = ptr::without_provenance_mut(1);
pub(super) const PARAM_SIZE: Ptr = ptr::without_provenance_mut(2);

impl Execution for Cuda {
    fn max_active_blocks(
        &mut self,
        context: Raw,
        function: Raw,
        threads: u32,
        shared: u64,
        flags: u32,
    ) -> CuResult<u32> {
        self.enter(context)?;
        let function = self.images.function(&self.table, function)?;
        let (mut blocks, threads, shared) = (0, number(threads)?, size(shared)?);
        // SAFETY: a live function of ours; the driver writes one number.
        unsafe {
            self.table.cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
                &raw mut blocks,
                function,
                threads,
                shared,
                flags,
            )
        }?;
        Ok(blocks.unsigned_abs())
    }

    fn available_shared(&mut self, context: Raw, function: Raw, blocks: u32, threads: u32) -> CuResult<u64> {
        self.enter(context)?;
        let function = self.images.function(&self.table, function)?;
        let (mut bytes, blocks, threads) = (0, number(blocks)?, number(threads)?);
        // SAFETY: a live function of ours; the driver writes one number.
        unsafe {
            self.table.cuOccupancyAvailableDynamicSMemPerBlock(&raw mut bytes, function, blocks, threads)
        }?;
        Ok(bytes as u64)
    }

    fn max_active_clusters(&mut self, place: Place, launch: &DeviceLaunch<'_>) -> CuResult<u32> {
        let attributes = attributes(launch);
        let config = self.config(place, launch, &attributes)?;
        let function = self.images.function(&self.table, launch.function)?;
        let mut clusters = 0;
        // SAFETY: a live function of ours; `config` and its attributes outlive the call; the driver writes one number.
        unsafe { self.table.cuOccupancyMaxActiveClusters(&raw mut clusters, function, &raw const config) }?;
        Ok(clusters.unsigned_abs())
    }

    fn max_cluster_size(&mut self, place: Place, launch: &DeviceLaunch<'_>) -> CuResult<u32> {
        let attributes = attributes(launch);
        let config = self.config(place, launch, &attributes)?;
        let function = self.images.function(&self.table, launch.function)?;
        let mut blocks = 0;
        // SAFETY: as above.
        unsafe {
            self.table.cuOccupancyMaxPotentialClusterSize(&raw mut blocks, function, &raw const config)
        }?;
        Ok(blocks.unsigned_abs())
    }

    fn launch(&mut self, place: Place, launch: &DeviceLaunch<'_>) -> CuResult<()> {
        let attributes = attributes(launch);
        let config = self.config(place, launch, &attributes)?;
        let function = self.images.function(&self.table, launch.function)?;
        let mut bytes = launch.params.len();
        let mut extra = [
            PARAM_POINTER,
            launch.params.as_ptr().cast_mut().cast(),
            PARAM_SIZE,
            ptr::from_mut(&mut bytes).cast(),
            NULL,
        ];
        let extra = if launch.params.is_empty() { ptr::null_mut() } else { extra.as_mut_ptr() };
        // SAFETY: a live function of ours; `params` covers its layout (the session checked); the driver copies configuration
        // and parameters before it returns and writes neither.
        unsafe { self.table.cuLaunchKernelEx(&raw const config, function, ptr::null_mut(), extra) }
    }

    fn host_function(&mut self, place: Place, after_errors: bool, function: HostFunction) -> CuResult<()> {
        let (stream, data) = (self.stream(place)?, host::give(function));
        // What is refused is left where it is: a driver that tells of an older error may have queued it all the same.
        if after_errors {
            // SAFETY: a live stream of ours, or the default one; the driver calls the function once with what goes with it.
            unsafe { self.table.cuStreamAddCallback(stream, host::run_told, data, 0) }
        } else {
            // SAFETY: as above.
            unsafe { self.table.cuLaunchHostFunc(stream, host::run, data) }
        }
    }

    fn has_printed(&self) -> bool {
        self.output.has_some()
    }

    fn take_printed(&mut self) -> Printed {
        self.output.take()
    }
}

impl Cuda {
    /// The pieces of a launch as the driver takes them.
    fn config(
        &mut self,
        place: Place,
        launch: &DeviceLaunch<'_>,
        attributes: &[Attribute],
    ) -> CuResult<Config> {
        Ok(Config {
            grid: launch.grid,
            block: launch.block,
            shared_bytes: launch.shared_bytes,
            stream: self.stream(place)?,
            attributes: attributes.as_ptr(),
            count: u32::try_from(attributes.len()).map_err(|_| CuError::INVALID_VALUE)?,
        })
    }
}

/// Those that hold neither handle nor address; the session lets no others here but the access window, which it has checked.
fn attributes(launch: &DeviceLaunch<'_>) -> Vec<Attribute> {
    let passes = |id: u32| {
        !matches!(id, attribute::IGNORE | attribute::PROGRAMMATIC_EVENT | attribute::LAUNCH_COMPLETION_EVENT)
    };
    let all = launch.attributes.iter().filter(|each| passes(each.id));
    all.map(|each| Attribute { id: each.id, pad: 0, value: each.value }).collect()
}
