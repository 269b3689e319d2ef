//! Contexts: `cuDevicePrimaryCtx*`, `cuCtx*`.

use vgpu_api::snapshot::CAN_MAP_HOST_MEMORY;
use vgpu_api::{Call, ContextId, CuError, CuResult, Staged};

use super::{Context, Session};
use crate::device::{COSTLY_LIMITS, Raw};
use crate::worker::host_functions::Count;
use crate::worker::staging;

/// Device memory that a context holds beside allocations and images. All of it but what it had at its start counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    /// Itself if it is not its device's first, and the local memory that kernels made it keep.
    charged_bytes: u64,
    /// By the number of the `CUlimit`.
    limits: [LimitBytes; COSTLY_LIMITS],
    /// Local memory of a thread that there is room for, bytes.
    local_bytes: u64,
    /// A thread's stack at the start. Where there is local memory at all, there is room for that.
    stack_bytes: u64,
}

/// What a limit stands for in device memory.
#[derive(Clone, Copy, Debug, Default)]
struct LimitBytes {
    /// At the context's start: part of what a context costs.
    start: u64,
    /// Counted on top of that.
    charged: u64,
}

impl Held {
    pub(super) fn counted_bytes(&self) -> u64 {
        self.charged_bytes + self.limits.iter().map(|limit| limit.charged).sum::<u64>()
    }

    /// For a green context that begins beside a primary one with this. A driver may have to make anew for it what was made there: so all of
    /// it counts again, but for what the device says that a green one costs.
    pub(super) fn of_green(&self, charged_bytes: u64) -> Self {
        Self { charged_bytes, local_bytes: 0, ..*self }
    }

    /// What a limit adds to what counts when it stands for so many bytes.
    fn raised(&self, limit: u32, bytes: u64) -> u64 {
        let known = self.limits.get(limit as usize);
        known.map_or(0, |known| bytes.saturating_sub(known.start).saturating_sub(known.charged))
    }

    /// Lets a limit stand for so many bytes; what of it counts no longer.
    fn set(&mut self, limit: u32, bytes: u64) -> u64 {
        let Some(known) = self.limits.get_mut(limit as usize) else { return 0 };
        let charged = bytes.saturating_sub(known.start);
        std::mem::replace(&mut known.charged, charged).saturating_sub(charged)
    }
}

impl Session {
    pub(super) fn snapshot(&mut self, out: Staged) -> CuResult<u64> {
        let mut snapshot = self.device.snapshot(&self.quotas.limits());
        if self.arena.is_none() {
            let mapping = snapshot
                .devices
                .iter_mut()
                .filter_map(|device| device.attributes.get_mut(CAN_MAP_HOST_MEMORY));
            mapping.for_each(|value| *value = 0);
        }
        let bytes = snapshot.to_bytes();
        staging::put(&*self.staging, out, &bytes)?;
        Ok(bytes.len() as u64)
    }

    pub(super) fn primary_retain(&mut self, device: u32, flags: u32) -> CuResult<()> {
        self.check_device(device)?;
        let id = ContextId::primary(device);
        if self.contexts.contains_key(&id) {
            return self.context(id).map(drop);
        }
        self.make_context(id, device, flags, true)
    }

    pub(super) fn primary_end(&mut self, device: u32) -> CuResult<()> {
        self.check_device(device)?;
        let id = ContextId::primary(device);
        if !self.contexts.contains_key(&id) {
            return Ok(());
        }
        self.end_must_not_wait(id)?;
        self.end_context(id, true)
    }

    pub(super) fn context_create(&mut self, id: ContextId, flags: u32, device: u32) -> CuResult<()> {
        self.check_device(device)?;
        if id == ContextId::NONE || id.primary_device().is_some() || self.has_context(id) {
            return Err(CuError::INVALID_CONTEXT);
        }
        self.make_context(id, device, flags, false)
    }

