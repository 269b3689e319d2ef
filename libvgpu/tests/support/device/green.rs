//! Green contexts: four multiprocessors, two by two.

use vgpu_api::*;

use super::FakeDevice;

#[allow(non_snake_case, reason = "CUDA's names")]
impl FakeDevice {
    fn multiprocessors(&self, of: SmSource) -> CuResult<SmResource> {
        let count = match of.green {
            ContextId::NONE => 4,
            green => self.greens.get(&green).ok_or(CuError::INVALID_CONTEXT)?.1,
        };
        Ok(SmResource { count, group_min: 2, group_step: 2 })
    }

    pub(super) fn vgpuSmResource(&mut self, _: Call, of: SmSource) -> CuResult<SmResource> {
        self.saw("sm resource")?;
        self.multiprocessors(of)
    }

    pub(super) fn vgpuSmSplit(&mut self, _: Call, of: SmSource, split: SmSplit) -> CuResult<SmGroups> {
        self.saw("sm split")?;
        let all = self.multiprocessors(of)?;
        let count = split.count_min.max(1).next_multiple_of(2);
        let most = if split.groups == 0 { u32::MAX } else { split.groups };
        let groups = most.min(all.count / count);
        if groups == 0 {
            return Err(CuError::INVALID_RESOURCE_CONFIGURATION);
        }
        let of_count = |count| SmResource { count, ..all };
        Ok(SmGroups { groups, each: of_count(count), rest: of_count(all.count - groups * count) })
    }

    pub(super) fn vgpuGreenCreate(
        &mut self,
        call: Call,
        green: ContextId,
        stream: NewHandle<kind::Stream>,
        of: SmSource,
        split: SmSplit,
        parts: Vec<u32>,
    ) -> CuResult<SmResource> {
        self.saw("green create")?;
        assert!(self.retained.contains(&of.device), "the primary context is there");
        let all = self.multiprocessors(of)?;
        let each = split.count_min.max(1).next_multiple_of(2);
        let given = |part: &u32| if *part == green::REST { all.count - split.groups * each } else { each };
        let count = if parts.is_empty() { all.count } else { parts.iter().map(given).sum() };
        let primary = Call { context: ContextId::primary(of.device), ..call };
        self.streams.insert(stream.0.raw());
        self.occupy(primary, "stream", stream.0)?;
        self.greens.insert(green, (stream.0, count));
        Ok(SmResource { count, ..all })
    }

    pub(super) fn vgpuGreenDestroy(&mut self, _: Call, green: ContextId) -> CuResult<()> {
        let (stream, _) = self.greens.remove(&green).ok_or(CuError::INVALID_CONTEXT)?;
        self.streams.remove(&stream.raw());
        self.places.remove(&("stream", stream.index()));
        self.end_context(green);
        self.saw("green destroy")
    }
}
