//! `share-server`: one guest's share, from its kernel's 9pfs front end to the files of one directory.
//!
//! Started by the shim for a domain that does not run yet. Says `ready` and a newline on its standard output when the guest may start, errors
//! on its standard error. It ends when it is killed, or by what the guest must not do.
#![forbid(unsafe_code)]

use std::error::Error;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use idm::flex::FlexRings;
use idm::xen::DomId;
use idm::xen::flex::{FlexBackend, FlexDevice};
use idm::xen::xenstore::Client;
use vgpu_share::walls::Walls;
use vgpu_share::{Limits, Session, serve};

/// Of the share's rings: 2 MiB of the guest's memory, and messages of 512 KiB, the most that Linux makes.
const RING_ORDER: u32 = 9;
/// A guest whose kernel has not found its share by then has none. The shim has given up much earlier, and killed us.
const OFFER_LIMIT: Duration = Duration::from_secs(600);
const USAGE: &str = "usage: share-server NAME DOMAIN DIRECTORY
    NAME       nothing to us: whoever started us finds us by it
    DOMAIN     the id of the guest, which has the device 9pfs 0; or -: the guest is whoever is at the other end of standard input, a socket
    DIRECTORY  what it gets";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut below = error.source();
            while let Some(cause) = below {
                text += &format!(": {cause}");
                below = cause.source();
            }
            // Whoever started us may be gone.
            let _ = writeln!(std::io::stderr(), "{text}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let (guest, directory) = arguments(std::env::args_os().skip(1)).ok_or(USAGE)?;
    let limits = Limits::default();
    let walls = Walls::begin(&directory, &limits).map_err(|error| {
        format!("cannot leave the node's namespaces with {}: {error}", directory.display())
    })?;
    match guest {
        Guest::Domain(guest) => {
            let rings = kept(offered(guest)?);
            behind(walls, limits, &mut rings.clone(), &mut rings.clone())
        }
        Guest::Socket => {
            let mut from = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
            let mut to = from.try_clone()?;
            writeln!(std::io::stdout(), "ready")?;
            behind(walls, limits, &mut from, &mut to)
        }
    }
}

/// The rings of a guest's device, when its kernel has offered them.
fn offered(guest: DomId) -> Result<FlexRings, Box<dyn Error>> {
    let xenstore = Client::connect()?;
    let device = FlexDevice { kind: "9pfs", guest, number: 0, backend: DomId::DOM0 };
    let backend = FlexBackend::prepare(&xenstore, device, RING_ORDER)?;
    writeln!(std::io::stdout(), "ready")?;
    Ok(backend.accept(OFFER_LIMIT, None)?)
}

/// Rings that only the process's end takes down. Behind the walls there is no call for it: whoever dropped them there would not come to say
/// why the session ended.
fn kept(rings: FlexRings) -> FlexRings {
    std::mem::forget(rings.clone());
    rings
}

fn behind(
    walls: Walls,
    limits: Limits,
    from: &mut impl Read,
    to: &mut impl Write,
) -> Result<(), Box<dyn Error>> {
    let root = walls.close().map_err(|error| format!("cannot close the walls: {error}"))?;
    Ok(serve(&Session::new(root, limits)?, from, to)?)
}

/// Who is served.
#[derive(Debug, PartialEq)]
enum Guest {
    Domain(DomId),
    /// On standard input.
    Socket,
}

fn arguments(mut given: impl Iterator<Item = OsString>) -> Option<(Guest, PathBuf)> {
    let [_name, guest, directory] = [given.next()?, given.next()?, given.next()?];
    let guest = match guest.to_str()? {
        "-" => Guest::Socket,
        domain => Guest::Domain(domain.parse().ok().and_then(DomId::new)?),
    };
    given.next().is_none().then(|| (guest, directory.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_rings_are_mapped_to_the_end() {
        let mapped =
            || std::fs::read_to_string("/proc/self/maps").unwrap().matches("/memfd:vgpu-flex").count();
        let (back, front) = FlexRings::pair(1).unwrap();
        let before = mapped();
        assert!(before >= 2);
        drop(front);
        assert_eq!(mapped(), before - 1);
        drop(kept(back));
        assert_eq!(mapped(), before - 1);
    }

    #[test]
    fn arguments_are_three() {
        let given = |words: &[&str]| arguments(words.iter().map(OsString::from));
        let guest = Guest::Domain(DomId::new(5).unwrap());
        assert_eq!(given(&["n", "5", "/x"]), Some((guest, PathBuf::from("/x"))));
        assert_eq!(given(&["n", "-", "/x"]), Some((Guest::Socket, PathBuf::from("/x"))));
        for wrong in
            [&["n", "5"][..], &["n", "5", "/x", "more"], &["n", "guest", "/x"], &["n", "32752", "/x"], &[]]
        {
            assert_eq!(given(wrong), None, "{wrong:?}");
        }
    }
}
