//! Parts of zones, and shares that are not there.

use uuid::Uuid;

use super::*;
use crate::supervisor::zones::Limits;

fn zone(number: u128) -> ZoneId {
    ZoneId(Uuid::from_u128(number))
}

/// Zones with these shares of their containers, and a worker in each container.
fn zones(shares: &[&[Option<u32>]]) -> Zones {
    let (device_bytes, devices, channel_pages) = (1 << 30, 1, 1);
    let (workers_per_zone, pages_per_zone, pages_max) = (10, 100, 1000);
    let limits = Limits {
        device_bytes,
        devices,
        workers_per_zone,
        pages_per_zone,
        pages_max,
        channel_pages,
        shared_max: 100,
        uids: None,
    };
    let mut zones = Zones::new(limits);
    for (number, containers) in (0..).zip(shares) {
        zones.register(zone(number), "a", None).unwrap();
        for (name, share) in ["a", "b", "c"].iter().zip(*containers) {
            zones.grant(zone(number), name, 1, None, *share).unwrap();
            zones.reserve(zone(number), name, 1, 1).unwrap();
        }
    }
    zones
}

/// Of all workers in order, in thousandths: their grants' and zones' parts.
fn parts(zones: &Zones) -> Vec<(u64, u64)> {
    zones.sharers().iter().map(|sharer| (sharer.part / 1000, sharer.zone_part / 1000)).collect()
}

#[test]
fn who_has_no_share_has_what_is_left_over_each_zone_as_much() {
    let none: &[_] = &[None];
    assert_eq!(parts(&zones(&[none, none])), [(500, 500), (500, 500)]);
    assert_eq!(parts(&zones(&[&[Some(250)], none, none])), [(250, 250), (375, 375), (375, 375)]);
    // Two containers of one zone get no more than one of another's.
    assert_eq!(parts(&zones(&[&[None, None], none])), [(250, 500), (250, 500), (500, 500)]);
    assert_eq!(parts(&zones(&[&[Some(100), None], none])), [(100, 550), (450, 550), (450, 450)]);
    assert_eq!(parts(&zones(&[&[Some(1000)], none])), [(1000, 1000), (1, 1)]);
}

#[test]
fn no_more_than_the_device_has_is_given() {
    let mut zones = zones(&[&[Some(600)], &[Some(300), None]]);
    let mut grant = |number, container: &str, share| {
        zones.grant(zone(number), container, 1, None, Some(share)).map_err(|refusal| refusal.code)
    };
    assert_eq!(grant(1, "c", 101), Err(Code::LimitReached));
    assert_eq!(grant(1, "c", 100), Ok(()));
    // Again, and changed: its own does not stand in its way.
    assert_eq!((grant(0, "a", 600), grant(0, "a", 601)), (Ok(()), Err(Code::LimitReached)));
    assert_eq!((grant(0, "a", 500), grant(1, "b", 100)), (Ok(()), Ok(())));
    assert_eq!((grant(0, "a", 0), grant(0, "a", 1001)), (Err(Code::SpecInvalid), Err(Code::SpecInvalid)));
    let refusal = zones.grant(zone(1), "c", 1, None, Some(900)).unwrap_err();
    assert!(refusal.text.contains("leave 100 "), "{refusal}");
    // A zone that is being released gives its share back.
    zones.begin_release(zone(0), None).unwrap();
    zones.grant(zone(1), "c", 1, None, Some(600)).unwrap();
}

#[test]
fn workers_of_a_grant_that_was_taken_back_share_no_more() {
    let mut zones = zones(&[&[Some(500)], &[Some(500)]]);
    zones.revoke(zone(0), None, "a").unwrap();
    assert_eq!(zones.sharers().len(), 1);
    zones.grant(zone(0), "a", 1, None, Some(100)).unwrap();
    assert_eq!(zones.sharers().len(), 1, "the old one is not of the new grant");
}

#[test]
fn a_share_is_of_one_device_and_goes_where_it_fits() {
    let mut zones = zones(&[&[Some(600)]]);
    zones.set_devices(2);
    zones.register(zone(1), "b", None).unwrap();
    // To the second device, which has no container yet; to the first, of two with as many; to the second, past the first that has less left.
    for (container, share) in [("a", 600), ("b", 100), ("c", 50), ("e", 320)] {
        zones.grant(zone(1), container, 1, None, Some(share)).unwrap();
        zones.reserve(zone(1), container, 1, 1).unwrap();
    }
    let sharers = zones.sharers();
    let seen: Vec<_> = sharers.iter().map(|sharer| (sharer.device, sharer.part / 1000)).collect();
    assert_eq!(seen, [(0, 600), (0, 100), (1, 600), (1, 50), (1, 320)]);
    let code = |result: Result<(), Refusal>| result.map_err(|refusal| refusal.code);
    assert_eq!(code(zones.grant(zone(1), "d", 1, None, Some(301))), Err(Code::LimitReached));
    assert_eq!(code(zones.grant(zone(1), "d", 2, None, Some(1))), Err(Code::SpecInvalid));
    // One with both has no part, and takes none from others.
    zones.grant(zone(1), "d", 2, None, None).unwrap();
    zones.reserve(zone(1), "d", 1, 1).unwrap();
    assert_eq!(zones.sharers().len(), 5);
}
