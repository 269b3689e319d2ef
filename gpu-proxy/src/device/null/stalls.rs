//! Streams that wait for a word, for a device that computes nothing: held until some stream writes the word, whatever the value. What
//! waits with them is what waits on NVIDIA's driver (seen on an H100, driver 580): the legacy stream for all that block, and what is
//! queued in these behind it. A question finds the legacy stream busy while one of them is, and these idle until something is queued.

use std::collections::{HashMap, HashSet};

use vgpu_api::{CuError, CuResult, MemoryOp, MemoryOpKind};

use crate::device::{Place, Raw};

#[derive(Debug, Default)]
pub(super) struct Stalls {
    /// The word's address by context and stream.
    held: HashMap<(Raw, Option<Raw>), u64>,
    /// Events that were recorded behind a wait.
    events: HashMap<Raw, u64>,
    non_blocking: HashSet<Raw>,
}

impl Stalls {
    /// `CU_STREAM_NON_BLOCKING` is 1.
    pub(super) fn stream(&mut self, stream: Raw, flags: u32) {
        if flags & 1 == 1 {
            self.non_blocking.insert(stream);
        }
    }

    pub(super) fn queue_ops(&mut self, place: Place, ops: &[MemoryOp]) {
        self.queue(place);
        for op in ops {
            match op.kind {
                MemoryOpKind::Barrier => {}
                MemoryOpKind::Write => {
                    self.held.retain(|_, word| *word != op.at.0);
                    self.events.retain(|_, word| *word != op.at.0);
                }
                _ => {
                    self.held.entry((place.context, place.stream)).or_insert(op.at.0);
                }
            }
        }
    }

    /// Something is queued.
    pub(super) fn queue(&mut self, place: Place) {
        if let Some(word) = self.ahead(place) {
            self.held.insert((place.context, place.stream), word);
        }
    }

    pub(super) fn record(&mut self, place: Place, event: Raw) {
        self.queue(place);
        match self.held.get(&(place.context, place.stream)) {
            Some(word) => self.events.insert(event, *word),
            None => self.events.remove(&event),
        };
    }

    /// Behind all work of a context.
    pub(super) fn record_all(&mut self, context: Raw, event: Raw) {
        match self.held.iter().find(|((of, _), _)| *of == context) {
            Some((_, word)) => self.events.insert(event, *word),
            None => self.events.remove(&event),
        };
    }

    pub(super) fn query(&self, place: Place) -> CuResult<()> {
        let own = self.held.contains_key(&(place.context, place.stream));
        let busy = own || (place.stream.is_none() && self.ahead(place).is_some());
        if busy { Err(CuError::NOT_READY) } else { Ok(()) }
    }

    pub(super) fn query_event(&self, event: Raw) -> CuResult<()> {
        if self.events.contains_key(&event) { Err(CuError::NOT_READY) } else { Ok(()) }
    }

    /// Whether work of a context is held.
    pub(super) fn query_context(&self, context: Raw) -> CuResult<()> {
        if self.held.keys().any(|(of, _)| *of == context) { Err(CuError::NOT_READY) } else { Ok(()) }
    }

    /// The word that what is queued now waits for.
    fn ahead(&self, place: Place) -> Option<u64> {
        let blocks = |stream: &Option<Raw>| stream.is_none_or(|stream| !self.non_blocking.contains(&stream));
        let own = self.held.get(&(place.context, place.stream)).copied();
        own.or_else(|| match place.stream {
            None => {
                let mut others = self.held.iter();
                let blocking =
                    others.find(|((context, stream), _)| *context == place.context && blocks(stream));
                blocking.map(|(_, word)| *word)
            }
            Some(_) if blocks(&place.stream) => self.held.get(&(place.context, None)).copied(),
            Some(_) => None,
        })
    }
}
