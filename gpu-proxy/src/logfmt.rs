//! Log lines on stderr. The supervisor's in logfmt: `level=info at=gpu_proxy::supervisor msg="…"`; systemd adds time and unit. A
//! worker's are for the supervisor (`supervisor/worker_log.rs`): `info …`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::sync::OnceLock;

use log::{LevelFilter, Log, Metadata, Record};

/// Where lines go in place of stderr.
static MOVED: OnceLock<File> = OnceLock::new();

struct Logger {
    line: fn(&Record<'_>) -> String,
}

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // One write a line, so that lines of several processes do not mix. There is nowhere to report a failure to.
        let line = (self.line)(record);
        let _ = match MOVED.get() {
            Some(mut file) => file.write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }

    fn flush(&self) {}
}

/// A line for whoever reads the log.
fn logfmt(record: &Record<'_>) -> String {
    let level = record.level().as_str().to_ascii_lowercase();
    let mut line = format!("level={level} at={} pid={} msg=\"", record.target(), std::process::id());
    for character in record.args().to_string().chars() {
        match character {
            '"' | '\\' => line.extend(['\\', character]),
            '\n' => line.push_str("\\n"),
            // What a guest named may be anything; a terminal shall not take it for a command.
            other if other.is_control() => {
                let _ = write!(line, "\\u{:04x}", u32::from(other));
            }
            other => line.push(other),
        }
    }
    line.push_str("\"\n");
    line
}

/// A line for the supervisor, who escapes it and names who wrote it.
fn plain(record: &Record<'_>) -> String {
    let text = record.args().to_string().replace('\n', " ");
    format!("{} {text}\n", record.level().as_str().to_ascii_lowercase())
}

/// Starts the supervisor's log at `level`; `info` for one that is not known.
pub fn start(level: &str) {
    start_with(level, &Logger { line: logfmt });
}

/// Starts a worker's.
pub fn start_worker(level: &str) {
    start_with(level, &Logger { line: plain });
}

/// From now on lines, and what a panic says, go to `file`: stderr is about to be another's.
pub fn move_to(file: File) {
    if MOVED.set(file).is_ok() {
        std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
    }
}

fn start_with(level: &str, logger: &'static Logger) {
    log::set_max_level(level.parse().unwrap_or(LevelFilter::Info));
    // Only the first call of a process counts.
    let _ = log::set_logger(logger);
}

/// The level in force, as [`start`] takes it.
#[must_use]
pub fn level() -> String {
    log::max_level().as_str().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line_whatever_it_holds() {
        let record = Record::builder()
            .args(format_args!("zone \"a\"\nsays \u{1b}[31m"))
            .level(log::Level::Warn)
            .target("t")
            .build();
        let line = logfmt(&record);
        assert!(line.ends_with("msg=\"zone \\\"a\\\"\\nsays \\u001b[31m\"\n"), "{line}");
        assert_eq!((line.lines().count(), plain(&record).lines().count()), (1, 1));
    }
}
