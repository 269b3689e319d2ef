//! A worker whose program asks for nothing sleeps, without a look now and then.

mod common;

use std::fs;
use std::thread;
use std::time::Duration;

use common::{C, Guest, Proxy};
use vgpu_api::host_function::{DONE, MAILBOX_BYTES, POSTED};
use vgpu_api::{ContextId, CuError, Staged, Stream, ask};

/// How long nothing may happen.
const IDLE: Duration = Duration::from_secs(5);
/// After the last call: longer than the loop looks before it sleeps.
const SETTLES: Duration = Duration::from_millis(300);

/// How often threads of a process went to sleep or had to let others run.
fn switches(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let texts = tasks.map(|task| fs::read_to_string(task.path().join("status")).unwrap());
    let counts = |text: &str| {
        let lines = text.lines().filter(|line| line.contains("voluntary_ctxt_switches"));
        lines.map(|line| line.split_whitespace().last().unwrap().parse::<u64>().unwrap()).sum::<u64>()
    };
    texts.map(|text| counts(&text)).sum()
}

/// Some work, with a function of the program, which a call is put aside for: what a worker may look for again and again meanwhile.
fn use_it(guest: &Guest) {
    let room = guest.channel.stage(4096, None).unwrap();
    room.write(0, &[0; MAILBOX_BYTES]);
    let at = ask::cuMemAlloc_v2(guest, C, 4096).unwrap();
    let staged = Staged { offset: room.offset().into(), len: MAILBOX_BYTES as u64 };
    ask::vgpuHostFunctions(guest, C, staged).unwrap();
    ask::cuLaunchHostFunc(guest, C, Stream::Legacy, 5).unwrap();
    let word = |at| {
        let mut bytes = [0; 8];
        room.read(at, &mut bytes);
        u64::from_le_bytes(bytes)
    };
    thread::scope(|scope| {
        let wait = scope.spawn(|| ask::cuStreamSynchronize(guest, C, Stream::Legacy));
        guest.channel.wait_until(|| word(POSTED) == 1).unwrap();
        room.write(DONE, &1_u64.to_le_bytes());
        wait.join().unwrap().unwrap();
    });
    let copy = Staged { offset: u64::from(room.offset()) + 2048, len: 512 };
    ask::vgpuMemcpyDtoHStaged(guest, C, copy, at, Stream::Legacy).unwrap();
    assert_eq!(ask::cuMemAlloc_v2(guest, C, u64::MAX), Err(CuError::OUT_OF_MEMORY));
    ask::cuMemFree_v2(guest, C, at).unwrap();
    ask::cuCtxSynchronize(guest, C).unwrap();
}

#[test]
fn an_idle_worker_does_not_wake() {
    let proxies = ["soft", "null"].map(Proxy::start);
    let guests = proxies.each_ref().map(|proxy| [proxy.guest(), proxy.guest()]);
    // The second of each does nothing after its start.
    guests.iter().for_each(|[guest, _]| use_it(guest));
    let pids: Vec<u32> =
        proxies.iter().flat_map(|proxy| proxy.workers().into_iter().map(|worker| worker.pid)).collect();
    assert_eq!(pids.len(), 4);
    let counts = || pids.iter().map(|pid| switches(*pid)).collect::<Vec<_>>();
    thread::sleep(SETTLES);
    let before = counts();
    thread::sleep(IDLE);
    assert_eq!(counts(), before);
    // The canary: a call is seen.
    guests.iter().flatten().for_each(|guest| {
        ask::cuDevicePrimaryCtxRetain(guest, ContextId::NONE, 0, 0).unwrap();
    });
    thread::sleep(SETTLES);
    let all_more = counts().iter().zip(&before).all(|(after, before)| after > before);
    assert!(all_more, "{before:?}, then {:?}", counts());
    drop(guests);
    proxies.into_iter().for_each(Proxy::stop);
}
