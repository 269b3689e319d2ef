//! Devices, from the snapshot of the handshake.

use std::collections::BTreeSet;
use std::ffi::c_char;
use std::sync::Mutex;

use vgpu_api::snapshot::{
    CAN_MAP_HOST_MEMORY, MANAGED_MEMORY, PEER_ACCESS, PEER_ATTRIBUTES, POOL_HANDLE_TYPES, POSIX_FD_SUPPORTED,
    is_offered,
};
use vgpu_api::{CuError, CuResult, DeviceSnapshot};

use crate::abi::{In, Out, Raw, export};
use crate::core::contexts::Entered;
use crate::core::process::{Process, process};
use crate::core::slab::lock;

/// The attributes that `CUdevprop` consists of: threads of a block; block x, y, z; grid x, y, z; shared memory, constant memory,
/// warp, pitch, registers, clock, texture alignment.
const PROPERTIES: [u32; 14] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14];

/// The device of an ordinal.
/// # Errors
/// 101.
pub fn device(process: &'static Process, ordinal: i32) -> CuResult<(u32, &'static DeviceSnapshot)> {
    let ordinal = u32::try_from(ordinal).map_err(|_| CuError::INVALID_DEVICE)?;
    process.devices.get(ordinal as usize).map(|device| (ordinal, device)).ok_or(CuError::INVALID_DEVICE)
}

/// An attribute as programs see it. `None` for one that the device doesn't know, offered or not.
pub fn attribute(device: &DeviceSnapshot, number: u32) -> Option<i32> {
    match number {
        POOL_HANDLE_TYPES => device.attribute(POSIX_FD_SUPPORTED),
        MANAGED_MEMORY => device.attributes.get(CAN_MAP_HOST_MEMORY).copied(),
        _ if is_offered(number) => device.attribute(number),
        _ => device.attribute(number).map(|_| 0),
    }
}

/// How many multiprocessors the device of the current context has.
/// # Errors
/// 201.
pub fn multiprocessors(entered: Entered) -> CuResult<i32> {
    const COUNT: u32 = 16;
    let device = entered.process.devices.get(entered.device as usize).ok_or(CuError::INVALID_CONTEXT)?;
    Ok(device.attribute(COUNT).unwrap_or(1))
}

/// `0000:04:00.0`.
fn bus_id(device: &DeviceSnapshot) -> String {
    format!("{:04x}:{:02x}:{:02x}.0", device.pci.domain, device.pci.bus, device.pci.device)
}

/// Callbacks for notices that never come: number and device.
struct Notifications {
    last: u64,
    live: BTreeSet<(u64, i32)>,
}

static NOTIFICATIONS: Mutex<Notifications> = Mutex::new(Notifications { last: 0, live: BTreeSet::new() });

/// `CU_ATOMIC_OPERATION_MAX`.
const ATOMIC_OPERATIONS: u32 = 13;

/// Nothing can be done to each of `count` operations.
fn no_atomics(capabilities: Out<u32>, operations: In<u32>, count: u32) -> CuResult<()> {
    let capabilities = capabilities.wanted()?;
    if count == 0 || operations.is_null() {
        return Err(CuError::INVALID_VALUE);
    }
    for i in 0..count as usize {
        if operations.at(i)? >= ATOMIC_OPERATIONS {
            return Err(CuError::INVALID_VALUE);
        }
    }
    capabilities.set_all((0..count).map(|_| 0))
}

