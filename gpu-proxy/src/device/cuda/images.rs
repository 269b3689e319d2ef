//! Modules and libraries of the driver, their kernels and variables.
#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "one call for modules or its twin for libraries: one of them runs"
)]

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;

use vgpu_api::{Attributes, CuError, CuResult, DevicePtr, FunctionInfo, GlobalInfo, ImageKind, ParamInfo};

use super::table::{NULL, Ptr, Table};
use super::{Cuda, Pointer, number};
use crate::device::{Images as DeviceImages, LoadError, LoadedImage, Raw, Survey};

/// The compiler's words that are kept.
const LOG_BYTES: usize = 8 << 10;
/// `CU_JIT_ERROR_LOG_BUFFER` and its size. Source: cuda.h, `CUjit_option`.
const LOG_OPTIONS: [c_int; 2] = [5, 6];
/// Parameters that a kernel can have: 4-byte ones in the largest block there is.
const PARAMS_MAX: usize = 8192;

/// What is loaded.
#[derive(Debug, Default)]
pub struct Images {
    by_name: HashMap<u64, Image>,
    last: u64,
}

#[derive(Debug)]
struct Image {
    pointer: Pointer,
    kind: ImageKind,
    /// Functions of a module, kernels of a library.
    functions: Vec<Pointer>,
    /// Names of its variables, in the order in which they were told.
    variables: Vec<CString>,
}

impl Images {
    /// Loads an image into the current context, or for a library into the process. The driver has no list of an image's variables: it
    /// is asked for `variables`.
    ///
    /// # Errors
    /// The driver's, with its compiler's words.
    pub fn load(
        &mut self,
        table: &Table,
        kind: ImageKind,
        bytes: &[u8],
        variables: &[CString],
    ) -> Result<LoadedImage, LoadError> {
        let plain = |code| LoadError { code, log: String::new() };
        if self.last >= u64::from(u32::MAX) {
            return Err(plain(CuError::OUT_OF_MEMORY));
        }
        // PTX is a C string for the driver: without an end of its own it would read on.
        let image: Vec<u8> = bytes.iter().copied().chain([0]).collect();
        let pointer = load(table, kind, &image)?;
        let functions = functions(table, kind, pointer).map_err(|code| {
            end(table, kind, pointer);
            plain(code)
        })?;
        self.last += 1;
        let name = self.last << 16;
        let infos = functions.iter().zip(0..=0xffff);
        let infos =
            infos.map(|(function, place)| (info(table, kind, function.0), Raw(name | place))).collect();
        let found = |variable: &CString| {
            find_global(table, kind, pointer, variable).map(|global| (variable.clone(), global))
        };
        let (variables, globals) = variables.iter().filter_map(found).unzip();
        self.by_name.insert(name, Image { pointer: Pointer(pointer), kind, functions, variables });
        Ok(LoadedImage { raw: Raw(name), functions: infos, globals })
    }

    /// The addresses of a library's variables in the current context, whose device has the library loaded by that.
    ///
    /// # Errors
    /// It is not there, is no library, or the driver could not load it.
    pub fn variables(&self, table: &Table, image: Raw) -> CuResult<Vec<u64>> {
        let image = self.by_name.get(&image.0).filter(|image| image.kind == ImageKind::Library);
        let image = image.ok_or(CuError::INVALID_HANDLE)?;
        let address = |variable: &CString| {
            let global = find_global(table, image.kind, image.pointer.0, variable);
            global.map(|global| global.address.0).ok_or(CuError::OUT_OF_MEMORY)
        };
        image.variables.iter().map(address).collect()
    }

    /// Ends an image.
    ///
    /// # Errors
    /// It is not there.
    pub fn unload(&mut self, table: &Table, image: Raw) -> CuResult<()> {
        let image = self.by_name.remove(&image.0).ok_or(CuError::INVALID_HANDLE)?;
        end(table, image.kind, image.pointer.0);
        Ok(())
    }

    /// The driver's module.
    ///
    /// # Errors
    /// It is not there, or is a library.
    pub fn module(&self, image: Raw) -> CuResult<Ptr> {
        let image = self.by_name.get(&image.0).filter(|image| image.kind == ImageKind::Module);
        image.map(|image| image.pointer.0).ok_or(CuError::INVALID_HANDLE)
    }

