//! Whole lives over the local socket: a real supervisor, real sandboxed workers, the software GPU.

mod common;

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{C, Guest, Proxy, SECOND, alive, cgroups_of, children, signal, status, until};
use idm::arena::{SINCE_MINOR, WINDOW};
use idm::hello::Hello;
use idm::record::RECORD_LIMIT_MAX;
use uuid::Uuid;
use vgpu_api::graph::{Body, Conditional, GraphNode, GraphWork};
use vgpu_api::launch::{LaunchAttributes, LaunchShape};
use vgpu_api::memory::Memset;
use vgpu_api::wire::to_vec;
use vgpu_api::{
    ContextId, CuError, DevicePtr, FunctionHandle, GraphExecHandle, ImageHandle, ImageKind, Launch,
    NewHandle, Staged, Stream, WIRE_HASH, ask,
};
use vgpu_zone_api::shim::{Client, ClientError, DomainRef, Request, WorkerInfo, ZoneId};

const MIB: u64 = 1 << 20;

/// Writes through staging and reads back what the device has.
fn round_trip(guest: &Guest, at: DevicePtr, bytes: &[u8]) -> Vec<u8> {
    let staged = |offset: u32| Staged { offset: offset.into(), len: bytes.len() as u64 };
    let there = guest.channel.stage(bytes.len(), None).unwrap();
    there.write(0, bytes);
    ask::vgpuMemcpyHtoDStaged(guest, C, at, staged(there.offset()), Stream::Legacy).unwrap();
    let back = guest.channel.stage(bytes.len(), None).unwrap();
    ask::vgpuMemcpyDtoHStaged(guest, C, staged(back.offset()), at, Stream::Legacy).unwrap();
    let mut read = vec![0; bytes.len()];
    back.read(0, &mut read);
    read
}

#[test]
fn device_memory_keeps_what_is_written_and_is_counted() {
    let proxy = Proxy::start("soft");
    let guest = proxy.guest();
    let at = ask::cuMemAlloc_v2(&guest, C, 3 * MIB).unwrap();
    let bytes: Vec<u8> = (0..3 * MIB).map(|index| (index % 251) as u8).collect();
    assert_eq!(round_trip(&guest, at, &bytes), bytes);
    let memset = Memset { dst: at, pitch: 0, element_bytes: 4, value: 0x0102_0304, width: 4, rows: 1 };
    ask::vgpuMemset(&guest, C, memset, Stream::Legacy).unwrap();
    assert_eq!(round_trip(&guest, at.offset(16).unwrap(), &[7]), [7]);

    assert_eq!(proxy.device_bytes(), 3 * MIB);
    let worker = &proxy.workers()[0];
    assert_eq!((worker.guest_pid, worker.device_bytes), (std::process::id(), 3 * MIB));
    drop(guest);
    until("the memory is free", || proxy.device_bytes() == 0);
    proxy.stop();
}

