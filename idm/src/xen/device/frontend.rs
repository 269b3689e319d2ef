//! The guest's end of a device: grants, offers, and waits to be accepted.

use std::time::{Duration, Instant};

use super::super::DomId;
use super::super::death::Deaths;
use super::super::domain::own_domid;
use super::super::error::XenError;
use super::super::offer::offer_stream;
use super::super::xenstore::{Client, Store as _, Watch};
use super::nodes::write_offer;
use super::{CONNECTED, Device, INITIALISED, INITIALISING, STATE_MAX, is_ending};
use crate::life::Liveness;
use crate::stream::{Stream, StreamSpec};

/// A device of this domain. Kept as long as its stream is used: with it goes the notice of the backend's end.
#[derive(Debug)]
pub struct Frontend {
    xenstore: Client,
    device: Device,
    /// Asked for once: a question is kept until the backend's end, and a stream that breaks is offered again.
    backend: Liveness,
    _deaths: Deaths,
}

impl Frontend {
    /// Finds device `number` of this domain, waiting at most `limit` for the toolstack to make it.
    ///
    /// # Errors
    /// [`XenError::Late`]: there is no such device. Xenstore's own.
    pub fn find(xenstore: &Client, number: u32, limit: Duration) -> Result<Self, XenError> {
        let guest = own_domid(xenstore)?;
        // The path has the guest's id only; the backend's is read from it.
        let path = Device { guest, number, backend: DomId::DOM0 }.frontend_path();
        let watch = xenstore.watch(&path)?;
        let end = Instant::now() + limit;
        let backend = loop {
            match xenstore.read_decimal(&format!("{path}/backend-id"), 0x7fef) {
                Ok(id) => break u16::try_from(id).ok().and_then(DomId::new).unwrap_or(DomId::DOM0),
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error.into()),
            }
            wait(&watch, end, limit, guest, "make the device")?;
        };
        let device = Device { guest, number, backend };
        let deaths = Deaths::of_device(xenstore, &format!("{}/state", device.backend_path()))?;
        Ok(Self { xenstore: xenstore.clone(), device, backend: deaths.device()?, _deaths: deaths })
    }

    /// Which device this is.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Waits for a backend that wants an offer, offers a stream of the sizes `spec` and waits until it is accepted: at most `limit` for
    /// both. May be called again when that stream has ended: a backend that was started again wants a new offer.
    ///
    /// # Errors
    /// [`XenError::PeerGone`]: the backend closed the device. [`XenError::Late`]: nobody accepted.
    pub fn connect(&self, spec: StreamSpec, limit: Duration) -> Result<Stream, XenError> {
        let end = Instant::now() + limit;
        let (front, back) = (self.device.frontend_path(), self.device.backend_path());
        let watch = self.xenstore.watch(&back)?;
        // Connected is what a dead backend left. It would pass for an answer, since a port's number is used again at once.
        while self.backend_state()? != INITIALISING {
            wait(&watch, end, limit, self.device.backend, "ask for a stream")?;
        }
        let backend = self.backend.try_clone().map_err(|source| XenError::Call { call: "dup", source })?;
        let (offer, stream) = offer_stream(self.device.backend, spec, Some(backend))?;
        self.xenstore.transaction(|tx| {
            write_offer(tx, &front, &offer)?;
            tx.write(&format!("{front}/state"), INITIALISED.to_string())
        })?;
        loop {
            let state = self.backend_state()?;
            let accepted = self.xenstore.read_if_there(&format!("{back}/connected-port"))?;
            if state == CONNECTED && accepted.is_some_and(|port| port == offer.port.to_string().as_bytes()) {
                self.set_state(CONNECTED)?;
                return Ok(stream);
            }
            if let Err(late) = wait(&watch, end, limit, self.device.backend, "accept the stream") {
                // Nobody shall take up an offer whose pages go with this call.
                self.set_state(INITIALISING)?;
                return Err(late);
            }
        }
    }

    /// The backend's state, unless it will carry nothing any more.
    fn backend_state(&self) -> Result<u32, XenError> {
        let state = format!("{}/state", self.device.backend_path());
        match self.xenstore.read_decimal(&state, STATE_MAX) {
            Ok(state) if !is_ending(state) => Ok(state),
            Ok(_) => Err(XenError::PeerGone(self.device.backend)),
            Err(error) if error.is_missing() => Err(XenError::PeerGone(self.device.backend)),
            Err(error) => Err(error.into()),
        }
    }

    fn set_state(&self, state: u32) -> Result<(), XenError> {
        Ok(self.xenstore.write(&format!("{}/state", self.device.frontend_path()), state.to_string())?)
    }
}

/// Waits for the watch until `end`; not a moment longer for a peer that makes it fire without end.
pub(super) fn wait(
    watch: &Watch,
    end: Instant,
    limit: Duration,
    peer: DomId,
    what: &'static str,
) -> Result<(), XenError> {
    let left = end.saturating_duration_since(Instant::now());
    if !left.is_zero() && watch.wait(left)? {
        return Ok(());
    }
    Err(XenError::Late { peer, what, limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX) })
}
