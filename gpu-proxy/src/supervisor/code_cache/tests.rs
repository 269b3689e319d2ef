//! Whose cache is whose, what it holds, and when it is gone.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags};
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;
use vgpu_zone_api::shim::ZoneId;

use super::*;
use crate::supervisor::zones::{Limits, Place, Zones};

const MIB: u64 = 1 << 20;
const OWNER: u32 = 790_000;
/// How a worker begins to make its place.
const COVER: &str = "mount -t tmpfs cover /media && mkdir /media/code";

/// One keeper at a time: its thread is found by its name.
static ALONE: Mutex<()> = Mutex::const_new(());

/// `None` without the right to mount.
async fn keeper(bytes: u64) -> Option<(Keeper, MutexGuard<'static, ()>)> {
    let alone = ALONE.lock().await;
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT TRIED: {}: only root keeps what is compiled", file!());
        return None;
    }
    until("the last test's keeper is gone", || mounted().is_none());
    Some((Keeper::start(bytes).unwrap(), alone))
}

fn until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// The keeper's mounts, but its root.
fn mounted() -> Option<usize> {
    fs::read_dir("/proc/self/task").unwrap().find_map(|task| {
        let task = task.ok()?.path();
        let name = fs::read_to_string(task.join("comm")).ok()?;
        let mounts = fs::read_to_string(task.join("mountinfo")).ok()?;
        (name.trim() == "code-caches").then(|| mounts.lines().count().saturating_sub(1))
    })
}

fn zones() -> Zones {
    Zones::new(Limits {
        device_bytes: MIB,
        devices: 2,
        workers_per_zone: 10,
        pages_per_zone: 100,
        pages_max: 1000,
        channel_pages: 10,
        shared_max: 100,
        uids: Some((OWNER, 2)),
    })
}

fn zone(number: u128) -> ZoneId {
    ZoneId(Uuid::from_u128(number))
}

/// The place of a worker of a container, which may be new.
fn place(zones: &mut Zones, number: u128, container: &str) -> Place {
    zones.register(zone(number), "a", None).unwrap();
    zones.grant(zone(number), container, 1, None, None).unwrap();
    zones.reserve(zone(number), container, 1, 1).unwrap()
}

/// A process with a mount namespace of its own, and the place that a worker makes there.
struct Worker(Child, Arc<OwnedFd>);

impl Worker {
    fn start() -> Self {
        Self::after(&format!("{COVER} && mount -o remount,ro {CODE_PARENT}"))
    }

    /// The same, of one that has done something else with the place.
    fn after(script: &str) -> Self {
        let script = format!("{script} && echo made && exec cat");
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut made = [0; 5];
        child.stdout.as_mut().unwrap().read_exact(&mut made).unwrap();
        let pid = Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap();
        Self(child, Arc::new(pidfd))
    }