/// A process's pinned memory, as its worker sees it: the same pages at the addresses of the window.
#[test]
fn a_worker_reaches_the_arena_of_its_process_and_of_no_other() {
    let proxy = Proxy::start("soft");
    let (one, two) = (proxy.guest(), proxy.guest());
    let pages = |guest: &Guest| guest.arena.as_ref().expect("the proxy gives one").map_elsewhere().unwrap();
    let (mine, others) = (pages(&one), pages(&two));
    let at = DevicePtr(WINDOW as u64 + MIB);
    let on_device = ask::cuMemAlloc_v2(&one, C, MIB).unwrap();
    for guest in [&one, &two] {
        ask::vgpuArenaAdd(guest, ContextId::NONE, at, MIB).unwrap();
    }
    let offset = usize::try_from(MIB).unwrap();
    mine.write(offset, b"there");
    others.write(offset, b"other");
    ask::cuMemcpyAsync(&one, C, on_device, at, 5, Stream::Legacy).unwrap();
    ask::cuMemcpyAsync(&one, C, at.offset(9).unwrap(), on_device, 5, Stream::Legacy).unwrap();
    ask::cuStreamSynchronize(&one, C, Stream::Legacy).unwrap();
    let mut seen = [0; 5];
    mine.read(offset + 9, &mut seen);
    assert_eq!(&seen, b"there");
    others.read(offset + 9, &mut seen);
    assert_eq!(seen, [0; 5]);
    // Host memory is no part of a grant, and its descriptor does not stay with the worker.
    assert_eq!(proxy.device_bytes(), MIB);
    ask::vgpuArenaRemove(&one, ContextId::NONE, at).unwrap();
    assert_eq!(ask::vgpuArenaRemove(&one, ContextId::NONE, at), Err(CuError::INVALID_VALUE));
    for worker in proxy.workers() {
        let links = fs::read_dir(format!("/proc/{}/fd", worker.pid)).unwrap().flatten();
        let memory = |path: PathBuf| path.to_string_lossy().contains("vgpu-arena");
        assert!(!links.filter_map(|link| fs::read_link(link.path()).ok()).any(memory));
    }
    proxy.stop();
}

#[test]
fn no_arena_goes_to_a_program_that_knows_none_nor_where_the_configuration_has_none() {
    let proxy = Proxy::start("null");
    let hello = Hello { minor: SINCE_MINOR - 1, ..Hello::new(RECORD_LIMIT_MAX, WIRE_HASH) };
    let old = idm::connect::connect(&proxy.socket(), &hello, 20 * SECOND).unwrap();
    assert!(old.arena.is_none());
    drop(old);
    assert_eq!(proxy.guest().arena.unwrap().bytes(), 16 << 30);
    proxy.stop();

    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "[proxy]\narena_max_mib = 0\n").unwrap();
    let proxy = Proxy::start_with("null", &["--config", file.path().to_str().unwrap()]);
    let guest = proxy.guest();
    assert!(guest.arena.is_none());
    let at = DevicePtr(WINDOW as u64);
    assert_eq!(ask::vgpuArenaAdd(&guest, ContextId::NONE, at, MIB), Err(CuError::NOT_SUPPORTED));
    drop(guest);
    proxy.stop();
}

#[test]
fn beyond_the_grant_every_process_of_a_container_gets_two() {
    let proxy = Proxy::start("soft");
    let (one, two) = (proxy.guest(), proxy.guest());
    ask::cuMemAlloc_v2(&one, C, 40 * MIB).unwrap();
    assert_eq!(ask::cuMemAlloc_v2(&two, C, 40 * MIB), Err(CuError::OUT_OF_MEMORY));
    ask::cuMemAlloc_v2(&two, C, 24 * MIB).unwrap();
    assert_eq!(ask::cuMemAlloc_v2(&two, C, 1), Err(CuError::OUT_OF_MEMORY));
    drop(one);
    until("the first one's memory is free", || proxy.device_bytes() == 24 * MIB);
    ask::cuMemAlloc_v2(&two, C, 40 * MIB).unwrap();
    proxy.stop();
}

