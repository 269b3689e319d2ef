//! What part `contract` plays with: the program that looks around inside of containers, and a runc, with containerd's shim for it, that
//! needs nothing of this machine.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::cache::{self, Inputs};
use crate::dist::{self, STATIC_TARGET};
use crate::dom0;
use crate::error::{Context, Result};
use crate::paths;
use crate::progress::Steps;

/// Of Dom0's tree, as `tar` matches them: runc, what it needs beside the C library, and containerd's shim for it.
const RUNC: [&str; 4] =
    ["--wildcards", "./usr/sbin/runc", "./usr/lib/*/libseccomp.so.*", "./usr/bin/containerd-shim-runc-v2"];
/// Where `tests/inside/src/in-root.sh` mounts something.
const PLACES: [&str; 7] = ["dev", "old", "proc", "run", "sys", "test", "tmp"];

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
        cache::get("runc", inputs, |dir| {
            for (archive, members) in [("glibc.tar", &[][..]), ("tree.tar", &RUNC[..])] {
                log.run(
                    Command::new("tar").arg("-xf").arg(tree.join(archive)).arg("-C").arg(dir).args(members),
                )?;
            }
            let busybox = dir.join("busybox");
            fs::copy(tree.join("busybox"), &busybox)
                .context(|| format!("cannot make {}", busybox.display()))?;
            for place in PLACES.map(|place| dir.join(place)) {
                fs::create_dir(&place).context(|| format!("cannot make {}", place.display()))?;
            }
            Ok(())
        })
    })
}
