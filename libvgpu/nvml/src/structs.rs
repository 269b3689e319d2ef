//! Structures of nvml.h (CUDA 13.0), with their layouts held.

use std::ffi::c_char;

use crate::abi::Out;
use crate::result::NvmlResult;

/// The first byte of [`PciInfo`] that is no part of the structure by its first name, and by its second.
pub const PCI_V1_BYTES: usize = 32;
pub const PCI_V2_BYTES: usize = 36;

/// `NVML_STRUCT_VERSION`: the structure's size and its version in the top byte.
pub const fn version_of<T>(version: u32) -> u32 {
    // Each structure here is smaller than 4 GiB by far.
    #[expect(clippy::cast_possible_truncation, reason = "a few bytes")]
    let size = size_of::<T>() as u32;
    size | version << 24
}

macro_rules! layouts {
    ($($(#[$doc:meta])* $bytes:literal struct $name:ident { $($field:ident: $t:ty,)* })*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        #[repr(C)]
        pub struct $name { $(pub $field: $t,)* }
        const _: () = assert!(size_of::<$name>() == $bytes);
    )* };
}

layouts! {
    /// `nvmlPciInfo_t`.
    68 struct PciInfo {
        bus_id_legacy: [c_char; 16],
        domain: u32,
        bus: u32,
        device: u32,
        device_id: u32,
        subsystem_id: u32,
        bus_id: [c_char; 32],
    }
    /// `nvmlPciInfoExt_v1_t`.
    64 struct PciInfoExt {
        version: u32,
        domain: u32,
        bus: u32,
        device: u32,
        device_id: u32,
        subsystem_id: u32,
        base_class: u32,
        sub_class: u32,
        bus_id: [c_char; 32],
    }
    /// `nvmlMemory_t`, bytes.
    24 struct Memory {
        total: u64,
        free: u64,
        used: u64,
    }
    /// `nvmlMemory_v2_t`, bytes.
    40 struct MemoryV2 {
        version: u32,
        total: u64,
        reserved: u64,
        free: u64,
        used: u64,
    }
    /// `nvmlProcessInfo_v1_t`.
    16 struct ProcessV1 {
        pid: u32,
        used_bytes: u64,
    }
    /// `nvmlProcessInfo_v2_t`.
    24 struct ProcessV2 {
        pid: u32,
        used_bytes: u64,
        gpu_instance: u32,
        compute_instance: u32,
    }
    /// `nvmlProcessDetail_v1_t`.
    32 struct ProcessDetail {
        pid: u32,
        used_bytes: u64,
        gpu_instance: u32,
        compute_instance: u32,
        protected_bytes: u64,
    }
    /// `nvmlProcessDetailList_v1_t`.
    24 struct ProcessDetailList {
        version: u32,
        mode: u32,
        count: u32,
        list: Out<ProcessDetail>,
    }
    /// `nvmlUUID_v1_t`: the union of a text and of the bytes.
    52 struct Uuid {
        version: u32,
        kind: u32,
        value: [u8; 41],
    }
    /// `nvmlFieldValue_t`.
    40 struct FieldValue {
        field: u32,
        scope: u32,
        timestamp: i64,
        latency: i64,
        kind: u32,
        result: u32,
        value: u64,
    }
    /// `nvmlConfComputeSystemState_t`.
    12 struct ConfComputeState {
        environment: u32,
        feature: u32,
        dev_tools: u32,
    }
    /// `nvmlSystemConfComputeSettings_v1_t`.
    20 struct ConfComputeSettings {
        version: u32,
        environment: u32,
        feature: u32,
        dev_tools: u32,
        multi_gpu: u32,
    }
    /// `nvmlGpuFabricInfo_t`.
    28 struct Fabric {
        cluster: [u8; 16],
        status: u32,
        clique: u32,
        state: u8,
    }
    /// `nvmlGpuFabricInfo_v2_t`.
    36 struct FabricV2 {
        version: u32,
        cluster: [u8; 16],
        status: u32,
        clique: u32,
        state: u8,
        health: u32,
    }
    /// `nvmlGpuFabricInfo_v3_t`.
    40 struct FabricV3 {
        version: u32,
        cluster: [u8; 16],
        status: u32,
        clique: u32,
        state: u8,
        health: u32,
        summary: u8,
    }
}

impl PciInfo {
    /// The address of no device, as NVIDIA's library has it for a switch that is not there.
    pub fn nowhere() -> Self {
        Self {
            bus_id_legacy: chars("FFFFFFF:FF:FF.0"),
            domain: u32::MAX,
            bus: 0xff,
            device: 0xff,
            device_id: 0,
            subsystem_id: u32::MAX,
            bus_id: chars("FFFFFFFF:FF:FF.0"),
        }
    }

    /// Its start, as long as programs of another time have room for.
    pub fn set_first(&self, bytes: usize, place: Out<Self>) -> NvmlResult<()> {
        let legacy = self.bus_id_legacy.iter().map(|letter| letter.cast_unsigned());
        let words = [self.domain, self.bus, self.device, self.device_id, self.subsystem_id];
        place.cast::<u8>().set_all(legacy.chain(words.into_iter().flat_map(u32::to_ne_bytes)).take(bytes))
    }
}

/// A text in a fixed array, with its NUL; cut to fit.
pub fn chars<const N: usize>(text: &str) -> [c_char; N] {
    let mut chars = [0; N];
    let kept = text.bytes().take(N.saturating_sub(1));
    chars.iter_mut().zip(kept).for_each(|(place, byte)| *place = byte.cast_signed());
    chars
}
