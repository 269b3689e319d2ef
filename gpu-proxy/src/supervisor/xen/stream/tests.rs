//! The stream's protocol without Xen: workers that are only watched.

mod flood;

use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::time::Duration;

use idm::arena::CHUNK_PAGES;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::io::DuplexStream;
use uuid::Uuid;
use vgpu_zone_api::guest::REFS_MAX;
use vgpu_zone_api::guest::facts::DeviceFacts;
use vgpu_zone_api::shim::ZoneId;

use super::*;
use crate::supervisor::pace::BIRTHS_AT_ONCE;
use crate::supervisor::xen::arena::Pages;
use crate::worker::chunks::{Answer, Need};

/// Starts every channel but those of container "none". The last worker's end is the test's to cause.
#[derive(Default)]
struct Fakes {
    started: Mutex<Vec<watch::Sender<bool>>>,
    /// The worker's end of each arena: channels of container "arena" have one.
    arenas: Mutex<Vec<OwnedFd>>,
    /// Told when nothing of one is recorded any more.
    ended: Arc<Mutex<u32>>,
}

/// Records whatever it is given, at 77.
struct Recorder(Arc<Mutex<u32>>);

impl Pages for Recorder {
    fn take(&self) -> Result<(), Refusal> {
        Ok(())
    }
    fn give(&self) {}
    fn record(&self, _: Vec<u32>) -> Result<u64, String> {
        Ok(77)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        *self.0.lock().unwrap() += 1;
    }
}

struct Fake {
    end: watch::Sender<bool>,
    ended: watch::Receiver<bool>,
}

impl Worker for Fake {
    fn kill(&self) {
        self.end.send_replace(true);
    }
    async fn ended(&mut self) {
        let _ = self.ended.wait_for(|ended| *ended).await;
    }
}

impl Channels for Fakes {
    type Worker = Fake;

    async fn start(&self, connect: Connect) -> Result<(Fake, Option<GuestArena>), Refusal> {
        if connect.container.as_str() == "none" {
            return Err(Refusal::new(Code::NotGranted, "no"));
        }
        let (end, ended) = watch::channel(false);
        self.started.lock().unwrap().push(end.clone());
        let arena = (connect.container.as_str() == "arena").then(|| {
            let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
            let (near, far) = pair.unwrap();
            self.arenas.lock().unwrap().push(far);
            GuestArena::new(4 << 20, near, Arc::new(Recorder(Arc::clone(&self.ended))))
        });
        Ok((Fake { end, ended }, arena))
    }

    /// A device, of the container's name; container "never" is not answered.
    async fn facts(&self, container: ContainerId) -> Result<Facts, Refusal> {
        match container.as_str() {
            "none" => Err(Refusal::new(Code::NotGranted, "no")),
            "never" => std::future::pending().await,
            name => {
                let device = DeviceFacts { name: name.into(), ..DeviceFacts::default() };
                Ok(Facts { devices: vec![device], ..Facts::default() })
            }
        }
    }
}

struct Guest {
    stream: DuplexStream,
    frames: Frames<ToGuest>,
}

impl Guest {
    async fn say(&mut self, message: ToProxy) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.stream.write_all(&bytes).await.unwrap();
    }

    async fn connect(&mut self, channel: u32, container: &str) -> ChannelId {
        self.connect_with(channel, container, usize::try_from(channel_pages()).unwrap()).await
    }

    async fn connect_with(&mut self, channel: u32, container: &str, pages: usize) -> ChannelId {
        let channel = ChannelId::new(channel).unwrap();
        let container = ContainerId::new(container).unwrap();
        let connect = Connect { channel, container, pid: 7, wire_hash: 1, port: 2, refs: vec![3; pages] };
        self.say(ToProxy::Connect(connect)).await;
        channel
    }

    async fn ask(&mut self, question: u32, container: &str) -> ChannelId {
        let (question, container) = (ChannelId::new(question).unwrap(), ContainerId::new(container).unwrap());
        self.say(ToProxy::Ask { question, container }).await;
        question
    }

    async fn hear(&mut self) -> ToGuest {
        loop {
            if let Some(message) = self.frames.next().unwrap() {
                return message;
            }
            let mut bytes = [0; 64];
            let count = self.stream.read(&mut bytes).await.unwrap();
            assert!(count > 0, "the stream ended");
            self.frames.push(&bytes[..count]);
        }
    }
}