#[test]
fn a_question_is_answered_without_a_worker_and_with_what_cuda_says() {
    let proxy = Proxy::start("soft");
    let facts = proxy.facts().unwrap();
    assert!(proxy.workers().is_empty() && facts.processes.is_empty());
    let device = &facts.devices[0];
    assert_eq!((facts.devices.len(), device.total_bytes, device.used_bytes), (1, 64 * MIB, 0));

    let (one, two) = (proxy.guest(), proxy.guest());
    let snapshot = {
        let room = one.channel.stage(64 << 10, None).unwrap();
        let staged = Staged { offset: room.offset().into(), len: 64 << 10 };
        let length = ask::vgpuSnapshot(&one, ContextId::NONE, staged).unwrap();
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        room.read(0, &mut bytes);
        vgpu_api::Snapshot::parse(&bytes).unwrap()
    };
    let seen = &snapshot.devices[0];
    assert_eq!((device.name.as_str(), device.uuid), (seen.name.as_str(), seen.uuid));
    assert_eq!(device.pci.map(u32::cast_signed), [seen.pci.domain, seen.pci.bus, seen.pci.device]);
    assert_eq!(device.capability.map(i32::from), [75, 76].map(|number| seen.attribute(number).unwrap()));
    assert_eq!((facts.cuda_version, device.total_bytes), (snapshot.driver_version, seen.total_memory));

    // To the byte, at once, and by the process that uses it: both guests are this one.
    ask::cuMemAlloc_v2(&one, C, 3 * MIB).unwrap();
    let at = ask::cuMemAlloc_v2(&two, C, MIB).unwrap();
    let facts = proxy.facts().unwrap();
    let info = ask::cuMemGetInfo_v2(&two, C).unwrap();
    let device = &facts.devices[0];
    assert_eq!((device.total_bytes, device.used_bytes), (info.total, 4 * MIB));
    assert_eq!(device.total_bytes - device.used_bytes, info.free);
    let processes: Vec<_> = facts.processes.iter().map(|one| (one.pid, one.used_bytes)).collect();
    assert_eq!(processes, [(std::process::id(), 4 * MIB)]);
    ask::cuMemFree_v2(&two, C, at).unwrap();
    ask::cuMemGetInfo_v2(&two, C).unwrap();
    assert_eq!(proxy.facts().unwrap().devices[0].used_bytes, 3 * MIB);
    drop((one, two));
    until("nobody computes", || proxy.facts().unwrap().processes.is_empty());
    proxy.stop();
}

/// Two real workers, one after the other, before the door opens.
#[test]
fn the_start_finds_the_memory_clean_or_says_that_nobody_looked() {
    let proxy = Proxy::start("soft");
    let node = proxy.list().node;
    assert!(
        !node.sandbox_gaps.iter().any(|gap| gap.contains("canary") || gap.contains("not clean")),
        "{node:?}"
    );
    assert_eq!(node.warnings, Vec::<String>::new());
    assert!(proxy.workers().is_empty() && children(proxy.pid()).is_empty(), "a canary is left");
    proxy.stop();

    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "[proxy]\nscrub_canary = false\n").unwrap();
    let proxy = Proxy::start_with("soft", &["--config", file.path().to_str().unwrap()]);
    let warnings = proxy.list().node.warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("proxy.scrub_canary is off"), "{warnings:?}");
    proxy.stop();
}

#[test]
fn one_process_cannot_reach_what_another_has() {
    let proxy = Proxy::start("soft");
    let (one, two) = (proxy.guest(), proxy.guest());
    let secret = ask::cuMemAlloc_v2(&one, C, 4096).unwrap();
    round_trip(&one, secret, &[0xa5; 4096]);
    let chunk = two.channel.stage(4096, None).unwrap();
    let out = Staged { offset: chunk.offset().into(), len: 4096 };
    assert_eq!(ask::vgpuMemcpyDtoHStaged(&two, C, out, secret, Stream::Legacy), Err(CuError::INVALID_VALUE));
    let own = ask::cuMemAlloc_v2(&two, C, 4096).unwrap();
    ask::vgpuMemcpyDtoHStaged(&two, C, out, own, Stream::Legacy).unwrap();
    let mut seen = [0; 4096];
    chunk.read(0, &mut seen);
    assert!(!seen.contains(&0xa5));
    proxy.stop();
}

