//! What this machine must have, and getting it: Debian packages, said before they are installed.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{Context, Failure, Result};
use crate::paths;
use crate::progress::{self, Log, Steps};
use crate::qemu::own_memory_mib;

/// A Debian package and what it is needed for. Names are the same in Debian 12 and 13.
struct Package {
    name: &'static str,
    why: &'static str,
    /// A command that succeeds where something else than Debian's package provides the same.
    elsewhere: &'static [&'static str],
}

const fn package(name: &'static str, why: &'static str) -> Package {
    Package { name, why, elsewhere: &[] }
}

/// Needed to boot the testbed and to make its disk.
const TESTBED: &[Package] = &[
    package("qemu-system-x86", "emulates the machine that runs Xen"),
    package("mmdebstrap", "makes the tree of Dom0 from Debian 13's packages"),
    package("debian-archive-keyring", "checks those packages' signatures"),
    package("e2fsprogs", "makes Dom0's disk image"),
    package("kmod", "finds the modules of Dom0's initramfs"),
    package("xz-utils", "unpacks them"),
    package("zstd", "unpacks Dom0's kernel, so that Xen need not under emulation"),
];

/// Needed to build what a node installs and what runs in pods.
const BUILD: &[Package] = &[
    package("build-essential", "compiles the guest kernel and links CUDA programs"),
    package("flex", "guest kernel's configuration"),
    package("bison", "guest kernel's configuration"),
    package("bc", "guest kernel's build"),
    package("libelf-dev", "guest kernel's build"),
    package("libssl-dev", "guest kernel's build"),
    package("busybox-static", "the programs of the small container images"),
    Package {
        name: "python3-pip",
        why: "fetches build tools from PyPI (zig, nvcc) into the cache",
        elsewhere: &["python3", "-m", "pip", "--version"],
    },
];

/// What a task needs of this machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing but cargo.
    Cargo,
    /// To build all.
    Build,
    /// To boot the testbed.
    Testbed,
    /// Both.
    All,
}

impl Needs {
    fn packages(self) -> impl Iterator<Item = &'static Package> {
        let build: &[Package] = if matches!(self, Self::Build | Self::All) { BUILD } else { &[] };
        let testbed: &[Package] = if self.boots() { TESTBED } else { &[] };
        testbed.iter().chain(build)
    }

    fn boots(self) -> bool {
        matches!(self, Self::Testbed | Self::All)
    }
}

/// The smallest machine on which an emulated node still runs; README.md recommends more.
const MEMORY_MIB_MIN: u32 = 6 << 10;
/// The largest single step, the guest kernel, needs 2 GiB in the cache.
const FREE_MIB_MIN: u64 = 4 << 10;
/// What all of a test run fills, measured; README.md says so.
const FREE_GB: u64 = 15;
/// apt waits so long for another one, as the timers of a fresh machine start them.
const APT_WAITS: [&str; 2] = ["-o", "DPkg::Lock::Timeout=300"];

/// Installs what is missing, after saying what and why. Refuses a machine that is far too small.
pub fn prepare(steps: &Steps, needs: Needs) -> Result<()> {
    if needs.boots() {
        judge_memory(own_memory_mib())?;
    }
    for dir in [paths::cache()?, paths::scratch()?] {
        judge_disk(&dir, free_mib(&dir)?)?;
    }
    let missing: Vec<&Package> = needs.packages().filter(|package| !package.is_there()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !succeeds("apt-get", &["--version"]) {
        let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
        return Err(Failure::new(format!(
            "this machine has no apt-get; install what corresponds to Debian's {}",
            names.join(" ")
        )));
    }
    eprintln!("These Debian packages are missing and will be installed with apt-get:");
    for package in &missing {
        eprintln!("    {:24} {}", package.name, package.why);
    }
    steps.step("Install Debian packages", |log| {
        log.run(as_root("apt-get", &APT_WAITS).args(["update", "-q"]))?;
        let mut install = as_root("apt-get", &APT_WAITS);
        install.args(["install", "-q", "-y", "--no-install-recommends"]);
        install.args(missing.iter().map(|package| package.name)).env("DEBIAN_FRONTEND", "noninteractive");
        log.run(&mut install)
    })
}

fn judge_memory(mib: u32) -> Result<()> {
    if mib >= MEMORY_MIB_MIN {
        return Ok(());
    }
    Err(Failure::new(format!(
        "this machine has {mib} MiB of memory; Xen with its domains, emulated, needs {MEMORY_MIB_MIN}, better 8192"
    )))
}

fn judge_disk(dir: &Path, free_mib: u64) -> Result<()> {
    if free_mib >= FREE_MIB_MIN {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{free_mib} MiB are free for {}: at least {FREE_MIB_MIN} are needed, with nothing built yet {FREE_GB} GB",
        dir.display()
    )))
}