fn bounds() -> Arc<Bounds> {
    let log = Arc::new(ZoneLog::new(ZoneId(Uuid::from_u128(1))));
    Arc::new(Bounds::new(log))
}

fn stream() -> (Guest, Arc<Fakes>, tokio::task::JoinHandle<Result<(), String>>) {
    stream_of(4096)
}

/// A stream that holds so many bytes each way.
fn stream_of(bytes: usize) -> (Guest, Arc<Fakes>, tokio::task::JoinHandle<Result<(), String>>) {
    let (near, far) = tokio::io::duplex(bytes);
    let fakes = Arc::new(Fakes::default());
    let served = tokio::spawn(messages(near, Arc::clone(&fakes), bounds()));
    (Guest { stream: far, frames: Frames::default() }, fakes, served)
}

#[tokio::test]
async fn questions_are_answered_or_refused_and_start_nothing() {
    let (mut guest, fakes, _served) = stream();
    for (number, container, code) in [(1, "c", 0), (1, "none", 403), (2, "d", 0)] {
        let question = guest.ask(number, container).await;
        let ToGuest::Told { question: answered, code: told, answer } = guest.hear().await else {
            panic!("no answer")
        };
        assert_eq!((answered, told), (question, code));
        if code == 0 {
            assert_eq!(Facts::decode(&answer).unwrap().devices[0].name, container);
        } else {
            assert!(answer.is_empty());
        }
    }
    assert!(fakes.started.lock().unwrap().is_empty());
}

