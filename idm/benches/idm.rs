//! What a call and a byte cost over the `local` transport, beside what a user would take instead, measured in the same run.
//!
//! One JSON object a line: `name`, `value`, `unit`, `beside` (the value of what it is compared with), `what` that is, `ratio` (value to
//! beside), `target` (the most that value may be; 0 where there is none). A figure above its target is shown, not judged.

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
    single_launches();
    sync_calls();
    stream_throughput();
}

/// So often in a benchmark. Without cargo's `--bench` the program is only tried: a hundredth of it, and the figures mean nothing.
fn runs(count: u32) -> u32 {
    if is_measured() { count } else { count.div_ceil(100) }
}

fn is_measured() -> bool {
    std::env::args().any(|word| word == "--bench")
}

fn report(name: &str, value: f64, unit: &str, beside: f64, what: &str, target: f64) {
    let ratio = value / beside;
    println!(
        "{{\"name\":\"{name}\",\"value\":{value:.2},\"unit\":\"{unit}\",\"beside\":{beside:.2},\"what\":\"{what}\",\
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

/// How a thread that serves waits for the next record.
#[derive(Clone, Copy, PartialEq)]
enum Waits {
    Polling,
    /// As a worker does: polling for a while, then asleep.
    AsAWorker,
    /// As a worker whose driver takes so long for each launch.
    Launching(Duration),
}

/// Answers every call at once. Returns how often it slept.
fn serve(mut consumer: Consumer, waits: Waits, stop: &AtomicBool) -> u64 {
    let replies = consumer.replies().clone();
    while !stop.load(Relaxed) {
        match consumer.next().expect("the bench breaks no rule") {
            Some(record) => {
                if let Some(lane) = record.lane {
                    let (seq, payload) = (record.seq, record.payload);
                    replies.reply(lane, seq, 0, payload).expect("each call is answered once");
                } else if let Waits::Launching(time) = waits {
                    let start = Instant::now();
                    while start.elapsed() < time {}
                }
            }
            None if waits == Waits::Polling => std::hint::spin_loop(),
            None => {
                let _ = consumer.wait(Some(Duration::from_millis(50)));
            }
        }
    }
    consumer.sleeps()
}

/// Runs `client` against a consumer in a thread. Returns how often that slept, too.
fn with_server<T>(waits: Waits, client: impl FnOnce(&Submitter) -> T) -> (T, u64) {
    let (submitter, consumer) = pair(RegionSpec::default()).expect("a channel can be made");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let server = scope.spawn(|| serve(consumer, waits, &stop));
        let result = client(&submitter);
        stop.store(true, Relaxed);
        (result, server.join().expect("the server does not panic"))
    })
}

/// Launches in a row between two readings of the clock.
const BATCH: u32 = 40;

/// Nanoseconds of one of [`BATCH`] runs of `body`.
fn each_of_a_batch(mut body: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..BATCH {
        body();
    }
    nanos(start) / f64::from(BATCH)
}

/// 100 bytes into the ring, the consumer taking them meanwhile; beside it a write of 100 bytes into a pipe.
fn queued_launch() {
    let launch = [7u8; 100];
    let (mut samples, _) = with_server(Waits::Polling, |submitter| {
        let mut samples = Vec::with_capacity(5000);
        for _ in 0..runs(100) {
            for _ in 0..50 {
                samples.push(each_of_a_batch(|| {
                    submitter.submit_bytes(1, 0, &launch).expect("the consumer lives");
                }));
            }
            // The ring holds about 8000 of these: a launch that waits for room is another figure.
            submitter.call(2, 0, &[], &mut [], LIMIT).expect("the consumer lives");
        }
        samples
    });
    let (mut reader, mut writer) = std::io::pipe().expect("a pipe can be made");
    let mut drained = vec![0u8; launch.len() * BATCH as usize];
    let mut pipe: Vec<f64> = (0..runs(500))
        .map(|_| {
            let each = each_of_a_batch(|| writer.write_all(&launch).expect("the pipe has room"));
            reader.read_exact(&mut drained).expect("all was written");
            each
        })
        .collect();
    for (name, part, target) in
        [("queued launch of 100 B, p50", 0.5, 150.0), ("queued launch of 100 B, p99 of batches", 0.99, 0.0)]
    {
        let beside = percentile(&mut pipe, part);
        report(name, percentile(&mut samples, part), "ns", beside, "write to a pipe", target);
    }
}

