//! Starts of workers that do not come to their end.

use std::fs::File;
use std::future::ready;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, watch};
use uuid::Uuid;
use vgpu_config::Config;
use vgpu_zone_api::shim::ZoneState;

use super::*;
use crate::supervisor::cgroup::Cgroups;
use crate::supervisor::{GuestDoor, Mode, channel_pages, lock};
use crate::worker::assignment::ChannelKind;

const ZONE: ZoneId = ZoneId(Uuid::from_u128(1));
/// After [`ZONE`] in every list.
const OTHER: ZoneId = ZoneId(Uuid::from_u128(2));
const LIMIT: Duration = Duration::from_secs(10);

/// A supervisor with one zone and one grant, without a guest.
fn supervisor() -> Arc<Supervisor> {
    supervisor_with(|_| ())
}

/// The same, changed.
fn supervisor_with(change: impl FnOnce(&mut Supervisor)) -> Arc<Supervisor> {
    let mut supervisor = Supervisor::new(&Config::default(), DeviceKind::Null, Mode::Local).unwrap();
    change(Arc::get_mut(&mut supervisor).expect("nobody else has it yet"));
    supervisor.zones().register(ZONE, "a-1", None).unwrap();
    supervisor.zones().grant(ZONE, "c", 1, None, None).unwrap();
    supervisor
}

/// A worker that is a program of this machine, which lives until it is killed.
fn wanted(pages: u64) -> Wanted {
    Wanted {
        zone: ZONE,
        container: "c".into(),
        guest_pid: 1,
        peer: "pid 1".into(),
        pages,
        arena: ArenaKind::Nothing,
        program: Some(File::open("/usr/bin/yes").unwrap().into()),
    }
}

fn channel() -> Channel {
    Channel { kind: ChannelKind::Local { pid: 1, arena_bytes: 0 }, fds: Vec::new() }
}

async fn is_released(supervisor: &Arc<Supervisor>) {
    let released = tokio::time::timeout(Duration::from_secs(10), supervisor.release(ZONE, None)).await;
    released.expect("the zone cannot be released");
    assert!(supervisor.listing().zones.is_empty());
    assert!(supervisor.running().is_empty());
    supervisor.release_all(LIMIT).await;
}

#[test]
fn the_default_limits_fit_each_other() {
    /// Pages that a guest shares beside its channels: one 9p ring (513) and many streams.
    const BESIDE: u64 = 16 << 10;
    /// What Xen has a domain map at once by default, in grants of a page; a PV Dom0's kernel takes two for each.
    const MAPTRACK_ENTRIES: u64 = 1024 * 256;
    let Config { guest, proxy, .. } = Config::default();
    let channels = u64::from(proxy.workers_per_zone_max) * channel_pages();
    let (zone, all) = (proxy.mapped_per_zone_max_mib << 8, proxy.mapped_max_mib << 8);
    assert!(channels <= zone, "{channels} pages of channels");
    // A frame has 512 grants of version 1.
    assert!(channels + BESIDE <= u64::from(guest.grant_frames_max) * 512, "{channels} pages of channels");
    assert!(zone + channel_pages() <= all, "a second zone has no room");
    assert!(2 * all <= MAPTRACK_ENTRIES / 4 * 3, "streams, shares and the network need some, too");
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_a_zone_that_can_be_released() {
    let supervisor = supervisor();
    let placed = Arc::new(Notify::new());
    let attach = {
        let placed = Arc::clone(&placed);
        async move {
            placed.notify_one();
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(channel())
        }
    };
    let start = supervisor.start_worker(wanted(1), attach);
    tokio::select! {
        _ = start => panic!("it has not even been born"),
        () = placed.notified() => {}
    }
    is_released(&supervisor).await;
}

#[tokio::test]
async fn nothing_is_taken_for_a_guest_before_its_limits_are_looked_at() {
    let supervisor = supervisor();
    let taken = Arc::new(AtomicBool::new(false));
    let attach = {
        let taken = Arc::clone(&taken);
        async move {
            taken.store(true, Ordering::SeqCst);
            Ok(channel())
        }
    };
    let refusal = supervisor.start_worker(wanted(u64::MAX), attach).await.unwrap_err();
    assert_eq!((refusal.code, taken.load(Ordering::SeqCst)), (Code::LimitReached, false));
    is_released(&supervisor).await;
}

#[tokio::test]
async fn a_channel_that_cannot_be_attached_gives_its_place_back() {
    let supervisor = supervisor();
    let refused = || ready(Err(Refusal::new(Code::ProtocolBroken, "no such page")));
    for _ in 0..100 {
        let refusal = supervisor.start_worker(wanted(1), refused()).await.unwrap_err();
        assert_eq!(refusal.code, Code::ProtocolBroken);
    }
    assert!(supervisor.listing().zones[0].workers.is_empty());
    is_released(&supervisor).await;
}

#[tokio::test]
async fn a_start_that_panics_leaves_a_zone_that_can_be_released() {
    let supervisor = supervisor();
    let panics = std::future::poll_fn(|_| panic!("a mistake of ours"));
    let refusal = supervisor.start_worker(wanted(1), panics).await.unwrap_err();
    assert_eq!(refusal.code, Code::WorkerFailed);
    is_released(&supervisor).await;
}

#[tokio::test]
async fn a_worker_that_cannot_have_its_cgroup_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    // A plain folder, into which nothing can be born.
    let supervisor = supervisor_with(|it| it.cgroups = Some(Cgroups::without_controllers(folder.path())));
    let refusal = supervisor.start_worker(wanted(1), ready(Ok(channel()))).await.unwrap_err();
    assert_eq!(refusal.code, Code::WorkerFailed);
    is_released(&supervisor).await;
}

