//! Programs run with a limit: under emulation anything may be slow, and nothing may hang a whole run.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// For a program that is asked about something.
pub const SOON: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How a program ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Its exit code; nothing when a signal ended it.
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Ended {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn complaint(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// Runs a program to its end.
pub fn run(line: &[&str], limit: Duration) -> Ended {
    feed(line, &[], limit)
}

/// Runs a program with `input` as its standard input.
pub fn feed(line: &[&str], input: &[u8], limit: Duration) -> Ended {
    let mut command = Command::new(line[0]);
    command.args(&line[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|cause| panic!("cannot run {}: {cause}", line[0]));
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    // A program that does not read its input closes it: no error of ours.
    let feeder = thread::spawn(move || drop(stdin.write_all(&input)));
    let stdout = collect(child.stdout.take().expect("piped"));
    let stderr = collect(child.stderr.take().expect("piped"));
    let code = wait(&mut child, limit, &line.join(" "));
    drop(feeder);
    Ended { code, stdout: joined(stdout), stderr: joined(stderr) }
}

/// Runs a program that has to succeed, and returns its standard output.
pub fn must(line: &[&str]) -> String {
    let ended = run(line, SOON);
    assert_eq!(ended.code, Some(0), "{}: {}", line.join(" "), ended.complaint());
    ended.text()
}

/// Waits for a child; kills it when the limit has passed.
pub fn wait(child: &mut Child, limit: Duration, name: &str) -> Option<i32> {
    let started = Instant::now();
    loop {
        match child.try_wait().expect("our own child") {
            Some(status) => return status.code(),
            None if started.elapsed() > limit => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("'{name}' is not over after {} s", limit.as_secs());
            }
            None => thread::sleep(LOOK_EVERY),
        }
    }
}

/// What somebody has said so far.
pub type Lines = Arc<Mutex<String>>;

/// Hears all that is said, by whole lines.
pub fn lines_of(from: impl Read + Send + 'static) -> (Lines, JoinHandle<()>) {
    let lines = Lines::default();
    let written = Arc::clone(&lines);
    let reader = thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while matches!(from.by_ref().read_until(b'\n', &mut line), Ok(bytes) if bytes > 0) {
            written.lock().expect("nobody panics with it").push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
    (lines, reader)
}

fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        let _ = from.read_to_end(&mut all);
        all
    })
}

fn joined(reader: JoinHandle<Vec<u8>>) -> Vec<u8> {
    reader.join().expect("a reader does not panic")
}

/// Asks again and again until the answer is there; `None` when the limit has passed.
pub fn until<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if started.elapsed() > limit {
            return None;
        }
        thread::sleep(Duration::from_millis(50));
    }
}
