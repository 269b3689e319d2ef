//! What a device is. What a zone is not told of the hardware (serial number, sensors, the board, the link) is not supported.

use std::ffi::c_char;
use std::time::{SystemTime, UNIX_EPOCH};

use super::link::{is_up, links};
use crate::abi::{Device, Out, exports};
use crate::hardware::{architecture, brand, cores_of_multiprocessor};
use crate::result::{NvmlError, NvmlResult};
use crate::session::session;
use crate::structs::{FieldValue, PCI_V1_BYTES, PCI_V2_BYTES, PciInfo, PciInfoExt, chars, version_of};

/// `nvmlClockType_t`.
const CLOCK_GRAPHICS: u32 = 0;
const CLOCK_MULTIPROCESSORS: u32 = 1;
const CLOCK_MEMORY: u32 = 2;
const CLOCK_VIDEO: u32 = 3;
/// `NVML_FEATURE_DISABLED`, and `NVML_COMPUTEMODE_DEFAULT`.
const DISABLED: u32 = 0;
const MODE_DEFAULT: u32 = 0;
/// `NVML_FI_DEV_NVLINK_LINK_COUNT`, `…_GET_STATE`, whose scope is the link, and the kind of both, `NVML_VALUE_TYPE_UNSIGNED_INT`.
const FIELD_LINKS: u32 = 91;
const FIELD_LINK_STATE: u32 = 165;
const KIND_U32: u32 = 1;

/// A number that is 0 where it is not known.
fn known(number: u32) -> NvmlResult<u32> {
    if number == 0 { Err(NvmlError::NOT_SUPPORTED) } else { Ok(number) }
}

/// Vendor and device of the hardware are not told: they stay 0.
fn pci_info(device: Device) -> NvmlResult<PciInfo> {
    let session = session()?;
    let facts = session.device(device)?.1;
    let [domain, bus, slot] = facts.pci;
    Ok(PciInfo {
        bus_id_legacy: chars(&facts.bus_id_legacy()),
        domain,
        bus,
        device: slot,
        device_id: 0,
        subsystem_id: 0,
        bus_id: chars(&facts.bus_id()),
    })
}

