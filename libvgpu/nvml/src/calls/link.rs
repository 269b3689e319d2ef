//! NVLinks, of which a container with several devices is told how many are up. What is at their other end is not told: programs see a
//! switch that reaches every device of the container, as in a guest that has GPUs without the switch between them.

use crate::abi::{Device, Out, exports};
use crate::result::{NvmlError, NvmlResult};
use crate::session::session;
use crate::structs::{PCI_V2_BYTES, PciInfo};

/// `NVML_NVLINK_MAX_LINKS`.
const LINKS_MAX: u32 = 18;
/// `nvmlNvLinkCapability_t`: access to other devices' memory, atomics there, that the link is valid; it ends before 6.
const CAPABLE: [u32; 3] = [0, 2, 5];
const CAPABILITIES: u32 = 6;
/// `NVML_NVLINK_DEVICE_TYPE_SWITCH`.
const SWITCH: u32 = 2;

/// How many links are up, of a device that has some.
pub fn links(device: Device) -> NvmlResult<u32> {
    let links = session()?.device(device)?.1.links;
    if links == 0 { Err(NvmlError::NOT_SUPPORTED) } else { Ok(links) }
}

/// Whether the link is up, of a device that has links.
pub fn is_up(device: Device, link: u32) -> NvmlResult<bool> {
    session()?.device(device)?;
    if link >= LINKS_MAX {
        return Err(NvmlError::INVALID_ARGUMENT);
    }
    Ok(link < links(device)?)
}

/// The other end of a link: a place that is none.
fn nowhere(device: Device, link: u32) -> NvmlResult<PciInfo> {
    if !is_up(device, link)? {
        return Err(NvmlError::NOT_SUPPORTED);
    }
    Ok(PciInfo::nowhere())
}

exports! {
    fn nvmlDeviceGetNvLinkState(device: Device, link: u32, place: Out<u32>) {
        place.set(is_up(device, link)?.into())
    }

    fn nvmlDeviceGetNvLinkCapability(device: Device, link: u32, capability: u32, place: Out<u32>) {
        let up = is_up(device, link)?;
        if capability >= CAPABILITIES {
            return Err(NvmlError::INVALID_ARGUMENT);
        }
        place.set((up && CAPABLE.contains(&capability)).into())
    }

    fn nvmlDeviceGetNvLinkRemoteDeviceType(device: Device, link: u32, place: Out<u32>) {
        nowhere(device, link)?;
        place.set(SWITCH)
    }

    fn nvmlDeviceGetNvLinkRemotePciInfo(device: Device, link: u32, place: Out<PciInfo>) {
        nowhere(device, link)?.set_first(PCI_V2_BYTES, place)
    }

    fn nvmlDeviceGetNvLinkRemotePciInfo_v2(device: Device, link: u32, place: Out<PciInfo>) {
        place.set(nowhere(device, link)?)
    }
}
