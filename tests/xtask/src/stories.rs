//! Plays the end-to-end stories (`tests/stories`) in the testbed: one boot for many.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::remove_tree;
use crate::cpio::{Archive, Node};
use crate::demo;
use crate::dist::{self, STATIC_TARGET};
use crate::dom0::{self, Dom0};
use crate::error::{Context, Failure, Result};
use crate::images;
use crate::paths;
use crate::progress::{self, Steps};
use crate::qemu::Kind;
use crate::tally::Tally;
use crate::testbed::{self, Boot};

/// A whole run of the stories may take so long.
const LIMIT_S: u64 = 3600;
/// The stories, and what shows that a boot heeds its share, its memory and its script's exit code.
const SCRIPT: &str = include_str!("../../testbed/stories.sh");
/// The script's exit code in the place of the stories' 0.
const ALL_WELL: u8 = 3;
/// What the script finds in its share and gives back.
const QUESTION: &str = "from the machine outside\n";
/// So much less memory than a boot has that nobody gave a figure: so it's seen that the figure is heeded. Xen keeps less for itself.
const LESS_MIB: u32 = 128;

/// The stories' program, the other end of idm's stories and what looks around in a pod, all static: they run whatever the libraries are.
pub fn build(steps: &Steps) -> Result<PathBuf> {
    let root = paths::root()?;
    steps.step("Build the stories", |log| {
        dist::static_target_installed(log)?;
        let line = ["build", "--release", "--locked", "--target", STATIC_TARGET];
        log.run(dist::cargo(&root, &line).args([
            "--package",
            "vgpu-stories",
            "--package",
            "xen-peer",
            "--package",
            "vgpu-inside",
        ]))
    })?;
    Ok(paths::target()?.join(STATIC_TARGET).join("release/vgpu-stories"))
}

/// How stories are called that play cases below a containerd of their own.
const BELOW_CONTAINERD: &str = "contract_of_cri_";

/// What those bring along: the program that calls that containerd, for which sixty crates are built, and its images.
fn files_below_containerd(steps: &Steps) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let root = paths::root()?;
    steps.step("Build what calls a containerd", |log| {
        let line = ["build", "--release", "--locked", "--target", STATIC_TARGET];
        log.run(dist::cargo(&root, &line).args(["--package", "vgpu-contract", "--bin", "cri-cases"]))
    })?;
    let program = paths::target()?.join(STATIC_TARGET).join("release/cri-cases");
    let [busybox, pause] = images::of_pods(&dom0::tree(steps)?)?;
    let files = [("cri-cases", program), ("busybox.tar", busybox), ("pause.tar", pause)];
    files.into_iter().map(|(name, path)| Ok((name, read(&path)?))).collect()
}

/// What is found in Dom0 as /ctl/NAME: the stories' program, the demonstration, what looks around in a pod, and idm's other end as a
/// program and as the whole of a guest.
fn files(stories: &Path) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let peer = read(&stories.with_file_name("xen-peer"))?;
    let (program, inside) = (read(stories)?, read(&stories.with_file_name("inside"))?);
    let mut initramfs = Archive::default();
    initramfs.dir("dev");
    initramfs.add("dev/console", 0o600, Node::Char { major: 5, minor: 1 });
    initramfs.add("init", 0o755, Node::File(&peer));
    let of_idm = [("xen-peer.cpio", initramfs.finish()), ("xen-peer", peer)];
    Ok([("vgpu-stories", program), ("inside", inside), ("demo.sh", demo::SCRIPT.into())]
        .into_iter()
        .chain(of_idm)
        .collect())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).context(|| format!("cannot read {}", path.display()))
}

/// The programs of the stories, built: what every boot brings along.
pub struct Stories {
    program: PathBuf,
    files: Vec<(&'static str, Vec<u8>)>,
}

impl Stories {
    /// Builds them.
    pub fn build(steps: &Steps) -> Result<Self> {
        let program = build(steps)?;
        Ok(Self { files: files(&program)?, program })
    }