    /// The driver's function in the current context.
    ///
    /// # Errors
    /// It is not there, or the driver could not load it.
    pub fn function(&self, table: &Table, name: Raw) -> CuResult<Ptr> {
        let image = self.by_name.get(&(name.0 & !0xffff)).ok_or(CuError::INVALID_HANDLE)?;
        let pointer = image.functions.get((name.0 & 0xffff) as usize).ok_or(CuError::INVALID_HANDLE)?.0;
        if image.kind == ImageKind::Module {
            return Ok(pointer);
        }
        let mut function = NULL;
        // SAFETY: a live kernel of ours; the driver writes a pointer to a variable of ours.
        unsafe { table.cuKernelGetFunction(&raw mut function, pointer) }?;
        Ok(function)
    }
}

/// `image` ends with a NUL.
fn load(table: &Table, kind: ImageKind, image: &[u8]) -> Result<Ptr, LoadError> {
    let mut pointer = NULL;
    let mut log = vec![0_u8; LOG_BYTES];
    let (mut options, data) = (LOG_OPTIONS, image.as_ptr().cast());
    // The driver takes numbers and pointers in the same array.
    let mut values = [log.as_mut_ptr().cast(), ptr::without_provenance_mut(LOG_BYTES)];
    let (keys, values) = (options.as_mut_ptr(), values.as_mut_ptr());
    let loaded = match kind {
        // SAFETY: the image is the guest's and may be anything: the driver's parsers are trusted with this process, and this
        // process with nothing else. The log's size is given; the driver writes a pointer to a variable of ours.
        ImageKind::Module => unsafe { table.cuModuleLoadDataEx(&raw mut pointer, data, 2, keys, values) },
        // SAFETY: as above.
        ImageKind::Library => unsafe {
            table.cuLibraryLoadData(
                &raw mut pointer,
                data,
                keys,
                values,
                2,
                ptr::null_mut(),
                ptr::null_mut(),
                0,
            )
        },
    };
    let text = log.split(|byte| *byte == 0).next().unwrap_or_default();
    loaded
        .map(|()| pointer)
        .map_err(|code| LoadError { code, log: String::from_utf8_lossy(text).into_owned() })
}

fn end(table: &Table, kind: ImageKind, pointer: Ptr) {
    // SAFETY: a live image of ours, named no more. What the driver refuses to unload dies with the worker.
    let _ = unsafe {
        match kind {
            ImageKind::Module => table.cuModuleUnload(pointer),
            ImageKind::Library => table.cuLibraryUnload(pointer),
        }
    };
}

fn functions(table: &Table, kind: ImageKind, pointer: Ptr) -> CuResult<Vec<Pointer>> {
    let mut count = 0;
    // SAFETY: a live image of ours; the driver writes one number.
    unsafe {
        match kind {
            ImageKind::Module => table.cuModuleGetFunctionCount(&raw mut count, pointer),
            ImageKind::Library => table.cuLibraryGetKernelCount(&raw mut count, pointer),
        }
    }?;
    if count as usize > vgpu_api::handle::FUNCTIONS_MAX {
        return Err(CuError::INVALID_IMAGE);
    }
    let mut pointers = vec![NULL; count as usize];
    // SAFETY: as above; the array has room for as many as are asked for.
    unsafe {
        match kind {
            ImageKind::Module => table.cuModuleEnumerateFunctions(pointers.as_mut_ptr(), count, pointer),
            ImageKind::Library => table.cuLibraryEnumerateKernels(pointers.as_mut_ptr(), count, pointer),
        }
    }?;
    Ok(pointers.into_iter().map(Pointer).collect())
}

/// What the guest is told. Attributes are left out: asking for them would load each kernel.
fn info(table: &Table, kind: ImageKind, function: Ptr) -> FunctionInfo {
    let mut name: *const c_char = ptr::null();
    // SAFETY: a live function of ours; the driver writes a pointer to a string of its own.
    let named = unsafe {
        match kind {
            ImageKind::Module => table.cuFuncGetName(&raw mut name, function),
            ImageKind::Library => table.cuKernelGetName(&raw mut name, function),
        }
    };
    let name = if named.is_err() || name.is_null() {
        String::new()
    } else {
        // SAFETY: the driver's string ends with a NUL and lives as long as its function.
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
    };
    let params = (0..PARAMS_MAX).map_while(|index| param(table, kind, function, index)).collect();
    FunctionInfo { name, params, attributes: Attributes::default() }
}

