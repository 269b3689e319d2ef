//! Green contexts: a device's multiprocessors, the groups that they are split into, and what a context gets of them.
//!
//! A program holds a `CUdevResource` of 144 bytes and gives it back; what travels is how it was got: whose multiprocessors they are, how
//! those were split, and which part it is. The worker splits them again, and no byte that the program holds is ever a driver's.

use crate::handle::ContextId;
use crate::wire::wire_struct;

/// `CU_DEV_SM_RESOURCE_SPLIT_IGNORE_SM_COSCHEDULING`.
pub const SPLIT_APART: u32 = 1;
/// `CU_DEV_SM_RESOURCE_SPLIT_MAX_POTENTIAL_CLUSTER_SIZE`.
pub const SPLIT_FOR_CLUSTERS: u32 = 2;
/// Groups of one split at most: more than any device has multiprocessors.
pub const GROUPS_MAX: u32 = 1024;
/// As a part's number: what is in no group.
pub const REST: u32 = u32::MAX;

wire_struct! {
    /// `CUdevSmResource`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct SmResource {
        /// Multiprocessors.
        pub count: u32,
        /// The least that a group of them has.
        pub group_min: u32,
        /// What groups have is a multiple of this.
        pub group_step: u32,
    }
}

wire_struct! {
    /// Whose multiprocessors they are.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct SmSource {
        /// The device.
        pub device: u32,
        /// A green context of it whose they are; [`ContextId::NONE`]: all that the device has.
        pub green: ContextId,
    }
}

wire_struct! {
    /// How they are split: `cuDevSmResourceSplitByCount`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct SmSplit {
        /// Groups at most. 0: as many as there can be, to be counted.
        pub groups: u32,
        /// `CUdevSmResourceSplit_flags`.
        pub flags: u32,
        /// Multiprocessors of a group at least.
        pub count_min: u32,
    }
}

wire_struct! {
    /// What a split gives. Groups are all alike.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct SmGroups {
        /// How many.
        pub groups: u32,
        /// Each of them.
        pub each: SmResource,
        /// What is in none.
        pub rest: SmResource,
    }
}
