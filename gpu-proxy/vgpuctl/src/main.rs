//! Looks at a node: zones, grants, workers and what they use, as gpu-proxy tells it.
#![forbid(unsafe_code)]

mod show;

use std::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use vgpu_codes::with_causes;
use vgpu_config::Config;
use vgpu_zone_api::shim::Client;

const HELP: &str = "\
vgpuctl: looks at a node

  vgpuctl ps [--json]      zones, their grants, workers and GPU memory
  vgpuctl info [--json]    gpu-proxy, its device, what its sandbox lacks here, warnings

  --socket PATH            gpu-proxy's socket (default: proxy.socket of the configuration)
  --config FILE            the configuration (default: /etc/vgpu/config.toml)
";
/// A supervisor answers at once; one that does not in this time hangs.
const LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Ps,
    Info,
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Print(String),
    Ask { what: What, json: bool, socket: Option<PathBuf>, config: Option<PathBuf> },
}

fn main() -> ExitCode {
    let command = match parse(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(wrong) => {
            eprintln!("vgpuctl: {wrong}; see vgpuctl --help");
            return ExitCode::from(2);
        }
    };
    match run(command) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("vgpuctl: {}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let (mut asked, mut json, mut socket, mut config) = (None, false, None, None);
    while let Some(argument) = arguments.next() {
        let name = argument.to_string_lossy().into_owned();
        match name.as_str() {
            "ps" | "info" if asked.is_some() => return Err(format!("{name:?} is one question too many")),
            "ps" => asked = Some(What::Ps),
            "info" => asked = Some(What::Info),
            "--json" => json = true,
            "--socket" => socket = Some(arguments.next().ok_or("--socket wants a path")?.into()),
            "--config" => config = Some(arguments.next().ok_or("--config wants a file")?.into()),
            "--help" | "-h" => return Ok(Command::Print(HELP.into())),
            "--version" => return Ok(Command::Print(format!("vgpuctl {}\n", env!("CARGO_PKG_VERSION")))),
            _ => return Err(format!("unknown argument {name:?}")),
        }
    }
    let what = asked.ok_or("ps or info?")?;
    Ok(Command::Ask { what, json, socket, config })
}

fn run(command: Command) -> Result<String, Box<dyn Error>> {
    let (what, json, socket, config) = match command {
        Command::Print(text) => return Ok(text),
        Command::Ask { what, json, socket, config } => (what, json, socket, config),
    };
    let socket = match socket {
        Some(socket) => socket,
        None => Config::load(config.as_deref())?.proxy.socket,
    };
    let listing = Client::connect(socket, LIMIT).and_then(|mut client| client.list())?;
    Ok(match (what, json) {
        (What::Ps, true) => serde_json::to_string_pretty(&listing.zones)? + "\n",
        (What::Info, true) => serde_json::to_string_pretty(&listing.node)? + "\n",
        (What::Ps, false) => show::zones(&listing.zones, &listing.node.device),
        (What::Info, false) => show::node(&listing.node, listing.zones.len()),
    })
}
