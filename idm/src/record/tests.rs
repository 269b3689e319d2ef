use std::time::{Duration, Instant};

use super::layout::{CONSUMER_LIFE, HEAD, Slot};
use super::long_wait::Awaited;
use super::*;
use crate::error::RecordFlaw;

const LONG: Option<Duration> = Some(Duration::from_secs(20));
const SHORT: Option<Duration> = Some(Duration::from_millis(20));

fn small() -> RegionSpec {
    RegionSpec { ring_bytes: 4096, staging_bytes: 256 << 10, record_limit: 1024 }
}

/// Serves in a thread until the peer goes: answers each call with its op as status and its payload.
fn echo(mut consumer: Consumer) -> std::thread::JoinHandle<(u64, ChannelError)> {
    std::thread::spawn(move || {
        let replies = consumer.replies().clone();
        let mut seen = 0;
        loop {
            match consumer.next() {
                Ok(Some(record)) => {
                    seen += 1;
                    if let Some(lane) = record.lane {
                        replies.reply(lane, record.seq, record.op.into(), record.payload).unwrap();
                    }
                }
                Ok(None) => match consumer.wait(LONG) {
                    Ok(ready) => assert_eq!(ready, Ready::Record),
                    Err(e) => return (seen, e),
                },
                Err(e) => return (seen, e),
            }
        }
    })
}

#[test]
fn records_come_in_order_with_all_they_carry() {
    let (submitter, mut consumer) = pair(small()).unwrap();
    for i in 0..2000u16 {
        let payload = vec![i.to_le_bytes()[0]; usize::from(i) % 1025];
        let seq = submitter.submit_bytes(i, u32::from(i) * 3, &payload).unwrap();
        let record = consumer.next().unwrap().unwrap();
        assert_eq!((record.op, record.ctx, record.seq, record.lane), (i, u32::from(i) * 3, seq, None));
        assert_eq!(record.payload, payload);
        assert!(consumer.next().unwrap().is_none());
    }
}

/// As long as a halted processor takes to run a consumer that was rung for, under a hypervisor.
#[test]
fn a_call_looks_for_longer_than_a_parked_consumer_takes_to_answer() {
    const CALLS: u64 = 50;
    let (submitter, mut consumer) = pair(small()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let replies = consumer.replies().clone();
            for _ in 0..CALLS {
                let (lane, seq) = loop {
                    if let Some(record) = consumer.next().unwrap() {
                        break (record.lane.unwrap(), record.seq);
                    }
                };
                let came = Instant::now();
                while came.elapsed() < Duration::from_micros(100) {}
                replies.reply(lane, seq, 0, &[]).unwrap();
            }
        });
        for _ in 0..CALLS {
            submitter.call(1, 0, &[], &mut [], LONG).unwrap();
        }
    });
    // Where others want the processors, some are slept for.
    assert!(submitter.sleeps() < CALLS, "each of them was slept for");
}

#[test]
fn what_a_fill_leaves_out_is_zero_even_in_used_room() {
    let (submitter, mut consumer) = pair(small()).unwrap();
    for _ in 0..50 {
        submitter.submit_bytes(1, 0, &[0xff; 1000]).unwrap();
        assert!(consumer.next().unwrap().is_some());
        submitter.submit(2, 0, 100, |payload| payload.put(&[7])).unwrap();
        let record = consumer.next().unwrap().unwrap();
        assert_eq!((record.payload[0], &record.payload[1..]), (7, &[0; 99][..]));
        assert!(consumer.next().unwrap().is_none());
    }
}

#[test]
fn payload_that_looks_like_a_record_is_none() {
    // Every word is a sequence that some position waits for, lap after lap.
    let (submitter, mut consumer) = pair(small()).unwrap();
    for lap in 0..40u64 {
        let ahead = (lap + 1) * 4096;
        let payload: Vec<u8> =
            (0..250u64).flat_map(|i| layout::sequence(ahead + i % 256 * 16).to_le_bytes()).collect();
        for _ in 0..4 {
            submitter.submit_bytes(1, 0, &payload).unwrap();
            assert_eq!(consumer.next().unwrap().unwrap().payload, payload);
            assert!(consumer.next().unwrap().is_none());
        }
    }
}

