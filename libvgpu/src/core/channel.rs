//! The way to the worker: the program's side of an `idm` record channel, with CUDA's errors.
//!
//! What a queued call got wrong waits in the channel's error word until the next call asks ([`Channel::take_error`]): a plain error
//! is told once, a sticky one for good. A worker that is gone, or breaks the protocol, is 46 from every call, for good.

mod room;

use std::cell::{Cell, RefCell};
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use idm::connect::Connected;
use idm::record::Submitter;
use idm::{ChannelError, Region};
use vgpu_api::wire::REPLY_BYTES_MAX;
use vgpu_api::{
    ContextId, CuError, CuResult, Op, PRINTED, Printed, Reader, Snapshot, Transport, WIRE_HASH, WireError,
    Writer, ask,
};
use vgpu_codes::Code;

pub use room::Room;

use crate::log::{LONG_WAIT, say, say_of_wait, waits_wanted, wanted};

/// Where the socket is when `VGPU_SOCKET` doesn't say.
const SOCKET: &str = "/run/vgpu/gpu.sock";
/// How long a step of the connection may take: a worker is started for it, which gpu-proxy gives up first (after the ends of others and
/// its own start, 130 s), with a reason.
const START_LIMIT: Duration = Duration::from_secs(150);
/// Of staging, what one call takes at once.
const ROOM_BYTES: usize = 1 << 20;
/// Calls of so many bytes are packed on the stack, others in the thread's scratch. Most need few: clearing a buffer is a good part
/// of what a launch costs.
const TINY_BYTES: usize = 160;
const SMALL_BYTES: usize = 512;

/// The channel of this process.
#[derive(Debug)]
pub struct Channel {
    submitter: Submitter,
    /// Holds the other end's wake-up for our death: a child of `fork` must let go of it.
    socket: RawFd,
    /// Every call waits for its answer.
    always_wait: bool,
    /// Errors of the error word that were told.
    told: AtomicU32,
    /// The sticky error, or 0.
    sticky: AtomicU32,
    graph_calls: AtomicU32,
}

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// Where the record of this thread's last answered call ended.
    static ANSWERED: Cell<u64> = const { Cell::new(0) };
}

/// A place between two records, in the order of all threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(u64);

impl Channel {
    /// Connects to the socket of guest-init or gpu-proxy. With the channel comes the arena, if there is one and its addresses are free,
    /// and whether it is kept.
    /// # Errors
    /// 100 when nobody listens; what the table of `VGPU-nnn` codes says for a refusal; else 46.
    pub fn connect() -> CuResult<(Self, Option<(Region, bool)>)> {
        let path = std::env::var_os("VGPU_SOCKET").unwrap_or_else(|| SOCKET.into());
        let path = PathBuf::from(path);
        let refused = |error: &ChannelError| refusal(&path, error);
        let hello = idm::hello::Hello::new(idm::record::RECORD_LIMIT_MAX, WIRE_HASH);
        let Connected { submitter, agreed, arena } =
            idm::connect::connect(&path, &hello, START_LIMIT).map_err(|error| refused(&error))?;
        if agreed.peer_application != WIRE_HASH {
            say!("the worker speaks wire {:016x}, this library {WIRE_HASH:016x}", agreed.peer_application);
            return Err(told(Code::ProtocolVersion));
        }
        if let Some(theirs) = agreed.peer_build.other() {
            say!("the other side is of release {theirs}, this library of {}", idm::hello::Build::OWN);
        }
        if wanted() {
            submitter.tell_of_long_waits(LONG_WAIT, say_of_wait);
        }
        let socket = submitter.liveness().map_or(-1, |liveness| liveness.fd().as_raw_fd());
        let on = |name: &str| std::env::var_os(name).is_some_and(|value| value == "1");
        let always_wait = on("CUDA_LAUNCH_BLOCKING") || on("VGPU_SYNC");
        let arena = arena.and_then(|arena| {
            let mapped = arena.map();
            mapped
                .inspect_err(|error| say!("pinned memory is copied, since it cannot be shared: {error}"))
                .ok()
                .map(|region| (region, arena.is_kept()))
        });
        let [told, sticky, graph_calls] = [const { AtomicU32::new(0) }; 3];
        Ok((Self { submitter, socket, always_wait, told, sticky, graph_calls }, arena))
    }

    /// Whether every call waits for its answer (`CUDA_LAUNCH_BLOCKING`).
    #[inline]
    pub fn always_waits(&self) -> bool {
        self.always_wait
    }

