//! A process's stdio: containerd's fifos on one side, raw streams to the guest on the other.
//!
//! Output fifos are opened for reading too, so that a client that goes away (a restart of containerd) gives the container no EPIPE.
//! stdin has a writer of ours besides, which CloseIO lets go: the process sees the end of file after the data.

mod logger;
mod target;
mod url;

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader},
    net::unix::pipe,
    task::JoinHandle,
};
use vgpu_agent_api::stream::StreamName;

use crate::{
    error::{Result, blocking},
    guest::Guest,
    link::AnyStream,
};
use logger::Logger;
pub use logger::Whose;
use target::{Output, Outputs, Target};

/// Moved at once: as much as a pipe holds by default.
const BUFFER_BYTES: usize = 64 << 10;

/// For what a guest had sent when it died.
const REST_LIMIT: Duration = Duration::from_millis(100);

/// Where a process's stdio goes, as containerd named it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stdio {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub terminal: bool,
}

/// The running copies of one process.
#[derive(Debug, Default)]
pub struct Pumps {
    /// Our own hold on stdin.
    stdin_hold: Mutex<Option<pipe::Sender>>,
    stdin: Mutex<Option<JoinHandle<()>>>,
    outputs: Mutex<Vec<JoinHandle<()>>>,
    /// Who reads the outputs, if a program does.
    logger: Mutex<Option<Logger>>,
}

impl Stdio {
    /// Opens both sides and starts copying. Returns the same stdio with the guest's names in it.
    ///
    /// # Errors
    /// `SpecInvalid` for a scheme that is not supported, `HostFailure` for what can't be opened or started, or the guest's.
    pub async fn connect(&self, guest: &Arc<Guest>, whose: Whose) -> Result<(Pumps, Stdio)> {
        let pumps = Pumps::default();
        let mut names = Stdio { terminal: self.terminal, ..Stdio::default() };
        // Not by the reactor: they may lie where a file system does not answer.
        let stdin = self.stdin.clone();
        if let Some((reader, hold)) = blocking(move || Target::parse(&stdin)?.open_stdin()).await? {
            let (name, stream) = guest.open_stream().await?;
            names.stdin = name.to_string();
            *lock(&pumps.stdin_hold) = Some(hold);
            *lock(&pumps.stdin) = Some(tokio::spawn(feed(reader, stream, Opened::of(name, guest))));
        }
        // A terminal has one output.
        let (stdout, stderr) =
            (self.stdout.clone(), if self.terminal { String::new() } else { self.stderr.clone() });
        let opened = blocking(move || Outputs::open(&stdout, &stderr, &whose)).await?;
        *lock(&pumps.logger) = opened.logger;
        for (output, name_of) in [(opened.stdout, &mut names.stdout), (opened.stderr, &mut names.stderr)] {
            let Some(writer) = output else { continue };
            let (name, stream) = guest.open_stream().await?;
            *name_of = name.to_string();
            lock(&pumps.outputs).push(tokio::spawn(drain(stream, writer, Opened::of(name, guest))));
        }
        Ok((pumps, names))
    }
}

impl Pumps {
    /// Lets go of stdin: the process sees its end once the clients have too and the data is through.
    pub fn close_stdin(&self) {
        drop(lock(&self.stdin_hold).take());
    }

    /// Waits until all output is where it goes, for `limit` at most, and ends the copies, and then the logger.
    pub async fn finish(&self, limit: Duration) {
        self.close_stdin();
        if let Some(stdin) = lock(&self.stdin).take() {
            stdin.abort();
        }
        let outputs = std::mem::take(&mut *lock(&self.outputs));
        let deadline = tokio::time::Instant::now() + limit;
        for mut output in outputs {
            if tokio::time::timeout_at(deadline, &mut output).await.is_err() {
                log::warn!("output was not read within {} s and is lost", limit.as_secs());
                output.abort();
            }
        }
        let logger = lock(&self.logger).take();
        let _ = tokio::task::spawn_blocking(move || drop(logger)).await;
    }
}

impl Drop for Pumps {
    fn drop(&mut self) {
        for task in lock(&self.stdin).take().into_iter().chain(lock(&self.outputs).drain(..)) {
            task.abort();
        }
        if let Some(logger) = lock(&self.logger).take() {
            // Where there is no thread it is ended here.
            let _ = thread::Builder::new().name("logger's end".into()).spawn(move || drop(logger));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stream that the guest keeps for us. Dropped, however its copy ended, the guest may have the pages back.
struct Opened {
    name: StreamName,
    guest: Arc<Guest>,
}

impl Opened {
    fn of(name: StreamName, guest: &Arc<Guest>) -> Opened {
        Opened { name, guest: guest.clone() }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let (name, guest) = (self.name, self.guest.clone());
        // Without a runtime the process ends, and all its streams with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { guest.close_stream(name).await });
        }
    }
}

/// From a fifo to the guest, until every writer is gone.
async fn feed(reader: impl AsyncRead + Unpin, mut stream: AnyStream, opened: Opened) {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, reader);
    if let Err(error) = tokio::io::copy_buf(&mut reader, &mut stream).await {
        log::debug!("stdin {}: {error}", opened.name);
    }
    let _ = stream.shutdown().await;
    // The guest reads to the end before it lets the pages go.
    let mut rest = BufReader::with_capacity(1, &mut stream);
    let _ = tokio::io::copy_buf(&mut rest, &mut tokio::io::sink()).await;
    drop((stream, opened));
}

/// Nothing has come for a while from a guest that is dead.
async fn after_death(guest: &Guest) {
    guest.death().await;
    tokio::time::sleep(REST_LIMIT).await;
}

/// From the guest to a fifo or a file, until the guest ends the stream, or is dead and nothing is left in it.
async fn drain(stream: AnyStream, mut writer: Output, opened: Opened) {
    let mut stream = BufReader::with_capacity(BUFFER_BYTES, stream);
    let copied: io::Result<()> = async {
        loop {
            let bytes = tokio::select! {
                biased;
                bytes = stream.fill_buf() => bytes?,
                () = after_death(&opened.guest) => &[],
            };
            if bytes.is_empty() {
                return Ok(());
            }
            writer.write_all(bytes).await?;
            let count = bytes.len();
            stream.consume(count);
        }
    }
    .await;
    if let Err(error) = copied {
        log::debug!("output {}: {error}", opened.name);
    }
    let _ = writer.flush().await;
    drop((writer, stream, opened));
}
