//! Functions of the program that a stream calls.

use vgpu_api::{Call, CuError, CuResult, Staged, Stream};

use super::Session;
use crate::worker::host_functions::HostFunctions;

impl Session {
    /// Once: threads of the device may be looking at the first one.
    pub(super) fn host_mailbox(&mut self, mailbox: Staged) -> CuResult<()> {
        if self.host_functions.is_some() {
            return Err(CuError::INVALID_VALUE);
        }
        self.host_functions = Some(HostFunctions::new(self.staging.clone(), mailbox)?);
        Ok(())
    }

    pub(super) fn host_function(
        &mut self,
        call: Call,
        stream: Stream,
        number: u64,
        after_errors: bool,
    ) -> CuResult<()> {
        self.may_hold_up();
        let (context, place) = self.place(call, stream)?;
        let known = self.host_functions.as_ref().ok_or(CuError::INVALID_VALUE)?;
        let count = &self.contexts.get(&context).ok_or(CuError::INVALID_CONTEXT)?.host_functions;
        let function = known.function(number, count)?;
        self.wait_for_turn(place);
        let result = self.device.host_function(place, after_errors, function);
        self.settle(context, result)
    }
}
