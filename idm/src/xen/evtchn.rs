//! Event channels: the doorbell between two domains. `/dev/xen/evtchn`.
//!
//! One descriptor a port, so that one peer can neither overflow another's ring nor be heard through it, and so that the descriptor can
//! be handed to the worker of that peer alone. An event arrives once and the port stays masked until it is rearmed; we rearm when
//! we are about to wait again, after the work is done, so a flood of events costs its sender and not us.
//! Closing one end tells the other nothing: death is noticed by the gate page and the domain watch (`offer.rs`, `death.rs`).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::DomId;
use super::error::XenError;
use super::ioctl::{Arg, call, named, open};
use super::metrics::COUNTERS;
use super::table::evtchn as t;

/// One end of an event channel. Closing the descriptor unbinds the port.
#[derive(Debug)]
pub struct EventChannel {
    device: OwnedFd,
    port: u32,
    /// Whether an event was taken and the port not rearmed since.
    masked: AtomicBool,
}

impl EventChannel {
    /// A port of this domain that `remote`, and nobody else, may bind to. Its number is what the peer needs.
    ///
    /// # Errors
    /// `ENOSPC`: this domain has no port left (xl.cfg `max_event_channels`).
    pub fn offer(remote: DomId) -> Result<Self, XenError> {
        let device = open_device()?;
        let mut arg = Arg::fixed();
        arg.put_u32(t::INTERDOMAIN_DOMID, u32::from(remote.get()));
        let port = named(&device, &t::BIND_UNBOUND_PORT, &mut arg)?;
        Ok(Self::from_parts(device, port))
    }

    /// Binds to the port that `remote` offered to this domain. From then on this descriptor is good for that domain only.
    ///
    /// One event is pending at once: the first wait may return without cause.
    ///
    /// # Errors
    /// `EINVAL`: `remote` offered no such port to us.
    pub fn bind(remote: DomId, remote_port: u32) -> Result<Self, XenError> {
        let device = open_device()?;
        // The kernel cannot restrict to domain 0, of which nobody needs protecting.
        if remote != DomId::DOM0 {
            let mut arg = Arg::fixed();
            arg.put_u16(0, remote.get());
            named(&device, &t::RESTRICT_DOMID, &mut arg)?;
        }
        let mut arg = Arg::fixed();
        arg.put_u32(t::INTERDOMAIN_DOMID, u32::from(remote.get()));
        arg.put_u32(t::INTERDOMAIN_PORT, remote_port);
        let port = named(&device, &t::BIND_INTERDOMAIN, &mut arg)?;
        Ok(Self::from_parts(device, port))
    }

    /// An end that another process bound and sent: `device` holds `port`, and no other.
    pub fn from_parts(device: OwnedFd, port: u32) -> Self {
        Self { device, port, masked: AtomicBool::new(false) }
    }

    /// This end's port.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Wakes the peer. Never blocks.
    ///
    /// # Errors
    /// `ENOTCONN`: the port isn't bound through this descriptor.
    pub fn notify(&self) -> io::Result<()> {
        let mut arg = Arg::fixed();
        arg.put_u32(0, self.port);
        call(self.device.as_fd(), &t::NOTIFY, &mut arg)?;
        COUNTERS.events_sent.add(1);
        Ok(())
    }

    /// Takes the event, if one has arrived. Never blocks.
    ///
    /// # Errors
    /// The kernel's.
    pub fn take(&self) -> io::Result<bool> {
        let mut port = [0; 4];
        match rustix::io::read(&self.device, &mut port) {
            Ok(4) if u32::from_le_bytes(port) == self.port => {}
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            // More events than the ring holds. With one port there is room for them, so this is a descriptor that came from
            // elsewhere; an event is lost at most in number, and one is enough.
            Err(Errno::FBIG) => {
                call(self.device.as_fd(), &t::RESET, &mut Arg::fixed())?;
            }
            Err(errno) => return Err(errno.into()),
        }
        // A flag for `rearm` of this process alone; what the event announces is ordered by the rings.
        self.masked.store(true, Ordering::Relaxed);
        COUNTERS.events_taken.add(1);
        Ok(true)
    }

    /// Lets the next event in, if the last one was taken: call it before waiting, when the work is done. An event sent meanwhile
    /// arrives at once.
    ///
    /// # Errors
    /// The kernel's.
    pub fn rearm(&self) -> io::Result<()> {
        if self.masked.swap(false, Ordering::Relaxed) {
            rustix::io::write(&self.device, &self.port.to_le_bytes())?;
            COUNTERS.unmasks.add(1);
        }
        Ok(())
    }

    /// Gives up the struct and keeps what [`EventChannel::from_parts`] takes, to send it to another process.
    pub fn into_parts(self) -> (OwnedFd, u32) {
        (self.device, self.port)
    }
}

impl AsFd for EventChannel {
    /// Readable when an event has arrived (and the port is armed).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

fn open_device() -> Result<OwnedFd, XenError> {
    open(t::PATH, OFlags::NONBLOCK)
}