#[test]
fn a_worker_is_in_its_sandbox() {
    let proxy = Proxy::start("soft");
    let _guest = proxy.guest();
    let pid = proxy.workers()[0].pid;
    let gaps = proxy.list().node.sandbox_gaps;
    let lacks = |what: &str| gaps.iter().any(|gap| gap.contains(what));
    assert_eq!(status(pid, "NoNewPrivs"), "1");
    assert_eq!(status(pid, "Seccomp"), "2");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(pid, set).trim_start_matches('0'), "", "{set}");
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    assert!(limits.lines().any(|line| line.starts_with("Max core file size        0 ")), "{limits}");
    assert!(fs::read(format!("/proc/{pid}/environ")).unwrap().is_empty());
    // The socket, /dev/null, the log, the pages of the grant and of turns, the exchange, liveness, the bell, the ear. No memory, no other zone.
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert!(fds <= 9, "{fds} descriptors");
    // Its log is not the supervisor's own, which it could write into in the name of others.
    let log = fs::read_link(format!("/proc/{pid}/fd/2")).unwrap();
    assert!(log.to_string_lossy().starts_with("pipe:"), "{}", log.display());
    // A wall that this machine cannot give is a gap that is said, and no other is missing.
    for (namespace, gap) in [
        ("user", "no user namespace"),
        ("mnt", "no mount, pid, net and ipc"),
        ("pid", "no mount, pid, net and ipc"),
        ("net", "no mount, pid, net and ipc"),
        ("ipc", "no mount, pid, net and ipc"),
        ("uts", "no mount, pid, net and ipc"),
    ] {
        let of = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap();
        assert_eq!(of(pid) == of(proxy.pid()), lacks(gap), "{namespace}: {gaps:?}");
    }
    let files = fs::read_dir(format!("/proc/{pid}/root")).unwrap().count();
    assert_eq!(files > 0, lacks("see the node's file system"), "its root has {files} files: {gaps:?}");
    let uid = status(pid, "Uid");
    assert_eq!(uid.starts_with("790000\t"), !lacks("not root"), "{uid}: {gaps:?}");
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let pod = format!("pod{}", proxy.list().zones[0].pod_uid);
    let is_in_its_own = cgroup.split(['/', '\n']).any(|component| component == pod);
    assert_eq!(is_in_its_own, !lacks("no cgroup:"), "{cgroup}: {gaps:?}");
    assert!(!lacks("no Landlock"), "{gaps:?}");
    proxy.stop();
}

/// A cgroup of the test's own, gone with it. None where none can be made.
struct Service(PathBuf);

impl Service {
    fn new() -> Option<Self> {
        let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let root = roots.into_iter().find(|root| root.join("cgroup.procs").exists())?;
        let path = root.join(format!("vgpu-test-{}.service", std::process::id()));
        fs::create_dir(&path).ok().map(|()| Self(path))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        for path in [&self.0.join("supervisor"), &self.0] {
            let _ = fs::remove_dir(path);
        }
    }
}

#[test]
fn a_service_keeps_its_workers_in_its_own_cgroup_and_itself_beside_them() {
    let Some(service) = Service::new() else {
        eprintln!("NOT TRIED: {}: no cgroup of version 2 can be made here", file!());
        return;
    };
    let proxy = Proxy::start_as_service("null", &service.0);
    let _guest = proxy.guest();
    let gaps = proxy.list().node.sandbox_gaps;
    assert!(!gaps.iter().any(|gap| gap.contains("no cgroup:")), "{gaps:?}");
    let cgroup = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        text.lines().find_map(|line| line.strip_prefix("0::").map(str::to_owned)).unwrap()
    };
    let own = format!("/{}", service.0.file_name().unwrap().display());
    let zone = proxy.list().zones[0].pod_uid.clone();
    assert_eq!(cgroup(proxy.pid()), format!("{own}/supervisor"));
    assert_eq!(cgroup(proxy.workers()[0].pid), format!("{own}/pod{zone}/worker-1"));
    proxy.stop();
    let left = fs::read_dir(&service.0).unwrap().flatten().filter(|entry| entry.path().is_dir());
    assert_eq!(left.map(|entry| entry.file_name()).collect::<Vec<_>>(), ["supervisor"]);
}

