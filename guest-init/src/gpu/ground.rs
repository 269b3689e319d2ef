//! What a channel is made of on the guest's side: pages that the proxy's domain may map, and a port to it.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
};

use idm::{
    arena::Arena,
    record::{RegionSpec, make_region},
    xen::{DomId, chunks::GrantedChunks, dmabuf::GrantedMemfd, evtchn::EventChannel},
};

use crate::error::{During, Result};

/// Makes the ground of a channel.
pub trait Ground: Send + Sync {
    /// The memory of a channel of these sizes, and a port.
    /// # Errors
    /// Grants, memory or ports are used up.
    fn make(&self, spec: &RegionSpec) -> Result<Box<dyn Plot>>;
}

/// The ground of one channel. Dropped, the pages are the guest's again: only after the proxy has let go of them.
pub trait Plot: Send + Sync {
    /// The pages, for the process.
    fn memory(&self) -> BorrowedFd<'_>;
    /// What the proxy maps.
    fn refs(&self) -> Vec<u32>;
    /// What the proxy binds to.
    fn port(&self) -> u32;
    /// Rings the proxy.
    /// # Errors
    /// The port is gone.
    fn ring(&self) -> io::Result<()>;
    /// A descriptor of its own that is readable when the proxy rang.
    /// # Errors
    /// Descriptors are used up.
    fn bell(&self) -> io::Result<File>;
    /// Takes the ring and lets the next one in. Never waits.
    /// # Errors
    /// The port is gone.
    fn answer(&self) -> io::Result<()>;
    /// An arena of at most so many bytes beside the channel, and what grants it.
    /// # Errors
    /// Descriptors are used up.
    fn arena(&self, bytes: u64) -> io::Result<(Arena, Box<dyn Chunks>)>;
}

/// An arena that the proxy maps chunk by chunk. Dropped, its pages are the guest's again: only after the proxy has let go of them.
pub trait Chunks: Send {
    /// Grants a chunk, by its number; again is the same. What of it nobody has touched takes memory now.
    /// # Errors
    /// There is no such chunk, no memory, or grants are used up.
    fn grant(&mut self, chunk: u32) -> io::Result<Vec<u32>>;
}

/// Ground between this domain and the driver domain.
#[derive(Clone, Copy, Debug)]
pub struct XenGround {
    /// Who may map and bind.
    pub driver_domain: DomId,
}

#[derive(Debug)]
struct XenPlot {
    to: DomId,
    memory: GrantedMemfd,
    channel: EventChannel,
}

impl Ground for XenGround {
    fn make(&self, spec: &RegionSpec) -> Result<Box<dyn Plot>> {
        let to = self.driver_domain;
        let bytes = spec.region_bytes().map_err(io::Error::other).during(|| "size a channel".into())?;
        let memory =
            make_region(spec).map_err(io::Error::other).during(|| "make a channel's memory".into())?;
        let memory = GrantedMemfd::of_memfd(to, memory, bytes)
            .map_err(io::Error::other)
            .during(|| format!("grant {bytes} bytes to {to}"))?;
        let channel =
            EventChannel::offer(to).map_err(io::Error::other).during(|| format!("offer a port to {to}"))?;
        Ok(Box::new(XenPlot { to, memory, channel }))
    }
}

impl Plot for XenPlot {
    fn memory(&self) -> BorrowedFd<'_> {
        self.memory.memfd()
    }

    fn refs(&self) -> Vec<u32> {
        self.memory.refs().iter().map(|reference| reference.0).collect()
    }

    fn port(&self) -> u32 {
        self.channel.port()
    }

    fn ring(&self) -> io::Result<()> {
        self.channel.notify()
    }

    fn bell(&self) -> io::Result<File> {
        Ok(File::from(rustix::io::fcntl_dupfd_cloexec(self.channel.as_fd(), 0)?))
    }

    fn answer(&self) -> io::Result<()> {
        self.channel.take()?;
        self.channel.rearm()
    }

    fn arena(&self, bytes: u64) -> io::Result<(Arena, Box<dyn Chunks>)> {
        let arena = Arena::make_kept(bytes).map_err(io::Error::other)?;
        let memory = arena.memory().try_clone()?;
        let chunks = GrantedChunks::new(self.to, memory, arena.bytes()).map_err(io::Error::other)?;
        Ok((arena, Box::new(chunks)))
    }
}

impl Chunks for GrantedChunks {
    fn grant(&mut self, chunk: u32) -> io::Result<Vec<u32>> {
        let refs = Self::grant(self, chunk).map_err(io::Error::other)?;
        Ok(refs.iter().map(|reference| reference.0).collect())
    }
}
