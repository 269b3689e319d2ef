//! Images with managed variables: these lie in a block of the arena that the guest names, and what is loaded finds them there.

use std::borrow::Cow;
use std::collections::HashSet;

use vgpu_api::image::MANAGED_ALIGN;
use vgpu_api::{CuError, CuResult, DevicePtr, GlobalInfo};

use super::Session;
use crate::device::{HostPages, LoadError, Managed, Placed, Survey};
use crate::worker::ranges::Origin;

const NO_ARENA: &str =
    "it has a managed variable (__managed__), and this process has no arena where host and device reach one";
const STILL_MANAGED: &str = "it has a managed variable (__managed__) that was not found";

/// What the device loads of an image.
pub(super) struct Prepared<'a> {
    pub(super) image: Cow<'a, [u8]>,
    pub(super) survey: Survey,
    pub(super) managed: Vec<GlobalInfo>,
}

fn plain(code: CuError) -> LoadError {
    LoadError { code, log: String::new() }
}

fn unsupported(log: &str) -> LoadError {
    LoadError { code: CuError::NOT_SUPPORTED, log: log.to_owned() }
}

impl Session {
    /// With managed variables in the block that begins at `block`; else how long one has to be.
    pub(super) fn prepared<'a>(
        &mut self,
        image: &'a [u8],
        block: Option<DevicePtr>,
    ) -> CuResult<Result<Prepared<'a>, u64>> {
        let survey = self.device.survey(image)?;
        if !survey.is_managed {
            let none = block.is_none().then_some(Vec::new()).ok_or(CuError::INVALID_VALUE);
            return none.map(|managed| Ok(Prepared { image: Cow::Borrowed(image), survey, managed }));
        }
        self.place_managed(image, block).map_err(|refused| {
            self.image_log = refused.log;
            refused.code
        })
    }

    fn place_managed(
        &self,
        image: &[u8],
        block: Option<DevicePtr>,
    ) -> Result<Result<Prepared<'static>, u64>, LoadError> {
        let managed = Managed::of(self.device.chosen(image)?)?;
        let bytes = managed.bytes();
        if bytes > 0 && self.arena.is_none() {
            return Err(unsupported(NO_ARENA));
        }
        let (at, pages) = match block {
            None if bytes > 0 => return Ok(Err(bytes)),
            // The device takes a part of the image that has none.
            None => (0, None),
            Some(at) => (at.0, Some(self.block(at, bytes).map_err(plain)?)),
        };
        let Placed { image, variables, initial } = managed.placed(at)?;
        let mut survey = self.device.survey(&image).map_err(plain)?;
        if survey.is_managed {
            return Err(unsupported(STILL_MANAGED));
        }
        // What is left of them in the image is nobody's.
        let names: HashSet<&[u8]> = variables.iter().map(|one| one.name.as_bytes()).collect();
        survey.variables.retain(|name| !names.contains(name.as_bytes()));
        if let Some(pages) = pages {
            pages.zero(at, bytes);
            initial.iter().for_each(|(at, values)| pages.write(*at, values));
        }
        Ok(Ok(Prepared { image: Cow::Owned(image), survey, managed: variables }))
    }

    /// A block for managed variables: of the guest's arena, whole in a part that was added.
    fn block(&self, at: DevicePtr, bytes: u64) -> CuResult<HostPages> {
        let is_there = bytes > 0
            && at.0.is_multiple_of(MANAGED_ALIGN)
            && self.ranges.origin(at) == Some(Origin::Arena)
            && self.ranges.check(at, bytes).is_ok();
        let pages = self.arena.as_ref().and_then(|arena| HostPages::of(arena, at.0, bytes));
        pages.filter(|_| is_there).ok_or(CuError::INVALID_VALUE)
    }
}
