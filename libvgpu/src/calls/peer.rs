//! Access of one device to another's memory: there is none (`cuDeviceCanAccessPeer`), so these refuse it as CUDA does.

use vgpu_api::{CuError, CuResult};

use crate::abi::{Raw, export};
use crate::core::contexts::enter;

/// That a call names a context: none is another's peer, nor its own.
fn other(raw: Raw) -> CuResult<()> {
    enter()?.process.contexts.named(raw.0).map(|_| ())
}

export! {
    fn cuCtxEnablePeerAccess(peer: Raw, flags: u32) {
        other(peer)?;
        if flags != 0 {
            return Err(CuError::INVALID_VALUE);
        }
        Err(CuError::PEER_ACCESS_UNSUPPORTED)
    }

    fn cuCtxDisablePeerAccess(peer: Raw) {
        other(peer)?;
        Err(CuError::PEER_ACCESS_NOT_ENABLED)
    }
}