/// What a user may still write where `dir` is, or will be.
fn free_mib(dir: &Path) -> Result<u64> {
    let there = dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(dir);
    let said = progress::output(Command::new("df").args(["--output=avail", "--block-size=1M"]).arg(there))?;
    let figure = said.lines().nth(1).and_then(|line| line.trim().parse().ok());
    figure.context(|| format!("df does not say what is free for {}", there.display()))
}

impl Package {
    fn is_there(&self) -> bool {
        let elsewhere = self.elsewhere.split_first().is_some_and(|(program, args)| succeeds(program, args));
        elsewhere || installed(self.name)
    }
}

/// Whether a program runs and exits with 0; it says nothing.
pub fn succeeds(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Whether dpkg knows the package as installed.
fn installed(package: &str) -> bool {
    let query = Command::new("dpkg-query")
        .args(["-W", "-f=${db:Status-Abbrev}", package])
        .stderr(Stdio::null())
        .output();
    query.is_ok_and(|output| output.stdout.starts_with(b"ii"))
}

/// A program run as root: as it is, or with sudo.
pub fn as_root(program: &str, args: &[&str]) -> Command {
    let mut command = if is_root() {
        Command::new(program)
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg("--preserve-env=DEBIAN_FRONTEND,http_proxy,https_proxy,no_proxy").arg(program);
        sudo
    };
    command.args(args);
    command
}

/// Runs one of the testbed's shell scripts as root in namespaces of its own, so that no mount and no process of it
/// remains, however it ends.
pub fn root_script(log: &Log, name: &str, script: &str, args: &[&str], input: Option<&str>) -> Result<()> {
    let path = log.path().with_file_name(name);
    fs::write(&path, script).context(|| format!("cannot write {}", path.display()))?;
    let path = path.to_string_lossy().into_owned();
    let mut all = vec!["--mount", "--mount-proc", "--pid", "--fork", "--kill-child", "sh", &path];
    all.extend_from_slice(args);
    let mut command = as_root("unshare", &all);
    match input {
        Some(input) => feed(log, command, input),
        None => log.run(command.stdin(Stdio::null())),
    }
}

/// Runs a command with a text as its input.
pub fn feed(log: &Log, mut command: Command, input: &str) -> Result<()> {
    use std::io::Write as _;
    // A pipe, not a file: mmdebstrap tells the two formats of apt's sources apart by content only there.
    let (reader, mut writer) = std::io::pipe().context(|| "cannot make a pipe".into())?;
    let text = input.to_string();
    let feeder = std::thread::spawn(move || writer.write_all(text.as_bytes()));
    let outcome = log.run(command.stdin(reader));
    drop(command); // its end of the pipe, so that the feeder ends
    let _ = feeder.join();
    outcome
}

/// Whether this process is root.
pub fn is_root() -> bool {
    effective_uid().is_ok_and(|uid| uid == 0)
}

/// The user as whom this process acts.
pub fn effective_uid() -> Result<u32> {
    let status =
        fs::read_to_string("/proc/self/status").context(|| "cannot read /proc/self/status".into())?;
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let uid = ids.and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok());
    uid.context(|| "/proc/self/status has no user".into())
}

