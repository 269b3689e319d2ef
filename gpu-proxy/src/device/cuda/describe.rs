//! What NVIDIA's device is: all that can be asked without a context.

use std::ffi::{c_char, c_int};

use vgpu_api::snapshot::{ATTRIBUTES, is_offered};
use vgpu_api::{CuError, DeviceSnapshot, PciAddress, Snapshot};

use super::table::Table;
use crate::device::Described;

/// What a zone sees of the device: its own identity is not the hardware's.
const UUID: [u8; 16] = *b"vgpu-cuda-device";
/// `CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS`.
const PAGEABLE_ACCESS: c_int = 88;

/// What the first device is, without a context: no memory of it is taken.
///
/// # Errors
/// As [`Cuda::open`](super::Cuda::open).
pub fn describe(bytes: u64) -> Result<Described, String> {
    let (table, device) = start()?;
    let snapshot = Snapshot {
        driver_version: driver_version(&table),
        priority_greatest: 0,
        priority_least: 0,
        limits: Vec::new(),
        devices: vec![device_snapshot(&table, device, bytes)],
    };
    Ok(Described { snapshot, reads_host_memory: own_attribute_of(&table, device, PAGEABLE_ACCESS) == 1 })
}

/// Loads and starts the driver; its first device.
pub(super) fn start() -> Result<(Table, c_int), String> {
    let table = Table::load()?;
    let said = |what: &'static str| move |error: CuError| format!("{what}: {error:?}");
    let mut device = 0;
    // SAFETY: numbers only.
    unsafe { table.cuInit(0) }.map_err(said("NVIDIA's driver does not start"))?;
    // SAFETY: the driver writes one number to a variable of ours.
    unsafe { table.cuDeviceGet(&raw mut device, 0) }.map_err(said("there is no NVIDIA device"))?;
    Ok((table, device))
}

/// What a zone sees of the device. What fails leaves a zero.
pub(super) fn device_snapshot(table: &Table, device: c_int, bytes: u64) -> DeviceSnapshot {
    let mut total = 0;
    // SAFETY: the driver writes one number to a variable of ours.
    let _ = unsafe { table.cuDeviceTotalMem_v2(&raw mut total, device) };
    DeviceSnapshot {
        name: name_of(table, device),
        uuid: UUID,
        pci: PciAddress { domain: 0, bus: 1, device: 0 },
        total_memory: bytes.min(total as u64),
        attributes: (0..ATTRIBUTES).map(|number| attribute_of(table, device, number)).collect(),
    }
}

/// `cuDriverGetVersion`; 0 if that fails.
pub(super) fn driver_version(table: &Table) -> u32 {
    let mut version = 0;
    // SAFETY: the driver writes one number to a variable of ours.
    let _ = unsafe { table.cuDriverGetVersion(&raw mut version) };
    version.unsigned_abs()
}

/// A `CUdevice_attribute`: 0 for what is not known, or not offered.
pub(super) fn attribute_of(table: &Table, device: c_int, number: usize) -> c_int {
    let Ok(attribute) = c_int::try_from(number) else { return 0 };
    if u32::try_from(number).is_ok_and(is_offered) { own_attribute_of(table, device, attribute) } else { 0 }
}

/// The hardware's own value, for us.
fn own_attribute_of(table: &Table, device: c_int, attribute: c_int) -> c_int {
    let mut value = 0;
    // SAFETY: the driver writes one number to a variable of ours; unknown attributes are an error.
    let known = unsafe { table.cuDeviceGetAttribute(&raw mut value, attribute, device) };
    if known.is_err() { 0 } else { value }
}

fn name_of(table: &Table, device: c_int) -> String {
    let mut name = [0_u8; 256];
    // SAFETY: the driver writes at most 256 bytes and a NUL among them.
    let named = unsafe { table.cuDeviceGetName(name.as_mut_ptr().cast::<c_char>(), 256, device) };
    let text = name.split(|byte| *byte == 0).next().unwrap_or_default();
    if named.is_ok() { String::from_utf8_lossy(text).into_owned() } else { "NVIDIA device".into() }
}
