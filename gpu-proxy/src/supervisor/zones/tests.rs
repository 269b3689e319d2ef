//! What zones allow and refuse.

use std::time::Duration;

use uuid::Uuid;

use super::*;

const GIB: u64 = 1 << 30;

fn zones() -> Zones {
    Zones::new(Limits {
        device_bytes: GIB,
        devices: 1,
        workers_per_zone: 2,
        pages_per_zone: 100,
        pages_max: 1000,
        channel_pages: 10,
        shared_max: 100,
        uids: Some((5000, 2)),
    })
}

/// Three zones with a grant each, which can map `pages` pages together.
fn three_zones(pages_max: u64) -> Zones {
    let mut zones = zones();
    zones.limits = Limits { workers_per_zone: 100, pages_max, uids: Some((5000, 3)), ..zones.limits };
    for (number, domid) in [(1, 5), (2, 6), (3, 7)] {
        zones.register(zone(number), "a", domain(domid, number)).unwrap();
        zones.grant(zone(number), "c", 1, None, None).unwrap();
    }
    zones
}

fn zone(number: u128) -> ZoneId {
    ZoneId(Uuid::from_u128(number))
}

fn domain(domid: u16, uuid: u128) -> Option<DomainRef> {
    Some(DomainRef { domid, uuid: Uuid::from_u128(uuid) })
}

fn code<T: std::fmt::Debug>(result: Result<T, Refusal>) -> Code {
    result.unwrap_err().code
}

#[test]
fn registering_again_is_nothing_and_for_another_domain_is_refused() {
    let mut zones = zones();
    assert!(zones.register(zone(1), "a-1", domain(5, 1)).unwrap());
    assert!(!zones.register(zone(1), "a-1", domain(5, 1)).unwrap());
    assert_eq!(code(zones.register(zone(1), "a-1", domain(5, 2))), Code::ZoneConflict);
    assert_eq!(code(zones.register(zone(2), "a-2", domain(5, 2))), Code::ZoneConflict);
    assert_eq!(code(zones.register(zone(2), "../x", domain(6, 2))), Code::SpecInvalid);
    assert!(zones.register(zone(2), "a-2", domain(6, 2)).unwrap());
    assert_eq!(code(zones.register(zone(3), "a-3", domain(7, 3))), Code::LimitReached);
}

#[test]
fn a_process_without_a_grant_or_beyond_a_limit_is_refused() {
    let mut zones = zones();
    zones.register(zone(1), "a", None).unwrap();
    assert_eq!(code(zones.reserve(zone(1), "c", 1, 1)), Code::NotGranted);
    assert_eq!(code(zones.reserve(zone(2), "c", 1, 1)), Code::NoSuchTask);
    assert_eq!(code(zones.grant(zone(1), "c", 1, Some(GIB + 1), None)), Code::NoDevice);
    zones.grant(zone(1), "c", 1, None, None).unwrap();
    assert_eq!(code(zones.reserve(zone(1), "c", 1, 101)), Code::LimitReached);
    let first = zones.reserve(zone(1), "c", 1, 60).unwrap();
    assert_eq!(code(zones.reserve(zone(1), "c", 1, 60)), Code::LimitReached);
    let second = zones.reserve(zone(1), "c", 1, 40).unwrap();
    assert_eq!((first.slot, second.slot, first.uid), (0, 1, Some(5000)));
    assert_eq!(code(zones.reserve(zone(1), "c", 1, 0)), Code::LimitReached);
    zones.worker_ended(zone(1), first.worker);
    assert_eq!(zones.reserve(zone(1), "c", 1, 60).unwrap().slot, 0);
}

