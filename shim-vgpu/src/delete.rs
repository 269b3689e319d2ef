//! `delete`: containerd's clean-up for a shim that is gone, from disk alone and within 5 s (shim.md 3.9).
//!
//! containerd kills a `delete` that takes longer and never asks again. So the cleaning is a process of its own, the verb `clean`, which
//! nobody kills: on a node that is short of time it goes on after the answer.
//!
//! It also runs after each ordinary Delete, then with nothing to do, and for a container of a pod that lives on: only what belongs to its
//! id is touched. The domain ends with the sandbox's id, or with the last container of a pod whose shim is gone.

use std::{
    io::{Read, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use containerd_shim_protos::api::DeleteResponse;
use protobuf::Message;
use rustix::{
    io::Errno,
    net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};
use serde::{Deserialize, Serialize};
use vgpu_codes::Code;
use vgpu_config::Config;

use crate::{
    args::Args,
    cleanup,
    container::{stage::Exit, timestamp},
    error::{Error, OrFail, Result},
    mount, names,
    persist::{Record, Store},
    platform::Platform,
    process,
    spec::{Role, Spec},
    zone,
};

/// For the other containers' cleaning to be over: as long as the toolstack may take for one of them.
const LOCK_LIMIT: Duration = Duration::from_secs(120);
/// Of containerd's 5 s, with time left to start and to be heard.
const ANSWER_LIMIT: Duration = Duration::from_millis(3500);

/// What the bundle tells of a container, on the cleaning process's stdin: containerd removes the bundle as soon as it has the answer.
#[derive(Debug, Serialize, Deserialize)]
struct Dead {
    id: String,
    /// Where the pod's record is.
    store: Store,
    rootfs: PathBuf,
    /// Of the pod's shim.
    socket: Option<PathBuf>,
}

impl Dead {
    fn read(args: &Args) -> Result<Dead> {
        let bundle =
            if args.bundle.is_empty() { crate::bootstrap::bundle()? } else { PathBuf::from(&args.bundle) };
        names::check_id("container id", &args.id)?;
        names::check_id("namespace", &args.namespace)?;
        let store = Store::pointed_from(&bundle).unwrap_or_else(|| {
            let role = Spec::load(&bundle).and_then(|spec| spec.role()).unwrap_or(Role::Alone);
            let sandbox = names::folder(&args.namespace, role.sandbox().unwrap_or(&args.id));
            Store::at(config().shim.state_dir.join(sandbox))
        });
        let address = std::fs::read_to_string(bundle.join("address"));
        let socket = address.ok().map(|address| address.trim().trim_start_matches("unix://").into());
        Ok(Dead { id: args.id.clone(), store, rootfs: bundle.join("rootfs"), socket })
    }
}

/// Has `args.id` cleaned up after, and returns the bytes of the answer.
///
/// # Errors
/// What could not be taken away, if that is known in time; another `delete` may try again.
pub fn delete(args: &Args) -> Result<Vec<u8>> {
    let dead = Dead::read(args)?;
    let what = || format!("cannot clean up after {}", dead.id);
    let told = serde_json::to_vec(&dead).or_fail(Code::HostFailure, what)?;
    let program = std::env::current_exe().or_fail(Code::HostFailure, what)?;
    let mut cleaner = Command::new(program)
        .arg("clean")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        // Its own pipe: containerd reads ours until nobody holds it.
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .or_fail(Code::HostFailure, what)?;
    // Less than a pipe holds: this waits for nobody.
    cleaner
        .stdin
        .take()
        .map_or(Ok(()), |mut stdin| stdin.write_all(&told))
        .or_fail(Code::HostFailure, what)?;
    if process::ends_within(&cleaner, ANSWER_LIMIT).or_fail(Code::HostFailure, what)? {
        let mut said = String::new();
        // What it said before an error is still worth telling.
        let _ = cleaner.stderr.take().map(|mut stderr| stderr.read_to_string(&mut said));
        if !cleaner.wait().or_fail(Code::HostFailure, what)?.success() {
            return Err(Error::relayed(&said).unwrap_or_else(|| Error::new(Code::HostFailure, what())));
        }
    }
    let answer = DeleteResponse {
        exit_status: Exit::KILLED,
        exited_at: timestamp(SystemTime::now()),
        ..DeleteResponse::default()
    };
    answer.write_to_bytes().or_fail(Code::HostFailure, || "cannot write the answer".into())
}

/// Cleans up after the container that `delete` names on stdin.
///
/// # Errors
/// What could not be taken away; another `delete` may try again.
pub fn clean_up() -> Result<()> {
    let dead: Dead = serde_json::from_reader(std::io::stdin())
        .or_fail(Code::HostFailure, || "this verb is for delete's own use".into())?;
    let cleaned = clean(&dead.store, &dead.id);
    // Whatever the record says: the contract asks for this one by name.
    let rootfs = mount::take_away(&dead.rootfs);
    if let Some(socket) = &dead.socket {
        remove_stale_socket(socket);
    }
    cleaned.and(rootfs)
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
fn remove_stale_socket(path: &Path) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let connected = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .and_then(|socket| net::connect(&socket, &SocketAddrUnix::new(path)?));
    if connected == Err(Errno::CONNREFUSED) {
        let _ = std::fs::remove_file(path);
    }
}
