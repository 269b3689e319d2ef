//! Workers that wait for their process, over the local socket: real ones of the software GPU.

mod common;

use std::fs;

use common::{C, Proxy, SECOND, alive, children, signal, until};
use idm::arena::{SINCE_MINOR, WINDOW};
use idm::hello::Hello;
use idm::record::RECORD_LIMIT_MAX;
use tempfile::NamedTempFile;
use uuid::Uuid;
use vgpu_api::{ContextId, CuError, DevicePtr, WIRE_HASH, ask};
use vgpu_zone_api::shim::{Client, DomainRef, Request, WorkerInfo, ZoneId};

const MIB: u64 = 1 << 20;

/// With what else the configuration says of the proxy.
fn start(device: &str, more: &str) -> (Proxy, NamedTempFile) {
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), format!("[proxy]\nworkers_ahead = \"on\"\n{more}")).unwrap();
    (Proxy::start_with(device, &["--config", file.path().to_str().unwrap()]), file)
}

/// The one that waits, once it can be used.
fn waiting(proxy: &Proxy) -> WorkerInfo {
    let listed = || proxy.workers().into_iter().find(|worker| worker.ahead && worker.pid != 0);
    until("a worker waits", || listed().is_some());
    listed().unwrap()
}

#[test]
fn the_first_process_gets_the_worker_that_waits_and_no_other_process_does() {
    let (proxy, _file) = start("soft", "");
    let ahead = waiting(&proxy);
    assert_eq!((ahead.guest_pid, ahead.container.as_str(), proxy.workers().len()), (0, "local", 1));
    assert!(proxy.facts().unwrap().processes.is_empty(), "it is no process");

    let one = proxy.guest();
    let worker = &proxy.workers()[0];
    assert_eq!((worker.pid, worker.ahead, worker.guest_pid), (ahead.pid, false, std::process::id()));
    // All of the grant is the process's, and all that others have is its own: memory, the arena.
    let at = ask::cuMemAlloc_v2(&one, C, 64 * MIB).unwrap();
    assert_eq!(ask::cuMemAlloc_v2(&one, C, 1), Err(CuError::OUT_OF_MEMORY));
    let pinned = DevicePtr(WINDOW as u64);
    ask::vgpuArenaAdd(&one, ContextId::NONE, pinned, MIB).unwrap();
    let pages = one.arena.as_ref().expect("the proxy gives one").map_elsewhere().unwrap();
    pages.write(0, b"there");
    ask::cuMemcpyAsync(&one, C, at, pinned, 5, vgpu_api::Stream::Legacy).unwrap();
    ask::cuMemcpyAsync(&one, C, pinned.offset(9).unwrap(), at, 5, vgpu_api::Stream::Legacy).unwrap();
    ask::cuStreamSynchronize(&one, C, vgpu_api::Stream::Legacy).unwrap();
    let mut seen = [0; 5];
    pages.read(9, &mut seen);
    assert_eq!(&seen, b"there");

    let two = proxy.guest();
    let workers = proxy.workers();
    assert_eq!(workers.len(), 2);
    assert!(workers.iter().all(|worker| !worker.ahead), "none waits beside processes: {workers:?}");
    assert!(workers.iter().any(|worker| worker.pid != ahead.pid));
    drop((one, two));
    let next = waiting(&proxy);
    assert_ne!(next.pid, ahead.pid, "none is used again");
    until("nobody else is there", || proxy.workers().len() == 1);
    assert_eq!(proxy.device_bytes(), 0);
    proxy.stop();
    assert!(!alive(next.pid));
}

#[test]
fn one_that_waits_is_in_its_sandbox_and_behind_the_door_when_it_serves() {
    let (proxy, _file) = start("null", "");
    let ahead = waiting(&proxy);
    until("it has nothing to gain", || common::status(ahead.pid, "NoNewPrivs") == "1");
    assert_eq!(common::status(ahead.pid, "CapEff").trim_start_matches('0'), "");
    assert_eq!(common::status(ahead.pid, "Seccomp"), "0");
    let guest = proxy.guest();
    assert_eq!(common::status(ahead.pid, "Seccomp"), "2");
    let fds = fs::read_dir(format!("/proc/{}/fd", ahead.pid)).unwrap().count();
    assert!(fds <= 9, "{fds} descriptors");
    drop(guest);
    proxy.stop();
}

