//! Device memory. Addresses come from the worker; what belongs to whom is answered here. Managed memory ends here, too.

use vgpu_api::{CuError, CuResult, DevicePtr, ask};

use super::host_memory::{give_managed, is_managed, mapped};
use crate::abi::{Out, export};
use crate::core::contexts::{Entered, enter, enter_to_end};
use crate::core::process::process;
use crate::core::ranges::{GLOBAL, MAPPED, OPENED, Range};

/// Rows of a pitched allocation start at multiples of this many bytes, as on NVIDIA's devices.
const PITCH_BYTES: usize = 512;

fn alloc(entered: Entered, bytes: usize) -> CuResult<DevicePtr> {
    if bytes == 0 {
        return Err(CuError::INVALID_VALUE);
    }
    entered.process.graphs.may_be_unsafe()?;
    let bytes = bytes as u64;
    let ask = || ask::cuMemAlloc_v2(&entered.process.channel, entered.context, bytes);
    let address = entered.process.graph_memory.with_room(ask)?;
    entered.process.device_memory.insert(address.0, bytes, entered.context, 0);
    Ok(address)
}

fn free(entered: Entered, address: DevicePtr) -> CuResult<()> {
    entered.process.graphs.may_be_unsafe()?;
    if let Some(given) = give_managed(entered.process, address.0) {
        return given.and_then(|()| entered.told());
    }
    if entered.process.graph_memory.free(entered.process, address.0, entered.context) {
        return entered.told();
    }
    let own = |range: &Range| !matches!(range.flags, GLOBAL | MAPPED | OPENED);
    let range = entered.process.device_memory.remove(address.0, own).ok_or(CuError::INVALID_VALUE)?;
    let context = if range.home.is_some() { entered.context } else { range.context };
    ask::cuMemFree_v2(&entered.process.channel, context, address)?;
    entered.told()
}

export! {
    fn cuMemAlloc_v2(out: Out<DevicePtr>, bytes: usize) {
        let entered = enter()?;
        out.wanted()?.set(alloc(entered, bytes)?)
    }

    fn cuMemAllocPitch_v2(out: Out<DevicePtr>, pitch: Out<usize>, width: usize, height: usize, element_bytes: u32) {
        let entered = enter()?;
        if !matches!(element_bytes, 4 | 8 | 16) {
            return Err(CuError::INVALID_VALUE);
        }
        let row = width.checked_next_multiple_of(PITCH_BYTES).ok_or(CuError::INVALID_VALUE)?;
        let bytes = row.checked_mul(height).ok_or(CuError::INVALID_VALUE)?;
        pitch.wanted()?;
        out.wanted()?.set(alloc(entered, bytes)?)?;
        pitch.set(row)
    }

    fn cuMemFree_v2(address: DevicePtr) {
        if address.0 == 0 {
            return process().map(|_| ());
        }
        let entered = enter_to_end().map_err(|error| match process() {
            // Nobody's memory is wrong before the context is.
            Ok(process) if process.device_memory.find(address.0).is_none() => CuError::INVALID_VALUE,
            _ => error,
        })?;
        free(entered, address)
    }

    fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) {
        let entered = enter()?;
        entered.process.graph_memory.give_back(false);
        let info = ask::cuMemGetInfo_v2(&entered.process.channel, entered.context)?;
        free.set_if_wanted(usize::try_from(info.free).unwrap_or(usize::MAX));
        total.set_if_wanted(usize::try_from(info.total).unwrap_or(usize::MAX));
        Ok(())
    }

    fn cuMemGetAddressRange_v2(base: Out<DevicePtr>, bytes: Out<usize>, address: DevicePtr) {
        let process = enter()?.process;
        let managed = || mapped(process, address.0).filter(is_managed);
        let range = process.device_memory.find(address.0).or_else(managed).ok_or(CuError::NOT_FOUND)?;
        base.set_if_wanted(DevicePtr(range.start));
        bytes.set_if_wanted(usize::try_from(range.bytes).unwrap_or(usize::MAX));
        Ok(())
    }
}
