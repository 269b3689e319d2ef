//! What a call and a byte cost over the `local` transport, beside what a user would take instead, measured in the same run.
//!
//! One JSON object a line: `name`, `value`, `unit`, `beside` (the value of what it is compared with, 0 without one), `what` that is,
//! `ratio` (value to beside), `target` (0 where there is none). A figure above its target is shown, not judged: `SPECIFICATION.md` says which
//! test does.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use idm::record::{Consumer, RegionSpec, Submitter, pair};
use idm::stream::{Stream, StreamSpec};

/// A limit that only a defect reaches.
const LIMIT: Option<Duration> = Some(Duration::from_secs(30));

fn main() {
    queued_launch();
    sync_calls();
    stream_throughput();
}

fn report(name: &str, value: f64, unit: &str, beside: f64, what: &str, target: f64) {
    let ratio = if beside > 0.0 { value / beside } else { 0.0 };
    println!(
        "{{\"name\":\"{name}\",\"value\":{value:.1},\"unit\":\"{unit}\",\"beside\":{beside:.1},\"what\":\"{what}\",\
         \"ratio\":{ratio:.3},\"target\":{target}}}"
    );
}

/// The value below which `part` of the samples lie.
fn percentile(samples: &mut [f64], part: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let at = ((samples.len() - 1) as f64 * part) as usize;
    samples[at]
}

fn nanos(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e9
}

/// Answers every call at once; polls without sleeping when `busy`.
fn serve(mut consumer: Consumer, busy: bool, stop: &AtomicBool) {
    let replies = consumer.replies().clone();
    while !stop.load(Relaxed) {
        match consumer.next().expect("the bench breaks no rule") {
            Some(record) => {
                if let Some(lane) = record.lane {
                    let (seq, payload) = (record.seq, record.payload);
                    replies.reply(lane, seq, 0, payload).expect("each call is answered once");
                }
            }
            None if busy => std::hint::spin_loop(),
            None => {
                let _ = consumer.wait(Some(Duration::from_millis(50)));
            }
        }
    }
}

/// Runs `client` against a consumer in a thread.
fn with_server<T>(busy: bool, client: impl FnOnce(&Submitter) -> T) -> T {
    let (submitter, consumer) = pair(RegionSpec::default()).expect("a channel can be made");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| serve(consumer, busy, &stop));
        let result = client(&submitter);
        stop.store(true, Relaxed);
        result
    })
}

/// 100 bytes into the ring, the consumer taking them meanwhile; beside it a write of 100 bytes into a pipe.
fn queued_launch() {
    let launch = [7u8; 100];
    let mut samples = with_server(true, |submitter| {
        let mut samples = Vec::with_capacity(200_000);
        for _ in 0..100 {
            for _ in 0..2000 {
                let start = Instant::now();
                submitter.submit_bytes(1, 0, &launch).expect("the consumer lives");
                samples.push(nanos(start));
            }
            // The ring holds about 8000 of these: a launch that waits for room is another figure.
            submitter.call(2, 0, &[], &mut [], LIMIT).expect("the consumer lives");
        }
        samples
    });
    let (mut reader, mut writer) = std::io::pipe().expect("a pipe can be made");
    let mut pipe = Vec::with_capacity(20_000);
    let mut drained = [0u8; 4000];
    for _ in 0..500 {
        for _ in 0..40 {
            let start = Instant::now();
            writer.write_all(&launch).expect("the pipe has room");
            pipe.push(nanos(start));
        }
        reader.read_exact(&mut drained).expect("all was written");
    }
    // The clock is read twice around each launch: its own cost is in every figure, as it was in the target's.
    let clock = {
        let mut pairs: Vec<f64> = (0..10_000).map(|_| nanos(Instant::now())).collect();
        percentile(&mut pairs, 0.5)
    };
    report("clock, in each figure below", clock, "ns", 0.0, "", 0.0);
    let (p50, p99) = (percentile(&mut samples, 0.5), percentile(&mut samples, 0.99));
    report("queued launch of 100 B, p50", p50, "ns", percentile(&mut pipe, 0.5), "write to a pipe", 150.0);
    report("queued launch of 100 B, p99", p99, "ns", percentile(&mut pipe, 0.99), "write to a pipe", 400.0);
}

/// A call and its reply, both sides polling, then both asleep in between; beside them a byte there and back over a unix socket.
fn sync_calls() {
    let socket = socket_round_trip();
    let call = |busy: bool, count: usize, pause: Duration| {
        with_server(busy, |submitter| {
            let mut samples = Vec::with_capacity(count);
            for _ in 0..count {
                if !pause.is_zero() {
                    std::thread::sleep(pause);
                }
                let start = Instant::now();
                submitter.call(1, 0, &[1; 16], &mut [0; 16], LIMIT).expect("the consumer lives");
                samples.push(nanos(start) / 1000.0);
            }
            percentile(&mut samples, 0.5)
        })
    };
    let polling = call(true, 50_000, Duration::ZERO);
    let parked = call(false, 1000, Duration::from_millis(1));
    report("sync call, polling, p50", polling, "us", socket, "unix socket round trip", 2.0);
    report("sync call, parked, p50", parked, "us", socket, "unix socket round trip", 20.0);
}

fn socket_round_trip() -> f64 {
    let (mut ours, mut theirs) = UnixStream::pair().expect("a socket pair can be made");
    let echo = std::thread::spawn(move || {
        let mut byte = [0; 16];
        while theirs.read_exact(&mut byte).is_ok() && theirs.write_all(&byte).is_ok() {}
    });
    let mut samples = Vec::new();
    for _ in 0..1000 {
        std::thread::sleep(Duration::from_millis(1));
        let start = Instant::now();
        ours.write_all(&[1; 16]).expect("the echo lives");
        ours.read_exact(&mut [0; 16]).expect("the echo lives");
        samples.push(nanos(start) / 1000.0);
    }
    drop(ours);
    echo.join().expect("the echo ends with the socket");
    percentile(&mut samples, 0.5)
}

/// 256 MiB from one thread to another.
fn stream_throughput() {
    const BYTES: usize = 256 << 20;
    let chunk = vec![5u8; 64 << 10];
    let rate = |start: Instant| {
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let bytes = BYTES as f64;
        bytes / start.elapsed().as_secs_f64() / 1e6
    };
    let stream = {
        let ring = 256 << 10;
        let (a, b) =
            Stream::pair(StreamSpec { to_taker_bytes: ring, to_maker_bytes: 4096 }).expect("a stream");
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..BYTES / chunk.len() {
                    a.write_all(&chunk, LIMIT).expect("the reader lives");
                }
            });
            let (mut to, mut got) = (vec![0; 64 << 10], 0);
            while got < BYTES {
                got += b.read(&mut to, LIMIT).expect("the writer lives");
            }
        });
        rate(start)
    };
    let pipe = {
        let (mut reader, mut writer) = std::io::pipe().expect("a pipe can be made");
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..BYTES / chunk.len() {
                    writer.write_all(&chunk).expect("the reader lives");
                }
            });
            let (mut to, mut got) = (vec![0; 64 << 10], 0);
            while got < BYTES {
                got += reader.read(&mut to).expect("the writer lives");
            }
        });
        rate(start)
    };
    report("stream, one direction", stream, "MB/s", pipe, "pipe", 0.0);
}
