//! Keeps the GPU stream up: `device/vgpu-idm/1`, offered anew whenever gpu-proxy was started again.

use std::{io, sync::Arc, time::Duration};

use idm::{
    hello,
    stream::{AsyncStream, StreamSpec},
    xen::{device::Frontend, xenstore::Client},
};
use vgpu_zone_api::guest::wire;

use super::proxy::Proxy;
use crate::{
    agent::xen::refused,
    boot::console::say,
    error::{During, Result},
};

/// The shim makes it before the domain runs, with the agent's: it is there, or there is none.
const FIND_LIMIT: Duration = Duration::from_millis(100);
/// An offer stands this long, then it is made again: nothing says when a proxy is started.
const OFFER_LIMIT: Duration = Duration::from_secs(3600);
/// Between a stream's end and the next offer.
const PAUSE: Duration = Duration::from_secs(1);

/// The device, if this guest has one. Blocks shortly.
pub fn find(xenstore: &Client) -> Option<Frontend> {
    // A guest without the device is one whose pod can have no GPU.
    Frontend::find(xenstore, wire::DEVICE, FIND_LIMIT).ok()
}

/// Offers the stream and serves it, for ever.
pub async fn keep_up(frontend: Frontend, proxy: Arc<Proxy>) {
    let frontend = Arc::new(frontend);
    loop {
        let ended = once(&frontend, &proxy).await;
        if let Err(error) = ended {
            say(format_args!("the GPU stream: {error}"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn once(frontend: &Arc<Frontend>, proxy: &Arc<Proxy>) -> Result<()> {
    let spec = StreamSpec { to_taker_bytes: wire::RING_BYTES, to_maker_bytes: wire::RING_BYTES };
    let offering = Arc::clone(frontend);
    let stream = tokio::task::spawn_blocking(move || offering.connect(spec, OFFER_LIMIT).map_err(refused))
        .await
        .map_err(io::Error::other)
        .and_then(|connected| connected)
        .during(|| "offer it".into())?;
    let peer = stream.peer();
    let mut stream = AsyncStream::new(stream).during(|| "watch it".into())?;
    let mine = wire::hello();
    let agreed = hello::exchange_async(&mut stream, &mine, peer)
        .await
        .map_err(io::Error::other)
        .during(|| "exchange hellos with gpu-proxy".into())?;
    say("the GPU stream is up");
    if let Some(theirs) = agreed.peer_build.other() {
        say(format_args!("gpu-proxy is of release {theirs}, this guest of {}", mine.build));
    }
    proxy.serve(stream, agreed.application_minor).await.during(|| "speak to gpu-proxy".into())
}