/// As above, each launch by itself, in bursts that wait in the ring: those that make room for others have to be there, and one in a hundred is
/// the first after a call. The clock's own cost is taken off.
fn single_launches() {
    let launch = [7u8; 100];
    let single = |body: &mut dyn FnMut()| {
        let start = Instant::now();
        body();
        nanos(start)
    };
    let mut clock: Vec<f64> = (0..10_000).map(|_| single(&mut || ())).collect();
    let clock = percentile(&mut clock, 0.5);
    let p99 = |mut samples: Vec<f64>| (percentile(&mut samples, 0.99) - clock).max(0.0);
    let (samples, _) = with_server(Waits::Launching(Duration::from_micros(2)), |submitter| {
        let mut samples = Vec::with_capacity(100_000);
        for _ in 0..runs(1000) {
            for _ in 0..100 {
                samples.push(single(&mut || {
                    submitter.submit_bytes(1, 0, &launch).expect("the consumer lives");
                }));
            }
            submitter.call(2, 0, &[], &mut [], LIMIT).expect("the consumer lives");
        }
        samples
    });
    let (mut reader, mut writer) = std::io::pipe().expect("a pipe can be made");
    let mut drained = vec![0u8; launch.len() * BATCH as usize];
    let mut pipe = Vec::with_capacity(100_000);
    for _ in 0..runs(1000) {
        for _ in 0..BATCH {
            pipe.push(single(&mut || writer.write_all(&launch).expect("the pipe has room")));
        }
        reader.read_exact(&mut drained).expect("all was written");
    }
    report("queued launch of 100 B, p99", p99(samples), "ns", p99(pipe), "write to a pipe", 400.0);
}

/// A call and its reply: one after the other, both sides polling; then with a pause before each, in which the worker falls asleep. Beside
/// them 16 bytes there and back over a unix socket, at the same pace.
fn sync_calls() {
    const PAUSE: Duration = Duration::from_millis(1);
    let calls = |waits, count: u32, pause: Duration| {
        with_server(waits, |submitter| {
            paced(count, pause, || {
                submitter.call(1, 0, &[1; 16], &mut [0; 16], LIMIT).expect("the consumer lives");
            })
        })
    };
    let what = "unix socket round trip";
    let (polling, _) = calls(Waits::Polling, 50_000, Duration::ZERO);
    report("sync call, polling, p50", polling, "us", socket_round_trip(20_000, Duration::ZERO), what, 2.0);
    let (parked, sleeps) = calls(Waits::AsAWorker, 1000, PAUSE);
    assert!(sleeps >= 900 || !is_measured(), "the worker was asleep before {sleeps} of 1000 calls only");
    report("sync call, parked, p50", parked, "us", socket_round_trip(1000, PAUSE), what, 20.0);
}

/// Microseconds of `body`, the median of `count`, with a pause before each.
fn paced(count: u32, pause: Duration, mut body: impl FnMut()) -> f64 {
    let mut samples: Vec<f64> = (0..runs(count))
        .map(|_| {
            if !pause.is_zero() {
                std::thread::sleep(pause);
            }
            let start = Instant::now();
            body();
            nanos(start) / 1000.0
        })
        .collect();
    percentile(&mut samples, 0.5)
}

fn socket_round_trip(count: u32, pause: Duration) -> f64 {
    let (mut ours, mut theirs) = UnixStream::pair().expect("a socket pair can be made");
    let echo = std::thread::spawn(move || {
        let mut bytes = [0; 16];
        while theirs.read_exact(&mut bytes).is_ok() && theirs.write_all(&bytes).is_ok() {}
    });
    let each = paced(count, pause, || {
        ours.write_all(&[1; 16]).expect("the echo lives");
        ours.read_exact(&mut [0; 16]).expect("the echo lives");
    });
    drop(ours);
    echo.join().expect("the echo ends with the socket");
    each
}

/// 256 MiB, when measured, from one thread to another.
fn stream_throughput() {
    let chunk = vec![5u8; 64 << 10];
    let chunks = runs(4096) as usize;
    let all = chunks * chunk.len();
    let rate = |start: Instant| {
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let bytes = all as f64;
        bytes / start.elapsed().as_secs_f64() / 1e6
    };
    let stream = {
        let ring = 256 << 10;
        let (a, b) =
            Stream::pair(StreamSpec { to_taker_bytes: ring, to_maker_bytes: 4096 }).expect("a stream");
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..chunks {
                    a.write_all(&chunk, LIMIT).expect("the reader lives");
                }
            });
            let (mut to, mut got) = (vec![0; 64 << 10], 0);
            while got < all {
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
                for _ in 0..chunks {
                    writer.write_all(&chunk).expect("the reader lives");
                }
            });
            let (mut to, mut got) = (vec![0; 64 << 10], 0);
            while got < all {
                got += reader.read(&mut to).expect("the writer lives");
            }
        });
        rate(start)
    };
    report("stream, one direction", stream, "MB/s", pipe, "pipe", 0.0);
}