/// The host's own apt sources for Debian, turned to another suite: the mirror that works here, without naming one.
pub fn apt_sources(suite: &str) -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").context(|| "cannot read /etc/os-release".into())?;
    let host_suite = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"'))
        .context(|| "/etc/os-release names no VERSION_CODENAME: the testbed wants Debian".into())?;
    let mut files = vec![std::path::PathBuf::from("/etc/apt/sources.list")];
    files.extend(crate::cache::sorted_entries(Path::new("/etc/apt/sources.list.d")).unwrap_or_default());
    let mut lines = String::new();
    let mut stanzas = String::new();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        match file.extension().and_then(|ext| ext.to_str()) {
            Some("sources") => stanzas.push_str(&deb822_of(&text, host_suite, suite)),
            Some("list") => lines.push_str(&one_line_of(&text, host_suite, suite)),
            _ => {}
        }
    }
    let sources = if stanzas.is_empty() { lines } else { stanzas };
    if sources.is_empty() {
        return Err(Failure::new(format!("apt's sources name no mirror of {host_suite}")));
    }
    Ok(sources)
}

/// Of a host's suite, the other suite's counterpart: what Debian's own suites are called, and no other (backports, local ones).
fn turned(suite: &str, from: &str, to: &str) -> Option<String> {
    let rest = suite.strip_prefix(from)?;
    ["", "-updates", "-security"].contains(&rest).then(|| format!("{to}{rest}"))
}

/// The stanzas of Debian's own suites: those with "main".
fn deb822_of(text: &str, from: &str, to: &str) -> String {
    let uncommented: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    uncommented
        .split(|line| line.trim().is_empty())
        .filter_map(|stanza| {
            let words = |field: &str| {
                let rest = stanza.iter().find_map(|line| line.strip_prefix(field));
                rest.map(|rest| rest.split_whitespace().collect::<Vec<_>>()).unwrap_or_default()
            };
            let suites: Vec<String> =
                words("Suites:").into_iter().filter_map(|suite| turned(suite, from, to)).collect();
            if suites.is_empty() || !words("Components:").contains(&"main") || words("Enabled:") == ["no"] {
                return None;
            }
            let lines = stanza.iter().map(|line| match line.strip_prefix("Suites:") {
                Some(_) => format!("Suites: {}\n", suites.join(" ")),
                None => format!("{line}\n"),
            });
            Some(lines.collect::<String>() + "\n")
        })
        .collect()
}

