//! The one declaration of the CUDA driver calls, used by both ends: `libvgpu` in the guest and the worker in `gpu-proxy`.
//!
//! Start at [`calls`]: one line per call that travels. From it come the operation numbers ([`Op`]), the guest's side
//! ([`ask`]), the worker's trait ([`Driver`]) and [`dispatch`].
//!
//! The rule: bytes that come from the peer cause errors ([`WireError`]), never a panic, and no length is believed before
//! it was compared with what is really there.
//!
//! Not here: any call's behaviour, transports (`idm`), addresses and quotas (the worker).
#![forbid(unsafe_code)]

pub mod array;
mod call_macro;
pub mod calls;
pub mod descriptors;
pub mod graph;
pub mod green;
pub mod handle;
pub mod hash;
pub mod host_function;
#[cfg(any(test, feature = "hostile"))]
pub mod hostile;
pub mod image;
pub mod launch;
pub mod link;
pub mod loopback;
pub mod memory;
pub mod printed;
pub mod result;
pub mod shared;
pub mod snapshot;
pub mod stream_memory;
pub mod surface;
pub mod symbols;
pub mod tensor_map;
pub mod texref;
pub mod texture;
pub mod virtual_memory;
pub mod wire;

pub use array::{ArrayPlace, ArrayShape, BoxSide, Extent, LinearPlace};
pub use calls::{Driver, Op, Refuses, WIRE_HASH, ask, dispatch};
pub use green::{SmGroups, SmResource, SmSource, SmSplit};
pub use handle::{
    ArrayHandle, ContextId, EventHandle, FunctionHandle, GoneHandle, GraphExecHandle, GraphHandle,
    GraphNodeHandle, Handle, ImageHandle, LinkerHandle, MemoryHandle, MipmapHandle, NewHandle, PoolHandle,
    Stream, StreamHandle, SurfRefHandle, TexRefHandle, kind,
};
pub use image::{Attributes, FunctionInfo, GlobalInfo, ImageInfo, ImageKind, ManagedImage, ParamInfo};
pub use launch::{Launch, LaunchAttribute};
pub use link::{JitOption, LinkTold};
pub use memory::{CopyWord, DevicePtr, MemInfo, Memset, Staged};
pub use printed::{PRINTED, Printed};
pub use result::{CuError, CuResult};
pub use shared::{PooledPiece, SharedPart, Token};
pub use snapshot::{DeviceSnapshot, PciAddress, Snapshot};
pub use stream_memory::{MemoryOp, MemoryOpKind};
pub use tensor_map::{TensorMap, TensorSpec};
pub use texref::{SamplerField, SamplerSetting};
pub use texture::{Object, Texture};
pub use virtual_memory::Access;
pub use wire::{Reader, Wire, WireError, Writer};

/// The newest CUDA version that the guest's libraries answer for: 1000·major + 10·minor.
pub const CUDA_VERSION: u32 = 13_000;

/// What a call carries beside its parameters: where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The context that was current in the calling thread, or [`ContextId::NONE`].
    pub context: ContextId,
    /// The caller waits for a reply; else an error goes to the shared error word.
    pub sync: bool,
}

/// How the guest sends calls. `libvgpu` implements it over `idm`, tests over a [`Driver`] in the same process.
pub trait Transport {
    /// Queues a call without waiting. `fill` writes exactly `size` bytes.
    /// # Errors
    /// The worker is gone, or the call is larger than a record.
    fn send(
        &self,
        op: Op,
        context: ContextId,
        size: usize,
        fill: impl FnOnce(&mut Writer<'_>),
    ) -> CuResult<()>;

    /// Sends a call, waits, and hands the reply's payload (at most [`wire::REPLY_BYTES_MAX`]) to `take`.
    /// # Errors
    /// The worker's answer, or that it is gone.
    fn call<T>(
        &self,
        op: Op,
        context: ContextId,
        size: usize,
        fill: impl FnOnce(&mut Writer<'_>),
        take: impl FnOnce(&mut Reader<'_>) -> Result<T, WireError>,
    ) -> CuResult<T>;
}