#[test]
fn a_container_is_told_of_its_own_grant_and_workers() {
    let mut zones = zones();
    zones.register(zone(1), "a", None).unwrap();
    zones.register(zone(2), "b", domain(5, 2)).unwrap();
    assert_eq!(code(zones.usage(zone(1), "c")), Code::NotGranted);
    assert_eq!(code(zones.usage(zone(3), "c")), Code::NoSuchTask);
    zones.grant(zone(1), "c", 1, Some(100), None).unwrap();
    zones.grant(zone(1), "d", 1, None, None).unwrap();
    zones.grant(zone(2), "c", 1, Some(50), None).unwrap();
    let place = zones.reserve(zone(1), "c", 7, 1).unwrap();
    zones.reserve(zone(1), "d", 8, 1).unwrap();
    zones.reserve(zone(2), "c", 9, 1).unwrap();
    // The worker's own word in the page.
    place.devices[0].1.store(8 + place.slot, 30);
    let usage = zones.usage(zone(1), "c").unwrap();
    assert_eq!(usage, [Usage { device: 0, limit_bytes: 100, used_bytes: 30, processes: vec![(7, 30)] }]);
    assert_eq!(zones.usage(zone(1), "d").unwrap()[0].limit_bytes, GIB);
    // Of a grant that is given anew the old workers are none.
    zones.revoke(zone(1), None, "c").unwrap();
    assert_eq!(code(zones.usage(zone(1), "c")), Code::NotGranted);
    zones.grant(zone(1), "c", 1, Some(200), None).unwrap();
    let usage = zones.usage(zone(1), "c").unwrap();
    assert_eq!(usage, [Usage { device: 0, limit_bytes: 200, used_bytes: 0, processes: Vec::new() }]);
}

#[test]
fn containers_get_the_devices_that_the_fewest_have_and_are_told_of_each() {
    let mut zones = zones();
    zones.set_devices(3);
    zones.register(zone(1), "a", None).unwrap();
    zones.register(zone(2), "b", domain(5, 2)).unwrap();
    for wrong in [0, 4] {
        assert_eq!(code(zones.grant(zone(1), "c", wrong, None, None)), Code::NoDevice);
    }
    zones.grant(zone(1), "c", 1, Some(100), None).unwrap();
    zones.grant(zone(2), "c", 2, Some(50), None).unwrap();
    zones.grant(zone(2), "d", 2, None, None).unwrap();
    let numbers = |zones: &mut Zones, of, container| -> Vec<u32> {
        zones.usage(zone(of), container).unwrap().iter().map(|usage| usage.device).collect()
    };
    assert_eq!(numbers(&mut zones, 1, "c"), [0]);
    assert_eq!(numbers(&mut zones, 2, "c"), [1, 2]);
    assert_eq!(numbers(&mut zones, 2, "d"), [0, 1]);
    assert_eq!(zones.list()[1].grants[0].device, "1,2");
    // Each device has a page of its own, with the same slot; its worker's end clears both.
    let place = zones.reserve(zone(2), "c", 7, 1).unwrap();
    for ((_, page), bytes) in place.devices.iter().zip([30, 60]) {
        page.store(8 + place.slot, bytes);
    }
    let used = |zones: &mut Zones| -> Vec<u64> {
        zones.usage(zone(2), "c").unwrap().iter().map(|usage| usage.used_bytes).collect()
    };
    assert_eq!(used(&mut zones), [30, 50], "never more than the grant");
    assert_eq!(zones.list()[1].workers[0].device_bytes, 80);
    assert_eq!(code(zones.grant(zone(2), "c", 1, None, None)), Code::ZoneConflict, "it has a worker");
    zones.grant(zone(2), "c", 2, Some(70), None).unwrap();
    assert_eq!(numbers(&mut zones, 2, "c"), [1, 2], "the same ones");
    zones.worker_ended(zone(2), place.worker);
    assert_eq!(used(&mut zones), [0, 0]);
    zones.grant(zone(2), "c", 1, None, None).unwrap();
    assert_eq!(numbers(&mut zones, 2, "c").len(), 1);
}

#[test]
fn no_zone_gets_a_user_that_is_lent() {
    let mut zones = zones();
    let lent = zones.lend_uid().unwrap();
    zones.register(zone(1), "a", None).unwrap();
    zones.grant(zone(1), "c", 1, None, None).unwrap();
    assert_ne!(zones.reserve(zone(1), "c", 1, 1).unwrap().uid, lent);
    assert_eq!(code(zones.register(zone(2), "b", domain(5, 2))), Code::LimitReached, "there are two");
    assert_eq!(code(zones.lend_uid()), Code::LimitReached);
    zones.give_uid_back(lent);
    zones.register(zone(2), "b", domain(5, 2)).unwrap();
}

