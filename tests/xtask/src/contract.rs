//! What part `contract` plays with: the program that looks around inside of containers, a runc, with containerd and its shim for it, that
//! needs nothing of this machine, and the containerds of other Debians.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use crate::cache::{self, Inputs};
use crate::dist::{self, STATIC_TARGET};
use crate::dom0;
use crate::error::{Context, Failure, Result};
use crate::host;
use crate::images;
use crate::paths;
use crate::progress::Steps;

/// Of Dom0's tree, as `tar` matches them: runc, what it needs beside the C library, containerd with its shim for it, what ours needs, and
/// CNI's plugins with iptables and `tc`.
const RUNC: [&str; 18] = [
    "--wildcards",
    "./usr/sbin/runc",
    "./usr/lib/*/libseccomp.so.*",
    "./usr/bin/containerd",
    "./usr/bin/containerd-shim-runc-v2",
    "./usr/bin/ctr",
    "./usr/bin/unshare",
    "./usr/lib/cni",
    "./usr/sbin/xtables-nft-multi",
    "./usr/lib/*/xtables",
    "./usr/lib/*/libxtables.so.*",
    "./usr/lib/*/libnftnl.so.*",
    "./usr/lib/*/libmnl.so.*",
    "./usr/sbin/tc",
    "./usr/lib/*/libbpf.so.*",
    "./usr/lib/*/libelf*.so*",
    "./usr/lib/*/libcap.so.*",
    "./usr/lib/*/libzstd.so.*",
];
/// Debian has them by way of /etc.
const LINKS: [(&str, &str); 2] = [("iptables", "xtables-nft-multi"), ("ip6tables", "xtables-nft-multi")];
/// Where `tests/inside/src/in-root.sh` mounts something.
const PLACES: [&str; 7] = ["dev", "old", "proc", "run", "sys", "test", "tmp"];
/// What containerd gives pods that say nothing else.
const ETC: [(&str, &str); 2] =
    [("hosts", "127.0.0.1 localhost\n::1 localhost\n"), ("resolv.conf", "nameserver 192.0.2.1\n")];

/// What the tests' names begin with that take longer.
pub const MORE: &str = "more_";

/// This machine's target.
const HOST: &str = "x86_64-unknown-linux-gnu";

const CONTAINERD_SCRIPT: &str = include_str!("../../contract/containerd.sh");

/// `vgpu-inside`'s program, static: it is the init of containers whose roots have nothing else.
pub fn inside(steps: &Steps) -> Result<PathBuf> {
    let root = paths::root()?;
    steps.step("Build inside", |log| {
        dist::static_target_installed(log)?;
        let line = ["build", "--release", "--locked", "--target", STATIC_TARGET, "--package", "vgpu-inside"];
        log.run(&mut dist::cargo(&root, &line))
    })?;
    Ok(paths::target()?.join(STATIC_TARGET).join("release/inside"))
}

/// A root with Dom0's runc, shim and libraries: an older machine's C library would not do for it.
pub fn runc(steps: &Steps) -> Result<PathBuf> {
    let tree = dom0::tree(steps)?;
    steps.step("runc, in a root of its own", |log| {
        let inputs = Inputs::new().add("tree", tree.to_string_lossy().as_bytes());
        let inputs = inputs.add("runc", RUNC.join(" ")).add("places", PLACES.join(" "));
        let inputs = inputs.add("etc", ETC.map(|(_, text)| text).concat());
        let inputs = inputs.add("links", LINKS.map(|(link, program)| format!("{link} {program}")).join(" "));
        cache::get("runc", inputs, |dir| {
            for (archive, members) in [("glibc.tar", &[][..]), ("tree.tar", &RUNC[..])] {
                log.run(
                    Command::new("tar").arg("-xf").arg(tree.join(archive)).arg("-C").arg(dir).args(members),
                )?;
            }
            for (link, program) in LINKS {
                symlink(program, dir.join("usr/sbin").join(link))
                    .context(|| format!("cannot make {link}"))?;
            }
            let busybox = dir.join("busybox");
            fs::copy(tree.join("busybox"), &busybox)
                .context(|| format!("cannot make {}", busybox.display()))?;
            for place in PLACES.map(|place| dir.join(place)) {
                fs::create_dir(&place).context(|| format!("cannot make {}", place.display()))?;
            }
            // What its programs keep there is the test's: this root is everybody's.
            symlink("/test/var", dir.join("var")).context(|| "cannot make var".into())?;
            fs::create_dir(dir.join("etc")).context(|| "cannot make etc".into())?;
            for (name, text) in ETC {
                let path = dir.join("etc").join(name);
                fs::write(&path, text).context(|| format!("cannot write {}", path.display()))?;
            }
            Ok(())
        })
    })
}

