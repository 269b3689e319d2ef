//! A door of guest-init without Xen, and the proxy at its far end.

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::{Mutex, atomic::AtomicUsize},
};

use guest_init::{
    gpu::{
        door::Doors,
        ground::{Chunks, Ground, Plot},
        proxy::Proxy,
    },
    task::gpu::{GpuDoors, OpenDoor},
};
use idm::{
    Doorbell, Region, Waiter,
    arena::{Arena, CHUNK_PAGES},
    connect::Connected,
    doorbell::eventfd_pair,
    hello::Hello,
    record::{ChannelParts, RegionSpec, make_region},
};
use tempfile::TempDir;
use tokio::io::DuplexStream;
use vgpu_zone_api::guest::{
    Frames, Message,
    facts::{self, Facts},
    wire,
};

use super::*;

/// What the proxy's domain has of one plot.
#[derive(Debug)]
pub struct Far {
    pub memory: OwnedFd,
    pub rings: OwnedFd,
    pub hears: OwnedFd,
}

#[derive(Default)]
pub struct FakeGround {
    pub far: Mutex<Vec<Far>>,
    pub plots: Arc<AtomicUsize>,
    /// Arenas that are not dropped.
    pub arenas: Arc<AtomicUsize>,
}

pub struct FakePlot {
    pub memory: OwnedFd,
    pub rings: OwnedFd,
    pub bell: OwnedFd,
    pub plots: Arc<AtomicUsize>,
    pub arenas: Arc<AtomicUsize>,
}

/// Chunks of which there are grants for two.
pub struct FakeChunks {
    pub granted: Vec<u32>,
    pub arenas: Arc<AtomicUsize>,
}

impl Chunks for FakeChunks {
    fn grant(&mut self, chunk: u32) -> io::Result<Vec<u32>> {
        if !self.granted.contains(&chunk) {
            if self.granted.len() == 2 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.granted.push(chunk);
        }
        Ok(vec![100 + chunk; CHUNK_PAGES])
    }
}

