//! `cargo xtask gpu [--device auto|soft|null|cuda] [--log FILE] -- CMD...`: runs CMD on this machine with libvgpu as its libcuda and a
//! gpu-proxy of its own. No Xen: the `local` transport. CMD's streams and exit code are its own.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::args::Args;
use crate::cache::remove_tree;
use crate::cuda_programs::LIBRARIES;
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
    let log = args.value("--log")?;
    let command = args.command()?;
    let mut served = Served::start(&Programs::find()?, &device)?;
    served.keep_log_as = log.map(PathBuf::from);
    let status = served.command(&command)?.status().context(|| format!("cannot run {}", command[0]))?;
    drop(served);
    Ok(code_of(status))
}

/// As a shell has it: the code, or 128 and the signal.
pub fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// gpu-proxy and libvgpu for this machine.
pub struct Programs {
    proxy: PathBuf,
    libvgpu: PathBuf,
}

impl Programs {
    /// Builds them; a carried xtask has them.
    pub fn find() -> Result<Self> {
        if let Some(dist) = paths::carried_dist() {
            return Ok(Self {
                proxy: dist.join("usr/bin/gpu-proxy"),
                libvgpu: dist.join("guest/libcuda.so.1"),
            });
        }
        let (root, release) = (paths::root()?, paths::target()?.join("release"));
        Steps::quiet()?.step("Build gpu-proxy and libvgpu", |log| {
            log.run(&mut cargo(
                &root,
                &["build", "--release", "--package", "gpu-proxy", "--package", "libvgpu"],
            ))
        })?;
        Ok(Self { proxy: release.join("gpu-proxy"), libvgpu: release.join("libvgpu.so") })
    }
}

/// The directory of one run: the socket, the library's directory, the proxy's log. Gone with the run.
struct Scene(PathBuf);

impl Scene {
    fn set(libvgpu: &Path) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("vgpu-{}-{number}", std::process::id()));
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

    /// Our libcuda first, then what lies beside the program in an image's root, then the caller's own.
    fn library_path(&self, program: &Path) -> Result<OsString> {
        let beside = program.parent().map(|root| root.join(LIBRARIES)).filter(|dir| dir.is_dir());
        let own = [Some(self.0.join("lib")), beside].into_iter().flatten();
        let callers = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        let callers = std::env::split_paths(&callers).filter(|path| !path.as_os_str().is_empty());
        std::env::join_paths(own.chain(callers)).context(|| "a library path holds a ':'".into())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = remove_tree(&self.0);
    }
}

/// A gpu-proxy that serves programs of this machine; asked to end when dropped.
pub struct Served {
    child: Child,
    scene: Scene,
    /// Where the whole log goes at the end.
    keep_log_as: Option<PathBuf>,
}

impl Served {
    /// Starts it in a directory of its own and waits until it serves.
    pub fn start(programs: &Programs, device: &str) -> Result<Self> {
        let scene = Scene::set(&programs.libvgpu)?;
        let log = fs::File::create(scene.log()).context(|| "cannot make gpu-proxy's log".into())?;
        let errors = log.try_clone().context(|| "cannot share gpu-proxy's log".into())?;
        let mut command = Command::new(&programs.proxy);
        command.arg("--local").arg(scene.socket()).args(["--device", device]);
        let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
        let child = child.context(|| format!("cannot run {}", programs.proxy.display()))?;
        let mut served = Self { child, scene, keep_log_as: None };
        let started = Instant::now();
        while !served.scene.socket().exists() {
            let ended = served.child.try_wait().context(|| "cannot wait for gpu-proxy".into())?;
            if ended.is_some() || started.elapsed() > PROXY_STARTS_WITHIN {
                return Err(Failure::new(format!("gpu-proxy does not serve:\n{}", served.log())));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(served)
    }

    /// `words` as a command whose libcuda is ours.
    pub fn command<W: AsRef<OsStr>>(&self, words: &[W]) -> Result<Command> {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env("VGPU_SOCKET", self.scene.socket());
        command.env("LD_LIBRARY_PATH", self.scene.library_path(Path::new(&words[0]))?);
        Ok(command)
    }

    /// The end of gpu-proxy's log.
    pub fn log(&self) -> String {
        read_end(&self.scene.log())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It removes its workers' cgroups when asked to end; only what hangs is killed.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        }
        let started = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && started.elapsed() < PROXY_ENDS_WITHIN {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let kept = self.keep_log_as.as_ref().map(|file| (file, fs::copy(self.scene.log(), file)));
        if let Some((file, Err(cause))) = kept {
            eprintln!("xtask: cannot write {}: {cause}", file.display());
        }
    }
}
