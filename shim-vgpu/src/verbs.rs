//! The program, on whichever platform.
//!
//! containerd calls it by verb: `start` answers with an address and leaves a server behind, `delete` cleans up after one that is gone.
//! stdout is the answer. stderr is silent on success, and one line for the user otherwise.

use std::{
    io::{Read, Write},
    process::ExitCode,
    sync::Arc,
};

use vgpu_codes::Code;

use crate::{
    PROGRAM,
    args::Args,
    bootstrap, delete,
    error::{Error, OrFail, Result},
    holder, info,
    platform::PlatformSource,
    server,
};

/// The whole program: does what the command line asks for, on the platform of `source`.
pub fn main_with(source: Arc<dyn PlatformSource>) -> ExitCode {
    let args = match Args::parse(std::env::args_os().skip(1)) {
        Ok(args) => args,
        Err(message) => {
            // Nothing can be done about a stderr that is closed.
            let _ = writeln!(std::io::stderr(), "{PROGRAM}: {message}");
            return ExitCode::FAILURE;
        }
    };
    match run(&args, source) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::report(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args, source: Arc<dyn PlatformSource>) -> Result<()> {
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
        "delete" => answer(&delete::delete(args, &*source)?),
        "clean" => delete::clean_up(&*source),
        "hold" => holder::hold(),
        "serve" | "" => server::run(args, &bootstrap::bundle()?, source),
        verb => Err(Error::new(Code::SpecInvalid, format!("the verb {verb} is not known: start, delete"))),
    }
}

fn answer(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    written.or_fail(Code::HostFailure, || "cannot write the answer".into())
}
