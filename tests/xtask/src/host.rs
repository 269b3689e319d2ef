//! What this machine must have, and getting it: Debian packages, said before they are installed.

use std::fs;
use std::process::{Command, Stdio};

use crate::error::{Context, Failure, Result};
use crate::progress::{Log, Steps};

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
    /// To boot the testbed.
    Testbed,
    /// To build all, and to boot the testbed.
    All,
}

/// Installs what is missing, after saying what and why.
pub fn prepare(steps: &Steps, needs: Needs) -> Result<()> {
    let wanted = TESTBED.iter().chain(if needs == Needs::All { BUILD } else { &[] });
    let missing: Vec<&Package> = wanted.filter(|package| !package.is_there()).collect();
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
        log.run(&mut as_root("apt-get", &["update", "-q"]))?;
        let mut install = as_root("apt-get", &["install", "-q", "-y", "--no-install-recommends"]);
        install.args(missing.iter().map(|package| package.name)).env("DEBIAN_FRONTEND", "noninteractive");
        log.run(&mut install)
    })
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
    use std::io::Write as _;
    let path = log.path().with_file_name(name);
    fs::write(&path, script).context(|| format!("cannot write {}", path.display()))?;
    let path = path.to_string_lossy().into_owned();
    let mut all = vec!["--mount", "--mount-proc", "--pid", "--fork", "--kill-child", "sh", &path];
    all.extend_from_slice(args);
    let mut command = as_root("unshare", &all);
    let Some(input) = input else { return log.run(command.stdin(Stdio::null())) };
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
    fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status.lines().any(|line| {
            line.strip_prefix("Uid:").is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0"))
        })
    })
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
    files.extend(
        crate::cache::sorted_entries(std::path::Path::new("/etc/apt/sources.list.d")).unwrap_or_default(),
    );
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

/// The stanzas of Debian's own suites: those with "main".
fn deb822_of(text: &str, from: &str, to: &str) -> String {
    let uncommented: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let stanzas = uncommented.split(|line| line.trim().is_empty());
    let ours = stanzas.filter(|stanza| {
        let field = |name: &str, value: &str| {
            stanza.iter().any(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.split_whitespace().any(|word| word.starts_with(value)))
            })
        };
        field("Suites:", from) && field("Components:", "main") && !field("Enabled:", "no")
    });
    ours.map(|stanza| stanza.join("\n").replace(from, to) + "\n\n").collect()
}

fn one_line_of(text: &str, from: &str, to: &str) -> String {
    let ours = text.lines().filter(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.first() == Some(&"deb")
            && words.contains(&"main")
            && words.iter().any(|word| word.starts_with(from))
    });
    ours.map(|line| line.replace(from, to) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_debians_own_stanzas_are_turned_to_the_other_suite() {
        let text = "Types: deb\n# a comment\nURIs: http://mirror/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\n\
                    Types: deb\nURIs: http://other\nSuites: nodistro\nComponents: main\n\n\
                    Types: deb\nEnabled: no\nURIs: http://mirror/x\nSuites: bookworm\nComponents: main\n";
        let turned = deb822_of(text, "bookworm", "trixie");
        assert_eq!(
            turned,
            "Types: deb\nURIs: http://mirror/debian\nSuites: trixie trixie-updates\nComponents: main\n\n"
        );
    }

    #[test]
    fn lines_of_other_suites_and_comments_are_left_out() {
        let text =
            "# deb http://m bookworm main\ndeb http://m bookworm-security main\ndeb http://m sid main\n";
        assert_eq!(one_line_of(text, "bookworm", "trixie"), "deb http://m trixie-security main\n");
    }
}
