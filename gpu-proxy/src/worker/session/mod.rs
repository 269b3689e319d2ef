//! One guest process's CUDA state: its contexts, handles, memory, sticky errors. Start at [`Session`], the worker's `Driver`.
//!
//! Each call goes through the same gates, in this order: is its context whole (sticky errors) → do its handles exist, in the
//! right generation → do its addresses and lengths lie inside the allocation map → does the grant allow it → may we submit.
//! Only then does the device see it, with names that it gave out itself. The calls are sorted by subject: `context.rs`, `green.rs`, `devices.rs`,
//! `memory.rs`, `arena.rs`, `virtual_memory.rs`, `shared.rs`, `shared_event.rs`, `pool.rs`, `array.rs`, `image.rs`, `upload.rs`, `stream.rs`, `stream_memory.rs`,
//! `graph.rs`, `host_function.rs`, `link.rs`, `tensor_map.rs`. Whose turn it is: `turn.rs`. Not here: rings and records (`worker/serve.rs`), what a GPU does
//! (`device/`).

mod arena;
mod array;
mod calls;
mod context;
mod devices;
mod graph;
mod green;
mod host_function;
mod image;
mod link;
mod mark;
mod memory;
mod pool;
mod shared;
mod shared_event;
mod stream;
mod stream_memory;
mod tensor_map;
#[cfg(test)]
mod tests;
mod turn;
mod upload;
mod virtual_memory;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use idm::Region;
use vgpu_api::{Call, ContextId, CuError, CuResult, Stream};

use super::chunks::Chunks;
use super::host_functions::{Count, HostFunctions};
use super::quotas::Quotas;
use super::ranges::Ranges;
use super::slab::Slab;
use super::staging::Staging;
use crate::device::{Device, Place, Raw};

use context::Held;
use graph::Graphs;
use green::Green;
use image::Image;
use link::Linkers;
use mark::Mark;
use pool::Pools;
use shared::Shared;
use shared_event::{Board, SharedEvent};
use turn::Turns;
use upload::Uploads;
use virtual_memory::VirtualMemory;

/// Contexts that one process may have at once.
const CONTEXTS_MAX: usize = 256;

/// The state of one guest process.
pub struct Session {
    device: Box<dyn Device>,
    quotas: Quotas,
    staging: Arc<dyn Staging>,
    contexts: HashMap<ContextId, Context>,
    greens: HashMap<ContextId, Green>,
    /// Of primary contexts that ended here and that the device keeps.
    kept: HashMap<ContextId, Held>,
    /// Pairs of contexts, the first of which reaches the memory of the second.
    peers: BTreeSet<(ContextId, ContextId)>,
    streams: Slab<OwnStream>,
    events: Slab<Owned>,
    images: Slab<Image>,
    graphs: Graphs,
    /// Arrays, textures, surfaces.
    table: array::Table,
    linkers: Linkers,
    ranges: Ranges,
    /// The guest's pages that it may let be named.
    arena: Option<Arc<Region>>,
    /// How its pages come, where they are not all there.
    chunks: Option<Chunks>,
    /// Parts of it that can be named.
    arena_parts: usize,
    virtual_memory: VirtualMemory,
    shared: Shared,
    board: Board,
    pools: Pools,
    uploads: Uploads,
    image_log: String,
    buffer: Vec<u8>,
    /// Once the guest has said where it looks for them.
    host_functions: Option<HostFunctions>,
    /// Behind each wait for a word that may not be over.
    waits: Vec<Mark>,
    /// The last call would have waited, and was not run.
    put_aside: bool,
    /// Absent where nobody rules whose turn it is.
    turns: Option<Turns>,
}

#[derive(Debug)]
struct Context {
    raw: Raw,
    device: u32,
    /// What ended it, if anything did.
    sticky: Option<CuError>,
    held: Held,
    /// Whether its legacy stream was given work since no stream was held up by the guest, or since that was seen to be done.
    is_legacy_used: bool,
    /// Those of its streams.
    host_functions: Count,
}

/// An event, which belongs to a context.
#[derive(Clone, Copy, Debug)]
struct Owned {
    raw: Raw,
    context: ContextId,
    /// Others may have it.
    shared: Option<SharedEvent>,
}

