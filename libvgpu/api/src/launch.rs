//! A kernel launch as it travels: always packed, so that the worker chases no pointers.

use crate::handle::{FunctionHandle, Stream};
use crate::result::{CuError, CuResult};
use crate::wire::{Reader, Wire, WireError, Writer, wire_struct};

/// The largest parameter block in bytes: 32,764 of CUDA 12.1 and later.
pub const PARAM_BYTES_MAX: usize = 32_764;
/// Attributes of one launch at most. CUDA 13.0 knows 17.
pub const ATTRIBUTES_MAX: usize = 32;
/// Bytes of one attribute: its id, then the 64 bytes of `CUlaunchAttributeValue`.
const ATTRIBUTE_BYTES: usize = 68;

wire_struct! {
    /// `cuLaunchKernel`, `cuLaunchKernelEx`, `cuLaunchCooperativeKernel`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct LaunchShape {
        /// What runs.
        pub function: FunctionHandle,
        /// Where.
        pub stream: Stream,
        /// Blocks.
        pub grid: [u32; 3],
        /// Threads of a block.
        pub block: [u32; 3],
        /// Dynamic shared memory in bytes.
        pub shared_bytes: u32,
    }
}

/// A launch: its shape, its attributes, its packed parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch<'a> {
    /// Function, stream, grid, block, shared memory.
    pub shape: LaunchShape,
    /// In the program's order. Ignored ones (id 0) are left out by the guest.
    pub attributes: LaunchAttributes<'a>,
    /// The parameter block, packed by the (offset, size) list of the load reply.
    pub params: &'a [u8],
}

impl Launch<'_> {
    /// Part of the wire hash.
    pub const DECLARATION: &'static str = "Launch{shape:LaunchShape,attributes:68*,params:bytes}";
}

impl<'a> Wire<'a> for Launch<'a> {
    #[inline]
    fn size(&self) -> usize {
        self.shape.size() + self.attributes.packed.size() + self.params.size()
    }
    #[inline]
    fn put(&self, writer: &mut Writer<'_>) {
        self.shape.put(writer);
        self.attributes.packed.put(writer);
        self.params.put(writer);
    }
    fn take(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let shape = LaunchShape::take(reader)?;
        let attributes = LaunchAttributes::parse(<&[u8]>::take(reader)?)?;
        let params = <&[u8]>::take(reader)?;
        if params.len() > PARAM_BYTES_MAX {
            return Err(WireError::BadValue("parameter block"));
        }
        Ok(Self { shape, attributes, params })
    }
}

/// Launch attributes in their packed form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LaunchAttributes<'a> {
    packed: &'a [u8],
}

/// One launch attribute. Its id passes if [`attribute::travels`]; addresses and handles in its value are the worker's to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchAttribute {
    /// `CUlaunchAttributeID`.
    pub id: u32,
    /// `CUlaunchAttributeValue` as the program gave it. Handles in it are the guest's: translate them.
    pub value: [u8; 64],
}

impl LaunchAttribute {
    /// The u32 at `offset` of the value.
    #[must_use]
    pub fn word(&self, offset: usize) -> Option<u32> {
        Some(u32::from_le_bytes(*self.value.get(offset..)?.first_chunk()?))
    }
}

impl<'a> LaunchAttributes<'a> {
    /// Packs `attributes` into `buffer`, [`BUFFER_FEW`] or [`BUFFER_MAX`].
    /// # Errors
    /// 1 for more than there is room for; the first error among `attributes`.
    pub fn pack(
        attributes: impl IntoIterator<Item = CuResult<LaunchAttribute>>,
        buffer: &'a mut [u8],
    ) -> CuResult<Self> {
        let mut packed_bytes = 0;
        let mut slots = buffer.chunks_exact_mut(ATTRIBUTE_BYTES);
        for attribute in attributes {
            let attribute = attribute?;
            let slot = slots.next().ok_or(CuError::INVALID_VALUE)?;
            slot[..4].copy_from_slice(&attribute.id.to_le_bytes());
            slot[4..].copy_from_slice(&attribute.value);
            packed_bytes += ATTRIBUTE_BYTES;
        }
        Ok(Self { packed: &buffer[..packed_bytes] })
    }

    fn parse(packed: &'a [u8]) -> Result<Self, WireError> {
        if !packed.len().is_multiple_of(ATTRIBUTE_BYTES) || packed.len() > ATTRIBUTES_MAX * ATTRIBUTE_BYTES {
            return Err(WireError::BadValue("launch attributes"));
        }
        Ok(Self { packed })
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = LaunchAttribute> + 'a {
        self.packed.chunks_exact(ATTRIBUTE_BYTES).filter_map(|slot| {
            let (id, value) = slot.split_first_chunk::<4>()?;
            Some(LaunchAttribute { id: u32::from_le_bytes(*id), value: value.try_into().ok()? })
        })
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packed.is_empty()
    }
}

/// As many attributes as launches usually have at most.
pub const ATTRIBUTES_FEW: usize = 4;
/// Room for [`ATTRIBUTES_FEW`] attributes.
pub const BUFFER_FEW: [u8; ATTRIBUTES_FEW * ATTRIBUTE_BYTES] = [0; ATTRIBUTES_FEW * ATTRIBUTE_BYTES];
/// Room for [`ATTRIBUTES_MAX`] attributes.
pub const BUFFER_MAX: [u8; ATTRIBUTES_MAX * ATTRIBUTE_BYTES] = [0; ATTRIBUTES_MAX * ATTRIBUTE_BYTES];

