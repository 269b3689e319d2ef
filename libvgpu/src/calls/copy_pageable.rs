//! Copies between the device and pageable memory, which no device reaches.
//!
//! Few bytes to the device travel in the record. Others pass through slots of the arena (`core/slots.rs`): a thread copies a piece between the
//! program's memory and a slot while the device copies others, and of large copies several threads do. Where there is no arena, or where
//! a stream that stands still has all slots, they pass through staging, with a reply for each piece.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vgpu_api::{CuError, CuResult, DevicePtr, Stream, ask};

use super::copy::{is_device, owned, synchronize};
use super::copy_box::Copy3d;
use super::copy_node::captured;
use crate::abi::Span;
use crate::core::contexts::Entered;
use crate::core::copiers::Shared;
use crate::core::slab::lock;
use crate::core::slots::{Slot, Slots, Standing};
use crate::core::waited;

/// Up to here bytes travel in the record.
pub const INLINE_BYTES: usize = 32 * 1024;
/// From here on other threads help.
const HELPED_BYTES: usize = 2 << 20;
/// For so long a thread looks at a word again and again; a piece is on its way for some tens of microseconds.
const LOOK: Duration = Duration::from_micros(200);

/// Host to device. The bytes have been taken over when it returns.
pub fn to_device(entered: Entered, dst: DevicePtr, src: &[u8], stream: Stream) -> CuResult<()> {
    owned(entered, dst, src.len() as u64)?;
    if src.is_empty() {
        return Ok(());
    }
    let host = src.as_ptr().expose_provenance() as u64;
    if captured(entered, stream, || Copy3d::line((true, dst.0), (false, host), src.len()))? {
        return Ok(());
    }
    if src.len() <= INLINE_BYTES {
        return ask::cuMemcpyHtoDAsync_v2(&entered.process.channel, entered.context, dst, src, stream);
    }
    let way = Way { entered, stream, device: dst, host, to_device: true };
    way.copy(src.len())
}

/// Device to host. The bytes are there when it returns.
pub fn to_host(entered: Entered, dst: &mut [u8], src: DevicePtr, stream: Stream) -> CuResult<()> {
    owned(entered, src, dst.len() as u64)?;
    if dst.is_empty() {
        return Ok(());
    }
    let host = dst.as_mut_ptr().expose_provenance() as u64;
    if captured(entered, stream, || Copy3d::line((false, host), (true, src.0), dst.len()))? {
        return Ok(());
    }
    let way = Way { entered, stream, device: src, host, to_device: false };
    way.copy(dst.len())?;
    // A kernel's fault before the copy is this call's to tell.
    entered.told()?;
    // The last reply was that of a wait for the stream, or of a copy that did.
    waited::for_stream(entered, stream);
    Ok(())
}

/// From where to where, in which stream.
#[derive(Debug, Clone, Copy)]
struct Way {
    entered: Entered,
    stream: Stream,
    device: DevicePtr,
    /// The program lends this memory for the call, and every piece of it is one thread's.
    host: u64,
    to_device: bool,
}

impl Way {
    fn copy(self, bytes: usize) -> CuResult<()> {
        // What the tables do not know the worker may refuse: a reply tells this call alone.
        let known = is_device(self.entered.process, self.device.0);
        let slots = self.entered.process.slots_for(self.entered.device, bytes).filter(|_| known);
        let Some(slots) = slots else { return self.through_staging(bytes) };
        let pieces = Pieces { way: self, bytes, slots, next: AtomicUsize::new(0), failed: Mutex::new(None) };
        if bytes <= slots.bytes() && !self.to_device {
            return pieces.only_one();
        }
        let done = if bytes < HELPED_BYTES { pieces.alone() } else { pieces.with_others() };
        // What kernels printed comes with a reply.
        if self.to_device { done } else { done.and_then(|()| synchronize(self.entered, self.stream)) }
    }

    fn piece(self, from: usize) -> CuResult<Self> {
        let device = self.device.offset(from as u64).ok_or(CuError::INVALID_VALUE)?;
        Ok(Self { device, host: self.host.saturating_add(from as u64), ..self })
    }

