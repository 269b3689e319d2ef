//! From what names a device to its handle. `CUDA_VISIBLE_DEVICES` is CUDA's: it changes nothing here.

use std::ffi::c_char;

use vgpu_zone_api::guest::facts::DeviceFacts;

use crate::abi::{Device, In, Out, exports};
use crate::result::{NvmlError, NvmlResult};
use crate::session::session;
use crate::structs::{Uuid, version_of};
use crate::text;

/// `nvmlUUIDType_t`.
const ASCII: u32 = 1;
const BINARY: u32 = 2;

fn count(place: Out<u32>) -> NvmlResult<()> {
    let devices = session()?.facts().devices.len();
    place.set(u32::try_from(devices).unwrap_or(u32::MAX))
}

pub fn by_index(index: u32, place: Out<Device>) -> NvmlResult<()> {
    let session = session()?;
    place.wanted()?;
    place.set(session.handle(index as usize).ok_or(NvmlError::INVALID_ARGUMENT)?)
}

/// The first device that is meant.
fn find(place: Out<Device>, is_meant: impl Fn(&DeviceFacts) -> bool) -> NvmlResult<()> {
    let session = session()?;
    place.wanted()?;
    let index = session.facts().devices.iter().position(is_meant);
    place.set(index.and_then(|index| session.handle(index)).ok_or(NvmlError::NOT_FOUND)?)
}

fn by_bus_id(id: In<c_char>, place: Out<Device>) -> NvmlResult<()> {
    session()?;
    let (address, function) = text::pci(&id.text()?).ok_or(NvmlError::INVALID_ARGUMENT)?;
    find(place, |device| device.pci == address && function == 0)
}

fn by_uuid(uuid: &str, place: Out<Device>) -> NvmlResult<()> {
    find(place, |device| device.uuid_text().eq_ignore_ascii_case(uuid))
}

exports! {
    fn nvmlDeviceGetCount(place: Out<u32>) {
        count(place)
    }

    fn nvmlDeviceGetCount_v2(place: Out<u32>) {
        count(place)
    }

    fn nvmlDeviceGetHandleByIndex(index: u32, place: Out<Device>) {
        by_index(index, place)
    }

    fn nvmlDeviceGetHandleByIndex_v2(index: u32, place: Out<Device>) {
        by_index(index, place)
    }

    fn nvmlDeviceGetHandleByPciBusId(id: In<c_char>, place: Out<Device>) {
        by_bus_id(id, place)
    }

    fn nvmlDeviceGetHandleByPciBusId_v2(id: In<c_char>, place: Out<Device>) {
        by_bus_id(id, place)
    }

    /// A zone's device has no serial number: no number is one's.
    fn nvmlDeviceGetHandleBySerial(serial: In<c_char>, place: Out<Device>) {
        session()?;
        serial.text()?;
        find(place, |_| false)
    }

    fn nvmlDeviceGetHandleByUUID(uuid: In<c_char>, place: Out<Device>) {
        session()?;
        by_uuid(&uuid.text()?, place)
    }

    fn nvmlDeviceGetHandleByUUIDV(uuid: In<Uuid>, place: Out<Device>) {
        session()?;
        let Uuid { version, kind, value } = uuid.get()?;
        if version != version_of::<Uuid>(1) {
            return Err(NvmlError::ARGUMENT_VERSION_MISMATCH);
        }
        match kind {
            ASCII => {
                let word = value.split(|byte| *byte == 0).next().unwrap_or_default();
                by_uuid(str::from_utf8(word).map_err(|_| NvmlError::INVALID_ARGUMENT)?, place)
            }
            BINARY => find(place, |device| value.starts_with(&device.uuid)),
            _ => Err(NvmlError::INVALID_ARGUMENT),
        }
    }
}
