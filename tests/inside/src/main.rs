//! `inside`: what a process sees of its container, and what a container's program is asked to do. Its verbs: [`USAGE`].
#![forbid(unsafe_code)]

use std::{
    env,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use vgpu_inside::{
    errors, kernel,
    look::{Wanted, document},
    verbs,
};

const USAGE: &str =
    "inside look [pid=PID | path=PATH | sysctl=NAME | features]...   one JSON document of what is seen
inside kernel               what of the guest kernel's list there is, a line a feature
inside try FEATURE          one of them, in this process
inside serve PORT           answers connections with their address and what they send
inside dial ADDRESS:PORT    sends words there and shows what comes back
inside eat MIB              touches so much memory and keeps it until its input ends
inside fork-hold-stdout SECONDS   leaves a process that holds the output
inside sleep SECONDS
inside fifo DIRECTORY       words through a fifo and a socket made there
inside mmap-shared FILE     writes the file through a shared mapping
inside watch PATH...        what inotify tells of them, up to a second in which it tells nothing more";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match obey(&args) {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(error)) => {
            eprintln!("inside {}: {}", args.join(" "), errors::name(&error));
            ExitCode::FAILURE
        }
        None => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// None: what is asked is no verb, or its argument no such.
fn obey(args: &[&str]) -> Option<io::Result<()>> {
    Some(match args {
        ["look", wanted @ ..] => print(format!("{:#}\n", document(&wanted_of(wanted)?))),
        ["kernel"] => print(kernel::lines()),
        ["try", feature] => print(format!("{}\n", kernel::attempt(feature)?)),
        ["serve", port] => verbs::serve(port.parse().ok()?),
        ["dial", address] => verbs::dial(address.parse().ok()?),
        ["eat", mib] => verbs::eat(mib.parse().ok()?),
        ["fork-hold-stdout", seconds] => verbs::fork_hold_stdout(seconds.parse().ok()?),
        ["sleep", seconds] => {
            std::thread::sleep(Duration::from_secs(seconds.parse().ok()?));
            Ok(())
        }
        ["fifo", dir] => verbs::fifo(Path::new(dir)),
        ["mmap-shared", path] => verbs::mmap_shared(Path::new(path)),
        ["watch", paths @ ..] if !paths.is_empty() => verbs::watch(paths),
        _ => return None,
    })
}

fn wanted_of(args: &[&str]) -> Option<Wanted> {
    let mut wanted = Wanted::default();
    for arg in args {
        match arg.split_once('=') {
            Some(("pid", pid)) => wanted.pids.push(pid.parse().ok()?),
            Some(("path", path)) => wanted.paths.push(path.into()),
            Some(("sysctl", name)) => wanted.sysctls.push(name.into()),
            None if *arg == "features" => wanted.features = true,
            _ => return None,
        }
    }
    Some(wanted)
}

fn print(text: String) -> io::Result<()> {
    io::stdout().write_all(text.as_bytes())
}
