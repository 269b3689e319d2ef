//! What a device is, and what programs see in place of the hardware's own names.

use serde::{Deserialize, Serialize};
use vgpu_api::{PciAddress, Snapshot};

use super::{DeviceKind, cuda, open};

/// What programs see of a device in place of the hardware's own: its UUID and its PCI address, by its number in their container.
#[must_use]
pub fn identity(kind: DeviceKind, number: u32) -> ([u8; 16], PciAddress) {
    let mut uuid = match kind {
        DeviceKind::Cuda => *b"vgpu-cuda-device",
        DeviceKind::Soft => *b"vgpu-soft-device",
        DeviceKind::Null => *b"vgpu-null-device",
    };
    let [.., last] = &mut uuid;
    *last = last.wrapping_add(u8::try_from(number).unwrap_or(0));
    (uuid, PciAddress { domain: 0, bus: i32::try_from(number).unwrap_or(0).saturating_add(1), device: 0 })
}

/// What the driver calls a GPU. Only the supervisor is told, never a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// `cuDeviceGetUuid`.
    pub uuid: [u8; 16],
    /// PCI domain, bus, device.
    pub pci: [u32; 3],
    /// NVLinks that are up; 0 also where that is not known.
    pub links: u32,
}

impl Hardware {
    /// `GPU-` and the UUID in five groups, as `CUDA_VISIBLE_DEVICES` takes it.
    #[must_use]
    pub fn name(&self) -> String {
        format!("GPU-{}", uuid::Uuid::from_bytes(self.uuid))
    }
}

/// What a device is.
#[derive(Debug)]
pub struct Described {
    /// What programs may know. The limits and stream priorities, which only a context has, may be missing.
    pub snapshot: Snapshot,
    /// Whether kernels reach all memory of their process (`CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS`): programs are not told.
    pub reads_host_memory: bool,
    /// Of `cuda`: what it calls each of them.
    pub hardware: Vec<Hardware>,
}

/// What the devices are, without a context: nothing of their memory is taken. `bytes` is the most that each may show; of `cuda` it is all
/// that there are, else `devices`.
///
/// # Errors
/// One sentence for the log.
pub fn describe(kind: DeviceKind, devices: u32, bytes: u64) -> Result<Described, String> {
    match kind {
        DeviceKind::Null | DeviceKind::Soft => {
            let snapshot = open(kind, devices, bytes)?.snapshot(&vec![bytes; devices as usize]);
            Ok(Described { snapshot, reads_host_memory: false, hardware: Vec::new() })
        }
        DeviceKind::Cuda => cuda::describe(bytes),
    }
}