/// Ids of `CUlaunchAttributeID`.
pub mod attribute {
    /// Means nothing.
    pub const IGNORE: u32 = 0;
    /// Access policy window; its base pointer is a device address.
    pub const ACCESS_POLICY_WINDOW: u32 = 1;
    /// All blocks at once.
    pub const COOPERATIVE: u32 = 2;
    /// How the host waits for a stream.
    pub const SYNCHRONIZATION_POLICY: u32 = 3;
    /// Blocks of a cluster.
    pub const CLUSTER_DIMENSION: u32 = 4;
    /// How clusters are placed.
    pub const CLUSTER_SCHEDULING_POLICY: u32 = 5;
    /// May begin before the launch before it has ended.
    pub const PROGRAMMATIC_STREAM_SERIALIZATION: u32 = 6;
    /// Event recorded by the kernel; handle at 0.
    pub const PROGRAMMATIC_EVENT: u32 = 7;
    /// Priority in its stream's range.
    pub const PRIORITY: u32 = 8;
    /// Memory domains.
    pub const MEM_SYNC_DOMAIN_MAP: u32 = 9;
    /// Memory domain.
    pub const MEM_SYNC_DOMAIN: u32 = 10;
    /// Blocks of a cluster, if they can be had.
    pub const PREFERRED_CLUSTER_DIMENSION: u32 = 11;
    /// Event recorded at the end of the launch; handle at 0.
    pub const LAUNCH_COMPLETION_EVENT: u32 = 12;
    /// Share of L1 for shared memory.
    pub const PREFERRED_SHARED_MEMORY_CARVEOUT: u32 = 14;
    /// Blocks near each other on NVLink.
    pub const NVLINK_UTIL_CENTRIC_SCHEDULING: u32 = 16;
    /// The last that CUDA 13.0 knows.
    pub const LAST: u32 = 16;
    /// All that streams have.
    pub const OF_STREAMS: [u32; 6] = [
        ACCESS_POLICY_WINDOW,
        SYNCHRONIZATION_POLICY,
        PRIORITY,
        MEM_SYNC_DOMAIN_MAP,
        MEM_SYNC_DOMAIN,
        NVLINK_UTIL_CENTRIC_SCHEDULING,
    ];
    /// Whether the guest may send the attribute. A device-updatable kernel node (13) would need a reply.
    #[must_use]
    pub const fn travels(id: u32) -> bool {
        matches!(
            id,
            ACCESS_POLICY_WINDOW
                | COOPERATIVE
                | CLUSTER_DIMENSION
                | CLUSTER_SCHEDULING_POLICY
                | PROGRAMMATIC_STREAM_SERIALIZATION
                | PROGRAMMATIC_EVENT
                | PRIORITY
                | MEM_SYNC_DOMAIN_MAP
                | MEM_SYNC_DOMAIN
                | PREFERRED_CLUSTER_DIMENSION
                | LAUNCH_COMPLETION_EVENT
                | PREFERRED_SHARED_MEMORY_CARVEOUT
                | NVLINK_UTIL_CENTRIC_SCHEDULING
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::ImageHandle;
    use crate::wire::{from_slice, to_vec};

    fn shape() -> LaunchShape {
        LaunchShape {
            function: FunctionHandle::of_image(ImageHandle::new(0, 1), 2),
            stream: Stream::Legacy,
            grid: [1, 2, 3],
            block: [4, 5, 6],
            shared_bytes: 7,
        }
    }

    #[test]
    fn comes_back_whole_and_every_cut_is_an_error() {
        let mut buffer = BUFFER_FEW;
        let cluster = LaunchAttribute { id: attribute::CLUSTER_DIMENSION, value: [2; 64] };
        let attributes = LaunchAttributes::pack([Ok(cluster)], &mut buffer).unwrap();
        let launch = Launch { shape: shape(), attributes, params: &[1, 2, 3] };
        let bytes = to_vec(&launch);
        assert_eq!(from_slice::<Launch<'_>>(&bytes), Ok(launch.clone()));
        assert_eq!(launch.attributes.iter().collect::<Vec<_>>(), [cluster]);
        for cut in 0..bytes.len() {
            assert!(from_slice::<Launch<'_>>(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn one_attribute_too_many_is_refused() {
        let mut buffer = BUFFER_MAX;
        let one = Ok(LaunchAttribute { id: 2, value: [0; 64] });
        assert!(LaunchAttributes::pack([one; ATTRIBUTES_MAX], &mut buffer).is_ok());
        assert!(LaunchAttributes::pack([one; ATTRIBUTES_MAX + 1], &mut buffer).is_err());
    }

    #[test]
    fn a_parameter_block_larger_than_cuda_knows_is_refused() {
        let params = vec![0; PARAM_BYTES_MAX + 1];
        let launch = Launch { shape: shape(), attributes: LaunchAttributes::default(), params: &params };
        assert_eq!(from_slice::<Launch<'_>>(&to_vec(&launch)), Err(WireError::BadValue("parameter block")));
    }
}
