//! A worker's arena without Xen: a socket for the worker, a queue for the guest, and a kernel that counts.

use std::sync::Mutex;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::task::JoinHandle;
use vgpu_codes::Code;

use super::*;

const CHUNKS: u32 = 4;
const INDEX: u64 = 0x7000;

#[derive(Default)]
struct Kernel {
    counted: Mutex<u32>,
    most: u32,
    recorded: Mutex<Vec<u64>>,
    /// Held while something is recorded.
    busy: Mutex<()>,
}

impl Pages for Kernel {
    fn take(&self) -> Result<(), Refusal> {
        let mut counted = self.counted.lock().unwrap();
        if *counted == self.most {
            return Err(Refusal::new(Code::LimitReached, "no more"));
        }
        *counted += 1;
        Ok(())
    }
    fn give(&self) {
        *self.counted.lock().unwrap() -= 1;
    }
    /// By the first reference; 0 is refused.
    fn record(&self, refs: Vec<u32>) -> Result<u64, String> {
        let _busy = self.busy.lock().unwrap();
        let index = INDEX + u64::from(refs[0]);
        if refs[0] == 0 {
            return Err("no".into());
        }
        self.recorded.lock().unwrap().push(index);
        Ok(index)
    }
}

struct World {
    worker: OwnedFd,
    kernel: Arc<Kernel>,
    /// What the guest hears and says.
    wants: mpsc::Receiver<ToGuest>,
    says: mpsc::Sender<Granted>,
    serving: JoinHandle<()>,
}

fn channel() -> ChannelId {
    ChannelId::new(3).unwrap()
}

fn world(most: u32) -> World {
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let (near, worker) = pair.unwrap();
    rustix::io::ioctl_fionbio(&worker, true).unwrap();
    let kernel = Arc::new(Kernel { most, ..Kernel::default() });
    let arena = GuestArena::new(u64::from(CHUNKS) * CHUNK_BYTES as u64, near, Arc::clone(&kernel) as _);
    let (guest, wants) = mpsc::channel(4);
    let (says, mut granted) = mpsc::channel(4);
    let serving = tokio::spawn(async move {
        match arena.serve(channel(), &guest, &mut granted, &Pace::of_chunks()).await {}
    });
    World { worker, kernel, wants, says, serving }
}

impl World {
    fn need(&self, chunk: u32) {
        rustix::io::write(&self.worker, &Need(chunk).encode()).unwrap();
    }

    /// The chunk that the guest is asked for.
    async fn wanted(&mut self) -> u32 {
        match self.wants.recv().await.unwrap() {
            ToGuest::Want { channel: of, chunk } if of == channel() => chunk,
            other => panic!("{other:?}"),
        }
    }

    async fn grant(&self, chunk: u32, first: u32) {
        self.says.send(Granted { chunk, refs: Some(vec![first; CHUNK_PAGES]) }).await.unwrap();
    }

    /// What the worker is told.
    async fn told(&self) -> Answer {
        loop {
            let mut bytes = [0; Answer::BYTES];
            match rustix::io::read(&self.worker, &mut bytes) {
                Ok(count) => {
                    assert_eq!(count, Answer::BYTES);
                    return Answer::decode(bytes);
                }
                Err(rustix::io::Errno::AGAIN) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn counted(&self) -> u32 {
        *self.kernel.counted.lock().unwrap()
    }
}

fn refused(chunk: u32) -> Answer {
    Answer { chunk, index: None }
}

#[tokio::test]
async fn a_chunk_is_wanted_recorded_and_told_of() {
    let mut world = world(9);
    for chunk in [2, 0] {
        world.need(chunk);
        assert_eq!(world.wanted().await, chunk);
        world.grant(chunk, 10 + chunk).await;
        assert_eq!(world.told().await, Answer { chunk, index: Some(INDEX + 10 + u64::from(chunk)) });
    }
    assert_eq!((world.counted(), world.kernel.recorded.lock().unwrap().len()), (2, 2));
}

#[tokio::test]
async fn what_cannot_be_had_is_told_so_and_counts_nothing() {
    let mut world = world(1);
    // Outside, and far outside.
    for chunk in [CHUNKS, u32::MAX] {
        world.need(chunk);
        assert_eq!(world.told().await, refused(chunk));
    }
    // The guest lacks what it takes.
    world.need(1);
    assert_eq!(world.wanted().await, 1);
    world.says.send(Granted { chunk: 1, refs: None }).await.unwrap();
    assert_eq!((world.told().await, world.counted()), (refused(1), 0));
    // The kernel does not take it.
    world.need(1);
    assert_eq!(world.wanted().await, 1);
    world.grant(1, 0).await;
    assert_eq!((world.told().await, world.counted()), (refused(1), 0));
    // Our limit, which the guest is not even asked about; a chunk that is there is never given twice.
    world.need(1);
    assert_eq!(world.wanted().await, 1);
    world.grant(1, 5).await;
    assert_eq!(world.told().await.index, Some(INDEX + 5));
    for chunk in [2, 1] {
        world.need(chunk);
        assert_eq!((world.told().await, world.counted()), (refused(chunk), 1));
    }
    assert!(world.wants.try_recv().is_err(), "the guest was asked");
}

/// The limit is real: the socket is the kernel's, which a paused clock would run away from.
#[tokio::test]
async fn a_guest_that_does_not_answer_is_not_waited_for_and_its_late_answer_is_for_nobody() {
    let mut world = world(9);
    let began = std::time::Instant::now();
    world.need(1);
    assert_eq!(world.wanted().await, 1);
    // Of another chunk.
    world.grant(2, 7).await;
    assert_eq!((world.told().await, world.counted()), (refused(1), 0));
    assert!(began.elapsed() >= GRANT_LIMIT);
    // As many as there is room for, then the true one.
    for _ in 0..4 {
        world.grant(1, 7).await;
    }
    world.need(0);
    assert_eq!(world.wanted().await, 0);
    world.grant(0, 8).await;
    assert_eq!(world.told().await.index, Some(INDEX + 8));
}

#[tokio::test]
async fn a_worker_that_says_what_none_says_gets_nothing_more() {
    let bytes: [&[u8]; 3] = [&[0; 3], b"garbage, and more of it than a message", &[]];
    for bytes in bytes {
        let mut world = world(9);
        rustix::io::write(&world.worker, bytes).unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        world.need(1);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(world.wants.try_recv().is_err() && world.counted() == 0, "{bytes:?}");
        assert!(!world.serving.is_finished(), "the channel is not ended by it");
    }
}

#[tokio::test]
async fn the_end_waits_for_what_is_being_recorded() {
    let (near, _worker) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let kernel = Arc::new(Kernel::default());
    let arena = GuestArena::new(CHUNK_BYTES as u64, near, Arc::clone(&kernel) as _);
    // The test has one, and so has a call that is being made.
    let calling = Arc::clone(&arena.pages);
    drop(kernel);
    let mut end = std::pin::pin!(arena.end());
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut end).await.is_err(), "it did not wait");
    drop(calling);
    end.await;
}
