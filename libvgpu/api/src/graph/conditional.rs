//! Conditional nodes: which body runs, how often. Bodies are no lists of their own: each node says which body it is in.

use crate::graph::{GraphNode, GraphWork};
use crate::result::{CuError, CuResult};
use crate::wire::wire_struct;

/// Conditional nodes in bodies of conditional nodes: so deep at most.
const DEPTH_MAX: usize = 64;
/// Bodies of one conditional node at most.
pub const BODIES_MAX: u32 = 1 << 16;

wire_struct! {
    /// A conditional node. The handle's value says what runs.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Conditional {
        /// What the guest calls the graph that the number was made for.
        pub graph: u64,
        /// The device's own number: kernels get it as a parameter.
        pub handle: u64,
        /// `CUgraphConditionalNodeType`.
        pub flavor: u32,
        /// How many bodies it has.
        pub bodies: u32,
    }
}

impl Conditional {
    /// `CU_GRAPH_COND_TYPE_IF`: the first body unless the value is 0, else the second one, if there is any.
    pub const IF: u32 = 0;
    /// `CU_GRAPH_COND_TYPE_WHILE`: the body until the value is 0.
    pub const WHILE: u32 = 1;
    /// `CU_GRAPH_COND_TYPE_SWITCH`: the body of that number, if there is one.
    pub const SWITCH: u32 = 2;

    /// That it has as many bodies as its kind may have.
    /// # Errors
    /// 1; 2 for more than [`BODIES_MAX`].
    pub const fn check(&self) -> CuResult<()> {
        match (self.flavor, self.bodies) {
            (Self::IF, 1 | 2) | (Self::WHILE, 1) | (Self::SWITCH, 1..=BODIES_MAX) => Ok(()),
            (Self::SWITCH, 1..) => Err(CuError::OUT_OF_MEMORY),
            _ => Err(CuError::INVALID_VALUE),
        }
    }

    /// The body that runs now.
    #[must_use]
    pub const fn body_at(&self, value: u32) -> Option<u32> {
        match (self.flavor, value) {
            (Self::IF, 0) if self.bodies == 2 => Some(1),
            (Self::IF | Self::WHILE, 0) => None,
            (Self::IF | Self::WHILE, _) => Some(0),
            _ if value < self.bodies => Some(value),
            _ => None,
        }
    }
}

wire_struct! {
    /// Where a node is: in a body, or in the graph itself.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Body {
        /// 1 + the place of the conditional node, which stands before its bodies' nodes; 0: in the graph itself.
        pub of: u32,
        /// Which of its bodies.
        pub number: u32,
    }
}

impl Body {
    /// The graph itself.
    pub const NONE: Self = Self { of: 0, number: 0 };

    /// A body of the conditional node at a place.
    /// # Errors
    /// 2 past all places.
    pub fn new(place: u32, number: u32) -> CuResult<Self> {
        place.checked_add(1).map(|of| Self { of, number }).ok_or(CuError::OUT_OF_MEMORY)
    }

    /// The place of its conditional node.
    #[must_use]
    pub fn conditional(self) -> Option<usize> {
        self.of.checked_sub(1).map(|place| place as usize)
    }

