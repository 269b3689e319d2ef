//! The volumes of a container that kubelet changes: each is a copy in the guest's memory ([`crate::mirror`]), which programs can watch.
//!
//! The shim names them by their places in the share ([`VOLUMES`]) and says when to look again. A volume that is larger than a copy may be, that
//! finds no room among the pod's other copies, or has not the form, stays a bind of its place: it is as fresh, and nobody is told of a change.
//! A container's mount cannot be led elsewhere later. So a copy whose volume becomes too large keeps the version that it has, which is an error
//! of each refresh until there is room, or a smaller version.

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use libcontainer::oci_spec::runtime::Spec;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use vgpu_agent_api::pod::VOLUMES;

use crate::{
    boot::console::say,
    error::{During, Result},
    mirror::{self, Version},
};

/// What a volume may hold. kubelet's are 1 MiB at most, but for projected ones; each file is whole pages here.
const BYTES_MAX: u64 = 4 << 20;
/// Its files, folders and links.
const INODES_MAX: u64 = 4096;
/// What all copies of a pod may hold together, in a guest that is not small; else this part of its memory.
const POD_BYTES_MAX: u64 = 32 << 20;
const POD_PART: u64 = 8;

/// What is left for copies. They are outside of the containers' limits: a pod of many containers and volumes shall not have its memory full of them.
#[derive(Debug, Clone)]
pub struct Room(Arc<Mutex<u64>>);

/// A part of the room, until it is dropped.
#[derive(Debug)]
struct Taken {
    room: Room,
    bytes: u64,
}

impl Room {
    /// That of this guest.
    pub fn of_guest() -> Room {
        let memory = rustix::system::sysinfo();
        let bytes = u64::from(memory.mem_unit).saturating_mul(memory.totalram);
        Room::of(POD_BYTES_MAX.min(bytes / POD_PART))
    }

    /// So many bytes.
    pub fn of(bytes: u64) -> Room {
        Room(Arc::new(Mutex::new(bytes)))
    }

    fn take(&self, bytes: u64) -> io::Result<Taken> {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(rest) = left.checked_sub(bytes) else {
            let why = format!(
                "it takes {} KiB, and {} KiB are left for copies of the pod's volumes",
                bytes.div_ceil(1024),
                *left / 1024
            );
            return Err(io::Error::new(io::ErrorKind::StorageFull, why));
        };
        *left = rest;
        Ok(Taken { room: self.clone(), bytes })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        *self.room.0.lock().unwrap_or_else(PoisonError::into_inner) += self.bytes;
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Volumes(Vec<Volume>);

#[derive(Debug)]
struct Volume {
    /// Where it is mounted in the container.
    destination: PathBuf,
    /// In the share.
    from: PathBuf,
    copy: Mutex<Copied>,
}

#[derive(Debug)]
struct Copied {
    /// The root of its file system, which is held by this and by the container's mount alone: so nothing has to be unmounted.
    root: File,
    version: Version,
    taken: Taken,
}

impl Copied {
    /// Brings it up to date. For a moment it is both versions.
    fn refresh(&mut self, from: &Path) -> io::Result<()> {
        let version = mirror::version(from)?;
        if version.name == self.version.name {
            return mirror::update(from, &self.root);
        }
        let taken = self.taken.room.take(version.bytes)?;
        fill(from, &self.root)?;
        (self.version, self.taken) = (version, taken);
        Ok(())
    }
}

/// Where copies are mounted until the container has them.
#[derive(Debug, Default)]
pub struct MountPoints(Vec<PathBuf>);

impl Drop for MountPoints {
    fn drop(&mut self) {
        for mount_point in &self.0 {
            // It is there: it was mounted.
            let _ = unmount(mount_point, UnmountFlags::DETACH);
        }
    }
}

impl Volumes {
    /// Copies those that the spec names and that find room, and has its mounts lead to the copies. `bundle` is the container's folder in the share,
    /// `directory` its own. Blocks.
    pub fn copy(spec: &mut Spec, bundle: &Path, directory: &Path, room: &Room) -> (Volumes, MountPoints) {
        let (mut volumes, mut mount_points) = (Volumes::default(), MountPoints::default());
        let named =
            spec.annotations().iter().filter_map(|all| all.get(VOLUMES)).flat_map(|all| all.split(' '));
        let named: Vec<_> = named.map(|number| bundle.join("mounts").join(number)).collect();
        for mount in spec.mounts_mut().iter_mut().flatten() {
            let Some(from) = mount.source().clone().filter(|source| named.contains(source)) else { continue };
            let mount_point = directory.join("volumes").join(mount_points.0.len().to_string());
            match make(&mount_point, &mut mount_points, &from, room) {
                Ok(copy) => {
                    let destination = mount.destination().clone();
                    volumes.0.push(Volume { destination, from, copy: Mutex::new(copy) });
                    mount.set_source(Some(mount_point));
                }
                Err(error) => {
                    say(format_args!("{} cannot be watched: {error}", mount.destination().display()));
                }
            }
        }
        (volumes, mount_points)
    }

    /// Does to each copy what kubelet has done to the volume. Blocks.
    /// # Errors
    /// Names the first that is not the same, and why: it is as it was.
    pub fn refresh(&self) -> Result<()> {
        let mut refreshed = Ok(());
        for volume in &self.0 {
            let mut copy = volume.copy.lock().unwrap_or_else(PoisonError::into_inner);
            let updated = copy.refresh(&volume.from);
            let what = || format!("show what the volume at {} is now", volume.destination.display());
            refreshed = refreshed.and(updated.during(what));
        }
        refreshed
    }
}

/// A file system with the volume's version in it, of half of its size at first: two versions have to fit.
fn make(mount_point: &Path, mount_points: &mut MountPoints, from: &Path, room: &Room) -> io::Result<Copied> {
    let version = mirror::version(from)?;
    let taken = room.take(version.bytes)?;
    fs::create_dir_all(mount_point)?;
    // What else is forbidden is said by the mount that binds it.
    mount("volume", mount_point, "tmpfs", MountFlags::NODEV, size(1)?.as_c_str())?;
    mount_points.0.push(mount_point.to_owned());
    let root = File::open(mount_point)?;
    fill(from, &root)?;
    mount_remount(mount_point, MountFlags::NODEV, size(2)?.as_c_str())?;
    Ok(Copied { root, version, taken })
}

fn fill(from: &Path, root: &File) -> io::Result<()> {
    mirror::update(from, root).map_err(|error| match error.kind() {
        io::ErrorKind::StorageFull => {
            let why = format!(
                "it takes more than the {} KiB or {INODES_MAX} files that a copy may have",
                BYTES_MAX / 1024
            );
            io::Error::new(io::ErrorKind::StorageFull, why)
        }
        _ => error,
    })
}

fn size(versions: u64) -> io::Result<CString> {
    let (bytes, inodes) = (versions * BYTES_MAX, versions * INODES_MAX);
    Ok(CString::new(format!("mode=0700,size={bytes},nr_inodes={inodes}"))?)
}

#[cfg(test)]
mod tests;