    /// Plays the stories whose names contain one of `names` (none: all) in one boot, and counts. The boot's logs are kept as `kept`.
    /// Returns what was said.
    pub fn play(
        &self,
        steps: &Steps,
        dom0: &Dom0,
        kind: Kind,
        names: &[&str],
        kept: &str,
        tally: &mut Tally,
    ) -> Result<String> {
        let mut boot = Boot::new();
        boot.kind = kind;
        boot.kept = kept.into();
        boot.files = self.files.clone();
        if listed(&self.program, names)?.iter().any(|name| name.starts_with(BELOW_CONTAINERD)) {
            boot.files.extend(files_below_containerd(steps)?);
        }
        boot.limit = std::time::Duration::from_secs(LIMIT_S);
        boot.memory_mib -= LESS_MIB;
        let share = share(kept)?;
        boot.share = Some(share.clone());
        let place = format!("{} Dom0", kind.name().to_uppercase());
        let mut heard = Heard { place: &place, text: Vec::new(), shown: 0 };
        let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
        let played = testbed::run(steps, dom0, &boot, SCRIPT.as_bytes(), &names, &mut heard);
        let before = (tally.passed, tally.failed);
        let said = String::from_utf8_lossy(&heard.text).into_owned();
        tally.add_stories(&place, &said);
        let code = played?;
        if tally.failed == before.1 && (code != ALL_WELL || tally.passed == before.0) {
            return Err(Failure::new(format!(
                "{place}: the stories ended with {code}, and none failed or passed"
            )));
        }
        tally.check(&format!("{place}: share and memory, {kept}"), answered(&share, boot.memory_mib));
        remove_tree(&share)?;
        Ok(said)
    }
}

/// A directory for one boot, with a question in it.
fn share(kept: &str) -> Result<PathBuf> {
    let dir = paths::scratch()?.join("share").join(format!("{}-{kept}", std::process::id()));
    remove_tree(&dir)?;
    fs::create_dir_all(&dir).context(|| format!("cannot make {}", dir.display()))?;
    fs::write(dir.join("question"), QUESTION).context(|| format!("cannot write into {}", dir.display()))?;
    Ok(dir)
}

/// Whether the script has read and written the share, in a machine of this memory.
fn answered(share: &Path, memory_mib: u32) -> Result<()> {
    let answer = read(&share.join("answer"))?;
    let answer = String::from_utf8_lossy(&answer);
    let told: Option<u32> = answer.strip_prefix(QUESTION).and_then(|mib| mib.trim().parse().ok());
    if told.is_some_and(|mib| (memory_mib - LESS_MIB / 2..=memory_mib).contains(&mib)) {
        return Ok(());
    }
    Err(Failure::new(format!("Dom0 answers {answer:?}, in a machine of {memory_mib} MiB")))
}

/// The names of the stories that contain `part`.
pub fn names(steps: &Steps, part: &str) -> Result<Vec<String>> {
    listed(&build(steps)?, &[part])
}

fn listed(program: &Path, parts: &[&str]) -> Result<Vec<String>> {
    let listed = progress::output(Command::new(program).arg("--list").args(parts))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_the_question_or_from_another_machine_is_none() {
        let dir = share("answer-test").expect("made");
        let judge = |answer: &str| {
            fs::write(dir.join("answer"), answer).expect("written");
            answered(&dir, 8064)
        };
        assert!(answered(&dir, 8064).is_err(), "nothing was written");
        judge(&format!("{QUESTION}8063\n")).expect("as Xen tells it");
        for wrong in ["8063\n", QUESTION, &format!("{QUESTION}8191\n"), &format!("{QUESTION}7936\n")] {
            assert!(judge(wrong).is_err(), "{wrong}");
        }
        assert!(SCRIPT.contains(&format!("exit {ALL_WELL}\n")));
    }
}