#[test]
fn a_zone_goes_when_its_last_worker_has_gone() {
    let mut zones = zones();
    zones.register(zone(1), "a", None).unwrap();
    zones.grant(zone(1), "c", 1, None, None).unwrap();
    let place = zones.reserve(zone(1), "c", 1, 1).unwrap();
    assert_eq!(zones.begin_release(zone(1), None), Some(vec![place.worker]));
    assert_eq!(code(zones.reserve(zone(1), "c", 1, 1)), Code::PeerGone);
    assert_eq!(code(zones.register(zone(1), "a", None)), Code::ZoneConflict);
    assert_eq!(zones.finish_release(zone(1)), None);
    zones.worker_ended(zone(1), place.worker);
    assert_eq!(zones.finish_release(zone(1)).as_deref(), Some("a"));
    assert_eq!(zones.begin_release(zone(1), None), None);
    assert!(zones.list().is_empty());
}

#[test]
fn what_a_sandbox_says_too_late_leaves_the_zone_to_the_pods_next_one() {
    let mut zones = zones();
    let (last, next) = (domain(5, 1), domain(6, 2));
    zones.register(zone(1), "a", last).unwrap();
    assert_eq!(zones.begin_release(zone(1), last), Some(Vec::new()));
    assert_eq!(zones.begin_release(zone(1), last), Some(Vec::new()), "it may be said again");
    assert!(zones.finish_release(zone(1)).is_some());

    zones.register(zone(1), "a", next).unwrap();
    zones.grant(zone(1), "c", 1, None, None).unwrap();
    let place = zones.reserve(zone(1), "c", 1, 1).unwrap();
    // The second of those that released the last one.
    assert!(zones.is_idle(zone(1)), "it waits for the workers of another zone");
    zones.worker_ended(zone(1), place.worker);
    assert_eq!(zones.finish_release(zone(1)), None);
    // Of a pod's sandboxes one may have the domain id that another had.
    for other in [last, domain(6, 1), domain(5, 2), None] {
        assert_eq!(zones.revoke(zone(1), other, "c"), None);
        assert_eq!(zones.begin_release(zone(1), other), None);
    }
    let place = zones.reserve(zone(1), "c", 1, 1).unwrap();
    assert_eq!(zones.revoke(zone(1), next, "c"), Some(vec![place.worker]));
    assert_eq!(zones.begin_release(zone(1), next), Some(vec![place.worker]));
}

#[test]
fn a_zone_is_abandoned_only_when_its_guest_has_ended_and_no_shim_is_there() {
    const NOW: Duration = Duration::ZERO;
    let mut zones = zones();
    let (first, second) = (Arc::new(Connection::default()), Arc::new(Connection::default()));
    zones.register(zone(1), "a", domain(5, 1)).unwrap();
    zones.hold(zone(1), &first);
    zones.hold(zone(1), &first);
    zones.hold(zone(1), &second);
    drop(first);
    // Its guest lives.
    assert_eq!(zones.begin_release_of_abandoned(NOW), []);
    zones.set_state(zone(1), ZoneState::Ended);
    // A shim is there.
    assert_eq!(zones.begin_release_of_abandoned(NOW), []);
    drop(second);
    // Not long enough.
    assert_eq!(zones.begin_release_of_abandoned(Duration::from_secs(60)), []);
    assert_eq!(zones.begin_release_of_abandoned(NOW), [(zone(1), domain(5, 1))]);
    assert_eq!(code(zones.register(zone(1), "a", domain(5, 1))), Code::ZoneConflict);
    // Once.
    assert_eq!(zones.begin_release_of_abandoned(NOW), []);
    assert_eq!(zones.finish_release(zone(1)).as_deref(), Some("a"));
}