exports! {
    fn nvmlDeviceGetName(device: Device, name: Out<c_char>, length: u32) {
        name.set_text(&session()?.device(device)?.1.name, length)
    }

    fn nvmlDeviceGetBrand(device: Device, place: Out<u32>) {
        place.set(brand(&session()?.device(device)?.1.name))
    }

    fn nvmlDeviceGetIndex(device: Device, place: Out<u32>) {
        let index = session()?.device(device)?.0;
        place.set(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// As the device nodes of a machine that has just these would be numbered.
    fn nvmlDeviceGetMinorNumber(device: Device, place: Out<u32>) {
        let index = session()?.device(device)?.0;
        place.set(u32::try_from(index).unwrap_or(u32::MAX))
    }

    fn nvmlDeviceGetUUID(device: Device, uuid: Out<c_char>, length: u32) {
        uuid.set_text(&session()?.device(device)?.1.uuid_text(), length)
    }

    fn nvmlDeviceGetPciInfo(device: Device, place: Out<PciInfo>) {
        pci_info(device)?.set_first(PCI_V1_BYTES, place)
    }

    fn nvmlDeviceGetPciInfo_v2(device: Device, place: Out<PciInfo>) {
        pci_info(device)?.set_first(PCI_V2_BYTES, place)
    }

    fn nvmlDeviceGetPciInfo_v3(device: Device, place: Out<PciInfo>) {
        place.set(pci_info(device)?)
    }

    fn nvmlDeviceGetPciInfoExt(device: Device, place: Out<PciInfoExt>) {
        let PciInfo { domain, bus, device, device_id, subsystem_id, bus_id, .. } = pci_info(device)?;
        let version = place.get()?.version;
        if version != version_of::<PciInfoExt>(1) {
            return Err(NvmlError::ARGUMENT_VERSION_MISMATCH);
        }
        // A display controller for computing: PCI Code and ID Assignment, class 3, subclass 2.
        let (base_class, sub_class) = (3, 2);
        place.set(PciInfoExt {
            version,
            domain,
            bus,
            device,
            device_id,
            subsystem_id,
            base_class,
            sub_class,
            bus_id,
        })
    }

    fn nvmlDeviceGetArchitecture(device: Device, place: Out<u32>) {
        place.set(architecture(session()?.device(device)?.1.capability))
    }

    fn nvmlDeviceGetCudaComputeCapability(device: Device, major: Out<i32>, minor: Out<i32>) {
        let capability = session()?.device(device)?.1.capability;
        minor.wanted()?;
        major.set(capability[0].into())?;
        minor.set(capability[1].into())
    }

    fn nvmlDeviceGetNumGpuCores(device: Device, place: Out<u32>) {
        let session = session()?;
        let facts = session.device(device)?.1;
        place.wanted()?;
        let cores = cores_of_multiprocessor(facts.capability).ok_or(NvmlError::NOT_SUPPORTED)?;
        place.set(known(facts.multiprocessors.saturating_mul(cores))?)
    }

    fn nvmlDeviceGetMemoryBusWidth(device: Device, place: Out<u32>) {
        let session = session()?;
        let bits = session.device(device)?.1.memory_bus_bits;
        place.wanted()?.set(known(bits)?)
    }

    /// In MHz.
    fn nvmlDeviceGetMaxClockInfo(device: Device, clock: u32, place: Out<u32>) {
        let session = session()?;
        let facts = session.device(device)?.1;
        place.wanted()?;
        let khz = match clock {
            CLOCK_GRAPHICS | CLOCK_MULTIPROCESSORS => facts.clock_khz,
            CLOCK_MEMORY => facts.memory_clock_khz,
            CLOCK_VIDEO => 0,
            _ => return Err(NvmlError::INVALID_ARGUMENT),
        };
        place.set(known(khz / 1000)?)
    }

    /// Nobody here can change it: what is pending is what is.
    fn nvmlDeviceGetEccMode(device: Device, current: Out<u32>, pending: Out<u32>) {
        let ecc = session()?.device(device)?.1.ecc;
        pending.wanted()?;
        current.set(ecc.into())?;
        pending.set(ecc.into())
    }

    /// Each process has a worker of its own: any number may have contexts.
    fn nvmlDeviceGetComputeMode(device: Device, place: Out<u32>) {
        session()?.device(device)?;
        place.set(MODE_DEFAULT)
    }

    fn nvmlDeviceGetDisplayMode(device: Device, place: Out<u32>) {
        session()?.device(device)?;
        place.set(DISABLED)
    }

    fn nvmlDeviceGetDisplayActive(device: Device, place: Out<u32>) {
        session()?.device(device)?;
        place.set(DISABLED)
    }

    fn nvmlDeviceGetAccountingMode(device: Device, place: Out<u32>) {
        session()?.device(device)?;
        place.set(DISABLED)
    }

    fn nvmlDeviceIsMigDeviceHandle(device: Device, place: Out<u32>) {
        session()?.device(device)?;
        place.set(0)
    }

    fn nvmlDeviceGetMaxMigDeviceCount(device: Device, place: Out<u32>) {
        session()?.device(device)?;
        place.set(0)
    }

    /// Each field says for itself whether it is known.
    fn nvmlDeviceGetFieldValues(device: Device, count: i32, fields: Out<FieldValue>) {
        session()?.device(device)?;
        fields.wanted()?;
        let count = usize::try_from(count).ok().filter(|count| *count > 0);
        let count = count.ok_or(NvmlError::INVALID_ARGUMENT)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        for index in 0..count {
            let place = fields.at(index);
            let asked = place.get()?;
            let value = match asked.field {
                FIELD_LINKS => links(device),
                FIELD_LINK_STATE => is_up(device, asked.scope).map(u32::from),
                _ => Err(NvmlError::NOT_SUPPORTED),
            };
            place.set(FieldValue {
                timestamp: i64::try_from(now).unwrap_or(i64::MAX),
                latency: 0,
                kind: KIND_U32,
                result: value.err().map_or(0, |error| error.0),
                value: value.unwrap_or(0).into(),
                ..asked
            })?;
        }
        Ok(())
    }
}
