//! Functions of the program that a stream calls: the stream waits until they have run, in a thread of this library
//! (`core/host_functions.rs`). They may not call CUDA: 800.

use vgpu_api::{CuError, ask};

use super::stream::existing;
use crate::abi::{Raw, Span, export};
use crate::core::contexts::enter;
use crate::core::graphs::{HostCall, Work};
use crate::core::host_functions::{HostFn, HostFunction, StreamCallback};

export! {
    fn cuLaunchHostFunc | cuLaunchHostFunc_ptsz(mode, stream: Raw, function: Option<HostFn>, data: Span) {
        let entered = enter()?;
        let stream = existing(entered, stream, mode)?;
        let function = function.ok_or(CuError::INVALID_VALUE)?;
        let function = HostFunction::Plain { function, data: data.address() };
        let node = || Work::Host(HostCall { function, number: None });
        if entered.process.graphs.captured(entered, stream, |_| Ok(node()))? {
            return Ok(());
        }
        entered.process.host_functions.queue(entered.process, function, |number| {
            ask::cuLaunchHostFunc(&entered.process.channel, entered.context, stream, number)
        })
    }

    fn cuStreamAddCallback | cuStreamAddCallback_ptsz(
        mode, stream: Raw, function: Option<StreamCallback>, data: Span, flags: u32,
    ) {
        let (entered, named) = (enter()?, stream.0);
        let stream = existing(entered, stream, mode)?;
        let function = function.ok_or(CuError::INVALID_VALUE)?;
        if flags != 0 {
            return Err(CuError::INVALID_VALUE);
        }
        // A graph calls no such function. Source: CUDA Driver API, `cuStreamAddCallback`.
        entered.process.graphs.refuses(entered, stream)?;
        let function = HostFunction::Callback { function, stream: named, data: data.address() };
        entered.process.host_functions.queue(entered.process, function, |number| {
            ask::cuStreamAddCallback(&entered.process.channel, entered.context, stream, number)
        })
    }
}