#[test]
fn many_threads_call_and_each_gets_its_own_answer() {
    let (submitter, consumer) = pair(small()).unwrap();
    let server = echo(consumer);
    std::thread::scope(|scope| {
        for thread in 0..80u16 {
            let submitter = &submitter;
            scope.spawn(move || {
                for i in 0..20u16 {
                    let bytes = [thread.to_le_bytes(), i.to_le_bytes()].concat();
                    submitter.submit_bytes(9, 0, &bytes).unwrap();
                    let mut to = [0; 64];
                    let reply = submitter.call(thread, 0, &bytes, &mut to, LONG).unwrap();
                    assert_eq!((reply.status, &to[..reply.len]), (thread.into(), &bytes[..]));
                }
            });
        }
    });
    drop(submitter);
    let (seen, end) = server.join().unwrap();
    assert_eq!(seen, 80 * 40);
    assert!(matches!(end, ChannelError::PeerGone(_)));
}

/// The ring's room is whose thread is first.
#[test]
fn room_that_another_thread_took_is_waited_for_again_and_no_end_of_the_peer() {
    let (submitter, _consumer) = pair(small()).unwrap();
    let soon = Instant::now() + Duration::from_millis(30);
    let mut asked = 0;
    // Not while it is looked for; there when the sleep ends, gone when that is looked at, and there again.
    let ready = || {
        asked += u32::from(Instant::now() >= soon);
        asked > 0 && asked != 2
    };
    assert!(submitter.wait_for(Awaited::Room(64), ready, Some(soon)).unwrap());
    assert!(asked > 2, "it was not asked again");
}

#[test]
fn a_wait_that_lasts_is_told_of_once_with_what_both_sides_say() {
    static TOLD: std::sync::Mutex<Vec<LongWait>> = std::sync::Mutex::new(Vec::new());
    let (submitter, mut consumer) = pair(small()).unwrap();
    submitter.tell_of_long_waits(Duration::from_millis(20), |wait| TOLD.lock().unwrap().push(*wait));
    let mut to = [0; 16];
    assert!(submitter.call(7, 0, &[1; 16], &mut to, Some(Duration::from_millis(200))).is_err());
    // A short one is nothing to tell of.
    let server = std::thread::spawn(move || {
        while consumer.next().unwrap().is_some_and(|record| record.op != 8) {}
        consumer
    });
    assert!(submitter.call(8, 0, &[], &mut to, Some(Duration::from_millis(10))).is_err());
    drop(server.join().unwrap());

    let told = TOLD.lock().unwrap();
    let [wait] = told[..] else { panic!("{told:?}") };
    assert!(matches!(wait.awaited, Awaited::Reply { op: 7, lane: 0, .. }), "{wait:?}");
    assert_eq!((wait.reserved, wait.queued(), wait.unrung, wait.sleeps), (32, 32, false, 1));
    assert!(wait.waited >= Duration::from_millis(20), "{wait:?}");
    assert!(
        wait.to_string().ends_with("32 of them not taken; 1 sleeps; the worker is awake; 0 errors told"),
        "{wait}"
    );
}

#[test]
fn what_is_there_without_a_ring_is_told_so() {
    static UNRUNG: std::sync::Mutex<Vec<bool>> = std::sync::Mutex::new(Vec::new());
    let (submitter, _consumer) = pair(small()).unwrap();
    submitter
        .tell_of_long_waits(Duration::from_millis(1000), |wait| UNRUNG.lock().unwrap().push(wait.unrung));
    let start = Instant::now();
    submitter.wait_until(|| start.elapsed() > Duration::from_millis(500)).unwrap();
    assert_eq!(*UNRUNG.lock().unwrap(), [true]);
}

#[test]
fn a_full_ring_holds_the_program_back_until_there_is_room() {
    let (submitter, mut consumer) = pair(small()).unwrap();
    let sender = std::thread::spawn(move || {
        for i in 0..200u16 {
            submitter.submit_bytes(i, 0, &[1; 1000]).unwrap();
        }
        submitter.sleeps()
    });
    std::thread::sleep(Duration::from_millis(50));
    for i in 0..200 {
        while consumer.wait(LONG).unwrap() != Ready::Record {}
        // A record that only fills the ring up to its end is skipped.
        let op = loop {
            if let Some(record) = consumer.next().unwrap() {
                break record.op;
            }
            consumer.wait(LONG).unwrap();
        };
        assert_eq!(op, i);
    }
    assert!(sender.join().unwrap() > 0, "the ring was never full");
}

#[test]
fn a_fill_that_panics_costs_one_record_and_nothing_else() {
    let (submitter, mut consumer) = pair(small()).unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = submitter.submit(1, 0, 8, |payload| payload.put(&[0; 9]));
    }));
    assert!(panicked.is_err());
    submitter.submit_bytes(2, 0, b"next").unwrap();
    assert_eq!(consumer.next().unwrap().unwrap().op, 2);
}

