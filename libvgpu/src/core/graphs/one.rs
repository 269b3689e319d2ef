//! One graph: its nodes by place, and the order among them.

use vgpu_api::handle::GRAPHS_MAX;
use vgpu_api::{CuError, CuResult, GraphHandle};

use super::Owner;
use super::conditional::Numbers;
use super::memory::Memory;
use super::node::{Edge, Need, Node, Work};
use crate::core::user_objects::References;

/// One graph.
#[derive(Debug)]
pub struct Graph {
    pub owner: Owner,
    /// A capture fills it: no node may go.
    pub captured: bool,
    pub(super) nodes: Vec<Option<Node>>,
    /// What it was cloned from, and how many places that had then.
    pub(super) origin: Option<(GraphHandle, usize)>,
    pub memory: Memory,
    /// Of conditional nodes in it.
    pub numbers: Option<Numbers>,
    /// It is a body of a conditional node of this graph.
    pub body_of: Option<GraphHandle>,
    /// Of user objects.
    pub references: References,
}

impl Graph {
    pub(super) fn new(owner: Owner) -> Self {
        Self {
            owner,
            captured: false,
            nodes: Vec::new(),
            origin: None,
            memory: Memory::default(),
            numbers: None,
            body_of: None,
            references: References::default(),
        }
    }

    /// Places and nodes, in order.
    pub fn nodes(&self) -> impl Iterator<Item = (u32, &Node)> {
        (0..).zip(&self.nodes).filter_map(|(place, node)| Some((place, node.as_ref()?)))
    }

    pub fn get(&self, place: u32) -> Option<&Node> {
        self.nodes.get(place as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, place: u32) -> Option<&mut Node> {
        self.nodes.get_mut(place as usize)?.as_mut()
    }

    pub(super) fn push(&mut self, needs: Vec<Need>, work: Work) -> CuResult<u32> {
        self.check_needs(&needs, matches!(work, Work::Kernel(_)))?;
        let place = u32::try_from(self.nodes.len()).ok().filter(|place| u64::from(*place) < GRAPHS_MAX);
        let place = place.ok_or(CuError::OUT_OF_MEMORY)?;
        self.memory.added(place, &work);
        self.nodes.push(Some(Node { work, needs }));
        Ok(place)
    }

    /// Places that any node waits for.
    pub fn needed(&self) -> Vec<bool> {
        let mut needed = vec![false; self.nodes.len()];
        for (_, node) in self.nodes() {
            for need in &node.needs {
                if let Some(place) = needed.get_mut(need.place as usize) {
                    *place = true;
                }
            }
        }
        needed
    }

    /// The places in an order in which each node comes after what it waits for: as they were made, as far as that goes.
    /// # Errors
    /// 1 for nodes that wait for each other.
    pub fn ordered(&self) -> CuResult<Vec<u32>> {
        let made: Vec<u32> = self.nodes().map(|(place, _)| place).collect();
        if self.nodes().all(|(place, node)| node.needs.iter().all(|need| need.place < place)) {
            return Ok(made);
        }
        let mut waits: Vec<usize> =
            self.nodes.iter().map(|node| node.as_ref().map_or(0, |node| node.needs.len())).collect();
        let mut feeds = vec![Vec::new(); self.nodes.len()];
        for (place, node) in self.nodes() {
            for need in &node.needs {
                feeds.get_mut(need.place as usize).ok_or(CuError::UNKNOWN)?.push(place);
            }
        }
        let ready = made.iter().filter(|place| waits.get(**place as usize) == Some(&0));
        let mut ready: std::collections::BTreeSet<u32> = ready.copied().collect();
        let mut order = Vec::with_capacity(made.len());
        while let Some(place) = ready.pop_first() {
            order.push(place);
            for fed in feeds.get(place as usize).into_iter().flatten() {
                let left = waits.get_mut(*fed as usize).ok_or(CuError::UNKNOWN)?;
                *left -= 1;
                if *left == 0 {
                    ready.insert(*fed);
                }
            }
        }
        if order.len() == made.len() { Ok(order) } else { Err(CuError::INVALID_VALUE) }
    }

    /// That a node could wait for these.
    /// # Errors
    /// 1 for a node that is not there, or named twice, or an edge that there is not between such nodes.
    pub(super) fn check_needs(&self, needs: &[Need], to_kernel: bool) -> CuResult<()> {
        let mut places: Vec<u32> = needs.iter().map(|need| need.place).collect();
        places.sort_unstable();
        if places.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(CuError::INVALID_VALUE);
        }
        needs.iter().try_for_each(|Need { place, edge }| {
            let from = self.get(*place).ok_or(CuError::INVALID_VALUE)?;
            let Edge { from_port, to_port, kind, reserved } = *edge;
            let of_kernels = to_kernel && matches!(from.work, Work::Kernel(_));
            let right = match (kind, from_port) {
                (0, 0) => true,
                (1, 1 | 2) => of_kernels,
                _ => false,
            };
            if right && to_port == 0 && reserved == [0; 5] { Ok(()) } else { Err(CuError::INVALID_VALUE) }
        })
    }
}
