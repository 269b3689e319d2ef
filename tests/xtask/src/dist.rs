//! `cargo xtask dist`: what a node installs, under `target/dist` as it lies on the node.
//!
//! `usr` and `etc` are the node's. The rest is for a carried xtask, where there is no cargo: itself, `guest/libcuda.so.1` and
//! `guest/libnvidia-ml.so.1` (what containers get, and `xtask gpu` uses), the benchmark programs in `bench`, and what
//! `xtask gpu-suite` plays in `tests`.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::beforehand;
use crate::bench;
use crate::cache::{self, Inputs, Once, remove_tree, sorted_entries};
use crate::cpio::{Archive, Node};
use crate::error::{Context, Failure, Result};
use crate::host::{self, Needs};
use crate::paths;
use crate::progress::{Log, Steps};
use crate::wheels;

/// Programs without libraries: guest-init is PID 1 of an image that has none, the shim runs on nodes and nvidia-smi in images of any age.
pub const STATIC_TARGET: &str = "x86_64-unknown-linux-musl";
/// The oldest glibc an image may have: our libraries are loaded into its programs.
const OLDEST_GLIBC: &str = "2.17";
/// The libraries of the guest: package, file that cargo makes, name in the guest.
pub const LIBRARIES: [(&str, &str, &str); 2] =
    [("libvgpu", "libvgpu.so", "libcuda.so.1"), ("libvgpu-nvml", "libvgpu_nvml.so", "libnvidia-ml.so.1")];
/// What a node keeps for all pods, and what each pod pays with memory: kernel and initramfs together, initramfs alone.
const GUEST_BYTES_MAX: u64 = 50_000_000;
const INITRAMFS_BYTES_MAX: u64 = 12_000_000;
/// The sources that `xtask gpu-suite` takes along, and of which kinds; where they lie they lie in `dist`, too.
const PLAYED: &[(&str, &[&str])] = &[
    ("tests/gpu", &["py", "table"]),
    ("tests/gpu/cases", &["py"]),
    ("tests/gpu/harness", &["py"]),
    ("tests/gpu/runner", &["py"]),
    ("tests/gpu/programs", &["cu", "cpp"]),
    ("tests/cuda", &["cu", "cpp", "h"]),
    ("tests/cuda/faults", &["h"]),
    ("tests/cuda/launches", &["h"]),
    ("tests/cuda/texref", &["h"]),
];
/// Files of `config/` and where a node has them.
const CONFIG: &[(&str, &str)] = &[
    ("config.toml", "etc/vgpu/config.toml"),
    ("systemd/gpu-proxy.service", "usr/lib/systemd/system/gpu-proxy.service"),
    ("containerd/config-v2.toml", "usr/share/vgpu/containerd/config-v2.toml"),
    ("containerd/config-v3.toml", "usr/share/vgpu/containerd/config-v3.toml"),
    ("kubernetes/runtimeclass.yaml", "usr/share/vgpu/kubernetes/runtimeclass.yaml"),
    ("kubernetes/sample-pod.yaml", "usr/share/vgpu/kubernetes/sample-pod.yaml"),
];

/// `cargo xtask dist`.
pub fn main(args: crate::args::Args) -> Result<u8> {
    args.end()?;
    let steps = Steps::new()?;
    host::prepare(&steps, Needs::Build)?;
    let dist = build(&steps)?;
    if paths::carried_dist().is_none() {
        for package in bench::PROGRAMS {
            let program = bench::build(&steps, &paths::root()?, package)?;
            place(&program, &dist.join("bench").join(package), 0o755)?;
        }
    }
    eprintln!("{}\n{} holds what a node installs", steps.table(), dist.display());
    Ok(0)
}

/// Builds all of it and returns the directory. A carried xtask has it already.
pub fn build(steps: &Steps) -> Result<PathBuf> {
    if let Some(carried) = paths::carried_dist() {
        return Ok(carried);
    }
    let root = paths::root()?;
    let target = paths::target()?;
    let (libraries, kernel) = beforehand::beside(steps, &[guest_kernel], || {
        let libraries = our_programs(steps, &root, &target)?;
        Ok((libraries, guest_kernel(steps)?))
    })?;
    let dist = paths::dist()?;
    steps.step("Put it together", |_| {
        let new = dist.with_extension("new");
        remove_tree(&new)?;
        fill(&new, &root, &target, &kernel, &libraries)?;
        remove_tree(&dist)?;
        fs::rename(&new, &dist).context(|| format!("cannot put {} in its place", dist.display()))
    })?;
    Ok(dist)
}

