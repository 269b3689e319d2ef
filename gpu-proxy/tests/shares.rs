//! Zones with work share the device's time by their parts: three zones of one supervisor, real workers, counted in the software GPU's
//! instructions.

mod common;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use common::{C, Guest, Proxy, alive, signal, until};
use vgpu_api::launch::{LaunchAttributes, LaunchShape};
use vgpu_api::{CuResult, FunctionHandle, ImageHandle, ImageKind, Launch, NewHandle, Staged, Stream, ask};

/// A kernel that never ends, and one that ends after some ten thousand instructions.
const PTX: &[u8] = b".version 9.0
.target sm_90
.address_size 64
.visible .entry endless() { L: bra L; }
.visible .entry step() {
    .reg .b32 n; .reg .pred p;
    mov.u32 n, 0;
L:  add.u32 n, n, 1;
    setp.lt.u32 p, n, 5000;
    @p bra L;
    ret;
}";
/// Instructions of all together that are looked at.
const LOOKED_AT: u64 = 16_000_000;
/// For a machine with other things to do.
const LIMIT: Duration = Duration::from_secs(200);

fn load(guest: &Guest) {
    ask::vgpuUpload(guest, C, 1, PTX.len() as u64, 0, PTX).unwrap();
    let room = guest.channel.stage(4096, None).unwrap();
    let out = Staged { offset: room.offset().into(), len: 4096 };
    let image = NewHandle(ImageHandle::new(0, 0));
    ask::vgpuImageLoad(guest, C, image, ImageKind::Module, 1, false, out).unwrap();
}

fn launch(guest: &Guest, kernel: u16, blocks: u32) -> CuResult<()> {
    let function = FunctionHandle::of_image(ImageHandle::new(0, 0), kernel);
    let (grid, block) = ([blocks, 1, 1], [32, 1, 1]);
    let shape = LaunchShape { function, stream: Stream::Legacy, grid, block, shared_bytes: 0 };
    let attributes = LaunchAttributes::default();
    ask::cuLaunchKernel(guest, C, Launch { shape, attributes, params: &[] })
}

/// What the worker of each zone has used, in the order of their shares and then of their birth.
fn used(proxy: &Proxy) -> Vec<u64> {
    let mut zones = proxy.list().zones;
    zones.retain(|zone| !zone.workers.is_empty());
    zones.sort_by_key(|zone| (zone.grants[0].share, zone.workers[0].pid));
    zones.iter().map(|zone| zone.workers.iter().map(|worker| worker.used).sum()).collect()
}