export! {
    fn cuDeviceGetCount(count: Out<i32>) {
        count.set(i32::try_from(process()?.devices.len()).unwrap_or(i32::MAX))
    }

    fn cuDeviceGet(out: Out<i32>, ordinal: i32) {
        device(process()?, ordinal)?;
        out.set(ordinal)
    }

    fn cuDeviceGetName(name: Out<u8>, len: i32, dev: i32) {
        let (_, device) = device(process()?, dev)?;
        name.set_text(device.name.as_bytes(), usize::try_from(len).unwrap_or(0))
    }

    fn cuDeviceTotalMem_v2(bytes: Out<usize>, dev: i32) {
        let (_, device) = device(process()?, dev)?;
        bytes.set(usize::try_from(device.total_memory).unwrap_or(usize::MAX))
    }

    fn cuDeviceGetUuid(uuid: Out<[u8; 16]>, dev: i32) {
        uuid.set(device(process()?, dev)?.1.uuid)
    }

    fn cuDeviceGetUuid_v2(uuid: Out<[u8; 16]>, dev: i32) {
        uuid.set(device(process()?, dev)?.1.uuid)
    }

    fn cuDeviceGetAttribute(value: Out<i32>, number: u32, dev: i32) {
        let (_, device) = device(process()?, dev)?;
        value.set(attribute(device, number).ok_or(CuError::INVALID_VALUE)?)
    }

    fn cuDeviceGetPCIBusId(text: Out<u8>, len: i32, dev: i32) {
        let (_, device) = device(process()?, dev)?;
        let (id, room) = (bus_id(device), usize::try_from(len).unwrap_or(0));
        if room <= id.len() {
            return Err(CuError::INVALID_VALUE);
        }
        text.set_text(id.as_bytes(), room)
    }

    fn cuDeviceGetByPCIBusId(dev: Out<i32>, text: In<c_char>) {
        let text = text.text()?.to_str().map_err(|_| CuError::INVALID_VALUE)?.to_lowercase();
        if !text.bytes().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(&byte)) || !text.contains(':') {
            return Err(CuError::INVALID_VALUE);
        }
        // The domain and the function may be left out.
        let matches = |device: &DeviceSnapshot| {
            let full = bus_id(device);
            let short = full.strip_prefix("0000:").unwrap_or(&full);
            [full.as_str(), short].iter().any(|id| *id == text || id.strip_suffix(".0") == Some(&text))
        };
        let place = process()?.devices.iter().position(matches).ok_or(CuError::INVALID_DEVICE)?;
        dev.set(i32::try_from(place).unwrap_or(i32::MAX))
    }

    fn cuDeviceComputeCapability(major: Out<i32>, minor: Out<i32>, dev: i32) {
        let (_, device) = device(process()?, dev)?;
        let number = |number| attribute(device, number).ok_or(CuError::INVALID_VALUE);
        major.set(number(75)?)?;
        minor.set(number(76)?)
    }

    /// Numbers: `CUdevice_P2PAttribute`.
    fn cuDeviceGetP2PAttribute(value: Out<i32>, number: u32, dev: i32, peer: i32) {
        let process = process()?;
        let (dev, peer) = (device(process, dev)?.0, device(process, peer)?.0);
        if dev == peer {
            return Err(CuError::INVALID_DEVICE);
        }
        if !(1..=PEER_ATTRIBUTES).contains(&number) {
            return Err(CuError::INVALID_VALUE);
        }
        value.set(process.peer(number, dev, peer))
    }

    fn cuDeviceGetExecAffinitySupport(supported: Out<i32>, _kind: u32, dev: i32) {
        device(process()?, dev)?;
        supported.set(0)
    }

    /// `CUdevprop`: what programs asked before there were attributes.
    fn cuDeviceGetProperties(properties: Out<[i32; 14]>, dev: i32) {
        let (_, device) = device(process()?, dev)?;
        properties.set(PROPERTIES.map(|number| attribute(device, number).unwrap_or(0)))
    }

    /// No device is its own peer.
    fn cuDeviceCanAccessPeer(can: Out<i32>, dev: i32, peer: i32) {
        let process = process()?;
        let (dev, peer) = (device(process, dev)?.0, device(process, peer)?.0);
        can.set(i32::from(process.peer(PEER_ACCESS, dev, peer) != 0))
    }

    /// No host memory is the GPU's to change yet.
    fn cuDeviceGetHostAtomicCapabilities(capabilities: Out<u32>, operations: In<u32>, count: u32, dev: i32) {
        device(process()?, dev)?;
        no_atomics(capabilities, operations, count)
    }

    /// As of the host's memory: what a device can do to another's is told by no more than attribute 3 of the pair.
    fn cuDeviceGetP2PAtomicCapabilities(
        capabilities: Out<u32>, operations: In<u32>, count: u32, dev: i32, peer: i32,
    ) {
        let process = process()?;
        let (dev, peer) = (device(process, dev)?.0, device(process, peer)?.0);
        if dev == peer {
            return Err(CuError::INVALID_DEVICE);
        }
        no_atomics(capabilities, operations, count)
    }

    /// Of more memory than a budget that a program is granted: a zone's grant is hard, so the notice never comes.
    fn cuDeviceRegisterAsyncNotification(dev: i32, callback: In<u8>, _user: In<u8>, out: Out<u64>) {
        device(process()?, dev)?;
        if callback.is_null() {
            return Err(CuError::INVALID_VALUE);
        }
        let out = out.wanted()?;
        let mut registered = lock(&NOTIFICATIONS);
        registered.last += 1;
        let number = registered.last;
        registered.live.insert((number, dev));
        out.set(number)
    }

    fn cuDeviceUnregisterAsyncNotification(dev: i32, handle: Raw) {
        device(process()?, dev)?;
        let known = lock(&NOTIFICATIONS).live.remove(&(handle.0, dev));
        if known { Ok(()) } else { Err(CuError::INVALID_VALUE) }
    }
}