/// Our programs; returns where the guest's libraries are.
fn our_programs(steps: &Steps, root: &Path, target: &Path) -> Result<PathBuf> {
    native(steps, root)?;
    steps.step("Build the shim, guest-init and what else is static", |log| {
        static_target_installed(log)?;
        let line = ["build", "--release", "--locked", "--target", STATIC_TARGET];
        // Together: they share most of the crates that they are made of.
        let packages = ["shim-vgpu", "vgpu-share", "guest-init", "vgpu-smi"];
        log.run(cargo(root, &line).args(packages.iter().flat_map(|name| ["--package", name])))
    })?;
    steps.step("Build the guest's libraries for glibc 2.17 and later", |log| {
        build_libraries(log, root, target)
    })
}

/// What this machine's own libraries are good enough for, into `release` of the target directory: the programs of the node that need
/// glibc, and what `xtask gpu` runs. One list, so that cargo chooses the same features of a crate each time and builds it once.
pub fn native(steps: &Steps, root: &Path) -> Result<()> {
    steps.step("Build gpu-proxy, vgpuctl and what runs them here", |log| {
        let mut cargo = cargo(root, &["build", "--release", "--locked"]);
        for package in ["gpu-proxy", "vgpuctl", "libvgpu", "libvgpu-nvml", "xtask"] {
            cargo.args(["--package", package]);
        }
        log.run(&mut cargo)
    })
}

/// cargo as the one that runs us, in the repository, with the same target directory.
pub fn cargo(root: &Path, args: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = Command::new(program);
    cargo.args(args).current_dir(root);
    if let Ok(target) = paths::target() {
        cargo.env("CARGO_TARGET_DIR", target);
    }
    cargo
}

/// Installs Rust's target for static programs where it is missing.
pub fn static_target_installed(log: &Log) -> Result<()> {
    let sysroot = log.output(Command::new("rustc").args(["--print", "sysroot"]))?;
    if Path::new(sysroot.trim()).join("lib/rustlib").join(STATIC_TARGET).is_dir() {
        return Ok(());
    }
    eprintln!("Rust's target {STATIC_TARGET} is missing and will be installed with rustup:");
    eprintln!(
        "    guest-init has no libraries beside it; the shim and the stories run on nodes of any age: all are static"
    );
    log.run(Command::new("rustup").args(["target", "add", STATIC_TARGET]))
        .map_err(|failure| Failure::new(format!("Rust's target {STATIC_TARGET} is missing: {failure}")))
}

/// The guest's libraries, against glibc 2.17: zig links them, with the old symbol versions that it knows. Returns their directory.
fn build_libraries(log: &Log, root: &Path, target: &Path) -> Result<PathBuf> {
    let tools = wheels::unpacked(log, "zigbuild", wheels::ZIGBUILD)?;
    let triple = format!("x86_64-unknown-linux-gnu.{OLDEST_GLIBC}");
    let path = std::env::var("PATH").unwrap_or_default();
    let line = ["zigbuild", "--release", "--locked", "--target", &triple];
    let mut zigbuild = cargo(root, &line);
    for (package, ..) in LIBRARIES {
        zigbuild.args(["--package", package]);
    }
    zigbuild
        .env("PATH", format!("{}:{path}", tools.join("bin").display()))
        .env("CARGO_ZIGBUILD_ZIG_PATH", tools.join("ziglang/zig"));
    log.run(&mut zigbuild)?;
    Ok(target.join("x86_64-unknown-linux-gnu/release"))
}

/// The guest's kernel, built when anything below `kernel/` has changed: some ten minutes on two cores.
pub fn guest_kernel(steps: &Steps) -> Result<PathBuf> {
    static KERNEL: Once = Once::new();
    KERNEL.get(|| find_or_build_kernel(steps, &paths::root()?.join("kernel")))
}

fn find_or_build_kernel(steps: &Steps, folder: &Path) -> Result<PathBuf> {
    let inputs = || {
        let inputs =
            Inputs::new().add_path(&folder.join("build.sh"))?.add_path(&folder.join("guest.config"))?;
        inputs.add_path(&folder.join("patches"))
    };
    if let Some(made) = cache::find("guest-kernel", inputs()?)? {
        return Ok(made);
    }
    steps.step("Build the guest kernel (ten minutes on two cores)", |log| {
        cache::get("guest-kernel", inputs()?, |dir| log.run(Command::new(folder.join("build.sh")).arg(dir)))
    })
}