#[test]
fn a_shim_that_comes_back_keeps_its_zone() {
    let mut zones = zones();
    let after = Duration::from_millis(20);
    zones.register(zone(1), "a", domain(5, 1)).unwrap();
    zones.set_state(zone(1), ZoneState::Ended);
    assert_eq!(zones.begin_release_of_abandoned(after), []);
    std::thread::sleep(after);
    // The time counts anew from here.
    assert!(!zones.register(zone(1), "a", domain(5, 1)).unwrap());
    assert_eq!(zones.begin_release_of_abandoned(after), []);
    std::thread::sleep(after);
    assert_eq!(zones.begin_release_of_abandoned(after), [(zone(1), domain(5, 1))]);
}

#[test]
fn a_zone_leaves_the_others_room_for_a_channel_each() {
    let mut zones = three_zones(60);
    let mut channel = |number| zones.reserve(zone(number), "c", 1, 10).map_err(|refusal| refusal.code);
    let taken = std::iter::from_fn(|| channel(1).ok()).count();
    assert_eq!(taken, 4);
    channel(2).unwrap();
    assert_eq!(channel(2).unwrap_err(), Code::LimitReached, "the last room is zone 3's");
    let last = channel(3).unwrap();
    for number in [1, 2, 3] {
        assert_eq!(channel(number).unwrap_err(), Code::LimitReached, "all together have 60 pages");
    }
    // Nobody waits for room any more: who comes first has what is given back.
    zones.worker_ended(zone(3), last.worker);
    zones.begin_release(zone(3), domain(7, 3)).unwrap();
    zones.reserve(zone(1), "c", 1, 10).unwrap();
}

#[test]
fn where_there_is_no_room_for_all_the_first_ones_have_it() {
    let mut zones = three_zones(20);
    let mut channel = |number| zones.reserve(zone(number), "c", 1, 10).map_err(|refusal| refusal.code);
    channel(2).unwrap();
    assert_eq!(channel(2).unwrap_err(), Code::LimitReached);
    channel(1).unwrap();
    assert_eq!(channel(3).unwrap_err(), Code::LimitReached);
}

#[test]
fn a_grant_given_anew_does_not_get_the_slots_of_the_old_one() {
    let mut zones = zones();
    zones.register(zone(1), "a", None).unwrap();
    zones.grant(zone(1), "c", 1, Some(100), None).unwrap();
    let old = zones.reserve(zone(1), "c", 1, 1).unwrap();
    assert_eq!(zones.revoke(zone(1), None, "c"), Some(vec![old.worker]));
    zones.grant(zone(1), "c", 1, Some(200), None).unwrap();
    let new = zones.reserve(zone(1), "c", 1, 1).unwrap();
    zones.worker_ended(zone(1), old.worker);
    let next = zones.reserve(zone(1), "c", 1, 1).unwrap();
    assert_eq!((new.slot, next.slot, next.bytes), (0, 1, 200));
}

#[test]
fn a_worker_waits_alone_and_counts_for_what_it_is() {
    let mut zones = three_zones(35);
    let container = |zones: &Zones| zones.list()[0].workers.iter().map(|it| it.ahead).collect::<Vec<_>>();
    let waiting = zones.reserve_ahead(zone(1), "c").unwrap();
    assert!(zones.has_workers(zone(1), "c"));
    assert_eq!(zones.is_ahead_of(zone(1), waiting.worker), Some("c"));
    assert!(zones.reserve_ahead(zone(1), "c").is_none(), "one is enough");
    assert!(zones.reserve_ahead(zone(1), "d").is_none(), "it has no grant");
    // It is no process; it keeps nobody's room, and its zone's first channel is still to come.
    assert!(zones.usage(zone(1), "c").unwrap()[0].processes.is_empty());
    zones.reserve(zone(2), "c", 1, 10).unwrap();
    assert_eq!(code(zones.reserve(zone(2), "c", 1, 10)), Code::LimitReached);
    assert_eq!(code(zones.adopt(zone(1), waiting.worker, 7, 26)), Code::LimitReached);
    assert_eq!(container(&zones), [true]);
    zones.adopt(zone(1), waiting.worker, 7, 10).unwrap();
    assert_eq!((container(&zones), zones.list()[0].mapped_pages), (vec![false], 10));
    assert_eq!(zones.usage(zone(1), "c").unwrap()[0].processes, [(7, 0)]);
    assert_eq!(code(zones.adopt(zone(1), waiting.worker, 8, 1)), Code::WorkerFailed, "it is another's");
    zones.worker_ended(zone(1), waiting.worker);
    assert!(zones.list()[0].workers.is_empty());
}