/// Lines `deb [OPTIONS] URI SUITE COMPONENT...` of Debian's own suites. Source: `sources.list(5)`.
fn one_line_of(text: &str, from: &str, to: &str) -> String {
    let line = |line: &str| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let (options, rest) = match rest.split_once(']') {
            Some((options, rest)) if rest.starts_with(' ') && options.starts_with('[') => {
                (format!("{options}] "), rest)
            }
            _ => (String::new(), rest),
        };
        let mut words = rest.split_whitespace();
        let (uri, suite) = (words.next()?, turned(words.next()?, from, to)?);
        let components: Vec<&str> = words.collect();
        components.contains(&"main").then(|| format!("deb {options}{uri} {suite} {}\n", components.join(" ")))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_debians_own_stanzas_are_turned_to_the_other_suite() {
        let text = "Types: deb\n# a comment\nURIs: http://bookworm.mirror/debian\n\
                    Suites: bookworm bookworm-updates bookworm-backports bookworm-local\nComponents: main\n\
                    Signed-By: /keys/bookworm.gpg\n\n\
                    Types: deb\nURIs: http://other\nSuites: nodistro\nComponents: main\n\n\
                    Types: deb\nURIs: http://backports\nSuites: bookworm-backports\nComponents: main\n\n\
                    Types: deb\nURIs: http://other\nSuites: bookworm\nComponents: mainly\n\n\
                    Types: deb\nEnabled: no\nURIs: http://mirror/x\nSuites: bookworm\nComponents: main\n";
        let turned = deb822_of(text, "bookworm", "trixie");
        assert_eq!(
            turned,
            "Types: deb\nURIs: http://bookworm.mirror/debian\nSuites: trixie trixie-updates\nComponents: main\n\
             Signed-By: /keys/bookworm.gpg\n\n"
        );
    }

    #[test]
    fn lines_of_other_suites_and_comments_are_left_out() {
        let text = "# deb http://m bookworm main\ndeb http://bookworm/ bookworm-security main contrib\n\
                    deb http://m sid main\ndeb http://m bookworm-backports main\ndeb http://m bookworm mainly\n\
                    deb-src http://m bookworm main\n\
                    deb [arch=amd64 signed-by=/keys/bookworm] http://m bookworm main\n";
        assert_eq!(
            one_line_of(text, "bookworm", "trixie"),
            "deb http://bookworm/ trixie-security main contrib\n\
             deb [arch=amd64 signed-by=/keys/bookworm] http://m trixie main\n"
        );
    }

    #[test]
    fn a_machine_that_is_far_too_small_is_refused_with_what_it_needs() {
        assert!(judge_memory(MEMORY_MIB_MIN).is_ok());
        let small = judge_memory(4096).expect_err("too small").to_string();
        assert!(small.contains("4096 MiB") && small.contains("8192"), "{small}");
        let dir = Path::new("/home/user/.cache/vgpu");
        assert!(judge_disk(dir, FREE_MIB_MIN).is_ok());
        let full = judge_disk(dir, 100).expect_err("too full").to_string();
        assert!(full.contains("100 MiB") && full.contains("/home/user/.cache/vgpu"), "{full}");
        let readme = include_str!("../../../README.md");
        assert!(
            readme.contains(&format!("{FREE_GB} GB of free disk")) && full.contains(&format!("{FREE_GB} GB"))
        );
        assert!(readme.contains(&format!("below {MEMORY_MIB_MIN} xtask refuses")));
    }

    #[test]
    fn only_what_boots_asks_for_an_emulator() {
        let emulates = |needs: Needs| needs.packages().any(|package| package.name == "qemu-system-x86");
        let compiles = |needs: Needs| needs.packages().any(|package| package.name == "build-essential");
        let all = [Needs::Cargo, Needs::Build, Needs::Testbed, Needs::All];
        assert_eq!(all.map(emulates), [false, false, true, true]);
        assert_eq!(all.map(compiles), [false, true, false, true]);
        assert_eq!(all.map(Needs::boots), [false, false, true, true]);
    }

    #[test]
    fn free_space_is_known_before_a_directory_is_made() {
        let dir = paths::scratch().expect("scratch");
        assert!(free_mib(&dir.join("none/of/these")).expect("a figure") > 0);
    }

    /// The scripts as a user's sudo runs them, with stand-ins for the two programs that need root: `mount` fails, `chown` tells.
    #[test]
    fn what_a_failed_script_leaves_is_handed_to_the_owner_of_the_directory_above() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = paths::scratch().expect("scratch").join("owner-test");
        crate::cache::remove_tree(&dir).expect("removed");
        let (bin, out) = (dir.join("bin"), dir.join("out"));
        for dir in [&bin, &out] {
            fs::create_dir_all(dir).expect("made");
        }
        for (name, script) in [("mount", "exit 32"), ("chown", "echo \"$@\" > \"$(dirname \"$0\")/../said\"")]
        {
            fs::write(bin.join(name), format!("#!/bin/sh\n{script}\n")).expect("written");
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).expect("executable");
        }
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        for script in [crate::dom0::TREE_SCRIPT, crate::dom0::DISK_SCRIPT] {
            let mut sh = Command::new("sh");
            sh.args(["-c", script, "script"]).arg(&out).args(["second", "third"]).env("PATH", &path);
            let status = sh.env("TMPDIR", &dir).status().expect("sh runs");
            assert_eq!(status.code(), Some(32), "the code of what failed");
            let said = fs::read_to_string(dir.join("said")).expect("chown was called");
            assert_eq!(said, format!("-R --reference={} {}\n", dir.display(), out.display()));
            fs::remove_file(dir.join("said")).expect("removed");
        }
    }
}
