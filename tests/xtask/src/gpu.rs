//! `cargo xtask gpu [--device auto|soft|null|cuda] [--devices N] [--log FILE] -- CMD...`: runs CMD on this machine with libvgpu as its libcuda, our
//! libnvidia-ml beside it and a gpu-proxy of its own. No Xen: the `local` transport. CMD's streams and exit code are its own, and so is
//! ^C: while CMD runs, xtask ignores it and gpu-proxy does not hear it, so that CMD ends as it likes, with its GPU.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder};
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::args::Args;
use crate::cache::{hex, remove_tree};
use crate::cuda_programs::LIBRARIES;
use crate::dist;
use crate::error::{Context, Failure, Result};
use crate::paths;
use crate::progress::{Steps, read_end};

/// Longer than gpu-proxy waits for a driver that does not answer, and for its canary: then it serves all the same.
const PROXY_STARTS_WITHIN: Duration = Duration::from_secs(75);
const PROXY_ENDS_WITHIN: Duration = Duration::from_secs(5);
/// The option of `env` for a program that hears ^C though we do not.
pub const LISTENING: &str = "--default-signal=INT";

/// Builds what is needed (a carried xtask has it), serves the device, runs the command.
pub fn main(mut args: Args) -> Result<u8> {
    let device = device(&mut args)?;
    let devices = args.value("--devices")?;
    let log = args.value("--log")?;
    let command = args.command()?;
    let programs = Programs::find()?;
    ignore_interrupts()?;
    let mut served = Served::start(&programs, &device, devices.as_deref().unwrap_or("1"))?;
    served.keep_log_as = log.map(PathBuf::from);
    let mut line = Command::new("env");
    served.equip(line.arg(LISTENING).args(&command), Path::new(&command[0]))?;
    let status = line.status().context(|| format!("cannot run {}", command[0]))?;
    drop(served);
    Ok(code_of(status))
}

/// What `--device` says, or `auto`.
pub fn device(args: &mut Args) -> Result<String> {
    let device = args.value("--device")?.unwrap_or_else(|| "auto".into());
    if ["auto", "soft", "null", "cuda"].contains(&device.as_str()) {
        return Ok(device);
    }
    Err(Failure::new(format!("--device is auto, soft, null or cuda, not {device}")))
}

/// From here on ^C is for the programs that we start, which [`LISTENING`] lets hear it.
pub fn ignore_interrupts() -> Result<()> {
    if ignores_interrupts(&fs::read_to_string("/proc/self/status").unwrap_or_default()) {
        return Ok(());
    }
    // Once more, ignoring them: a program cannot say so of itself without unsafe code.
    let mut again = Command::new("env");
    again.arg("--ignore-signal=INT").args(std::env::args_os());
    Err(again.exec()).context(|| "cannot run env".into())
}

/// Whether SIGINT is ignored, by what `/proc/PID/status` says: one bit a signal, counted from 1. Source: `proc_pid_status(5)`.
fn ignores_interrupts(status: &str) -> bool {
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & 1 << (2 - 1) != 0)
}

/// As a shell has it: the code, or 128 and the signal.
pub fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// gpu-proxy and the guest's libraries for this machine.
pub struct Programs {
    proxy: PathBuf,
    /// The names that programs open, and the files.
    libraries: Vec<(&'static str, PathBuf)>,
}

impl Programs {
    /// Builds them; a carried xtask has them.
    pub fn find() -> Result<Self> {
        if let Some(dist) = paths::carried_dist() {
            let library = |(_, _, name)| (name, dist.join("guest").join(name));
            return Ok(Self {
                proxy: dist.join("usr/bin/gpu-proxy"),
                libraries: dist::LIBRARIES.map(library).into(),
            });
        }
        let (root, release) = (paths::root()?, paths::target()?.join("release"));
        dist::native(&Steps::quiet()?, &root)?;
        let library = |(_, file, name)| (name, release.join(file));
        Ok(Self { proxy: release.join("gpu-proxy"), libraries: dist::LIBRARIES.map(library).into() })
    }
}

/// The directory of one run: the socket, the library's directory, the proxy's log. Gone with the run.
struct Scene(PathBuf);

impl Scene {
    fn set(libraries: &[(&str, PathBuf)]) -> Result<Self> {
        // CMD loads libraries from here: nobody else may have made it, or guess its name.
        let mut random = [0; 16];
        let mut source = fs::File::open("/dev/urandom").context(|| "cannot open /dev/urandom".into())?;
        source.read_exact(&mut random).context(|| "cannot read /dev/urandom".into())?;
        let dir = std::env::temp_dir().join(format!("vgpu-{}", hex(&random)));
        DirBuilder::new().mode(0o700).create(&dir).context(|| format!("cannot make {}", dir.display()))?;
        let scene = Self(dir);
        let lib = scene.libraries();
        fs::create_dir(&lib).context(|| format!("cannot make {}", lib.display()))?;
        for (name, file) in libraries {
            // Programs that were linked against a stub open the name without the number.
            for name in [*name, name.trim_end_matches(".1")] {
                symlink(file, lib.join(name)).context(|| format!("cannot link {name}"))?;
            }
        }
        Ok(scene)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("gpu.sock")
    }

