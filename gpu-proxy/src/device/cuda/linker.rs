//! The driver's linker. It writes what its compiler says into buffers that it was given when the linker was made.

use std::collections::HashMap;
use std::ffi::{CString, c_int, c_uint, c_void};
use std::ptr;

use vgpu_api::link::option;
use vgpu_api::{CuError, CuResult, JitOption, LinkTold};

use super::table::{NULL, Ptr, Table};
use super::{Cuda, Pointer, number};
use crate::device::{Linkers as DeviceLinkers, Raw};

/// Linkers by our names. A name is used once.
#[derive(Debug, Default)]
pub struct Linkers {
    by_name: HashMap<u64, Linker>,
    last: u64,
}

/// The driver holds the addresses of all that is in it until the end: the heap's, which do not move.
#[derive(Debug)]
struct Linker {
    state: Pointer,
    keys: Vec<c_int>,
    /// Numbers and addresses in the same array, as the driver takes them.
    values: Vec<usize>,
    info: Vec<u8>,
    error: Vec<u8>,
}

impl Linkers {
    /// Makes one in the current context.
    ///
    /// # Errors
    /// The driver's.
    pub fn create(&mut self, table: &Table, options: &[JitOption], log_bytes: [usize; 2]) -> CuResult<Raw> {
        // A byte at least: a log of none is no log, and still has to be one here.
        let [info, error] = log_bytes.map(|bytes| vec![0_u8; bytes.max(1)]);
        let mut linker = Linker { state: Pointer(NULL), keys: Vec::new(), values: Vec::new(), info, error };
        let (info, error) = (linker.info.as_mut_ptr(), linker.error.as_mut_ptr());
        let own = [
            (option::WALL_TIME, 0),
            (option::INFO_LOG_BUFFER, info.expose_provenance()),
            (option::INFO_LOG_BUFFER_BYTES, linker.info.len()),
            (option::ERROR_LOG_BUFFER, error.expose_provenance()),
            (option::ERROR_LOG_BUFFER_BYTES, linker.error.len()),
        ];
        for (key, value) in own {
            linker.keys.push(number(key)?);
            linker.values.push(value);
        }
        linker.push(options)?;
        let (count, keys, values) = linker.options()?;
        let mut state = NULL;
        // SAFETY: arrays of `count`; they, and the buffers whose addresses and lengths are in them, live until the linker's end; the
        // driver writes a pointer to a variable of ours.
        unsafe { table.cuLinkCreate_v2(count, keys, values, &raw mut state) }?;
        linker.state = Pointer(state);
        self.last += 1;
        self.by_name.insert(self.last, linker);
        Ok(Raw(self.last))
    }

    /// Adds an input.
    ///
    /// # Errors
    /// The driver's.
    pub fn add(
        &mut self,
        table: &Table,
        name: Raw,
        input: u32,
        bytes: &[u8],
        label: &str,
        options: &[JitOption],
    ) -> CuResult<()> {
        let state = self.get(name)?.state.0;
        let mut own = Linker {
            state: Pointer(NULL),
            keys: Vec::new(),
            values: Vec::new(),
            info: Vec::new(),
            error: Vec::new(),
        };
        own.push(options)?;
        let (count, keys, values) = own.options()?;
        let label = CString::new(label).map_err(|_| CuError::INVALID_VALUE)?;
        // PTX is a C string for the driver: without an end of its own it would read on.
        let data: Vec<u8> = bytes.iter().copied().chain([0]).collect();
        // SAFETY: a live linker of ours; the input is the guest's and may be anything: the driver's parsers are trusted with this
        // process, and this process with nothing else. The driver keeps nothing of the arrays, which hold numbers only.
        unsafe {
            table.cuLinkAddData_v2(
                state,
                number(input)?,
                data.as_ptr().cast_mut().cast::<c_void>(),
                // With PTX the end counts, as of a text that a program gives; machine code is as long as it is.
                if input == vgpu_api::link::INPUT_PTX { data.len() } else { bytes.len() },
                label.as_ptr(),
                count,
                keys,
                values,
            )
        }
    }

