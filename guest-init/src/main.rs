//! PID 1 of the guest, and its own helper ([`oci::serve`]).
#![forbid(unsafe_code)]

use std::{error::Error, process::ExitCode};

use guest_init::{
    boot::{self, console::say, power},
    oci,
};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let args: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    if let Some(code) = oci::serve(&args) {
        return code.into();
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
