//! User objects: a count of owners, and a function of the program that runs when there are none (`core/user_objects.rs`).

use vgpu_api::CuError;

use crate::abi::{Out, Raw, Span, export};
use crate::core::host_functions::{HostFn, HostFunction};
use crate::core::process::process;
use crate::core::user_objects;

/// `CU_USER_OBJECT_NO_DESTRUCTOR_SYNC`, the only flag, and one that has to be there.
const NO_DESTRUCTOR_SYNC: u32 = 1;
/// `CU_GRAPH_USER_OBJECT_MOVE`, the only flag.
const MOVE: u32 = 1;

export! {
    fn cuUserObjectCreate(out: Out<u64>, data: Span, destroy: Option<HostFn>, owners: u32, flags: u32) {
        process()?;
        let (out, function) = (out.wanted()?, destroy.ok_or(CuError::INVALID_VALUE)?);
        if flags != NO_DESTRUCTOR_SYNC {
            return Err(CuError::INVALID_VALUE);
        }
        out.set(user_objects::create(owners, HostFunction::Plain { function, data: data.address() })?)
    }

    fn cuUserObjectRetain(object: Raw, count: u32) {
        process()?;
        user_objects::retain(object.0, count)
    }

    /// The last release runs the program's function, which may not call CUDA, before it returns.
    fn cuUserObjectRelease(object: Raw, count: u32) {
        process()?;
        user_objects::release(object.0, count)
    }

    fn cuGraphRetainUserObject(graph: Raw, object: Raw, count: u32, flags: u32) {
        let mut inner = process()?.graphs.lock();
        let graph = inner.named(graph.0)?;
        if flags & !MOVE != 0 {
            return Err(CuError::INVALID_VALUE);
        }
        inner.graph_mut(graph)?.references.retain(object.0, count, flags & MOVE != 0)
    }

    fn cuGraphReleaseUserObject(graph: Raw, object: Raw, count: u32) {
        let mut inner = process()?.graphs.lock();
        let graph = inner.named(graph.0)?;
        inner.graph_mut(graph)?.references.take(object.0, count).map(drop)
    }
}
