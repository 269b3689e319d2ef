//! The volumes of a container that kubelet changes: each is a copy in the guest's memory ([`crate::mirror`]), which programs can watch.
//!
//! The shim names them by their places in the share ([`VOLUMES`]) and says when to look again. A volume that is larger than a copy may be, or has not
//! the form, stays a bind of its place: it is as fresh, and nobody is told of a change.

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use libcontainer::oci_spec::runtime::Spec;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use vgpu_agent_api::pod::VOLUMES;

use crate::{
    boot::console::say,
    error::{During, Result},
    mirror,
};

/// What a volume may hold. kubelet's are 1 MiB at most, but for projected ones; each file is whole pages here.
const BYTES_MAX: u64 = 4 << 20;
/// Its files, folders and links.
const INODES_MAX: u64 = 4096;

/// See the module.
#[derive(Debug, Default)]
pub struct Volumes(Vec<Volume>);

#[derive(Debug)]
struct Volume {
    /// Where it is mounted in the container.
    destination: PathBuf,
    /// In the share.
    from: PathBuf,
    /// The root of its file system, which is held by this and by the container's mount alone: so nothing has to be unmounted.
    copy: Mutex<File>,
}

/// Places that hold copies until the container has them.
#[derive(Debug, Default)]
pub struct Places(Vec<PathBuf>);

impl Drop for Places {
    fn drop(&mut self) {
        for place in &self.0 {
            // It is there: it was mounted.
            let _ = unmount(place, UnmountFlags::DETACH);
        }
    }
}

impl Volumes {
    /// Copies those that the spec names, and has its mounts lead to the copies. `bundle` is the container's folder in the share, `directory` its own.
    /// Blocks.
    pub fn copy(spec: &mut Spec, bundle: &Path, directory: &Path) -> (Volumes, Places) {
        let (mut volumes, mut places) = (Volumes::default(), Places::default());
        let named =
            spec.annotations().iter().filter_map(|all| all.get(VOLUMES)).flat_map(|all| all.split(' '));
        let named: Vec<_> = named.map(|number| bundle.join("mounts").join(number)).collect();
        for mount in spec.mounts_mut().iter_mut().flatten() {
            let Some(from) = mount.source().clone().filter(|source| named.contains(source)) else { continue };
            let place = directory.join("volumes").join(places.0.len().to_string());
            match make(&place, &mut places).and_then(|root| fill(&place, root, &from)) {
                Ok(root) => {
                    let destination = mount.destination().clone();
                    volumes.0.push(Volume { destination, from, copy: Mutex::new(root) });
                    mount.set_source(Some(place));
                }
                Err(error) => {
                    say(format_args!("{} cannot be watched: {error}", mount.destination().display()));
                }
            }
        }
        (volumes, places)
    }

    /// Does to each copy what kubelet has done to the volume. Blocks.
    /// # Errors
    /// Names the first that is not the same, and why: it is as it was.
    pub fn refresh(&self) -> Result<()> {
        let mut refreshed = Ok(());
        for volume in &self.0 {
            let root = volume.copy.lock().unwrap_or_else(PoisonError::into_inner);
            let updated = mirror::update(&volume.from, &path_of(&root));
            let what = || format!("refresh the volume at {}", volume.destination.display());
            refreshed = refreshed.and(updated.during(what));
        }
        refreshed
    }
}

/// An empty file system, half of what it will be: two versions have to fit.
fn make(place: &Path, places: &mut Places) -> io::Result<File> {
    fs::create_dir_all(place)?;
    // What else is forbidden is said by the mount that binds it.
    mount("volume", place, "tmpfs", MountFlags::NODEV, size(1)?.as_c_str())?;
    places.0.push(place.to_owned());
    File::open(place)
}

fn fill(place: &Path, root: File, from: &Path) -> io::Result<File> {
    mirror::update(from, &path_of(&root))?;
    mount_remount(place, MountFlags::NODEV, size(2)?.as_c_str())?;
    Ok(root)
}

fn size(versions: u64) -> io::Result<CString> {
    let (bytes, inodes) = (versions * BYTES_MAX, versions * INODES_MAX);
    Ok(CString::new(format!("mode=0700,size={bytes},nr_inodes={inodes}"))?)
}

/// Leads to it wherever it is mounted, if anywhere. The root itself, not the link.
fn path_of(root: &File) -> PathBuf {
    format!("/proc/self/fd/{}/.", root.as_raw_fd()).into()
}
