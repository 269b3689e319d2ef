//! Plays the end-to-end stories (`tests/stories`) in the testbed: one boot for many.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use crate::dist::{self, GUEST_TARGET};
use crate::dom0::Dom0;
use crate::error::{Context, Result};
use crate::paths;
use crate::progress::Steps;
use crate::qemu::Kind;
use crate::tally::Tally;
use crate::testbed::{self, Boot};

/// A whole run of the stories may take so long.
const LIMIT_S: u64 = 3600;

/// The stories' program, static: it runs in Dom0, whatever its libraries are.
pub fn build(steps: &mut Steps) -> Result<PathBuf> {
    let root = paths::root()?;
    steps.step("Build the stories", |log| {
        dist::guest_target_installed(log)?;
        log.run(&mut dist::cargo(&root, &["build", "--package", "vgpu-stories", "--target", GUEST_TARGET]))
    })?;
    Ok(paths::target()?.join(GUEST_TARGET).join("debug/vgpu-stories"))
}

/// Plays the stories whose names contain one of `names` (none: all) in one boot, and counts.
pub fn play(steps: &mut Steps, dom0: &Dom0, kind: Kind, names: &[String], tally: &mut Tally) -> Result<()> {
    let program = build(steps)?;
    let program = fs::read(&program).context(|| format!("cannot read {}", program.display()))?;
    let mut boot = Boot::new();
    boot.kind = kind;
    boot.limit = std::time::Duration::from_secs(LIMIT_S);
    let mut heard = Heard::default();
    let played = testbed::run(steps, dom0, &boot, &program, names, &mut heard);
    let place = format!("{} Dom0", kind.name().to_uppercase());
    tally.add_stories(&place, &String::from_utf8_lossy(&heard.text));
    played.map(drop)
}

/// Shows what it is given, and keeps it.
#[derive(Default)]
struct Heard {
    text: Vec<u8>,
}

impl Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        io::stdout().write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}
