//! `cargo xtask testbed run|shell`: boots Xen with a Debian 13 Dom0 and runs one script, or gives a prompt.
//!
//! Host and Dom0 speak through a shared directory `ctl`: settings and script in; output, exit code, logs out
//! (`tests/testbed/dom0-init.sh` is the other end). The script's output is shown as it comes.

use std::fs::{self, File};
use std::io::{Read as _, Write};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant, SystemTime};

use crate::args::Args;
use crate::beforehand;
use crate::cache::{remove_tree, sorted_entries};
use crate::cuda_programs;
use crate::dist;
use crate::dom0::{self, Dom0};
use crate::error::{Context, Failure, Result};
use crate::host::{self, Needs};
use crate::paths;
use crate::progress::{Steps, read_end};
use crate::qemu::{INITRAMFS, KERNEL, Kind, Machine, Share, default_memory_mib};

const VGPU_UP: &str = include_str!("../../testbed/vgpu-up.sh");
/// A boot that takes longer than this hangs; alone on two cores it takes half a minute.
const BOOT_LIMIT: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// So many boots that did not come to their ends are kept with their logs: those of one test run, and some.
const FAILED_KEPT: usize = 6;

/// What to boot.
pub struct Boot {
    pub kind: Kind,
    pub memory_mib: u32,
    /// Appears in Dom0 as /mnt/share, writable.
    pub share: Option<PathBuf>,
    /// Appear in Dom0 as /ctl/NAME, executable.
    pub files: Vec<(&'static str, Vec<u8>)>,
    /// Without vgpu: Xen, containerd and the share only.
    pub bare: bool,
    /// The script may run so long.
    pub limit: Duration,
    /// Where its logs stay, below `target/xtask/testbed`.
    pub kept: String,
}

impl Boot {
    /// A PV Dom0 with vgpu installed.
    pub fn new() -> Self {
        let limit = Duration::from_secs(900);
        Self {
            kind: Kind::Pv,
            memory_mib: default_memory_mib(),
            share: None,
            files: Vec::new(),
            bare: false,
            limit,
            kept: "last".into(),
        }
    }
}

/// `testbed run [--dom0 pv|pvh] [--share DIR] [--memory MIB] [--limit SECONDS] [--bare] SCRIPT [ARG...]` and
/// `testbed shell` with the same options.
pub fn main(mut args: Args) -> Result<u8> {
    let verb = args.word("run or shell")?;
    let boot = options(&mut args)?;
    let steps = Steps::new()?;
    match verb.as_str() {
        "run" => {
            let script = args.word("a SCRIPT")?;
            let script = fs::read(&script).context(|| format!("cannot read {script}"))?;
            let words = args.rest();
            let dom0 = prepared(&steps, &boot)?;
            run(&steps, &dom0, &boot, &script, &words, &mut std::io::stdout())
        }
        "shell" => {
            args.end()?;
            let dom0 = prepared(&steps, &boot)?;
            shell(&dom0, &boot)
        }
        _ => Err(Failure::new(format!("testbed run or testbed shell, not testbed {verb}"))),
    }
}

/// What the options ask for.
fn options(args: &mut Args) -> Result<Boot> {
    let mut boot = Boot::new();
    if let Some(kind) = args.value("--dom0")? {
        boot.kind = match kind.as_str() {
            "pv" => Kind::Pv,
            "pvh" => Kind::Pvh,
            _ => return Err(Failure::new(format!("--dom0 is pv or pvh, not {kind}"))),
        };
    }
    if let Some(mib) = args.number("--memory")? {
        boot.memory_mib = mib;
    }
    if let Some(dir) = args.value("--share")? {
        boot.share = Some(fs::canonicalize(&dir).context(|| format!("cannot share {dir}"))?);
    }
    if let Some(seconds) = args.number("--limit")? {
        boot.limit = Duration::from_secs(u64::from(seconds));
    }
    boot.bare = args.flag("--bare");
    Ok(boot)
}

fn prepared(steps: &Steps, boot: &Boot) -> Result<Dom0> {
    host::prepare(steps, if boot.bare { Needs::Testbed } else { Needs::All })?;
    if boot.bare { Dom0::get(steps, None) } else { complete(steps) }
}

/// All that a boot with vgpu needs: what a node installs, and a Dom0 with all images.
pub fn complete(steps: &Steps) -> Result<Dom0> {
    dom0::may_be_made(steps)?;
    beforehand::beside(steps, beforehand::ALL, || {
        dist::build(steps)?;
        let programs = cuda_programs::build(steps)?;
        Dom0::get(steps, Some(&programs))
    })
}

/// Boots, runs the script (or program) as root in Dom0, writes its output to `out` as it comes, and returns its exit code.
pub fn run(
    steps: &Steps,
    dom0: &Dom0,
    boot: &Boot,
    script: &[u8],
    words: &[String],
    out: &mut dyn Write,
) -> Result<u8> {
    let scene = Scene::set(dom0, boot, false)?;
    scene.write("script", script)?;
    scene.write("run.sh", run_line(script, words).as_bytes())?;
    let console = scene.dir.join("console.log");
    let machine = scene.machine(dom0, boot, Some(&console))?;
    let mut qemu = Qemu(machine.start()?);
    steps
        .step(&format!("Boot Xen and a {} Dom0 under emulation", boot.kind.name().to_uppercase()), |_| {
            scene.wait_for("up", &mut qemu, BOOT_LIMIT, &mut || Ok(()))
        })?;
    let mut shown = Shown { path: scene.ctl().join("out"), file: None };
    let outcome = scene.wait_for("rc", &mut qemu, boot.limit, &mut || shown.more(out));
    shown.more(out)?;
    outcome?;
    qemu.wait_for_end(Duration::from_secs(30));
    let code = scene.exit_code()?;
    scene.keep(&boot.kept)?;
    Ok(code)
}

/// Boots and gives a prompt in Dom0 on this terminal.
fn shell(dom0: &Dom0, boot: &Boot) -> Result<u8> {
    let scene = Scene::set(dom0, boot, true)?;
    eprintln!("booting; the prompt comes in half a minute");
    let mut qemu = Qemu(scene.machine(dom0, boot, None)?.start()?);
    let status = qemu.0.wait().context(|| "cannot wait for QEMU".into())?;
    if !status.success() {
        return Err(Failure::new(format!("QEMU: {status}; logs: {}", scene.dir.display())));
    }
    let code = scene.exit_code();
    scene.keep(&boot.kept)?;
    code
}

/// Runs the user's script by its own first line, or by sh.
fn run_line(script: &[u8], words: &[String]) -> String {
    let runner = if script.starts_with(b"#!") || script.starts_with(b"\x7fELF") { "" } else { "sh " };
    let words: Vec<String> = words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
    format!(
        "cp /ctl/script /tmp/script\nchmod 755 /tmp/script\nexec {runner}/tmp/script {}\n",
        words.join(" ")
    )
}

fn make_executable(path: &Path) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .context(|| format!("cannot chmod {}", path.display()))
}

