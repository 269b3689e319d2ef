//! A GPU in software: PTX, as nvcc writes it, run on the CPU with every access to memory checked.
//!
//! Start at [`Device`]; the way of a kernel is [`Module::load`] (`image/`, `ptx/`, `code/`) → [`Device::instantiate`] (its
//! globals get addresses) → [`Device::launch`] (`exec/`).
//! It exists so that results, sticky errors and isolation can be tried without a GPU: results are exact where PTX is exact, and
//! an access outside an allocation is a [`Fault`], always. It is not fast and does no I/O; what kernels print waits in
//! [`Device::take_output`].
//! The rule: images and kernels come from a hostile guest. Nothing they hold makes this crate panic, allocate by their word
//! alone or touch anything but the device's memory.
#![forbid(unsafe_code)]

mod attributes;
mod block;
mod code;
mod conditions;
mod device;
mod exec;
mod fault;
mod image;
mod memory;
mod module;
mod ptx;
mod texture;

pub use attributes::*;
pub use block::SharedWords;
pub use conditions::Conditions;
pub use device::{Device, DeviceConfig, Instance, LaunchConfig, Meter};
pub use fault::{Access, Fault};
pub use image::{
    Chosen, ImageError, chosen, each_machine_code, each_ptxs_variables, managed_variables, place_managed,
};
pub use memory::{ALIGN, MAPPING_ALIGN, Memory, MemoryError, Protection};
pub use module::{FunctionInfo, GlobalInfo, Module, Parameter, ReferenceInfo};
pub use ptx::ManagedVariable;
pub use texture::{AddressMode, ChannelKind, Level, Sampler, Surface, Texel, Texture};
