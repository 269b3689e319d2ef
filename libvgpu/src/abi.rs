//! What crosses the C border: parameter types that can be read and written without further unsafe code, and the macro that
//! makes an export of a Rust function.
//!
//! The rule: a pointer of the program is wrapped at the border in [`Out`], [`In`] or [`Span`]. CUDA's contract says that it is null or
//! valid for the call; that promise is stated once, here, and nowhere else is a program's pointer followed (copies of bulk
//! bytes: [`Span`]).

use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use vgpu_api::{CuError, CuResult, DevicePtr};

use crate::core::logs;

/// A type's letter in the generated shapes (`vgpu_api::symbols`).
pub trait Abi {
    const LETTER: u8;
}

macro_rules! letters {
    ($($t:ty = $letter:literal)*) => { $(impl Abi for $t { const LETTER: u8 = $letter; })* };
}
letters!(u8 = b'b' u16 = b'h' u32 = b'i' i32 = b'i' u64 = b'l' usize = b'l' f32 = b'f' DevicePtr = b'l');

impl<T> Abi for *const T {
    const LETTER: u8 = b'p';
}
impl<T> Abi for *mut T {
    const LETTER: u8 = b'p';
}

/// Functions of the program.
impl Abi for Option<crate::core::host_functions::HostFn> {
    const LETTER: u8 = b'p';
}
impl Abi for Option<crate::core::host_functions::StreamCallback> {
    const LETTER: u8 = b'p';
}
impl Abi for Option<logs::LogCallback> {
    const LETTER: u8 = b'p';
}

/// A handle as the program gives it: a number in a pointer's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Raw(pub u64);

impl Abi for Raw {
    const LETTER: u8 = b'o';
}

/// Where a result goes. Null is refused by [`Out::set`] with 1 and skipped by [`Out::set_if_wanted`].
#[derive(Debug)]
#[repr(transparent)]
pub struct Out<T>(*mut T);

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Out<T> {}

impl<T> Abi for Out<T> {
    const LETTER: u8 = b'p';
}

impl<T> Out<T> {
    /// For calls of one export by another.
    /// # Safety
    /// `place` is null or valid for writes of `T` while the value is used.
    pub unsafe fn from_raw(place: *mut T) -> Self {
        Self(place)
    }

    /// That there is a place, before anything is done.
    #[inline]
    pub fn wanted(self) -> CuResult<Self> {
        if self.0.is_null() { Err(CuError::INVALID_VALUE) } else { Ok(self) }
    }

    /// Writes the result.
    #[inline]
    pub fn set(self, value: T) -> CuResult<()> {
        self.wanted()?.set_if_wanted(value);
        Ok(())
    }

    /// Writes the result if the program gave a place.
    #[inline]
    pub fn set_if_wanted(self, value: T) {
        if !self.0.is_null() {
            // SAFETY: made at the C border only, where CUDA's contract says null or valid; unaligned places are allowed.
            unsafe { self.0.write_unaligned(value) }
        }
    }

    /// Its address, as a number.
    pub fn address(self) -> u64 {
        self.0.expose_provenance() as u64
    }

    /// The value that the program put there.
    pub fn get(self) -> CuResult<T>
    where
        T: Copy,
    {
        // SAFETY: as in `set_if_wanted`; the program put a value there, which is plain data.
        Ok(unsafe { self.wanted()?.0.read_unaligned() })
    }

    /// Writes a value in place of the one that the program put there.
    pub fn replace(self, value: T) -> CuResult<T>
    where
        T: Copy,
    {
        let old = self.get()?;
        self.set_if_wanted(value);
        Ok(old)
    }

    /// The same place for another type.
    pub fn cast<U>(self) -> Out<U> {
        Out(self.0.cast())
    }

    /// Writes `values` one after the other. The program promised room for them by the count it gave.
    pub fn set_all(self, values: impl Iterator<Item = T>) -> CuResult<()> {
        let place = self.wanted()?;
        for (i, value) in values.enumerate() {
            // SAFETY: as in `set_if_wanted`; the callers never give more values than the count beside this pointer.
            unsafe { place.0.wrapping_add(i).write_unaligned(value) }
        }
        Ok(())
    }
}

impl Out<u8> {
    /// Writes text and a NUL into `room` bytes, cut to fit.
    pub fn set_text(self, text: &[u8], room: usize) -> CuResult<()> {
        let kept = room.checked_sub(1).ok_or(CuError::INVALID_VALUE)?.min(text.len());
        self.set_all(text[..kept].iter().copied().chain([0]))
    }
}

/// A value or an array that the program lends for the call.
#[derive(Debug)]
#[repr(transparent)]
pub struct In<T>(*const T);

impl<T> Clone for In<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for In<T> {}

impl<T> Abi for In<T> {
    const LETTER: u8 = b'p';
}

impl<T: Copy> In<T> {
    /// # Safety
    /// `place` is null or valid for reads of as many `T` as are read while the value is used.
    pub unsafe fn from_raw(place: *const T) -> Self {
        Self(place)
    }

    /// Whether the program gave none.
    #[inline]
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The address, as a number.
    pub fn address(self) -> u64 {
        self.0.expose_provenance() as u64
    }

    /// The value.
    #[inline]
    pub fn get(self) -> CuResult<T> {
        self.at(0)
    }

