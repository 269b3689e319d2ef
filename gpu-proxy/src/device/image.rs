//! Images as a device loads them: modules and libraries, their functions and variables.

use vgpu_api::{Attributes, CuError, CuResult, FunctionInfo, GlobalInfo, ImageKind};

use vgpu_soft::{Chosen, ImageError};

use super::{Raw, Survey};

/// An image that was loaded.
#[derive(Debug)]
pub struct LoadedImage {
    /// Names it.
    pub raw: Raw,
    /// In the order of their ordinals: what the guest is told, and the device's name.
    pub functions: Vec<(FunctionInfo, Raw)>,
    /// Its variables; they count against the grant.
    pub globals: Vec<GlobalInfo>,
}

/// Why an image was not loaded.
#[derive(Debug)]
pub struct LoadError {
    /// What the program gets.
    pub code: CuError,
    /// The compiler's words, for the program's error log.
    pub log: String,
}

impl From<ImageError> for LoadError {
    fn from(refused: ImageError) -> Self {
        let code = CuError::check(refused.cu_result()).err().unwrap_or(CuError::UNKNOWN);
        Self { code, log: refused.to_string() }
    }
}

/// `CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES` among a function's attributes.
pub const LOCAL_BYTES: usize = 3;

/// The part of a [`super::Device`] that has to do with images.
///
/// # Errors
/// All methods: the `CUresult` that the program gets, as of [`super::Device`].
#[expect(clippy::missing_errors_doc, reason = "said once for all")]
pub trait Images {
    /// Looks at an image before [`Self::load`]. What its variables take is counted by then.
    fn survey(&self, _bytes: &[u8]) -> CuResult<Survey> {
        Ok(Survey::default())
    }
    /// What of an image it would load, one of several that a fatbin may hold: for who changes it before.
    fn chosen(&self, image: &[u8]) -> Result<Chosen, LoadError>;
    /// Loads PTX, a cubin or a fatbin. `context` is `None` for a library that is loaded before there is a context: it is the first
    /// device's then.
    fn load(
        &mut self,
        context: Option<Raw>,
        kind: ImageKind,
        bytes: &[u8],
        survey: Survey,
    ) -> Result<LoadedImage, LoadError>;
    /// Makes a library's functions and variables ready in a context, another one than it was loaded in; the addresses of its variables
    /// there, in the order of [`LoadedImage::globals`]. They end with the library, or with the context if that was created. Again is nothing.
    fn load_on(&mut self, context: Raw, image: Raw) -> CuResult<Vec<u64>>;
    /// Ends an image.
    fn unload(&mut self, image: Raw) -> CuResult<()>;
    /// All attributes of a function.
    fn function_attributes(&mut self, context: Raw, function: Raw) -> CuResult<Attributes>;
    /// Sets a `CUfunction_attribute`.
    fn set_function_attribute(
        &mut self,
        context: Raw,
        function: Raw,
        attribute: u32,
        value: i32,
    ) -> CuResult<()>;
}
