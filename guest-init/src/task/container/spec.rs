//! A container's spec on its way from the share to the library.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use libcontainer::oci_spec::runtime::{LinuxIdMapping, LinuxSeccomp, Spec};

use crate::{
    error::{During, GuestError, Result},
    oci::{
        adapt::{self, Adapted},
        process, workdir,
    },
};

/// What else is to be known of a spec that was written.
pub struct Written {
    /// Of its user namespace; empty without one.
    pub uid_mappings: Vec<LinuxIdMapping>,
    /// The user of the guest that init's user is.
    pub owner: u32,
    /// The file of its seccomp profile.
    pub seccomp: Option<PathBuf>,
}

/// As it is in the share. Blocks.
/// # Errors
/// It cannot be read, or is none.
pub fn read(file: &Path) -> Result<Spec> {
    let bytes = fs::read(file).during(|| format!("read {}", file.display()))?;
    let spec = serde_json::from_slice(&bytes).and_then(|mut spec: serde_json::Value| {
        spec.get_mut("process").into_iter().for_each(process::forget_unknown);
        serde_json::from_value(spec)
    });
    spec.map_err(|error| GuestError::Invalid { field: "config.json", why: error.to_string() })
}

/// Leaves it in the container's directory, for the library. `program` is this one.
/// # Errors
/// A file of it that cannot be written.
pub fn write(adapted: Adapted, program: &Path, directory: &Path, terminal: bool) -> Result<Written> {
    let seccomp = adapted.seccomp.map(|profile| save_seccomp(directory, &profile)).transpose()?;
    let mut spec = adapted.spec;
    workdir::add_hook(&mut spec, program, directory)?;
    if let Some(process) = spec.process_mut() {
        process.set_terminal(Some(terminal));
    }
    let uid_mappings = adapt::uid_mappings(&spec);
    let owner = adapt::owner(spec.process().as_ref(), &uid_mappings);
    let config = directory.join("config.json");
    spec.save(&config)
        .map_err(|error| GuestError::Oci { operation: "write the spec", text: error.to_string() })?;
    Ok(Written { uid_mappings, owner, seccomp })
}

fn save_seccomp(directory: &Path, profile: &LinuxSeccomp) -> Result<PathBuf> {
    let file = directory.join("seccomp.json");
    let json = serde_json::to_vec(profile).map_err(io::Error::from);
    json.and_then(|json| fs::write(&file, json)).during(|| format!("write {}", file.display()))?;
    Ok(file)
}