#[test]
fn a_consumer_that_goes_is_an_error_in_every_call_and_no_hang() {
    let (submitter, consumer) = pair(small()).unwrap();
    std::thread::scope(|scope| {
        let calls: Vec<_> =
            (0..3).map(|_| scope.spawn(|| submitter.call(1, 0, &[], &mut [0; 8], LONG))).collect();
        std::thread::sleep(Duration::from_millis(20));
        drop(consumer);
        for call in calls {
            assert!(matches!(call.join().unwrap(), Err(ChannelError::PeerGone(_))));
        }
    });
    assert!(matches!(submitter.submit_bytes(1, 0, &[]), Err(ChannelError::PeerGone(_))));
}

#[test]
fn a_call_is_the_newest_record_until_any_thread_submits_another() {
    let (submitter, consumer) = pair(small()).unwrap();
    let worker = echo(consumer);
    // Sizes that need fillers at the ring's end, too.
    for bytes in (0..1000).step_by(7) {
        let reply = submitter.call(1, 0, &vec![1; bytes], &mut [0; 1024], LONG).unwrap();
        assert_eq!(submitter.submitted_until(), reply.end, "{bytes} bytes");
        if bytes % 2 == 0 {
            std::thread::scope(|scope| {
                scope.spawn(|| submitter.submit_bytes(2, 0, &[]).unwrap());
            });
            assert_ne!(submitter.submitted_until(), reply.end, "{bytes} bytes");
        }
    }
    drop(submitter);
    assert!(matches!(worker.join().unwrap().1, ChannelError::PeerGone(_)));
}

#[test]
fn a_late_reply_to_a_call_given_up_reaches_nobody() {
    let (submitter, mut consumer) = pair(small()).unwrap();
    assert!(matches!(submitter.call(1, 0, &[], &mut [0; 8], SHORT), Err(ChannelError::TimedOut { .. })));
    let replies = consumer.replies().clone();
    let record = consumer.next().unwrap().unwrap();
    let (lane, seq) = (record.lane.unwrap(), record.seq);
    std::thread::scope(|scope| {
        let second = scope.spawn(|| submitter.call(2, 0, &[], &mut [0; 8], LONG));
        while consumer.wait(LONG).unwrap() != Ready::Record {}
        let record = consumer.next().unwrap().unwrap();
        assert_ne!(record.lane, Some(lane));
        replies.reply(lane, seq, 77, b"late").unwrap();
        replies.reply(record.lane.unwrap(), record.seq, 5, b"").unwrap();
        let second = second.join().unwrap().unwrap();
        assert_eq!((second.status, second.len), (5, 0));
    });
}

#[test]
fn a_reply_goes_once_to_a_call_that_was_made() {
    let (submitter, mut consumer) = pair(small()).unwrap();
    assert!(submitter.call(1, 0, &[], &mut [0; 8], SHORT).is_err());
    let replies = consumer.replies().clone();
    let record = consumer.next().unwrap().unwrap();
    let (lane, seq) = (record.lane.unwrap(), record.seq);
    assert!(matches!(replies.reply(lane, seq ^ 2, 0, &[]), Err(ChannelError::NoSuchCall { .. })));
    assert!(matches!(replies.reply(64, seq, 0, &[]), Err(ChannelError::NoSuchCall { .. })));
    assert!(matches!(replies.reply(lane, seq, 0, &[0; 4081]), Err(ChannelError::TooLong { .. })));
    replies.reply(lane, seq, 0, &[0; 4080]).unwrap();
    assert!(matches!(replies.reply(lane, seq, 0, &[]), Err(ChannelError::NoSuchCall { .. })));
}

#[test]
fn a_thread_stopped_between_reserve_and_publish_holds_back_without_a_spin() {
    let (submitter, mut consumer) = pair(small()).unwrap();
    let (reserved, go) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            submitter.submit(1, 0, 0, |_| {
                reserved.wait();
                go.wait();
            })
        });
        reserved.wait();
        submitter.submit_bytes(2, 0, &[]).unwrap();
        assert!(consumer.next().unwrap().is_none());
        let before = consumer.sleeps();
        assert_eq!(consumer.wait(SHORT), Ok(Ready::TimedOut));
        assert!(consumer.sleeps() > before, "it polled instead of sleeping");
        go.wait();
        assert_eq!(consumer.wait(LONG), Ok(Ready::Record));
        assert_eq!(consumer.next().unwrap().unwrap().op, 1);
        assert_eq!(consumer.next().unwrap().unwrap().op, 2);
    });
}

