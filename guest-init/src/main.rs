//! PID 1 of the guest, and its own helper: `guest-init oci REQUEST ANSWER_FILE`.
#![forbid(unsafe_code)]

use std::{error::Error, path::Path, process::ExitCode};

use guest_init::boot::{self, console::say, power};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let [_, "oci", request, answer] = args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        return guest_init::oci::helper::main(request, Path::new(answer)).into();
    }
    if !rustix::process::getpid().is_init() {
        eprintln!("guest-init is PID 1 of a vgpu guest; there is nothing to run here");
        return ExitCode::from(2);
    }
    let error = boot::run();
    say(format_args!("cannot go on: {error}"));
    let mut cause = error.source();
    while let Some(next) = cause {
        say(format_args!("  because: {next}"));
        cause = next.source();
    }
    power::off()
}
