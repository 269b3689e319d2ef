//! What the guest learns once, at `cuInit`: all that programs ask of devices before they have a context.

use crate::wire::{Reader, Wire, WireError, wire_struct};

/// Attributes 0 to this, exclusive, travel: `CU_DEVICE_ATTRIBUTE_MAX` of CUDA 13.0. A later driver's further ones do not, since nobody
/// looked whether what they tell of is there.
pub const ATTRIBUTES: usize = 148;
/// Attributes of what does not travel yet: 0 to programs, whatever the hardware has, since they ask before they use it. In order.
/// Numbers: `CUdevice_attribute` of cuda.h 13.0. That none promises a call that is refused: `tests/promises.rs`.
pub const NOT_OFFERED: &[u32] = &[
    86,  // atomics on host memory
    88,  // pageable memory access
    89,  // concurrent managed access
    91,  // host pointers for registered memory
    92,  // stream memory operations, v1
    93,  // 64-bit stream memory operations, v1
    94,  // stream wait value NOR, v1
    96,  // cooperative launch on several devices
    98,  // flush of remote writes
    99,  // host memory registered for kernels
    100, // pageable access by host page tables
    101, // direct managed access from the host
    104, // handles of virtual memory: of Windows
    105, // of Windows' kernel mode
    107, // compressible memory
    110, // GPUDirect RDMA of virtual memory
    112, // sparse arrays
    113, // read-only host registration
    114, // timeline semaphores
    116, // GPUDirect RDMA
    117, // its ways to flush
    118, // its order of writes
    121, // arrays mapped later
    124, // dma-buf
    128, // fabric handles
    129, // function pointers of host and device
    130, // its memory as a NUMA node
    132, // multicast
    133, // MPS
    135, // shared graphics of D3D12
    136, // hardware decompression
    137, // the most of it at once
    138, // shared graphics of Vulkan
    141, // virtual memory on host NUMA nodes
    142, // memory pools there
    143, // IPC between nodes of them
    144, // memory pools in host memory
    145, // virtual memory in host memory
    146, // dma-buf of host memory
    147, // some atomics on host memory
];

/// `CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY`: not 0 where the worker has the arena and the device reaches it.
pub const CAN_MAP_HOST_MEMORY: usize = 19;
/// `CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS`: not 0 where the device writes words in the order of a stream.
pub const CAN_WRITE_WORDS: usize = 122;

/// `CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY`. Programs get [`CAN_MAP_HOST_MEMORY`] for it, whatever the device says: managed memory is the arena's.
pub const MANAGED_MEMORY: u32 = 83;

/// `CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED`.
pub const POSIX_FD_SUPPORTED: u32 = 103;
/// `CU_DEVICE_ATTRIBUTE_MEMPOOL_SUPPORTED_HANDLE_TYPES`. Programs get [`POSIX_FD_SUPPORTED`] for it, the bit of which is 1: pools are made of
/// what that tells of.
pub const POOL_HANDLE_TYPES: u32 = 119;

/// Whether programs get the device's own value of an attribute: see [`NOT_OFFERED`].
#[must_use]
pub fn is_offered(attribute: u32) -> bool {
    NOT_OFFERED.binary_search(&attribute).is_err()
}

/// Limits of `cuCtxGetLimit`, 0 to 9. Source: cuda.h, `CUlimit`.
pub const LIMITS: usize = 10;

wire_struct! {
    /// Where the device sits, as the guest sees it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct PciAddress {
        /// Domain.
        pub domain: i32,
        /// Bus.
        pub bus: i32,
        /// Device.
        pub device: i32,
    }
}

wire_struct! {
    /// One device of the zone.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct DeviceSnapshot {
        /// As `cuDeviceGetName` gives it.
        pub name: String,
        /// The zone's own UUID for the device, not the hardware's.
        pub uuid: [u8; 16],
        /// As `cuDeviceGetPCIBusId` gives it; attributes 33, 34 and 50 are set from it.
        pub pci: PciAddress,
        /// The grant in bytes, at most the device's memory.
        pub total_memory: u64,
        /// `CUdevice_attribute` values by number, [`ATTRIBUTES`] of them at most; missing ones are unknown.
        pub attributes: Vec<i32>,
    }
}

impl DeviceSnapshot {
    /// An attribute by number. `None` for a number that the device doesn't know.
    #[must_use]
    pub fn attribute(&self, number: u32) -> Option<i32> {
        match number {
            0 => None,
            33 => Some(self.pci.bus),
            34 => Some(self.pci.device),
            50 => Some(self.pci.domain),
            _ => self.attributes.get(number as usize).copied(),
        }
    }
}

wire_struct! {
    /// The answer to `vgpuSnapshot`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Snapshot {
        /// `cuDriverGetVersion`: 1000·major + 10·minor. The guest advertises the lower of this and what it implements.
        pub driver_version: u32,
        /// The highest stream priority (the smallest number).
        pub priority_greatest: i32,
        /// The lowest stream priority.
        pub priority_least: i32,
        /// `cuCtxGetLimit` by number, at a context's start; [`LIMITS`] at most.
        pub limits: Vec<u64>,
        /// The devices in order of their ordinals, [`crate::ContextId::PRIMARY_MAX`] at most.
        pub devices: Vec<DeviceSnapshot>,
        /// What each device may do with each other one: [`Snapshot::peer`]. Missing values are 0.
        pub peers: Vec<i32>,
    }
}

