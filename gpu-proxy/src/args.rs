//! The command line of gpu-proxy.

use std::ffi::OsString;
use std::path::PathBuf;

use vgpu_config::{DEVICES_MAX, DeviceKind, MIB_MAX};

/// What `--help` says.
pub const HELP: &str = "\
gpu-proxy: serves the GPU to guests

  gpu-proxy [--config FILE] [--device KIND] [--socket PATH]
      The daemon: zones are registered by the shim at PATH (proxy.socket), guests connect over Xen.

  gpu-proxy --local SOCKET [--share N] ... [--device KIND] [--devices N] [--memory-mib N] [--socket PATH]
            [--config FILE]
      A zone on this machine for each --local, without Xen: each process that connects to SOCKET gets a worker with N
      devices (1), each with so much memory; of soft and null there are N then. Zones with work share the GPU's time: the
      one of the --local before it has N thousandths, others what is left over. With --socket also the door that vgpuctl
      looks through.

  KIND: auto, cuda, soft or null. auto is cuda where NVIDIA's driver is, else soft.
  VGPU_LOG: error, warn, info (default), debug or trace.
";

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Print the help.
    Help,
    /// Print the version.
    Version,
    /// Be a worker. Only the supervisor asks for it.
    Worker,
    /// Be the supervisor.
    Serve(Serve),
}

/// How to be the supervisor.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Serve {
    /// Another configuration file.
    pub config: Option<PathBuf>,
    /// Another device than the configured one.
    pub device: Option<DeviceKind>,
    /// Another socket than the configured one.
    pub socket: Option<PathBuf>,
    /// The local zones; without any: Xen.
    pub local: Vec<LocalZone>,
    /// Each local zone's grant of each device in MiB.
    pub memory_mib: Option<u64>,
    /// Each local zone's devices.
    pub devices: Option<u32>,
}

/// A zone of this machine.
#[derive(Debug, PartialEq, Eq)]
pub struct LocalZone {
    /// Where its processes connect.
    pub socket: PathBuf,
    /// Its thousandths of the device's time.
    pub share: Option<u32>,
}

/// Reads the arguments, without the program's name.
///
/// # Errors
/// One sentence.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut serve = Serve::default();
    let mut arguments = arguments.into_iter();
    let mut first = true;
    while let Some(argument) = arguments.next() {
        let name = argument.to_string_lossy().into_owned();
        let mut value = || arguments.next().ok_or_else(|| format!("{name} wants a value"));
        match name.as_str() {
            "--help" | "-h" => return Ok(Command::Help),
            "--version" => return Ok(Command::Version),
            "worker" if first => return Ok(Command::Worker),
            "--config" => serve.config = Some(value()?.into()),
            "--socket" => serve.socket = Some(value()?.into()),
            "--local" => serve.local.push(LocalZone { socket: value()?.into(), share: None }),
            "--share" => {
                let share = value()?.to_str().and_then(|text| text.parse().ok());
                let zone = serve.local.last_mut().ok_or("--share belongs to the --local before it")?;
                zone.share = Some(share.ok_or("--share wants a number of thousandths, 1 to 1000")?);
            }
            "--device" => serve.device = Some(device(&value()?.to_string_lossy())?),
            "--memory-mib" => {
                let text = value()?;
                let number = text.to_str().and_then(|text| text.parse().ok());
                let number = number.filter(|mib| (1..=MIB_MAX).contains(mib));
                let wrong = || format!("--memory-mib wants a number of MiB, 1 to {MIB_MAX}");
                serve.memory_mib = Some(number.ok_or_else(wrong)?);
            }
            "--devices" => {
                let text = value()?;
                let number = text.to_str().and_then(|text| text.parse().ok());
                let number = number.filter(|devices| (1..=DEVICES_MAX).contains(&u64::from(*devices)));
                let wrong = || format!("--devices wants a number, 1 to {DEVICES_MAX}");
                serve.devices = Some(number.ok_or_else(wrong)?);
            }
            _ => return Err(format!("unknown argument {name:?}; see gpu-proxy --help")),
        }
        first = false;
    }
    if serve.memory_mib.is_some() && serve.local.is_empty() {
        return Err("--memory-mib belongs to --local; a zone over Xen is granted memory by its shim".into());
    }
    if serve.devices.is_some() && serve.local.is_empty() {
        return Err(
            "--devices belongs to --local; see proxy.soft_devices for the software GPUs of a node".into()
        );
    }
    Ok(Command::Serve(serve))
}

fn device(name: &str) -> Result<DeviceKind, String> {
    match name {
        "auto" => Ok(DeviceKind::Auto),
        "cuda" => Ok(DeviceKind::Cuda),
        "soft" => Ok(DeviceKind::Soft),
        "null" => Ok(DeviceKind::Null),
        other => Err(format!("unknown device {other:?}: it is auto, cuda, soft or null (VGPU-402)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_daemon_needs_nothing_and_the_local_one_a_socket() {
        assert_eq!(read(""), Ok(Command::Serve(Serve::default())));
        let local = Serve {
            local: vec![LocalZone { socket: "/tmp/s".into(), share: None }],
            device: Some(DeviceKind::Null),
            memory_mib: Some(64),
            devices: Some(2),
            ..Serve::default()
        };
        assert_eq!(
            read("--local /tmp/s --device null --memory-mib 64 --devices 2"),
            Ok(Command::Serve(local))
        );
        assert_eq!(read("worker"), Ok(Command::Worker));
    }

    #[test]
    fn each_local_zone_has_a_share_of_its_own_or_none() {
        let Ok(Command::Serve(serve)) = read("--local a --share 250 --local b --local c --share 1") else {
            panic!("it is refused")
        };
        let shares: Vec<_> =
            serve.local.iter().map(|zone| (zone.socket.to_str().unwrap(), zone.share)).collect();
        assert_eq!(shares, [("a", Some(250)), ("b", None), ("c", Some(1))]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, part) in [
            ("--device gtx", "gtx"),
            ("--local", "--local wants"),
            ("--memory-mib 0 --local x", "1 to 16777216"),
            ("--memory-mib 17592186044417 --local x", "1 to 16777216"),
            ("--memory-mib 5", "--local"),
            ("--devices 0 --local x", "1 to 16"),
            ("--devices 17 --local x", "1 to 16"),
            ("--devices 2", "--local"),
            ("--share 5 --local x", "--local before"),
            ("--local x --share all", "1 to 1000"),
            ("--sokcet x", "--sokcet"),
        ] {
            assert!(read(line).unwrap_err().contains(part), "{line}: {:?}", read(line));
        }
    }
}
