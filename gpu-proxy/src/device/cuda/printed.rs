//! What kernels print. NVIDIA's driver writes it to the process's standard output, and the text of failed asserts to standard error, when
//! a call waits for the GPU. Both are files in memory here, which never grow: what they do not hold is dropped, and the driver is
//! never held up. The worker's own log goes on to where standard error led.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, SeekFrom, fcntl_add_seals, ftruncate, memfd_create, seek};
use rustix::io::{IoSliceMut, ReadWriteFlags, preadv2};
use vgpu_api::Printed;
use vgpu_api::printed::PRINTED_BYTES_MAX;

/// Kept of each stream until the guest takes it, in bytes.
const KEPT_BYTES: u64 = 1 << 20;
const STDOUT: u32 = 1;
const STDERR: u32 = 2;

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
        Ok(output)
    }

    fn new() -> io::Result<Self> {
        Ok(Self { streams: [Stream::new(STDOUT)?, Stream::new(STDERR)?] })
    }

    /// Looks for what was written. After the C library's own buffers were written out.
    pub fn look(&mut self) {
        for stream in &mut self.streams {
            stream.written = stream.position();
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
        Ok(Self { to, file, written: 0, taken: 0 })
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
            output.look();
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
        output.look();
        let mut taken = 0;
        while output.has_some() {
            taken += output.take().bytes.len() as u64;
        }
        assert_eq!(taken, KEPT_BYTES);
        out.write_all(b"y").unwrap();
        output.look();
        // After the look.
        out.write_all(b"z").unwrap();
        assert_eq!((output.take().bytes, output.take().bytes), (b"y".to_vec(), b"z".to_vec()));
        assert!(!output.has_some());
    }
}
