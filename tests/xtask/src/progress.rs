//! Named steps: what runs now, how long it took, where its log is, and a table of the times at the end.
//!
//! Everything goes to standard error; standard output belongs to the programs that a task runs.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Context, Failure, Result};
use crate::paths;

/// A long step says that it still runs, and where it is, this often.
const SIGN_OF_LIFE: Duration = Duration::from_secs(20);
/// So much of the end of a failed step's log is shown.
const TAIL_LINES: usize = 25;
/// And so many panics from before it, of so many lines each.
const PANICS: usize = 3;
const PANIC_LINES: usize = 8;

/// The steps of one task.
pub struct Steps {
    started: Instant,
    logs: PathBuf,
    /// In the order of their ends: steps may run beside each other.
    times: Mutex<Vec<(String, Duration)>>,
    quiet: bool,
}

impl Steps {
    /// Logs go to `target/xtask/logs/`.
    pub fn new() -> Result<Self> {
        let logs = paths::scratch()?.join("logs");
        fs::create_dir_all(&logs).context(|| format!("cannot make {}", logs.display()))?;
        Ok(Self { started: Instant::now(), logs, times: Mutex::default(), quiet: false })
    }

    /// Says nothing unless a step is long or fails: for tasks whose output is another program's.
    pub fn quiet() -> Result<Self> {
        Ok(Self { quiet: true, ..Self::new()? })
    }

    /// Runs one step. Its failure names the step, shows the end of its log and says where the log is.
    pub fn step<T>(&self, name: &str, work: impl FnOnce(&Log) -> Result<T>) -> Result<T> {
        let started = Instant::now();
        let log = Log::create(self.logs.join(format!("{}.log", file_name(name))))?;
        if !self.quiet {
            eprintln!("[{:6.1} s] {name}", self.started.elapsed().as_secs_f64());
        }
        let outcome = with_signs_of_life(name, &log, || work(&log));
        let took = started.elapsed();
        self.times().push((name.to_string(), took));
        outcome.map_err(|failure| {
            let tail = log.tail();
            let shown = if tail.is_empty() { String::new() } else { format!("\n{tail}") };
            Failure::new(format!("step '{name}' failed: {failure}{shown}\nlog: {}", log.path.display()))
        })
    }

    /// The times of the steps that took at least a tenth of a second, and of all.
    pub fn table(&self) -> String {
        let mut table = String::new();
        for (name, took) in self.times().iter().filter(|(_, took)| took.as_millis() >= 100) {
            let _ = writeln!(table, "{:8.1} s  {name}", took.as_secs_f64());
        }
        let _ = write!(table, "{:8.1} s  all", self.started.elapsed().as_secs_f64());
        table
    }

    fn times(&self) -> MutexGuard<'_, Vec<(String, Duration)>> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A step's log file.
pub struct Log {
    path: PathBuf,
}

impl Log {
    fn create(path: PathBuf) -> Result<Self> {
        File::create(&path).context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { path })
    }

