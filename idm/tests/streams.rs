//! Streams carry any number of bytes both ways, whatever the peer's pace, and tell its death.

#![expect(clippy::cast_possible_truncation, reason = "patterns of bytes")]

use std::time::Duration;

use idm::ChannelError;
use idm::stream::{Stream, StreamSpec};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseResult};

/// A limit that only a lost wake-up reaches.
const LIMIT: Option<Duration> = Some(Duration::from_secs(30));

/// The most that crosses in one direction.
const BYTES_MAX: usize = 64 << 20;
const CHUNK_MAX: usize = 70_000;

/// How one end behaves.
#[derive(Debug, Clone)]
struct End {
    bytes: usize,
    write_chunk: usize,
    read_chunk: usize,
    /// Bytes after which it stops for a moment, again and again.
    pause_every: usize,
    /// Shorter than anybody polls, or so long that the other side sleeps.
    pause: Duration,
}

/// As fast as it can.
fn brisk(bytes: usize) -> End {
    let pause = Duration::ZERO;
    End { bytes, write_chunk: 60_000, read_chunk: 50_000, pause_every: usize::MAX, pause }
}

fn end() -> impl Strategy<Value = End> {
    // Each order of magnitude as often as another, up to all that may cross.
    let bytes = (0..=26u32).prop_flat_map(|log| (1usize << log) / 2..=1 << log);
    let bytes = prop_oneof![1 => Just(0), 1 => Just(BYTES_MAX), 14 => bytes];
    let chunk = || prop_oneof![1 => 1..64usize, 3 => 500..CHUNK_MAX];
    let pause = prop_oneof![Just(Duration::from_micros(5)), Just(Duration::from_millis(3))];
    (bytes, chunk(), chunk(), prop_oneof![Just(usize::MAX), 10_000..1_000_000usize], pause).prop_map(
        |(bytes, write, read, pause_every, pause)| {
            // A megabyte byte by byte tests nothing that ten kilobytes do not.
            let least = bytes / 20_000 + 1;
            End {
                bytes,
                write_chunk: write.max(least),
                read_chunk: read.max(least),
                pause_every: pause_every.max(bytes / 20),
                pause,
            }
        },
    )
}

fn rings() -> impl Strategy<Value = StreamSpec> {
    (12..=18u32, 12..=18u32).prop_map(|(a, b)| StreamSpec { to_taker_bytes: 1 << a, to_maker_bytes: 1 << b })
}

/// What one side sends: bytes that no mistake of position or of direction leaves unnoticed, in a period that is no multiple of anything.
struct Pattern(Vec<u8>);

impl Pattern {
    const PERIOD: usize = 65_521;

    fn of(seed: u8) -> Self {
        let byte = |at: usize| ((at % Self::PERIOD).wrapping_mul(0x9e37_79b9) >> 13) as u8 ^ seed;
        Self((0..Self::PERIOD + CHUNK_MAX).map(byte).collect())
    }

    /// `count` bytes, at most [`CHUNK_MAX`], from the one at `at` on.
    fn at(&self, at: usize, count: usize) -> &[u8] {
        &self.0[at % Self::PERIOD..][..count]
    }
}

fn send(stream: &Stream, seed: u8, how: &End) -> Result<(), ChannelError> {
    let (mut sent, mut since_pause) = (0, 0);
    let pattern = Pattern::of(seed);
    while sent < how.bytes {
        let count = how.write_chunk.min(how.bytes - sent);
        stream.write_all(pattern.at(sent, count), LIMIT)?;
        sent += count;
        since_pause = pause(since_pause + count, how);
    }
    stream.finish()
}

/// Reads to the end and returns the number of bytes, all of which were right; or why there was no end.
fn receive(stream: &Stream, seed: u8, how: &End) -> Result<usize, ChannelError> {
    let (mut got, mut since_pause) = (0, 0);
    let (pattern, mut to) = (Pattern::of(seed), vec![0; how.read_chunk]);
    loop {
        let count = stream.read(&mut to, LIMIT)?;
        if count == 0 {
            return Ok(got);
        }
        assert!(to[..count] == *pattern.at(got, count), "other bytes at {got} or in the {count} after");
        got += count;
        since_pause = pause(since_pause + count, how);
    }
}

fn pause(since: usize, how: &End) -> usize {
    if since < how.pause_every {
        return since;
    }
    std::thread::sleep(how.pause);
    0
}

fn exchange(spec: StreamSpec, maker: &End, taker: &End) -> TestCaseResult {
    let (a, b) = Stream::pair(spec).unwrap();
    std::thread::scope(|scope| {
        let sends = [scope.spawn(|| send(&a, 1, maker)), scope.spawn(|| send(&b, 2, taker))];
        let at_taker = scope.spawn(|| receive(&b, 1, taker));
        let at_maker = scope.spawn(|| receive(&a, 2, maker));
        for sent in sends {
            prop_assert_eq!(sent.join().unwrap(), Ok(()));
        }
        prop_assert_eq!(at_taker.join().unwrap(), Ok(maker.bytes));
        prop_assert_eq!(at_maker.join().unwrap(), Ok(taker.bytes));
        Ok(())
    })
}