#[tokio::test]
async fn a_gap_is_said_locally_and_refused_over_xen() {
    let gap = || ["no wall".to_owned()];
    let local = supervisor();
    local.judge(gap(), Code::WorkerFailed).unwrap();
    assert!(local.listing().node.sandbox_gaps.contains(&gap()[0]));
    let xen = supervisor_with(|it| it.mode = Mode::Xen);
    let refusal = xen.judge(gap(), Code::WorkerFailed).unwrap_err();
    assert_eq!(refusal.code, Code::WorkerFailed);
    assert!(refusal.text.contains("no wall"), "{refusal}");
    xen.judge([], Code::WorkerFailed).unwrap();
}

#[tokio::test]
async fn an_abandoned_zone_is_released() {
    let supervisor = supervisor();
    let after = Duration::from_millis(20);
    let sweep = tokio::spawn(Arc::clone(&supervisor).release_abandoned(after));
    tokio::time::sleep(after * 3).await;
    assert_eq!(supervisor.listing().zones.len(), 1, "its guest has not ended");
    supervisor.zones().set_state(ZONE, ZoneState::Ended);
    let gone = async {
        while !supervisor.listing().zones.is_empty() {
            tokio::time::sleep(after).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the zone is kept");
    sweep.abort();
}

/// Gives [`ZONE`] a door that never closes, as a stream whose pages the kernel does not let go of, and adds [`OTHER`].
fn one_zone_hangs(supervisor: &Supervisor) {
    let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
    lock(&supervisor.doors).insert(ZONE, GuestDoor { stop: watch::channel(false).0, task });
    supervisor.zones().register(OTHER, "a-2", None).unwrap();
}

fn zones_of(supervisor: &Supervisor) -> Vec<ZoneId> {
    supervisor.listing().zones.iter().map(|zone| zone.zone).collect()
}

#[tokio::test]
async fn an_abandoned_zone_that_hangs_keeps_no_other() {
    let supervisor = supervisor();
    one_zone_hangs(&supervisor);
    for zone in [ZONE, OTHER] {
        supervisor.zones().set_state(zone, ZoneState::Ended);
    }
    let sweep = tokio::spawn(Arc::clone(&supervisor).release_abandoned(Duration::from_millis(20)));
    let gone = async {
        while zones_of(&supervisor) != [ZONE] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.expect("the other one is kept");
    sweep.abort();
    supervisor.release_all(Duration::ZERO).await;
}

#[tokio::test]
async fn the_end_of_all_zones_has_a_limit() {
    let supervisor = supervisor();
    one_zone_hangs(&supervisor);
    let release = supervisor.release_all(Duration::from_millis(200));
    tokio::time::timeout(LIMIT, release).await.expect("it waits for the one that hangs");
    assert_eq!(zones_of(&supervisor), [ZONE]);
}

/// A dead shim's cleaning and the look for abandoned zones may both come.
#[tokio::test]
async fn whoever_releases_a_zone_waits_for_its_door() {
    let supervisor = supervisor();
    let (stop, mut stopped) = watch::channel(false);
    let closed = Arc::new(Notify::new());
    let serving = {
        let closed = Arc::clone(&closed);
        async move {
            let _ = stopped.wait_for(|stopped| *stopped).await;
            closed.notified().await;
        }
    };
    let task = tokio::spawn(serving).abort_handle();
    lock(&supervisor.doors).insert(ZONE, GuestDoor { stop, task });
    let releases = [(); 2].map(|()| {
        let supervisor = Arc::clone(&supervisor);
        tokio::spawn(async move { supervisor.release(ZONE, None).await })
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!releases.iter().any(|release| release.is_finished()), "its guest's pages are still mapped");
    closed.notify_one();
    for release in releases {
        tokio::time::timeout(Duration::from_secs(10), release).await.expect("it waits for ever").unwrap();
    }
    assert!(lock(&supervisor.doors).is_empty());
    is_released(&supervisor).await;
}
