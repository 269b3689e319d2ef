//! Tensor maps, the descriptors of TMA copies: the driver encodes them, in a form that nobody else knows.

use crate::memory::DevicePtr;
use crate::wire::{Reader, Wire, WireError, Writer, wire_struct};

/// Bytes of a `CUtensorMap`.
pub const TENSOR_MAP_BYTES: usize = 128;
/// Dimensions at most.
pub const RANK_MAX: usize = 5;

/// `CUtensorMap`: opaque.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorMap(pub [u8; TENSOR_MAP_BYTES]);

impl Wire<'_> for TensorMap {
    fn size(&self) -> usize {
        TENSOR_MAP_BYTES
    }
    fn put(&self, writer: &mut Writer<'_>) {
        writer.bytes(&self.0);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        reader.array().map(Self)
    }
}

/// How elements are found: number, then the corners that its call takes.
pub mod form {
    /// `cuTensorMapEncodeTiled`.
    pub const TILED: u32 = 0;
    /// `cuTensorMapEncodeIm2col`.
    pub const IM2COL: u32 = 1;
    /// `cuTensorMapEncodeIm2colWide`.
    pub const IM2COL_WIDE: u32 = 2;
}

wire_struct! {
    /// The parameters of the three encoding calls. The rank is the number of `dims`.
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    pub struct TensorSpec {
        /// See [`form`].
        pub form: u32,
        /// `CUtensorMapDataType`.
        pub data_type: u32,
        /// Where the tensor begins.
        pub address: DevicePtr,
        /// Elements of each dimension.
        pub dims: Vec<u64>,
        /// Bytes from one to the next in each dimension but the first.
        pub strides: Vec<u64>,
        /// Elements to the next one that is copied, in each dimension.
        pub element_strides: Vec<u32>,
        /// Tiled: elements of a box in each dimension. Else none.
        pub boxes: Vec<u32>,
        /// Corners of the pixels' box: `rank - 2` of them for im2col, one for the wide form, else none.
        pub lower: Vec<i32>,
        /// The other corners.
        pub upper: Vec<i32>,
        /// Channels of a pixel, and pixels of a column; 0 for tiled.
        pub channels: u32,
        /// See there.
        pub pixels: u32,
        /// `CUtensorMapInterleave`.
        pub interleave: u32,
        /// `CUtensorMapIm2ColWideMode`; 0 for others.
        pub mode: u32,
        /// `CUtensorMapSwizzle`.
        pub swizzle: u32,
        /// `CUtensorMapL2promotion`.
        pub promotion: u32,
        /// `CUtensorMapFloatOOBfill`.
        pub fill: u32,
    }
}

impl TensorSpec {
    /// Whether there are as many of everything as the form and the rank ask for.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let rank = self.dims.len();
        let (ranks, boxes, corners) = match self.form {
            form::TILED => (1..=RANK_MAX, rank, 0),
            form::IM2COL => (3..=RANK_MAX, 0, rank.saturating_sub(2)),
            form::IM2COL_WIDE => (3..=RANK_MAX, 0, 1),
            _ => return false,
        };
        ranks.contains(&rank)
            && self.strides.len() == rank - 1
            && self.element_strides.len() == rank
            && self.boxes.len() == boxes
            && self.lower.len() == corners
            && self.upper.len() == corners
    }
}
