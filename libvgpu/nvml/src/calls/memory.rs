//! The grant and what of it is used: the same to the byte as CUDA says.

use crate::abi::{Device, Out, exports};
use crate::result::{NvmlError, NvmlResult};
use crate::session::session;
use crate::structs::{Memory, MemoryV2, version_of};

/// Now: total, used.
fn memory(device: Device) -> NvmlResult<(u64, u64)> {
    let session = session()?;
    let index = session.device(device)?.0;
    let now = session.now()?;
    let device = now.devices.get(index).ok_or(NvmlError::GPU_IS_LOST)?;
    Ok((device.total_bytes, device.used_bytes.min(device.total_bytes)))
}

exports! {
    fn nvmlDeviceGetMemoryInfo(device: Device, place: Out<Memory>) {
        session()?.device(device)?;
        place.wanted()?;
        let (total, used) = memory(device)?;
        place.set(Memory { total, free: total - used, used })
    }

    /// What the driver keeps for itself is outside of every grant.
    fn nvmlDeviceGetMemoryInfo_v2(device: Device, place: Out<MemoryV2>) {
        session()?.device(device)?;
        let version = place.get()?.version;
        if version != version_of::<MemoryV2>(2) {
            return Err(NvmlError::ARGUMENT_VERSION_MISMATCH);
        }
        let (total, used) = memory(device)?;
        place.set(MemoryV2 { version, total, reserved: 0, free: total - used, used })
    }
}