proptest! {
    #![proptest_config(Config { cases: 24, failure_persistence: None, max_shrink_iters: 200, ..Config::default() })]

    #[test]
    fn bytes_arrive_whole_both_ways_at_any_pace(spec in rings(), maker in end(), taker in end()) {
        exchange(spec, &maker, &taker)?;
    }

    #[test]
    fn a_peer_that_stops_anywhere_is_noticed_after_its_last_byte(spec in rings(), sent in 0..300_000usize, chunk in 1..5000usize) {
        let (a, b) = Stream::pair(spec).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let pattern = Pattern::of(1);
                let mut at = 0;
                while at < sent {
                    let count = chunk.min(sent - at);
                    a.write_all(pattern.at(at, count), LIMIT).unwrap();
                    at += count;
                }
                // Dropped without an end, as by a panic.
            });
            let end = receive(&b, 1, &brisk(0));
            prop_assert!(matches!(end, Err(ChannelError::PeerGone(_))), "{end:?}");
            Ok(())
        })?;
    }
}

#[test]
fn sixty_four_mebibytes_cross_both_ways_at_once() {
    let spec = StreamSpec { to_taker_bytes: 256 << 10, to_maker_bytes: 64 << 10 };
    exchange(spec, &brisk(BYTES_MAX), &brisk(BYTES_MAX)).unwrap();
}

#[cfg(feature = "tokio")]
mod tasks {
    use super::*;
    use idm::stream::AsyncStream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const BYTES: usize = 3 << 20;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn tasks_read_and_write_both_halves_at_once() {
        let (a, b) = Stream::pair(StreamSpec { to_taker_bytes: 4096, to_maker_bytes: 8192 }).unwrap();
        let ends = [(a, 1u8), (b, 2u8)].map(|(stream, seed)| {
            let (mut read, mut write) = tokio::io::split(AsyncStream::new(stream).unwrap());
            let sender = tokio::spawn(async move {
                let (pattern, mut sent) = (Pattern::of(seed), 0);
                while sent < BYTES {
                    let count = 9000.min(BYTES - sent);
                    write.write_all(pattern.at(sent, count)).await.unwrap();
                    sent += count;
                }
                write.shutdown().await.unwrap();
                write
            });
            tokio::spawn(async move {
                let mut got = Vec::new();
                read.read_to_end(&mut got).await.unwrap();
                let theirs = Pattern::of(3 - seed);
                for (n, chunk) in got.chunks(CHUNK_MAX).enumerate() {
                    assert!(chunk == theirs.at(n * CHUNK_MAX, chunk.len()));
                }
                drop(sender.await.unwrap());
                got.len()
            })
        });
        for end in ends {
            let got = tokio::time::timeout(Duration::from_secs(30), end)
                .await
                .expect("a wake-up was lost")
                .unwrap();
            assert_eq!(got, BYTES);
        }
    }

    #[tokio::test]
    async fn a_task_that_waits_hears_of_the_peers_end() {
        let (a, b) = Stream::pair(StreamSpec::default()).unwrap();
        let (mut a, b) = (AsyncStream::new(a).unwrap(), AsyncStream::new(b).unwrap());
        let waiting = tokio::spawn(async move { a.read(&mut [0; 8]).await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(b);
        let end = tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("a hang").unwrap();
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    }

    /// Nobody else runs on a thread whose task never waits.
    #[tokio::test]
    async fn a_peer_that_is_always_ready_leaves_other_tasks_their_turn() {
        const ROUNDS_MAX: usize = 10_000;
        let (a, b) = Stream::pair(StreamSpec::default()).unwrap();
        let mut a = AsyncStream::new(a).unwrap();
        let mut bytes = [7; 8];
        for reads in [true, false] {
            let other = tokio::spawn(async {});
            let mut rounds = 0;
            while !other.is_finished() {
                rounds += 1;
                assert!(rounds < ROUNDS_MAX, "nobody else had a turn (reads: {reads})");
                if reads {
                    b.write_all(&bytes, LIMIT).unwrap();
                    a.read_exact(&mut bytes).await.unwrap();
                } else {
                    a.write_all(&bytes).await.unwrap();
                    assert_eq!(b.read(&mut bytes, LIMIT).unwrap(), bytes.len());
                }
            }
        }
    }

    #[tokio::test]
    async fn a_task_and_a_thread_speak_the_same_stream() {
        let (a, b) = Stream::pair(StreamSpec::default()).unwrap();
        let mut a = AsyncStream::new(a).unwrap();
        let thread = std::thread::spawn(move || {
            let mut to = [0; 5];
            let count = b.read(&mut to, LIMIT).unwrap();
            b.write_all(&to[..count], LIMIT).unwrap();
            b.finish().unwrap();
            // Held until the task has read: dropping early would be fine too, after the end.
            b
        });
        a.write_all(b"hello").await.unwrap();
        let mut back = Vec::new();
        a.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, b"hello");
        drop(thread.join().unwrap());
    }
}