#[tokio::test]
async fn questions_that_wait_keep_no_channel_waiting_and_are_bounded() {
    let (mut guest, _fakes, served) = stream();
    for number in 1..=32 {
        guest.ask(number, "never").await;
    }
    let question = guest.ask(33, "c").await;
    assert_eq!(guest.hear().await, ToGuest::Told { question, code: 404, answer: Vec::new() });
    let channel = guest.connect(5, "c").await;
    assert_eq!(guest.hear().await, ToGuest::Accepted { channel, arena_mib: 0 });
    guest.say(ToProxy::Close { channel }).await;
    assert_eq!(guest.hear().await, ToGuest::Unmapped { channel });
    // Who ends its stream waits for no answer.
    drop(guest);
    assert_eq!(served.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_channel_is_accepted_closed_unmapped_and_its_number_used_again() {
    let (mut guest, fakes, _served) = stream();
    for _ in 0..3 {
        let channel = guest.connect(5, "c").await;
        assert_eq!(guest.hear().await, ToGuest::Accepted { channel, arena_mib: 0 });
        guest.say(ToProxy::Close { channel }).await;
        assert_eq!(guest.hear().await, ToGuest::Unmapped { channel });
    }
    assert_eq!(fakes.started.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_worker_that_dies_is_told_before_its_pages_are_free() {
    let (mut guest, fakes, _served) = stream();
    let channel = guest.connect(1, "c").await;
    assert_eq!(guest.hear().await, ToGuest::Accepted { channel, arena_mib: 0 });
    fakes.started.lock().unwrap()[0].send_replace(true);
    assert_eq!(guest.hear().await, ToGuest::Died { channel, code: 406 });
    assert_eq!(guest.hear().await, ToGuest::Unmapped { channel });
}

#[tokio::test]
async fn a_refusal_says_its_code_and_hurts_nobody() {
    let (mut guest, _fakes, _served) = stream();
    let channel = guest.connect(1, "none").await;
    assert_eq!(guest.hear().await, ToGuest::Refused { channel, code: 403 });
    let channel = guest.connect(1, "c").await;
    assert_eq!(guest.hear().await, ToGuest::Accepted { channel, arena_mib: 0 });
}

#[tokio::test]
async fn references_that_are_no_region_are_refused_before_they_wait() {
    let (mut guest, fakes, _served) = stream();
    let pages = usize::try_from(channel_pages()).unwrap();
    // More than may be born at once: none of them takes a turn.
    for number in 1..=BIRTHS_AT_ONCE * 2 {
        let pages = [1, pages - 1, pages + 1, REFS_MAX][number as usize % 4];
        let channel = guest.connect_with(number, "c", pages).await;
        assert_eq!(guest.hear().await, ToGuest::Refused { channel, code: Code::ProtocolBroken as u32 });
    }
    assert!(fakes.started.lock().unwrap().is_empty());
    let channel = guest.connect(1, "c").await;
    assert_eq!(guest.hear().await, ToGuest::Accepted { channel, arena_mib: 0 });
}

#[tokio::test]
async fn the_end_of_the_stream_and_a_broken_message_end_every_worker() {
    for broken in [false, true] {
        let (mut guest, fakes, served) = stream();
        for number in 1..=3 {
            guest.connect(number, "c").await;
            guest.hear().await;
        }
        if broken {
            guest.stream.write_all(&[0xff; 8]).await.unwrap();
        } else {
            drop(guest);
        }
        assert_eq!(served.await.unwrap().is_err(), broken);
        assert!(fakes.started.lock().unwrap().iter().all(|end| *end.borrow()));
    }
}

#[tokio::test]
async fn a_number_that_is_in_use_breaks_the_protocol() {
    let (mut guest, _fakes, served) = stream();
    guest.connect(1, "c").await;
    guest.hear().await;
    guest.connect(1, "c").await;
    assert!(served.await.unwrap().unwrap_err().contains("twice"));
}

/// The worker's side of the only arena: needs a chunk.
fn needs(fakes: &Fakes, chunk: u32) {
    let arenas = fakes.arenas.lock().unwrap();
    rustix::io::write(&arenas[0], &Need(chunk).encode()).unwrap();
}

#[tokio::test]
async fn chunks_are_wanted_of_the_guest_and_unmapped_comes_after_all_of_them_are_let_go() {
    let (mut guest, fakes, _served) = stream();
    let channel = guest.connect(1, "arena").await;
    assert_eq!(guest.hear().await, ToGuest::Accepted { channel, arena_mib: 4 });
    // Nobody asked for it, of a channel that is there and of one that is not; more of it than is kept.
    let nobody = ChannelId::new(9).unwrap();
    for chunk in 0..20 {
        guest.say(ToProxy::Chunk { channel, chunk, refs: vec![3; CHUNK_PAGES] }).await;
        guest.say(ToProxy::Lack { channel: nobody, chunk }).await;
    }
    needs(&fakes, 1);
    assert_eq!(guest.hear().await, ToGuest::Want { channel, chunk: 1 });
    guest.say(ToProxy::Chunk { channel, chunk: 1, refs: vec![3; CHUNK_PAGES] }).await;
    let told = || {
        let mut bytes = [0; Answer::BYTES];
        let count = rustix::io::read(&fakes.arenas.lock().unwrap()[0], &mut bytes).unwrap();
        assert_eq!(count, Answer::BYTES);
        Answer::decode(bytes)
    };
    // While the stream's task runs.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(told(), Answer { chunk: 1, index: Some(77) });
    assert_eq!(*fakes.ended.lock().unwrap(), 0);

    guest.say(ToProxy::Close { channel }).await;
    assert_eq!(guest.hear().await, ToGuest::Unmapped { channel });
    assert_eq!(*fakes.ended.lock().unwrap(), 1, "it is told before");
}

#[tokio::test]
async fn a_worker_that_dies_while_its_chunk_is_wanted_ends_its_channel() {
    let (mut guest, fakes, _served) = stream();
    let channel = guest.connect(1, "arena").await;
    assert_eq!(guest.hear().await, ToGuest::Accepted { channel, arena_mib: 4 });
    needs(&fakes, 0);
    assert_eq!(guest.hear().await, ToGuest::Want { channel, chunk: 0 });
    fakes.started.lock().unwrap()[0].send_replace(true);
    assert!(matches!(guest.hear().await, ToGuest::Died { .. }));
    assert_eq!(guest.hear().await, ToGuest::Unmapped { channel });
    assert_eq!(*fakes.ended.lock().unwrap(), 1);
    // And the number is the guest's again.
    guest.say(ToProxy::Chunk { channel, chunk: 0, refs: vec![3; CHUNK_PAGES] }).await;
    guest.connect(1, "arena").await;
    assert_eq!(guest.hear().await, ToGuest::Accepted { channel, arena_mib: 4 });
}