/// A stream, which belongs to a context.
#[derive(Clone, Copy, Debug)]
struct OwnStream {
    raw: Raw,
    context: ContextId,
    /// The legacy stream waits for it and it for that one.
    is_blocking: bool,
    /// The green context of that one in which it was made.
    green: Option<ContextId>,
    /// With that one: it is no more, and known to say so.
    has_ended: bool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("contexts", &self.contexts).finish_non_exhaustive()
    }
}

impl Session {
    /// A process that has done nothing yet, with as many devices as there are quotas.
    #[must_use]
    pub fn new(device: Box<dyn Device>, quotas: impl Into<Quotas>, staging: Box<dyn Staging>) -> Self {
        Self {
            device,
            quotas: quotas.into(),
            staging: Arc::from(staging),
            contexts: HashMap::new(),
            greens: HashMap::new(),
            kept: HashMap::new(),
            peers: BTreeSet::new(),
            streams: Slab::default(),
            events: Slab::default(),
            images: Slab::default(),
            graphs: Graphs::default(),
            table: array::Table::default(),
            linkers: Linkers::default(),
            ranges: Ranges::default(),
            arena: None,
            chunks: None,
            arena_parts: 0,
            virtual_memory: VirtualMemory::default(),
            shared: Shared::default(),
            board: Board::default(),
            pools: Pools::default(),
            uploads: Uploads::default(),
            image_log: String::new(),
            buffer: Vec::new(),
            host_functions: None,
            waits: Vec::new(),
            put_aside: false,
            turns: None,
        }
    }

    /// With the pages of an arena, which lie here for the guest's [`idm::arena::WINDOW`].
    #[must_use]
    pub fn with_arena(self, arena: Option<Region>) -> Self {
        Self { arena: arena.map(Arc::new), ..self }
    }

    /// With an arena whose pages come by chunks.
    #[must_use]
    pub fn with_chunks(self, chunks: Option<Chunks>) -> Self {
        Self { chunks, ..self }
    }

    /// The error that ended `context`, if one did: for the error word.
    #[must_use]
    pub fn sticky(&self, context: ContextId) -> Option<CuError> {
        self.contexts.get(&self.owner(context))?.sticky
    }

    /// Whether kernels have printed what the guest does not have yet.
    #[must_use]
    pub fn has_printed(&self) -> bool {
        self.device.has_printed()
    }

    /// Whether the call that just answered 600 is to be tried again: it would have waited for work that may itself wait for the guest.
    pub fn take_put_aside(&mut self) -> bool {
        std::mem::take(&mut self.put_aside)
    }

    /// Whether a stream may be waiting for the guest: for a function of it, or for a word that another stream is to write. Else, and that
    /// is nearly always, nobody is asked.
    fn is_held_up(&mut self) -> bool {
        self.is_function_queued() || self.is_word_awaited()
    }

    /// Of a context that an error has ended the device calls none any more.
    fn is_function_queued(&self) -> bool {
        let waits = |context: &Context| context.sticky.is_none() && context.host_functions.is_any();
        let any = self.host_functions.as_ref().is_some_and(HostFunctions::is_any_queued);
        any && self.contexts.values().any(waits)
    }

    /// Before a call that may hold up a stream. What was queued before the first of them ends by itself.
    fn may_hold_up(&mut self) {
        if !self.is_held_up() {
            self.contexts.values_mut().for_each(|context| context.is_legacy_used = false);
        }
    }

    /// Before a call that waits for what a stream holds; the legacy stream holds what all do that block. While a stream may be waiting for
    /// the guest the loop may not stand still: what it waits for may come through it.
    ///
    /// # Errors
    /// 600: not yet, try again.
    fn must_be_done(&mut self, place: Place) -> CuResult<()> {
        if self.is_held_up() {
            self.not_yet(|device| device.stream_query(place))?;
        }
        Ok(())
    }

    /// As [`Session::must_be_done`], before a call that queues work and waits for it: work of a stream that blocks comes after what the
    /// legacy stream holds. That one is asked only if it may hold something, since it is also busy while a stream that blocks is.
    fn must_be_next(&mut self, stream: Stream, id: ContextId, place: Place) -> CuResult<()> {
        self.must_be_done(place)?;
        let Stream::Made(handle) = stream else { return Ok(()) };
        let is_legacy_used = self.contexts.get(&id).is_some_and(|context| context.is_legacy_used);
        if is_legacy_used && self.streams.get(handle)?.is_blocking && self.is_held_up() {
            self.not_yet(|device| device.stream_query(Place { stream: None, ..place }))?;
            // Green contexts have legacy streams of their own, of which only one was asked.
            if self.greens.is_empty()
                && let Some(context) = self.contexts.get_mut(&id)
            {
                context.is_legacy_used = false;
            }
        }
        Ok(())
    }

