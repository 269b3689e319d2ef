//! A loaded image: what a program may ask of it, and the code that launches run.

use std::sync::Arc;

use crate::code::Program;
use crate::image::{self, ImageError};
use crate::{attributes, code, ptx};

/// One kernel parameter: where it lies in the packed parameter buffer. Both in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// Its first byte.
    pub offset: u32,
    /// Its length.
    pub size: u32,
}

/// One kernel of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionInfo {
    /// Its name, as `cuModuleGetFunction` looks for it.
    pub name: String,
    /// Its parameters in order.
    pub parameters: Vec<Parameter>,
    /// Length of the packed parameter buffer in bytes.
    pub parameter_bytes: u32,
    /// Most threads a block of it may have (`.maxntid`, else the device's limit).
    pub max_threads: u32,
    /// Shared memory it has of its own, in bytes.
    pub static_shared_bytes: u32,
    /// Local memory of one thread in bytes.
    pub local_bytes: u32,
    /// Registers of a thread: a guess for occupancy, as there is no register file here.
    pub registers: u32,
}

/// One variable of a module in device memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalInfo {
    /// Its name, as `cuModuleGetGlobal` looks for it.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// What its address is a multiple of.
    pub align: u64,
    /// Whether it lies in constant memory.
    pub constant: bool,
    /// Whether host and device are to share it (`__managed__`). Here it is memory of the device like any other.
    pub managed: bool,
}

/// A texture or surface reference of a module: a name in its code for what the host binds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceInfo {
    /// Its name, as `cuModuleGetTexRef` and `cuModuleGetSurfRef` look for it.
    pub name: String,
    /// Whether it is a surface's.
    pub is_surface: bool,
}

/// A loaded image. Cheap to clone; it holds no device memory.
#[derive(Debug, Clone)]
pub struct Module {
    pub(crate) program: Arc<Program>,
}

impl Module {
    /// Loads PTX text (up to its first NUL), or a raw fatbin that holds PTX for this device.
    /// # Errors
    /// [`ImageError`]: which says what was wrong and on which line; its `cu_result` is the driver's number.
    pub fn load(image: &[u8]) -> Result<Self, ImageError> {
        let text = image::ptx_of(image, attributes::COMPUTE_CAPABILITY)?;
        let parsed = ptx::parse(&text)?;
        Ok(Self { program: Arc::new(code::compile(&parsed)?) })
    }

    /// The kernels, in the order of the image. The index is what [`crate::Device::launch`] takes.
    pub fn functions(&self) -> &[FunctionInfo] {
        &self.program.kernels
    }

    /// The variables that have an address, in the order of the image; the same order as [`crate::Instance::addresses`].
    pub fn globals(&self) -> &[GlobalInfo] {
        &self.program.globals
    }

    /// The texture and surface references, in the order of the image; the same order as [`crate::Instance::references`].
    pub fn references(&self) -> &[ReferenceInfo] {
        &self.program.references
    }
}
