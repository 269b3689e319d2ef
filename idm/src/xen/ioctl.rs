//! The one place that makes an ioctl. What the kernel reads and writes is checked against [`table`](super::table) first.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};

use super::error::XenError;
use super::metrics::COUNTERS;
use super::table::Op;

/// The argument of a call: bytes in an aligned buffer, fields by offset. Little endian, as x86.
#[derive(Debug)]
pub(super) struct Arg<B = Vec<u64>>(B);

impl Arg<[u64; 3]> {
    /// A zeroed argument of an `op` without an array, on the stack: events are sent without allocating.
    pub(super) const fn fixed() -> Self {
        Self([0; 3])
    }
}

impl Arg {
    /// A zeroed argument of `op` whose array, if it has one, holds `elements` (written into the count).
    pub(super) fn new(op: &Op, elements: u32) -> Self {
        let bytes = op.fixed_bytes + op.tail.map_or(0, |tail| tail.element_bytes * elements as usize);
        let mut arg = Self(vec![0; bytes.max(op.least_bytes).div_ceil(8)]);
        if let Some(tail) = op.tail {
            arg.put_u32(tail.count_at, elements);
        }
        arg
    }
}

impl<B: AsRef<[u64]> + AsMut<[u64]>> Arg<B> {
    pub(super) fn put_u16(&mut self, offset: usize, value: u16) {
        self.put(offset, u64::from(value), 0xffff);
    }

    pub(super) fn put_u32(&mut self, offset: usize, value: u32) {
        self.put(offset, u64::from(value), 0xffff_ffff);
    }

    pub(super) fn put_u64(&mut self, offset: usize, value: u64) {
        self.put(offset, value, u64::MAX);
    }

    pub(super) fn u32(&self, offset: usize) -> u32 {
        let shift = offset % 8 * 8;
        debug_assert!(shift <= 32, "a u32 lies inside one word");
        #[allow(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
        let value = (self.0.as_ref()[offset / 8] >> shift) as u32;
        value
    }

    pub(super) fn u64(&self, offset: usize) -> u64 {
        debug_assert!(offset.is_multiple_of(8));
        self.0.as_ref()[offset / 8]
    }

    fn put(&mut self, offset: usize, value: u64, mask: u64) {
        let shift = offset % 8 * 8;
        debug_assert!(mask == u64::MAX && shift == 0 || mask.leading_zeros() as usize >= shift);
        let word = &mut self.0.as_mut()[offset / 8];
        *word = *word & !(mask << shift) | value << shift;
    }
}

/// Makes call `op` on `device` with `arg`, which the kernel may write into. Returns the call's own (non-negative) result.
///
/// # Errors
/// What the kernel answers; `InvalidInput` if `arg` is smaller than what the kernel would touch (our mistake).
pub(super) fn call<B: AsRef<[u64]> + AsMut<[u64]>>(
    device: BorrowedFd<'_>,
    op: &Op,
    arg: &mut Arg<B>,
) -> io::Result<u32> {
    let tail_bytes = op.tail.map_or(0, |tail| arg.u32(tail.count_at) as usize * tail.element_bytes);
    if arg.0.as_ref().len() * 8 < (op.fixed_bytes + tail_bytes).max(op.least_bytes) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "argument smaller than its call"));
    }
    // SAFETY: `Raw` hands the kernel a buffer that is exclusively borrowed for the call, is aligned for u64 and was just checked
    // to hold the fixed part and the whole array; no call in the table follows a pointer inside its argument.
    let result = unsafe { rustix::ioctl::ioctl(device, Raw { number: op.number, arg: arg.0.as_mut() }) }?;
    COUNTERS.requests.add(1);
    u32::try_from(result).map_err(|_| io::Error::other("a negative result that is no error"))
}

/// [`call`], with the error made to say which call it was.
pub(super) fn named<B: AsRef<[u64]> + AsMut<[u64]>>(
    device: &OwnedFd,
    op: &Op,
    arg: &mut Arg<B>,
) -> Result<u32, XenError> {
    call(device.as_fd(), op, arg).map_err(|source| XenError::Call { call: op.name, source })
}

/// Opens one of the device nodes, close-on-exec.
pub(super) fn open(path: &'static str, flags: OFlags) -> Result<OwnedFd, XenError> {
    rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC | flags, Mode::empty())
        .map_err(|errno| XenError::Open { path, source: errno.into() })
}

struct Raw<'a> {
    number: u32,
    arg: &'a mut [u64],
}

// SAFETY: `as_ptr` gives the argument's buffer (never read as anything but integers afterwards), the output is the plain result,
// and `IS_MUTATING` tells the truth. That the buffer is large enough is checked by `call`, the only maker of this type.
unsafe impl Ioctl for Raw<'_> {
    type Output = IoctlOutput;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.number as Opcode
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        self.arg.as_mut_ptr().cast()
    }

    unsafe fn output_from_ptr(
        out: IoctlOutput,
        _: *mut std::ffi::c_void,
    ) -> rustix::io::Result<Self::Output> {
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::{gntalloc, gntdev};
    use super::*;

    #[test]
    fn fields_land_at_their_bytes() {
        let mut arg = Arg::new(&gntalloc::ALLOC_GREF, 3);
        arg.put_u16(gntalloc::ALLOC_DOMID, 0x1234);
        arg.put_u16(gntalloc::ALLOC_FLAGS, gntalloc::FLAG_WRITABLE);
        arg.put_u64(gntalloc::ALLOC_INDEX, 0x1_0000_2000);
        arg.put_u32(gntalloc::ALLOC_REFS + 4, 77);
        assert_eq!(arg.0, [0x0000_0003_0001_1234, 0x1_0000_2000, 77 << 32, 0]);
        assert_eq!(arg.u32(gntalloc::ALLOC_REFS + 4), 77);
        arg.put_u16(gntalloc::ALLOC_DOMID, 1);
        assert_eq!(arg.0[0], 0x0000_0003_0001_0001);
    }

    #[test]
    fn one_page_still_gets_the_24_bytes_that_the_kernel_copies() {
        assert_eq!(Arg::new(&gntalloc::ALLOC_GREF, 1).0.len() * 8, 24);
    }

    #[test]
    fn a_count_past_the_buffer_never_reaches_the_kernel() {
        let null = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()).unwrap();
        let mut arg = Arg::new(&gntdev::MAP_GRANT_REF, 2);
        arg.put_u32(gntdev::MAP_COUNT, 1000);
        let error = call(null.as_fd(), &gntdev::MAP_GRANT_REF, &mut arg).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
