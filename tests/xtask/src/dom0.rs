//! The testbed's Dom0: Debian 13 with Xen, containerd and runc, made once and cached.
//!
//! Two artifacts: the tree (Debian's packages; a minute) and the disk (the tree with container images imported; seconds).
//! What changes with every build travels at boot, through shares and the initramfs, and never into these.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::cache::{self, Inputs, Once};
use crate::cpio::{Archive, Node};
use crate::error::{Context, Failure, Result};
use crate::host;
use crate::images;
use crate::progress::Steps;

/// Debian's suite for Dom0: the first with Xen 4.20.
const SUITE: &str = "trixie";
/// What Dom0 needs, without recommends. `linux-image-cloud-amd64` would not do: XEN_DOM0 and NET_9P are off in it.
const PACKAGES: &[&str] = &[
    "linux-image-amd64",
    "xen-hypervisor-4.20-amd64",
    "xen-utils-4.20",
    "xenstore-utils",
    "containerd",
    "runc",
    "containernetworking-plugins",
    "iproute2",
    "kmod",
    "busybox-static",
    "e2fsprogs",
    "procps",
    "strace",
];
pub const TREE_SCRIPT: &str = include_str!("../../testbed/dom0-tree.sh");
pub const DISK_SCRIPT: &str = include_str!("../../testbed/dom0-disk.sh");
const INITRAMFS_INIT: &str = include_str!("../../testbed/initramfs-init.sh");
const DOM0_INIT: &str = include_str!("../../testbed/dom0-init.sh");

/// What a boot needs; all but the disk's modules are files that QEMU opens read-only.
pub struct Dom0 {
    tree: PathBuf,
    disk: PathBuf,
}

impl Dom0 {
    /// From the cache, or made now, with the busybox and glibc images, and with one of the CUDA programs in a directory.
    pub fn get(steps: &Steps, cuda_programs: Option<&Path>) -> Result<Self> {
        let tree = tree(steps)?;
        let disk = disk(steps, &tree, cuda_programs)?;
        Ok(Self { tree, disk })
    }

    /// Xen as a multiboot ELF.
    pub fn xen(&self) -> PathBuf {
        self.tree.join("xen")
    }

    /// Dom0's kernel as an uncompressed ELF.
    pub fn kernel(&self) -> PathBuf {
        self.tree.join("dom0.elf")
    }

    /// The disk, to be opened as a snapshot.
    pub fn disk(&self) -> PathBuf {
        self.disk.join("disk.img")
    }

    /// An initramfs with today's init, which it puts on the disk's snapshot.
    pub fn initramfs(&self) -> Result<Vec<u8>> {
        let read = |name: &str| {
            let path = self.tree.join(name);
            fs::read(&path).context(|| format!("cannot read {}", path.display()))
        };
        let mut archive = Archive::default();
        for dir in ["bin", "dev", "modules", "new"] {
            archive.dir(dir);
        }
        archive.add("dev/console", 0o600, Node::Char { major: 5, minor: 1 });
        archive.add("dev/null", 0o666, Node::Char { major: 1, minor: 3 });
        archive.add("init", 0o755, Node::File(INITRAMFS_INIT.as_bytes()));
        archive.add("dom0-init.sh", 0o755, Node::File(DOM0_INIT.as_bytes()));
        archive.add("bin/busybox", 0o755, Node::File(&read("busybox")?));
        let list = read("modules/list")?;
        archive.add("modules/list", 0o644, Node::File(&list));
        for module in String::from_utf8_lossy(&list).lines() {
            archive.add(
                &format!("modules/{module}"),
                0o644,
                Node::File(&read(&format!("modules/{module}"))?),
            );
        }
        Ok(archive.finish())
    }
}

/// Debian's packages, unpacked and configured.
pub fn tree(steps: &Steps) -> Result<PathBuf> {
    static TREE: Once = Once::new();
    TREE.get(|| find_or_make_tree(steps))
}

