//! A peer that writes anything anywhere, at any time, causes errors and nothing else: no panic, no hang, no wild copy.

#![expect(clippy::cast_possible_truncation, reason = "patterns of bytes")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use idm::flex::{FlexParts, FlexRings, FlexSide};
use idm::record::{ChannelParts, Consumer, Ready, RegionSpec, Submitter, make_region};
use idm::stream::{Side, Stream, StreamParts, StreamSpec};
use idm::{ChannelError, Doorbell, Peer, Region, Waiter};

const SPEC: RegionSpec = RegionSpec { ring_bytes: 8192, staging_bytes: 64 << 10, record_limit: 2048 };
/// What a victim waits at most for one step.
const STEP: Option<Duration> = Some(Duration::from_millis(20));
/// What one test takes.
const RUN: Duration = Duration::from_secs(2);

/// A small generator of bad luck.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as u32
    }

    /// A word that is likely to do harm.
    fn word(&mut self) -> u32 {
        match self.roll() % 6 {
            0 => 0,
            1 => 1,
            2 => u32::MAX,
            3 => self.roll() & 0x1ff,
            4 => 1 << (self.roll() % 32),
            _ => self.roll(),
        }
    }
}

/// Rings and waiters of both sides over one region.
fn bells() -> [(Waiter, Doorbell); 2] {
    let (to_a, a_hears) = idm::doorbell::eventfd_pair().unwrap();
    let (to_b, b_hears) = idm::doorbell::eventfd_pair().unwrap();
    [(Waiter::EventFd(a_hears), Doorbell::EventFd(to_b)), (Waiter::EventFd(b_hears), Doorbell::EventFd(to_a))]
}

fn channel() -> (Arc<Region>, Submitter, Consumer) {
    let region = Arc::new(Region::map(make_region(&SPEC).unwrap(), SPEC.region_bytes().unwrap()).unwrap());
    let parts = bells().map(|(waiter, doorbell)| ChannelParts {
        region: region.clone(),
        spec: SPEC,
        peer: Peer::Domain(5),
        waiter,
        doorbell,
        liveness: None,
    });
    let [ours, theirs] = parts;
    (region, Submitter::from_parts(ours).unwrap(), Consumer::from_parts(theirs).unwrap())
}

/// Writes harm into `words` (offsets of a word each) until told to stop.
fn scribble(region: &Region, words: &[usize], seed: u64, stop: &AtomicBool) {
    let mut dice = Dice(seed | 1);
    while !stop.load(Relaxed) {
        let at = words[dice.roll() as usize % words.len()];
        region.word(at).store(dice.word(), Relaxed);
        // At once, or after the victim has got somewhere.
        for _ in 0..dice.roll() % 2000 {
            std::hint::spin_loop();
        }
    }
}

/// Runs `victim` against a scribbler over and over, and counts how it ended.
fn besiege<V>(
    words: &[usize],
    make: impl Fn() -> (Arc<Region>, V),
    victim: impl Fn(V) -> Result<(), ChannelError>,
) -> (usize, usize) {
    let (mut well, mut broken, mut seed) = (0, 0, 0x5eed);
    let start = Instant::now();
    while start.elapsed() < RUN {
        seed += 0x9e37;
        let stop = AtomicBool::new(false);
        let (region, ends) = make();
        std::thread::scope(|scope| {
            scope.spawn(|| scribble(&region, words, seed, &stop));
            let round = Instant::now();
            match victim(ends) {
                Ok(()) => well += 1,
                Err(_) => broken += 1,
            }
            stop.store(true, Relaxed);
            assert!(round.elapsed() < Duration::from_secs(20), "the victim hung");
        });
    }
    (well, broken)
}

fn consume(consumer: &mut Consumer) -> Result<(), ChannelError> {
    let replies = consumer.replies().clone();
    for _ in 0..200 {
        while let Some(record) = consumer.next()? {
            assert!(record.payload.len() <= 2048);
            let Some(lane) = record.lane else { continue };
            replies.reply(lane, record.seq, 0, record.payload)?;
        }
        if consumer.wait(Some(Duration::from_millis(1)))? == Ready::TimedOut {
            return Ok(());
        }
    }
    Ok(())
}

