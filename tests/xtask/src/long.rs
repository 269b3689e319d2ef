//! `cargo xtask test --long STAGE`: what takes longer than a change may wait for.
//!
//! A stage is a list of units; each one that passed is noted under `target/xtask/long/STAGE` and not repeated after an
//! interruption, as long as no file but documents has changed. A stage that is complete starts anew. Its last result and date go into
//! SPECIFICATION.md, by hand.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::boots;
use crate::error::{Context, Failure, Result};
use crate::frameworks;
use crate::fuzz;
use crate::host::{self, Needs};
use crate::paths;
use crate::progress::{self, Steps};
use crate::qemu::Kind;
use crate::stories::{self, Stories};
use crate::tally::Tally;
use crate::test;
use crate::testbed;

/// What a stage does.
enum Stage {
    /// Plays stories in this kind of Dom0: their names in units of one boot each, and how often all of them.
    Stories(Kind, &'static [&'static str], u32),
    /// Feeds every parser of outside bytes, one target a unit.
    Fuzz,
    /// Plays more of part `contract`.
    Contract,
    /// Counts what frameworks wait for, on the null device, one framework a unit.
    Frameworks,
}

const STAGES: &[(&str, Stage)] = &[
    // What a PVH Dom0 may do differently first: it maps granted pages in another way.
    (
        "pvh-deaths",
        Stage::Stories(
            Kind::Pvh,
            &["death_of_the", "death_of_gpu", "death_of_containerd", "create_killed"],
            1,
        ),
    ),
    (
        "pvh-others",
        Stage::Stories(
            Kind::Pvh,
            &[
                "two_pods",
                "hung_",
                "idm_",
                "canary_",
                "cuda_vector",
                "cuda_program_in",
                "cuda_runtimes",
                "cuda_memory",
                "cuda_costs",
                "cuda_worker",
                "death_of_a_cuda",
                "nvidia_smi",
                "container_",
                "two_containers",
                "pod_is",
                "pod_network",
                "pod_with",
                "demo_",
                "vgpu_",
                "guest_kernel",
                "config_",
                "runc_",
            ],
            1,
        ),
    ),
    ("deaths", Stage::Stories(Kind::Pv, &["death_"], 5)),
    ("rest", Stage::Stories(Kind::Pv, boots::REST, 1)),
    ("churn", Stage::Stories(Kind::Pv, boots::CHURN, 10)),
    ("contract-on-xen", Stage::Stories(Kind::Pv, boots::CONTRACT, 1)),
    ("fuzz", Stage::Fuzz),
    ("contract", Stage::Contract),
    ("frameworks", Stage::Frameworks),
];

/// Many programs on the software GPU: they keep Dom0 so busy that its emulation does not survive them (`tests/testbed/README.md`), and a
/// GPU's calls are the same for every Dom0. Pods by the number, cases and figures are the same, too.
const NOT_ON_PVH: &[&str] = &["cuda_programs", "cuda_other", "churn_", "contract_of_", "figures_of_"];

/// What the stages are called.
pub fn names() -> impl Iterator<Item = &'static str> {
    STAGES.iter().map(|(name, _)| *name)
}

