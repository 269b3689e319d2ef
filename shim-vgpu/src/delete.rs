//! `delete`: containerd's clean-up for a shim that is gone, from disk alone and within 5 s (shim.md 3.9).
//!
//! It also runs after each ordinary Delete, then with nothing to do, and for a container of a pod that lives on: only what belongs to its
//! id is touched. The domain ends with the sandbox's id, or with the last container of a pod whose shim is gone.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use containerd_shim_protos::api::DeleteResponse;
use protobuf::Message;
use rustix::{
    io::Errno,
    net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};
use vgpu_codes::Code;
use vgpu_config::Config;

use crate::{
    args::Args,
    cleanup,
    container::{stage::Exit, timestamp},
    error::{OrFail, Result},
    mount, names,
    persist::{Record, Store},
    platform::Platform,
    spec::{Role, Spec},
    zone,
};

/// For the other containers' `delete` to be over: containerd gives this one 5 s.
const LOCK_LIMIT: Duration = Duration::from_secs(4);

/// Cleans up after `args.id`, and returns the bytes of the answer.
///
/// # Errors
/// What could not be taken away; another `delete` may try again.
pub fn delete(args: &Args) -> Result<Vec<u8>> {
    let bundle =
        if args.bundle.is_empty() { crate::bootstrap::bundle()? } else { PathBuf::from(&args.bundle) };
    names::check_id("container id", &args.id)?;
    names::check_id("namespace", &args.namespace)?;
    let role = Spec::load(&bundle).and_then(|spec| spec.role()).unwrap_or(Role::Alone);
    let sandbox = role.sandbox().unwrap_or(&args.id);
    let store = match Store::pointed_from(&bundle) {
        Some(store) => store,
        None => Store::at(config().shim.state_dir.join(names::folder(&args.namespace, sandbox))),
    };
    let cleaned = clean(&store, &args.id);
    // Whatever the record says: the contract asks for this one by name.
    let rootfs = mount::take_away(&bundle.join("rootfs"));
    remove_stale_socket(&bundle);
    cleaned.and(rootfs)?;
    let answer = DeleteResponse {
        exit_status: Exit::KILLED,
        exited_at: timestamp(SystemTime::now()),
        ..DeleteResponse::default()
    };
    answer.write_to_bytes().or_fail(Code::HostFailure, || "cannot write the answer".into())
}

fn clean(store: &Store, id: &str) -> Result<()> {
    // containerd calls this for all containers of a pod at once.
    let Some(lock) = store.lock(LOCK_LIMIT)? else { return Ok(()) };
    let Some(mut record) = store.load()? else { return Ok(()) };
    let shim_lives = record.shim.is_some_and(|shim| shim.is_alive());
    // The record's word, not the bundle's: its spec may be damaged, and the pod of others would end.
    if record.sandbox != id {
        let last = record.containers.keys().all(|other| other == id);
        if last && !shim_lives {
            // The sandbox's own `delete` may have been before, when the shim lived: nobody comes after this one.
            return end_sandbox(store, &record);
        }
        let had = record.clone();
        let cleaned = cleanup::container(store, &mut record, id);
        drop(lock);
        zone::revoke(&had, id, cleanup::PROXY_LIMIT);
        return cleaned;
    }
    // After an ordinary Delete of the sandbox's own container, while the others of the pod go on.
    let deleted = !record.containers.is_empty() && !record.containers.contains_key(id);
    if deleted && shim_lives {
        return Ok(());
    }
    // containerd calls this when it can't reach the shim: one that still lives would go on building.
    if let Some(shim) = record.shim {
        shim.kill().or_fail(Code::HostFailure, || format!("cannot end the shim {}", shim.pid))?;
    }
    // What it wrote last.
    store.load()?.map_or(Ok(()), |record| end_sandbox(store, &record))
}

fn end_sandbox(store: &Store, record: &Record) -> Result<()> {
    cleanup::sandbox(&Platform::xen(config())?, store, record)
}

/// The node's configuration, or the default one: an invalid file must not keep anything from being cleaned up.
fn config() -> Config {
    Config::load(None).unwrap_or_default()
}

/// The socket of a shim that was killed. Asked without waiting: a shim that hangs takes nobody in, but is there.
fn remove_stale_socket(bundle: &Path) {
    let Ok(address) = std::fs::read_to_string(bundle.join("address")) else { return };
    let path = Path::new(address.trim().trim_start_matches("unix://"));
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let connected = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .and_then(|socket| net::connect(&socket, &SocketAddrUnix::new(path)?));
    if connected == Err(Errno::CONNREFUSED) {
        let _ = std::fs::remove_file(path);
    }
}
