//! Conditional nodes for a device without graphs of its own: each has a value that kernels set, and its bodies run as it says.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vgpu_api::graph::Conditional;
use vgpu_api::{CuError, CuResult};

use super::Raw;

/// `CU_GRAPH_COND_ASSIGN_DEFAULT`.
const ASSIGN: u32 = 1;

/// The value of one conditional node.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    value: Arc<AtomicU32>,
    /// With what each launch begins; else with what the one before left.
    start: Option<u32>,
}

impl Condition {
    pub(super) fn new(value: Arc<AtomicU32>, first: u32, flags: u32) -> Self {
        Self { value, start: (flags & ASSIGN != 0).then_some(first) }
    }

    /// A launch begins.
    pub(super) fn start(&self) {
        if let Some(start) = self.start {
            self.value.store(start, Ordering::Relaxed);
        }
    }

    /// The body of a node that runs now.
    pub(super) fn body(&self, of: &Conditional) -> Option<u32> {
        of.body_at(self.value.load(Ordering::Relaxed))
    }
}

/// What was made for graphs that the guest has not ended, by the number that kernels know.
#[derive(Debug, Default)]
pub(super) struct Table(HashMap<Raw, HashMap<u64, Condition>>);

impl Table {
    pub(super) fn add(&mut self, of: Raw, number: u64, condition: Condition) {
        self.0.entry(of).or_default().insert(number, condition);
    }

    pub(super) fn get(&self, of: Raw, number: u64) -> CuResult<Condition> {
        let known = self.0.get(&of).and_then(|numbers| numbers.get(&number));
        known.cloned().ok_or(CuError::INVALID_VALUE)
    }

    pub(super) fn end(&mut self, of: Raw) {
        self.0.remove(&of);
    }
}
