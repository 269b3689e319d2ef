//! The block of the arena where an image's managed variables lie. The worker tells how long it is, and changes the image so that its code
//! finds them there.

use vgpu_api::{ContextId, CuError, CuResult, DevicePtr, GlobalInfo, WireError};

use super::process::Process;
use crate::calls::host_memory::{add_variable, forget_variable};
use crate::log::say;

/// A block that an image has.
#[derive(Debug)]
pub struct Block {
    start: u64,
    bytes: u64,
}

impl Block {
    /// # Errors
    /// 801 where there is no arena, 2 where it has no room.
    pub fn take(process: &Process, bytes: u64) -> CuResult<Self> {
        let Some(arena) = &process.arena else {
            say!("an image has managed variables, and there is no arena for them");
            return Err(CuError::NOT_SUPPORTED);
        };
        Ok(Self { start: arena.take(&process.channel, bytes)?, bytes })
    }

    pub fn address(&self) -> DevicePtr {
        DevicePtr(self.start)
    }

    /// That the variables lie in it.
    pub fn holds(&self, variables: &[GlobalInfo]) -> Result<(), WireError> {
        let holds = |one: &GlobalInfo| {
            let offset = one.address.0.checked_sub(self.start);
            offset.and_then(|offset| offset.checked_add(one.bytes)).is_some_and(|end| end <= self.bytes)
        };
        if variables.iter().all(holds) { Ok(()) } else { Err(WireError::BadValue("managed variables")) }
    }

    /// The image is there: pointers to its variables are known. Of a library `owner` is none.
    pub fn begin<'a>(variables: impl Iterator<Item = &'a GlobalInfo>, owner: ContextId) {
        for one in variables.filter(|one| one.bytes > 0) {
            add_variable(one.address.0, one.bytes, owner);
        }
    }

    /// The image has ended, for the worker, too: so have its variables. Waits for all work.
    /// # Errors
    /// The worker is gone, or keeps the memory: it is not given out again then.
    pub fn end<'a>(
        &self,
        process: &Process,
        variables: impl Iterator<Item = &'a GlobalInfo>,
    ) -> CuResult<()> {
        variables.filter(|one| one.bytes > 0).for_each(|one| forget_variable(one.address.0));
        match &process.arena {
            Some(arena) => arena.give(&process.channel, &[(self.start, self.bytes)]),
            None => Ok(()),
        }
    }
}
