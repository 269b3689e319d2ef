//! Shared pages that change between any two steps: a GPU channel and a stream, both of whose sides go on or say why not.
//!
//! The input is a list of steps of 8 bytes: kind, then what it needs. No step waits: every call has a limit of 0.
#![no_main]

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use idm::doorbell::eventfd_pair;
use idm::record::{ChannelParts, Consumer, RegionSpec, Submitter, make_region};
use idm::region::sealed_memory;
use idm::stream::{Side, Stream, StreamParts, StreamSpec};
use idm::{Doorbell, Peer, Region, Waiter};
use libfuzzer_sys::fuzz_target;

const CHANNEL: RegionSpec = RegionSpec { ring_bytes: 8192, staging_bytes: 64 << 10, record_limit: 2048 };
const STREAM: StreamSpec = StreamSpec { to_taker_bytes: 4096, to_maker_bytes: 4096 };
/// Where a channel's ring starts (`idm/README.md`); behind its control page and reply slots.
const RING: usize = 0x41000;
const AT_ONCE: Option<Duration> = Some(Duration::ZERO);
const PEER: Peer = Peer::Domain(5);

fn bells() -> [(Waiter, Doorbell); 2] {
    let (to_a, a_hears) = eventfd_pair().expect("an eventfd");
    let (to_b, b_hears) = eventfd_pair().expect("an eventfd");
    [(Waiter::EventFd(a_hears), Doorbell::EventFd(to_b)), (Waiter::EventFd(b_hears), Doorbell::EventFd(to_a))]
}

fn channel() -> (Arc<Region>, Submitter, Consumer) {
    let memory = make_region(&CHANNEL).expect("memory");
    let region =
        Arc::new(Region::map(memory, CHANNEL.region_bytes().expect("our own sizes")).expect("mapped"));
    let [ours, theirs] = bells().map(|(waiter, doorbell)| ChannelParts {
        region: region.clone(),
        spec: CHANNEL,
        peer: PEER,
        waiter,
        doorbell,
        liveness: None,
    });
    let submitter = Submitter::from_parts(ours).expect("a channel");
    (region, submitter, Consumer::from_parts(theirs).expect("a channel"))
}

/// Both sides, or none when the pages (already changed when the taker comes) are no stream.
fn stream(spoil: u32) -> Option<(Arc<Region>, Stream, Stream)> {
    let memory = sealed_memory("fuzz", STREAM.region_bytes()).expect("memory");
    let region = Arc::new(Region::map(memory, STREAM.region_bytes()).expect("mapped"));
    let [ours, theirs] = bells();
    let end = |side, (waiter, doorbell)| {
        let region = region.clone();
        Stream::new(StreamParts { region, spec: STREAM, side, peer: PEER, waiter, doorbell, liveness: None })
    };
    let maker = end(Side::Maker, ours).expect("a stream");
    if spoil != 0 {
        region.word(spoil as usize % 256 * 4).store(spoil, Relaxed);
    }
    Some((region.clone(), maker, end(Side::Taker, theirs).ok()?))
}

fuzz_target!(|bytes: &[u8]| {
    let (steps, _) = bytes.as_chunks::<8>();
    let Some(first) = steps.first() else { return };
    let (pages, submitter, mut consumer) = channel();
    let streams = stream(u32::from(first[6]) * u32::from(first[7]));
    for &[kind, a, b, c, value @ ..] in steps {
        let value = u32::from_le_bytes(value);
        let count = usize::from(u16::from_le_bytes([a, b])) % 2500;
        let word = usize::from(u16::from_le_bytes([a, b])) * 4;
        match kind % 8 {
            0 => pages.word(word % 0x1000).store(value, Relaxed),
            1 => pages.word(RING + word % CHANNEL.ring_bytes as usize).store(value, Relaxed),
            2 => pages.word(0x1000 + usize::from(c % 64) * 4096 + word % 16).store(value, Relaxed),
            3 => drop(submitter.call(1, value, &vec![c; count], &mut [0; 64], AT_ONCE)),
            4 => {
                let replies = consumer.replies().clone();
                if let Ok(Some(record)) = consumer.next() {
                    assert!(record.payload.len() <= CHANNEL.record_limit as usize);
                    if let Some(lane) = record.lane {
                        replies.reply(lane, record.seq, value, &[c; 8]).expect("the call was made");
                    }
                }
            }
            5 => {
                let _ = submitter.last_error();
                let _ = consumer.staging().read(value.into(), &mut vec![0; count]);
            }
            step => {
                let Some((pages, maker, taker)) = &streams else { continue };
                let (from, to) = if c & 1 == 0 { (maker, taker) } else { (taker, maker) };
                match (step, c & 2) {
                    (6, 0) => pages.word(word % 0x1000).store(value, Relaxed),
                    (6, _) => drop(from.finish()),
                    (_, 0) => drop(from.write(&vec![a; count], AT_ONCE)),
                    (_, _) => assert!(to.read(&mut vec![0; count], AT_ONCE).unwrap_or(0) <= count),
                }
            }
        }
    }
});
