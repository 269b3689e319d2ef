//! What NVIDIA's device is: all that can be asked without a context.

use std::ffi::{c_char, c_int};

use vgpu_api::snapshot::{ATTRIBUTES, is_offered};
use vgpu_api::{CuError, DeviceSnapshot, Snapshot};

use super::links::Links;
use super::table::Table;
use crate::device::{Described, DeviceKind, Hardware, identity};

/// `CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS`.
const PAGEABLE_ACCESS: c_int = 88;

/// `CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID`, `…_BUS_ID`, `…_DEVICE_ID`.
const PCI: [c_int; 3] = [50, 33, 34];

/// What all devices are, without a context: no memory of theirs is taken.
///
/// # Errors
/// As [`Cuda::open`](super::Cuda::open).
pub fn describe(bytes: u64) -> Result<Described, String> {
    let (table, devices) = start()?;
    let snapshot = Snapshot {
        driver_version: driver_version(&table),
        priority_greatest: 0,
        priority_least: 0,
        limits: Vec::new(),
        devices: snapshots(&table, &devices, |_| bytes),
        peers: peers(&table, &devices),
    };
    let reads_host_memory =
        devices.iter().any(|device| own_attribute_of(&table, *device, PAGEABLE_ACCESS) == 1);
    let links = Links::open();
    let hardware = devices.iter().map(|device| hardware_of(&table, *device, links.as_ref())).collect();
    Ok(Described { snapshot, reads_host_memory, hardware })
}

/// Loads and starts the driver; its devices, one at least.
pub(super) fn start() -> Result<(Table, Vec<c_int>), String> {
    let table = Table::load()?;
    let said = |what: &'static str| move |error: CuError| format!("{what}: {error:?}");
    let mut count = 0;
    // SAFETY: numbers only.
    unsafe { table.cuInit(0) }.map_err(said("NVIDIA's driver does not start"))?;
    // SAFETY: the driver writes one number to a variable of ours.
    unsafe { table.cuDeviceGetCount(&raw mut count) }.map_err(said("there is no NVIDIA device"))?;
    let device = |ordinal| {
        let mut device = 0;
        // SAFETY: as above.
        unsafe { table.cuDeviceGet(&raw mut device, ordinal) }.map(|()| device)
    };
    let devices: Result<Vec<c_int>, _> = (0..count.max(1)).map(device).collect();
    let devices = devices.map_err(said("there is no NVIDIA device"))?;
    Ok((table, devices))
}

/// What a zone sees of each device.
pub(super) fn snapshots(
    table: &Table,
    devices: &[c_int],
    bytes: impl Fn(usize) -> u64,
) -> Vec<DeviceSnapshot> {
    let numbered = devices.iter().zip(0..);
    numbered
        .enumerate()
        .map(|(place, (device, number))| device_snapshot(table, *device, number, bytes(place)))
        .collect()
}

/// What each may do with each other one.
pub(super) fn peers(table: &Table, devices: &[c_int]) -> Vec<i32> {
    let device = |number: u32| devices.get(number as usize).copied().unwrap_or(-1);
    Snapshot::all_peers(u32::try_from(devices.len()).unwrap_or(0), |number, one, other| {
        let (mut value, number) = (0, c_int::try_from(number).unwrap_or(0));
        // SAFETY: the driver writes one number to a variable of ours; unknown attributes and devices are an error.
        let known =
            unsafe { table.cuDeviceGetP2PAttribute(&raw mut value, number, device(one), device(other)) };
        if known.is_err() { 0 } else { value }
    })
}

/// What fails leaves zeros.
fn hardware_of(table: &Table, device: c_int, links: Option<&Links>) -> Hardware {
    let mut uuid = [0; 16];
    // SAFETY: the driver writes 16 bytes to a variable of ours.
    let _ = unsafe { table.cuDeviceGetUuid(&raw mut uuid, device) };
    let pci = PCI.map(|attribute| own_attribute_of(table, device, attribute).unsigned_abs());
    Hardware { uuid, pci, links: links.map_or(0, |links| links.of(pci)) }
}

/// What a zone sees of the device that has this number there. What fails leaves a zero.
fn device_snapshot(table: &Table, device: c_int, number: u32, bytes: u64) -> DeviceSnapshot {
    let (uuid, pci) = identity(DeviceKind::Cuda, number);
    let mut total = 0;
    // SAFETY: the driver writes one number to a variable of ours.
    let _ = unsafe { table.cuDeviceTotalMem_v2(&raw mut total, device) };
    DeviceSnapshot {
        name: name_of(table, device),
        uuid,
        pci,
        total_memory: bytes.min(total as u64),
        attributes: attributes(table, device),
    }
}

/// `cuDriverGetVersion`; 0 if that fails.
pub(super) fn driver_version(table: &Table) -> u32 {
    let mut version = 0;
    // SAFETY: the driver writes one number to a variable of ours.
    let _ = unsafe { table.cuDriverGetVersion(&raw mut version) };
    version.unsigned_abs()
}

/// All that the driver knows and that travels, by number: 0 for what is not offered. An older driver's end earlier.
fn attributes(table: &Table, device: c_int) -> Vec<i32> {
    let all = (0..ATTRIBUTES).map(|number| known_attribute(table, device, number));
    told(all.collect())
}

/// Values up to the last that is known; what is not known among them is 0.
fn told(all: Vec<Option<i32>>) -> Vec<i32> {
    let end = all.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
    all.into_iter().take(end).map(Option::unwrap_or_default).collect()
}

/// A `CUdevice_attribute` as programs may know it. `None`: the driver has none of that number.
fn known_attribute(table: &Table, device: c_int, number: usize) -> Option<i32> {
    let value = own_attribute(table, device, c_int::try_from(number).ok()?)?;
    Some(if u32::try_from(number).is_ok_and(is_offered) { value } else { 0 })
}

/// A `CUdevice_attribute`: 0 for what is not known, or not offered.
pub(super) fn attribute_of(table: &Table, device: c_int, number: usize) -> c_int {
    known_attribute(table, device, number).unwrap_or(0)
}

/// The hardware's own value, for us: 0 for what is not known.
fn own_attribute_of(table: &Table, device: c_int, attribute: c_int) -> c_int {
    own_attribute(table, device, attribute).unwrap_or(0)
}

fn own_attribute(table: &Table, device: c_int, attribute: c_int) -> Option<c_int> {
    let mut value = 0;
    // SAFETY: the driver writes one number to a variable of ours; unknown attributes are an error.
    unsafe { table.cuDeviceGetAttribute(&raw mut value, attribute, device) }.ok()?;
    Some(value)
}

fn name_of(table: &Table, device: c_int) -> String {
    let mut name = [0_u8; 256];
    // SAFETY: the driver writes at most 256 bytes and a NUL among them.
    let named = unsafe { table.cuDeviceGetName(name.as_mut_ptr().cast::<c_char>(), 256, device) };
    let text = name.split(|byte| *byte == 0).next().unwrap_or_default();
    if named.is_ok() { String::from_utf8_lossy(text).into_owned() } else { "NVIDIA device".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_driver_does_not_know_at_the_end_is_not_told_of() {
        assert_eq!(told(vec![None, Some(1024), None, Some(7), None, None]), [0, 1024, 0, 7]);
        assert!(told(vec![None; 3]).is_empty());
    }
}