fn fill(dist: &Path, root: &Path, target: &Path, kernel: &Path, libraries: &Path) -> Result<()> {
    let (release, alone) = (target.join("release"), target.join(STATIC_TARGET).join("release"));
    for program in [release.join("gpu-proxy"), release.join("vgpuctl"), alone.join("containerd-shim-vgpu-v1")]
    {
        place(&program, &dist.join("usr/bin").join(program.file_name().unwrap_or_default()), 0o755)?;
    }
    place(&alone.join("share-server"), &dist.join("usr/lib/vgpu/share-server"), 0o755)?;
    place(&release.join("xtask"), &dist.join("xtask"), 0o755)?;
    for (from, to) in CONFIG {
        place(&root.join("config").join(from), &dist.join(to), 0o644)?;
    }
    for (folder, kinds) in PLAYED {
        for file in sorted_entries(&root.join(folder))? {
            let kind = file.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
            if kinds.contains(&kind) {
                place(&file, &dist.join(folder).join(file.file_name().unwrap_or_default()), 0o644)?;
            }
        }
    }
    for (_, file, name) in LIBRARIES {
        place(&libraries.join(file), &dist.join("guest").join(name), 0o755)?;
    }
    symlink("libcuda.so.1", dist.join("guest/libcuda.so")).context(|| "cannot link libcuda.so".into())?;
    place(&kernel.join("vmlinux"), &dist.join("usr/lib/vgpu/vmlinux"), 0o644)?;
    let initramfs = initramfs(&alone, libraries)?;
    let path = dist.join("usr/lib/vgpu/initramfs.cpio");
    fs::write(&path, initramfs).context(|| format!("cannot write {}", path.display()))?;
    set_mode(&path, 0o644)
}

/// Copies a file and makes the directories above its place, all with the modes that they have on a node, whatever the umask is.
fn place(from: &Path, to: &Path, mode: u32) -> Result<()> {
    make_dirs(to.parent().unwrap_or(to))?;
    fs::copy(from, to).context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    set_mode(to, mode)
}

fn make_dirs(dir: &Path) -> Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    dir.parent().map_or(Ok(()), make_dirs)?;
    fs::create_dir(dir).context(|| format!("cannot make {}", dir.display()))?;
    set_mode(dir, 0o755)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .context(|| format!("cannot chmod {}", path.display()))
}

/// What the guest boots into: guest-init, and the libraries and nvidia-smi for its containers. `alone` has the static programs.
fn initramfs(alone: &Path, libraries: &Path) -> Result<Vec<u8>> {
    let read = |path: &Path| fs::read(path).context(|| format!("cannot read {}", path.display()));
    let mut archive = Archive::default();
    for dir in ["dev", "usr", "usr/lib", "usr/lib/vgpu"] {
        archive.dir(dir);
    }
    archive.add("dev/console", 0o600, Node::Char { major: 5, minor: 1 });
    archive.add("dev/null", 0o666, Node::Char { major: 1, minor: 3 });
    archive.add("init", 0o755, Node::File(&read(&alone.join("guest-init"))?));
    archive.add("usr/lib/vgpu/nvidia-smi", 0o755, Node::File(&read(&alone.join("nvidia-smi"))?));
    for (_, file, name) in LIBRARIES {
        archive.add(&format!("usr/lib/vgpu/{name}"), 0o755, Node::File(&read(&libraries.join(file))?));
    }
    Ok(archive.finish())
}

/// Compares the guest's files in `dist` with what they may have, and says what they have.
pub fn guest_sizes(dist: &Path) -> Result<String> {
    let size = |name: &str| {
        let path = dist.join("usr/lib/vgpu").join(name);
        fs::metadata(&path).map(|file| file.len()).context(|| format!("cannot see {}", path.display()))
    };
    judge_sizes(size("vmlinux")?, size("initramfs.cpio")?)
}

