//! The daemon that owns the GPU: `supervisor/` by default, `worker/` when the supervisor starts this program again.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use gpu_proxy::args::{self, Command};
use gpu_proxy::{serve, worker};

fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => {
            print!("{}", args::HELP);
            ExitCode::SUCCESS
        }
        Ok(Command::Version) => {
            println!("gpu-proxy {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Ok(Command::Worker) => worker::run(),
        Ok(Command::Serve(how)) => match serve::run(how) {
            Ok(()) => ExitCode::SUCCESS,
            Err(refusal) => {
                eprintln!("gpu-proxy: {refusal}");
                ExitCode::FAILURE
            }
        },
        Err(wrong) => {
            eprintln!("gpu-proxy: {wrong}");
            ExitCode::from(2)
        }
    }
}