#[test]
fn a_worker_survives_a_program_that_scribbles_over_everything() {
    let all: Vec<usize> = (8..SPEC.region_bytes().unwrap() / 4).map(|word| word * 4).collect();
    let ring = 0x41000..0x41000 + 8192;
    let likely: Vec<usize> =
        [64, 68, 128, 132, 192].into_iter().chain(ring.step_by(16).map(|at| at + 12)).collect();
    for words in [&all, &likely] {
        let (well, broken) = besiege(
            words,
            || {
                let (region, submitter, consumer) = channel();
                (region, (submitter, consumer))
            },
            |(submitter, mut consumer)| {
                for i in 0..50u16 {
                    if submitter.submit_bytes(i, 0, &[7; 100]).is_err() {
                        break;
                    }
                }
                consume(&mut consumer)
            },
        );
        assert!(well + broken > 10, "only {} rounds", well + broken);
        assert!(words.len() == all.len() || broken > 0, "nothing was ever found out");
    }
}

#[test]
fn a_program_survives_a_worker_that_scribbles_over_everything() {
    let likely: Vec<usize> = (64..4096).step_by(4).chain((0x1000..0x41000).step_by(4096)).collect();
    let lengths = (0x1000..0x41000).step_by(4096).map(|slot| slot + 8);
    let words: Vec<usize> = likely.into_iter().chain(lengths).collect();
    let (well, broken) = besiege(
        &words,
        || {
            let (region, submitter, consumer) = channel();
            (region, (submitter, consumer))
        },
        |(submitter, mut consumer)| {
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !stop.load(Relaxed) && consume(&mut consumer).is_ok() {
                        std::thread::yield_now();
                    }
                });
                let result = (0..200u16).try_for_each(|i| {
                    submitter.last_error();
                    submitter.call(i, 0, &[1; 64], &mut [0; 64], STEP).map(|_| ())
                });
                stop.store(true, Relaxed);
                result
            })
        },
    );
    assert!(broken > 0, "nothing was ever found out in {} rounds", well + broken);
}

#[test]
fn a_stream_survives_a_peer_that_scribbles_over_its_pages() {
    let spec = StreamSpec { to_taker_bytes: 4096, to_maker_bytes: 4096 };
    let words: Vec<usize> = (64..1024).step_by(64).chain([324, 452]).collect();
    let (well, broken) = besiege(
        &words,
        || {
            let memory = idm::region::sealed_memory("hostile", spec.region_bytes()).unwrap();
            let region = Arc::new(Region::map(&memory, spec.region_bytes()).unwrap());
            let mut sides = [Side::Maker, Side::Taker].into_iter();
            let ends = bells().map(|(waiter, doorbell)| {
                let side = sides.next().unwrap();
                let (region, peer) = (region.clone(), Peer::Domain(5));
                Stream::new(StreamParts { region, spec, side, peer, waiter, doorbell, liveness: None })
                    .unwrap()
            });
            (region, ends)
        },
        |[a, b]| {
            let mut to = [0; 3000];
            for _ in 0..100 {
                a.write(&[1; 2000], STEP)?;
                b.read(&mut to, STEP)?;
                b.write(&[2; 700], STEP)?;
                a.read(&mut to, STEP)?;
            }
            Ok(())
        },
    );
    assert!(broken > 0, "nothing was ever found out in {} rounds", well + broken);
}

#[test]
fn a_back_end_survives_a_guest_that_scribbles_over_its_flex_rings() {
    let words: Vec<usize> =
        [0, 4, 64, 68, 128, 132].into_iter().chain((4096..12_288).step_by(1024)).collect();
    let (well, broken) = besiege(
        &words,
        || {
            let memory = make_region(&SPEC).unwrap();
            let region = || Region::map(&memory, SPEC.region_bytes().unwrap()).unwrap();
            let [(waiter, doorbell), _] = bells();
            let (side, peer) = (FlexSide::Back, Peer::Domain(5));
            let parts =
                FlexParts { region: region(), order: 1, side, peer, waiter, doorbell, liveness: None };
            (Arc::new(region()), FlexRings::new(parts).unwrap())
        },
        |rings| {
            let mut bytes = [0; 512];
            for _ in 0..100 {
                match rings.read(&mut bytes, Some(Duration::from_millis(1))) {
                    Ok(count) => rings.write(&bytes[..count], Some(Duration::from_millis(1))).map(drop)?,
                    Err(ChannelError::TimedOut { .. }) => {}
                    Err(why) => return Err(why),
                }
            }
            Ok(())
        },
    );
    assert!(broken > 0, "nothing was ever found out in {} rounds", well + broken);
}
