//! One direction each: bytes until the end, with one buffer in between, so that back-pressure passes through.

use tokio::{
    io::{AsyncRead, AsyncWriteExt, copy_buf},
    net::unix::pipe,
};

use super::{ByteStream, pty};

/// Bytes in flight of one direction. A pipe holds 64 KiB, so a larger buffer would only cost memory.
const BUFFER_BYTES: usize = 16 << 10;

/// The shim's stream into a process's stdin. Its end closes the pipe: the process sees EOF after the last byte.
pub async fn input(from: Box<dyn ByteStream>, mut to: pipe::Sender) {
    // An error is the process's end (it closed stdin) or the shim's: nothing is left to do either way.
    let _ = copy_buf(&mut tokio::io::BufReader::with_capacity(BUFFER_BYTES, from), &mut to).await;
}

/// The shim's stream into a terminal. Its end is no end for the terminal: a user ends input by typing it.
pub async fn terminal_input(from: Box<dyn ByteStream>, mut to: pty::Master) {
    let _ = copy_buf(&mut tokio::io::BufReader::with_capacity(BUFFER_BYTES, from), &mut to).await;
}

/// A process's output into the shim's stream, until nobody holds the output any more. Then the stream is ended.
/// When the shim is gone the output is read and dropped: its death must not be the process's (SIGPIPE).
pub async fn output(from: impl AsyncRead + Unpin, mut to: Box<dyn ByteStream>) {
    let mut from = tokio::io::BufReader::with_capacity(BUFFER_BYTES, from);
    if copy_buf(&mut from, &mut to).await.is_err() {
        discard(&mut from).await;
    }
    let _ = to.shutdown().await;
}

async fn discard(from: &mut (impl AsyncRead + Unpin)) {
    let mut sink = tokio::io::sink();
    let _ = tokio::io::copy(from, &mut sink).await;
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write, time::Duration};

    use tokio::{io::AsyncReadExt, time::timeout};

    use super::*;

    fn pipe() -> (pipe::Receiver, File) {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        (pipe::Receiver::from_owned_fd(read).unwrap(), File::from(write))
    }

    #[tokio::test]
    async fn a_slow_shim_loses_nothing_and_sees_the_end() {
        let (from, mut writer) = pipe();
        let (near, mut far) = tokio::io::duplex(1000);
        tokio::spawn(output(from, Box::new(near)));
        let sent: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
        let copy = sent.clone();
        let writing = tokio::task::spawn_blocking(move || writer.write_all(&copy).unwrap());
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!writing.is_finished(), "a stream that nobody reads must stop the writer");

        let mut received = Vec::new();
        timeout(Duration::from_secs(20), far.read_to_end(&mut received)).await.unwrap().unwrap();
        assert!(received == sent);
    }

    #[tokio::test]
    async fn a_process_outlives_its_shim() {
        let (from, mut writer) = pipe();
        let (near, far) = tokio::io::duplex(1000);
        let pump = tokio::spawn(output(from, Box::new(near)));
        drop(far);
        tokio::task::spawn_blocking(move || writer.write_all(&[7; 300_000]).expect("no SIGPIPE, no EPIPE"))
            .await
            .unwrap();
        timeout(Duration::from_secs(20), pump).await.unwrap().unwrap();
    }
}
