//! Looks at a node: zones, grants, workers and what they use, as gpu-proxy tells it.
#![forbid(unsafe_code)]

mod show;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use vgpu_config::Config;
use vgpu_zone_api::shim::Client;

const HELP: &str = "\
vgpuctl: looks at a node

  vgpuctl ps [--json]      zones, their grants, workers and GPU memory
  vgpuctl info [--json]    gpu-proxy, its device, what its sandbox lacks here

  --socket PATH            gpu-proxy's socket (default: proxy.socket of the configuration)
  --config FILE            the configuration (default: /etc/vgpu/config.toml)
";
/// A supervisor answers at once; one that does not in this time hangs.
const LIMIT: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Ps,
    Info,
}

fn main() -> ExitCode {
    match run() {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("vgpuctl: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<String, Box<dyn std::error::Error>> {
    let (mut what, mut json, mut socket, mut config) = (None, false, None::<PathBuf>, None::<PathBuf>);
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        let name = argument.to_string_lossy().into_owned();
        match name.as_str() {
            "ps" => what = Some(What::Ps),
            "info" => what = Some(What::Info),
            "--json" => json = true,
            "--socket" => socket = Some(arguments.next().ok_or("--socket wants a path")?.into()),
            "--config" => config = Some(arguments.next().ok_or("--config wants a file")?.into()),
            "--help" | "-h" => return Ok(HELP.into()),
            "--version" => return Ok(format!("vgpuctl {}\n", env!("CARGO_PKG_VERSION"))),
            _ => return Err(format!("unknown argument {name:?}; see vgpuctl --help").into()),
        }
    }
    let Some(what) = what else { return Ok(HELP.into()) };
    let socket = match socket {
        Some(socket) => socket,
        None => Config::load(config.as_deref())?.proxy.socket,
    };
    let listing = Client::connect(socket, LIMIT).and_then(|mut client| client.list())?;
    Ok(match (what, json) {
        (What::Ps, true) => serde_json::to_string_pretty(&listing.zones)? + "\n",
        (What::Info, true) => serde_json::to_string_pretty(&listing.node)? + "\n",
        (What::Ps, false) => show::zones(&listing.zones),
        (What::Info, false) => show::node(&listing.node, listing.zones.len()),
    })
}