/// `None` past the last.
fn param(table: &Table, kind: ImageKind, function: Ptr, index: usize) -> Option<ParamInfo> {
    let (mut offset, mut bytes) = (0, 0);
    // SAFETY: a live function of ours; the driver writes two numbers. An index past the end is an error.
    let found = unsafe {
        match kind {
            ImageKind::Module => table.cuFuncGetParamInfo(function, index, &raw mut offset, &raw mut bytes),
            ImageKind::Library => {
                table.cuKernelGetParamInfo(function, index, &raw mut offset, &raw mut bytes)
            }
        }
    };
    found.ok()?;
    Some(ParamInfo { offset: u32::try_from(offset).ok()?, bytes: u32::try_from(bytes).ok()? })
}

fn find_global(table: &Table, kind: ImageKind, image: Ptr, name: &CStr) -> Option<GlobalInfo> {
    let (mut address, mut bytes) = (0, 0);
    // SAFETY: a live image of ours and a C string; the driver writes two numbers. A name it does not know is an error.
    let found = unsafe {
        match kind {
            ImageKind::Module => {
                table.cuModuleGetGlobal_v2(&raw mut address, &raw mut bytes, image, name.as_ptr())
            }
            ImageKind::Library => {
                table.cuLibraryGetGlobal(&raw mut address, &raw mut bytes, image, name.as_ptr())
            }
        }
    };
    found.ok()?;
    Some(GlobalInfo {
        name: name.to_string_lossy().into_owned(),
        address: DevicePtr(address),
        bytes: bytes as u64,
    })
}

impl DeviceImages for Cuda {
    fn survey(&self, bytes: &[u8]) -> CuResult<Survey> {
        Survey::of(bytes, self.capability)
    }

    fn chosen(&self, image: &[u8]) -> Result<vgpu_soft::Chosen, LoadError> {
        Ok(vgpu_soft::chosen(image, self.capability, true)?)
    }

    fn load(
        &mut self,
        context: Option<Raw>,
        kind: ImageKind,
        bytes: &[u8],
        survey: Survey,
    ) -> Result<LoadedImage, LoadError> {
        let entered = context
            .map_or_else(|| self.first_primary(), Ok)
            .and_then(|context| self.enter(context).map(|()| context));
        let context = entered.map_err(|code| LoadError { code, log: String::new() })?;
        let mut loaded = self.images.load(&self.table, kind, bytes, &survey.variables)?;
        // A module of one kernel is what a program has compiled to launch it, and asks about first: that one need not be asked for. All
        // others stay as lazily loaded as the driver has them.
        if let (ImageKind::Module, [(info, function)]) = (kind, &mut loaded.functions[..]) {
            info.attributes = self.function_attributes(context, *function).unwrap_or_default();
        }
        Ok(loaded)
    }

    fn load_on(&mut self, context: Raw, image: Raw) -> CuResult<Vec<u64>> {
        self.enter(context)?;
        self.images.variables(&self.table, image)
    }

    fn unload(&mut self, image: Raw) -> CuResult<()> {
        self.images.unload(&self.table, image)
    }

    fn function_attributes(&mut self, context: Raw, function: Raw) -> CuResult<Attributes> {
        self.enter(context)?;
        let function = self.images.function(&self.table, function)?;
        // SAFETY: a live function of ours. One that was only enumerated has no attributes yet (919, CUDA's lazy loading).
        unsafe { self.table.cuFuncLoad(function) }?;
        let mut values = vec![0; vgpu_api::image::FUNCTION_ATTRIBUTES];
        for (value, attribute) in values.iter_mut().zip(0..) {
            // SAFETY: a live function of ours; the driver writes one number. An old driver does not know all: then 0.
            let _ = unsafe { self.table.cuFuncGetAttribute(ptr::from_mut(value), attribute, function) };
        }
        Ok(Attributes { values })
    }

    fn set_function_attribute(
        &mut self,
        context: Raw,
        function: Raw,
        attribute: u32,
        value: i32,
    ) -> CuResult<()> {
        self.enter(context)?;
        let function = self.images.function(&self.table, function)?;
        // SAFETY: a live function of ours.
        unsafe { self.table.cuFuncSetAttribute(function, number(attribute)?, value) }
    }
}
