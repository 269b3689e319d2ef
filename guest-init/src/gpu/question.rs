//! A process that only asks what its container's devices are: the question goes to gpu-proxy, the answer back to the process, with the
//! pids that it knows. No page is shared and nothing stays.

use std::{io, sync::Arc, time::Duration};

use tokio::{net::UnixStream, time::timeout};
use vgpu_codes::Code;
use vgpu_zone_api::guest::{ContainerId, ToGuest, ToProxy, facts::Facts};

use super::{
    greeting::Greeted,
    life::Event,
    pids::Pids,
    proxy::Proxy,
    session::{PROXY_LIMIT, gone},
};

/// For the proxy's answer: the first one may have to wait for a driver to start.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Answers one process.
/// # Errors
/// It could not be told; that it is gone is none.
pub async fn run(
    process: &UnixStream,
    greeted: &Greeted,
    container: ContainerId,
    proxy: &Arc<Proxy>,
) -> io::Result<()> {
    let refuse = |code: u16| greeted.refuse(process, code);
    let Some(mut registered) = proxy.register_soon(PROXY_LIMIT).await else {
        return refuse(Code::NoProxy as u16);
    };
    if !registered.answers {
        return refuse(Code::ProtocolVersion as u16);
    }
    registered.send(ToProxy::Ask { question: registered.channel, container }).await;
    let event = tokio::select! {
        event = timeout(ANSWER_LIMIT, registered.events.recv()) => event,
        () = gone(Some(process)) => return Ok(()),
    };
    match event {
        Ok(Some(Event::Proxy(ToGuest::Told { code: 0, answer, .. }))) => {
            // Checked here: the process is a stranger's, and its library trusts this side.
            let mut facts = Facts::decode(&answer).map_err(io::Error::other)?;
            let asker = greeted.pid();
            let facts = tokio::task::spawn_blocking(move || {
                Pids::of_this_guest().translate(asker, &mut facts.processes);
                facts
            });
            greeted.tell(process, &facts.await.map_err(io::Error::other)?.encode())
        }
        Ok(Some(Event::Proxy(ToGuest::Told { code, .. }))) => {
            refuse(u16::try_from(code).unwrap_or(Code::ProtocolBroken as u16))
        }
        // The stream ended, or nothing came.
        Ok(_) | Err(_) => refuse(Code::NoProxy as u16),
    }
}