    pub(super) fn context_destroy(&mut self, id: ContextId) -> CuResult<()> {
        if id.primary_device().is_some() || !self.contexts.contains_key(&id) {
            return Err(CuError::INVALID_CONTEXT);
        }
        self.end_must_not_wait(id)?;
        self.end_context(id, false)
    }

    /// Before the end of a context, for whose work a device waits. Of one that an error has ended nothing is waited for.
    pub(super) fn end_must_not_wait(&mut self, id: ContextId) -> CuResult<()> {
        match self.context(id) {
            Ok(context) => self.context_must_be_done(id, context),
            Err(_) => Ok(()),
        }
    }

    pub(super) fn context_synchronize(&mut self, call: Call) -> CuResult<()> {
        let (owner, context) = self.runs_in(call.context)?;
        // Of a green context: also before what other streams of its primary one wait for, some of which may be ended ones of its own.
        self.context_must_be_done(owner, self.context(owner)?)?;
        let result = self.device.context_synchronize(context);
        self.settle(owner, result)?;
        if owner == call.context {
            self.context_is_done(owner);
            self.end_going(owner);
        }
        self.look_at_all_going();
        Ok(())
    }

    pub(super) fn limit(&mut self, call: Call, limit: u32) -> CuResult<u64> {
        let context = self.context(call.context)?;
        self.device.limit(context, limit)
    }

    /// Sets a limit. What it makes the context, and each green one of it, larger by than it was at its start is counted.
    pub(super) fn set_limit(&mut self, call: Call, limit: u32, value: u64) -> CuResult<()> {
        let context = self.context(call.context)?;
        if limit as usize >= COSTLY_LIMITS {
            return self.device.set_limit(context, limit, value);
        }
        let bytes = self.device.costs().limit_bytes(limit, value);
        let device = self.device_of(call.context);
        let more = self.all_held(call.context).try_fold(0_u64, |sum, held| {
            sum.checked_add(held.raised(limit, bytes)).ok_or(CuError::OUT_OF_MEMORY)
        })?;
        self.quotas.charge(device, more)?;
        self.device.set_limit(context, limit, value).inspect_err(|_| self.quotas.release(device, more))?;
        let less = self.all_held(call.context).map(|held| held.set(limit, bytes)).sum();
        self.quotas.release(device, less);
        Ok(())
    }

    /// What a context and its green ones hold.
    fn all_held(&mut self, id: ContextId) -> impl Iterator<Item = &mut Held> {
        let own = self.contexts.get_mut(&id).map(|context| &mut context.held);
        own.into_iter().chain(self.greens.values_mut().filter_map(move |green| green.held_beside(id)))
    }

    /// Counts room for `needs` bytes of local memory for each of `threads` threads, if the context, or the green one of it that is meant, does
    /// not have it yet.
    pub(super) fn make_room(
        &mut self,
        (id, green): (ContextId, Option<ContextId>),
        needs: u64,
        threads: u64,
    ) -> CuResult<()> {
        let Some(Context { held, device, .. }) = self.contexts.get_mut(&id) else {
            return Err(CuError::INVALID_CONTEXT);
        };
        let green = green.map(|green| self.greens.get_mut(&green).ok_or(CuError::CONTEXT_IS_DESTROYED));
        let held = green.transpose()?.and_then(|green| green.held_beside(id)).unwrap_or(held);
        let needs = if needs > 0 { needs.max(held.stack_bytes) } else { 0 };
        if needs > held.local_bytes {
            let more = (needs - held.local_bytes).saturating_mul(threads);
            self.quotas.charge(*device, more)?;
            held.charged_bytes += more;
            held.local_bytes = needs;
        }
        Ok(())
    }

