//! The container images of the testbed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cache::{self, Inputs};
use crate::error::{Context, Result};
use crate::oci::Image;
use crate::progress::Log;
use crate::tar;

/// One static program under its many names.
pub const BUSYBOX: &str = "docker.io/library/busybox:1";

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
];

/// The busybox image as an OCI tar in the cache, from a static busybox program.
pub fn busybox(program: &Path, _log: &Log) -> Result<PathBuf> {
    let content = fs::read(program).context(|| format!("cannot read {}", program.display()))?;
    let inputs = Inputs::new().add("busybox", &content).add("applets", APPLETS.join(" ")).add("form", "1");
    let dir = cache::get("image-busybox", inputs, |dir| {
        let layer = busybox_layer(&content)?;
        let image =
            Image { name: BUSYBOX, layers: vec![layer], env: &["PATH=/bin:/usr/bin"], command: &["sh"] };
        let path = dir.join("image.tar");
        fs::write(&path, image.to_tar()?).context(|| format!("cannot write {}", path.display()))
    })?;
    Ok(dir.join("image.tar"))
}

fn busybox_layer(program: &[u8]) -> Result<Vec<u8>> {
    let mut layer = tar::Archive::default();
    for dir in ["bin", "dev", "etc", "proc", "root", "run", "sys", "usr", "usr/bin", "var"] {
        layer.add(dir, 0o755, tar::Node::Dir)?;
    }
    layer.add("tmp", 0o1777, tar::Node::Dir)?;
    layer.add("bin/busybox", 0o755, tar::Node::File(program))?;
    for applet in APPLETS {
        layer.add(&format!("bin/{applet}"), 0o777, tar::Node::Link("busybox"))?;
    }
    layer.add(
        "etc/passwd",
        0o644,
        tar::Node::File(b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n"),
    )?;
    layer.add("etc/group", 0o644, tar::Node::File(b"root:x:0:\nuser:x:1000:\n"))?;
    Ok(layer.finish())
}