    fn append(&self) -> Result<File> {
        let opened = OpenOptions::new().append(true).open(&self.path);
        opened.context(|| format!("cannot open {}", self.path.display()))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs a program with its output in the log; any exit code but 0 is a failure.
    pub fn run(&self, command: &mut Command) -> Result<()> {
        let status = command.stdout(self.append()?).stderr(self.append()?).status();
        check(command, status)
    }

    /// Runs a program and returns its standard output; its standard error goes to the log.
    pub fn output(&self, command: &mut Command) -> Result<String> {
        let output = command.stdin(Stdio::null()).stderr(self.append()?).stdout(Stdio::piped()).output();
        let output = output.context(|| format!("cannot run {}", name_of(command)))?;
        check(command, Ok(output.status))?;
        String::from_utf8(output.stdout).context(|| format!("{} wrote no text", name_of(command)))
    }

    /// Its end, and what panics said before it: of backtraces, nothing.
    fn tail(&self) -> String {
        let text = read_end(&self.path);
        let lines: Vec<&str> = text.lines().filter(|line| !is_frame(line)).collect();
        let end = lines.len().saturating_sub(TAIL_LINES);
        let panics = (0..end).filter(|&at| lines[at].contains(" panicked at ")).take(PANICS);
        let of_panics = panics.flat_map(|at| at..lines.len().min(at + PANIC_LINES));
        let shown: BTreeSet<usize> = of_panics.chain(end..lines.len()).collect();
        shown.iter().map(|&at| format!("    {}", lines[at])).collect::<Vec<_>>().join("\n")
    }

    fn last_line(&self) -> String {
        let text = read_end(&self.path);
        let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        line.chars().take(100).collect()
    }
}

/// Runs a program and returns its standard output; its standard error is ours.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.context(|| format!("cannot run {}", name_of(command)))?;
    check(command, Ok(output.status))?;
    String::from_utf8(output.stdout).context(|| format!("{} wrote no text", name_of(command)))
}

fn check(command: &Command, status: std::io::Result<std::process::ExitStatus>) -> Result<()> {
    let status = status.context(|| format!("cannot run {}", name_of(command)))?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("{}: {status}", name_of(command)))) }
}

/// A command line short enough for a message.
fn name_of(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    if line.chars().count() > 160 { line.chars().take(157).chain("...".chars()).collect() } else { line }
}

/// `  12: function` or `     at place:line:column`.
fn is_frame(line: &str) -> bool {
    let rest = line.trim_start();
    let numbered = || rest.split_once(": ").is_some_and(|(number, _)| number.parse::<u32>().is_ok());
    line.len() > rest.len() && (rest.starts_with("at ") || numbered())
}

fn file_name(step: &str) -> String {
    let kept = step.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
    kept.collect::<String>().trim_matches('-').to_string()
}

/// The last 256 KiB of a file as text; an unreadable file is empty.
pub fn read_end(path: &Path) -> String {
    let Ok(mut file) = File::open(path) else { return String::new() };
    let bytes = file.metadata().map_or(0, |meta| meta.len());
    let mut end = Vec::new();
    let _ = file.seek(SeekFrom::Start(bytes.saturating_sub(256 << 10)));
    let _ = file.read_to_end(&mut end);
    String::from_utf8_lossy(&end).into_owned()
}

fn with_signs_of_life<T>(name: &str, log: &Log, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let (done, watched) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = watched.recv_timeout(SIGN_OF_LIFE) {
                eprintln!("           {name}: {} s so far: {}", started.elapsed().as_secs(), log.last_line());
            }
        });
        let result = work();
        drop(done);
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_names_itself_its_reason_and_its_log() {
        let steps = Steps::new().expect("scratch");
        let failure = steps
            .step("Test of a failing step", |log| {
                log.run(Command::new("sh").args(["-c", "echo the reason; exit 3"]))
            })
            .expect_err("exit 3 is a failure")
            .to_string();
        for part in
            ["Test of a failing step", "exit status: 3", "    the reason", "test-of-a-failing-step.log"]
        {
            assert!(failure.contains(part), "{part} is missing in: {failure}");
        }
    }

    #[test]
    fn of_a_long_log_the_panic_is_shown_and_its_frames_are_not() {
        let steps = Steps::new().expect("scratch");
        let script = "echo first; echo \"thread 'main' panicked at file.rs:1:2:\"; echo its reason; \
                      for i in $(seq 99); do echo \"  $i: a::function\"; echo '     at ./file.rs:1'; done; seq 99; exit 3";
        let failing = |log: &Log| log.run(Command::new("sh").args(["-c", script]));
        let failure = steps.step("Test of a long log", failing).expect_err("exit 3").to_string();
        assert!(failure.contains("    its reason\n") && failure.contains("    99\n"), "{failure}");
        assert!(!failure.contains("12: a::function") && !failure.contains("    first\n"), "{failure}");
    }
}