    /// That there is such a body in what stands before, and that a node of it waits for its own only and runs where the conditional node
    /// does. Source: cuda.h, `CUDA_CONDITIONAL_NODE_PARAMS`.
    pub(super) fn check(self, node: &GraphNode<'_>, before: &[GraphNode<'_>]) -> CuResult<()> {
        let is_there = match self.conditional() {
            None => self == Self::NONE,
            Some(place) => before.get(place).is_some_and(|of| match &of.work {
                GraphWork::Conditional(conditional) => {
                    self.number < conditional.bodies && of.context == node.context
                }
                _ => false,
            }),
        };
        let mut outer = self;
        for _ in 0..DEPTH_MAX {
            let Some(place) = outer.conditional() else { break };
            outer = before.get(place).map_or(Self::NONE, |of| of.body);
        }
        if outer.conditional().is_some() {
            return Err(CuError::NOT_SUPPORTED);
        }
        let own = |place: u32| before.get(place as usize).is_some_and(|other| other.body == self);
        let right = is_there && node.needs.iter().all(|edge| own(edge.from));
        if right { Ok(()) } else { Err(CuError::INVALID_VALUE) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{GraphEdge, NODES_MAX, parse};
    use crate::handle::ContextId;
    use crate::wire::to_vec;

    fn inside(of: u32, number: u32, needs: &[u32]) -> GraphNode<'static> {
        let edge = |from: &u32| GraphEdge { from: *from, from_port: 0, to_port: 0, kind: 0 };
        let (context, needs) = (ContextId(1), needs.iter().map(edge).collect());
        GraphNode { context, body: Body { of, number }, needs, work: GraphWork::Empty }
    }

    fn choice(handle: u64, flavor: u32, bodies: u32) -> GraphNode<'static> {
        GraphNode {
            work: GraphWork::Conditional(Conditional { graph: 3, handle, flavor, bodies }),
            ..inside(0, 0, &[])
        }
    }

    fn parsed(nodes: &[GraphNode<'_>]) -> CuResult<usize> {
        parse(&nodes.iter().flat_map(to_vec).collect::<Vec<_>>()).map(|nodes| nodes.len())
    }

    #[test]
    fn a_node_is_in_a_body_that_there_is_and_waits_for_its_own() {
        let first = [inside(0, 0, &[]), GraphNode { needs: inside(0, 0, &[0]).needs, ..choice(7, 0, 2) }];
        let with = |more: &[GraphNode<'static>]| parsed(&[&first, more].concat());
        assert_eq!(with(&[inside(2, 0, &[]), inside(2, 0, &[2]), inside(2, 1, &[])]), Ok(5));
        for wrong in [
            inside(2, 2, &[]),
            inside(1, 0, &[]),
            inside(3, 0, &[]),
            inside(0, 1, &[]),
            inside(u32::MAX, 0, &[]),
            inside(2, 0, &[1]),
            inside(2, 0, &[0]),
            GraphNode { context: ContextId(2), ..inside(2, 0, &[]) },
            GraphNode { body: Body { of: 3, number: 0 }, ..choice(8, 0, 1) },
        ] {
            assert_eq!(with(&[wrong]), Err(CuError::INVALID_VALUE));
        }
        assert_eq!(with(&[inside(2, 0, &[]), inside(2, 1, &[2])]), Err(CuError::INVALID_VALUE));
    }

    #[test]
    fn bodies_count_as_nodes_do() {
        assert_eq!(NODES_MAX, 4 * BODIES_MAX as usize);
        let full = [1, 2, 3].map(|handle| choice(handle, Conditional::SWITCH, BODIES_MAX));
        let with = |bodies| parsed(&[&full[..], &[choice(4, Conditional::SWITCH, bodies)]].concat());
        assert_eq!(with(BODIES_MAX - 4), Ok(4));
        assert_eq!([BODIES_MAX - 3, u32::MAX].map(with), [Err(CuError::OUT_OF_MEMORY); 2]);
    }

    #[test]
    fn the_value_says_which_body_runs() {
        let of = |flavor, bodies| Conditional { graph: 3, handle: 1, flavor, bodies };
        let runs = |of: Conditional| [0, 1, 2, u32::MAX].map(|value| of.body_at(value));
        assert_eq!(runs(of(Conditional::IF, 1)), [None, Some(0), Some(0), Some(0)]);
        assert_eq!(runs(of(Conditional::IF, 2)), [Some(1), Some(0), Some(0), Some(0)]);
        assert_eq!(runs(of(Conditional::WHILE, 1)), [None, Some(0), Some(0), Some(0)]);
        assert_eq!(runs(of(Conditional::SWITCH, 2)), [Some(0), Some(1), None, None]);
    }

    #[test]
    fn each_kind_has_as_many_bodies_as_it_may() {
        let check = |flavor, bodies| Conditional { graph: 3, handle: 1, flavor, bodies }.check();
        let bad = Err(CuError::INVALID_VALUE);
        assert_eq!([0, 1, 2, 3].map(|bodies| check(Conditional::IF, bodies)), [bad, Ok(()), Ok(()), bad]);
        assert_eq!([0, 1, 2].map(|bodies| check(Conditional::WHILE, bodies)), [bad, Ok(()), bad]);
        assert_eq!(
            [0, 1, BODIES_MAX].map(|bodies| check(Conditional::SWITCH, bodies)),
            [bad, Ok(()), Ok(())]
        );
        assert_eq!(check(Conditional::SWITCH, BODIES_MAX + 1), Err(CuError::OUT_OF_MEMORY));
        assert_eq!(check(3, 1), bad);
    }
}