#[test]
fn errors_come_back() {
    let (submitter, consumer) = pair(small()).unwrap();
    assert_eq!((submitter.error_count(), submitter.last_error()), (0, None));
    let error = ErrorWord { seq: 9, code: 700, sticky: true, ctx: 3 };
    consumer.replies().set_error(error);
    assert_eq!((submitter.error_count(), submitter.last_error()), (1, Some((1, error))));
}

#[test]
fn staging_carries_what_no_record_can_and_checks_the_peers_words() {
    let (submitter, mut consumer) = pair(small()).unwrap();
    let chunk = submitter.stage(200 << 10, LONG).unwrap();
    assert!(matches!(submitter.stage(100 << 10, SHORT), Err(ChannelError::TimedOut { .. })));
    assert!(matches!(submitter.stage(300 << 10, LONG), Err(ChannelError::TooLong { .. })));
    let bytes: Vec<u8> = (0..=255).cycle().take(200 << 10).collect();
    chunk.write(0, &bytes);
    submitter.submit_bytes(1, 0, &chunk.offset().to_le_bytes()).unwrap();
    let offset = u64::from(chunk.offset());

    let mut back = vec![0; bytes.len()];
    consumer.staging().read(offset, &mut back).unwrap();
    assert_eq!(back, bytes);
    assert!(consumer.next().unwrap().is_some());
    drop(chunk);
    assert_eq!(submitter.stage(256 << 10, LONG).unwrap().offset(), 0);

    for (offset, len) in [(256 << 10, 1), (u64::MAX, 1), (1, 256 << 10), (u64::MAX - 3, 4)] {
        let error = consumer.staging().address(offset, len).unwrap_err();
        assert!(matches!(error, ChannelError::PeerStaging { .. }));
    }
}

/// Lets `spoil` change the region after one good record was submitted, and says what the consumer thinks of it.
fn spoiled(spoil: impl FnOnce(&Region, usize)) -> ChannelError {
    let memory = make_region(&small()).unwrap();
    let bytes = small().region_bytes().unwrap();
    let region = Arc::new(Region::map(&memory, bytes).unwrap());
    let parts = || {
        let (bell, ear) = crate::doorbell::eventfd_pair().unwrap();
        let (waiter, doorbell) = (Waiter::EventFd(ear), Doorbell::EventFd(bell));
        ChannelParts {
            region: region.clone(),
            spec: small(),
            peer: Peer::Domain(5),
            waiter,
            doorbell,
            liveness: None,
        }
    };
    let submitter = Submitter::from_parts(parts()).unwrap();
    let mut consumer = Consumer::from_parts(parts()).unwrap();
    submitter.submit_bytes(1, 0, &[1; 100]).unwrap();
    spoil(&region, small().ring_place().data);
    let error = consumer.next().expect_err("the consumer believed it");
    assert_eq!(consumer.next().unwrap_err(), error, "a broken channel was used again");
    assert!(matches!(submitter.submit_bytes(1, 0, &[]), Err(ChannelError::PeerGone(_))));
    error
}

#[test]
fn a_bad_record_ends_the_channel_and_says_why() {
    let flaw = |error| match error {
        ChannelError::PeerRecord { flaw, .. } => flaw,
        other => panic!("{other}"),
    };
    let sequence = flaw(spoiled(|region, ring| region.word(ring + 12).store(0x55, Relaxed)));
    assert_eq!(sequence, RecordFlaw::Sequence { found: 0x55, expected: 1 });
    let length = flaw(spoiled(|region, ring| region.word(ring).store(1025, Relaxed)));
    assert_eq!(length, RecordFlaw::Length { claimed: 1025, limit: 1024 });
    let skip = flaw(spoiled(|region, ring| region.word(ring).store(4 << 24 | 4096, Relaxed)));
    assert_eq!(skip, RecordFlaw::Length { claimed: 4096, limit: 4080 });
    let flags = flaw(spoiled(|region, ring| region.word(ring).store(0x80 << 24, Relaxed)));
    assert_eq!(flags, RecordFlaw::Flags(0x80));
    let lane = flaw(spoiled(|region, ring| {
        region.word(ring).store(1 << 24, Relaxed);
        region.word(ring + 4).store(64 << 16, Relaxed);
    }));
    assert_eq!(lane, RecordFlaw::Lane(64));
}