fn judge_sizes(kernel: u64, initramfs: u64) -> Result<String> {
    let both = kernel + initramfs;
    let sizes = format!("kernel {kernel} bytes, initramfs {initramfs}, together {both}");
    if initramfs > INITRAMFS_BYTES_MAX || both > GUEST_BYTES_MAX {
        return Err(Failure::new(format!(
            "the guest is too large: {sizes}; allowed are {INITRAMFS_BYTES_MAX} for the initramfs and {GUEST_BYTES_MAX} together"
        )));
    }
    Ok(sizes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// That it survives the merge is the kernel build's own check.
    #[test]
    fn each_option_of_the_guest_kernel_stands_once_and_in_a_group() {
        let (mut group, mut seen) = ("", BTreeSet::new());
        for line in include_str!("../../../kernel/guest.config").lines() {
            match line.strip_prefix("# --- ") {
                Some(reason) => group = reason,
                None if line.ends_with("is not set") => {
                    let option = line.strip_prefix("# ").and_then(|line| line.split(' ').next());
                    assert!(option.is_some_and(|option| seen.insert(option)), "{line}: twice, or none");
                    assert!(group.starts_with("Off"), "{line}: not among those that are off");
                }
                None if line.is_empty() || line.starts_with('#') => {}
                None => {
                    let (option, _) = line.split_once('=').expect("an option and its value");
                    assert!(option.starts_with("CONFIG_") && seen.insert(option), "{line}: twice, or none");
                    assert!(
                        !group.is_empty() && !group.starts_with("Off"),
                        "{line}: in no group that says what it is for"
                    );
                }
            }
        }
        assert!(seen.len() > 100);
    }

    /// What stands beside the played sources and is not taken along is for tests of the runner.
    #[test]
    fn no_folder_of_played_sources_is_forgotten() {
        let root = paths::root().expect("a checkout");
        let sources = |folder: &Path, kinds: &[&str]| {
            let kind = |file: &PathBuf| {
                file.extension().is_some_and(|kind| kinds.iter().any(|wanted| kind == *wanted))
            };
            sorted_entries(folder).expect("listed").iter().filter(|file| kind(file)).count()
        };
        for (folder, kinds) in PLAYED {
            assert!(sources(&root.join(folder), kinds) > 0, "{folder} has none of {kinds:?}");
        }
        let below = |folder: &str| sorted_entries(&root.join(folder)).expect("listed");
        for folder in below("tests/gpu").into_iter().chain(below("tests/cuda")) {
            let name = folder.strip_prefix(&root).expect("below it").to_string_lossy().into_owned();
            let known = PLAYED.iter().any(|(played, _)| *played == name) || name == "tests/gpu/fake";
            let has_some = folder.is_dir() && sources(&folder, &["py", "cu", "cpp", "h"]) > 0;
            assert!(known || !has_some, "{name} is not in PLAYED");
        }
    }

    /// A umask belongs to a whole process, so the test is played again in one of its own.
    #[test]
    fn what_is_placed_can_be_read_by_all_whatever_the_umask() {
        const INSIDE: &str = "VGPU_XTASK_UMASK_TEST";
        let Ok(dir) = std::env::var(INSIDE).map(PathBuf::from) else {
            let dir = paths::scratch().expect("scratch").join("umask-test");
            remove_tree(&dir).expect("removed");
            let name = "dist::tests::what_is_placed_can_be_read_by_all_whatever_the_umask";
            let mut again = Command::new("sh");
            again.args(["-c", "umask 077; exec \"$0\" --exact \"$1\" --nocapture"]);
            again.arg(std::env::current_exe().expect("the test")).arg(name).env(INSIDE, &dir);
            let ended = again.output().expect("sh runs");
            assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
            return;
        };
        let from = dir.join("from");
        fs::create_dir_all(&dir).expect("made");
        fs::write(&from, "x").expect("written");
        place(&from, &dir.join("etc/vgpu/config.toml"), 0o644).expect("placed");
        let mode = |path: &str| fs::metadata(dir.join(path)).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode("from"), 0o600, "the umask of this process");
        assert_eq!(["etc", "etc/vgpu", "etc/vgpu/config.toml"].map(mode), [0o755, 0o755, 0o644]);
    }

    #[test]
    fn a_guest_above_its_sizes_is_refused() {
        assert!(judge_sizes(38_000_000, 12_000_000).is_ok());
        assert!(judge_sizes(1, 12_000_001).is_err());
        assert!(judge_sizes(38_000_001, 12_000_000).is_err());
    }
}
