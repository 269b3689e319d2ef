//! The backend's end of a device: waits for the guest's offer, checks it, takes it.

use std::time::{Duration, Instant};

use super::super::DomId;
use super::super::error::XenError;
use super::super::offer::accept_stream;
use super::super::xenstore::{Client, Store as _, Watch, XsError};
use super::frontend::wait;
use super::nodes::read_offer;
use super::{CLOSED, CONNECTED, Device, INITIALISED, INITIALISING, STATE_MAX, is_ending};
use crate::life::Liveness;
use crate::stream::{Stream, StreamSpec};

/// A device of a guest, served by this domain.
#[derive(Debug)]
pub struct Backend {
    xenstore: Client,
    device: Device,
}

impl Backend {
    /// Serves `device`, which the toolstack has made. The ids in it are the toolstack's word, not the guest's.
    pub fn new(xenstore: &Client, device: Device) -> Self {
        Self { xenstore: xenstore.clone(), device }
    }

    /// Waits at most `limit` for the guest's offer and accepts it: a stream of the sizes `spec`. `liveness` tells of the guest's end
    /// ([`super::super::death::Deaths::domain`]). May be called again when that stream has ended.
    ///
    /// # Errors
    /// [`XenError::PeerGone`]: the guest closed or lost the device. [`XenError::Late`]: it offers nothing. What the guest wrote and
    /// must not: [`XenError::PeerWrote`], [`XenError::MapPages`].
    pub fn accept(&self, spec: StreamSpec, limit: Duration, liveness: Liveness) -> Result<Stream, XenError> {
        let end = Instant::now() + limit;
        let guest = self.device.guest;
        let front = self.device.frontend_path();
        let watch = self.xenstore.watch(&front)?;
        self.set_state(INITIALISING)?;
        await_frontend(&self.xenstore, &front, guest, &watch, (end, limit), || liveness.is_gone())?;
        let offer = match read_offer(&self.xenstore, &front, guest) {
            Err(XenError::Xenstore(error)) if error.is_missing() => {
                let value = "nothing".to_owned();
                return Err(XenError::PeerWrote { peer: guest, what: "grant references or a port", value });
            }
            other => other?,
        };
        let stream = accept_stream(guest, &offer, spec, Some(liveness))?;
        let port = offer.port.to_string();
        self.change(&[("connected-port", &port), ("state", &CONNECTED.to_string())])?;
        Ok(stream)
    }

    /// Tells the guest that nothing will be accepted any more.
    ///
    /// # Errors
    /// Xenstore's. [`XenError::PeerGone`]: the toolstack has removed the device.
    pub fn close(&self) -> Result<(), XenError> {
        self.set_state(CLOSED)
    }

    fn set_state(&self, state: u32) -> Result<(), XenError> {
        self.change(&[("state", &state.to_string())])
    }

    fn change(&self, nodes: &[(&str, &str)]) -> Result<(), XenError> {
        change(&self.xenstore, &self.device.backend_path(), self.device.guest, nodes)
    }
}

/// Waits until the front end at `front` has offered, which is state 3, for as long as `limit` says: until when, and what that is in all.
///
/// # Errors
/// [`XenError::PeerGone`]: it closed or lost the device, or `is_gone` says so. [`XenError::Late`]. [`XenError::PeerWrote`]: no state.
pub(in super::super) fn await_frontend(
    xenstore: &Client,
    front: &str,
    guest: DomId,
    watch: &Watch,
    (end, limit): (Instant, Duration),
    is_gone: impl Fn() -> bool,
) -> Result<(), XenError> {
    loop {
        let state = match xenstore.read_decimal(&format!("{front}/state"), STATE_MAX) {
            Ok(state) => state,
            Err(error) if error.is_missing() => return Err(XenError::PeerGone(guest)),
            Err(XsError::Value { value, .. }) => {
                return Err(XenError::PeerWrote { peer: guest, what: "a state", value });
            }
            Err(error) => return Err(error.into()),
        };
        if is_ending(state) || is_gone() {
            return Err(XenError::PeerGone(guest));
        }
        if state == INITIALISED {
            return Ok(());
        }
        wait(watch, end, limit, guest, "offer a stream")?;
    }
}

/// Writes below the device at `back`, which is there. A write alone would make nodes again that the toolstack has removed, for nobody to
/// remove.
///
/// # Errors
/// Xenstore's. [`XenError::PeerGone`]: the toolstack has removed the device.
pub(in super::super) fn change(
    xenstore: &Client,
    back: &str,
    guest: DomId,
    nodes: &[(&str, &str)],
) -> Result<(), XenError> {
    let changed = xenstore.transaction(|tx| {
        tx.read(back)?;
        nodes.iter().try_for_each(|(node, value)| tx.write(&format!("{back}/{node}"), value))
    });
    changed.map_err(|error| match error.is_missing() {
        true => XenError::PeerGone(guest),
        false => error.into(),
    })
}