#[test]
fn a_lane_that_waits_cannot_call_again() {
    let (submitter, mut consumer) = pair(small()).unwrap();
    for _ in 0..2 {
        let reserved = submitter.ring.reserve(0).unwrap().unwrap();
        reserved.publish(producer::Header { flags: layout::FLAG_SYNC, op: 1, lane: 3, ctx: 0 });
    }
    assert!(consumer.next().unwrap().is_some());
    let error = consumer.next().unwrap_err();
    assert!(matches!(error, ChannelError::PeerRecord { flaw: RecordFlaw::LaneBusy(3), .. }));
}

#[test]
fn a_head_that_cannot_be_ends_the_channel() {
    for bad in [1, 300, u32::MAX] {
        let (submitter, _consumer) = pair(small()).unwrap();
        submitter.region.word(HEAD).store(bad, Relaxed);
        // A head inside of what was submitted is believed; one past it is found out once room is needed.
        let error = (0..20).find_map(|_| {
            submitter
                .call(1, 0, &[0; 1000], &mut [], SHORT)
                .err()
                .filter(|e| !matches!(e, ChannelError::TimedOut { .. }))
        });
        if bad > 256 {
            assert!(matches!(error, Some(ChannelError::PeerIndex { index: "head", .. })), "{bad}: {error:?}");
        }
    }
}

#[test]
fn a_reply_longer_than_a_slot_ends_the_channel() {
    let (submitter, mut consumer) = pair(small()).unwrap();
    std::thread::scope(|scope| {
        let call = scope.spawn(|| submitter.call(1, 0, &[], &mut [0; 4080], LONG));
        while consumer.wait(LONG).unwrap() != Ready::Record {}
        let record = consumer.next().unwrap().unwrap();
        let slot = Slot::of(record.lane.unwrap());
        submitter.region.word(slot.length()).store(4081, Relaxed);
        submitter.region.word(slot.seq()).store(record.seq, Release);
        consumer.replies().ring().unwrap();
        assert!(matches!(
            call.join().unwrap(),
            Err(ChannelError::PeerReply { claimed: 4081, limit: 4080, .. })
        ));
    });
}

#[test]
fn the_life_word_is_read_as_gone_whatever_nonsense_it_holds() {
    let (submitter, _consumer) = pair(small()).unwrap();
    submitter.region.word(CONSUMER_LIFE).store(0xdead_beef, Relaxed);
    assert!(matches!(submitter.submit_bytes(1, 0, &[]), Err(ChannelError::PeerGone(_))));
}

#[test]
fn nobody_sleeps_or_rings_while_both_sides_are_busy() {
    let (submitter, mut consumer) = pair(RegionSpec::default()).unwrap();
    for i in 0..10_000u16 {
        submitter.submit_bytes(i, 0, &[1; 100]).unwrap();
        assert_eq!(consumer.next().unwrap().unwrap().op, i);
    }
    assert_eq!((submitter.sleeps(), consumer.sleeps()), (0, 0));
}

#[test]
fn a_thread_that_waits_for_a_word_in_staging_is_woken_beside_one_that_waits_for_a_reply() {
    let (submitter, mut consumer) = pair(small()).unwrap();
    let chunk = submitter.stage(8, LONG).unwrap();
    let word = || {
        let mut bytes = [0; 8];
        chunk.read(0, &mut bytes);
        u64::from_le_bytes(bytes)
    };
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| submitter.wait_until(|| word() == 7));
        let calling = scope.spawn(|| submitter.call(1, 0, &[], &mut [0; 8], LONG));
        while consumer.wait(LONG) == Ok(Ready::Record) {
            let Some(record) = consumer.next().unwrap() else { continue };
            let (lane, seq) = (record.lane.unwrap(), record.seq);
            // Both are asleep by now.
            std::thread::sleep(Duration::from_millis(20));
            consumer.staging().write(u64::from(chunk.offset()), &7_u64.to_le_bytes()).unwrap();
            consumer.staging().wake().unwrap();
            assert_eq!(waiting.join().unwrap(), Ok(()));
            consumer.replies().reply(lane, seq, 5, &[]).unwrap();
            break;
        }
        assert_eq!(calling.join().unwrap().unwrap().status, 5);
    });
    let chunk = submitter.stage(8, LONG).unwrap();
    drop(consumer);
    assert!(matches!(submitter.wait_until(|| chunk.is_empty()), Err(ChannelError::PeerGone(_))));
}
