//! The handshake with a guest process, as gpu-proxy itself would do it: `idm::connect`, without blocking PID 1.

use std::{io, os::fd::AsFd};

use idm::{
    arena::KEPT_SINCE_MINOR,
    connect::{self, ProgramEnd},
    error::{ChannelError, Peer},
    hello::{HELLO_BYTES, Hello},
};
use tokio::{io::AsyncReadExt, net::UnixStream};
use vgpu_zone_api::guest::wire::region;

/// A process that has greeted.
#[derive(Debug)]
pub struct Greeted {
    /// It, with its pid.
    pub peer: Peer,
    /// The hash of the CUDA calls that it speaks: the proxy judges it. Or that it only asks: `facts::APPLICATION`.
    pub wire_hash: u64,
    /// Whether it knows that an arena may be kept.
    pub knows_kept: bool,
    /// What it is answered.
    ours: Hello,
}

/// Reads the hello. The caller sets the limit.
/// # Errors
/// It is none, of another version, or the process is gone.
pub async fn read(process: &mut UnixStream) -> Result<Greeted, ChannelError> {
    let peer = connect::peer_of(&*process)?;
    let mut bytes = [0; HELLO_BYTES];
    process.read_exact(&mut bytes).await.map_err(|_| ChannelError::PeerGone(peer))?;
    let theirs = Hello::parse(&bytes, peer)?;
    // The proxy accepts exactly this application or refuses: so it is also ours.
    let ours = Hello::new(region().record_limit, theirs.application);
    let agreed = ours.meet(&theirs, peer)?;
    let knows_kept = agreed.minor >= KEPT_SINCE_MINOR;
    Ok(Greeted { peer, wire_hash: agreed.peer_application, knows_kept, ours })
}

impl Greeted {
    /// Gives the process its end of the channel.
    /// # Errors
    /// It is gone.
    pub fn answer(&self, process: impl AsFd, end: &ProgramEnd) -> io::Result<()> {
        connect::answer(process, self.peer, &self.ours, &region(), end).map_err(io::Error::other)
    }

    /// Answers a process that asked.
    /// # Errors
    /// It is gone.
    pub fn tell(&self, process: impl AsFd, told: &[u8]) -> io::Result<()> {
        connect::tell(process, self.peer, &self.ours, told).map_err(io::Error::other)
    }

    /// Tells the process why not.
    /// # Errors
    /// It is gone.
    pub fn refuse(&self, process: impl AsFd, code: u16) -> io::Result<()> {
        connect::refuse(process, self.peer, &self.ours, code).map_err(io::Error::other)
    }

    /// The process's pid in the guest, a label for people.
    pub fn pid(&self) -> u32 {
        match self.peer {
            Peer::Process(pid) => u32::try_from(pid).unwrap_or(0),
            _ => 0,
        }
    }
}