/// The programs of a suite's containerd.
pub fn containerd(steps: &Steps, suite: &str) -> Result<PathBuf> {
    let sources = host::apt_sources(suite)?;
    steps.step(&format!("containerd of {suite}"), |log| {
        let inputs = Inputs::new().add("suite", suite).add("script", CONTAINERD_SCRIPT);
        let made = cache::get(&format!("containerd-{suite}"), inputs, |dir| {
            let mut script = Command::new("sh");
            script.args(["-c", CONTAINERD_SCRIPT, "containerd.sh"]).arg(dir);
            host::feed(log, script, &sources)
        })?;
        Ok(made.join("bin"))
    })
}

/// The images of pods, as a list of paths.
pub fn images(steps: &Steps) -> Result<OsString> {
    let tree = dom0::tree(steps)?;
    steps.step("Images of pods", |_| {
        env::join_paths(images::of_pods(&tree)?).map_err(|error| Failure::new(error.to_string()))
    })
}

/// Tests of these names, with all that they want; what is added are arguments of theirs.
pub fn cargo(steps: &Steps, tests: &[&str]) -> Result<Command> {
    let (program, runc) = (inside(steps)?, runc(steps)?);
    // Of the whole workspace, as the installed libraries are.
    let mut cargo = ends_with_us(&dist::cargo(&paths::root()?, &["test", "--workspace", "--locked"]));
    cargo.args(tests.iter().flat_map(|name| ["--test", name]));
    cargo.args(["--config", &format!("target.{HOST}.runner = {:?}", contained(host::is_root()))]);
    cargo.args(["--", "--ignored", "--show-output"]);
    cargo.env("VGPU_INSIDE", program).env("VGPU_RUNC", runc).env("VGPU_IMAGES", images(steps)?);
    cargo.env("VGPU_CONTAINERD_OLD", containerd(steps, "bookworm")?);
    cargo.env("VGPU_CONTAINERD_NEW", containerd(steps, "forky")?);
    // Its package's tests are among them, so it is built, too.
    cargo.env("VGPU_LOCAL_SHIM", paths::target()?.join("debug/containerd-shim-vgpulocal-v1"));
    if !host::is_root() {
        steps.step("sudo, for containers", |log| log.run(&mut host::as_root("true", &[])))?;
    }
    Ok(cargo)
}

/// By util-linux: the program behind it is killed when who started it ends, however.
const ENDS_WITH_PARENT: [&str; 3] = ["setpriv", "--pdeathsig", "KILL"];

fn ends_with_us(command: &Command) -> Command {
    let [setpriv, words @ ..] = ENDS_WITH_PARENT;
    let mut ends = Command::new(setpriv);
    ends.args(words).arg(command.get_program()).args(command.get_args());
    ends.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(dir) = command.get_current_dir() {
        ends.current_dir(dir);
    }
    ends
}

/// What a test's program is started by, so that no shim, guest or container outlives it, nor it cargo: all are in a pid namespace, which
/// ends with its first process. That is a shell, which reaps.
fn contained(as_root: bool) -> Vec<&'static str> {
    let sudo: &[_] = if as_root { &[] } else { &["sudo", "--preserve-env"] };
    let namespace = ["unshare", "--mount", "--mount-proc", "--pid", "--fork", "--kill-child"];
    [sudo, &ENDS_WITH_PARENT, &namespace, &["sh", "-c", "\"$@\"; exit $?", "sh"]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_test_leaves_ends_with_it() {
        // Who is not root is it in a namespace of users, and needs no password.
        let as_root: &[_] =
            if host::is_root() { &[] } else { &["unshare", "--user", "--map-root-user", "--"] };
        let run = |words: &[&str]| {
            let words = [as_root, words].concat();
            Command::new(words[0]).args(&words[1..]).status().expect("util-linux is here")
        };
        if !run(&["unshare", "--mount", "--mount-proc", "--pid", "--fork", "true"]).success() {
            eprintln!("NOT TRIED: {}: no pid namespace with its own /proc can be made here", file!());
            return;
        }
        let seconds = (1_000_000 + std::process::id()).to_string();
        let leaves = format!("setsid sleep {seconds} > /dev/null 2>&1 & exit 7");
        let words = [contained(true), vec!["sh", "-c", &leaves]].concat();
        assert_eq!(run(&words).code(), Some(7));
        let lines = fs::read_dir("/proc").expect("it is mounted").flatten();
        let mut lines = lines.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
        let line = format!("sleep\0{seconds}\0");
        assert!(!lines.any(|its| its == line.as_bytes()), "{leaves}");
    }
}
