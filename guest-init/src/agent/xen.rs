//! The agent stream and stdio streams over Xen.

use std::{io, time::Duration};

use idm::{
    error::Peer,
    hello::{self, Hello},
    stream::{AsyncStream, Stream, StreamSpec},
    xen::{DomId, device::Frontend, offer::offer_stream, xenstore::Client},
};
use vgpu_agent_api::wire;

use super::streams::MakeStream;
use crate::{
    boot::console::say,
    error::{During, Result},
    stdio::ByteStream,
};

/// The shim makes the device before the domain runs, and waits for us: past this it has given up.
const CONNECT_LIMIT: Duration = Duration::from_secs(120);
/// Pages that gntalloc may share. Its default, 1024, is 31 stdio streams: ten processes. Each page is of the pod's own memory.
const GRANT_PAGES: &str = "16384";

/// An error of the Xen layer as a system call's.
pub fn refused(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

/// Offers the agent stream and greets the shim. Keep the frontend as long as the stream is used. Blocks.
/// # Errors
/// There is no device, or nobody takes the offer.
pub fn connect(xenstore: &Client) -> Result<(Frontend, Stream)> {
    let frontend = Frontend::find(xenstore, wire::DEVICE, CONNECT_LIMIT)
        .map_err(refused)
        .during(|| "find the agent's device".into())?;
    let spec = StreamSpec { to_taker_bytes: wire::AGENT_RING_BYTES, to_maker_bytes: wire::AGENT_RING_BYTES };
    let stream =
        frontend.connect(spec, CONNECT_LIMIT).map_err(refused).during(|| "offer the agent stream".into())?;
    Ok((frontend, stream))
}

/// The stream for tasks, after the hello of both sides.
/// # Errors
/// The shim speaks another version of idm, or is gone.
pub async fn greet(stream: Stream) -> Result<AsyncStream> {
    let peer: Peer = stream.peer();
    let mut stream = AsyncStream::new(stream).during(|| "watch the agent stream".into())?;
    let mine = Hello::new(wire::RECORD_BYTES_MAX, wire::APPLICATION);
    let agreed = hello::exchange_async(&mut stream, &mine, peer)
        .await
        .map_err(io::Error::other)
        .during(|| "exchange hellos with the shim".into())?;
    if let Some(theirs) = agreed.peer_build.other() {
        say(format_args!("the shim is of release {theirs}, this guest of {}", mine.build));
    }
    Ok(stream)
}

/// Lets this kernel share as many pages as stdio may need.
/// # Errors
/// There is no gntalloc in this kernel.
pub fn raise_grant_limit() -> Result<()> {
    let file = "/sys/module/xen_gntalloc/parameters/limit";
    std::fs::write(file, GRANT_PAGES).during(|| format!("write {file}"))
}

/// Makes stdio streams to the shim's domain.
#[derive(Clone, Copy, Debug)]
pub struct StreamsTo(pub DomId);

impl MakeStream for StreamsTo {
    fn make(&self) -> Result<(Box<dyn ByteStream>, Vec<u32>, u32)> {
        let spec =
            StreamSpec { to_taker_bytes: wire::STDIO_RING_BYTES, to_maker_bytes: wire::STDIO_RING_BYTES };
        // The shim's death clears its life word and rings; that of its domain ends this one's agent stream too.
        let (offer, stream) =
            offer_stream(self.0, spec, None).map_err(refused).during(|| "offer a stdio stream".into())?;
        let stream = AsyncStream::new(stream).during(|| "watch a stdio stream".into())?;
        Ok((Box::new(stream), offer.refs.iter().map(|reference| reference.0).collect(), offer.port))
    }
}
