//! What a worker takes from itself. Two steps: [`strip`] before anything of the guest is touched, [`close_door`] when the pages are
//! mapped and the device is open. Its user, namespaces and cgroup came with its birth (`supervisor/spawn/`).
//!
//! Each measure that this machine does not allow is a gap: one sentence, which the supervisor says loudly and `vgpuctl info` shows.
//! A measure is never dropped in silence, and seccomp is never dropped at all.

mod landlock;
pub(crate) mod root;
pub mod seccomp;

use std::io;
use std::os::fd::RawFd;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::device::DeviceKind;

/// Descriptors that a worker may have: its channel, its grant, what the driver opens.
const DESCRIPTORS_MAX: u64 = 1024;

/// A directory that every system has and NVIDIA's driver looks for nothing in. Its workers have another one there, and in that the folder
/// which their container's cache of compiled code is mounted on, by the supervisor, when the door is closed: what an earlier process of the
/// container left is nothing to read before. Landlock's rule is the outer one's, since it asks none of the place that a mount covers.
pub const CODE_PARENT: &str = "/media";
/// The folder.
pub const CODE_FOLDER: &str = "code";

/// A measure that is not in force, as one sentence.
pub type Gap = String;

/// Takes away what the worker will not need: its parent's death is its own, no core dumps, no way back to privileges, and for
/// devices without a driver no file system; with one, of its GPUs the `nodes` (`None`: all), and with `code` a place for what it compiles,
/// which is empty yet. Called before any byte of a guest is read, while there is one thread.
///
/// # Errors
/// A measure that every kernel has failed.
pub fn strip(
    device: DeviceKind,
    namespaces: bool,
    nodes: Option<&[u32]>,
    code: bool,
) -> io::Result<Vec<Gap>> {
    let (mut gaps, mut code_place) = (Vec::new(), None);
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    limit(Resource::Core, 0)?;
    limit(Resource::Nofile, DESCRIPTORS_MAX)?;
    if !namespaces {
        gaps.push("workers see the node's file system: no mount namespace".into());
    } else if device == DeviceKind::Cuda {
        if let Err(error) = root::own_proc() {
            gaps.push(format!(
                "workers have the node's /proc, with which NVIDIA's driver may not start: {error}"
            ));
        }
        if code {
            // Without it the driver keeps nothing.
            match root::cover(Path::new(CODE_PARENT), CODE_FOLDER) {
                Ok(()) => code_place = Some(Path::new(CODE_PARENT)),
                Err(error) => log::warn!("nothing that is compiled is kept: {CODE_PARENT}: {error}"),
            }
        }
    } else if let Err(error) = root::make_empty() {
        gaps.push(format!("workers see the node's file system: {error}"));
    }
    drop_capabilities(&mut gaps);
    rustix::thread::set_no_new_privs(true)?;
    // After the last change of credentials, which would undo both.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if supervisor_is_gone()? {
        // It died between these lines, and no signal came.
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // Driver libraries have threads by the time the door closes, and Landlock binds one thread and its children: so now.
    gaps.extend(landlock::restrict(device, nodes, code_place));
    Ok(gaps)
}

/// Whether the other end of the worker's socket is closed.
fn supervisor_is_gone() -> io::Result<bool> {
    let socket = rustix::stdio::stdin();
    let mut watched = [PollFd::new(&socket, PollFlags::empty())];
    rustix::event::poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    Ok(watched[0].revents().intersects(PollFlags::HUP | PollFlags::ERR))
}

/// Closes the door: from here on only the listed system calls. For all threads. Messages pass over the descriptor `exchange` alone. With
/// `code` files can be made and changed, where Landlock has left a place for that.
///
/// # Errors
/// The filter was not taken: the worker must end.
pub fn close_door(
    device: DeviceKind,
    event_channel: bool,
    exchange: Option<RawFd>,
    code: bool,
) -> Result<(), seccompiler::Error> {
    seccomp::apply(device, event_channel, exchange, code)
}

fn limit(resource: Resource, value: u64) -> io::Result<()> {
    Ok(rustix::process::setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })?)
}

/// Empties the bounding set, then all others. Without the right to, there are none to drop: then only the bounding set stays.
fn drop_capabilities(gaps: &mut Vec<Gap>) {
    for capability in CapabilitySet::all().iter() {
        // Numbers that this kernel does not know fail, and are no capability here.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    if let Err(error) = rustix::thread::set_capabilities(None, none) {
        gaps.push(format!("workers keep capabilities: {error}"));
    }
}
