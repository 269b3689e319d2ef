//! kill -9 of each part: nothing is left of it, the other pod runs on, and so does a pod that has only lost a CUDA program.

use std::time::Duration;

use crate::Story;
use crate::command::{must, until};
use crate::node::{Node, kill_9};
use crate::plays::vgpu;
use crate::pod::{Pod, Running, START, remove_fifos_of_ctr};
use crate::traces::zones;

/// A death is noticed, and everything freed, so soon; emulated.
const NOTICED: Duration = Duration::from_secs(60);

/// The stories.
pub fn stories() -> Vec<Story> {
    vec![
        vgpu("death_of_the_program", 900, |node| {
            beside_another_pod(node, 137, |node, pod| {
                let _ = node;
                pod.signal("SIGKILL");
            });
        }),
        vgpu("death_of_the_domain", 900, |node| {
            beside_another_pod(node, 137, |node, _| {
                let newest = *node.domains().iter().max().expect("two domains");
                must(&["xl", "destroy", &newest.to_string()]);
            });
        }),
        vgpu("death_of_the_guests_kernel", 900, |node| {
            // As after a panic, whoever's: Xen ends the domain and the shim sees that.
            beside_another_pod(node, 137, |node, _| {
                let newest = *node.domains().iter().max().expect("two domains");
                must(&["xl", "sysrq", &newest.to_string(), "c"]);
            });
        }),
        vgpu("death_of_the_worker", 900, |node| {
            // The program gets an error and ends by itself; its code is its own.
            beside_another_pod(node, 1, |node, _| kill_9(newest_worker(node)));
        }),
        vgpu("death_of_the_shim", 900, death_of_the_shim),
        vgpu("death_of_gpu_proxy", 900, death_of_gpu_proxy),
        vgpu("death_of_a_cuda_process_spares_its_pod", 600, death_of_a_cuda_process_spares_its_pod),
    ]
}

/// Two pods with endless GPU work; `kill` is done to the second, which must end with `code`; the first must not notice.
fn beside_another_pod(node: &Node, code: i32, kill: impl Fn(&Node, &Running)) {
    let other = spinning(node);
    let victim = spinning(node);

    kill(node, &victim);

    let ended = victim.end(NOTICED);
    assert_eq!(ended.code, Some(code), "{}{}", ended.text(), ended.complaint());
    runs_on(node, other);
}

/// This pod alone is left, and its GPU goes on working for it.
fn runs_on(node: &Node, mut pod: Running) {
    let settled = until(NOTICED, || (node.domains().len() == 1).then_some(()));
    assert!(settled.is_some(), "domains are left: {:?}", node.domains());
    pod.until_more_of("launches");
    pod.signal("SIGKILL");
    assert_eq!(pod.end(START).code, Some(137));
}

fn death_of_the_shim(node: &Node) {
    let other = spinning(node);
    let victim = spinning(node);
    let shim =
        node.processes_of("containerd-shim-vgpu-v1").into_iter().max_by_key(|process| process.start_ticks);

    kill_9(shim.expect("a shim a pod").pid);

    // containerd runs `delete` of a new shim process; ctr's code is containerd's choice.
    let name = victim.name().to_string();
    victim.end(NOTICED);
    remove_fifos_of_ctr(&name);
    runs_on(node, other);
}

/// The supervisor is everybody's: programs get an error, not a hang; pods that start after its return work.
fn death_of_gpu_proxy(node: &Node) {
    let pod = spinning(node);

    kill_9(node.supervisor());

    let ended = pod.end(NOTICED);
    assert!(!matches!(ended.code, None | Some(0)), "the program did not see an error: {}", ended.text());
    node.assert_no_worker_within(NOTICED);
    must(&["sh", "/ctl/vgpu-up.sh"]); // as systemd's Restart=always does
    let again = Pod::cuda(&["/vector_add"]).run();
    assert_eq!(again.code, Some(0), "{}{}", again.text(), again.complaint());
}

/// Its worker and its memory go with it, not with the domain: that stays, and its next program works.
fn death_of_a_cuda_process_spares_its_pod(node: &Node) {
    // The signal wakes the first wait; the second gives the program's end.
    let script = "trap 'kill -9 $!' USR1; /spin 1000 & wait; wait $!; echo spin gave $?; exec sleep 1000";
    let mut pod = node.start(Pod::cuda(&["sh", "-c", script]));
    pod.until_line("launches");
    let in_use =
        || (node.workers().len(), zones().expect("gpu-proxy runs").pop().expect("the pod's").device_memory);
    assert_eq!(in_use(), (1, "64 MiB".to_string()), "before its death");

    pod.signal("SIGUSR1");

    assert_eq!(pod.until_line("spin gave"), "spin gave 137");
    let freed = until(NOTICED, || (in_use() == (0, "0 B".to_string())).then_some(()));
    assert!(freed.is_some(), "workers and memory are left: {:?}", in_use());
    let again = pod.exec(&["/vector_add"]);
    assert_eq!(again.code, Some(0), "{}{}", again.text(), again.complaint());
    assert!(pod.runs(), "the pod ended too: {}{}", pod.text(), pod.complaint());
    pod.signal("SIGKILL");
    assert_eq!(pod.end(START).code, Some(137));
}

fn spinning(node: &Node) -> Running {
    let zones = || zones().expect("gpu-proxy runs");
    let counted = || zones().iter().filter(|zone| zone.device_memory == "64 MiB").count();
    let before = counted();
    let mut pod = node.start(Pod::cuda(&["/spin", "1000"]));
    pod.until_line("allocated");
    // Or its absence after the death would show nothing.
    assert_eq!(counted(), before + 1, "vgpuctl does not show the pod's 64 MiB: {:?}", zones());
    pod
}

/// The worker of the pod that started last.
fn newest_worker(node: &Node) -> u32 {
    node.workers()
        .into_iter()
        .max_by_key(|process| process.start_ticks)
        .expect("a worker a guest process")
        .pid
}
