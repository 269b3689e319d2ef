//! The shim's door.

use uuid::Uuid;
use vgpu_zone_api::shim::{Client, ClientError, DomainRef, Request, ZoneId};

use super::*;

#[test]
fn the_shims_door_answers_the_same_again_and_refuses_what_cannot_be() {
    let proxy = Proxy::start("null");
    let mut door = Client::connect(proxy.zones_socket(), 10 * SECOND).unwrap();
    let zone = ZoneId(Uuid::from_u128(7));
    let domain = DomainRef { domid: 5, uuid: Uuid::from_u128(8) };
    let register = |domain| Request::Register { zone, pod_uid: "a-1".into(), domain };
    let grant = |device: &str, bytes| {
        let device = device.into();
        Request::Grant { zone, container: "c".into(), device, devices: 1, bytes, share: None }
    };
    let code = |result: Result<(), ClientError>| match result {
        Err(ClientError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    };
    for _ in 0..2 {
        door.done(&register(domain)).unwrap();
        door.done(&grant("0", Some(MIB))).unwrap();
    }
    assert_eq!(code(door.done(&register(DomainRef { domid: 6, ..domain }))), 405);
    assert_eq!(code(door.done(&grant("GPU-none", None))), 402);
    assert_eq!(code(door.done(&grant("0", Some(1 << 40)))), 402);
    let shown = door.list().unwrap().zones.into_iter().find(|shown| shown.zone == zone).unwrap();
    assert_eq!((shown.grants.len(), shown.grants[0].bytes, shown.domain), (1, Some(MIB), Some(domain)));
    let revoke = |domain| Request::Revoke { zone, container: "c".into(), domain };
    let release = |domain| Request::Release { zone, domain };
    // A sandbox of the same pod that is gone.
    let other = DomainRef { uuid: Uuid::from_u128(9), ..domain };
    door.done(&revoke(other)).unwrap();
    door.done(&release(other)).unwrap();
    let listed = door.list().unwrap().zones;
    assert!(listed.contains(&shown), "another sandbox took it away: {listed:?}");
    for _ in 0..2 {
        door.done(&revoke(domain)).unwrap();
        door.done(&release(domain)).unwrap();
    }
    assert!(door.list().unwrap().zones.iter().all(|shown| shown.zone != zone));
    proxy.stop();
}

/// As one who cleans up after a shim that still lives.
#[test]
fn a_zone_that_somebody_else_ends_ends_the_connection_it_was_registered_on() {
    let proxy = Proxy::start("null");
    let domain = |domid| DomainRef { domid, uuid: Uuid::from_u128(domid.into()) };
    let shim = |number: u16| {
        let mut door = Client::connect(proxy.zones_socket(), 10 * SECOND).unwrap();
        let zone = ZoneId(Uuid::from_u128(number.into()));
        let pod_uid = format!("a-{number}");
        door.done(&Request::Register { zone, pod_uid, domain: domain(number) }).unwrap();
        (door, zone)
    };
    let ((one, zone), (mut two, _)) = (shim(1), shim(2));
    two.done(&Request::Release { zone, domain: domain(2) }).unwrap();
    let mut silent = one.into_stream();
    silent.set_read_timeout(Some(SECOND / 5)).unwrap();
    assert!(silent.read(&mut [0]).is_err(), "its zone is another's");

    two.done(&Request::Release { zone, domain: domain(1) }).unwrap();
    silent.set_read_timeout(Some(10 * SECOND)).unwrap();
    assert_eq!(silent.read(&mut [0]).expect("the shim is not told"), 0);
    assert_eq!(two.list().unwrap().zones.iter().filter(|shown| shown.domain == Some(domain(2))).count(), 1);
    proxy.stop();
}
