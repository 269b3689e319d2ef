//! The log: logfmt lines into the fifo `log` of the bundle, which containerd reads.
//!
//! The fifo is opened for reading too and never blocks: while containerd restarts nobody reads, and a full fifo loses lines instead
//! of stopping a pod.

use std::{
    fmt::Write as _,
    fs::File,
    io::Write as _,
    os::unix::net::UnixDatagram,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::fs::{Mode, OFlags};

struct Fifo {
    file: Mutex<File>,
    /// `namespace` and `id`, already escaped.
    suffix: String,
}

/// Logs into `<bundle>/log` from here on. Without that fifo (a test, a containerd that keeps none) there is no log.
pub fn init(bundle: &Path, namespace: &str, id: &str, debug: bool) {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::open(bundle.join("log"), flags, Mode::empty()) else { return };
    let suffix = format!(" namespace={} id={}", quoted(namespace), quoted(id));
    let logger = Box::new(Fifo { file: Mutex::new(file.into()), suffix });
    if log::set_boxed_logger(logger).is_ok() {
        log::set_max_level(if debug { LevelFilter::Debug } else { LevelFilter::Info });
        std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
    }
}

/// Logs to syslog from here on, where there is one. Source: RFC 3164, facility 3 (daemons).
pub fn init_syslog() {
    let Ok(socket) = UnixDatagram::unbound() else { return };
    // One that does not read loses lines; it must not stop a cleaning.
    let Ok(()) = socket.set_nonblocking(true) else { return };
    if socket.connect("/dev/log").is_ok() && log::set_boxed_logger(Box::new(Syslog(socket))).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

struct Syslog(UnixDatagram);

impl Log for Syslog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        let severity = match record.level() {
            Level::Error => 3,
            Level::Warn => 4,
            _ => 6,
        };
        let (priority, process) = (3 * 8 + severity, std::process::id());
        let message = quoted(&record.args().to_string());
        // A syslog that is gone loses it.
        let _ = self.0.send(format!("<{priority}>{}[{process}]: {message}", crate::PROGRAM).as_bytes());
    }

    fn flush(&self) {}
}

impl Log for Fifo {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = line(SystemTime::now(), record, &self.suffix);
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // One write a record. A full fifo loses it.
        let _ = file.write(line.as_bytes());
    }

    fn flush(&self) {}
}

fn line(now: SystemTime, record: &Record<'_>, suffix: &str) -> String {
    let level = record.level().as_str().to_ascii_lowercase();
    let time = rfc3339(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
    let message = quoted(&record.args().to_string());
    format!("time=\"{time}\" level={level} msg={message}{suffix}\n")
}

/// A logfmt value: quotes, backslashes and control characters escaped, so that a guest's text can't make lines of its own.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Seconds since 1970 as `2026-01-31T12:00:00Z`. Source of the calendar: the days-from-civil rule of the proleptic Gregorian calendar.
fn rfc3339(unix_seconds: u64) -> String {
    let (days, rest) = (unix_seconds / 86_400, unix_seconds % 86_400);
    // Days since 1 March of year 0, in eras of 400 years.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_798_761_599), "2026-12-31T23:59:59Z");
    }

    #[test]
    fn a_text_with_line_ends_stays_one_line() {
        let record = Record::builder().level(Level::Warn).args(format_args!("a\nlevel=\"x\"\u{7}")).build();
        assert_eq!(
            line(UNIX_EPOCH, &record, ""),
            "time=\"1970-01-01T00:00:00Z\" level=warn msg=\"a\\nlevel=\\\"x\\\"\\u0007\"\n"
        );
    }
}
