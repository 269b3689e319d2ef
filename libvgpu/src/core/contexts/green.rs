//! What of contexts is green.

use vgpu_api::{ContextId, CuResult, SmResource, StreamHandle};

use super::{Contexts, Created, current};

/// What a green context is beside that.
#[derive(Debug, Clone, Copy)]
pub struct Green {
    pub primary: ContextId,
    /// What 0 and `CU_STREAM_LEGACY` name in it.
    pub stream: StreamHandle,
    pub multiprocessors: SmResource,
}

impl Created {
    fn is_green_of(&self, primary: ContextId) -> bool {
        self.green.is_some_and(|green| green.primary == primary)
    }
}

impl Contexts {
    /// As [`Contexts::alive`], and whose is what is made in it.
    pub(super) fn living(&self, context: ContextId) -> CuResult<(u32, ContextId)> {
        let device = self.alive(context)?;
        Ok((device, self.green(context).map_or(context, |green| green.primary)))
    }

    /// What a green context is; `None` for another one, or none.
    pub fn green(&self, context: ContextId) -> Option<Green> {
        self.created(context).ok()?.green
    }

    /// The current context, or whose green one that is.
    pub fn current_owner(&self) -> ContextId {
        let current = current();
        self.green(current).map_or(current, |green| green.primary)
    }

    /// How many green contexts a primary one has.
    pub fn greens_of(&self, primary: ContextId) -> u32 {
        let count = self.read().values().filter(|created| created.is_green_of(primary)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// The green contexts of a primary one are gone with it.
    pub fn forget_greens(&self, primary: ContextId) {
        self.write().retain(|_, created| !created.is_green_of(primary));
        self.ended();
    }
}