/// Removes the directories of failed boots, `PID-NAME` with no such process, but the newest.
fn tidy(testbed: &Path) -> Result<()> {
    let mut dead: Vec<(SystemTime, PathBuf)> = Vec::new();
    for path in sorted_entries(testbed)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(pid) = name.split_once('-').and_then(|(pid, _)| pid.parse::<u32>().ok()) else { continue };
        if !Path::new("/proc").join(pid.to_string()).exists() {
            // Another xtask may remove it right now.
            let changed = fs::metadata(&path).and_then(|meta| meta.modified());
            dead.push((changed.unwrap_or(SystemTime::UNIX_EPOCH), path));
        }
    }
    dead.sort();
    dead[..dead.len().saturating_sub(FAILED_KEPT)].iter().try_for_each(|(_, path)| remove_tree(path))
}

/// The directory of one boot: `ctl`, kernel and initramfs, the console's log. QEMU works in it.
struct Scene {
    dir: PathBuf,
}

impl Scene {
    fn set(dom0: &Dom0, boot: &Boot, shell: bool) -> Result<Self> {
        let testbed = paths::scratch()?.join("testbed");
        let scene = Self { dir: testbed.join(format!("{}-{}", std::process::id(), boot.kept)) };
        remove_tree(&scene.dir)?;
        fs::create_dir_all(scene.ctl()).context(|| format!("cannot make {}", scene.dir.display()))?;
        tidy(&testbed)?;
        let yes = |on: bool| if on { "yes" } else { "no" };
        let settings =
            format!("dist={}\nshare={}\nshell={}\n", yes(!boot.bare), yes(boot.share.is_some()), yes(shell));
        scene.write("settings", settings.as_bytes())?;
        scene.write("vgpu-up.sh", VGPU_UP.as_bytes())?;
        scene.write("out", b"")?;
        for (name, content) in &boot.files {
            scene.write(name, content)?;
            make_executable(&scene.ctl().join(name))?;
        }
        symlink(dom0.kernel(), scene.dir.join(KERNEL)).context(|| "cannot link Dom0's kernel".into())?;
        fs::write(scene.dir.join(INITRAMFS), dom0.initramfs()?)
            .context(|| "cannot write Dom0's initramfs".into())?;
        Ok(scene)
    }

    fn machine<'a>(&'a self, dom0: &Dom0, boot: &Boot, console: Option<&'a Path>) -> Result<Machine<'a>> {
        let mut shares = vec![Share { tag: "ctl", dir: self.ctl(), read_only: false }];
        if !boot.bare {
            shares.push(Share { tag: "dist", dir: paths::dist()?, read_only: true });
        }
        if let Some(dir) = &boot.share {
            shares.push(Share { tag: "share", dir: dir.clone(), read_only: false });
        }
        let (kind, memory_mib) = (boot.kind, boot.memory_mib);
        let (xen, disk) = (dom0.xen(), dom0.disk());
        Ok(Machine { dir: &self.dir, xen, disk, kind, memory_mib, shares, console })
    }

    fn ctl(&self) -> PathBuf {
        self.dir.join("ctl")
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.ctl().join(name);
        fs::write(&path, content).context(|| format!("cannot write {}", path.display()))
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.ctl().join(name);
        fs::read_to_string(&path).context(|| format!("cannot read {}", path.display()))
    }

