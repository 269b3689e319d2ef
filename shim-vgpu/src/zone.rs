//! The pod's zone at gpu-proxy: registered and granted by what the record on disk says, so that it can be said again after a restart of
//! gpu-proxy. Everything said is idempotent. Blocks, each answer for a limit at most.
//!
//! The connection on which the zone was registered stays open and silent: its end is that gpu-proxy's end, with all that it knew, or the
//! zone's, which somebody else has ended.

use std::{os::unix::net::UnixStream, path::Path, time::Duration};

use vgpu_codes::Code;
use vgpu_zone_api::shim::{Client, ClientError, DomainRef, Request};

use crate::{
    error::{Error, Result},
    persist::Record,
};

/// All of a node are of one kind, and gpu-proxy chooses which a container gets.
const DEVICE: &str = "0";

/// Whether a gpu-proxy answers at `socket`.
///
/// # Errors
/// [`Code::NoProxy`].
pub fn ask(socket: &Path, limit: Duration) -> Result<()> {
    Client::connect(socket, limit).map(drop).map_err(proxy_error)
}

/// Registers the zone and grants `container` its GPU. Returns the connection; none if the record grants nothing.
///
/// # Errors
/// gpu-proxy's refusal under its own code, or [`Code::NoProxy`].
pub fn grant(record: &Record, container: &str, limit: Duration) -> Result<Option<UnixStream>> {
    let Some(mut client) = register(record, limit).map_err(proxy_error)? else { return Ok(None) };
    for request in grants(record).filter(|request| is_for(request, container)) {
        client.done(&request).map_err(proxy_error)?;
    }
    Ok(Some(client.into_stream()))
}

/// Registers the zone again, with the grants of all its containers. A grant that is refused now costs no other container its own.
///
/// # Errors
/// As [`grant`], but for refused grants.
pub fn restore(record: &Record, limit: Duration) -> Result<Option<UnixStream>> {
    let Some(mut client) = register(record, limit).map_err(proxy_error)? else { return Ok(None) };
    for request in grants(record) {
        match client.done(&request) {
            Err(refused @ ClientError::Refused { .. }) => {
                log::error!("a GPU is not granted again: {refused}")
            }
            told => told.map_err(proxy_error)?,
        }
    }
    Ok(Some(client.into_stream()))
}

/// Takes a container's grant back.
pub fn revoke(record: &Record, container: &str, limit: Duration) {
    if record.containers.get(container).is_some_and(|container| container.gpu.is_some()) {
        let revoke = |domain| Request::Revoke { zone: record.zone, container: container.into(), domain };
        let_go(record, revoke, limit);
    }
}

/// Ends the zone.
pub fn release(record: &Record, limit: Duration) {
    let_go(record, |domain| Request::Release { zone: record.zone, domain }, limit);
}

/// Says what gpu-proxy need not hear: one that is gone has forgotten the zone with everything in it, one that hangs sees the domain's end
/// by itself. So it keeps nothing else from being cleaned up, but it costs `limit` for the hello and for the answer.
///
/// It is said for this sandbox's domain: the pod's next sandbox has the same zone, and may be up before this one is cleaned up.
fn let_go(record: &Record, request: impl Fn(DomainRef) -> Request, limit: Duration) {
    let Some((socket, domain)) = registered(record) else { return };
    match Client::connect(socket, limit).and_then(|mut client| client.done(&request(domain))) {
        Ok(()) | Err(ClientError::Connect { .. }) => {}
        Err(error) => log::warn!("gpu-proxy did not let go of the pod: {}", proxy_error(error).report()),
    }
}

fn register(record: &Record, limit: Duration) -> Result<Option<Client>, ClientError> {
    let Some((socket, domain)) = registered(record) else { return Ok(None) };
    let mut client = Client::connect(socket, limit)?;
    if let Some(theirs) = client.peer_build().other() {
        log::info!("gpu-proxy is of release {theirs}, this shim of {}", idm::hello::Build::OWN);
    }
    let pod_uid = record.pod_uid.clone();
    client.done(&Request::Register { zone: record.zone, pod_uid, domain })?;
    Ok(Some(client))
}

/// Where the zone is registered and for which domain; none if it never was.
fn registered(record: &Record) -> Option<(&Path, DomainRef)> {
    Some((record.proxy.as_deref()?, DomainRef { domid: record.domid?, uuid: record.domain_uuid }))
}

fn grants(record: &Record) -> impl Iterator<Item = Request> + '_ {
    let granted = record.containers.iter().filter_map(|(id, container)| Some((id, container.gpu?)));
    granted.map(|(id, gpu)| Request::Grant {
        zone: record.zone,
        container: id.clone(),
        device: DEVICE.into(),
        devices: gpu.count,
        bytes: gpu.bytes,
        share: gpu.share,
    })
}

fn is_for(request: &Request, id: &str) -> bool {
    matches!(request, Request::Grant { container, .. } if container == id)
}

/// gpu-proxy's refusals keep their code; what else fails is its absence.
fn proxy_error(error: ClientError) -> Error {
    match error {
        ClientError::Refused { code, text } => {
            Error::new(Code::from_number(code).unwrap_or(Code::HostFailure), text)
        }
        ClientError::Hello(error) => {
            Error::caused(Code::ProtocolVersion, "gpu-proxy and this shim do not fit", error)
        }
        error => Error::caused(Code::NoProxy, "the pod asks for a GPU, but gpu-proxy can't be asked", error),
    }
}