    /// Fills or empties a slot.
    fn host_side(self, slot: &Slot<'_>, bytes: usize) -> CuResult<()> {
        let host = Span::at_address(self.host);
        if self.to_device { slot.put(host.read(bytes)?) } else { slot.get(host.write(bytes)?) }
    }

    /// Sends the record of a slot's copy.
    fn device_side(self, slot: &mut Slot<'_>, bytes: usize) -> CuResult<()> {
        let Entered { process, context, .. } = self.entered;
        let (channel, there) = (&process.channel, slot.address());
        let (dst, src) = if self.to_device { (self.device, there) } else { (there, self.device) };
        slot.await_copy(|word| {
            ask::vgpuMemcpyThenWrite(channel, context, dst, src, bytes as u64, self.stream, word)
        })
    }

    /// Through staging. Waits for a reply for each of its pieces.
    fn through_staging(self, bytes: usize) -> CuResult<()> {
        let (channel, context) = (&self.entered.process.channel, self.entered.context);
        let (room, host) = (channel.staging()?, Span::at_address(self.host));
        let mut device = self.device;
        let mut next = |bytes: usize| {
            let here = device;
            device = device.offset(bytes as u64).ok_or(CuError::INVALID_VALUE)?;
            Ok::<_, CuError>(here)
        };
        if self.to_device {
            for piece in host.read(bytes)?.chunks(room.len()) {
                let staged = room.put(piece)?;
                ask::vgpuMemcpyHtoDStaged(channel, context, next(piece.len())?, staged, self.stream)?;
            }
        } else {
            for piece in host.write(bytes)?.chunks_mut(room.len()) {
                let staged = room.part(piece.len());
                ask::vgpuMemcpyDtoHStaged(channel, context, staged, next(piece.len())?, self.stream)?;
                room.get(piece)?;
            }
        }
        Ok(())
    }
}

/// A copy in pieces of one slot each, which any thread takes.
#[derive(Debug)]
struct Pieces {
    way: Way,
    bytes: usize,
    slots: &'static Slots,
    /// Where the next piece begins.
    next: AtomicUsize,
    /// The first error; nobody takes a piece after it.
    failed: Mutex<Option<CuError>>,
}

/// A piece whose slot the device is filling.
struct Ahead {
    way: Way,
    bytes: usize,
    slot: Slot<'static>,
}

impl Shared for Pieces {
    fn help(&self) {
        self.work(|| ());
    }
}

impl Pieces {
    /// Does pieces until none is left. Calls `begun` when the first of this thread's is on its way: what the stream held before is done
    /// by then if the way leads to the host, so that others have something to do.
    fn work(&self, mut begun: impl FnMut()) {
        let done = if self.way.to_device { self.fill(&mut begun) } else { self.empty(&mut begun) };
        if let Err(error) = done {
            lock(&self.failed).get_or_insert(error);
            self.next.store(self.bytes, Ordering::Relaxed);
        }
    }

    fn alone(self) -> CuResult<()> {
        self.work(|| ());
        self.result()
    }

    fn with_others(self) -> CuResult<()> {
        let (copiers, pieces) = (&self.way.entered.process.copiers, Arc::new(self));
        let mut offered = None;
        pieces.work(|| {
            offered.get_or_insert_with(|| copiers.offer(Arc::clone(&pieces) as Arc<dyn Shared>));
        });
        // Until nobody touches the program's memory any more.
        drop(offered);
        pieces.result()
    }

    fn result(&self) -> CuResult<()> {
        lock(&self.failed).map_or(Ok(()), Err)
    }

