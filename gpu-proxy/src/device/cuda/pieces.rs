//! Small allocations: parts of pieces of mapped memory, since only such memory goes to other workers. The whole piece goes there, as a
//! driver's own handle for a small allocation maps all that lies around it. Each context has pieces of its own.
//!
//! Pure: who makes pieces and ends them is `virtual_memory.rs`.

use std::collections::HashMap;

use super::Raw;
use crate::pool_space::{Order, PoolSpace};

/// What of its pieces a context has given out.
#[derive(Debug, Default)]
pub(super) struct Pieces(HashMap<u64, PoolSpace>);

impl Pieces {
    /// A part of a piece that there is.
    pub fn take(&mut self, context: Raw, bytes: u64) -> Option<u64> {
        self.0.get_mut(&context.0)?.take(bytes, Order::Done)
    }

    /// Whether there is room for a part.
    pub fn have(&self, context: Raw, bytes: u64) -> bool {
        self.0.get(&context.0).is_some_and(|space| space.has(bytes, Order::Done))
    }

    /// One more piece, wherever it is.
    pub fn add(&mut self, context: Raw, start: u64, bytes: u64) {
        let space = self.0.entry(context.0).or_insert_with(|| PoolSpace::new(0, u64::MAX).apart());
        space.grown(start, bytes);
    }

    /// Takes back a part, which no work uses; the pieces that end with it. `None` if no part begins there. Who allocates and frees all the
    /// time finds a piece: one more stays than what is used would need.
    pub fn give(&mut self, context: Raw, address: u64, piece_bytes: u64) -> Option<Vec<u64>> {
        let space = self.0.get_mut(&context.0)?;
        let is_part = space.give(address, Order::Done);
        is_part.then(|| space.shrink(space.figures().used.next_multiple_of(piece_bytes) + piece_bytes))
    }

    /// All pieces of which nothing is used: they end.
    pub fn idle(&mut self, context: Raw) -> Vec<u64> {
        let Some(space) = self.0.get_mut(&context.0) else { return Vec::new() };
        let idle = space.shrink(0);
        if space.figures().reserved == 0 {
            self.0.remove(&context.0);
        }
        idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: u64 = 2 << 20;
    const ONE: Raw = Raw(1);
    const OTHER: Raw = Raw(2);

    #[test]
    fn parts_lie_in_one_piece_of_their_context_and_one_piece_more_than_needed_stays() {
        let mut pieces = Pieces::default();
        assert_eq!((pieces.take(ONE, 512), pieces.give(ONE, 0, PIECE)), (None, None));
        // Neighbours, and no part lies in both.
        for start in [PIECE, 2 * PIECE, 3 * PIECE] {
            pieces.add(ONE, start, PIECE);
        }
        assert_eq!((pieces.take(ONE, PIECE + 512), pieces.take(OTHER, 512)), (None, None));
        let parts = [(); 3].map(|()| pieces.take(ONE, PIECE - 512).unwrap());
        assert_eq!(parts.map(|part| part % PIECE), [0; 3]);
        let small = [(); 3].map(|()| pieces.take(ONE, 512).unwrap());
        assert_eq!((small.map(|part| part % PIECE), pieces.take(ONE, 512)), ([PIECE - 512; 3], None));

        assert_eq!(pieces.give(OTHER, small[0], PIECE), None, "it is another context's");
        assert_eq!(pieces.give(ONE, small[0] - 512, PIECE), None, "no part begins there");
        assert_eq!(pieces.give(ONE, parts[0], PIECE), Some(vec![]));
        assert_eq!(pieces.give(ONE, parts[0], PIECE), None, "once");
        assert_eq!(pieces.give(ONE, small[0], PIECE), Some(vec![]), "one more than two that are full");
        assert_eq!(pieces.give(ONE, parts[1], PIECE), Some(vec![]));
        let ended = pieces.give(ONE, small[1], PIECE).unwrap();
        assert_eq!((ended.len(), pieces.idle(ONE).len()), (1, 1));
        assert!(pieces.idle(ONE).is_empty(), "the third is used");
        assert_eq!(pieces.take(ONE, 512), None, "and full");
    }
}