    /// The zone's devices.
    pub fn snapshot(&self) -> CuResult<Snapshot> {
        let room = self.staging()?;
        let len = ask::vgpuSnapshot(self, ContextId::NONE, room.all())?;
        Snapshot::parse(&room.take(len)?).map_err(|error| self.broken(&error))
    }

    /// The error of an earlier queued call, if one waits. The steady state is two loads.
    /// # Errors
    /// That error.
    #[inline]
    pub fn take_error(&self) -> CuResult<()> {
        let count = self.submitter.error_count();
        if count == self.told.load(Ordering::Relaxed) {
            return CuError::check(self.sticky.load(Ordering::Relaxed));
        }
        self.new_error()
    }

    #[cold]
    fn new_error(&self) -> CuResult<()> {
        let Some((count, error)) = self.submitter.last_error() else { return Ok(()) };
        if error.sticky {
            self.stick(error.code);
            // No later call goes to the worker: what its kernels printed before, and why an assert failed, is told now.
            self.print();
        }
        // Only one thread tells a plain error.
        let told = self.told.swap(count, Ordering::Relaxed);
        CuError::check(self.sticky.load(Ordering::Relaxed))?;
        if told == count { Ok(()) } else { CuError::check(error.code) }
    }

    /// The first sticky error is the one that stays.
    fn stick(&self, code: u32) {
        let _ = self.sticky.compare_exchange(0, code, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// A part of staging for one call. Waits while others have all of it.
    pub fn staging(&self) -> CuResult<Room<'_>> {
        let chunk = self.submitter.stage(ROOM_BYTES, None).map_err(|error| self.lost(&error))?;
        Ok(Room { channel: self, chunk })
    }

    /// A small part of staging that is kept for good.
    pub fn mailbox(&self, bytes: usize) -> CuResult<Room<'_>> {
        let chunk = self.submitter.stage(bytes, None).map_err(|error| self.lost(&error))?;
        Ok(Room { channel: self, chunk })
    }

    /// Waits until `ready`, which is asked again after each wake-up.
    /// # Errors
    /// The worker is gone.
    pub fn wait_until(&self, ready: impl FnMut() -> bool) -> CuResult<()> {
        self.submitter.wait_until(ready).map_err(|error| self.lost(&error))
    }

    /// The worker sent what no worker sends: as if it were gone.
    pub fn broken(&self, error: &WireError) -> CuError {
        say!("the worker answered with bytes that are no answer: {error}");
        self.stick(CuError::DEVICE_UNAVAILABLE.code());
        CuError::DEVICE_UNAVAILABLE
    }

    /// In a child of `fork`: lets go of the socket, so that the parent's death is noticed while the child lives.
    pub fn abandon(&self) {
        // SAFETY: async-signal-safe; the descriptor is the child's copy, and nothing in the child uses it again.
        unsafe { libc::close(self.socket) };
    }

    /// Just behind this thread's last answered call.
    pub fn answered(&self) -> Moment {
        Moment(ANSWERED.get())
    }

    /// Whether no thread has sent anything since: what was done then is all there is.
    pub fn is_newest(&self, moment: Moment) -> bool {
        self.submitter.submitted_until() == moment.0
    }

    /// Errors of queued calls that the worker has reported so far; moves with each of them.
    #[inline]
    pub fn error_count(&self) -> u32 {
        self.submitter.error_count()
    }

    /// Counts the calls that may run kernels of graphs, or get them ready, from when they were sent.
    pub fn graph_calls(&self) -> u32 {
        self.graph_calls.load(Ordering::SeqCst)
    }

