//! What a worker drives: NVIDIA's driver, the software GPU, or nothing at all. Start at [`Device`].
//!
//! A device is never reached by a guest's bytes directly: the session (`worker/session`) has resolved handles to [`Raw`] values
//! that the device itself gave out, and has checked every address and length against its allocation map and the quota.
//! Nothing here knows rings, handles of guests or grants.

mod array;
mod conditional;
mod context;
mod costs;
#[expect(unsafe_code, reason = "NVIDIA's driver is C")]
mod cuda;
mod describe;
mod event;
mod execution;
mod graph;
mod green;
mod host;
mod image;
mod imitation;
mod linker;
mod memory;
mod null;
mod pass_through;
mod reference;
mod sharing;
mod soft;
mod stream;
mod survey;
mod tensor_map;
mod virtual_memory;

use std::fmt;

use serde::{Deserialize, Serialize};
use vgpu_api::Snapshot;

pub use array::{Arrays, Side, TexelSource, TextureSource};
pub use context::{COSTLY_LIMITS, Contexts};
pub use costs::{Costs, Meter};
pub use cuda::library_folders;
pub use describe::{Described, Hardware, describe, identity};
pub use event::Events;
pub use execution::{DeviceLaunch, Execution, HostFunction};
pub use graph::{DeviceNode, DeviceWork, GraphFunction, Graphs};
pub use green::GreenContexts;
pub use host::HostPages;
pub use image::{Images, LOCAL_BYTES, LoadError, LoadedImage};
pub use linker::Linkers;
pub use memory::Memory;
pub use null::{Null, Step};
pub use reference::References;
pub use sharing::{Exported, Shareable, Sharing};
pub use soft::Soft;
pub use stream::Streams;
pub use survey::{Managed, Placed, Survey};
#[cfg(test)]
pub(crate) use survey::{cubin, managed_cubin};
pub use tensor_map::TensorMaps;
pub use virtual_memory::VirtualMemory;

/// Which device a worker drives. What `auto` means has been decided by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// NVIDIA's driver.
    Cuda,
    /// PTX on the CPU.
    Soft,
    /// Accepts everything, computes nothing.
    Null,
}

impl DeviceKind {
    /// Device memory of a context with nothing in it, in bytes.
    #[must_use]
    pub const fn context_bytes(self) -> u64 {
        match self {
            // Measured on an H100 with driver 580.
            Self::Cuda => 518 << 20,
            Self::Soft | Self::Null => 0,
        }
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cuda => "cuda",
            Self::Soft => "soft",
            Self::Null => "null",
        })
    }
}

/// A device's own name of a thing: a context, stream, event, image or function. Never leaves the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Raw(pub u64);

/// Where a call runs.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The context.
    pub context: Raw,
    /// A stream of that context; `None` is its legacy default stream.
    pub stream: Option<Raw>,
}

/// A GPU, or several. One worker has them, alone: devices are numbered from 0, and have one space of addresses. Every method may block as
/// long as the GPU does, but for the queued ones of `cuda`. What fails gives the `CUresult` that the program gets; a sticky one
/// ([`vgpu_api::CuError::is_sticky`]) ends the context.
pub trait Device:
    Arrays
    + Contexts
    + Events
    + Execution
    + Graphs
    + GreenContexts
    + Images
    + Linkers
    + Memory
    + References
    + Sharing
    + Streams
    + TensorMaps
    + VirtualMemory
    + fmt::Debug
    + Send
{
    /// What programs ask before they have a context. `bytes` are the grants, one a device: none shows more memory than that.
    fn snapshot(&self, bytes: &[u64]) -> Snapshot;
    /// What uses a device's memory beside allocations: the most that one takes, if they differ.
    fn costs(&self) -> Costs;
    /// Has what it does told from now on. `false`: it does not count that.
    fn set_meter(&mut self, _meter: Meter) -> bool {
        false
    }
}

/// Opens a worker's devices, the first so many. `bytes` is the grant of each.
///
/// # Errors
/// One sentence for the log.
pub fn open(kind: DeviceKind, devices: u32, bytes: u64) -> Result<Box<dyn Device>, String> {
    match kind {
        DeviceKind::Null => Ok(Box::new(Null::default().with_devices(devices))),
        DeviceKind::Soft => match Soft::with_devices(devices, bytes) {
            Ok(soft) => Ok(Box::new(soft)),
            Err(error) => Err(format!("the soft device cannot start: {error}")),
        },
        DeviceKind::Cuda => cuda::Cuda::open(devices).map(|cuda| Box::new(cuda) as Box<dyn Device>),
    }
}