    /// Of the script, or of the shell.
    fn exit_code(&self) -> Result<u8> {
        self.read("rc")?.trim().parse().context(|| "Dom0 left no exit code".into())
    }

    /// Waits until Dom0 has made `ctl/NAME`, and does `meanwhile` again and again.
    fn wait_for(
        &self,
        name: &str,
        qemu: &mut Qemu,
        limit: Duration,
        meanwhile: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let started = Instant::now();
        loop {
            let ended = qemu.ended();
            meanwhile()?;
            if self.ctl().join(name).exists() {
                return Ok(());
            }
            if ended {
                return Err(self.failure("the machine stopped by itself"));
            }
            if started.elapsed() > limit {
                return Err(self.failure(&format!("not done within {} s", limit.as_secs())));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// A failure with the end of the console.
    fn failure(&self, what: &str) -> Failure {
        let console = self.dir.join("console.log");
        let text = read_end(&console) + &read_end(&console.with_extension("qemu"));
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(20)..].join("\n    ");
        Failure::new(format!("{what}; the console's last lines:\n    {tail}\nlogs: {}", self.dir.display()))
    }

    /// Keeps the logs of a boot that came to its end at a fixed place.
    fn keep(self, name: &str) -> Result<()> {
        let last = self.dir.with_file_name(name);
        remove_tree(&last)?;
        for file in [KERNEL, INITRAMFS] {
            let _ = fs::remove_file(self.dir.join(file));
        }
        fs::rename(&self.dir, &last).context(|| format!("cannot rename {}", self.dir.display()))
    }
}

/// A growing file, of which everything is shown once.
struct Shown {
    path: PathBuf,
    file: Option<File>,
}

impl Shown {
    fn more(&mut self, out: &mut dyn Write) -> Result<()> {
        let name = || self.path.display().to_string();
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::open(&self.path).context(|| format!("cannot open {}", name()))?),
        };
        let mut new = Vec::new();
        file.read_to_end(&mut new).context(|| format!("cannot read {}", name()))?;
        out.write_all(&new).and_then(|()| out.flush()).context(|| "cannot write the output".into())
    }
}

/// The running emulator; killed when dropped, by its own process id.
struct Qemu(Child);

impl Qemu {
    fn ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    fn wait_for_end(&mut self, limit: Duration) {
        let started = Instant::now();
        while !self.ended() && started.elapsed() < limit {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        if !self.ended() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_option_reaches_the_boot() {
        let words = "--dom0 pvh --memory 4096 --share / --limit 7 --bare script --limit 8".split(' ');
        let mut args = Args::new(words.map(String::from));
        let boot = options(&mut args).expect("all are known");
        assert_eq!((boot.kind, boot.memory_mib, boot.bare), (Kind::Pvh, 4096, true));
        assert_eq!((boot.share, boot.limit), (Some(PathBuf::from("/")), Duration::from_secs(7)));
        assert_eq!(args.rest(), ["script", "--limit", "8"]);
        let boot = options(&mut Args::new([])).expect("none is needed");
        assert_eq!((boot.kind, boot.memory_mib, boot.bare), (Kind::Pv, default_memory_mib(), false));
        for wrong in [["--dom0", "pw"], ["--share", "/none/of/these"]] {
            assert!(options(&mut Args::new(wrong.map(String::from))).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_exit_code_is_what_dom0_left() {
        let dir = paths::scratch().expect("scratch").join("exit-code-test");
        remove_tree(&dir).expect("removed");
        let scene = Scene { dir };
        fs::create_dir_all(scene.ctl()).expect("made");
        assert!(scene.exit_code().is_err(), "nothing was left");
        for (left, code) in [("7\n", Some(7)), ("0\n", Some(0)), ("300\n", None), ("", None)] {
            scene.write("rc", left.as_bytes()).expect("written");
            assert_eq!(scene.exit_code().ok(), code, "{left:?}");
        }
    }

    #[test]
    fn of_failed_boots_the_newest_are_kept_and_of_living_ones_all() {
        let dir = paths::scratch().expect("scratch").join("tidy-test");
        remove_tree(&dir).expect("removed");
        let living = format!("{}-last", std::process::id());
        // No process has so high a number. Source: `proc_pid_max(5)`.
        let dead: Vec<String> = (0..FAILED_KEPT + 2).map(|n| format!("{}-last", 1 << 23 | n)).collect();
        let made = |name: &str| {
            fs::create_dir_all(dir.join(name)).expect("made");
            std::thread::sleep(Duration::from_millis(10)); // the clock of files is coarse
        };
        [living.as_str(), "last", "last-idm"]
            .into_iter()
            .chain(dead.iter().map(String::as_str))
            .for_each(made);
        tidy(&dir).expect("tidied");
        let there = |name: &String| dir.join(name).exists();
        assert_eq!(
            dead.iter().map(there).collect::<Vec<_>>(),
            [false, false, true, true, true, true, true, true]
        );
        assert!([living, "last".into(), "last-idm".into()].iter().all(there));
    }
}
