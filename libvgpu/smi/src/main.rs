//! `nvidia-smi` of images that have none: asks the container's door what its devices are, and shows it with the face that people and
//! scripts know. `args.rs` reads the command line, `show/` writes; this file asks.
//!
//! The rule: a value that is not known is `N/A`, a setting is refused by name, nothing but the answer is printed.
#![forbid(unsafe_code)]

mod args;
mod clock;
mod show;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use idm::ChannelError;
use idm::hello::Hello;
use idm::record::RECORD_LIMIT_MAX;
use vgpu_codes::Code;
use vgpu_zone_api::guest::facts::{self, Facts};

use args::{Request, Wrong};
use show::Seen;

/// Where the socket is when `VGPU_SOCKET` doesn't say.
const SOCKET: &str = "/run/vgpu/gpu.sock";
const LIMIT: Duration = Duration::from_secs(30);
/// Exit codes. Source: nvidia-smi(1), "Return value".
const NO_DRIVER: u8 = 9;
const INTERNAL: u8 = 255;

fn main() -> ExitCode {
    match answer() {
        Ok(text) => {
            // Whoever reads may have seen enough.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(Wrong { code, text }) => {
            // As the original has it: errors are for those who read the answer.
            let _ = writeln!(std::io::stdout(), "{text}");
            ExitCode::from(code)
        }
    }
}

fn answer() -> Result<String, Wrong> {
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let request = args::parse(&words)?;
    if let Request::Say(text) = request {
        return Ok(text.to_owned());
    }
    let facts = ask()?;
    let seen = Seen { facts: &facts, now: SystemTime::now(), name_of: &process_name };
    show::show(&seen, &request)
}

/// The first word of a process's command line.
fn process_name(pid: u32) -> Option<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let word = line.split(|byte| *byte == 0).next()?;
    (!word.is_empty()).then(|| String::from_utf8_lossy(word).into_owned())
}

fn ask() -> Result<Facts, Wrong> {
    let path = PathBuf::from(std::env::var_os("VGPU_SOCKET").unwrap_or_else(|| SOCKET.into()));
    let hello = Hello::new(RECORD_LIMIT_MAX, facts::APPLICATION);
    let (bytes, _) = idm::connect::ask(&path, &hello, facts::BYTES_MAX, LIMIT).map_err(|error| {
        let why = match error {
            ChannelError::Refused { code, .. } => Code::from_number(code)
                .map_or(format!("refused with {code}"), |code| {
                    format!("{}. {} ({code})", code.title(), code.remedy())
                }),
            other => vgpu_codes::with_causes(&other),
        };
        let text = format!("nvidia-smi: no answer about the GPU by {}: {why}", path.display());
        Wrong { code: NO_DRIVER, text }
    })?;
    Facts::decode(&bytes).map_err(|error| Wrong { code: INTERNAL, text: format!("nvidia-smi: {error}") })
}