    fn make_context(&mut self, id: ContextId, device: u32, flags: u32, primary: bool) -> CuResult<()> {
        self.has_room_for_context()?;
        // A device's first was there, and was counted, before the program asked for it (`worker::prepare`).
        let charged_bytes = if primary { 0 } else { self.device.costs().context_bytes };
        self.quotas.charge(device, charged_bytes)?;
        let raw = self
            .device
            .context_create(device, flags, primary)
            .inspect_err(|_| self.quotas.release(device, charged_bytes))?;
        let held = self.kept.remove(&id).unwrap_or_else(|| self.held_at_start(raw, charged_bytes));
        let host_functions = Count::default();
        let context = Context { raw, device, sticky: None, held, is_legacy_used: false, host_functions };
        self.contexts.insert(id, context);
        Ok(())
    }

    fn held_at_start(&mut self, raw: Raw, charged_bytes: u64) -> Held {
        let costs = self.device.costs();
        let mut held = Held { charged_bytes, ..Held::default() };
        for (place, number) in held.limits.iter_mut().zip(0..) {
            let value = self.device.limit(raw, number).unwrap_or(0);
            place.start = costs.limit_bytes(number, value);
        }
        // `CUlimit` 0, a thread's stack: there is room for it from the start.
        held.stack_bytes = self.device.limit(raw, 0).unwrap_or(0);
        held.local_bytes = held.stack_bytes;
        held
    }

    /// Ends a context and all that lives in it. What the device refuses to free dies with the worker.
    fn end_context(&mut self, id: ContextId, primary: bool) -> CuResult<()> {
        self.end_peers_of(id);
        id.primary_device().into_iter().for_each(|device| self.end_greens_of(device));
        let Some(Context { raw, device, sticky, mut held, .. }) = self.contexts.remove(&id) else {
            return Err(CuError::INVALID_CONTEXT);
        };
        let stays = primary && self.device.keeps_primary();
        self.end_graphs(id);
        self.end_conditionals(id);
        self.end_waits(id);
        self.end_line(raw);
        // Graphs of other contexts may name what ends with this one.
        self.graphs.something_ended();
        for event in self.events.remove_where(|event| event.context == id) {
            event.shared.into_iter().for_each(|shared| self.leave(shared));
            let _ = self.device.event_destroy(event.raw);
        }
        for stream in self.streams.remove_where(|stream| stream.context == id) {
            if !stream.has_ended {
                let _ = self.device.stream_destroy(stream.raw);
            }
        }
        self.end_references_of(id, raw);
        for image in self.images.remove_where(|image| image.context == Some(id)) {
            self.end_image(image);
        }
        self.end_linkers(id);
        let kept_bytes = self.end_arrays_of(id, device, raw);
        if stays {
            held.charged_bytes += kept_bytes;
        } else {
            self.quotas.release(device, kept_bytes);
        }
        self.end_opened_of(id);
        let mut left = Vec::new();
        for ended in self.ranges.remove_context(id) {
            let freed = self.device.free(raw, ended.address);
            self.allocation_ended(ended.address);
            match freed {
                Ok(()) => self.quotas.release(device, ended.charged_bytes),
                Err(_) if stays => held.charged_bytes += ended.charged_bytes,
                Err(_) => left.push(ended),
            }
        }
        let result = self.device.context_destroy(device, raw, primary);
        for ended in left {
            // What a device does not let go of counts until the worker ends.
            match self.device.free_left(ended.address) {
                Ok(()) => {
                    self.let_go_of_ended();
                    self.quotas.release(device, ended.charged_bytes);
                }
                Err(error) => log::warn!("an allocation outlives its context: {}", error.code()),
            }
        }
        self.count_pieces(device);
        if !primary {
            // In a primary one libraries stay, for when it begins anew.
            self.end_libraries_in(id);
        }
        self.end_going(id);
        self.end_pools_of(id, primary.then_some(device));
        // What the device still has goes on counting, and is the next primary context's.
        if stays {
            self.kept.insert(id, held);
        } else {
            self.quotas.release(device, held.counted_bytes());
        }
        sticky.map_or(result, Err)
    }
}
