//! Modules and libraries: what a load answers, so that all else about their functions is answered in the guest.

use crate::memory::DevicePtr;
use crate::wire::{Reader, Wire, WireError, Writer, wire_struct};

/// Number of `CUfunction_attribute` values, 0 to 15. Source: cuda.h.
pub const FUNCTION_ATTRIBUTES: usize = 16;

/// Uploads that the worker keeps so that they need not travel again: bytes of one, how many, bytes of all. Programs that compile kernels
/// load small images again and again; the large ones of libraries are loaded once.
pub const KEPT_IMAGE_BYTES_MAX: usize = 1 << 20;
/// See [`KEPT_IMAGE_BYTES_MAX`].
pub const KEPT_IMAGES_MAX: usize = 256;
/// See [`KEPT_IMAGE_BYTES_MAX`].
pub const KEPT_BYTES_MAX: usize = 16 << 20;

/// A block for managed variables begins at a multiple of so many bytes.
pub const MANAGED_ALIGN: u64 = 512;

/// Which call loads the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ImageKind {
    /// `cuModuleLoad*`: belongs to the current context.
    Module = 0,
    /// `cuLibraryLoad*`: belongs to the process.
    Library = 1,
}

impl Wire<'_> for ImageKind {
    fn size(&self) -> usize {
        4
    }
    fn put(&self, writer: &mut Writer<'_>) {
        (*self as u32).put(writer);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match u32::take(reader)? {
            0 => Ok(Self::Module),
            1 => Ok(Self::Library),
            _ => Err(WireError::BadValue("image kind")),
        }
    }
}

wire_struct! {
    /// Where one parameter of a kernel lies in its parameter block: `cuFuncGetParamInfo`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ParamInfo {
        /// Bytes from the start of the block.
        pub offset: u32,
        /// Bytes.
        pub bytes: u32,
    }
}

wire_struct! {
    /// `CUfunction_attribute` values by number, [`FUNCTION_ATTRIBUTES`] at most. Empty: not known yet (lazy loading), ask
    /// with `vgpuFunctionAttributes`.
    #[derive(Clone, Debug, PartialEq, Eq, Default)]
    pub struct Attributes {
        /// By number.
        pub values: Vec<i32>,
    }
}

wire_struct! {
    /// One kernel of an image. Its place in the list is the ordinal of its handle.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct FunctionInfo {
        /// As `cuFuncGetName` gives it.
        pub name: String,
        /// In order of the kernel's parameters.
        pub params: Vec<ParamInfo>,
        /// See [`Attributes`].
        pub attributes: Attributes,
    }
}

impl FunctionInfo {
    /// Size of the packed parameter block in bytes: the end of the last parameter.
    #[must_use]
    pub fn param_bytes(&self) -> u64 {
        self.params.iter().map(|param| u64::from(param.offset) + u64::from(param.bytes)).max().unwrap_or(0)
    }
}

wire_struct! {
    /// One variable of an image: `cuModuleGetGlobal`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct GlobalInfo {
        /// Its symbol.
        pub name: String,
        /// Where it lies.
        pub address: DevicePtr,
        /// Bytes.
        pub bytes: u64,
    }
}

wire_struct! {
    /// An image with managed variables, and where they shall lie.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ManagedImage {
        /// Its upload.
        pub upload: u32,
        /// Whether that is kept.
        pub keep: bool,
        /// Their block in the arena, from a multiple of [`MANAGED_ALIGN`] on.
        pub block: DevicePtr,
    }
}

wire_struct! {
    /// What `vgpuImageLoad` writes to staging.
    #[derive(Clone, Debug, PartialEq, Eq, Default)]
    pub struct ImageInfo {
        /// [`crate::handle::FUNCTIONS_MAX`] at most.
        pub functions: Vec<FunctionInfo>,
        /// In any order.
        pub globals: Vec<GlobalInfo>,
        /// Managed variables, which lie in the block that the load named.
        pub managed: Vec<GlobalInfo>,
        /// Not 0: nothing was loaded. It has managed variables, whose block is so long: `vgpuImageLoadManaged` loads it.
        pub block_bytes: u64,
    }
}

impl ImageInfo {
    /// Parses and checks the counts and that no parameter block is larger than a record.
    /// # Errors
    /// Bad bytes or counts.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let info: Self = crate::wire::from_slice(bytes)?;
        let packable =
            |function: &FunctionInfo| function.param_bytes() <= crate::launch::PARAM_BYTES_MAX as u64;
        if info.functions.len() > crate::handle::FUNCTIONS_MAX || !info.functions.iter().all(packable) {
            return Err(WireError::BadValue("functions"));
        }
        Ok(info)
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

    #[test]
    fn comes_back_whole_and_every_cut_is_an_error() {
        let info = ImageInfo {
            functions: vec![FunctionInfo {
                name: "saxpy".into(),
                params: vec![ParamInfo { offset: 0, bytes: 4 }, ParamInfo { offset: 8, bytes: 8 }],
                attributes: Attributes { values: vec![1024; FUNCTION_ATTRIBUTES] },
            }],
            globals: vec![GlobalInfo { name: "table".into(), address: DevicePtr(0x7000_0000), bytes: 64 }],
            managed: vec![GlobalInfo { name: "x".into(), address: DevicePtr(0x6800_0000_0200), bytes: 4 }],
            block_bytes: 0,
        };
        let bytes = info.to_bytes();
        assert_eq!(ImageInfo::parse(&bytes), Ok(info.clone()));
        assert_eq!(info.functions[0].param_bytes(), 16);
        for cut in 0..bytes.len() {
            assert!(ImageInfo::parse(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_parameter_block_that_no_record_holds_is_refused() {
        let mut info = ImageInfo::default();
        info.functions.push(FunctionInfo {
            name: "k".into(),
            params: vec![ParamInfo { offset: u32::MAX, bytes: u32::MAX }],
            attributes: Attributes::default(),
        });
        assert_eq!(ImageInfo::parse(&info.to_bytes()), Err(WireError::BadValue("functions")));
    }
}
