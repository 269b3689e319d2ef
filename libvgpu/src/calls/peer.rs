//! Access of one device's kernels to another's memory. Who has it, the worker knows; who can have it, the snapshot says.

use vgpu_api::snapshot::PEER_ACCESS;
use vgpu_api::{ContextId, CuError, CuResult, ask};

use crate::abi::{Raw, export};
use crate::core::contexts::{Entered, enter};

/// The current context and another one, which need not be alive.
fn pair(raw: Raw) -> CuResult<(Entered, ContextId)> {
    let entered = enter()?;
    entered.process.contexts.named(raw.0).map(|peer| (entered, peer))
}

export! {
    fn cuCtxEnablePeerAccess(peer: Raw, flags: u32) {
        let (entered, peer) = pair(peer)?;
        if flags != 0 {
            return Err(CuError::INVALID_VALUE);
        }
        let process = entered.process;
        if process.peer(PEER_ACCESS, entered.device, process.contexts.device_of(peer)?) == 0 {
            return Err(CuError::PEER_ACCESS_UNSUPPORTED);
        }
        ask::cuCtxEnablePeerAccess(&process.channel, entered.context, peer)
    }

    fn cuCtxDisablePeerAccess(peer: Raw) {
        let (entered, peer) = pair(peer)?;
        ask::cuCtxDisablePeerAccess(&entered.process.channel, entered.context, peer)
    }
}
