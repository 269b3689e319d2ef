//! containerd-shim-vgpu-v1: runs each pod in a Xen domain of its own.
//!
//! containerd calls it by verb: `start` answers with an address and leaves a server behind, `delete` cleans up after one that is gone.
//! stdout is the answer. stderr is silent on success, and one line for the user otherwise.
#![forbid(unsafe_code)]

use std::{
    io::{Read, Write},
    process::ExitCode,
};

use shim_vgpu::{Error, PROGRAM, Result, args::Args, bootstrap, delete, info, server};

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args_os().skip(1)) {
        Ok(args) => args,
        Err(message) => {
            // Nothing can be done about a stderr that is closed.
            let _ = writeln!(std::io::stderr(), "{PROGRAM}: {message}");
            return ExitCode::FAILURE;
        }
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            shim_vgpu::report(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    if args.version {
        return answer(format!("{PROGRAM} {}\n", env!("CARGO_PKG_VERSION")).as_bytes());
    }
    if args.info {
        // The runtime options are on stdin; reading them keeps containerd from a broken pipe.
        let _ = std::io::stdin().take(1 << 20).read_to_end(&mut Vec::new());
        return answer(&info::info()?);
    }
    match args.verb.as_str() {
        "start" => answer(&bootstrap::start(args, &bootstrap::bundle()?)?),
        "delete" => answer(&delete::delete(args)?),
        "clean" => delete::clean_up(),
        "serve" | "" => server::run(args, &bootstrap::bundle()?),
        verb => Err(Error::new(
            vgpu_codes::Code::SpecInvalid,
            format!("the verb {verb} is not known: start, delete"),
        )),
    }
}

fn answer(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    written.map_err(|error| Error::caused(vgpu_codes::Code::HostFailure, "cannot write the answer", error))
}
