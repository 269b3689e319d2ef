//! What nodes of one graph allocate and free: which addresses they get, and what may be freed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use vgpu_api::{CuError, CuResult, GraphHandle};

use super::node::{Need, Work};
use super::one::Graph;
use super::{Inner, Token};
use crate::core::graph_memory::{Space, rounded};
use crate::core::process::Process;

/// Of one graph. If there is any it can't be copied, its nodes and edges stay, and one thing that can be launched of it may be there at once.
#[derive(Debug, Default)]
pub struct Memory {
    /// One a device.
    spaces: Vec<Arc<Space>>,
    /// What nodes do at an address.
    known: HashMap<u64, Known>,
    /// By the place of the node that frees it: what later nodes may have again.
    freed: HashMap<u32, Freed>,
    /// Some node chooses what runs: for such a graph the same holds, but what can be launched of it the worker counts.
    chooses: bool,
    /// Of what can be launched.
    launched: Weak<Token>,
}

/// An address, as the nodes of one graph know it.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    allocs: usize,
    frees: usize,
    /// Of its last allocation.
    bytes: u64,
    device: u32,
}

#[derive(Clone, Copy, Debug)]
struct Freed {
    device: u32,
    address: u64,
    bytes: u64,
}

impl Memory {
    /// Whether any node allocates or frees.
    pub fn is_any(&self) -> bool {
        !self.known.is_empty()
    }

    pub fn chooses(&self) -> bool {
        self.chooses
    }

    pub fn spaces(&self) -> &[Arc<Space>] {
        &self.spaces
    }

    /// Of what can be launched, if there is anything.
    pub fn token(&self) -> Option<Arc<Token>> {
        self.launched.upgrade()
    }

    pub fn set_token(&mut self, token: &Arc<Token>) {
        self.launched = Arc::downgrade(token);
    }

    fn space(&mut self, process: &'static Process, device: u32) -> Arc<Space> {
        if let Some(space) = self.spaces.iter().find(|space| space.device() == device) {
            return Arc::clone(space);
        }
        let space = Space::new(process, device);
        self.spaces.push(Arc::clone(&space));
        space
    }

    /// A node was added at this place.
    pub(super) fn added(&mut self, place: u32, work: &Work) {
        match work {
            Work::Alloc(alloc) => {
                let known = self.known.entry(alloc.address).or_default();
                known.allocs += 1;
                (known.bytes, known.device) = (alloc.bytes, alloc.space.device());
            }
            Work::Free(address) => {
                let known = self.known.entry(*address).or_default();
                known.frees += 1;
                let Known { allocs, bytes, device, .. } = *known;
                if let (1.., Ok(bytes)) = (allocs, rounded(bytes)) {
                    self.freed.insert(place, Freed { device, address: *address, bytes });
                }
            }
            Work::Choice(_) => self.chooses = true,
            _ => {}
        }
    }
}

impl Graph {
    /// The address of an allocation by a node that waits for `needs`: of one that was freed before that, or a new one.
    /// # Errors
    /// 2.
    pub fn allocate(
        &mut self,
        process: &'static Process,
        device: u32,
        needs: &[Need],
        bytes: u64,
    ) -> CuResult<(u64, Arc<Space>)> {
        let space = self.memory.space(process, device);
        let wanted = rounded(bytes)?;
        if let Some((place, freed)) = self.freed_before(device, needs, wanted) {
            self.memory.freed.remove(&place);
            if freed.bytes > wanted {
                let rest = Freed { address: freed.address + wanted, bytes: freed.bytes - wanted, ..freed };
                self.memory.freed.insert(place, rest);
            }
            space.give_again(freed.address);
            return Ok((freed.address, space));
        }
        let address = space.give(bytes)?;
        Ok((address, space))
    }

    /// The nearest node before, as the edges say, that frees so much.
    fn freed_before(&self, device: u32, needs: &[Need], wanted: u64) -> Option<(u32, Freed)> {
        if self.memory.freed.is_empty() {
            return None;
        }
        let mut seen = HashSet::new();
        let mut next: std::collections::VecDeque<u32> = needs.iter().map(|need| need.place).collect();
        while let Some(place) = next.pop_front() {
            if !seen.insert(place) {
                continue;
            }
            let fits = |freed: &&Freed| freed.device == device && freed.bytes >= wanted;
            if let Some(freed) = self.memory.freed.get(&place).filter(fits) {
                return Some((place, *freed));
            }
            next.extend(
                self.get(place).into_iter().flat_map(|node| node.needs.iter().map(|need| need.place)),
            );
        }
        None
    }

    /// That a node may free what lies at an address: what a node of this graph allocates and none frees yet, or a node of another.
    /// # Errors
    /// 1.
    pub fn check_free(&self, process: &Process, address: u64) -> CuResult<()> {
        let known = self.memory.known.get(&address).copied().unwrap_or_default();
        let is_there = match known {
            Known { allocs: 0, frees: 0, .. } => process.graph_memory.is_allocated_by_any(address),
            Known { allocs, frees, .. } => frees < allocs,
        };
        if is_there { Ok(()) } else { Err(CuError::INVALID_VALUE) }
    }
}

impl Inner {
    /// The graph and the child graphs in it whose nodes allocate or free.
    pub fn with_memory(&self, graph: GraphHandle) -> Vec<GraphHandle> {
        let has = |handle: &GraphHandle| self.graph(*handle).is_ok_and(|graph| graph.memory.is_any());
        self.inside(graph).into_iter().filter(has).collect()
    }

    /// That nodes and edges of a graph may go, and that it may be copied.
    /// # Errors
    /// 801 if nodes in it allocate or free, or choose what runs.
    pub(super) fn check_no_memory(&self, graph: GraphHandle) -> CuResult<()> {
        let may = self.with_memory(graph).is_empty() && !self.chooses(graph);
        if may { Ok(()) } else { Err(CuError::NOT_SUPPORTED) }
    }
}
