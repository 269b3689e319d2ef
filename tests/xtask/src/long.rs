//! `cargo xtask test --long STAGE`: what takes longer than a change may wait for.
//!
//! A stage is a list of units; each one that passed is noted under `target/xtask/long/STAGE` and not repeated after an
//! interruption. A stage that is complete starts anew. Its last result and date go into SPECIFICATION.md, by hand.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use crate::error::{Context, Failure, Result};
use crate::fuzz;
use crate::host::{self, Needs};
use crate::paths;
use crate::progress::Steps;
use crate::qemu::Kind;
use crate::stories::{self, Stories};
use crate::tally::Tally;
use crate::testbed;

/// What a stage does.
enum Stage {
    /// Plays stories in this kind of Dom0: their names in units of one boot each, and how often all of them.
    Stories(Kind, &'static [&'static str], u32),
    /// Feeds every parser of outside bytes, one target a unit.
    Fuzz,
}

const STAGES: &[(&str, Stage)] = &[
    (
        "pvh-dom0",
        Stage::Stories(
            Kind::Pvh,
            &[
                "canary_",
                "idm_",
                "runc_",
                "vgpu_",
                "cuda_",
                "gpu_",
                "pod",
                "program_",
                "container_",
                "create_",
                "death_",
                "hung_",
                "config_",
                "demo_",
            ],
            1,
        ),
    ),
    ("deaths", Stage::Stories(Kind::Pv, &["death_"], 10)),
    ("fuzz", Stage::Fuzz),
];

/// Runs what is left of a stage.
pub fn run(name: &str, steps: &Steps, tally: &mut Tally) -> Result<()> {
    let Some((_, stage)) = STAGES.iter().find(|(stage, _)| *stage == name) else {
        let names: Vec<&str> = STAGES.iter().map(|(name, _)| *name).collect();
        return Err(Failure::new(format!("no stage is called {name}; stages: {}", names.join(", "))));
    };
    host::prepare(steps, Needs::All)?;
    let record = Record::open(name)?;
    match stage {
        Stage::Stories(kind, units, times) => {
            if *times == 1 {
                every_story_has_a_unit(steps, units)?;
            }
            let dom0 = testbed::complete(steps)?;
            let stories = Stories::build(steps)?;
            for round in 1..=*times {
                for unit in *units {
                    record.once(&format!("{unit} {round}"), tally, |tally| {
                        stories.play(steps, &dom0, *kind, &[unit], "last", tally)
                    })?;
                }
            }
        }
        Stage::Fuzz => {
            let programs = fuzz::build(steps)?;
            for target in fuzz::TARGETS {
                record.once(target, tally, |tally| {
                    tally.check(&format!("fuzz {target}"), fuzz::run(steps, &programs, target));
                    Ok(())
                })?;
            }
        }
    }
    if tally.failed == 0 { record.close() } else { Ok(()) }
}

/// A stage that plays all stories once forgets none.
fn every_story_has_a_unit(steps: &Steps, units: &[&str]) -> Result<()> {
    let names = stories::names(steps, "")?;
    let forgotten: Vec<&String> =
        names.iter().filter(|name| !units.iter().any(|unit| name.contains(unit))).collect();
    if forgotten.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("no unit of the stage plays {forgotten:?}: see STAGES")))
}

/// The units of a stage that have passed.
struct Record(PathBuf);

impl Record {
    fn open(stage: &str) -> Result<Self> {
        let dir = paths::scratch()?.join("long");
        fs::create_dir_all(&dir).context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self(dir.join(stage)))
    }

    /// Does a unit that has not passed yet, and notes it when nothing failed in it.
    fn once(&self, unit: &str, tally: &mut Tally, work: impl FnOnce(&mut Tally) -> Result<()>) -> Result<()> {
        if self.has(unit)? {
            return Ok(());
        }
        let failed_before = tally.failed;
        work(tally)?;
        if tally.failed == failed_before { self.add(unit) } else { Ok(()) }
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
