//! Pods in a row, and pods that lose somebody at any moment: `test --long churn`. Without Xen the same is played by the hundred
//! (tests/local/tests/churn).

use std::fmt;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::Story;
use crate::command::{SOON, must, run};
use crate::node::{Node, kill_9, start_containerd};
use crate::plays::vgpu;
use crate::pod::{Pod, Running, Runtime, START, remove_fifos_of_ctr};

/// Of a boot; the stage plays ten.
const PODS: u64 = 50;
const KILLS: u64 = 5;
/// So many pods have one with a GPU among them.
const ONE_OF_THEM_COMPUTES: u64 = 5;
/// From `ctr run` to a program that has used the GPU for a while, emulated: a third of it goes by until the program runs.
const LIFE_S: u64 = 30;
/// A story that is given so long a pod has hung.
const POD_S: u64 = 300;

/// What is done to a node.
type Blow = fn(&Node);

/// Who dies, or worse.
const VICTIMS: [(&str, Blow); 8] = [
    ("the shim", |node| newest(node, "containerd-shim-vgpu-v1")),
    ("the share's server", |node| newest(node, "share-server")),
    ("the holder", |node| newest(node, "vgpu-hold")),
    ("a worker", |node| node.workers().iter().for_each(|worker| kill_9(worker.pid))),
    ("gpu-proxy", |node| {
        kill_9(node.supervisor());
        node.assert_no_worker_within(START);
        must(&["sh", "/ctl/vgpu-up.sh"]); // as systemd's Restart=always does
    }),
    ("containerd", |node| {
        node.kill_containerd();
        start_containerd();
    }),
    ("the domain", |node| each_domain(node, |id| drop(run(&["xl", "destroy", id], START)))),
    ("the guest, which hangs,", |node| each_domain(node, |id| drop(run(&["xl", "pause", id], START)))),
];

/// The stories.
pub fn stories() -> Vec<Story> {
    vec![
        vgpu("churn_pods_in_a_row", PODS * POD_S, churn_pods_in_a_row),
        vgpu("churn_random_kills", KILLS * POD_S, churn_random_kills),
    ]
}

fn churn_pods_in_a_row(node: &Node) {
    let (mut pods, mut cleaned) = (Times::default(), Times::default());
    for nth in 1..=PODS {
        let began = Instant::now();
        let computes = nth % ONE_OF_THEM_COMPUTES == 0;
        let pod = if computes { Pod::cuda(&["/vector_add"]) } else { Pod::busybox(Runtime::Vgpu, &["true"]) };
        let ended = pod.run();
        assert_eq!(ended.code, Some(0), "pod {nth}: {}{}", ended.text(), ended.complaint());
        pods.add(began.elapsed());
        cleaned.add(nothing_left(node));
    }
    println!("    a pod took {pods}; until nothing was left of it after ctr's end, {cleaned}");
}

fn churn_random_kills(node: &Node) {
    let mut cleaned = Times::default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let mut random = now;
    for _ in 0..KILLS {
        // Knuth's generator of 64 bits, whose upper bits are the random ones.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (whom, after_s) = (usize::try_from(random >> 61).expect("less than 8"), (random >> 32) % LIFE_S);
        let (who, kill) = VICTIMS[whom];
        println!("    after {after_s} s: {who} dies");
        let pod = node.start(Pod::cuda(&["/spin", "1000"]));
        thread::sleep(Duration::from_secs(after_s));

        kill(node);

        end(pod);
        cleaned.add(nothing_left(node));
    }
    println!("    until nothing was left: {cleaned}");
}

/// How long it took until nothing was left of a pod.
fn nothing_left(node: &Node) -> Duration {
    let began = Instant::now();
    node.assert_nothing_left();
    began.elapsed()
}

/// Told, not tested: an emulated node is slow.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn add(&mut self, time: Duration) {
        self.0.push(time);
        self.0.sort_unstable();
    }
}

impl fmt::Display for Times {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(median), Some(longest)) = (self.0.get(self.0.len() / 2), self.0.last()) else {
            return Ok(());
        };
        write!(to, "{:.1} s in the middle, {:.1} s at most", median.as_secs_f64(), longest.as_secs_f64())
    }
}

/// Whatever is left of it: containerd may have ended it, or know nothing of what happened.
fn end(pod: Running) {
    let name = pod.name().to_string();
    run(&["ctr", "task", "kill", "-s", "SIGKILL", &name], START);
    // Dropped, it is removed by force.
    drop(pod);
    // Of a ctr that was killed between the two, there is no container whose it is.
    run(&["ctr", "snapshots", "rm", &name], SOON);
    remove_fifos_of_ctr(&name);
}

/// Kills the program's process that started last, if there is one.
fn newest(node: &Node, program: &str) {
    match node.processes_of(program).into_iter().max_by_key(|process| process.start_ticks) {
        // It may end by itself just now.
        Some(process) => drop(run(&["kill", "-9", &process.pid.to_string()], SOON)),
        None => eprintln!("no {program} was there"),
    }
}

fn each_domain(node: &Node, work: impl Fn(&str)) {
    node.domains().iter().for_each(|id| work(&id.to_string()));
}