    fn folder(&self) -> OwnedFd {
        let path = format!("/proc/{}/root{CODE_PARENT}/{CODE_FOLDER}", self.0.id());
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Whether a worker has any cache.
fn is_mounted(worker: &Worker) -> bool {
    fs::read_to_string(format!("/proc/{}/mountinfo", worker.0.id())).unwrap().contains("vgpu-code")
}

/// What a worker gets that has this place, and has still when it is dead.
async fn lent(keeper: &Keeper, zones: &Zones, place: &Place) -> OwnedFd {
    let (cache, owner) = zones.code_of(place.worker).unwrap();
    let worker = Worker::start();
    keeper.attach(&cache, owner, &worker.1).await.unwrap();
    worker.folder()
}

/// Makes a file.
fn file(folder: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(folder, name, OFlags::CREATE | OFlags::RDWR, Mode::RWXU)
}

fn has(folder: &OwnedFd, name: &str) -> bool {
    rustix::fs::statat(folder, name, rustix::fs::AtFlags::empty()).is_ok()
}

#[tokio::test]
async fn a_container_has_its_own_for_all_of_its_workers_and_no_other_container_has_it() {
    let Some((keeper, _alone)) = keeper(MIB).await else { return };
    let mut zones = zones();
    let one = place(&mut zones, 1, "c");
    file(&lent(&keeper, &zones, &one).await, "compiled").unwrap();
    let again = place(&mut zones, 1, "c");
    assert!(has(&lent(&keeper, &zones, &again).await, "compiled"), "the next process compiles again");
    for (number, container) in [(1, "d"), (2, "c")] {
        let other = place(&mut zones, number, container);
        assert!(
            !has(&lent(&keeper, &zones, &other).await, "compiled"),
            "zone {number}, container {container}"
        );
    }
    assert_eq!(mounted(), Some(3));
    let seen = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!seen.contains("vgpu-code"), "the node sees it: {seen}");
}

#[tokio::test]
async fn it_goes_with_its_grant_and_the_next_one_of_the_same_name_finds_nothing() {
    let Some((keeper, _alone)) = keeper(MIB).await else { return };
    let mut zones = zones();
    let first = place(&mut zones, 1, "c");
    file(&lent(&keeper, &zones, &first).await, "compiled").unwrap();
    zones.worker_ended(zone(1), first.worker);
    zones.revoke(zone(1), None, "c").unwrap();
    until("it is gone with the grant", || mounted() == Some(0));
    let second = place(&mut zones, 1, "c");
    let folder = lent(&keeper, &zones, &second).await;
    assert!(!has(&folder, "compiled"));
    file(&folder, "compiled").unwrap();
    zones.begin_release(zone(1), None).unwrap();
    zones.worker_ended(zone(1), second.worker);
    zones.finish_release(zone(1)).unwrap();
    until("it is gone with the zone", || mounted() == Some(0));
    // What a worker still had of it is nobody else's.
    let third = place(&mut zones, 1, "c");
    assert!(!has(&lent(&keeper, &zones, &third).await, "compiled"));
    assert!(has(&folder, "compiled"));
}

#[tokio::test]
async fn it_holds_so_much_and_no_more_and_belongs_to_its_workers_user() {
    let Some((keeper, _alone)) = keeper(MIB).await else { return };
    let mut zones = zones();
    let place = place(&mut zones, 1, "c");
    let folder = lent(&keeper, &zones, &place).await;
    let stat = rustix::fs::fstat(&folder).unwrap();
    assert_eq!((stat.st_uid, stat.st_gid, stat.st_mode & 0o7777), (OWNER, OWNER, 0o700));

    let filled = file(&folder, "large").unwrap();
    let page = [7; 4096];
    let mut written = 0;
    let full = loop {
        match rustix::io::write(&filled, &page) {
            Ok(bytes) => written += bytes as u64,
            Err(full) => break full,
        }
        assert!(written <= MIB, "it has no limit");
    };
    assert_eq!((full, written), (Errno::NOSPC, MIB));
    assert!(keeper.used_bytes_max() < MIB, "the driver is told to keep less than there is room for");

    let files = (0..).take_while(|name| file(&folder, &name.to_string()).is_ok()).count() as u64;
    // The folder itself and the large file are two.
    assert_eq!(files, MIB / BYTES_PER_FILE - 2);
}

#[tokio::test]
async fn nothing_runs_in_it_and_no_link_leads_out_of_it() {
    let Some((keeper, _alone)) = keeper(MIB).await else { return };
    let mut zones = zones();
    let place = place(&mut zones, 1, "c");
    let folder = lent(&keeper, &zones, &place).await;
    let flags = rustix::fs::fstatvfs(&folder).unwrap().f_flag;
    for (name, flag) in [
        ("nosuid", StatVfsMountFlags::NOSUID),
        ("nodev", StatVfsMountFlags::NODEV),
        ("noexec", StatVfsMountFlags::NOEXEC),
    ] {
        assert!(flags.contains(flag), "{name} is missing: {flags:?}");
    }
    rustix::fs::symlinkat("/proc/version", &folder, "link").unwrap();
    let followed = rustix::fs::openat(&folder, "link", OFlags::RDONLY, Mode::empty());
    assert_eq!(followed.err(), Some(Errno::LOOP));
}

#[tokio::test]
async fn a_worker_without_a_place_or_that_is_gone_gets_none_and_the_next_one_does() {
    let Some((keeper, _alone)) = keeper(MIB).await else { return };
    let cache = CodeCache::default();
    let gone = {
        let worker = Worker::start();
        Arc::clone(&worker.1)
    };
    keeper.attach(&cache, OWNER, &gone).await.unwrap_err();
    let placeless = Worker::start();
    assert!(std::path::Path::new(CODE_PARENT).is_dir());
    // One that could still be changed, or that is the node's.
    for other in [COVER.to_owned(), format!("mkdir -p {CODE_PARENT}/{CODE_FOLDER}")] {
        let worker = Worker::after(&other);
        keeper.attach(&cache, OWNER, &worker.1).await.unwrap_err();
        assert!(!is_mounted(&worker), "{other}");
    }
    let own = Command::new("nsenter")
        .args(["--mount", "--target", &placeless.0.id().to_string(), "umount", CODE_PARENT])
        .status();
    assert!(own.unwrap().success());
    keeper.attach(&cache, OWNER, &placeless.1).await.unwrap_err();
    let worker = Worker::start();
    keeper.attach(&cache, OWNER, &worker.1).await.unwrap();
    file(&worker.folder(), "compiled").unwrap();
}

#[tokio::test]
async fn it_is_there_once_for_who_gave_up_waiting_and_the_keeper_ends_with_its_last_cache() {
    let Some((keeper, _alone)) = keeper(MIB).await else { return };
    let (cache, worker) = (CodeCache::default(), Worker::start());
    // Whoever asked is gone before the answer.
    drop(tokio::time::timeout(Duration::ZERO, keeper.attach(&cache, OWNER, &worker.1)).await);
    let next = Worker::start();
    keeper.attach(&cache, OWNER, &next.1).await.unwrap();
    assert_eq!(mounted(), Some(1));
    file(&worker.folder(), "compiled").unwrap();
    assert!(has(&next.folder(), "compiled"));
    drop((cache, keeper));
    until("the keeper has ended", || mounted().is_none());
    assert!(has(&next.folder(), "compiled"), "a worker that lives has lost it");
}

/// What holds up the keeper, a mount that takes for ever, holds up no worker for long, and the kernel not for many.
#[tokio::test(start_paused = true)]
async fn a_keeper_that_does_not_answer_is_not_waited_for_and_has_no_endless_row() {
    let (tasks, orders) = mpsc::channel();
    let keeper = Keeper { tasks, next: AtomicU64::new(1), waiting: Arc::default(), bytes: MIB };
    let (cache, own) = (CodeCache::default(), rustix::process::getpid());
    let pidfd = Arc::new(rustix::process::pidfd_open(own, PidfdFlags::empty()).unwrap());
    for _ in 0..2 * WAITING_MAX {
        let refused = keeper.attach(&cache, OWNER, &pidfd).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
    }
    assert_eq!(orders.try_iter().count(), WAITING_MAX);
    // It has come to them.
    assert_eq!(keeper.waiting.load(Ordering::Relaxed), 0);
    drop(orders);
    let refused = keeper.attach(&cache, OWNER, &pidfd).await.unwrap_err();
    assert!(refused.to_string().contains("has ended"), "{refused}");
}