    fn log(&self) -> PathBuf {
        self.0.join("gpu-proxy.log")
    }

    /// Where our libcuda is.
    fn libraries(&self) -> PathBuf {
        self.0.join("lib")
    }

    /// Our libcuda first, then what lies beside the program in an image's root, then the caller's own.
    fn search_path(&self, program: &Path) -> Result<OsString> {
        let beside = program.parent().map(|root| root.join(LIBRARIES)).filter(|dir| dir.is_dir());
        let own = [Some(self.libraries()), beside].into_iter().flatten();
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
    pub keep_log_as: Option<PathBuf>,
}

impl Served {
    /// Starts it in a directory of its own, with so many devices for each program, and waits until it serves. It ends with the thread that called this, and not by ^C.
    pub fn start(programs: &Programs, device: &str, devices: &str) -> Result<Self> {
        let scene = Scene::set(&programs.libraries)?;
        let log = fs::File::create(scene.log()).context(|| "cannot make gpu-proxy's log".into())?;
        let errors = log.try_clone().context(|| "cannot share gpu-proxy's log".into())?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]).arg(&programs.proxy).process_group(0);
        command.arg("--local").arg(scene.socket()).args(["--device", device, "--devices", devices]);
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
        self.equip(command.args(&words[1..]), Path::new(&words[0]))?;
        Ok(command)
    }

    /// The socket, the directory of our libcuda, gpu-proxy's process id: for one who starts programs by itself.
    pub fn parts(&self) -> [String; 3] {
        let shown = |path: PathBuf| path.to_string_lossy().into_owned();
        [shown(self.scene.socket()), shown(self.scene.libraries()), self.child.id().to_string()]
    }

    /// Lets the command that runs `program` find our libcuda and gpu-proxy.
    fn equip(&self, command: &mut Command, program: &Path) -> Result<()> {
        command.env("VGPU_SOCKET", self.scene.socket());
        command.env("LD_LIBRARY_PATH", self.scene.search_path(program)?);
        Ok(())
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    /// Programs of which gpu-proxy is a script that serves by making its socket's file.
    fn stand_ins(name: &str) -> Programs {
        let dir = paths::scratch().expect("scratch").join(name);
        remove_tree(&dir).expect("removed");
        fs::create_dir_all(&dir).expect("made");
        let proxy = dir.join("gpu-proxy");
        fs::write(&proxy, "#!/bin/sh\n: > \"$2\"\nexec sleep 60\n").expect("written");
        fs::set_permissions(&proxy, fs::Permissions::from_mode(0o755)).expect("executable");
        Programs { proxy, libraries: vec![("libcuda.so.1", dir.join("libvgpu.so"))] }
    }

    /// State and process group. Source: `proc_pid_stat(5)`.
    fn state_and_group(pid: u32) -> Option<(String, u32)> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit(") ").next()?.split(' ');
        Some((fields.next()?.into(), fields.nth(1)?.parse().ok()?))
    }

    #[test]
    fn nobody_else_can_reach_where_libraries_are_loaded_from() {
        let programs = stand_ins("gpu-scene-test");
        let (one, other) = (Scene::set(&programs.libraries), Scene::set(&programs.libraries));
        let (one, other) = (one.expect("made"), other.expect("made"));
        assert_ne!(one.0, other.0);
        assert_eq!(fs::metadata(&one.0).expect("there").mode() & 0o777, 0o700);
    }

    #[test]
    fn gpu_proxy_does_not_hear_the_terminal_and_ends_with_us() {
        let programs = stand_ins("gpu-proxy-test");
        let pid = std::thread::spawn(move || {
            let served = Served::start(&programs, "soft", "1").expect("serves");
            let pid = served.child.id();
            assert_eq!(state_and_group(pid).expect("alive").1, pid, "a group of its own");
            let dir = served.scene.0.clone();
            std::mem::forget(served); // as when we are killed
            remove_tree(&dir).expect("removed");
            pid
        });
        let pid = pid.join().expect("started");
        let started = Instant::now();
        // Nobody has waited for it: it stays as a zombie.
        while state_and_group(pid).is_some_and(|(state, _)| state != "Z") {
            assert!(started.elapsed() < PROXY_ENDS_WITHIN, "gpu-proxy lives on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn an_ignored_interrupt_is_the_second_bit() {
        assert!(ignores_interrupts("SigBlk:\t0000000000000000\nSigIgn:\t0000000000001002\n"));
        assert!(!ignores_interrupts("SigBlk:\t0000000000000002\nSigIgn:\t0000000000001004\n"));
    }
}
