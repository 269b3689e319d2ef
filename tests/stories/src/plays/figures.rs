//! What takes how long on Xen, beside runc on the same node. The lines are those of `cargo xtask bench`, whose `xen` plays this; nothing
//! fails for a time.

use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use vgpu_contract::mock::{self, Containerd, Shim};

use crate::Story;
use crate::command::run;
use crate::node::Node;
use crate::plays::{OURS, RUNC, vgpu};
use crate::pod::{self, Pod, START};

/// Of each of the two, in turn.
const EXECS: usize = 15;
/// Of an output, which takes seconds.
const OUTPUTS: usize = 3;
const OUTPUT_BYTES: usize = 32 << 20;
/// Each may take so many times as long as runc's.
const TIMES_RUNCS: f64 = 2.0;
const SIGKILL: u32 = 9;

/// The stories.
pub fn stories() -> Vec<Story> {
    vec![
        vgpu("figures_of_an_exec_by_the_shims", 300, by_the_shims),
        vgpu("figures_of_an_exec_and_its_output_by_ctr", 400, by_ctr),
    ]
}

/// A shim and a container that sleeps, called as containerd calls it.
struct Side {
    containerd: Containerd,
    shim: Shim,
}

impl Side {
    async fn new(program: &str) -> Self {
        let containerd = Containerd::new(mock::Runtime::Node { program: program.into() }).await;
        containerd.bundle("a", "exec sleep 1000", |_| {});
        let shim = containerd.start("a").await;
        containerd.create(&shim, "a").await;
        Self { containerd, shim }
    }

    /// Exec, Start, Wait and Delete of `true`.
    async fn exec(&self, number: usize) -> Duration {
        let exec = format!("e{number}");
        let asked = self
            .containerd
            .asked_exec("a", &exec, "", |process| process["args"] = ["busybox", "true"].into());
        let begun = Instant::now();
        self.shim.exec(&asked).await;
        self.shim.begin_exec("a", &exec).await;
        assert_eq!(self.shim.wait_exec("a", &exec).await, 0);
        self.shim.delete_exec("a", &exec).await;
        begun.elapsed()
    }

    async fn end(self) {
        self.shim.signal("a", SIGKILL).await;
        assert_eq!((self.shim.wait("a").await, self.shim.delete("a").await), (137, 137));
        self.shim.end().await;
        self.containerd.delete("a");
    }
}

fn by_the_shims(_: &Node) {
    Runtime::new().expect("a runtime").block_on(async {
        let (runc, ours) = (Side::new(RUNC).await, Side::new(OURS).await);
        let (mut of_runc, mut of_ours) = (Vec::new(), Vec::new());
        for number in 0..EXECS {
            of_runc.push(runc.exec(number).await);
            of_ours.push(ours.exec(number).await);
        }
        tell("exec of true in the testbed, Exec to Delete", of_ours, of_runc);
        runc.end().await;
        ours.end().await;
    });
}

fn by_ctr(node: &Node) {
    let of = |runtime| node.start(Pod::busybox(runtime, &["sh", "-c", "echo there; exec sleep 1000"]));
    let [mut runc, mut ours] = [pod::Runtime::Runc, pod::Runtime::Vgpu].map(of);
    for pod in [&mut runc, &mut ours] {
        pod.until_line("there");
    }
    let bytes = OUTPUT_BYTES.to_string();
    let output = ["head", "-c", &bytes, "/dev/zero"];
    for (what, times, program) in
        [("exec of true", EXECS, ["true"].as_slice()), ("output of 32 MiB", OUTPUTS, &output)]
    {
        let (mut of_runc, mut of_ours) = (Vec::new(), Vec::new());
        for _ in 0..times {
            of_runc.push(exec_by_ctr(runc.name(), program));
            of_ours.push(exec_by_ctr(ours.name(), program));
        }
        tell(&format!("{what} in the testbed, by ctr task exec"), of_ours, of_runc);
    }
    for pod in [runc, ours] {
        pod.signal("SIGKILL");
        assert_eq!(pod.end(START).code, Some(137));
    }
}

fn exec_by_ctr(name: &str, program: &[&str]) -> Duration {
    let line = [&["ctr", "task", "exec", "--exec-id", "e", name], program].concat();
    let begun = Instant::now();
    let ended = run(&line, START);
    let took = begun.elapsed();
    let written = if program.len() == 1 { 0 } else { OUTPUT_BYTES };
    assert_eq!((ended.code, ended.stdout.len()), (Some(0), written), "{}", ended.complaint());
    took
}

/// The medians.
fn tell(name: &str, ours: Vec<Duration>, runcs: Vec<Duration>) {
    let [ours, runcs] = [ours, runcs].map(|mut times| {
        times.sort();
        times[times.len() / 2].as_secs_f64() * 1e3
    });
    println!(
        "{{\"name\":\"{name}\",\"value\":{ours:.1},\"unit\":\"ms\",\"beside\":{runcs:.1},\"what\":\"runc\",\
         \"ratio\":{:.3},\"target\":{:.1}}}",
        ours / runcs,
        TIMES_RUNCS * runcs
    );
}
