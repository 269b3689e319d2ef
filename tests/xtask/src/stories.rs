//! Plays the end-to-end stories (`tests/stories`) in the testbed: one boot for many.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cpio::{Archive, Node};
use crate::demo;
use crate::dist::{self, STATIC_TARGET};
use crate::dom0::Dom0;
use crate::error::{Context, Failure, Result};
use crate::paths;
use crate::progress::{self, Steps};
use crate::qemu::Kind;
use crate::tally::Tally;
use crate::testbed::{self, Boot};

/// A whole run of the stories may take so long.
const LIMIT_S: u64 = 3600;

/// The stories' program and the other end of idm's stories, both static: they run in Dom0, whatever its libraries are.
pub fn build(steps: &Steps) -> Result<PathBuf> {
    let root = paths::root()?;
    steps.step("Build the stories", |log| {
        dist::static_target_installed(log)?;
        let line = ["build", "--release", "--locked", "--target", STATIC_TARGET];
        log.run(dist::cargo(&root, &line).args(["--package", "vgpu-stories", "--package", "xen-peer"]))
    })?;
    Ok(paths::target()?.join(STATIC_TARGET).join("release/vgpu-stories"))
}

/// What the stories find in Dom0 as /ctl/NAME: the demonstration, and idm's other end as a program and as the whole of a guest.
fn files(stories: &Path) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let peer = read(&stories.with_file_name("xen-peer"))?;
    let mut initramfs = Archive::default();
    initramfs.dir("dev");
    initramfs.add("dev/console", 0o600, Node::Char { major: 5, minor: 1 });
    initramfs.add("init", 0o755, Node::File(&peer));
    Ok(vec![("demo.sh", demo::SCRIPT.into()), ("xen-peer.cpio", initramfs.finish()), ("xen-peer", peer)])
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).context(|| format!("cannot read {}", path.display()))
}

/// The programs of the stories, built: what every boot brings along.
pub struct Stories {
    program: Vec<u8>,
    files: Vec<(&'static str, Vec<u8>)>,
}

impl Stories {
    /// Builds them.
    pub fn build(steps: &Steps) -> Result<Self> {
        let program = build(steps)?;
        Ok(Self { program: read(&program)?, files: files(&program)? })
    }

    /// Plays the stories whose names contain one of `names` (none: all) in one boot, and counts. The boot's logs are kept as `kept`.
    pub fn play(
        &self,
        steps: &Steps,
        dom0: &Dom0,
        kind: Kind,
        names: &[&str],
        kept: &str,
        tally: &mut Tally,
    ) -> Result<()> {
        let mut boot = Boot::new();
        boot.kind = kind;
        boot.kept = kept.into();
        boot.files = self.files.clone();
        boot.limit = std::time::Duration::from_secs(LIMIT_S);
        let place = format!("{} Dom0", kind.name().to_uppercase());
        let mut heard = Heard { place: &place, text: Vec::new(), shown: 0 };
        let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
        let played = testbed::run(steps, dom0, &boot, &self.program, &names, &mut heard);
        let before = (tally.passed, tally.failed);
        tally.add_stories(&place, &String::from_utf8_lossy(&heard.text));
        let code = played?;
        if tally.failed == before.1 && (code != 0 || tally.passed == before.0) {
            return Err(Failure::new(format!(
                "{place}: the stories ended with {code}, and none failed or passed"
            )));
        }
        Ok(())
    }
}

/// The names of the stories that contain `part`.
pub fn names(steps: &Steps, part: &str) -> Result<Vec<String>> {
    let listed = progress::output(Command::new(build(steps)?).args(["--list", part]))?;
    Ok(listed.lines().map(String::from).collect())
}

/// Keeps what it is given, and shows it by whole lines behind their place: boots run beside each other.
struct Heard<'a> {
    place: &'a str,
    text: Vec<u8>,
    shown: usize,
}

impl Write for Heard<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        let whole = self.text.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        if whole > self.shown {
            let lines = String::from_utf8_lossy(&self.text[self.shown..whole]);
            let lines: String = lines.lines().map(|line| format!("{}: {line}\n", self.place)).collect();
            io::stdout().write_all(lines.as_bytes())?;
            self.shown = whole;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}