/// Runs what is left of a stage.
pub fn run(name: &str, steps: &Steps, tally: &mut Tally) -> Result<()> {
    let Some((_, stage)) = STAGES.iter().find(|(stage, _)| *stage == name) else {
        let names: Vec<&str> = names().collect();
        return Err(Failure::new(format!("no stage is called {name}; stages: {}", names.join(", "))));
    };
    host::prepare(
        steps,
        if matches!(stage, Stage::Stories(..) | Stage::Contract) { Needs::All } else { Needs::Build },
    )?;
    let record = Record::open(&paths::scratch()?.join("long"), name, &commit(&paths::root()?)?)?;
    match stage {
        Stage::Stories(kind, units, times) => {
            if *kind == Kind::Pvh {
                every_story_has_a_unit(&stories::names(steps, "")?)?;
            }
            let dom0 = testbed::complete(steps)?;
            let stories = Stories::build(steps)?;
            for round in 1..=*times {
                for unit in *units {
                    record.once(&format!("{unit} {round}"), tally, |tally| {
                        stories.play(steps, &dom0, *kind, &[unit], "last", tally).map(drop)
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
        Stage::Contract => record.once("more", tally, |tally| test::more_of_contract(steps, tally))?,
        Stage::Frameworks => {
            for framework in frameworks::ALL {
                record.once(framework.name, tally, |tally| {
                    let played = framework.play(steps);
                    tally.check(&format!("frameworks {}", framework.name), played);
                    Ok(())
                })?;
            }
        }
    }
    if tally.failed == 0 { record.close() } else { Ok(()) }
}

/// The stages that play stories on the other kind of Dom0 forget none but those that are left out on purpose.
pub fn every_story_has_a_unit(names: &[String]) -> Result<()> {
    let units: Vec<&str> = STAGES
        .iter()
        .filter_map(|(_, stage)| match stage {
            Stage::Stories(Kind::Pvh, units, _) => Some(units),
            _ => None,
        })
        .flat_map(|units| units.iter().copied())
        .chain(NOT_ON_PVH.iter().copied())
        .collect();
    let forgotten: Vec<&String> =
        names.iter().filter(|name| !units.iter().any(|unit| name.contains(unit))).collect();
    if forgotten.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("no unit of a stage on a PVH Dom0 plays {forgotten:?}: see STAGES")))
}

/// What is tested: the last commit that changed more than documents, and whether files differ from it.
fn commit(root: &Path) -> Result<String> {
    let git = |words: &[&str]| {
        let but_documents = ["--", ":(top)", ":(top,exclude)*.md"];
        progress::output(Command::new("git").arg("-C").arg(root).args(words).args(but_documents))
    };
    let changed = if git(&["status", "--porcelain"])?.is_empty() { "" } else { ", with changes" };
    Ok(format!("commit {}{changed}", git(&["log", "-1", "--format=%H"])?.trim()))
}

/// What has passed of a stage: the commit, then a unit a line.
struct Record(PathBuf);

impl Record {
    /// What another commit has passed counts for nothing.
    fn open(dir: &Path, stage: &str, commit: &str) -> Result<Self> {
        fs::create_dir_all(dir).context(|| format!("cannot make {}", dir.display()))?;
        let record = Self(dir.join(stage));
        let before = record.lines()?;
        if before.first().map(String::as_str) != Some(commit) {
            if let Some(before) = before.first() {
                eprintln!("stage {stage} starts anew: it was begun with {before}, this is {commit}");
            }
            fs::write(&record.0, format!("{commit}\n"))
                .context(|| format!("cannot write {}", record.0.display()))?;
        }
        Ok(record)
    }

    /// Does a unit that has not passed yet, and notes it when nothing failed in it.
    fn once(&self, unit: &str, tally: &mut Tally, work: impl FnOnce(&mut Tally) -> Result<()>) -> Result<()> {
        if self.lines()?.iter().any(|line| line == unit) {
            return Ok(());
        }
        let failed_before = tally.failed;
        work(tally)?;
        if tally.failed == failed_before { self.add(unit) } else { Ok(()) }
    }

    fn lines(&self) -> Result<Vec<String>> {
        match fs::read_to_string(&self.0) {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            text => {
                let text = text.context(|| format!("cannot read {}", self.0.display()))?;
                Ok(text.lines().map(String::from).collect())
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_makes_no_other_commit() {
        let dir = paths::scratch().expect("scratch").join("commit-test");
        crate::cache::remove_tree(&dir).expect("removed");
        fs::create_dir_all(&dir).expect("made");
        let git = |words: &str| {
            let own = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"];
            let mut git = Command::new("git");
            progress::output(git.arg("-C").arg(&dir).args(own).args(words.split(' '))).expect(words)
        };
        let commit_of = |file: &str| {
            fs::write(dir.join(file), file).expect("written");
            let before = commit(&dir).expect("told");
            git("add .");
            git("commit -qm x");
            (before, commit(&dir).expect("told"))
        };
        git("init -q");
        fs::write(dir.join("first.rs"), "").expect("written");
        git("add .");
        git("commit -qm x");
        let first = commit(&dir).expect("told");
        assert_eq!(commit_of("page.md"), (first.clone(), first.clone()));
        let (changed, second) = commit_of("code.rs");
        assert_eq!(changed, format!("{first}, with changes"));
        assert_ne!(second, first);
    }

    #[test]
    fn a_unit_is_not_repeated_until_the_commit_is_another() {
        let dir = paths::scratch().expect("scratch").join("record-test");
        crate::cache::remove_tree(&dir).expect("removed");
        let played = |commit: &str| {
            let mut played = false;
            let record = Record::open(&dir, "stage", commit).expect("opened");
            let unit = |_: &mut Tally| {
                played = true;
                Ok(())
            };
            record.once("death_ 1", &mut Tally::default(), unit).expect("played or not");
            played
        };
        assert_eq!(["commit 1", "commit 1"].map(played), [true, false]);
        assert_eq!(["commit 1, with changes", "commit 1"].map(played), [true, true]);
    }
}