#[test]
fn a_process_that_goes_takes_its_worker_along_within_a_second() {
    let proxy = Proxy::start("soft");
    let before = {
        proxy.list();
        proxy.open_files()
    };
    for _ in 0..3 {
        let guest = proxy.guest();
        ask::cuMemAlloc_v2(&guest, C, MIB).unwrap();
        let pid = proxy.workers()[0].pid;
        drop(guest);
        assert!(until("the worker is gone", || !alive(pid)) < SECOND);
        assert!(until("the zone is empty", || proxy.workers().is_empty()) < SECOND);
    }
    until("no descriptor is left", || proxy.open_files() <= before);
    proxy.stop();
}

/// A launch of a kernel with this body.
fn kernel(guest: &Guest, body: &str, grid: u32) -> Launch<'static> {
    let ptx = format!(".version 9.0\n.target sm_90\n.address_size 64\n.visible .entry k() {{ {body} }}");
    let ptx = ptx.as_bytes();
    let image = ImageHandle::new(0, 0);
    ask::vgpuUpload(guest, C, 1, ptx.len() as u64, 0, ptx).unwrap();
    let room = guest.channel.stage(4096, None).unwrap();
    let out = Staged { offset: room.offset().into(), len: 4096 };
    ask::vgpuImageLoad(guest, C, NewHandle(image), ImageKind::Module, 1, false, out).unwrap();
    let function = FunctionHandle::of_image(image, 0);
    let shape = LaunchShape {
        function,
        stream: Stream::Legacy,
        grid: [grid, 1, 1],
        block: [grid, 1, 1],
        shared_bytes: 0,
    };
    Launch { shape, attributes: LaunchAttributes::default(), params: &[] }
}

/// Launches a kernel that never ends.
fn launch_endless(guest: &Guest) {
    ask::cuLaunchKernel(guest, C, kernel(guest, "L: bra L;", 64)).unwrap();
}

/// Launches a graph with a loop that never ends, of a kernel that does.
fn launch_endless_loop(guest: &Guest) {
    let handle = ask::vgpuConditionalCreate(guest, C, 1, 1, 1).unwrap();
    let node = |body, work| to_vec(&GraphNode { context: C, body, needs: Vec::new(), work });
    let choice = Conditional { handle, flavor: Conditional::WHILE, bodies: 1 };
    let within = Body::new(0, 0).unwrap();
    let inside = node(within, GraphWork::Kernel(kernel(guest, "ret;", 1)));
    let nodes = [node(Body::NONE, GraphWork::Conditional(choice)), inside].concat();
    ask::vgpuUpload(guest, C, 1, nodes.len() as u64, 0, &nodes).unwrap();
    let graph = GraphExecHandle::new(0, 0);
    ask::vgpuGraphInstantiate(guest, C, NewHandle(graph), 1, 0).unwrap();
    ask::cuGraphLaunch(guest, C, graph, Stream::Legacy).unwrap();
}

#[test]
fn a_worker_in_the_middle_of_an_endless_kernel_ends_with_its_process() {
    ends_with_its_process(launch_endless);
}

#[test]
fn a_worker_in_the_middle_of_an_endless_loop_of_a_graph_ends_with_its_process() {
    ends_with_its_process(launch_endless_loop);
}

fn ends_with_its_process(launch_endless: fn(&Guest)) {
    let proxy = Proxy::start("soft");
    let (guest, other) = (proxy.guest(), proxy.guest());
    ask::cuMemAlloc_v2(&guest, C, MIB).unwrap();
    let pid = proxy.workers().iter().find(|worker| worker.device_bytes == MIB).unwrap().pid;
    launch_endless(&guest);
    let busy = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // utime, the twelfth after the name: hundredths of a second. Source: proc_pid_stat(5).
        stat.rsplit_once(") ").unwrap().1.split(' ').nth(11).unwrap().parse::<u64>().unwrap() > 5
    };
    until("it runs", busy);
    drop(guest);
    assert!(until("the worker is gone", || !alive(pid)) < SECOND);
    until("its memory is free", || proxy.device_bytes() == 0);
    ask::cuCtxSynchronize(&other, C).unwrap();
    proxy.stop();
}

