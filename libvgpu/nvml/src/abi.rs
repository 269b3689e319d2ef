//! What crosses the C border: parameter types that can be read and written without further unsafe code, and the macro that makes an
//! export of a Rust function.
//!
//! The rule: a pointer of the program is wrapped in one of the types below. NVML's contract says that it is null or valid for the call;
//! that promise is stated once, here, and nowhere else is a program's pointer followed.

use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::log::say;
use crate::result::{NvmlError, NvmlResult};

/// Where a result goes.
#[derive(Debug)]
#[repr(transparent)]
pub struct Out<T>(*mut T);

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Out<T> {}

impl<T> Out<T> {
    /// That there is a place.
    pub fn wanted(self) -> NvmlResult<Self> {
        if self.0.is_null() { Err(NvmlError::INVALID_ARGUMENT) } else { Ok(self) }
    }

    /// Writes the result.
    pub fn set(self, value: T) -> NvmlResult<()> {
        self.wanted()?;
        // SAFETY: not null, so valid by NVML's contract; unaligned places are allowed.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }

    /// What the program put there.
    pub fn get(self) -> NvmlResult<T>
    where
        T: Copy,
    {
        self.wanted()?;
        // SAFETY: as in `set`; the program put plain data there.
        Ok(unsafe { self.0.read_unaligned() })
    }

    /// The place `index` further on, of an array or of a structure's words.
    pub fn at(self, index: usize) -> Self {
        Self(self.0.wrapping_add(index))
    }

    /// The same address as a place of another type: the program says by a version which it is.
    pub fn cast<U>(self) -> Out<U> {
        Out(self.0.cast())
    }

    /// Writes one after the other. Callers give no more than the count that the program gave beside this pointer.
    pub fn set_all(self, values: impl Iterator<Item = T>) -> NvmlResult<()> {
        self.wanted()?;
        for (place, value) in values.enumerate() {
            // SAFETY: as in `set`; the program promised room for so many by its count.
            unsafe { self.0.wrapping_add(place).write_unaligned(value) };
        }
        Ok(())
    }
}

impl Out<c_char> {
    /// Writes text and a NUL into `room` bytes.
    pub fn set_text(self, text: &str, room: u32) -> NvmlResult<()> {
        self.wanted()?;
        if text.len() >= room as usize {
            return Err(NvmlError::INSUFFICIENT_SIZE);
        }
        self.set_all(text.bytes().chain([0]).map(u8::cast_signed))
    }
}

/// A value that the program lends for the call.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct In<T>(*const T);

impl<T: Copy> In<T> {
    /// The value.
    pub fn get(self) -> NvmlResult<T> {
        if self.0.is_null() {
            return Err(NvmlError::INVALID_ARGUMENT);
        }
        // SAFETY: not null, so valid by NVML's contract; unaligned places are allowed.
        Ok(unsafe { self.0.read_unaligned() })
    }
}

impl In<c_char> {
    /// The text up to its NUL.
    pub fn text(self) -> NvmlResult<String> {
        if self.0.is_null() {
            return Err(NvmlError::INVALID_ARGUMENT);
        }
        // SAFETY: not null, so a text that ends by NVML's contract.
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str().map(str::to_owned).map_err(|_| NvmlError::INVALID_ARGUMENT)
    }
}

/// `nvmlDevice_t`: an address that is never followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Device(pub *const u8);

/// Runs a call: its result as a number, and never a panic.
pub fn guard(name: &str, call: impl FnOnce() -> NvmlResult<()>) -> u32 {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => 0,
        Ok(Err(NvmlError(number))) => {
            if number == NvmlError::NOT_SUPPORTED.0 {
                say!("{name}: not supported");
            }
            number
        }
        Err(_) => {
            say!("{name} failed by a defect of vgpu");
            NvmlError::UNKNOWN.0
        }
    }
}

/// Exports: `fn nvmlX(params) { body }`, whose body gives `NvmlResult<()>`.
macro_rules! exports {
    ($($(#[$attribute:meta])* fn $name:ident($($param:ident: $t:ty),* $(,)?) $body:block)*) => { $(
        $(#[$attribute])*
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($param: $t),*) -> u32 {
            $crate::abi::guard(stringify!($name), move || $body)
        }
    )* };
}
pub(crate) use exports;

/// Exports of what has no answer: refused, once NVML was started.
macro_rules! unsupported {
    ($($name:ident)*) => { exports! { $(fn $name() {
        $crate::session::session()?;
        Err($crate::result::NvmlError::NOT_SUPPORTED)
    })* } };
}
pub(crate) use unsupported;

/// The same of calls that begin with a device, which has to be one.
macro_rules! unsupported_of_device {
    ($($name:ident)*) => { exports! { $(fn $name(device: $crate::abi::Device) {
        $crate::session::session()?.device(device)?;
        Err($crate::result::NvmlError::NOT_SUPPORTED)
    })* } };
}
pub(crate) use unsupported_of_device;

/// A panic of ours ends at the border; this library's own copy of the standard library must not print it into a stranger's stderr.
pub fn be_quiet() {
    use std::sync::Once;
    static QUIET: Once = Once::new();
    QUIET.call_once(|| std::panic::set_hook(Box::new(|panic| say!("{panic}"))));
}