    /// The next piece and its length.
    fn take(&self) -> CuResult<Option<(Way, usize)>> {
        let step = |from: usize| (from < self.bytes).then(|| from.saturating_add(self.slots.bytes()));
        match self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step) {
            Ok(from) => Ok(Some((self.way.piece(from)?, self.slots.bytes().min(self.bytes - from)))),
            Err(_) => Ok(None),
        }
    }

    /// The whole copy to the host, when one slot holds it: one call copies and waits, and its reply tells of the copy alone.
    fn only_one(&self) -> CuResult<()> {
        let Self { way, bytes, .. } = *self;
        let Some(slot) = self.slot()? else { return way.through_staging(bytes) };
        let Entered { process, context, .. } = way.entered;
        let (dst, src) = (slot.address(), way.device);
        ask::vgpuMemcpyThenWait(&process.channel, context, dst, src, bytes as u64, way.stream)?;
        way.entered.told()?;
        way.host_side(&slot, bytes)
    }

    fn fill(&self, begun: &mut impl FnMut()) -> CuResult<()> {
        begun();
        while let Some((way, bytes)) = self.take()? {
            match self.slot()? {
                Some(mut slot) => {
                    way.host_side(&slot, bytes)?;
                    way.device_side(&mut slot, bytes)?;
                }
                None => way.through_staging(bytes)?,
            }
        }
        Ok(())
    }

    /// Has the device begin with the next piece before this one is waited for.
    fn empty(&self, begun: &mut impl FnMut()) -> CuResult<()> {
        let mut ahead = None;
        while let Some((way, bytes)) = self.take()? {
            let next = self.begin(way, bytes, ahead.is_none())?;
            if let Some(before) = std::mem::replace(&mut ahead, next) {
                before.finish(begun)?;
            }
        }
        ahead.map_or(Ok(()), |last: Ahead| last.finish(begun))
    }

    /// Has the device fill a slot; without one the piece is done at once.
    fn begin(&self, way: Way, bytes: usize, may_wait: bool) -> CuResult<Option<Ahead>> {
        let slot = if may_wait { self.slot()? } else { self.free_slot() };
        match slot {
            Some(mut slot) => {
                way.device_side(&mut slot, bytes)?;
                Ok(Some(Ahead { way, bytes, slot }))
            }
            None => way.through_staging(bytes).map(|()| None),
        }
    }

    fn free_slot(&self) -> Option<Slot<'static>> {
        self.slots.take(self.way.entered.process, self.way.entered.context)
    }

    /// A slot, for which it waits as long as this stream has one. `None` where others have them all.
    fn slot(&self) -> CuResult<Option<Slot<'static>>> {
        let mut slot = None;
        let found = look(|| {
            slot = self.free_slot();
            slot.is_some()
        });
        if !found {
            synchronize(self.way.entered, self.way.stream)?;
            slot = self.free_slot();
        }
        Ok(slot)
    }
}

impl Ahead {
    fn finish(self, begun: &mut impl FnMut()) -> CuResult<()> {
        let Self { way, bytes, slot } = self;
        wait(way, &slot)?;
        begun();
        way.host_side(&slot, bytes)
    }
}

/// Waits until the copy of a slot is done.
fn wait(way: Way, slot: &Slot<'_>) -> CuResult<()> {
    if !look(|| slot.standing() != Standing::Pending) {
        // Asleep. It tells of an error that came before, after which the word may never be written.
        synchronize(way.entered, way.stream)?;
    }
    if let Err(error) = is_done(slot) {
        // By now the error word has it, too: told here, it is told.
        let _ = synchronize(way.entered, way.stream);
        return way.entered.process.channel.take_error().and(Err(error));
    }
    Ok(())
}

/// That the copy of a slot was made, when its stream has been waited for or its word was seen.
fn is_done(slot: &Slot<'_>) -> CuResult<()> {
    match slot.standing() {
        Standing::Done => Ok(()),
        Standing::Refused(error) => Err(error),
        // The stream is done and the word is not there: no device does that.
        Standing::Pending => Err(CuError::UNKNOWN),
    }
}

/// Asks again and again, for a while; whether it came true.
fn look(mut is_true: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + LOOK;
    loop {
        for _ in 0..32 {
            if is_true() {
                return true;
            }
            std::hint::spin_loop();
        }
        if Instant::now() >= until {
            return false;
        }
        // There may be fewer processors than threads.
        std::thread::yield_now();
    }
}