/// `CUdevice_P2PAttribute` has the numbers from 1 to this. Source: cuda.h 13.0.
pub const PEER_ATTRIBUTES: u32 = 5;
/// Of these, whether kernels of one reach the other's memory.
pub const PEER_ACCESS: u32 = 2;

impl Snapshot {
    /// A `CUdevice_P2PAttribute`, 1 to [`PEER_ATTRIBUTES`], of a device towards another.
    #[must_use]
    pub fn peer(&self, number: u32, device: u32, peer: u32) -> i32 {
        let count = self.devices.len();
        if peer as usize >= count {
            return 0;
        }
        let pair = (device as usize).checked_mul(count).and_then(|row| row.checked_add(peer as usize));
        let place = pair.and_then(|pair| pair.checked_mul(PEER_ATTRIBUTES as usize));
        let place = place.zip((number as usize).checked_sub(1)).map(|(place, number)| place + number);
        place.and_then(|place| self.peers.get(place)).copied().unwrap_or(0)
    }

    /// All of [`Snapshot::peers`], of `devices` devices, by what `attribute` says of number, device and peer.
    pub fn all_peers(devices: u32, attribute: impl Fn(u32, u32, u32) -> i32) -> Vec<i32> {
        let mut all = Vec::new();
        for device in 0..devices {
            for peer in 0..devices {
                let of = |number| if device == peer { 0 } else { attribute(number, device, peer) };
                all.extend((1..=PEER_ATTRIBUTES).map(of));
            }
        }
        all
    }

    /// Parses and checks the counts.
    /// # Errors
    /// Bad bytes, or more devices, attributes or limits than there can be.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let snapshot = Self::take(&mut reader)?;
        reader.end()?;
        let attributes_fit = snapshot.devices.iter().all(|device| device.attributes.len() <= ATTRIBUTES);
        if snapshot.devices.len() > crate::ContextId::PRIMARY_MAX as usize || !attributes_fit {
            return Err(WireError::BadValue("devices"));
        }
        let pairs = snapshot.devices.len() * snapshot.devices.len();
        if snapshot.peers.len() > pairs * PEER_ATTRIBUTES as usize {
            return Err(WireError::BadValue("peers"));
        }
        if snapshot.limits.len() > LIMITS {
            return Err(WireError::BadValue("limits"));
        }
        Ok(snapshot)
    }

    /// Its wire form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        crate::wire::to_vec(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        Snapshot {
            driver_version: 13000,
            priority_greatest: -5,
            priority_least: 0,
            limits: vec![1024; LIMITS],
            devices: vec![DeviceSnapshot {
                name: "soft".into(),
                uuid: [7; 16],
                pci: PciAddress { domain: 0, bus: 4, device: 1 },
                total_memory: 1 << 30,
                attributes: (0..148).collect(),
            }],
            peers: vec![0; PEER_ATTRIBUTES as usize],
        }
    }

    #[test]
    fn comes_back_whole() {
        assert_eq!(Snapshot::parse(&snapshot().to_bytes()), Ok(snapshot()));
    }

    #[test]
    fn what_is_not_offered_is_in_order_so_that_the_search_finds_all() {
        assert!(NOT_OFFERED.is_sorted_by(|a, b| a < b));
        assert!(NOT_OFFERED.iter().all(|attribute| !is_offered(*attribute)));
        assert!(is_offered(75) && is_offered(95) && is_offered(102));
    }

    #[test]
    fn every_cut_is_an_error_and_never_a_panic() {
        let bytes = snapshot().to_bytes();
        for cut in 0..bytes.len() {
            assert!(Snapshot::parse(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn more_attributes_than_there_are_is_refused() {
        let mut long = snapshot();
        long.devices[0].attributes = vec![0; ATTRIBUTES + 1];
        assert_eq!(Snapshot::parse(&long.to_bytes()), Err(WireError::BadValue("devices")));
    }

    #[test]
    fn each_pair_of_devices_has_its_own_attributes_and_no_more_than_there_are_pass() {
        let mut two = snapshot();
        two.devices.push(two.devices[0].clone());
        two.peers = Snapshot::all_peers(2, |number, device, peer| {
            i32::try_from(number * 100 + device * 10 + peer).unwrap()
        });
        let two = Snapshot::parse(&two.to_bytes()).unwrap();
        assert_eq!((two.peer(1, 0, 1), two.peer(5, 1, 0), two.peer(2, 1, 1)), (101, 510, 0));
        assert_eq!((two.peer(0, 0, 1), two.peer(1, 2, 0), two.peer(u32::MAX, u32::MAX, u32::MAX)), (0, 0, 0));
        assert_eq!((two.peer(1, 0, 2), two.peer(5, 0, u32::MAX)), (0, 0), "no other pair's");
        let mut more = two;
        more.peers.push(0);
        assert_eq!(Snapshot::parse(&more.to_bytes()), Err(WireError::BadValue("peers")));
    }

    #[test]
    fn the_pci_attributes_follow_the_address() {
        let device = &snapshot().devices[0];
        assert_eq!(
            (device.attribute(33), device.attribute(34), device.attribute(50)),
            (Some(4), Some(1), Some(0))
        );
        assert_eq!((device.attribute(0), device.attribute(148)), (None, None));
    }
}
