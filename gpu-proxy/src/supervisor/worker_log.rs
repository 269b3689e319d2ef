//! What a worker writes to its standard error, passed on as lines of the supervisor's own log.
//!
//! A worker counts as taken over by its guest. So it gets no descriptor of the real log: it could write lines in the name of
//! others, or drive a terminal. Its lines are cut, escaped and named, and taken no faster than [`LINES_PER_SECOND`]: a worker that
//! writes more waits on its full pipe, which stops nobody else. What is taken counts against its zone (`zone_log.rs`).

use std::io;
use std::os::fd::OwnedFd;

use log::Level;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::time::Instant;

use super::zone_log::{Budget, ZoneLog};

/// Longer lines are cut into pieces of so many bytes.
const LINE_BYTES_MAX: usize = 2048;
/// Lines of one worker that are taken in a second.
const LINES_PER_SECOND: usize = 20;

/// Passes lines on to the zone's log until the worker's end is closed.
pub async fn follow(pid: u32, pipe: OwnedFd, zone: &ZoneLog) {
    let passed = pass_on(pipe, |line| {
        let (level, text) = split(line);
        zone.line(level, "gpu_proxy::worker", format_args!("worker {pid}: {text}"));
    });
    if let Err(error) = passed.await {
        zone.warn(format_args!("the log of worker {pid} cannot be read: {error}"));
    }
}

async fn pass_on(pipe: OwnedFd, mut each: impl FnMut(&str)) -> io::Result<()> {
    let mut pipe = Receiver::from_owned_fd(pipe)?;
    let mut pending = Vec::with_capacity(LINE_BYTES_MAX);
    let mut budget = Budget::new(LINES_PER_SECOND, Instant::now());
    loop {
        while let Some(line) = take_line(&mut pending) {
            while let Some(later) = budget.take(Instant::now()) {
                tokio::time::sleep_until(later).await;
            }
            each(&String::from_utf8_lossy(&line));
        }
        let room = LINE_BYTES_MAX - pending.len();
        if (&mut pipe).take(room as u64).read_buf(&mut pending).await? == 0 {
            if !pending.is_empty() {
                each(&String::from_utf8_lossy(&pending));
            }
            return Ok(());
        }
    }
}

/// Takes a line, or a piece as long as a line may be.
fn take_line(pending: &mut Vec<u8>) -> Option<Vec<u8>> {
    let end = pending.iter().position(|&byte| byte == b'\n');
    match end {
        Some(end) => {
            let mut line: Vec<u8> = pending.drain(..=end).collect();
            line.pop();
            Some(line)
        }
        None => (pending.len() >= LINE_BYTES_MAX).then(|| std::mem::take(pending)),
    }
}

/// The level that a worker's own logger puts first; what something else wrote is a warning.
fn split(line: &str) -> (Level, &str) {
    let known = line.split_once(' ').and_then(|(level, text)| Some((level.parse().ok()?, text)));
    known.unwrap_or((Level::Warn, line))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn lines_of(written: &'static [u8]) -> Vec<String> {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let writer = std::thread::spawn(move || std::fs::File::from(write).write_all(written));
        let mut lines = Vec::new();
        pass_on(read, |line| lines.push(line.to_owned())).await.unwrap();
        writer.join().unwrap().unwrap();
        lines
    }

    #[tokio::test]
    async fn lines_come_whole_and_long_ones_in_pieces() {
        assert_eq!(lines_of(b"info one\n\nlast").await, ["info one", "", "last"]);
        let pieces = lines_of(&[b'x'; 2 * LINE_BYTES_MAX + 5]).await;
        assert_eq!(pieces.iter().map(String::len).collect::<Vec<_>>(), [LINE_BYTES_MAX, LINE_BYTES_MAX, 5]);
    }

    #[tokio::test]
    async fn a_flood_is_taken_at_its_pace() {
        let start = Instant::now();
        assert_eq!(lines_of(&[b'\n'; 2 * LINES_PER_SECOND + 1]).await.len(), 2 * LINES_PER_SECOND + 1);
        assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn lines_that_came_over_time_leave_the_budget_whole() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let mut write = std::fs::File::from(write);
        let writer = std::thread::spawn(move || {
            write.write_all(&[b'\n'; LINES_PER_SECOND]).unwrap();
            std::thread::sleep(SECOND + SECOND / 10);
            let said = Instant::now();
            write.write_all(b"panicked\n").unwrap();
            said
        });
        let mut heard = Instant::now();
        pass_on(read, |_| heard = Instant::now()).await.unwrap();
        let waited = heard.saturating_duration_since(writer.join().unwrap());
        assert!(waited < SECOND / 2, "{waited:?}");
    }

    #[test]
    fn the_level_is_a_workers_and_its_default_a_warning() {
        assert_eq!(split("info a kernel ended"), (Level::Info, "a kernel ended"));
        assert_eq!(split("thread panicked"), (Level::Warn, "thread panicked"));
        assert_eq!(split(""), (Level::Warn, ""));
    }
}
