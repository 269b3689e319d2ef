//! Free ranges of addresses, taken from the lowest that is large enough and joined again when they are given back.

use std::collections::BTreeMap;

/// What is free. Whoever takes and gives multiples of one unit gets multiples of it.
#[derive(Debug, Default)]
pub struct Spans {
    by_start: BTreeMap<u64, u64>,
}

impl Spans {
    pub fn of(start: u64, bytes: u64) -> Self {
        Self { by_start: BTreeMap::from([(start, bytes)]) }
    }

    /// Takes `bytes`, not 0.
    pub fn take(&mut self, bytes: u64) -> Option<u64> {
        let (&start, &found) = self.by_start.iter().find(|(_, found)| **found >= bytes)?;
        self.by_start.remove(&start);
        if found > bytes {
            self.by_start.insert(start + bytes, found - bytes);
        }
        Some(start)
    }

    /// Gives back what was taken.
    pub fn give(&mut self, mut start: u64, mut bytes: u64) {
        if let Some(after) = self.by_start.remove(&(start + bytes)) {
            bytes += after;
        }
        let before = self.by_start.range(..start).next_back().map(|(start, bytes)| (*start, *bytes));
        if let Some((first, before)) = before.filter(|(first, before)| first + before == start) {
            self.by_start.remove(&first);
            (start, bytes) = (first, bytes + before);
        }
        self.by_start.insert(start, bytes);
    }

    /// Whether exactly this is free.
    pub fn is_whole(&self, start: u64, bytes: u64) -> bool {
        self.by_start.get(&start) == Some(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_in_any_order_is_whole_again() {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut spans = Spans::of(100, 60);
            let taken: Vec<_> = [10, 20, 30].map(|bytes| (spans.take(bytes).unwrap(), bytes)).into();
            assert_eq!((&taken[..], spans.take(1)), (&[(100, 10), (110, 20), (130, 30)][..], None));
            for place in order {
                assert!(!spans.is_whole(100, 60));
                spans.give(taken[place].0, taken[place].1);
            }
            assert!(spans.is_whole(100, 60), "{order:?}");
        }
    }

    #[test]
    fn a_hole_that_is_too_small_is_passed_over() {
        let mut spans = Spans::of(0, 100);
        let (first, second) = (spans.take(10).unwrap(), spans.take(10).unwrap());
        spans.give(first, 10);
        assert_eq!((second, spans.take(11), spans.take(10)), (10, Some(20), Some(0)));
        assert_eq!(spans.take(70), None);
    }
}
