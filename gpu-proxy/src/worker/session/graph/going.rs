//! Ends of graphs: what one goes on taking until its launches are over.

use std::collections::VecDeque;

use vgpu_api::{Call, ContextId, CuResult, Stream};

use super::Graph;
use crate::device::Place;
use crate::worker::host_functions::GraphCall;
use crate::worker::session::Session;
use crate::worker::session::mark::Mark;

/// What a graph goes on taking after its end: a device keeps it until its launches are over.
#[derive(Debug)]
pub(super) struct Going {
    /// Where the last launch was.
    context: ContextId,
    /// Behind that; without one, only the end of all the context's work tells.
    mark: Option<Mark>,
    /// On this device.
    device: u32,
    charged_bytes: u64,
    bytes: u64,
    /// What a launch may still call.
    _calls: Vec<GraphCall>,
}

impl Session {
    pub(super) fn end_graph(&mut self, mut graph: Graph) -> CuResult<()> {
        self.look_at_going();
        let Graph { device, charged_bytes, bytes, .. } = graph;
        let mut calls = if graph.has_calls { graph.calls() } else { Vec::new() };
        calls.append(&mut graph.former_calls);
        calls.append(&mut graph.perhaps_calls);
        let going = graph.launched.and_then(|(context, stream, place)| {
            // With the context, or its error, ends what was launched in it.
            self.context(context).ok()?;
            let mark = self.mark_behind(context, stream, place);
            Some(Going { context, mark, device, charged_bytes, bytes, _calls: calls })
        });
        let result = self.device.graph_destroy(graph.raw);
        self.graphs.set_exec(graph.conditionals, false);
        match going {
            Some(going) => self.graphs.going.push_back(going),
            None => self.give_back(device, charged_bytes, bytes),
        }
        result
    }

    /// Behind what a stream holds, or, if it was destroyed, behind all that its context does.
    fn mark_behind(&mut self, context: ContextId, stream: Stream, place: Place) -> Option<Mark> {
        let mark = self.new_mark(context).ok()?;
        let is_there = self.place_of(Call { context, sync: false }, stream);
        let is_there = is_there.is_ok_and(|(_, now)| now.stream == place.stream);
        let set = if is_there { self.set_mark(&mark, place) } else { self.set_mark_of_all(&mark) };
        if set.is_err() {
            self.end_mark(&mark);
        }
        set.is_ok().then_some(mark)
    }

    pub(super) fn give_back(&mut self, device: u32, charged_bytes: u64, bytes: u64) {
        self.graphs.count -= 1;
        self.graphs.bytes -= bytes;
        self.release_graph(device, charged_bytes);
    }

    /// A graph has first what the device kept of ended ones.
    pub(super) fn charge_graph(&mut self, device: u32, bytes: u64) -> CuResult<()> {
        let kept_bytes = self.graphs.kept_bytes.entry(device).or_default();
        let again = bytes.min(*kept_bytes);
        self.quotas.charge(device, bytes - again)?;
        *kept_bytes -= again;
        Ok(())
    }

    pub(super) fn release_graph(&mut self, device: u32, bytes: u64) {
        if self.device.costs().graphs_are_kept {
            *self.graphs.kept_bytes.entry(device).or_default() += bytes;
        } else {
            self.quotas.release(device, bytes);
        }
    }

    /// No longer counts ended graphs whose launches are over, up to the first that is not.
    pub(super) fn look_at_going(&mut self) {
        while let Some(going) = self.graphs.going.pop_front() {
            if !self.is_over(&going) {
                self.graphs.going.push_front(going);
                break;
            }
        }
    }

    /// No longer counts any ended graph whose launches are over; whether there was one.
    pub(in crate::worker::session) fn look_at_all_going(&mut self) -> bool {
        let all = std::mem::take(&mut self.graphs.going);
        let count = all.len();
        for going in all {
            if !self.is_over(&going) {
                self.graphs.going.push_back(going);
            }
        }
        self.graphs.going.len() < count
    }

    /// The context's work is done: with it ended graphs that were launched there.
    pub(in crate::worker::session) fn end_going(&mut self, context: ContextId) {
        let all = std::mem::take(&mut self.graphs.going).into_iter();
        let (over, others): (VecDeque<_>, VecDeque<_>) = all.partition(|going| going.context == context);
        self.graphs.going = others;
        over.iter().for_each(|going| self.end_one_going(going));
    }

    fn is_over(&mut self, going: &Going) -> bool {
        let is_over = going.mark.as_ref().is_some_and(|mark| mark.is_reached(&mut *self.device));
        if is_over {
            self.end_one_going(going);
        }
        is_over
    }

    fn end_one_going(&mut self, going: &Going) {
        if let Some(mark) = &going.mark {
            self.end_mark(mark);
        }
        self.give_back(going.device, going.charged_bytes, going.bytes);
    }
}