#[test]
fn a_worker_that_waits_is_nobodys_when_its_grant_is_taken_back_or_its_guest_has_ended() {
    let mut zones = three_zones(1000);
    let waiting = zones.reserve_ahead(zone(1), "c").unwrap();
    assert_eq!(zones.revoke(zone(1), domain(5, 1), "c"), Some(vec![waiting.worker]));
    assert_eq!(code(zones.adopt(zone(1), waiting.worker, 7, 1)), Code::NotGranted);
    zones.grant(zone(1), "c", 1, None, None).unwrap();
    assert_eq!(code(zones.adopt(zone(1), waiting.worker, 7, 1)), Code::NotGranted, "that is another grant");
    zones.worker_ended(zone(1), waiting.worker);
    zones.set_state(zone(1), ZoneState::Ended);
    assert!(zones.reserve_ahead(zone(1), "c").is_none());
    zones.begin_release(zone(2), domain(6, 2)).unwrap();
    assert!(zones.reserve_ahead(zone(2), "c").is_none());
}

#[test]
fn arenas_of_a_zone_have_half_of_what_it_may_map_and_leave_room_for_other_zones() {
    let mut zones = three_zones(1000);
    let one = zones.reserve(zone(1), "c", 1, 10).unwrap().worker;
    let two = zones.reserve(zone(1), "c", 2, 10).unwrap().worker;
    zones.take_chunk(zone(1), one, 30).unwrap();
    zones.take_chunk(zone(1), two, 20).unwrap();
    assert_eq!(code(zones.take_chunk(zone(1), one, 1)), Code::LimitReached);
    assert_eq!(zones.list()[0].mapped_pages, 70);
    // Given back, or ended: another one may have it. Never more than was taken.
    zones.give_chunk(zone(1), one, 10);
    zones.take_chunk(zone(1), two, 10).unwrap();
    zones.worker_ended(zone(1), two);
    assert_eq!(zones.list()[0].mapped_pages, 30);
    zones.give_chunk(zone(1), one, 1000);
    assert_eq!(zones.list()[0].mapped_pages, 10);
    // One that has ended takes nothing and gives nothing back.
    assert_eq!(code(zones.take_chunk(zone(1), two, 1)), Code::WorkerFailed);
    zones.give_chunk(zone(1), two, 1);
    // What channels have mapped is of the same whole.
    let third = zones.reserve(zone(1), "c", 3, 60).unwrap().worker;
    assert_eq!(code(zones.take_chunk(zone(1), third, 31)), Code::LimitReached);
    zones.take_chunk(zone(1), third, 30).unwrap();

    // Of all that can be mapped the first channels of two other zones are kept free.
    let mut zones = three_zones(50);
    let one = zones.reserve(zone(1), "c", 1, 10).unwrap().worker;
    assert_eq!(code(zones.take_chunk(zone(1), one, 21)), Code::LimitReached);
    zones.take_chunk(zone(1), one, 20).unwrap();
    zones.reserve(zone(2), "c", 1, 10).unwrap();
    zones.reserve(zone(3), "c", 1, 10).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_zones_workers_are_answered_at_one_pace_whoever_of_them_is_new() {
    let mut zones = zones();
    for number in [1, 2] {
        zones.register(zone(number), "a", domain(5, number).filter(|_| number == 1)).unwrap();
    }
    let start = tokio::time::Instant::now();
    for _ in 0..crate::supervisor::pace::ZONE_EXCHANGES_AT_ONCE {
        zones.pace_of_exchanges(zone(1)).unwrap().wait().await;
    }
    zones.pace_of_exchanges(zone(2)).unwrap().wait().await;
    assert_eq!(start.elapsed(), Duration::ZERO, "the first ones wait, or another zone's do");
    zones.pace_of_exchanges(zone(1)).unwrap().wait().await;
    assert!(start.elapsed() > Duration::ZERO, "all of them are answered at once");
    assert!(zones.pace_of_exchanges(zone(3)).is_none());
}
