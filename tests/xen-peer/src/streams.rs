//! Streams between two ends in this domain.

use std::thread;
use std::time::{Duration, Instant};

use idm::stream::{Stream, StreamSpec};
use idm::xen::DomId;
use idm::xen::death::Deaths;
use idm::xen::device::{self, Backend, Device, Frontend};
use idm::xen::domain::Identity;
use idm::xen::metrics::COUNTERS;
use idm::xen::offer::{accept_stream, offer_stream};
use idm::xen::xenstore::{Client, Store as _};
use idm::{ChannelError, Fault, Liveness};

use crate::check::{LIMIT, Outcome, pattern, same};
use crate::child::Child;

const BYTES: usize = 1 << 20;

pub fn through_xenstore(xenstore: &Client, device: Device) -> Outcome {
    device::create(xenstore, device)?;
    let (maker, taker, _frontend) = connect(xenstore, device)?;
    exchange(&maker, &taker)?;
    drop((maker, taker));
    device::remove(xenstore, device)?;
    same("nodes left", xenstore.read_if_there(&device.frontend_path())?, None)?;
    same("nodes left", xenstore.read_if_there(&device.backend_path())?, None)
}

/// Both ends of `device`, each in a thread as they would be in a domain each.
fn connect(xenstore: &Client, device: Device) -> Outcome<(Stream, Stream, Frontend)> {
    let spec = StreamSpec::default();
    let deaths = Deaths::of_domains(xenstore)?;
    let liveness = deaths.domain(Identity::of(xenstore, device.guest)?)?;
    let guest = thread::spawn({
        let xenstore = xenstore.clone();
        move || -> Result<_, idm::xen::XenError> {
            let frontend = Frontend::find(&xenstore, device.number, LIMIT)?;
            Ok((frontend.connect(spec, LIMIT)?, frontend))
        }
    });
    // The guest comes first: what it finds is what a dead backend left.
    thread::sleep(Duration::from_millis(200));
    let taker = Backend::new(xenstore, device).accept(spec, LIMIT, liveness)?;
    let (maker, frontend) = guest.join().map_err(|_| "the guest's thread panicked")??;
    same("state of the guest", xenstore.read_decimal(&format!("{}/state", device.frontend_path()), 8)?, 4)?;
    Ok((maker, taker, frontend))
}

pub fn by_offer(domain: DomId) -> Outcome {
    for ring_bytes in [4 << 10, 64 << 10, 256 << 10] {
        let spec = StreamSpec { to_taker_bytes: ring_bytes, to_maker_bytes: ring_bytes };
        let (offer, maker) = offer_stream(domain, spec, None)?;
        let taker = accept_stream(domain, &offer, spec, None)?;
        exchange(&maker, &taker)?;
    }
    Ok(())
}

/// 1 MiB each way at once, and the end of both directions.
fn exchange(one: &Stream, other: &Stream) -> Outcome {
    let result: Result<Vec<()>, String> = thread::scope(|scope| {
        let jobs = [(one, other, 1), (other, one, 2)].map(|(from, to, seed)| {
            let writer = scope.spawn(move || {
                from.write_all(&pattern(seed, BYTES), Some(LIMIT))?;
                from.finish()
            });
            let reader = scope.spawn(move || read_to_end(to));
            (writer, reader, seed)
        });
        jobs.into_iter()
            .map(|(writer, reader, seed)| {
                writer.join().map_err(|_| "panic")?.map_err(|error| error.to_string())?;
                let read = reader.join().map_err(|_| "panic")?.map_err(|error| error.to_string())?;
                if read == pattern(seed, BYTES) { Ok(()) } else { Err(format!("{} other bytes", read.len())) }
            })
            .collect()
    });
    result?;
    Ok(())
}

pub fn read_to_end(stream: &Stream) -> Result<Vec<u8>, ChannelError> {
    let mut all = Vec::new();
    let mut piece = [0; 8192];
    loop {
        match stream.read(&mut piece, Some(LIMIT))? {
            0 => return Ok(all),
            bytes => all.extend(&piece[..bytes]),
        }
    }
}

pub fn reconnect(xenstore: &Client, device: Device) -> Outcome {
    device::create(xenstore, device)?;
    for _ in 0..2 {
        // As after a crash of the backend: its state 4 is still there when the guest offers anew.
        let (maker, taker, _frontend) = connect(xenstore, device)?;
        exchange(&maker, &taker)?;
    }
    Ok(device::remove(xenstore, device)?)
}

pub fn device_removed(xenstore: &Client, device: Device) -> Outcome {
    device::create(xenstore, device)?;
    let (maker, _taker, _frontend) = connect(xenstore, device)?;
    device::remove(xenstore, device)?;
    ends(&maker, LIMIT)?;
    // A backend that still waits for its guest must not make the nodes again: nobody would remove them.
    let (liveness, _mark) = Liveness::pair()?;
    let backend = Backend::new(xenstore, device);
    for outcome in [backend.accept(StreamSpec::default(), LIMIT, liveness).map(drop), backend.close()] {
        let fault = outcome.err().map(|error| error.fault());
        same("the backend of a removed device", fault, Some(Fault::Gone))?;
    }
    same("nodes left", xenstore.read_if_there(&device.backend_path())?, None)
}

pub fn taker_killed() -> Outcome {
    let spec = StreamSpec::default();
    let (offer, maker) = offer_stream(DomId::DOM0, spec, None)?;
    let mut child = Child::taker(&offer)?;
    echo(&maker)?;
    child.kill()?;
    ends(&maker, LIMIT)
}

pub fn maker_killed() -> Outcome {
    let spec = StreamSpec::default();
    let (mut child, offer) = Child::maker()?;
    let taker = accept_stream(DomId::DOM0, &offer, spec, None)?;
    echo(&taker)?;
    child.kill()?;
    ends(&taker, LIMIT)
}

fn echo(stream: &Stream) -> Outcome {
    stream.write_all(b"ping", Some(LIMIT))?;
    let mut back = [0; 4];
    let mut have = 0;
    while have < 4 {
        have += match stream.read(&mut back[have..], Some(LIMIT))? {
            0 => return Err("the stream ended".into()),
            bytes => bytes,
        };
    }
    same("echo", &back, b"ping")
}

/// The stream ends by itself, and says that the peer is gone.
fn ends(stream: &Stream, limit: Duration) -> Outcome {
    let started = Instant::now();
    match stream.read(&mut [0; 1], Some(limit)) {
        Err(error) if error.fault() == Fault::Gone => {
            println!("  noticed after {:.3}s", started.elapsed().as_secs_f64());
            Ok(())
        }
        other => Err(format!("{other:?} instead of the peer's end").into()),
    }
}

/// Round trips of a parked peer, with how many events they took.
pub fn round_trips() -> Outcome {
    let spec = StreamSpec::default();
    let (offer, maker) = offer_stream(DomId::DOM0, spec, None)?;
    let _child = Child::taker(&offer)?;
    echo(&maker)?;
    let (rounds, sent) = (200_u32, COUNTERS.events_sent.get());
    let started = Instant::now();
    for _ in 0..rounds {
        echo(&maker)?;
    }
    let each_us = started.elapsed().as_secs_f64() * 1e6 / f64::from(rounds);
    let events = COUNTERS.events_sent.get() - sent;
    println!("  round trip {each_us:.0} us, {events} events sent for {rounds} of them");
    if events > u64::from(rounds) * 2 {
        return Err(format!("{events} events for {rounds} round trips").into());
    }
    Ok(())
}
