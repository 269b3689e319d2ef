//! The shim's door: one task a connection, one request after the other. The peer is root of this domain, so it is believed, but
//! not its bytes.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use vgpu_codes::Code;
use vgpu_zone_api::guest::ContainerId;
use vgpu_zone_api::shim::{self, HELLO_BYTES, Hello, REPLY_BYTES_MAX, REQUEST_BYTES_MAX, Reply, Request};

use super::Supervisor;
use super::refusal::Refusal;
use super::socket::Door;
use super::zones::Connection;

/// Serves the door for ever.
pub async fn serve(supervisor: Arc<Supervisor>, door: Door) {
    loop {
        let stream = door.accept().await;
        let supervisor = Arc::clone(&supervisor);
        tokio::spawn(async move {
            if let Err(error) = connection(&supervisor, stream).await {
                log::debug!("a connection at the shim's door ended: {error}");
            }
        });
    }
}

async fn connection(supervisor: &Arc<Supervisor>, mut stream: UnixStream) -> std::io::Result<()> {
    let mut theirs = [0; HELLO_BYTES];
    stream.read_exact(&mut theirs).await?;
    stream.write_all(&Hello::ours().to_bytes()).await?;
    let theirs = Hello::meet(&theirs).map_err(std::io::Error::other)?;
    if let Some(build) = theirs.build.other() {
        log::info!("a shim is of release {build}, this supervisor of {}", Hello::ours().build);
    }
    let here = Arc::new(Connection::default());
    loop {
        let mut word = [0; 4];
        tokio::select! {
            read = stream.read_exact(&mut word) => { read?; }
            // Its shim takes that for our end, and registers the zone again if its pod lives.
            () = here.lost.notified() => return Ok(()),
        }
        let mut body = vec![0; shim::frame_len(word, REQUEST_BYTES_MAX).map_err(std::io::Error::other)?];
        stream.read_exact(&mut body).await?;
        let reply = match shim::decode::<Request>(&body) {
            // A release goes on to its end even if the shim does not wait for it.
            Ok(request) => {
                let (supervisor, here) = (Arc::clone(supervisor), Arc::clone(&here));
                tokio::spawn(async move { answer(&supervisor, &here, request).await })
                    .await
                    .map_err(std::io::Error::other)?
            }
            Err(error) => refused(&Refusal::new(Code::ProtocolBroken, error.to_string())),
        };
        stream.write_all(&shim::encode(&reply, REPLY_BYTES_MAX).map_err(std::io::Error::other)?).await?;
    }
}

async fn answer(supervisor: &Arc<Supervisor>, here: &Arc<Connection>, request: Request) -> Reply {
    let done = match request {
        Request::Register { zone, pod_uid, domain } => {
            supervisor.register(zone, &pod_uid, domain).map(|()| supervisor.zones().hold(zone, here))
        }
        Request::Grant { zone, container, device, devices, bytes, share } => {
            check_device(&device, supervisor).and_then(|()| {
                check_container(&container)?;
                supervisor.zones().grant(zone, &container, devices, bytes, share)?;
                supervisor.start_ahead(zone, &container);
                Ok(())
            })
        }
        Request::Revoke { zone, container, domain } => {
            supervisor.revoke(zone, Some(domain), &container).await;
            Ok(())
        }
        Request::Release { zone, domain } => {
            supervisor.zones().let_go(zone, here);
            supervisor.release(zone, Some(domain)).await;
            Ok(())
        }
        Request::List => return Reply::Listing(supervisor.listing()),
    };
    done.map_or_else(|refusal| refused(&refusal), |()| Reply::Done)
}

fn refused(refusal: &Refusal) -> Reply {
    Reply::Refused { code: refusal.code as u16, text: refusal.text.clone() }
}

/// All of a node are of one kind: which ones a container gets is not the shim's to say.
fn check_device(device: &str, supervisor: &Supervisor) -> Result<(), Refusal> {
    if device == "0" || device == supervisor.device.to_string() {
        return Ok(());
    }
    Err(Refusal::new(
        Code::NoDevice,
        format!("there is no device {device:?} here, only 0 ({})", supervisor.device),
    ))
}

fn check_container(container: &str) -> Result<(), Refusal> {
    let valid = ContainerId::new(container).is_some();
    if valid {
        Ok(())
    } else {
        Err(Refusal::new(Code::SpecInvalid, "the container's id is no containerd id"))
    }
}
