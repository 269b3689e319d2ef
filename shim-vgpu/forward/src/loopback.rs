//! The listeners that get what is dialled at a namespace's loopback.
//!
//! Held by their descriptors alone: with the last of them, however its process ends, the namespace is as it was.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::Arc,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use vgpu_netlink::{
    Namespace,
    bpf::{self, Hook, Map, MapKind},
};

use crate::program;

/// Connections that nobody has accepted: the kernel asks who dials again a second later.
const WAITING: i32 = 64;
/// Sockets whose connections are not ours, at once.
const PAST: u32 = 1024;

/// One address of a namespace's loopback. What is dialled there, at any port, comes to [`Loopback::listener`], whose connections know by
/// their local address which.
#[derive(Debug)]
pub struct Loopback {
    ip: IpAddr,
    past: Map,
    // The kernel's first: what is dialled while the others go is refused, and does not hang.
    _link: OwnedFd,
    listener: TcpListener,
    namespace: Namespace,
}

/// A socket in the namespace, not connected yet, whose connection is not for us but for who really listens there.
#[derive(Debug)]
pub struct Past {
    loopback: Arc<Loopback>,
    port: u16,
}

impl Loopback {
    /// Both families', or the only one that the namespace has.
    /// # Errors
    /// Neither is there; the kernel has no BPF for this (before 5.17), or this process may not use it.
    pub fn both(namespace: &Namespace) -> io::Result<Vec<Self>> {
        let ips: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let mut missing = None;
        let mut found = Vec::new();
        for ip in ips {
            match namespace.enter(|| socket(ip))? {
                Ok(socket) => found.push(Self::begin(ip, socket, namespace.try_clone()?)?),
                Err(error) => missing = Some(error),
            }
        }
        match missing {
            Some(error) if found.is_empty() => Err(error),
            _ => Ok(found),
        }
    }

    fn begin(ip: IpAddr, socket: OwnedFd, namespace: Namespace) -> io::Result<Self> {
        rustix::net::listen(&socket, WAITING)?;
        let (listener, past) = (Map::new(MapKind::Sockets, 1)?, Map::new(MapKind::Hash, PAST)?);
        listener.put(0, u32::try_from(socket.as_raw_fd()).map_err(io::Error::other)?)?;
        let (hook, name) = (Hook::SOCKET_LOOKUP, *b"vgpu_forward\0\0\0\0");
        let program = bpf::load(hook, name, &program::chooses(ip, &listener, &past))?;
        let link = bpf::attach(hook, program.as_fd(), bpf::number(namespace.as_fd())?)?;
        Ok(Loopback { ip, past, _link: link, listener: socket.into(), namespace })
    }

    /// Gets the connections. It does not block.
    pub fn listener(&self) -> &TcpListener {
        &self.listener
    }

    /// A socket as [`Past`] says, which does not block; it is to connect while that is held. Blocks for as long as a thread takes to begin.
    /// # Errors
    /// The namespace has no more ports.
    pub fn past(self: &Arc<Self>) -> io::Result<(TcpStream, Past)> {
        let socket = TcpStream::from(self.namespace.enter(|| socket(self.ip)).flatten()?);
        let port = socket.local_addr()?.port();
        self.past.put(key(port), 0)?;
        Ok((socket, Past { loopback: Arc::clone(self), port }))
    }
}

impl Drop for Past {
    fn drop(&mut self) {
        // It was put in.
        let _ = self.loopback.past.remove(key(self.port));
    }
}

/// As the program loads it: in the packet's order.
fn key(port: u16) -> u32 {
    port.to_be().into()
}

/// Bound in this thread's network namespace, to a port of the kernel's choice.
fn socket(ip: IpAddr) -> io::Result<OwnedFd> {
    let family = if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddr::new(ip, 0))?;
    Ok(socket)
}

#[cfg(test)]
mod tests;