/// Lets a user who is not root give sudo a password now, if the tree needs one, and not in the middle of other output. Nobody is
/// asked twice.
pub fn may_be_made(steps: &Steps) -> Result<()> {
    static ASKED: OnceLock<Result<()>> = OnceLock::new();
    let ask = || {
        if host::is_root() || cache::find("dom0-tree", tree_inputs())?.is_some() {
            return Ok(());
        }
        steps.step("sudo, for Dom0's tree", |log| log.run(&mut host::as_root("true", &[])))
    };
    ASKED.get_or_init(ask).clone()
}

fn tree_inputs() -> Inputs {
    Inputs::new().add("suite", SUITE).add("packages", PACKAGES.join(",")).add("script", TREE_SCRIPT)
}

fn find_or_make_tree(steps: &Steps) -> Result<PathBuf> {
    if let Some(made) = cache::find("dom0-tree", tree_inputs())? {
        return Ok(made);
    }
    may_be_made(steps)?;
    let sources = host::apt_sources(SUITE)?;
    steps.step("Dom0: Debian packages (about a minute)", |log| {
        cache::get("dom0-tree", tree_inputs(), |dir| {
            let (out, packages) = (dir.to_string_lossy().into_owned(), PACKAGES.join(","));
            host::root_script(log, "dom0-tree.sh", TREE_SCRIPT, &[&out, SUITE, &packages], Some(&sources))?;
            unpack_kernel(&dir.join("vmlinuz"), &dir.join("dom0.elf"))
        })
    })
}

fn disk(steps: &Steps, tree: &Path, cuda_programs: Option<&Path>) -> Result<PathBuf> {
    steps.step("Dom0: disk image", |log| {
        let image_tars = images::all(tree, cuda_programs)?;
        let mut inputs =
            Inputs::new().add("tree", tree.to_string_lossy().as_bytes()).add("script", DISK_SCRIPT);
        for image in &image_tars {
            inputs = inputs.add("image", image.to_string_lossy().as_bytes());
        }
        cache::get("dom0-disk", inputs, |dir| {
            let mut args = vec![
                dir.to_string_lossy().into_owned(),
                tree.join("tree.tar").to_string_lossy().into_owned(),
            ];
            args.extend(image_tars.iter().map(|image| image.to_string_lossy().into_owned()));
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            host::root_script(log, "dom0-disk.sh", DISK_SCRIPT, &args, None)
        })
    })
}

/// Takes the ELF out of a bzImage. Its payload is one zstd stream somewhere behind the set-up code, so each place that
/// looks like the start of one is tried. Xen would need two seconds for it under emulation.
fn unpack_kernel(bzimage: &Path, elf: &Path) -> Result<()> {
    const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let image = fs::read(bzimage).context(|| format!("cannot read {}", bzimage.display()))?;
    let starts = image.windows(4).enumerate().filter(|(_, window)| *window == ZSTD_MAGIC).map(|(at, _)| at);
    for start in starts {
        let unpacked = unzstd(&image[start..])?;
        if unpacked.starts_with(b"\x7fELF") {
            return fs::write(elf, unpacked).context(|| format!("cannot write {}", elf.display()));
        }
    }
    Err(Failure::new(format!("{} holds no zstd-compressed ELF", bzimage.display())))
}

/// What `zstd` makes of the bytes; garbage behind the stream is expected and ignored.
fn unzstd(compressed: &[u8]) -> Result<Vec<u8>> {
    use std::io::Write as _;
    let mut command = Command::new("zstd");
    command.arg("-dcq").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut zstd = command.spawn().context(|| "cannot run zstd".into())?;
    let mut input = zstd.stdin.take().context(|| "zstd has no input".into())?;
    std::thread::scope(|scope| {
        // zstd closes its input early when the bytes are no stream of its own.
        scope.spawn(move || input.write_all(compressed));
        let output = zstd.wait_with_output().context(|| "cannot read from zstd".into())?;
        Ok(output.stdout)
    })
}
