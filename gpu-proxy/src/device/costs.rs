//! What of a device's memory goes to other things than allocations, and how its work is counted.

use std::sync::Arc;

/// Told by a device of what it has done, in units of its own, while it does it. The device goes on when it returns.
pub type Meter = Arc<dyn Fn(u64) + Send + Sync>;

/// What uses the device's memory beside allocations. It counts against the grant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// A context beside the worker's first, in bytes.
    pub context_bytes: u64,
    /// A green context, in bytes.
    pub green_bytes: u64,
    /// Threads that the device has room for at once, for each of which it keeps a stack and local memory. 0: it does not.
    pub resident_threads: u64,
    /// A node of a graph that can be launched, in bytes.
    pub graph_node_bytes: u64,
    /// And each row of nodes that the device may run beside others.
    pub graph_row_bytes: u64,
    /// Whether the device keeps what graphs took after their end, for later ones.
    pub graphs_are_kept: bool,
}

impl Costs {
    /// Device memory that a graph of so many nodes in so many rows takes; `None` past any memory.
    #[must_use]
    pub fn graph_bytes(&self, nodes: u64, rows: u64) -> Option<u64> {
        let nodes = nodes.checked_mul(self.graph_node_bytes)?;
        nodes.checked_add(rows.checked_mul(self.graph_row_bytes)?)
    }

    /// Device memory that `CUlimit` number `limit` stands for when it is `value`. Source: `cuCtxSetLimit`.
    #[must_use]
    pub fn limit_bytes(&self, limit: u32, value: u64) -> u64 {
        match limit {
            // The stack of each thread.
            0 => value.saturating_mul(self.resident_threads),
            // The buffer of printf, the heap of malloc.
            1 | 2 if self.resident_threads > 0 => value,
            _ => 0,
        }
    }
}