    /// Without effect for the others: which call it is is known where this is compiled.
    #[inline]
    fn count_graph_call(&self, op: Op) {
        let may_run = matches!(
            op,
            Op::vgpuGraphInstantiate
                | Op::vgpuGraphUpdate
                | Op::vgpuGraphNodeSet
                | Op::cuGraphUpload
                | Op::cuGraphLaunch
        );
        if may_run {
            self.graph_calls.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Writes what kernels have printed to the program's own streams.
    #[cold]
    fn print(&self) {
        while let Ok(Printed { to, bytes }) = ask::vgpuPrinted(self, ContextId::NONE) {
            if bytes.is_empty() {
                return;
            }
            super::stdio::write(to, &bytes);
        }
    }

    fn lost(&self, error: &ChannelError) -> CuError {
        match error {
            ChannelError::TooLong { .. } => CuError::INVALID_VALUE,
            _ => {
                say!("the worker is lost: {error}");
                let code = CuError::DEVICE_UNAVAILABLE;
                self.stick(code.code());
                CuError::check(self.sticky.load(Ordering::Relaxed)).err().unwrap_or(code)
            }
        }
    }
}

/// What a program is told when it can't be connected, and why, for who asked to see it.
fn refusal(path: &Path, error: &ChannelError) -> CuError {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    say!("cannot use the GPU by {}: {error}{cause}", path.display());
    match error {
        ChannelError::System { .. } => CuError::NO_DEVICE,
        ChannelError::PeerVersion { .. } | ChannelError::PeerMagic { .. } => told(Code::ProtocolVersion),
        ChannelError::Refused { code, .. } => {
            let Some(code) = Code::from_number(*code) else { return CuError::DEVICE_UNAVAILABLE };
            say!("{code}: {}. {}", code.title(), code.remedy());
            told(code)
        }
        _ => CuError::DEVICE_UNAVAILABLE,
    }
}

fn told(code: Code) -> CuError {
    CuError::check(code.cu_result()).err().unwrap_or(CuError::DEVICE_UNAVAILABLE)
}

/// Packs a call's parameters into private memory and hands them on.
#[inline]
fn packed<T>(
    size: usize,
    fill: impl FnOnce(&mut Writer<'_>),
    then: impl FnOnce(&[u8]) -> CuResult<T>,
) -> CuResult<T> {
    if size <= TINY_BYTES {
        let mut buffer = [0; TINY_BYTES];
        return pack(&mut buffer[..size], fill, then);
    }
    if size <= SMALL_BYTES {
        let mut buffer = [0; SMALL_BYTES];
        return pack(&mut buffer[..size], fill, then);
    }
    // Taken out of the thread's place, so that nothing is borrowed while the call waits.
    let mut buffer = SCRATCH.try_with(|scratch| scratch.take()).unwrap_or_default();
    buffer.resize(size, 0);
    let result = pack(&mut buffer, fill, then);
    let _ = SCRATCH.try_with(|scratch| scratch.replace(buffer));
    result
}

#[inline]
fn pack<T>(
    buffer: &mut [u8],
    fill: impl FnOnce(&mut Writer<'_>),
    then: impl FnOnce(&[u8]) -> CuResult<T>,
) -> CuResult<T> {
    let mut writer = Writer::new(buffer);
    fill(&mut writer);
    // `size` and `fill` come from the same line of the declaration.
    let written = writer.finish().ok_or(CuError::UNKNOWN)?;
    then(buffer.get(..written).ok_or(CuError::UNKNOWN)?)
}

impl Transport for Channel {
    #[inline]
    fn send(
        &self,
        op: Op,
        context: ContextId,
        size: usize,
        fill: impl FnOnce(&mut Writer<'_>),
    ) -> CuResult<()> {
        if self.always_wait {
            return self.call(op, context, size, fill, |_| Ok(()));
        }
        packed(size, fill, |bytes| {
            self.submitter.submit_bytes(op as u16, context.0, bytes).map_err(|error| self.lost(&error))?;
            self.count_graph_call(op);
            Ok(())
        })
    }

    fn call<T>(
        &self,
        op: Op,
        context: ContextId,
        size: usize,
        fill: impl FnOnce(&mut Writer<'_>),
        take: impl FnOnce(&mut Reader<'_>) -> Result<T, WireError>,
    ) -> CuResult<T> {
        packed(size, fill, |bytes| {
            if waits_wanted() {
                say!("waits for {}", op.name());
            }
            let mut reply = [0; REPLY_BYTES_MAX];
            let answer = self.submitter.call(op as u16, context.0, bytes, &mut reply, None);
            let answer = answer.map_err(|error| self.lost(&error))?;
            crate::vgpu_is_shim.replies.fetch_add(1, Ordering::Relaxed);
            self.count_graph_call(op);
            if answer.status & PRINTED != 0 && op != Op::vgpuPrinted {
                self.print();
            }
            ANSWERED.set(answer.end);
            if let Err(error) = CuError::check(answer.status & !PRINTED) {
                if error.is_sticky() {
                    self.stick(error.code());
                }
                return Err(error);
            }
            let mut reader = Reader::new(reply.get(..answer.len).unwrap_or(&[]));
            take(&mut reader)
                .and_then(|value| reader.end().map(|()| value))
                .map_err(|error| self.broken(&error))
        })
    }
}
