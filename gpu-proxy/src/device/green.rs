//! Green contexts as a device has them: a primary context's with a part of the multiprocessors.

use std::collections::HashMap;

use vgpu_api::green::{REST, SPLIT_APART};
use vgpu_api::{CuError, CuResult, SmGroups, SmResource, SmSplit};
use vgpu_soft as gpu;

use super::Raw;

/// The part of a [`super::Device`] that has to do with green contexts. `of` is one whose multiprocessors are meant, else the device's are. A
/// split has been checked but for what only the device knows: whether there are as many multiprocessors.
///
/// # Errors
/// All methods: the `CUresult` that the program gets, as of [`super::Device`].
#[expect(clippy::missing_errors_doc, reason = "said once for all")]
pub trait GreenContexts {
    /// Their multiprocessors.
    fn sm_resource(&mut self, device: u32, of: Option<Raw>) -> CuResult<SmResource>;
    /// What a split of them gives; the same each time.
    fn sm_split(&mut self, device: u32, of: Option<Raw>, split: SmSplit) -> CuResult<SmGroups>;
    /// A green context of the device's primary one with these parts of a split, each of which the split gives and none twice: a group's
    /// place, or [`REST`]; no part: all. Its name, which is good where a context's is for queued work, events and streams, and that of its
    /// legacy stream.
    fn green_create(
        &mut self,
        device: u32,
        of: Option<Raw>,
        split: SmSplit,
        parts: &[u32],
    ) -> CuResult<(Raw, Raw)>;
    /// Ends it. Streams that were made in it have been ended before, its legacy stream ends with it.
    fn green_destroy(&mut self, green: Raw) -> CuResult<()>;
}

/// Multiprocessors of devices that are none: [`gpu::MULTIPROCESSORS`] each, split in pairs, or one by one if the program likes.
#[derive(Debug, Default)]
pub(super) struct Processors {
    /// Those of each green context, by their numbers.
    of: HashMap<Raw, Vec<u32>>,
}

impl Processors {
    /// Those of a green context; none of what is none.
    pub(super) fn list(&self, green: Raw) -> &[u32] {
        self.of.get(&green).map_or(&[], Vec::as_slice)
    }

    fn all(&self, of: Option<Raw>) -> CuResult<Vec<u32>> {
        match of {
            None => Ok((0..gpu::MULTIPROCESSORS).collect()),
            Some(green) => self.of.get(&green).cloned().ok_or(CuError::INVALID_CONTEXT),
        }
    }

    pub(super) fn resource(&self, of: Option<Raw>) -> CuResult<SmResource> {
        Ok(resource(self.all(of)?.len(), 2))
    }

    pub(super) fn split(&self, of: Option<Raw>, split: SmSplit) -> CuResult<SmGroups> {
        let (all, step) = (self.all(of)?, step(split));
        let (groups, each) = divided(all.len(), split)?;
        let rest = resource(all.len() - groups * each, step);
        let groups = u32::try_from(groups).map_err(|_| CuError::INVALID_VALUE)?;
        Ok(SmGroups { groups, each: resource(each, step), rest })
    }

    pub(super) fn give(
        &mut self,
        green: Raw,
        of: Option<Raw>,
        split: SmSplit,
        parts: &[u32],
    ) -> CuResult<()> {
        let mut given = self.all(of)?;
        if !parts.is_empty() {
            let (groups, each) = divided(given.len(), split)?;
            let (in_groups, rest) = given.split_at(groups * each);
            given = parts_of(parts, &in_groups.chunks(each).collect::<Vec<_>>(), rest)?.concat();
        }
        self.of.insert(green, given);
        Ok(())
    }

    pub(super) fn take_back(&mut self, green: Raw) -> CuResult<()> {
        self.of.remove(&green).map(drop).ok_or(CuError::INVALID_CONTEXT)
    }
}

/// What parts of a split are: of its groups, or its rest.
pub(super) fn parts_of<T: Copy>(parts: &[u32], groups: &[T], rest: T) -> CuResult<Vec<T>> {
    let part = |part: &u32| match *part {
        REST => Ok(rest),
        group => groups.get(group as usize).copied().ok_or(CuError::INVALID_VALUE),
    };
    parts.iter().map(part).collect()
}

fn step(split: SmSplit) -> u32 {
    if split.flags & SPLIT_APART == 0 { 2 } else { 1 }
}

/// How many groups, and how many multiprocessors each.
fn divided(all: usize, split: SmSplit) -> CuResult<(usize, usize)> {
    let step = step(split);
    let each = split.count_min.max(1).checked_next_multiple_of(step).ok_or(CuError::INVALID_VALUE)?;
    let each = usize::try_from(each).map_err(|_| CuError::INVALID_VALUE)?;
    let most = if split.groups == 0 { usize::MAX } else { split.groups as usize };
    match most.min(all / each) {
        0 => Err(CuError::INVALID_RESOURCE_CONFIGURATION),
        groups => Ok((groups, each)),
    }
}

fn resource(count: usize, step: u32) -> SmResource {
    SmResource { count: u32::try_from(count).unwrap_or(u32::MAX), group_min: step, group_step: step }
}

#[cfg(test)]
mod tests {
    use super::*;

    const G: Raw = Raw(7);

    fn by(groups: u32, count_min: u32, flags: u32) -> SmSplit {
        SmSplit { groups, flags, count_min }
    }

    #[test]
    fn groups_are_whole_steps_and_what_is_left_over_is_the_rest() {
        let all = Processors::default();
        let two = all.split(None, by(0, 1, 0)).unwrap();
        assert_eq!((two.groups, two.each.count, two.rest.count), (2, 2, 0));
        let one = all.split(None, by(1, 3, SPLIT_APART)).unwrap();
        assert_eq!((one.groups, one.each.count, one.rest.count), (1, 3, 1));
        assert_eq!(all.split(None, by(1, 5, 0)), Err(CuError::INVALID_RESOURCE_CONFIGURATION));
        assert_eq!(all.split(None, by(1, u32::MAX, 0)), Err(CuError::INVALID_VALUE));
    }

    #[test]
    fn parts_have_other_multiprocessors_each_and_a_green_context_is_split_again() {
        let mut all = Processors::default();
        all.give(G, None, by(2, 2, 0), &[1]).unwrap();
        all.give(Raw(8), None, by(1, 3, SPLIT_APART), &[REST, 0]).unwrap();
        assert_eq!((all.list(G), all.list(Raw(8))), (&[2, 3][..], &[3, 0, 1, 2][..]));
        all.give(Raw(9), Some(G), by(2, 1, SPLIT_APART), &[1]).unwrap();
        assert_eq!(all.list(Raw(9)), [3]);
        all.take_back(G).unwrap();
        assert_eq!(all.resource(Some(G)), Err(CuError::INVALID_CONTEXT));
        assert_eq!(all.give(G, None, by(2, 2, 0), &[2]), Err(CuError::INVALID_VALUE));
    }
}