    /// As [`Session::must_be_done`], before a call that waits for a context.
    fn context_must_be_done(&mut self, id: ContextId, context: Raw) -> CuResult<()> {
        if !self.is_held_up() {
            return Ok(());
        }
        // Streams that were destroyed can't be asked.
        let is_function_queued = self.contexts.get(&id).is_some_and(|known| known.host_functions.is_any());
        if is_function_queued || self.is_word_awaited_in(id) {
            return self.put_aside();
        }
        let of_it = self.streams.iter().filter(|stream| stream.context == id);
        let place = |stream: &OwnStream| {
            let context = self.runs_in_green(*stream, context).ok()?;
            Some(Place { context, stream: Some(stream.raw) })
        };
        let places: Vec<_> = of_it.filter_map(place).chain([Place { context, stream: None }]).collect();
        places.into_iter().try_for_each(|place| self.not_yet(|device| device.stream_query(place)))
    }

    /// As [`Session::must_be_done`], before a call that waits for all work.
    fn all_must_be_done(&mut self) -> CuResult<()> {
        let whole = self.contexts.iter().filter(|(_, context)| context.sticky.is_none());
        let whole: Vec<_> = whole.map(|(id, context)| (*id, context.raw)).collect();
        whole.into_iter().try_for_each(|(id, raw)| self.context_must_be_done(id, raw))
    }

    /// Puts the call aside if `query` says 600. Other errors are left to the call itself.
    fn not_yet(&mut self, query: impl FnOnce(&mut dyn Device) -> CuResult<()>) -> CuResult<()> {
        if query(&mut *self.device) == Err(CuError::NOT_READY) { self.put_aside() } else { Ok(()) }
    }

    fn put_aside(&mut self) -> CuResult<()> {
        self.put_aside = true;
        Err(CuError::NOT_READY)
    }

    /// The context `id`.
    ///
    /// # Errors
    /// 201 if there is none, its sticky error if it has one.
    fn context(&self, id: ContextId) -> CuResult<Raw> {
        let context = self.contexts.get(&id).ok_or(CuError::INVALID_CONTEXT)?;
        context.sticky.map_or(Ok(context.raw), Err)
    }

    /// That a call that needs no context was not made in one that an error has ended.
    ///
    /// # Errors
    /// Its sticky error.
    fn whole(&self, call: Call) -> CuResult<()> {
        self.sticky(call.context).map_or(Ok(()), Err)
    }

    /// Where work is queued in this stream: [`Session::place_of`].
    fn place(&mut self, call: Call, stream: Stream) -> CuResult<(ContextId, Place)> {
        let (id, place) = self.place_of(call, stream)?;
        if (stream == Stream::Legacy || self.is_legacy_of_green(stream))
            && let Some(context) = self.contexts.get_mut(&id)
        {
            context.is_legacy_used = true;
        }
        Ok((id, place))
    }

    /// Where a call with this stream runs: the stream's own context, or the call's for the legacy stream.
    fn place_of(&self, call: Call, stream: Stream) -> CuResult<(ContextId, Place)> {
        match stream {
            Stream::Legacy => {
                Ok((call.context, Place { context: self.context(call.context)?, stream: None }))
            }
            Stream::Made(handle) => {
                let stream = *self.streams.get(handle)?;
                let context = self.runs_in_green(stream, self.context(stream.context)?)?;
                Ok((stream.context, Place { context, stream: Some(stream.raw) }))
            }
        }
    }

    /// After a call of the device's: keeps its error with its context if it is sticky.
    fn settle<T>(&mut self, context: ContextId, result: CuResult<T>) -> CuResult<T> {
        self.mark_line();
        if let Err(error) = result
            && error.is_sticky()
            && let Some(context) = self.contexts.get_mut(&context)
        {
            context.sticky.get_or_insert(error);
        }
        result
    }
}
