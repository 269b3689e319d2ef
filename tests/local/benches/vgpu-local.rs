//! What a pod's shim costs, beside runc's of Dom0 (`VGPU_RUNC`, a root with it) in the same run; `cargo xtask bench shim` plays it, as root.
//!
//! One JSON object a line, as idm's benchmark has it. Both shims have one pod of one container, and are asked as containerd asks them.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use vgpu_contract::{
    cost::Cost,
    left,
    mock::{Containerd, Runtime, Shim},
};

const RUNC: &str = "/usr/bin/containerd-shim-runc-v2";
const LOCAL: &str = env!("CARGO_BIN_EXE_containerd-shim-vgpulocal-v1");
const STARTS: usize = 40;
const EXECS: u32 = 20;
/// Threads that wait for work go after ten seconds without any.
const UNTIL_IDLE: Duration = Duration::from_secs(12);
const SIGKILL: u32 = 9;

/// Of one shim.
struct Figures {
    start_ms: f64,
    pss_mib: f64,
    exec_kib: f64,
    threads: f64,
}

#[tokio::main]
async fn main() {
    let root = env::var_os("VGPU_RUNC").expect("VGPU_RUNC is not set: cargo xtask bench shim").into();
    let runc = measure(Runtime::Runc { root }, RUNC).await;
    let ours = measure(Runtime::Local { program: LOCAL.into() }, LOCAL).await;
    let report = |name, unit, figure: fn(&Figures) -> f64, target: f64| {
        let (value, beside) = (figure(&ours), figure(&runc));
        println!(
            "{{\"name\":\"{name}\",\"value\":{value:.2},\"unit\":\"{unit}\",\"beside\":{beside:.2},\
             \"what\":\"runc's shim\",\"ratio\":{:.3},\"target\":{target}}}",
            value / beside
        );
    };
    report("shim, the verb start", "ms", |of| of.start_ms, 10.0);
    report("shim, memory with one pod (PSS)", "MiB", |of| of.pss_mib, 8.0);
    report("shim, memory an exec (PSS)", "KiB", |of| of.exec_kib, 256.0);
    report("shim, threads that idle", "", |of| of.threads, 4.0);
}

async fn measure(runtime: Runtime, program: &str) -> Figures {
    let containerd = Containerd::new(runtime).await;
    containerd.bundle("a", "exec sleep 1000", |_| {});
    let shim = containerd.start("a").await;
    containerd.create(&shim, "a").await;
    tokio::time::sleep(UNTIL_IDLE).await;
    let alone = Cost::of(shim.pid);
    for number in 0..EXECS {
        let exec = format!("e{number}");
        let request = containerd.asked_exec("a", &exec, "exec sleep 1000", |_| {});
        shim.exec(&request).await;
        shim.begin_exec("a", &exec).await;
    }
    tokio::time::sleep(UNTIL_IDLE).await;
    let with_execs = Cost::of(shim.pid);
    let mut starts: Vec<f64> =
        (0..STARTS).map(|number| start_ms(&containerd, &shim, program, number)).collect();
    starts.sort_by(f64::total_cmp);
    shim.signal("a", SIGKILL).await;
    shim.wait("a").await;
    shim.delete("a").await;
    shim.end().await;
    containerd.delete("a");
    left::end(containerd.dir.path(), program);
    Figures {
        start_ms: starts[STARTS / 2],
        pss_mib: kib(alone.pss_kib) / 1024.0,
        exec_kib: (kib(with_execs.pss_kib) - kib(alone.pss_kib)) / f64::from(EXECS),
        threads: f64::from(u32::try_from(alone.threads).expect("a few")),
    }
}

/// The verb `start` of a pod of its own, in the namespace of mounts and the root that the shim is in: both shims are reached alike.
fn start_ms(containerd: &Containerd, shim: &Shim, program: &str, number: usize) -> f64 {
    let id = format!("start{number}");
    containerd.bundle(&id, "true", |_| {});
    let (of, told) = (shim.pid, |path: PathBuf| containerd.told(path));
    let mut command = Command::new("nsenter");
    command.arg(format!("--mount=/proc/{of}/ns/mnt")).arg(format!("--root=/proc/{of}/root"));
    command.arg(format!("--wd=/proc/{of}/root{}", told(containerd.bundle_of(&id)))).arg(program);
    command.args(["-namespace", "default", "-id", &id, "-publish-binary", "/bin/true", "-address"]);
    command.arg(told(containerd.dir.path().join("containerd.sock"))).arg("start");
    command.env("TTRPC_ADDRESS", told(containerd.dir.path().join("events")));
    command.env("VGPU_LOCAL_DIR", containerd.node()).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let begun = Instant::now();
    let output = command.stdin(Stdio::null()).output().expect("nsenter runs");
    let took = begun.elapsed();
    assert!(output.status.success() && !output.stdout.is_empty(), "{output:?}");
    took.as_secs_f64() * 1e3
}

fn kib(count: u64) -> f64 {
    f64::from(u32::try_from(count).expect("less than a TiB"))
}
