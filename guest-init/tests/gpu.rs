//! Stories of GPU processes in a container: idm's own client at the socket, a proxy at the other end of the GPU stream that maps the same
//! memory. Only the domain's border is missing: pages are a memfd here, ports eventfds.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use guest_init::{
    gpu::{
        door::Doors,
        ground::{Chunks, Ground, Plot},
        proxy::Proxy,
    },
    task::container::{GpuDoors, OpenDoor},
};
use idm::{
    ChannelError, Doorbell, Peer, Region, Waiter,
    arena::{Arena, CHUNK_PAGES, KEPT_SINCE_MINOR},
    connect::Connected,
    doorbell::eventfd_pair,
    hello::Hello,
    record::{ChannelParts, Consumer, Ready, RegionSpec, Submitter, make_region},
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use vgpu_zone_api::guest::{
    ChannelId, Connect, Frames, Message, ToGuest, ToProxy,
    facts::{self, Facts, ProcessFacts},
    wire,
};

const LONG: Duration = Duration::from_secs(20);
const WIRE_HASH: u64 = 0xc0da;

/// What the proxy's domain has of one plot.
#[derive(Debug)]
struct Far {
    memory: OwnedFd,
    rings: OwnedFd,
    hears: OwnedFd,
}

#[derive(Default)]
struct FakeGround {
    far: Mutex<Vec<Far>>,
    plots: Arc<AtomicUsize>,
    /// Arenas that are not dropped.
    arenas: Arc<AtomicUsize>,
}

struct FakePlot {
    memory: OwnedFd,
    rings: OwnedFd,
    bell: OwnedFd,
    plots: Arc<AtomicUsize>,
    arenas: Arc<AtomicUsize>,
}

/// Chunks of which there are grants for two.
struct FakeChunks {
    granted: Vec<u32>,
    arenas: Arc<AtomicUsize>,
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
struct World {
    socket: PathBuf,
    stream: DuplexStream,
    frames: Frames<ToProxy>,
    ground: Arc<FakeGround>,
    door: Option<OpenDoor>,
    _directory: TempDir,
}

impl World {
    async fn new() -> Self {
        Self::with_minor(wire::MINOR).await
    }

    /// A proxy that knows no more than this.
    async fn with_minor(minor: u16) -> Self {
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
    fn program<T: Send + 'static>(
        &self,
        then: impl FnOnce(Result<Submitter, ChannelError>) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        self.program_of(Hello::new(64 << 10, WIRE_HASH), |connected| {
            then(connected.map(|connected| connected.submitter))
        })
    }

    /// One that says this hello, with all that it was handed.
    fn program_of<T: Send + 'static>(
        &self,
        hello: Hello,
        then: impl FnOnce(Result<Connected, ChannelError>) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let socket = self.socket.clone();
        thread::spawn(move || then(idm::connect::connect(&socket, &hello, LONG)))
    }

    /// A program in the container that only asks.
    fn asker(&self) -> JoinHandle<Result<Facts, ChannelError>> {
        let socket = self.socket.clone();
        thread::spawn(move || {
            let hello = Hello::new(64 << 10, facts::APPLICATION);
            let told = idm::connect::ask(&socket, &hello, facts::BYTES_MAX, LONG);
            told.map(|(bytes, _)| Facts::decode(&bytes).unwrap())
        })
    }

    async fn asked(&mut self) -> ChannelId {
        match self.heard().await {
            ToProxy::Ask { question, container } => {
                assert_eq!(container.as_str(), "c1");
                question
            }
            other => panic!("no question: {other:?}"),
        }
    }

    async fn heard(&mut self) -> ToProxy {
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

    async fn connected(&mut self) -> Connect {
        match self.heard().await {
            ToProxy::Connect(connect) => connect,
            other => panic!("no connect: {other:?}"),
        }
    }

    async fn say(&mut self, message: ToGuest) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// The worker of the plot that was made last.
    fn worker(&self) -> Consumer {
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

    async fn wait_for_plots(&self, count: usize) {
        let end = Instant::now() + LONG;
        while self.ground.plots.load(Ordering::SeqCst) != count {
            assert!(Instant::now() < end, "{} plots", self.ground.plots.load(Ordering::SeqCst));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Answers one call with the sum of its bytes.
fn serve_one(mut worker: Consumer) -> JoinHandle<Consumer> {
    thread::spawn(move || {
        assert_eq!(worker.wait(Some(LONG)).unwrap(), Ready::Record);
        let record = worker.next().unwrap().unwrap();
        let sum = record.payload.iter().map(|byte| u32::from(*byte)).sum();
        let (lane, seq) = (record.lane.unwrap(), record.seq);
        worker.replies().reply(lane, seq, sum, b"").unwrap();
        worker
    })
}

/// Answers calls until their process ends, each as [`serve_one`] does. How many there were.
fn serve_all(mut worker: Consumer) -> JoinHandle<u32> {
    thread::spawn(move || {
        let mut calls = 0;
        while worker.wait(Some(LONG)) == Ok(Ready::Record) {
            while let Some(record) = worker.next().unwrap() {
                let sum = record.payload.iter().map(|byte| u32::from(*byte)).sum();
                let (lane, seq) = (record.lane.unwrap(), record.seq);
                worker.replies().reply(lane, seq, sum, b"").unwrap();
                calls += 1;
            }
        }
        calls
    })
}

fn call(submitter: &Submitter) -> Result<u32, ChannelError> {
    submitter.call(1, 0, &[1, 2, 3], &mut [0; 16], Some(LONG)).map(|reply| reply.status)
}

#[tokio::test]
async fn a_call_crosses_and_the_pages_stay_until_the_proxy_let_go() {
    let mut world = World::new().await;
    let program = world.program(|connected| {
        let submitter = connected.unwrap();
        // Parked, not polling: the rings have to cross both ways.
        thread::sleep(Duration::from_millis(50));
        call(&submitter)
    });
    let connect = world.connected().await;
    assert_eq!((connect.container.as_str(), connect.wire_hash), ("c1", WIRE_HASH));
    assert_eq!((connect.pid, connect.port, connect.refs), (std::process::id(), 7, vec![8, 9]));
    let worker = serve_one(world.worker());
    world.say(ToGuest::Accepted { channel: connect.channel, arena_mib: 0 }).await;

    // The program ends after its call: the guest says so.
    assert_eq!(world.heard().await, ToProxy::Close { channel: connect.channel });
    assert_eq!(program.join().unwrap(), Ok(6));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(world.ground.plots.load(Ordering::SeqCst), 1, "the proxy has not let go yet");
    drop(worker.join().unwrap());
    world.say(ToGuest::Unmapped { channel: connect.channel }).await;
    world.wait_for_plots(0).await;
}

/// A process can call, and its worker answer, before this side's tasks for it run.
#[tokio::test]
async fn a_ring_that_comes_before_anybody_listens_reaches_the_program() {
    let mut world = World::new().await;
    let program = world.program(|connected| {
        let submitter = connected.unwrap();
        let unanswered = submitter.call(1, 0, &[], &mut [0; 16], Some(Duration::from_millis(500)));
        (unanswered.is_err(), submitter.sleeps())
    });
    let channel = world.connected().await.channel;
    let far = world.ground.far.lock().unwrap().pop().unwrap();
    rustix::io::write(&far.rings, &1_u64.to_ne_bytes()).unwrap();
    world.say(ToGuest::Accepted { channel, arena_mib: 0 }).await;
    assert_eq!(world.heard().await, ToProxy::Close { channel });
    assert_eq!(program.join().unwrap(), (true, 2), "once until it was rung, once more until its limit");
    world.say(ToGuest::Unmapped { channel }).await;
    world.wait_for_plots(0).await;
}

/// One after the other, as the children of a test program; each is rung for each of its calls.
#[tokio::test]
async fn no_call_of_many_processes_is_left_asleep() {
    const PROCESSES: u32 = 60;
    const CALLS: u32 = 20;
    let mut world = World::new().await;
    for _ in 0..PROCESSES {
        let program = world.program(|connected| {
            let submitter = connected.unwrap();
            (0..CALLS).all(|_| call(&submitter) == Ok(6))
        });
        let channel = world.connected().await.channel;
        let worker = serve_all(world.worker());
        world.say(ToGuest::Accepted { channel, arena_mib: 0 }).await;
        assert_eq!(world.heard().await, ToProxy::Close { channel });
        assert!(program.join().unwrap(), "a call was not answered");
        assert_eq!(worker.join().unwrap(), CALLS);
        world.say(ToGuest::Unmapped { channel }).await;
    }
    world.wait_for_plots(0).await;
}

#[tokio::test]
async fn a_refusal_reaches_the_program_with_its_code() {
    let mut world = World::new().await;
    let program = world.program(|connected| connected.map(drop));
    let channel = world.connected().await.channel;
    world.say(ToGuest::Refused { channel, code: 403 }).await;
    world.wait_for_plots(0).await;
    assert_eq!(program.join().unwrap(), Err(ChannelError::Refused { peer: Peer::Server, code: 403 }));
}

/// Refused with this code.
fn refused(code: u16) -> Result<Facts, ChannelError> {
    Err(ChannelError::Refused { peer: Peer::Server, code })
}

#[tokio::test]
async fn a_question_is_answered_without_a_page_and_with_the_pids_that_the_process_knows() {
    let mut world = World::new().await;
    let asker = world.asker();
    let question = world.asked().await;
    // This test's process is the only one that it can see; PID 2 of a machine is a kernel's thread, if anybody's.
    let seen = std::process::id();
    let process = |pid| ProcessFacts { device: 0, pid, used_bytes: 5 };
    let facts =
        Facts { cuda_version: 13000, processes: vec![process(seen), process(u32::MAX)], ..Facts::default() };
    world.say(ToGuest::Told { question, code: 0, answer: facts.encode() }).await;
    let told = tokio::task::spawn_blocking(move || asker.join().unwrap()).await.unwrap().unwrap();
    assert_eq!((told.cuda_version, told.processes.len()), (13000, 1));
    assert_eq!(told.processes[0].used_bytes, 5);
    assert_eq!(world.ground.plots.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_question_is_refused_with_the_proxys_code_or_by_an_older_proxy() {
    let mut world = World::new().await;
    let asker = world.asker();
    let question = world.asked().await;
    world.say(ToGuest::Told { question, code: 403, answer: Vec::new() }).await;
    let told = tokio::task::spawn_blocking(move || asker.join().unwrap());
    assert_eq!(told.await.unwrap(), refused(403));

    // It would take the question for a broken stream.
    let world = World::with_minor(wire::MINOR_ASK - 1).await;
    let asker = world.asker();
    let told = tokio::task::spawn_blocking(move || asker.join().unwrap());
    assert_eq!(told.await.unwrap(), refused(501));
}

#[tokio::test]
async fn a_question_whose_proxy_dies_is_refused_and_one_whose_process_dies_is_forgotten() {
    let mut world = World::new().await;
    let mut gone = tokio::net::UnixStream::connect(&world.socket).await.unwrap();
    gone.write_all(&Hello::new(64 << 10, facts::APPLICATION).encode()).await.unwrap();
    let first = world.asked().await;
    drop(gone);
    let asker = world.asker();
    let second = world.asked().await;
    assert_ne!(first, second);
    world.say(ToGuest::Told { question: first, code: 0, answer: Facts::default().encode() }).await;
    world.stream.shutdown().await.unwrap();
    let told = tokio::task::spawn_blocking(move || asker.join().unwrap());
    assert_eq!(told.await.unwrap(), refused(401));
}

#[tokio::test]
async fn a_worker_that_dies_is_an_error_for_the_program_and_not_a_hang() {
    let mut world = World::new().await;
    let program = world.program(|connected| call(&connected.unwrap()));
    let channel = world.connected().await.channel;
    world.say(ToGuest::Accepted { channel, arena_mib: 0 }).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.say(ToGuest::Died { channel, code: 406 }).await;
    let began = Instant::now();
    while !program.is_finished() {
        assert!(began.elapsed() < Duration::from_secs(5), "the program hangs");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(program.join().unwrap(), Err(ChannelError::PeerGone(Peer::Server)));
    assert_eq!(world.ground.plots.load(Ordering::SeqCst), 1);
    world.say(ToGuest::Unmapped { channel }).await;
    world.wait_for_plots(0).await;
}

#[tokio::test]
async fn a_proxy_that_dies_ends_programs_but_not_what_its_workers_still_map() {
    let mut world = World::new().await;
    let program = world.program(|connected| call(&connected.unwrap()));
    let channel: ChannelId = world.connected().await.channel;
    let worker = world.worker();
    world.say(ToGuest::Accepted { channel, arena_mib: 0 }).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let World { stream, ground, .. } = &mut world;
    stream.shutdown().await.unwrap();
    let ground = Arc::clone(ground);
    let ended = tokio::task::spawn_blocking(move || program.join().unwrap());
    let ended =
        tokio::time::timeout(Duration::from_secs(5), ended).await.expect("the program hangs").unwrap();
    assert_eq!(ended, Err(ChannelError::PeerGone(Peer::Server)));

    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(ground.plots.load(Ordering::SeqCst), 1, "a worker still maps them");
    drop(worker);
    world.wait_for_plots(0).await;
}

#[tokio::test]
async fn a_door_that_is_closed_takes_nobody_in() {
    let mut world = World::new().await;
    drop(world.door.take());
    tokio::time::sleep(Duration::from_millis(20)).await;
    let program = world.program(|connected| connected.is_err());
    assert!(program.join().unwrap());
}

#[tokio::test]
async fn bytes_that_are_no_hello_are_turned_away() {
    let mut world = World::new().await;
    let mut stranger = tokio::net::UnixStream::connect(&world.socket).await.unwrap();
    stranger.write_all(&[0x47; 64]).await.unwrap();
    assert_eq!(stranger.read(&mut [0; 8]).await.unwrap_or(0), 0);
    // The door is still open for others.
    let program = world.program(|connected| connected.map(drop));
    let channel = world.connected().await.channel;
    world.say(ToGuest::Refused { channel, code: 404 }).await;
    assert!(tokio::task::spawn_blocking(move || program.join().unwrap().is_err()).await.unwrap());
}

/// Their pages are not counted against the container: only what the proxy accepted, and a few that it was asked for.
#[tokio::test]
async fn processes_that_the_proxy_has_not_judged_hold_few_pages() {
    let mut world = World::new().await;
    let programs: Vec<_> = (0..7).map(|_| world.program(|connected| connected.map(drop).is_ok())).collect();
    let mut asked = Vec::new();
    for _ in 0..4 {
        asked.push(world.connected().await.channel);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.ground.plots.load(Ordering::SeqCst), 4, "the others have none yet");

    // One that was judged, either way, makes room for the next.
    world.say(ToGuest::Refused { channel: asked[0], code: 404 }).await;
    asked.push(world.connected().await.channel);
    world.say(ToGuest::Accepted { channel: asked[1], arena_mib: 0 }).await;
    let (mut closed, mut next) = (false, None);
    while !closed || next.is_none() {
        match world.heard().await {
            ToProxy::Close { channel } => closed = channel == asked[1],
            ToProxy::Connect(connect) => next = Some(connect.channel),
            other => panic!("nobody asked: {other:?}"),
        }
    }
    // Its process is gone, and the proxy has not let go: accepted pages are the proxy's to count.
    assert_eq!(world.ground.plots.load(Ordering::SeqCst), 5);
    asked.push(next.unwrap());
    world.say(ToGuest::Unmapped { channel: asked[1] }).await;
    world.say(ToGuest::Refused { channel: asked[2], code: 404 }).await;
    asked.push(world.connected().await.channel);
    for channel in &asked[3..] {
        world.say(ToGuest::Refused { channel: *channel, code: 404 }).await;
    }
    world.wait_for_plots(0).await;
    let ended = tokio::task::spawn_blocking(|| {
        programs.into_iter().map(|program| program.join().unwrap()).filter(|ok| *ok).count()
    });
    assert_eq!(ended.await.unwrap(), 1);
}

/// A program that holds its arena until it is told to end; how long that is, and whether it is kept.
fn with_arena(world: &World, hello: Hello) -> (JoinHandle<Option<(u64, bool)>>, mpsc::Sender<()>) {
    let (end, ended) = mpsc::channel();
    let program = world.program_of(hello, move |connected| {
        let Connected { submitter, arena, .. } = connected.unwrap();
        let _ = ended.recv_timeout(LONG);
        drop(submitter);
        arena.map(|arena| (arena.bytes(), arena.is_kept()))
    });
    (program, end)
}

#[tokio::test]
async fn an_arena_is_handed_over_and_its_chunks_are_granted_until_the_proxy_let_go() {
    let mut world = World::new().await;
    let (program, end) = with_arena(&world, Hello::new(64 << 10, WIRE_HASH));
    let channel = world.connected().await.channel;
    // Before it is accepted a channel has none.
    world.say(ToGuest::Want { channel, chunk: 0 }).await;
    world.say(ToGuest::Accepted { channel, arena_mib: 9 }).await;
    for chunk in [1, 3, 1] {
        world.say(ToGuest::Want { channel, chunk }).await;
        let refs = vec![100 + chunk; CHUNK_PAGES];
        assert_eq!(world.heard().await, ToProxy::Chunk { channel, chunk, refs });
    }
    // No grant is left; what is granted stays, also when the program has ended.
    world.say(ToGuest::Want { channel, chunk: 2 }).await;
    assert_eq!(world.heard().await, ToProxy::Lack { channel, chunk: 2 });
    end.send(()).unwrap();
    assert_eq!(world.heard().await, ToProxy::Close { channel });
    assert_eq!(program.join().unwrap(), Some((8 << 20, true)), "whole chunks");
    world.say(ToGuest::Want { channel, chunk: 1 }).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(world.ground.arenas.load(Ordering::SeqCst), 1, "the proxy has not let go yet");
    world.say(ToGuest::Unmapped { channel }).await;
    world.wait_for_plots(0).await;
    assert_eq!(world.ground.arenas.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_program_that_does_not_know_kept_arenas_gets_none_and_nothing_is_granted() {
    let mut world = World::new().await;
    let old = Hello { minor: KEPT_SINCE_MINOR - 1, ..Hello::new(64 << 10, WIRE_HASH) };
    for (hello, arena_mib) in [(old, 9), (Hello::new(64 << 10, WIRE_HASH), 0)] {
        let (program, end) = with_arena(&world, hello);
        let channel = world.connected().await.channel;
        world.say(ToGuest::Accepted { channel, arena_mib }).await;
        world.say(ToGuest::Want { channel, chunk: 0 }).await;
        assert_eq!(world.heard().await, ToProxy::Lack { channel, chunk: 0 });
        end.send(()).unwrap();
        assert_eq!(world.heard().await, ToProxy::Close { channel });
        assert_eq!(program.join().unwrap(), None);
        world.say(ToGuest::Unmapped { channel }).await;
        world.wait_for_plots(0).await;
    }
}

#[tokio::test]
async fn chunks_stay_granted_while_a_worker_of_a_proxy_that_died_maps_them() {
    let mut world = World::new().await;
    let (program, end) = with_arena(&world, Hello::new(64 << 10, WIRE_HASH));
    let channel = world.connected().await.channel;
    let worker = world.worker();
    world.say(ToGuest::Accepted { channel, arena_mib: 4 }).await;
    world.say(ToGuest::Want { channel, chunk: 0 }).await;
    assert!(matches!(world.heard().await, ToProxy::Chunk { .. }));
    world.stream.shutdown().await.unwrap();
    end.send(()).unwrap();
    tokio::task::spawn_blocking(move || program.join().unwrap()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(world.ground.arenas.load(Ordering::SeqCst), 1, "a worker still maps them");
    drop(worker);
    world.wait_for_plots(0).await;
    assert_eq!(world.ground.arenas.load(Ordering::SeqCst), 0);
}
