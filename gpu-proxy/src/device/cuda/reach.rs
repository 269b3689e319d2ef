//! Which devices reach what a context of another one allocates. Mapped memory is opened to each device by itself, so allocations that are
//! mapped follow here what contexts were let. Any context of a device that was let has all that its device may.

use std::collections::BTreeMap;

use super::Raw;

/// How many contexts of a device were let, by the context that they reach and the device.
#[derive(Debug, Default)]
pub(super) struct Reach(BTreeMap<(u64, u32), usize>);

impl Reach {
    /// One more; whether it is the first.
    pub fn begin(&mut self, device: u32, context: Raw) -> bool {
        let count = self.0.entry((context.0, device)).or_default();
        *count += 1;
        *count == 1
    }

    /// One less; whether it was the last.
    pub fn end(&mut self, device: u32, context: Raw) -> bool {
        let Some(count) = self.0.get_mut(&(context.0, device)) else { return false };
        *count -= 1;
        let is_last = *count == 0;
        if is_last {
            self.0.remove(&(context.0, device));
        }
        is_last
    }

    /// Those that reach a context's allocations, its own device aside.
    pub fn devices_of(&self, context: Raw) -> impl Iterator<Item = u32> {
        self.0.range((context.0, 0)..=(context.0, u32::MAX)).map(|((_, device), _)| *device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_reaches_a_context_until_the_last_that_was_let_is_no_more() {
        let (mut reach, [one, two]) = (Reach::default(), [Raw(1), Raw(2)]);
        assert_eq!(
            [(3, one), (3, one), (5, one), (3, two)].map(|(of, to)| reach.begin(of, to)),
            [true, false, true, true]
        );
        assert_eq!(reach.devices_of(one).collect::<Vec<_>>(), [3, 5]);
        assert_eq!(
            [(3, one), (3, one), (3, one), (7, two)].map(|(of, to)| reach.end(of, to)),
            [false, true, false, false]
        );
        assert_eq!(
            (reach.devices_of(one).collect::<Vec<_>>(), reach.devices_of(two).collect::<Vec<_>>()),
            (vec![5], vec![3])
        );
    }
}
