//! `start`: finds or starts the shim of the pod and tells containerd its address.
//!
//! Start at [`start`]. Nothing may reach stderr on success: containerd reads stdout and stderr as one reply.
//! The socket is bound here and handed to the server as its stdin, so it can be connected to when `start` returns.
//! Do nothing here that Create does not do as well: with task API v3 a pod's later containers have no `start`.

mod address;
mod process;
mod reply;

use std::{
    io::{self, Read},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
};

use vgpu_codes::Code;

pub use address::Address;
pub use reply::Asked;

use crate::{
    args::Args,
    error::{Error, OrFail, Result},
    names,
    spec::Role,
};

/// What containerd may pipe to `start`: its own limit.
const STDIN_BYTES_MAX: u64 = 10 << 20;

/// Does `start` in the bundle, and returns the bytes of the reply.
///
/// # Errors
/// Whatever kept the server from starting; nothing is left behind then.
pub fn start(args: &Args, bundle: &Path) -> Result<Vec<u8>> {
    names::check_id("container id", &args.id)?;
    names::check_id("namespace", &args.namespace)?;
    let asked = Asked::read(&read_stdin()?, args)?;
    let role = Role::of(bundle)?;
    let sandbox = role.sandbox().unwrap_or(&args.id);
    let address = Address::new(asked.socket_dir(), &asked.containerd, &args.namespace, sandbox);
    match role {
        Role::Container { .. } => expect_living(&address, sandbox)?,
        Role::Sandbox | Role::Alone => serve(&address, args, &asked)?,
    }
    // containerd 1.6 and 1.7 find a shim again after a restart only by this file, for each container.
    std::fs::write(bundle.join("address"), address.to_string())
        .or_fail(Code::HostFailure, || format!("cannot write {}/address", bundle.display()))?;
    Ok(asked.reply(&address))
}

fn read_stdin() -> Result<Vec<u8>> {
    let mut input = Vec::new();
    io::stdin()
        .take(STDIN_BYTES_MAX)
        .read_to_end(&mut input)
        .or_fail(Code::HostFailure, || "cannot read what containerd pipes to start".into())?;
    Ok(input)
}

/// An application container has no shim of its own.
fn expect_living(address: &Address, sandbox: &str) -> Result<()> {
    UnixStream::connect(address.path()).map(drop).map_err(|error| {
        Error::caused(
            Code::WrongState,
            format!("the shim of sandbox {sandbox} does not answer at {address}"),
            error,
        )
    })
}

/// Binds the socket and starts the server with it, unless one serves it already.
fn serve(address: &Address, args: &Args, asked: &Asked) -> Result<()> {
    let Some(listener) = bind(address)? else { return Ok(()) };
    process::spawn(listener, args, asked).inspect_err(|_| {
        // The socket is ours and nobody serves it.
        let _ = std::fs::remove_file(address.path());
    })
}

/// The bound socket, or none if a living shim answers there.
fn bind(address: &Address) -> Result<Option<UnixListener>> {
    address.make_folder()?;
    for _ in 0..2 {
        match UnixListener::bind(address.path()) {
            Ok(listener) => {
                address.close_to_others()?;
                return Ok(Some(listener));
            }
            Err(taken) if taken.kind() == io::ErrorKind::AddrInUse => {
                if UnixStream::connect(address.path()).is_ok() {
                    return Ok(None);
                }
                // A dead shim's.
                std::fs::remove_file(address.path())
                    .or_fail(Code::HostFailure, || format!("cannot remove the stale socket {address}"))?;
            }
            Err(error) => return Err(error).or_fail(Code::HostFailure, || format!("cannot bind {address}")),
        }
    }
    Err(Error::new(Code::HostFailure, format!("another process keeps binding {address}")))
}

/// The socket that `start` wrote down in a bundle.
pub fn socket_of(bundle: &Path) -> Option<PathBuf> {
    let address = std::fs::read_to_string(bundle.join("address")).ok()?;
    Some(address.trim().trim_start_matches("unix://").into())
}

/// The bundle: containerd runs us in it.
///
/// # Errors
/// [`Code::HostFailure`] if the working directory is gone.
pub fn bundle() -> Result<PathBuf> {
    std::env::current_dir().or_fail(Code::HostFailure, || "the bundle, our working directory, is gone".into())
}
