//! Guests that say more than is good for others.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use idm::stream::{AsyncStream, Stream, StreamSpec};
use tokio::io::ReadBuf;
use tokio::time::Instant;
use vgpu_zone_api::guest::wire;

use super::*;
use crate::supervisor::pace::{ANSWER_EVERY, ANSWERS_AT_ONCE, BIRTH_EVERY};

#[tokio::test]
async fn a_guest_that_connects_without_end_is_slowed_down() {
    let (mut guest, _fakes, _served) = stream();
    let start = Instant::now();
    let more = 15;
    for number in 1..=BIRTHS_AT_ONCE + more {
        let channel = guest.connect(number, "none").await;
        assert_eq!(guest.hear().await, ToGuest::Refused { channel, code: 403 });
    }
    assert!(start.elapsed() >= BIRTH_EVERY * (more - 1), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_asks_without_end_is_slowed_down() {
    let (mut guest, _fakes, _served) = stream();
    let start = Instant::now();
    let more = 15;
    for number in 1..=ANSWERS_AT_ONCE + more {
        // What is refused costs as much.
        let question = guest.ask(number, ["c", "none"][number as usize % 2]).await;
        let ToGuest::Told { question: told, .. } = guest.hear().await else { panic!("no answer") };
        assert_eq!(told, question);
    }
    assert!(start.elapsed() >= ANSWER_EVERY * (more - 1), "{:?}", start.elapsed());
}

/// Our end of a stream whose guest writes as much as is read of it, before it is asked again.
struct Flooded {
    ours: AsyncStream,
    guest: Stream,
    reads: usize,
}

impl Flooded {
    /// More reads than one turn of a task has.
    const READS_MAX: usize = 1000;

    fn new() -> Self {
        let spec = StreamSpec { to_taker_bytes: wire::RING_BYTES, to_maker_bytes: wire::RING_BYTES };
        let (guest, ours) = Stream::pair(spec).unwrap();
        let flooded = Self { ours: AsyncStream::new(ours).unwrap(), guest, reads: 0 };
        flooded.refill(wire::RING_BYTES as usize);
        flooded
    }

    fn refill(&self, bytes: usize) {
        let mut closes = Vec::new();
        while closes.len() < bytes {
            ToProxy::Close { channel: ChannelId::new(77).unwrap() }.encode(&mut closes);
        }
        assert_eq!(closes.len(), bytes, "whole messages are read");
        self.guest.write_all(&closes, None).unwrap();
    }
}

impl AsyncRead for Flooded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = to.filled().len();
        let read = Pin::new(&mut self.ours).poll_read(cx, to);
        self.refill(to.filled().len() - before);
        self.reads += 1;
        assert!(self.reads < Self::READS_MAX, "nobody else has a turn");
        read
    }
}

impl AsyncWrite for Flooded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.ours).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.ours).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.ours).poll_shutdown(cx)
    }
}

/// On one thread: the supervisor has two, and there are more guests than that.
#[tokio::test]
async fn a_guest_that_never_stops_talking_leaves_others_their_turn() {
    let served = tokio::spawn(messages(Flooded::new(), Arc::new(Fakes::default()), bounds()));
    tokio::spawn(async {}).await.unwrap();
    served.abort();
    assert!(served.await.unwrap_err().is_cancelled());
}

#[tokio::test]
async fn a_guest_whose_stream_is_a_new_one_is_slowed_down_as_before() {
    let (bounds, fakes) = (bounds(), Arc::new(Fakes::default()));
    let start = Instant::now();
    for _ in 0..2 {
        let (near, far) = tokio::io::duplex(1 << 20);
        let served = tokio::spawn(messages(near, Arc::clone(&fakes), Arc::clone(&bounds)));
        let mut guest = Guest { stream: far, frames: Frames::default() };
        for number in 1..=BIRTHS_AT_ONCE {
            guest.connect(number, "none").await;
            guest.hear().await;
        }
        drop(guest);
        served.await.unwrap().unwrap();
    }
    assert!(start.elapsed() >= BIRTH_EVERY * (BIRTHS_AT_ONCE - 1), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_process_that_ends_is_heard_through_a_flood_of_others() {
    let (mut guest, fakes, _served) = stream();
    let old = guest.connect(1, "c").await;
    assert_eq!(guest.hear().await, ToGuest::Accepted { channel: old, arena_mib: 0 });
    let waiting = 150;
    for number in 2..2 + BIRTHS_AT_ONCE + waiting {
        guest.connect(number, "c").await;
    }
    guest.say(ToProxy::Close { channel: old }).await;
    let mut accepted = 0;
    while guest.hear().await != (ToGuest::Unmapped { channel: old }) {
        accepted += 1;
    }
    assert!(accepted < BIRTHS_AT_ONCE + waiting / 2, "{accepted} of the flood came first");
    assert!(*fakes.started.lock().unwrap()[0].borrow());
}

#[tokio::test]
async fn who_gives_up_before_its_birth_takes_nobodys_turn() {
    let (mut guest, fakes, _served) = stream();
    let gone = BIRTHS_AT_ONCE + 150;
    for number in 1..=gone {
        guest.connect(number, "c").await;
    }
    for number in 1..=gone {
        guest.say(ToProxy::Close { channel: ChannelId::new(number).unwrap() }).await;
    }
    let last = guest.connect(gone + 1, "c").await;
    while guest.hear().await != (ToGuest::Accepted { channel: last, arena_mib: 0 }) {}
    assert!(fakes.started.lock().unwrap().len() < gone as usize, "all of them were born");
}

#[tokio::test]
async fn a_stream_that_is_given_up_is_let_go_even_if_the_guest_does_not_read() {
    let (mut guest, _fakes, served) = stream_of(64);
    // The answers do not fit: the writer waits.
    for number in 1..=20 {
        guest.connect(number, "none").await;
    }
    served.abort();
    assert!(served.await.unwrap_err().is_cancelled());
    assert!(guest.stream.write_all(b"x").await.is_err(), "somebody still has the stream");
}
