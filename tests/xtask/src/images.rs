//! The container images of the testbed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cache::{self, Inputs};
use crate::error::{Context, Result};
use crate::oci::{self, Image};
use crate::tar;

/// One static program under its many names.
pub const BUSYBOX: &str = "docker.io/library/busybox:1";
/// busybox that waits for ever: what containerd wants of a pod's first container.
pub const PAUSE: &str = "docker.io/library/pause:1";
/// Debian 13's glibc and C++ library, and busybox: what CUDA programs run on.
pub const GLIBC: &str = "docker.io/library/glibc:1";

/// The glibc image and the programs of `tests/cuda`, in `/`.
pub const CUDA: &str = "docker.io/library/cuda-tests:1";

const SHELL: &[&str] = &["sh"];

/// The programs that stories use by name.
const APPLETS: &[&str] = &[
    "sh",
    "cat",
    "echo",
    "ls",
    "sleep",
    "true",
    "false",
    "env",
    "id",
    "head",
    "tail",
    "wc",
    "dd",
    "sha256sum",
    "kill",
    "ps",
    "mount",
    "umount",
    "mkdir",
    "rm",
    "touch",
    "stat",
    "grep",
    "sed",
    "cut",
    "tr",
    "seq",
    "test",
    "uname",
    "hostname",
    "ip",
    "df",
    "free",
    "dmesg",
    "stty",
    "tty",
    "od",
    "yes",
    "nc",
    "top",
    "date",
    "chmod",
    "chown",
    "ln",
    "mv",
    "cp",
    "readlink",
    "tee",
    "timeout",
];

/// The images of a boot, as OCI tars in the cache. `tree` is Dom0's artifact, which has the parts; `cuda_programs` is a
/// directory to lie at the root of one more image.
pub fn all(tree: &Path, cuda_programs: Option<&Path>) -> Result<Vec<PathBuf>> {
    let busybox = read(&tree.join("busybox"))?;
    let glibc = vec![read(&tree.join("glibc.tar"))?, busybox_layer(&busybox, "usr/bin")?];
    let mut images = vec![of_busybox(&busybox)?];
    if let Some(dir) = cuda_programs {
        let mut layers = glibc.clone();
        layers.push(oci::layer_of(dir)?);
        images.push(image("cuda", CUDA, layers, SHELL)?);
    }
    images.push(image("glibc", GLIBC, glibc, SHELL)?);
    Ok(images)
}

/// The images of a containerd that kubelet calls.
pub fn of_pods(tree: &Path) -> Result<[PathBuf; 2]> {
    let busybox = read(&tree.join("busybox"))?;
    let pause = image("pause", PAUSE, vec![busybox_layer(&busybox, "bin")?], &["sleep", "1000000"])?;
    Ok([of_busybox(&busybox)?, pause])
}

fn of_busybox(busybox: &[u8]) -> Result<PathBuf> {
    image("busybox", BUSYBOX, vec![busybox_layer(busybox, "bin")?], SHELL)
}

fn image(name: &str, full_name: &str, layers: Vec<Vec<u8>>, command: &[&str]) -> Result<PathBuf> {
    let mut inputs = Inputs::new().add("name", full_name).add("command", command.join(" "));
    for layer in &layers {
        inputs = inputs.add("layer", layer);
    }
    let dir = cache::get(&format!("image-{name}"), inputs, |dir| {
        let image = Image { name: full_name, layers, env: &["PATH=/usr/bin:/bin"], command };
        let path = dir.join("image.tar");
        fs::write(&path, image.to_tar()?).context(|| format!("cannot write {}", path.display()))
    })?;
    Ok(dir.join("image.tar"))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).context(|| format!("cannot read {}", path.display()))
}

/// busybox with its names in `bin`, and the directories that a container wants.
fn busybox_layer(program: &[u8], bin: &str) -> Result<Vec<u8>> {
    let mut layer = tar::Archive::default();
    if bin == "bin" {
        layer.add("bin", 0o755, tar::Node::Dir)?;
    }
    for dir in ["dev", "etc", "proc", "root", "run", "sys", "usr", "usr/bin", "var"] {
        layer.add(dir, 0o755, tar::Node::Dir)?;
    }
    layer.add("tmp", 0o1777, tar::Node::Dir)?;
    layer.add(&format!("{bin}/busybox"), 0o755, tar::Node::File(program))?;
    for applet in APPLETS {
        layer.add(&format!("{bin}/{applet}"), 0o777, tar::Node::Link("busybox"))?;
    }
    layer.add(
        "etc/passwd",
        0o644,
        tar::Node::File(b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n"),
    )?;
    layer.add("etc/group", 0o644, tar::Node::File(b"root:x:0:\nuser:x:1000:\n"))?;
    Ok(layer.finish())
}
