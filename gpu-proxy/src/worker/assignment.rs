//! What the supervisor tells a new worker, and what the worker answers, over the socket that is the worker's descriptor 0: one message
//! each, or two of a worker that is started ahead of its guest process ([`ChannelKind::Ahead`], then a [`Turn`]). The peer is trusted (the supervisor made the worker; the worker has read nothing of a guest yet).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::canary::Found;
use super::sandbox::Gap;
use crate::device::{DeviceKind, Hardware};

/// The longest message, in bytes.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// The most descriptors with one message.
const FDS_MAX: usize = 24;

/// A worker's whole task. Descriptors travel beside it, in the order of [`ChannelKind`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The zone, for the log.
    pub zone: String,
    /// The container, for the log.
    pub container: String,
    /// The guest process as the log calls it: "pid 812" or "domain 5".
    pub peer: String,
    /// What to drive.
    pub device: DeviceKind,
    /// The memory of each soft device, or the limit of what a device may show, in bytes.
    pub device_bytes: u64,
    /// How many devices it drives: the first ones of those that it finds.
    pub devices: u32,
    /// The numbers of the nodes `/dev/nvidia…` that it may open; `None`: of all.
    pub nodes: Option<Vec<u32>>,
    /// The worker's slot in the pages of its grant.
    pub slot: usize,
    /// Whether there is a page of turns. Programs of an earlier wire get none: they may not know of it.
    #[serde(default)]
    pub turns: bool,
    /// Whether the worker has a mount namespace of its own.
    pub namespaces: bool,
    /// Whether it may exchange memory with others of its zone: then its socket for that comes after the pages.
    #[serde(default)]
    pub exchange: bool,
    /// Whether the supervisor mounts a place for what NVIDIA's driver compiles, when the worker serves.
    #[serde(default)]
    pub code: bool,
    /// How the channel's pages come.
    pub channel: ChannelKind,
    /// `debug`, `info`, …
    pub log_level: String,
}

/// The second message to a worker that waits: its guest process has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// The guest process as the log calls it.
    pub peer: String,
    /// How the channel's pages come, without the pages of the grant and without an arena, which the worker has.
    pub channel: ChannelKind,
}

/// How the channel's pages come. The first descriptors are always the pages of the grant, one a device, then comes that of turns, if there
/// is one, then the socket of [`Assignment::exchange`], if there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelKind {
    /// Then: the region's memfd, the eventfd to wait on, the eventfd to ring, and where there is an arena, its memfd.
    Local {
        /// The program.
        pid: i32,
        /// The arena's length; 0: there is none.
        #[serde(default)]
        arena_bytes: u64,
    },
    /// Not yet: the worker opens its device, and waits for a [`Turn`]. Then: where there is an arena that is not granted, its memfd.
    Ahead {
        /// The arena's length; 0: there is none.
        arena_bytes: u64,
        /// It is the guest's, and comes by chunks: its addresses are kept free.
        #[serde(default)]
        granted: bool,
    },
    /// No channel and no descriptor at all: the worker is nobody's, answers, and ends.
    None(Question),
    /// Then: a gntdev with the guest's pages recorded, and an event channel bound to the guest's port; where there is an arena, a gntdev
    /// of its own and a socket to the supervisor (`chunks.rs`).
    Xen {
        /// The guest.
        domid: u16,
        /// What gntdev recorded: offset to map at, and pages.
        parts: Vec<(u64, u32)>,
        /// The local end of the event channel.
        port: u32,
        /// The arena's length; 0: there is none.
        #[serde(default)]
        arena_bytes: u64,
    },
}

/// What a worker of nobody is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// What the device is.
    Describe,
    /// The first half of the canary (`worker/canary.rs`): fill memory with its mark.
    Fill,
    /// The second half: look for the mark.
    Search,
}

/// The worker's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The door is closed, the device open, the pages mapped: records are being served.
    Ready {
        /// What the sandbox lacks here.
        gaps: Vec<Gap>,
    },
    /// The device is open, and nothing of a guest was read: it waits for its turn.
    Waiting,
    /// What the device is. It ends now.
    Described {
        /// As `vgpu_api::Snapshot` has it, in the wire form.
        snapshot: Vec<u8>,
        /// See [`crate::device::Described`].
        reads_host_memory: bool,
        /// What they are beside that, in their order.
        hardware: Vec<Hardware>,
    },
    /// So many bytes of each device's memory hold the mark until it ends, which is now.
    Filled {
        /// How many.
        bytes: Vec<u64>,
    },
    /// What was found of it on each. It ends now.
    Searched(Vec<Found>),
    /// It ends now.
    Failed {
        /// Number of the `VGPU-nnn` code.
        code: u16,
        /// Why, for the log.
        text: String,
    },
}

/// Sends one message with descriptors.
///
/// # Errors
/// What the system says.
pub fn send<T: Serialize>(socket: impl AsFd, message: &T, fds: &[impl AsFd]) -> io::Result<()> {
    let json = serde_json::to_vec(message).map_err(io::Error::other)?;
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = rustix::net::sendmsg(socket, &[IoSlice::new(&json)], &mut control, SendFlags::NOSIGNAL)?;
    if sent == json.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Rings for the supervisor: the worker begins to have work. After its reports nothing else is said.
pub fn ring(socket: impl AsFd) {
    // A supervisor that is gone ends the worker anyhow.
    let _ = rustix::io::write(socket, &[0]);
}

/// Sends a worker's report. A plain write: behind the door there is no `sendmsg`.
///
/// # Errors
/// What the system says.
pub fn report(socket: impl AsFd, report: &Report) -> io::Result<()> {
    let json = serde_json::to_vec(report).map_err(io::Error::other)?;
    let sent = rustix::io::write(socket, &json)?;
    if sent == json.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Waits for one message and its descriptors.
///
/// # Errors
/// What the system says; `UnexpectedEof` when the other side is gone; `InvalidData` for what is no such message.
pub fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<(T, Vec<OwnedFd>)> {
    let mut bytes = vec![0; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let fds = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let message = serde_json::from_slice(&bytes[..received.bytes]).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok((message, fds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_and_its_descriptors_arrive_together() {
        let (ours, theirs) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let (_reader, writer) = rustix::pipe::pipe().unwrap();
        let ready = Report::Ready { gaps: vec!["none".into()] };
        send(&ours, &ready, &[&writer, &writer]).unwrap();
        let (got, fds) = receive::<Report>(&theirs).unwrap();
        assert_eq!((&got, fds.len()), (&ready, 2));
        report(&ours, &ready).unwrap();
        assert_eq!(receive::<Report>(&theirs).unwrap().0, ready);
        drop(ours);
        assert_eq!(receive::<Report>(&theirs).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
