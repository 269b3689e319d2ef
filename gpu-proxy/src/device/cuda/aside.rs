//! Work on mapped memory of another device than its stream's: a driver finds out by itself whose memory of `cuMemAlloc` is, but not of mapped
//! memory, of which allocations are made here. (A fill is refused by the driver in both.) It goes on a stream of the memory's device, between what was there before it and what comes.

use super::table::{NULL, Ptr};
use super::{Cuda, Place, Raw};
use vgpu_api::CuResult;

/// `CU_EVENT_DISABLE_TIMING`.
const NO_TIMING: u32 = 2;
/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: u32 = 1;

/// Where a piece of work goes. Whoever begins one ends it, whatever becomes of the work.
pub(super) struct Way {
    /// A stream of the context that is current now.
    pub stream: Ptr,
    is_aside: bool,
}

impl Cuda {
    /// The place of work that touches these addresses.
    pub(super) fn begin(&mut self, place: Place, addresses: &[u64]) -> CuResult<Way> {
        let own = self.stream(place)?;
        match self.elsewhere(place, addresses)? {
            Some(context) => self.step_aside(own, context).map(|stream| Way { stream, is_aside: true }),
            None => Ok(Way { stream: own, is_aside: false }),
        }
    }

    /// The end of that. `done`: what became of it.
    pub(super) fn end<T>(&mut self, place: Place, way: Way, done: CuResult<T>) -> CuResult<T> {
        if !way.is_aside {
            return done;
        }
        let event = self.recorded(way.stream);
        let joined = event.and_then(|event| {
            let own = self.stream(place)?;
            self.wait_and_end(own, event)
        });
        // SAFETY: made by `step_aside` and named to nobody; what it has to do it does still.
        let ended = unsafe { self.table.cuStreamDestroy_v2(way.stream) };
        let done = done?;
        joined.and(ended).map(|()| done)
    }

    /// The context of the first of these addresses' device, if that is another one than the place's.
    pub(super) fn elsewhere(&self, place: Place, addresses: &[u64]) -> CuResult<Option<Raw>> {
        if self.devices.len() < 2 {
            return Ok(None);
        }
        let own = self.number_of(place.context)?;
        let devices = addresses.iter().filter_map(|address| self.memories.device_of(*address));
        let other = devices.into_iter().find(|device| *device != own);
        Ok(other.and_then(|device| self.primaries.get(device as usize).copied()))
    }

    /// The driver's name of the context that reaches an address: of its device's where it is mapped, else of the place's.
    pub(super) fn context_with(&self, place: Place, address: u64) -> CuResult<Ptr> {
        self.contexts.get(self.elsewhere(place, &[address])?.unwrap_or(place.context))
    }

    fn step_aside(&mut self, own: Ptr, context: Raw) -> CuResult<Ptr> {
        let event = self.recorded(own)?;
        let mut stream = NULL;
        let made = self.enter(context).and_then(|()| {
            // SAFETY: the driver writes one handle to a variable of ours.
            unsafe { self.table.cuStreamCreateWithPriority(&raw mut stream, NON_BLOCKING, 0) }
        });
        if let Err(error) = made {
            // SAFETY: made above and named to nobody.
            let _ = unsafe { self.table.cuEventDestroy_v2(event) };
            return Err(error);
        }
        self.wait_and_end(stream, event).inspect_err(|_| {
            // SAFETY: made above and named to nobody.
            let _ = unsafe { self.table.cuStreamDestroy_v2(stream) };
        })?;
        Ok(stream)
    }

    /// An event of the current context behind all that a stream of it has.
    fn recorded(&self, stream: Ptr) -> CuResult<Ptr> {
        let mut event = NULL;
        // SAFETY: the driver writes one handle to a variable of ours.
        unsafe { self.table.cuEventCreate(&raw mut event, NO_TIMING) }?;
        // SAFETY: a live stream of ours, or the default one, and an event of the same context.
        let recorded = unsafe { self.table.cuEventRecordWithFlags(event, stream, 0) };
        recorded.inspect_err(|_| {
            // SAFETY: made above and named to nobody.
            let _ = unsafe { self.table.cuEventDestroy_v2(event) };
        })?;
        Ok(event)
    }

    fn wait_and_end(&self, stream: Ptr, event: Ptr) -> CuResult<()> {
        // SAFETY: a live stream of ours, or the default one, and a live event of ours.
        let waits = unsafe { self.table.cuStreamWaitEvent(stream, event, 0) };
        // SAFETY: named to nobody; who waits for it waits on.
        let ended = unsafe { self.table.cuEventDestroy_v2(event) };
        waits.and(ended)
    }
}