impl Drop for FakeChunks {
    fn drop(&mut self) {
        self.arenas.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Ground for FakeGround {
    fn make(&self, spec: &RegionSpec) -> guest_init::error::Result<Box<dyn Plot>> {
        let memory = make_region(spec).unwrap();
        let ((rings, far_hears), (far_rings, bell)) = (eventfd_pair().unwrap(), eventfd_pair().unwrap());
        let far = Far { memory: memory.try_clone().unwrap(), rings: far_rings, hears: far_hears };
        self.far.lock().unwrap().push(far);
        self.plots.fetch_add(1, Ordering::SeqCst);
        let (plots, arenas) = (Arc::clone(&self.plots), Arc::clone(&self.arenas));
        Ok(Box::new(FakePlot { memory, rings, bell, plots, arenas }))
    }
}

impl Plot for FakePlot {
    fn memory(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
    fn refs(&self) -> Vec<u32> {
        vec![8, 9]
    }
    fn port(&self) -> u32 {
        7
    }
    fn ring(&self) -> io::Result<()> {
        rustix::io::write(&self.rings, &1_u64.to_ne_bytes())?;
        Ok(())
    }
    fn bell(&self) -> io::Result<File> {
        Ok(self.bell.try_clone()?.into())
    }
    fn answer(&self) -> io::Result<()> {
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        Ok(())
    }
    fn arena(&self, bytes: u64) -> io::Result<(Arena, Box<dyn Chunks>)> {
        self.arenas.fetch_add(1, Ordering::SeqCst);
        let arenas = Arc::clone(&self.arenas);
        Ok((Arena::make_kept(bytes).unwrap(), Box::new(FakeChunks { granted: Vec::new(), arenas })))
    }
}

impl Drop for FakePlot {
    fn drop(&mut self) {
        self.plots.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A guest with one container, and its proxy.
pub struct World {
    pub socket: PathBuf,
    pub stream: DuplexStream,
    pub frames: Frames<ToProxy>,
    pub ground: Arc<FakeGround>,
    pub door: Option<OpenDoor>,
    pub _directory: TempDir,
}

impl World {
    pub async fn new() -> Self {
        Self::with_minor(wire::MINOR).await
    }

    /// A proxy that knows no more than this.
    pub async fn with_minor(minor: u16) -> Self {
        let directory = TempDir::new().unwrap();
        let ground = Arc::new(FakeGround::default());
        let proxy = Arc::new(Proxy::default());
        let (near, stream) = tokio::io::duplex(64 << 10);
        let serving = Arc::clone(&proxy);
        tokio::spawn(async move { serving.serve(near, minor).await });
        let doors = Doors { proxy, ground: Arc::clone(&ground) as _, libraries: directory.path().to_owned() };
        let door = doors.open("c1", directory.path(), directory.path()).unwrap();
        let (socket, inside) = door.binds.last().unwrap().clone();
        assert_eq!(inside, PathBuf::from("/run/vgpu/gpu.sock"));
        Self { socket, stream, frames: Frames::default(), ground, door: Some(door), _directory: directory }
    }

    /// A program in the container connects, on a thread of its own, and goes on with `then`.
    pub fn program<T: Send + 'static>(
        &self,
        then: impl FnOnce(Result<Submitter, ChannelError>) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        self.program_of(Hello::new(64 << 10, WIRE_HASH), |connected| {
            then(connected.map(|connected| connected.submitter))
        })
    }

    /// One that says this hello, with all that it was handed.
    pub fn program_of<T: Send + 'static>(
        &self,
        hello: Hello,
        then: impl FnOnce(Result<Connected, ChannelError>) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let socket = self.socket.clone();
        thread::spawn(move || then(idm::connect::connect(&socket, &hello, LONG)))
    }

    /// A program in the container that only asks.
    pub fn asker(&self) -> JoinHandle<Result<Facts, ChannelError>> {
        let socket = self.socket.clone();
        thread::spawn(move || {
            let hello = Hello::new(64 << 10, facts::APPLICATION);
            let told = idm::connect::ask(&socket, &hello, facts::BYTES_MAX, LONG);
            told.map(|(bytes, _)| Facts::decode(&bytes).unwrap())
        })
    }

    pub async fn asked(&mut self) -> ChannelId {
        match self.heard().await {
            ToProxy::Ask { question, container } => {
                assert_eq!(container.as_str(), "c1");
                question
            }
            other => panic!("no question: {other:?}"),
        }
    }

    pub async fn heard(&mut self) -> ToProxy {
        loop {
            if let Some(message) = self.frames.next().unwrap() {
                return message;
            }
            let mut bytes = [0; 4096];
            let count = tokio::time::timeout(LONG, self.stream.read(&mut bytes)).await.unwrap().unwrap();
            assert_ne!(count, 0, "the guest ended the stream");
            self.frames.push(&bytes[..count]);
        }
    }

    pub async fn connected(&mut self) -> Connect {
        match self.heard().await {
            ToProxy::Connect(connect) => connect,
            other => panic!("no connect: {other:?}"),
        }
    }

    pub async fn say(&mut self, message: ToGuest) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// The worker of the plot that was made last.
    pub fn worker(&self) -> Consumer {
        let Far { memory, rings, hears } = self.ground.far.lock().unwrap().pop().unwrap();
        let spec = wire::region();
        let region = Region::map(&memory, spec.region_bytes().unwrap()).unwrap();
        Consumer::from_parts(ChannelParts {
            region: Arc::new(region),
            spec,
            peer: Peer::Domain(5),
            waiter: Waiter::EventFd(hears),
            doorbell: Doorbell::EventFd(rings),
            liveness: None,
        })
        .unwrap()
    }

    pub async fn wait_for_plots(&self, count: usize) {
        let end = Instant::now() + LONG;
        while self.ground.plots.load(Ordering::SeqCst) != count {
            assert!(Instant::now() < end, "{} plots", self.ground.plots.load(Ordering::SeqCst));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
