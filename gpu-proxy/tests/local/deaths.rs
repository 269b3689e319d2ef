//! Deaths: of a process, its worker, the supervisor.

use std::time::{Duration, Instant};

use vgpu_api::graph::{Body, Conditional, GraphNode, GraphWork};
use vgpu_api::launch::{LaunchAttributes, LaunchShape};
use vgpu_api::wire::to_vec;
use vgpu_api::{FunctionHandle, GraphExecHandle, ImageHandle, ImageKind, Launch, NewHandle};

use super::common::{alive, cgroups_of, signal};
use super::*;

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
    let choice = Conditional { graph: 1, handle, flavor: Conditional::WHILE, bodies: 1 };
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
