//! The pod's zone at gpu-proxy: made with the first grant, and kept. A gpu-proxy that was restarted, or told by somebody else to end the zone, knows
//! nothing of it. So it is told again, and the pod that lived on can use its GPU again.

use std::{os::unix::net::UnixStream, sync::Arc, time::Duration};

use tokio::net::UnixStream as AsyncStream;
use vgpu_codes::Code;

use super::{Pod, Sandbox};
use crate::{
    error::{OrFail, Result, blocking},
    zone,
};

/// For gpu-proxy to register a zone or give a grant.
pub(super) const PROXY_LIMIT: Duration = Duration::from_secs(10);
/// For each answer of a gpu-proxy that was just started: to the connection, the hello, the zone and each grant. A Delete waits for them
/// all if it comes in between, but a gpu-proxy that hangs is given up at the first.
const LIMIT: Duration = Duration::from_secs(2);
/// Between two tries: from the first to the longest. A program that asks for its GPU meanwhile waits for 10 s in the guest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

impl Pod {
    /// Registers the zone, grants the container its GPU, and has both kept from here on.
    pub(super) async fn grant(self: &Arc<Self>, sandbox: &mut Sandbox, id: &str) -> Result<()> {
        sandbox.record.proxy = Some(sandbox.platform.config.proxy.socket.clone());
        sandbox.save().await?;
        let turn = sandbox.zone_turn.clone().lock_owned().await;
        let (record, id) = (sandbox.record.clone(), id.to_owned());
        let registered = blocking(move || {
            let registered = zone::grant(&record, &id, PROXY_LIMIT);
            drop(turn);
            registered
        });
        let registered = registered.await?;
        if let (Some(stream), false) = (registered, sandbox.zone_kept) {
            sandbox.zone_kept = true;
            sandbox.watch(self.clone().keep_zone(stream));
        }
        Ok(())
    }

    /// Watches `registered`, on which the zone was registered, and registers it anew whenever that ends. Ends with the sandbox.
    pub(super) async fn keep_zone(self: Arc<Self>, registered: UnixStream) {
        let mut next = Some(registered);
        while let Some(stream) = next {
            if let Err(error) = ended(stream).await {
                log::warn!("gpu-proxy cannot be watched: {}", error.report());
            }
            log::warn!(
                "gpu-proxy is gone, or was told to end the zone: the pod's GPU programs have ended, its zone is registered again"
            );
            next = self.restore_zone().await;
        }
    }

    /// Tries until a gpu-proxy knows the zone; none when there is no zone any more.
    async fn restore_zone(&self) -> Option<UnixStream> {
        let mut pause = PAUSES.0;
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
            match self.try_restore_zone().await {
                Ok(None) => return None,
                Ok(restored) => {
                    log::info!("the pod's zone is registered again");
                    return restored;
                }
                Err(error) => log::debug!("gpu-proxy is not back: {}", error.report()),
            }
        }
    }

    async fn try_restore_zone(&self) -> Result<Option<UnixStream>> {
        let (record, turn) = {
            let sandbox = self.sandbox.lock().await;
            // A dead guest uses no GPU any more.
            let (Some(sandbox), Ok(_)) = (sandbox.as_ref(), self.guest()) else { return Ok(None) };
            // Taken with the record: what it says is not told after something newer.
            (sandbox.record.clone(), sandbox.zone_turn.clone().lock_owned().await)
        };
        blocking(move || {
            let restored = zone::restore(&record, LIMIT);
            drop(turn);
            restored
        })
        .await
    }
}

/// Returns at the stream's end. gpu-proxy has nothing to say that was not asked for: one that does is not followed either.
async fn ended(stream: UnixStream) -> Result<()> {
    let what = || "the connection cannot be waited for".to_owned();
    stream.set_nonblocking(true).or_fail(Code::HostFailure, what)?;
    let stream = AsyncStream::from_std(stream).or_fail(Code::HostFailure, what)?;
    loop {
        stream.readable().await.or_fail(Code::HostFailure, what)?;
        match stream.try_read(&mut [0]) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            _ => return Ok(()),
        }
    }
}
