//! `delete`: containerd's clean-up for a shim that is gone, from disk alone and within 5 s (shim.md 3.9).
//!
//! It also runs after each ordinary Delete, then with nothing to do, and for a container of a pod that lives on: only what belongs to its
//! id is touched, and only the sandbox's id ends the domain.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use containerd_shim_protos::api::DeleteResponse;
use protobuf::Message;
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
};

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
    let cleaned = match store.load() {
        Ok(Some(record)) => clean(&store, record, args, &role),
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    // Whatever the record says: the contract asks for this one by name.
    let rootfs = mount::take_away(&bundle.join("rootfs"));
    remove_stale_socket(&bundle, &role);
    cleaned.and(rootfs)?;
    let answer = DeleteResponse {
        exit_status: Exit::KILLED,
        exited_at: timestamp(SystemTime::now()),
        ..DeleteResponse::default()
    };
    answer.write_to_bytes().or_fail(Code::HostFailure, || "cannot write the answer".into())
}

fn clean(store: &Store, mut record: Record, args: &Args, role: &Role) -> Result<()> {
    if let Role::Container { .. } = role {
        return cleanup::container(store, &mut record, &args.id);
    }
    // After an ordinary Delete of the sandbox's own container, while the others of the pod go on.
    let deleted = !record.containers.is_empty() && !record.containers.contains_key(&args.id);
    if deleted && record.shim.is_some_and(|shim| shim.is_alive()) {
        return Ok(());
    }
    // containerd calls this when it can't reach the shim: one that still lives would go on building.
    if let Some(shim) = record.shim {
        shim.kill().or_fail(Code::HostFailure, || format!("cannot end the shim {}", shim.pid))?;
    }
    let platform = Platform::xen(config())?;
    cleanup::sandbox(&platform, store, &record)
}

/// The node's configuration, or the default one: an invalid file must not keep anything from being cleaned up.
fn config() -> Config {
    Config::load(None).unwrap_or_default()
}

/// The socket of a shim that was killed.
fn remove_stale_socket(bundle: &Path, role: &Role) {
    let Ok(address) = std::fs::read_to_string(bundle.join("address")) else { return };
    let path = Path::new(address.trim().trim_start_matches("unix://"));
    if role.sandbox().is_none() && std::os::unix::net::UnixStream::connect(path).is_err() {
        let _ = std::fs::remove_file(path);
    }
}