#[test]
fn connections_that_say_nothing_cost_a_bounded_number_of_descriptors_and_pass() {
    let proxy = Proxy::start("null");
    proxy.list();
    let before = proxy.open_files();
    let silent: Vec<_> = (0..300).map(|_| UnixStream::connect(proxy.socket()).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(300));
    let taken = proxy.open_files() - before;
    assert!(taken <= 64 + 4, "{taken} descriptors for who says nothing");
    drop(silent);
    // Its turn comes when theirs are over.
    let guest = proxy.guest();
    ask::cuCtxSynchronize(&guest, C).unwrap();
    proxy.stop();
}

#[test]
fn a_killed_worker_is_an_error_at_once_and_the_others_go_on() {
    let proxy = Proxy::start("soft");
    let (victim, other) = (proxy.guest(), proxy.guest());
    ask::cuMemAlloc_v2(&victim, C, MIB).unwrap();
    let pid = proxy.workers().iter().find(|worker| worker.device_bytes == MIB).unwrap().pid;
    let waiting = std::thread::spawn(move || {
        loop {
            if let Err(error) = ask::cuCtxSynchronize(&victim, C) {
                return (error, Instant::now());
            }
        }
    });
    std::thread::sleep(Duration::from_millis(50));
    let killed = Instant::now();
    signal(pid, libc::SIGKILL);
    let (error, at) = waiting.join().unwrap();
    assert_eq!(error, CuError::DEVICE_UNAVAILABLE);
    assert!(at.duration_since(killed) < SECOND);
    until("it is reaped and its memory is free", || proxy.workers().len() == 1 && proxy.device_bytes() == 0);
    ask::cuCtxSynchronize(&other, C).unwrap();
    proxy.stop();
}

#[test]
fn workers_die_with_their_supervisor_and_programs_get_an_error() {
    let mut proxy = Proxy::start("soft");
    let guest = proxy.guest();
    let workers: Vec<u32> = proxy.workers().iter().map(|worker| worker.pid).collect();
    signal(proxy.pid(), libc::SIGKILL);
    proxy.child.wait().unwrap();
    assert!(until("the workers are gone", || workers.iter().all(|pid| !alive(*pid))) < SECOND);
    assert_eq!(ask::cuCtxSynchronize(&guest, C), Err(CuError::DEVICE_UNAVAILABLE));
    // A killed supervisor cannot remove its cgroups: the next one does.
    let next = Proxy::start("null");
    assert_eq!(cgroups_of(proxy.pid()), Vec::<PathBuf>::new());
    next.stop();
}

#[test]
fn a_stopped_proxy_leaves_nothing_even_with_programs_running() {
    let proxy = Proxy::start("soft");
    let guest = proxy.guest();
    let pid = proxy.workers()[0].pid;
    proxy.stop();
    assert!(!alive(pid));
    assert_eq!(ask::cuCtxSynchronize(&guest, C), Err(CuError::DEVICE_UNAVAILABLE));
}

#[test]
fn a_program_of_another_wire_is_refused_with_its_code() {
    let proxy = Proxy::start("null");
    let error = proxy.guest_of_hash(1).map(drop).unwrap_err();
    assert!(matches!(error, idm::ChannelError::Refused { code: 501, .. }), "{error}");
    assert!(proxy.workers().is_empty());
    proxy.stop();
}

