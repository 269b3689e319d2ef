//! A copy of a volume that kubelet keeps, made by the same steps as the volume: who watches the copy by inotify(7) sees of a change what is
//! seen of it on the node. 9p carries no notices.
//!
//! ```text
//! NAME → ..data/NAME       one link for each name of the volume, also for a folder
//! ..data → ..VERSION       replaced by a rename: all of a version at once
//! ..VERSION/               the files
//! ```
//! [`update`] brings a new version to the copy: its folder, `..data`, new names, names that are gone, the old folder. Source: Kubernetes,
//! `pkg/volume/util/atomic_writer.go`, `Write`. The rule: a name that holds something does so with its content, owner and mode of the volume.
//!
//! A container that may mount can make its view of the copy writable, and put there what it likes at any moment. So whatever is done to the copy
//! is done by one name in a folder that is held open ([`entry`]), no link is followed, and what is not of its kind is replaced.
//! Not here: where the copy is and how much it may hold (`task/volumes.rs`).

mod entry;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use entry::Entry;

const DATA: &str = "..data";
const NEXT: &str = "..data_tmp";
/// kubelet may replace a version while it is read.
const TRIES: u32 = 3;
/// Of folders in each other. kubelet makes as many as the path of an item has.
const DEPTH_MAX: u32 = 64;
/// A file is whole pages in memory.
const PAGE_BYTES: u64 = 4096;
/// What the kernel keeps of a file, a folder or a link, in round figures. Source: Linux, `include/linux/shmem_fs.h`, `shmem_inode_info`.
const INODE_BYTES: u64 = 1024;

/// A version of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its folder.
    pub name: OsString,
    /// What a copy of it takes of memory.
    pub bytes: u64,
}

/// What a volume shows now.
/// # Errors
/// It has not the form of kubelet's volumes, or cannot be read.
pub fn version(volume: &Path) -> io::Result<Version> {
    again(|| {
        let name = shown(volume)?;
        let bytes = size(&volume.join(&name), DEPTH_MAX)?;
        Ok(Version { name, bytes })
    })
}

/// Makes what is in the folder `to`, nothing at first, the same as the volume `from`. A failure leaves the version that was there.
/// # Errors
/// `from` has not the form of kubelet's volumes, or cannot be read; `to` is too small for both versions (`StorageFull`).
pub fn update(from: &Path, to: &File) -> io::Result<()> {
    again(|| once(from, to))
}

fn again<T>(once: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let mut tries = 1;
    loop {
        match once() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < TRIES => tries += 1,
            done => return done,
        }
    }
}

fn once(from: &Path, to: &File) -> io::Result<()> {
    let version = shown(from)?;
    let (data, theirs, ours) = (Entry::new(to, DATA), from.join(&version), Entry::new(to, &version));
    if data.target()?.is_some_and(|shown| shown == version) {
        complete(&theirs, &ours, DEPTH_MAX)?;
    } else {
        // Of an update that failed.
        ours.remove(DEPTH_MAX)?;
        let shown = complete(&theirs, &ours, DEPTH_MAX).and_then(|()| show(from, to, &version));
        if let Err(error) = shown {
            ours.remove(DEPTH_MAX)?;
            return Err(error);
        }
    }
    names(from, to)?;
    for name in entry::names(to)? {
        if is_kubelets(&name) && name != DATA && name != version {
            Entry::new(to, &name).remove(DEPTH_MAX)?;
        }
    }
    entry::take_after(&fs::symlink_metadata(from)?, to)
}

/// The folder of what a volume shows.
fn shown(volume: &Path) -> io::Result<OsString> {
    let version = fs::read_link(volume.join(DATA))?.into_os_string();
    if is_kubelets(&version) && !version.as_bytes().contains(&b'/') {
        return Ok(version);
    }
    Err(io::Error::other(format!("its {DATA} is {}, no folder in it", version.display())))
}

/// Names that kubelet keeps for itself.
fn is_kubelets(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"..") && name != ".."
}

fn size(path: &Path, depth: u32) -> io::Result<u64> {
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() {
        return Ok(found.size().next_multiple_of(PAGE_BYTES) + INODE_BYTES);
    }
    let depth = deeper(depth)?;
    // Its own, and of what is in it a link at most, which a name has.
    fs::read_dir(path)?
        .try_fold(INODE_BYTES, |sum, entry| Ok(sum + size(&entry?.path(), depth)? + INODE_BYTES))
}

fn deeper(depth: u32) -> io::Result<u32> {
    depth
        .checked_sub(1)
        .ok_or_else(|| io::Error::other(format!("more than {DEPTH_MAX} folders in each other")))
}

/// Makes what is missing of `from` in `to`. What is there has its content, but may have been given to others since.
fn complete(from: &Path, to: &Entry, depth: u32) -> io::Result<()> {
    let found = fs::symlink_metadata(from)?;
    if found.is_dir() {
        let depth = deeper(depth)?;
        // Shut, until what is in it has its owners.
        let folder = to.folder(0o700, depth)?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            complete(&from.join(&name), &Entry::new(&folder, &name), depth)?;
        }
    } else if !found.is_file() {
        return Err(io::Error::other(format!("{} is neither file nor folder", from.display())));
    } else if let Some(mut file) = to.new_file(0o600, depth)? {
        io::copy(&mut File::open(from)?, &mut file)?;
        file.set_modified(found.modified()?)?;
    }
    to.take_after(&found)
}

/// Has `to` show this version.
fn show(from: &Path, to: &File, version: &OsStr) -> io::Result<()> {
    let (next, data) = (Entry::new(to, NEXT), Entry::new(to, DATA));
    next.link(version)?;
    next.take_after(&fs::symlink_metadata(from.join(DATA))?)?;
    if data.target()?.is_none() {
        data.remove(DEPTH_MAX)?;
    }
    next.rename(&data)
}

/// Makes the names in `to` those of `from`.
fn names(from: &Path, to: &File) -> io::Result<()> {
    let theirs = links(from)?;
    for (name, target) in &theirs {
        let ours = Entry::new(to, name);
        if ours.target()?.as_deref() != Some(target.as_os_str()) {
            ours.link(target.as_os_str())?;
        }
        ours.take_after(&fs::symlink_metadata(from.join(name))?)?;
    }
    let ours: BTreeSet<_> = entry::names(to)?.into_iter().collect();
    for gone in ours.iter().filter(|name| !is_kubelets(name) && !theirs.contains_key(*name)) {
        Entry::new(to, gone).remove(DEPTH_MAX)?;
    }
    Ok(())
}

/// The names of a volume, and where each leads.
fn links(volume: &Path) -> io::Result<BTreeMap<OsString, PathBuf>> {
    let names = fs::read_dir(volume)?.map(|entry| entry.map(|entry| entry.file_name()));
    let visible = names.filter(|name| !name.as_ref().is_ok_and(|name| is_kubelets(name)));
    visible
        .map(|name| {
            let name = name?;
            let target = fs::read_link(volume.join(&name))?;
            Ok((name, target))
        })
        .collect()
}

#[cfg(test)]
mod tests;
