//! `cargo xtask test --long STAGE`: what takes longer than a change may wait for.
//!
//! A stage is a list of units; each one that passed is noted under `target/xtask/long/STAGE` and not repeated after an
//! interruption. A stage that is complete starts anew. Its last result and date go into SPECIFICATION.md, by hand.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use crate::error::{Context, Failure, Result};
use crate::host::{self, Needs};
use crate::paths;
use crate::progress::Steps;
use crate::qemu::Kind;
use crate::stories;
use crate::tally::Tally;
use crate::testbed;

/// The stages: name, the kind of Dom0, the stories' names in units of one boot each, how often.
const STAGES: &[(&str, Kind, &[&str], u32)] = &[
    ("pvh-dom0", Kind::Pvh, &["runc_", "vgpu_", "cuda_", "pod", "death_", "config_"], 1),
    ("deaths", Kind::Pv, &["death_"], 10),
];

/// Runs what is left of a stage.
pub fn run(name: &str, steps: &mut Steps, tally: &mut Tally) -> Result<()> {
    let stage = STAGES.iter().find(|(stage, ..)| *stage == name);
    let Some((_, kind, units, times)) = stage else {
        let names: Vec<&str> = STAGES.iter().map(|(name, ..)| *name).collect();
        return Err(Failure::new(format!("no stage is called {name}; stages: {}", names.join(", "))));
    };
    host::prepare(steps, Needs::All)?;
    let dom0 = testbed::complete(steps)?;
    let record = Record::open(name)?;
    for round in 1..=*times {
        for unit in *units {
            let id = format!("{unit} {round}");
            if record.has(&id)? {
                continue;
            }
            let failed_before = tally.failed;
            stories::play(steps, &dom0, *kind, &[(*unit).to_string()], tally)?;
            if tally.failed == failed_before {
                record.add(&id)?;
            }
        }
    }
    if tally.failed == 0 { record.close() } else { Ok(()) }
}

/// The units of a stage that have passed.
struct Record(PathBuf);

impl Record {
    fn open(stage: &str) -> Result<Self> {
        let dir = paths::scratch()?.join("long");
        fs::create_dir_all(&dir).context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self(dir.join(stage)))
    }

    fn has(&self, unit: &str) -> Result<bool> {
        match fs::read_to_string(&self.0) {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(false),
            text => Ok(text
                .context(|| format!("cannot read {}", self.0.display()))?
                .lines()
                .any(|line| line == unit)),
        }
    }

    fn add(&self, unit: &str) -> Result<()> {
        let file = OpenOptions::new().create(true).append(true).open(&self.0);
        let written = file.and_then(|mut file| writeln!(file, "{unit}"));
        written.context(|| format!("cannot write {}", self.0.display()))
    }

    fn close(&self) -> Result<()> {
        match fs::remove_file(&self.0) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                Err(cause).context(|| format!("cannot remove {}", self.0.display()))
            }
            _ => Ok(()),
        }
    }
}