/// As after an upgrade: the program that is started is the one installed for that wire, and no other.
#[test]
fn a_program_of_an_earlier_wire_gets_the_worker_that_is_installed_for_it() {
    let installed = tempfile::tempdir().unwrap();
    let folder = installed.path().canonicalize().unwrap();
    let worker = folder.join(format!("{:016x}", 0x1234));
    fs::copy(env!("CARGO_BIN_EXE_gpu-proxy"), &worker).unwrap();
    let config = folder.join("config.toml");
    fs::write(&config, format!("[proxy]\nworkers_dir = \"{}\"\n", folder.display())).unwrap();
    let proxy = Proxy::start_with("null", &["--config", config.to_str().unwrap()]);
    let program_of = |worker: &WorkerInfo| fs::read_link(format!("/proc/{}/exe", worker.pid)).unwrap();

    let earlier = proxy.guest_of_hash(0x1234).unwrap();
    ask::cuDevicePrimaryCtxRetain(&earlier, ContextId::NONE, 0, 0).unwrap();
    ask::cuCtxSynchronize(&earlier, C).unwrap();
    assert_eq!(proxy.workers().iter().map(program_of).collect::<Vec<_>>(), [worker.as_path()]);

    let _own = proxy.guest();
    let all: Vec<_> = proxy.workers().iter().map(program_of).collect();
    assert_eq!(all.len(), 2);
    assert_ne!(all[1], worker, "this release's own program");
    assert!(matches!(proxy.guest_of_hash(0x1235), Err(idm::ChannelError::Refused { code: 501, .. })));
    proxy.stop();
}

#[test]
fn a_guest_that_breaks_the_protocol_ends_its_own_worker_only() {
    let proxy = Proxy::start("null");
    let (bad, good) = (proxy.guest(), proxy.guest());
    bad.channel.submit_bytes(u16::MAX, 0, &[]).unwrap();
    assert_eq!(ask::cuCtxSynchronize(&bad, C), Err(CuError::DEVICE_UNAVAILABLE));
    until("it is gone", || proxy.workers().len() == 1);
    ask::cuCtxSynchronize(&good, C).unwrap();
    proxy.stop();
}

#[test]
fn what_is_wrong_is_said_with_its_code() {
    let proxy = Proxy::start("null");
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_gpu-proxy")).args(arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let used = proxy.socket();
    let used = used.to_str().unwrap();
    assert!(run(&["--local", used, "--device", "null"]).contains("VGPU-407"));
    assert!(run(&["--local", "/tmp/x", "--device", "gtx"]).contains("VGPU-402"));
    if !Path::new("/proc/driver/nvidia/version").exists() {
        assert!(run(&["--local", "/tmp/x", "--device", "cuda"]).contains("VGPU-402"));
    }
    let unreadable = run(&["--config", "/nonexistent.toml"]);
    assert!(unreadable.contains("VGPU-103") && unreadable.contains("No such file"), "{unreadable}");
    proxy.stop();
}

#[test]
fn without_xen_guests_are_not_waited_for_and_the_message_says_what_goes() {
    if ["/run/xenstored/socket", "/dev/xen/xenbus"].iter().any(|path| Path::new(path).exists()) {
        eprintln!("NOT TRIED: {}: this machine runs Xen", file!());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("zones.sock");
    let mut proxy = Command::new(env!("CARGO_BIN_EXE_gpu-proxy"));
    let output = proxy.args(["--device", "null", "--socket"]).arg(&socket).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("VGPU-101") && said.contains("--local"), "{said}");
    assert!(!socket.exists(), "it serves");
}

#[test]
fn a_context_of_another_process_is_none_of_ours() {
    let proxy = Proxy::start("null");
    let (one, two) = (proxy.guest(), proxy.guest());
    let made = ContextId(100);
    ask::cuCtxCreate_v2(&one, ContextId::NONE, made, 0, 0).unwrap();
    assert_eq!(ask::cuCtxSynchronize(&one, made), Ok(()));
    assert_eq!(ask::cuCtxSynchronize(&two, made), Err(CuError::INVALID_CONTEXT));
    proxy.stop();
}

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
