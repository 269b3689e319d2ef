//! What a program has advised about memory, page by page. Nothing is done with it but to answer when the program asks.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

use super::slab::lock;

/// Advice of stretches of addresses, as a set of bits whose meaning is the caller's.
#[derive(Debug)]
pub struct Advice {
    by_start: Mutex<BTreeMap<u64, Stretch>>,
}

/// Addresses with one set of bits, not none.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    end: u64,
    bits: u8,
}

impl Advice {
    pub const fn new() -> Self {
        Self { by_start: Mutex::new(BTreeMap::new()) }
    }

    /// Adds bits for all of `range`.
    pub fn set(&self, range: Range<u64>, bits: u8) {
        let stretches = &mut *lock(&self.by_start);
        for mut piece in cut_out(stretches, &range) {
            piece.1.bits |= bits;
            stretches.insert(piece.0, piece.1);
        }
    }

    /// Takes bits away from all of `range`.
    pub fn unset(&self, range: Range<u64>, bits: u8) {
        let stretches = &mut *lock(&self.by_start);
        for (start, Stretch { end, bits: old }) in cut_out(stretches, &range) {
            if old & !bits != 0 {
                stretches.insert(start, Stretch { end, bits: old & !bits });
            }
        }
    }

    /// The bits that every address of `range` has.
    pub fn of_all(&self, range: Range<u64>) -> u8 {
        let stretches = lock(&self.by_start);
        let (mut at, mut common) = (range.start, u8::MAX);
        while at < range.end {
            let here = stretches.range(..=at).next_back().filter(|(_, stretch)| at < stretch.end);
            let Some((_, stretch)) = here else { return 0 };
            common &= stretch.bits;
            at = stretch.end;
        }
        if range.is_empty() { 0 } else { common }
    }
}

/// Takes all stretches within `range` out, what lies in none of them as one without bits: together they are the range.
fn cut_out(stretches: &mut BTreeMap<u64, Stretch>, range: &Range<u64>) -> Vec<(u64, Stretch)> {
    for at in [range.start, range.end] {
        let over = stretches.range_mut(..at).next_back().filter(|(_, stretch)| at < stretch.end);
        if let Some((_, stretch)) = over {
            let rest = *stretch;
            stretch.end = at;
            stretches.insert(at, rest);
        }
    }
    let inside: Vec<_> = stretches.range(range.clone()).map(|(start, stretch)| (*start, *stretch)).collect();
    let (mut pieces, mut at) = (Vec::new(), range.start);
    for (start, stretch) in inside {
        stretches.remove(&start);
        if at < start {
            pieces.push((at, Stretch { end: start, bits: 0 }));
        }
        pieces.push((start, stretch));
        at = stretch.end;
    }
    if at < range.end {
        pieces.push((at, Stretch { end: range.end, bits: 0 }));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kind of change in every order, against a list of pages.
    #[test]
    fn what_all_pages_of_a_range_have_is_what_a_list_of_pages_says() {
        let (advice, mut pages) = (Advice::new(), [0_u8; 12]);
        let mut random = 1_u64;
        for round in 0..2000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let first = (random >> 33) % 12;
            let range = first..first + 1 + (random >> 40) % (12 - first);
            let bits = u8::try_from((random >> 50) % 8).unwrap();
            let places = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
            if random >> 60 & 1 == 0 {
                advice.set(range, bits);
                pages[places].iter_mut().for_each(|page| *page |= bits);
            } else {
                advice.unset(range, bits);
                pages[places].iter_mut().for_each(|page| *page &= !bits);
            }
            for start in 0..12_u64 {
                for end in start + 1..=12 {
                    let those = &pages[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()];
                    let expected = those.iter().fold(u8::MAX, |all, page| all & page);
                    assert_eq!(advice.of_all(start..end), expected, "{start}..{end} in round {round}");
                }
            }
        }
        advice.unset(0..12, u8::MAX);
        assert!(lock(&advice.by_start).is_empty(), "nothing is kept of what has no advice");
        assert_eq!(advice.of_all(3..3), 0);
    }
}