    /// Links.
    ///
    /// # Errors
    /// The driver's.
    pub fn complete(&mut self, table: &Table, name: Raw) -> CuResult<Vec<u8>> {
        let state = self.get(name)?.state.0;
        let (mut image, mut bytes) = (NULL, 0);
        // SAFETY: a live linker of ours; the driver writes a pointer and a number.
        unsafe { table.cuLinkComplete(state, &raw mut image, &raw mut bytes) }?;
        if image.is_null() {
            return Err(CuError::UNKNOWN);
        }
        // SAFETY: the driver's image of so many bytes, which it keeps until the linker's end.
        Ok(unsafe { std::slice::from_raw_parts(image.cast::<u8>(), bytes) }.to_vec())
    }

    /// What the compiler has said, or its errors: up to the first NUL.
    ///
    /// # Errors
    /// There is no such linker.
    pub fn log(&self, name: Raw, errors: bool) -> CuResult<Vec<u8>> {
        let linker = self.get(name)?;
        let log = if errors { &linker.error } else { &linker.info };
        let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
        Ok(log[..end].to_vec())
    }

    /// The figures.
    ///
    /// # Errors
    /// There is no such linker.
    pub fn told(&self, name: Raw) -> CuResult<LinkTold> {
        let linker = self.get(name)?;
        let value = |key: u32| {
            let place = linker.keys.iter().position(|known| number(key) == Ok(*known))?;
            linker.values.get(place).map(|value| u32::try_from(value & 0xffff_ffff).unwrap_or(0))
        };
        Ok(LinkTold {
            wall_ms: value(option::WALL_TIME).map_or(0.0, f32::from_bits),
            threads: value(option::THREADS_PER_BLOCK).unwrap_or(0),
        })
    }

    /// Ends one.
    ///
    /// # Errors
    /// The driver's, or there is no such linker.
    pub fn destroy(&mut self, table: &Table, name: Raw) -> CuResult<()> {
        let linker = self.by_name.remove(&name.0).ok_or(CuError::INVALID_HANDLE)?;
        // SAFETY: a live linker of ours, named no more; its buffers are dropped after this.
        unsafe { table.cuLinkDestroy(linker.state.0) }
    }

    fn get(&self, name: Raw) -> CuResult<&Linker> {
        self.by_name.get(&name.0).ok_or(CuError::INVALID_HANDLE)
    }
}

impl Linker {
    /// Adds options that are numbers.
    fn push(&mut self, options: &[JitOption]) -> CuResult<()> {
        for each in options {
            self.keys.push(number(each.option)?);
            self.values.push(usize::try_from(each.value).map_err(|_| CuError::INVALID_VALUE)?);
        }
        Ok(())
    }

    /// As the driver takes them.
    fn options(&mut self) -> CuResult<(c_uint, *mut c_int, *mut Ptr)> {
        let count = c_uint::try_from(self.keys.len()).map_err(|_| CuError::INVALID_VALUE)?;
        if count == 0 {
            return Ok((0, ptr::null_mut(), ptr::null_mut()));
        }
        Ok((count, self.keys.as_mut_ptr(), self.values.as_mut_ptr().cast()))
    }
}

impl DeviceLinkers for Cuda {
    fn link_create(&mut self, context: Raw, options: &[JitOption], log_bytes: [usize; 2]) -> CuResult<Raw> {
        self.enter(context)?;
        self.linkers.create(&self.table, options, log_bytes)
    }

    fn link_add(
        &mut self,
        context: Raw,
        linker: Raw,
        input: u32,
        bytes: &[u8],
        name: &str,
        options: &[JitOption],
    ) -> CuResult<()> {
        self.enter(context)?;
        self.linkers.add(&self.table, linker, input, bytes, name, options)
    }

    fn link_complete(&mut self, context: Raw, linker: Raw) -> CuResult<Vec<u8>> {
        self.enter(context)?;
        self.linkers.complete(&self.table, linker)
    }

    fn link_log(&mut self, linker: Raw, errors: bool) -> CuResult<Vec<u8>> {
        self.linkers.log(linker, errors)
    }

    fn link_told(&mut self, linker: Raw) -> CuResult<LinkTold> {
        self.linkers.told(linker)
    }

    fn link_destroy(&mut self, linker: Raw) -> CuResult<()> {
        self.linkers.destroy(&self.table, linker)
    }
}