/// What each uses from here on, when all together have used so much.
fn use_of(proxy: &Proxy, all: u64) -> Vec<u64> {
    let (start, before) = (Instant::now(), used(proxy));
    loop {
        let uses: Vec<u64> = used(proxy).iter().zip(&before).map(|(now, before)| now - before).collect();
        if uses.iter().sum::<u64>() >= all {
            return uses;
        }
        assert!(start.elapsed() < LIMIT, "{uses:?} of {all} instructions in {LIMIT:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Within 5 of 100.
fn assert_shares(uses: &[u64], wanted: &[u64]) {
    let all: u64 = uses.iter().sum();
    let shares: Vec<u64> = uses.iter().map(|used| used * 100 / all).collect();
    let near = shares.iter().zip(wanted).all(|(share, wanted)| share.abs_diff(*wanted) <= 5);
    assert!(near && shares.len() == wanted.len(), "{shares:?}, not {wanted:?}");
}

fn switches(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let texts = tasks.map(|task| fs::read_to_string(task.path().join("status")).unwrap());
    let of = |text: &str| {
        let lines = text.lines().filter(|line| line.starts_with("voluntary_ctxt_switches"));
        lines.map(|line| line.split_whitespace().last().unwrap().parse::<u64>().unwrap()).sum::<u64>()
    };
    texts.map(|text| of(&text)).sum()
}

/// How often it wakes in two seconds.
fn woken(pid: u32) -> u64 {
    let before = switches(pid);
    thread::sleep(Duration::from_secs(2));
    switches(pid) - before
}

#[test]
fn a_quarter_a_quarter_and_a_half_have_what_they_were_given_and_what_others_leave() {
    let proxy = Proxy::start_zones("soft", &[Some(250), Some(250), Some(500)]);
    let guests = [0, 1, 2].map(|number| proxy.guest_of_zone(number));
    guests.iter().for_each(load);
    thread::scope(|scope| {
        // One kernel without an end, one on all host threads, and one step after the other.
        launch(&guests[0], 0, 1).unwrap();
        launch(&guests[2], 0, 64).unwrap();
        let [one, steps, half] = guests;
        scope.spawn(move || while launch(&steps, 1, 1).is_ok() {});
        until("all of them have work", || used(&proxy).iter().all(|used| *used > 0));
        assert_shares(&use_of(&proxy, LOOKED_AT), &[25, 25, 50]);
        drop(half);
        until("it is gone", || used(&proxy).len() == 2);
        assert_shares(&use_of(&proxy, LOOKED_AT / 2), &[50, 50]);
        let workers = proxy.list().zones.into_iter().flat_map(|zone| zone.workers);
        signal(workers.map(|worker| worker.pid).max().unwrap(), libc::SIGKILL);
        until("one is gone", || used(&proxy).len() == 1);
        // Alone it is never asked, and the supervisor sleeps.
        use_of(&proxy, LOOKED_AT / 10);
        let woken = woken(proxy.pid());
        assert!(woken < 50, "the supervisor woke {woken} times");
        drop(one);
        // The steps end in any case.
        proxy.stop();
    });
}

#[test]
fn a_zone_that_rests_costs_nothing_and_is_heard_when_it_begins() {
    let proxy = Proxy::start_zones("soft", &[None, None]);
    let (one, other) = (proxy.guest_of_zone(0), proxy.guest_of_zone(1));
    [&one, &other].into_iter().for_each(load);
    launch(&one, 0, 1).unwrap();
    // Both began, so both are told of.
    launch(&other, 1, 1).unwrap();
    ask::cuCtxSynchronize(&other, C).unwrap();
    until("the first one works", || used(&proxy).iter().all(|used| *used > 0));
    thread::sleep(Duration::from_millis(100));
    let woken = woken(proxy.pid());
    assert!(woken < 50, "the supervisor woke {woken} times");
    launch(&other, 0, 1).unwrap();
    assert_shares(&use_of(&proxy, LOOKED_AT / 2), &[50, 50]);
    drop((one, other));
    proxy.stop();
}

#[test]
fn a_worker_that_is_held_back_ends_with_its_process_and_with_its_supervisor() {
    let mut proxy = Proxy::start_zones("soft", &[Some(1), Some(1), Some(998)]);
    let guests = [0, 1, 2].map(|number| proxy.guest_of_zone(number));
    for guest in &guests {
        load(guest);
        launch(guest, 0, 4).unwrap();
    }
    use_of(&proxy, LOOKED_AT / 4);
    let pids: Vec<u32> = proxy.list().zones.iter().map(|zone| zone.workers[0].pid).collect();
    assert!(pids.iter().all(|pid| alive(*pid)));
    let [first, ..] = guests;
    drop(first);
    until("its worker is gone", || pids.iter().filter(|pid| alive(**pid)).count() == 2);
    proxy.child.kill().unwrap();
    proxy.child.wait().unwrap();
    until("all workers are gone", || pids.iter().all(|pid| !alive(*pid)));
}

/// What others leave can be given, and no more.
#[test]
fn more_than_the_device_has_is_not_given() {
    let dir = tempfile::tempdir().unwrap();
    let socket = |name| dir.path().join(name);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gpu-proxy"));
    command.args(["--device", "null"]).arg("--local").arg(socket("a")).args(["--share", "600"]);
    let output = command.arg("--local").arg(socket("b")).args(["--share", "401"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("others leave 400") && said.contains("VGPU-404"),
        "{said}"
    );
}