#[test]
fn one_that_dies_while_it_waits_is_forgotten_and_the_next_process_gets_a_fresh_one() {
    let (proxy, _file) = start("soft", "");
    let ahead = waiting(&proxy);
    signal(ahead.pid, libc::SIGKILL);
    until("it is gone", || proxy.workers().is_empty());
    let guest = proxy.guest();
    ask::cuMemAlloc_v2(&guest, C, MIB).unwrap();
    let workers = proxy.workers();
    assert!(workers.len() == 1 && workers[0].pid != ahead.pid && !workers[0].ahead, "{workers:?}");
    drop(guest);
    let next = waiting(&proxy);
    // At once: its death may not have been seen.
    signal(next.pid, libc::SIGKILL);
    until("it has ended", || !alive(next.pid));
    let guest = proxy.guest();
    assert_ne!(proxy.workers()[0].pid, next.pid);
    drop(guest);
    waiting(&proxy);
    proxy.stop();
}

#[test]
fn a_process_that_cannot_use_it_has_the_grant_to_itself() {
    let installed = tempfile::tempdir().unwrap();
    let folder = installed.path().canonicalize().unwrap();
    fs::copy(env!("CARGO_BIN_EXE_gpu-proxy"), folder.join(format!("{:016x}", 0x1234))).unwrap();
    let (proxy, _file) = start("null", &format!("workers_dir = \"{}\"\n", folder.display()));
    let no_arena = Hello { minor: SINCE_MINOR - 1, ..Hello::new(RECORD_LIMIT_MAX, WIRE_HASH) };
    for hello in [no_arena, Hello::new(RECORD_LIMIT_MAX, 0x1234)] {
        let ahead = waiting(&proxy);
        let guest = idm::connect::connect(&proxy.socket(), &hello, 20 * SECOND).unwrap();
        assert!(!alive(ahead.pid), "it waits beside a process");
        let workers = proxy.workers();
        assert!(workers.len() == 1 && !workers[0].ahead, "{workers:?}");
        drop(guest);
    }
    waiting(&proxy);
    proxy.stop();
}

#[test]
fn what_is_revoked_or_released_has_nobody_waiting() {
    let (proxy, _file) = start("null", "");
    let mut door = Client::connect(proxy.zones_socket(), 10 * SECOND).unwrap();
    let (zone, domain) = (ZoneId(Uuid::from_u128(7)), DomainRef { domid: 5, uuid: Uuid::from_u128(8) });
    let grant = |container: &str| {
        let (container, device) = (container.into(), "0".into());
        Request::Grant { zone, container, device, devices: 1, bytes: Some(MIB), share: None }
    };
    // The local zone has its own.
    let all = || proxy.list().zones.into_iter().flat_map(|shown| shown.workers);
    let of_zone = || all().filter(|worker| worker.container != "local").collect::<Vec<_>>();
    door.done(&Request::Register { zone, pod_uid: "a-1".into(), domain }).unwrap();
    for _ in 0..2 {
        door.done(&grant("c")).unwrap();
    }
    door.done(&grant("d")).unwrap();
    let born = |count: usize| of_zone().iter().filter(|it| it.ahead && it.pid != 0).count() == count;
    until("one waits for each container", || born(2));
    assert_eq!(of_zone().len(), 2, "granted twice, and still one");
    until("and one for the local zone", || all().any(|it| it.container == "local" && it.pid != 0));
    let own = all().find(|worker| worker.container == "local").unwrap();

    door.done(&Request::Revoke { zone, container: "c".into(), domain }).unwrap();
    let left = of_zone();
    assert!(left.len() == 1 && left[0].container == "d", "{left:?}");
    // While it is being born, too.
    door.done(&grant("c")).unwrap();
    door.done(&Request::Revoke { zone, container: "c".into(), domain }).unwrap();
    assert_eq!(of_zone().len(), 1);
    door.done(&grant("c")).unwrap();
    door.done(&Request::Release { zone, domain }).unwrap();
    assert!(proxy.list().zones.iter().all(|shown| shown.zone != zone));
    until("no process is left", || children(proxy.pid()) == [own.pid]);
    proxy.stop();
}

#[test]
fn none_waits_unless_it_is_wanted() {
    let proxy = Proxy::start("soft");
    let guest = proxy.guest();
    assert_eq!(proxy.workers().len(), 1);
    drop(guest);
    until("the zone is empty", || proxy.workers().is_empty());
    assert!(children(proxy.pid()).is_empty());
    proxy.stop();
}
