//! Several devices of the driver beside each other.

use std::ffi::c_int;

use vgpu_api::{CuError, CuResult};

use super::{Cuda, Place, Raw, size};

impl Cuda {
    /// The driver's name of the first device.
    pub(super) fn first(&self) -> c_int {
        self.devices.first().copied().unwrap_or(0)
    }

    /// Where the first device's context is all that matters.
    pub(super) fn first_primary(&self) -> CuResult<Raw> {
        self.primaries.first().copied().ok_or(CuError::INVALID_CONTEXT)
    }

    /// Our number of a context's device.
    pub(super) fn number_of(&self, context: Raw) -> CuResult<u32> {
        let primary = self.primaries.iter().position(|primary| *primary == context);
        let primary = primary.and_then(|number| u32::try_from(number).ok());
        primary.or_else(|| self.created.get(&context).copied()).ok_or(CuError::INVALID_CONTEXT)
    }

    /// The driver's name of a context's device.
    pub(super) fn device_of(&self, context: Raw) -> CuResult<c_int> {
        let number = self.number_of(context)?;
        self.devices.get(number as usize).copied().ok_or(CuError::INVALID_CONTEXT)
    }

    /// By way of the host where the devices do not reach each other; the driver knows. Memory of pools and mapped memory is often one device's
    /// alone, so it is told whose each end is.
    pub(super) fn copy_to_peer(
        &mut self,
        place: Place,
        (to, to_device): (u64, u32),
        (from, from_device): (u64, u32),
        bytes: u64,
    ) -> CuResult<()> {
        let (stream, bytes) = (self.stream(place)?, size(bytes)?);
        let context = |device: u32| {
            let primary = self.primaries.get(device as usize).ok_or(CuError::INVALID_DEVICE)?;
            self.contexts.get(*primary)
        };
        let (to_context, from_context) = (context(to_device)?, context(from_device)?);
        // SAFETY: both ranges are the process's, the contexts and the stream live ones of ours.
        unsafe { self.table.cuMemcpyPeerAsync(to, to_context, from, from_context, bytes, stream) }
    }
}
