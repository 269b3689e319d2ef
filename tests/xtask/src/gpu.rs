//! `cargo xtask gpu [--device auto|soft|null|cuda] -- CMD...`: runs CMD on this machine with libvgpu as its libcuda and a
//! gpu-proxy of its own. No Xen: the `local` transport. CMD's streams and exit code are its own.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::args::Args;
use crate::cache::remove_tree;
use crate::dist::cargo;
use crate::error::{Context, Failure, Result};
use crate::paths;
use crate::progress::{Steps, read_end};

const PROXY_STARTS_WITHIN: Duration = Duration::from_secs(20);
const PROXY_ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Builds what is needed (a carried xtask has it), serves the device, runs the command.
pub fn main(mut args: Args) -> Result<u8> {
    let device = args.value("--device")?.unwrap_or_else(|| "auto".into());
    if !["auto", "soft", "null", "cuda"].contains(&device.as_str()) {
        return Err(Failure::new(format!("--device is auto, soft, null or cuda, not {device}")));
    }
    let command = args.command()?;
    let (proxy, libvgpu) = programs()?;
    let scene = Scene::set(&libvgpu)?;
    let served = Served::start(&proxy, &scene, &device)?;
    let mut child = Command::new(&command[0]);
    child.args(&command[1..]).env("VGPU_SOCKET", scene.socket()).env("LD_LIBRARY_PATH", scene.library_path());
    let status = child.status().context(|| format!("cannot run {}", command[0]))?;
    drop(served);
    Ok(code_of(status))
}

/// As a shell has it: the code, or 128 and the signal.
fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// gpu-proxy and libvgpu for this machine.
fn programs() -> Result<(PathBuf, PathBuf)> {
    if let Some(dist) = paths::carried_dist() {
        return Ok((dist.join("usr/bin/gpu-proxy"), dist.join("guest/libcuda.so.1")));
    }
    let (root, release) = (paths::root()?, paths::target()?.join("release"));
    Steps::quiet()?.step("Build gpu-proxy and libvgpu", |log| {
        log.run(&mut cargo(&root, &["build", "--release", "--package", "gpu-proxy", "--package", "libvgpu"]))
    })?;
    Ok((release.join("gpu-proxy"), release.join("libvgpu.so")))
}

/// The directory of one run: the socket, the library's directory, the proxy's log. Gone with the run.
struct Scene(PathBuf);

impl Scene {
    fn set(libvgpu: &Path) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("vgpu-{}", std::process::id()));
        remove_tree(&dir)?;
        let scene = Self(dir);
        let lib = scene.0.join("lib");
        fs::create_dir_all(&lib).context(|| format!("cannot make {}", lib.display()))?;
        for name in ["libcuda.so.1", "libcuda.so"] {
            symlink(libvgpu, lib.join(name)).context(|| format!("cannot link {name}"))?;
        }
        Ok(scene)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("gpu.sock")
    }

    fn log(&self) -> PathBuf {
        self.0.join("gpu-proxy.log")
    }

    fn library_path(&self) -> String {
        let own = self.0.join("lib").display().to_string();
        match std::env::var("LD_LIBRARY_PATH") {
            Ok(more) if !more.is_empty() => format!("{own}:{more}"),
            _ => own,
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = remove_tree(&self.0);
    }
}

/// A running gpu-proxy; asked to end when dropped.
struct Served(Child);

impl Served {
    fn start(proxy: &Path, scene: &Scene, device: &str) -> Result<Self> {
        let log = fs::File::create(scene.log()).context(|| "cannot make gpu-proxy's log".into())?;
        let errors = log.try_clone().context(|| "cannot share gpu-proxy's log".into())?;
        let mut command = Command::new(proxy);
        command.arg("--local").arg(scene.socket()).args(["--device", device]);
        let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
        let mut served = Self(child.context(|| format!("cannot run {}", proxy.display()))?);
        let started = Instant::now();
        while !scene.socket().exists() {
            let ended = served.0.try_wait().context(|| "cannot wait for gpu-proxy".into())?;
            if ended.is_some() || started.elapsed() > PROXY_STARTS_WITHIN {
                return Err(Failure::new(format!("gpu-proxy does not serve:\n{}", read_end(&scene.log()))));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(served)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It removes its workers' cgroups when asked to end; only what hangs is killed.
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        }
        let started = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) && started.elapsed() < PROXY_ENDS_WITHIN {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
