//! What kernels print. NVIDIA's driver writes it to the process's standard output, and the text of failed asserts to standard error, when
//! a call waits for the GPU. Both are files in memory here, which never grow: what they do not hold is dropped, and the driver is
//! never held up. The worker's own log goes on to where standard error led.
//!
//! Every call that waits looks for it, so a look is a load: bytes that nobody has written yet are zeros. System calls follow when they
//! are not, or when the call failed, since then an assert may have said why.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use idm::Region;
use rustix::fs::{MemfdFlags, SealFlags, SeekFrom, fcntl_add_seals, ftruncate, memfd_create, seek};
use rustix::io::{IoSliceMut, ReadWriteFlags, preadv2};
use vgpu_api::Printed;
use vgpu_api::printed::PRINTED_BYTES_MAX;

/// Kept of each stream until the guest takes it, in bytes.
const KEPT_LEN: usize = 1 << 20;
const KEPT_BYTES: u64 = KEPT_LEN as u64;
const STDOUT: u32 = 1;
const STDERR: u32 = 2;

unsafe extern "C" {
    /// The C library's, which the driver shares with us.
    static stdout: *mut libc::FILE;
}

/// Both streams.
#[derive(Debug)]
pub struct Output {
    streams: [Stream; 2],
}

#[derive(Debug)]
struct Stream {
    /// The program's.
    to: u32,
    /// Shares its position with the descriptor that the driver writes to.
    file: OwnedFd,
    /// The file's bytes.
    bytes: Region,
    written: u64,
    taken: u64,
}

impl Output {
    /// Puts the files in the places of standard output and standard error.
    ///
    /// # Errors
    /// Those of the system calls.
    pub fn redirect() -> io::Result<Self> {
        let log = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3)?;
        crate::logfmt::move_to(File::from(log));
        let output = Self::new()?;
        rustix::stdio::dup2_stdout(&output.streams[0].file)?;
        rustix::stdio::dup2_stderr(&output.streams[1].file)?;
        // What is printed is in the file at once; standard error is so anyway.
        // SAFETY: the C library's own stream, which nobody uses now; no buffer of ours is lent.
        let _ = unsafe { libc::setvbuf(stdout, std::ptr::null_mut(), libc::_IONBF, 0) };
        Ok(output)
    }

    fn new() -> io::Result<Self> {
        Ok(Self { streams: [Stream::new(STDOUT)?, Stream::new(STDERR)?] })
    }

    /// Looks for what was written; with `care` also for zeros.
    pub fn look(&mut self, care: bool) {
        for stream in &mut self.streams {
            if care || stream.is_written() {
                stream.written = stream.position();
            }
        }
    }

    /// Whether there was something at the last look that was not taken.
    pub fn has_some(&self) -> bool {
        self.streams.iter().any(|stream| stream.taken < stream.written)
    }

    /// The next piece.
    pub fn take(&mut self) -> Printed {
        let next = self.streams.iter_mut().find(|stream| stream.taken < stream.written);
        next.map(Stream::take).unwrap_or_default()
    }
}

impl Stream {
    fn new(to: u32) -> io::Result<Self> {
        let file = memfd_create("printed", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, KEPT_BYTES)?;
        fcntl_add_seals(&file, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        let bytes = Region::map(&file, KEPT_LEN)?;
        Ok(Self { to, file, bytes, written: 0, taken: 0 })
    }

    /// Whether a byte that is no zero is among the next few after those that are known.
    fn is_written(&self) -> bool {
        let mut next = [0; 8];
        let at = usize::try_from(self.written).unwrap_or(KEPT_LEN);
        let next = &mut next[..(KEPT_LEN - at.min(KEPT_LEN)).min(8)];
        self.bytes.read(at, next);
        next.iter().any(|byte| *byte != 0)
    }

    fn position(&self) -> u64 {
        seek(&self.file, SeekFrom::Current(0)).unwrap_or(0).min(KEPT_BYTES)
    }

    fn take(&mut self) -> Printed {
        let wanted = usize::try_from(self.written - self.taken).unwrap_or(usize::MAX);
        let mut bytes = vec![0; wanted.min(PRINTED_BYTES_MAX)];
        // A call that a worker may make.
        let read =
            preadv2(&self.file, &mut [IoSliceMut::new(&mut bytes)], self.taken, ReadWriteFlags::empty());
        bytes.truncate(read.unwrap_or(0));
        self.taken += bytes.len() as u64;
        // Calls that do not wait may have printed since.
        self.written = self.position();
        // An error, too, is an end: the guest asks as long as there is something.
        if bytes.is_empty() || self.taken == self.written {
            self.bytes.zero(0, usize::try_from(self.written).map_or(KEPT_LEN, |bytes| bytes.min(KEPT_LEN)));
            let _ = seek(&self.file, SeekFrom::Start(0));
            (self.written, self.taken) = (0, 0);
        }
        Printed { to: self.to, bytes }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// As the driver has it: another descriptor of the same open file.
    fn writer(stream: &Stream) -> File {
        File::from(stream.file.try_clone().unwrap())
    }

    #[test]
    fn what_is_written_comes_in_pieces_once_and_the_room_is_used_again() {
        let mut output = Output::new().unwrap();
        let (mut out, mut err) = (writer(&output.streams[0]), writer(&output.streams[1]));
        for _ in 0..3 {
            assert!(!output.has_some());
            out.write_all(&[b'a'; PRINTED_BYTES_MAX + 1]).unwrap();
            err.write_all(b"b").unwrap();
            output.look(false);
            assert!(output.has_some());
            assert_eq!(output.take(), Printed { to: STDOUT, bytes: vec![b'a'; PRINTED_BYTES_MAX] });
            assert_eq!(output.take(), Printed { to: STDOUT, bytes: b"a".to_vec() });
            assert_eq!(output.take(), Printed { to: STDERR, bytes: b"b".to_vec() });
            assert_eq!(output.take(), Printed::default());
        }
    }

    #[test]
    fn more_than_there_is_room_for_is_dropped_and_the_next_is_kept() {
        let mut output = Output::new().unwrap();
        let mut out = writer(&output.streams[0]);
        let mut written = 0;
        while let Ok(bytes) = out.write(&[b'x'; 1000]) {
            written += bytes as u64;
        }
        assert_eq!(written, KEPT_BYTES);
        output.look(false);
        let mut taken = 0;
        while output.has_some() {
            taken += output.take().bytes.len() as u64;
        }
        assert_eq!(taken, KEPT_BYTES);
        output.look(true);
        assert!(!output.has_some());
        out.write_all(b"y").unwrap();
        output.look(false);
        // After the look.
        out.write_all(b"z").unwrap();
        assert_eq!((output.take().bytes, output.take().bytes), (b"y".to_vec(), b"z".to_vec()));
        assert!(!output.has_some());
    }

    #[test]
    fn zeros_are_seen_by_who_looks_with_care() {
        let mut output = Output::new().unwrap();
        let mut out = writer(&output.streams[0]);
        out.write_all(&[0; 9]).unwrap();
        output.look(false);
        assert!(!output.has_some());
        output.look(true);
        assert_eq!(output.take().bytes, [0; 9]);
        out.write_all(b"\0and a letter").unwrap();
        output.look(false);
        assert_eq!(output.take().bytes, b"\0and a letter");
        assert!(!output.has_some());
    }
}