    /// The value at place `index` of an array that has it.
    #[inline]
    pub fn at(self, index: usize) -> CuResult<T> {
        if self.0.is_null() {
            return Err(CuError::INVALID_VALUE);
        }
        // SAFETY: made at the C border, where CUDA's contract says null or valid; `T` is plain data; the callers read
        // no further than the count, the terminator or the header that CUDA's contract gives.
        Ok(unsafe { self.0.wrapping_add(index).read_unaligned() })
    }

    /// The same place seen as another type, `bytes` further.
    pub fn cast<U>(self, bytes: usize) -> In<U> {
        In(self.0.cast::<u8>().wrapping_add(bytes).cast())
    }
}

impl In<c_char> {
    /// A NUL-terminated text.
    pub fn text<'a>(self) -> CuResult<&'a CStr> {
        if self.0.is_null() {
            return Err(CuError::INVALID_VALUE);
        }
        // SAFETY: as in `at`; the text is used within the call only.
        Ok(unsafe { CStr::from_ptr(self.0) })
    }
}

/// Bytes that the program lends for the call: copied from or to, never kept.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub struct Span(*mut c_void);

impl Abi for Span {
    const LETTER: u8 = b'p';
}

impl Span {
    /// Host memory at an address that came as a number (unified copies).
    pub fn at_address(address: u64) -> Self {
        Self(std::ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or(0)))
    }

    /// The address, as a number.
    #[inline]
    pub fn address(self) -> u64 {
        self.0.expose_provenance() as u64
    }

    /// `len` bytes to read.
    #[inline]
    pub fn read<'a>(self, len: usize) -> CuResult<&'a [u8]> {
        if len == 0 {
            return Ok(&[]);
        }
        if self.0.is_null() || isize::try_from(len).is_err() {
            return Err(CuError::INVALID_VALUE);
        }
        // SAFETY: the program lends `len` bytes for the call, by CUDA's contract; we only copy them out within the call.
        Ok(unsafe { std::slice::from_raw_parts(self.0.cast::<u8>(), len) })
    }

    /// `len` bytes to write.
    #[inline]
    pub fn write<'a>(self, len: usize) -> CuResult<&'a mut [u8]> {
        if len == 0 {
            return Ok(&mut []);
        }
        if self.0.is_null() || isize::try_from(len).is_err() {
            return Err(CuError::INVALID_VALUE);
        }
        // SAFETY: as in `read`, lent for writing; we only copy into them within the call.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.0.cast::<u8>(), len) })
    }
}

/// Runs the body of what the program calls. A panic is ours: it ends here, as 999, and never crosses into the program.
#[inline]
fn outcome(body: impl FnOnce() -> CuResult<()>) -> CuResult<()> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(Err(CuError::UNKNOWN))
}

/// The code of a function of a private table.
#[inline]
pub fn guard(body: impl FnOnce() -> CuResult<()>) -> u32 {
    outcome(body).map_or_else(CuError::code, |()| 0)
}

/// The code of an export, which is noted if it is an error.
#[inline]
pub fn exported(name: &'static str, body: impl FnOnce() -> CuResult<()>) -> u32 {
    match outcome(body) {
        Ok(()) => 0,
        Err(error) => logs::failed(name, error),
    }
}

/// That an export has the parameters that CUDA's header gives it: width, order, pointer or handle. Called at compile time.
pub const fn has_shape(name: &str, letters: &[u8]) -> bool {
    let Some(shape) = vgpu_api::symbols::shape_of(name) else { return false };
    let shape = shape.as_bytes();
    if shape.len() != letters.len() {
        return false;
    }
    let mut i = 0;
    while i < shape.len() {
        if shape[i] != letters[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// `fn cuX(parameters) { body }` as an exported symbol; the body gives a `CuResult<()>`.
/// `fn cuX | cuX_ptsz(mode, parameters) { body }`: two symbols of one body, which learns the default stream's mode.
macro_rules! export {
    ($($(#[$meta:meta])* fn $name:ident $(| $twin:ident)? ($($params:tt)*) $body:block)*) => { $(
        export!(@one [$(#[$meta])*] $name [$($twin)?] ($($params)*) $body);
    )* };
    (@one [$(#[$meta:meta])*] $name:ident [] ($($param:ident: $t:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($param: $t),*) -> u32 {
            const { assert!($crate::abi::has_shape(stringify!($name), &[$(<$t as $crate::abi::Abi>::LETTER),*])) };
            $crate::abi::exported(stringify!($name), move || $body)
        }
    };
    (@one [$(#[$meta:meta])*] $name:ident [$twin:ident] ($mode:ident, $($param:ident: $t:ty),* $(,)?) $body:block) => {
        export! {
            $(#[$meta])*
            fn $name($($param: $t),*) {
                let $mode = vgpu_api::symbols::Mode::Legacy;
                $body
            }
            $(#[$meta])*
            fn $twin($($param: $t),*) {
                let $mode = vgpu_api::symbols::Mode::PerThread;
                $body
            }
        }
    };
}
pub(crate) use export;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_at_the_border_as_999() {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let code = guard(|| panic!("a mistake of ours"));
        std::panic::set_hook(hook);
        assert_eq!(code, CuError::UNKNOWN.code());
    }

    #[test]
    fn a_wrong_width_order_or_handle_is_no_shape() {
        assert!(has_shape("cuMemsetD8Async", b"lblo"));
        assert!(!has_shape("cuMemsetD8Async", b"lilo"), "a wider value");
        assert!(!has_shape("cuMemsetD8Async", b"llbo"), "another order");
        assert!(!has_shape("cuMemsetD8Async", b"lblp"), "a pointer for a stream");
        assert!(!has_shape("cuNothing", b""));
    }
}
