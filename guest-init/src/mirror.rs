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
//! Not here: where the copy is and how much it may hold (`task/volumes.rs`).

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::{self, DirBuilder, File, Metadata, Permissions},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink},
    },
    path::{Path, PathBuf},
};

const DATA: &str = "..data";
const NEXT: &str = "..data_tmp";
/// kubelet may replace a version while it is read.
const TRIES: u32 = 3;

/// Makes what is in `to`, nothing at first, the same as the volume `from`. A failure leaves the version that was there.
/// # Errors
/// `from` has not the form of kubelet's volumes, or cannot be read; `to` is too small for both versions (`StorageFull`).
pub fn update(from: &Path, to: &Path) -> io::Result<()> {
    let mut tries = 1;
    loop {
        match once(from, to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < TRIES => tries += 1,
            done => return done,
        }
    }
}

fn once(from: &Path, to: &Path) -> io::Result<()> {
    let version = fs::read_link(from.join(DATA))?;
    if !is_kubelets(version.as_os_str()) || version.as_os_str().as_bytes().contains(&b'/') {
        return Err(io::Error::other(format!("its {DATA} is {}, no folder in it", version.display())));
    }
    let (theirs, ours) = (from.join(&version), to.join(&version));
    if fs::read_link(to.join(DATA)).is_ok_and(|shown| shown == version) {
        complete(&theirs, &ours)?;
    } else {
        // Of an update that failed.
        remove_all(&ours)?;
        let shown = complete(&theirs, &ours).and_then(|()| show(from, to, &version));
        if let Err(error) = shown {
            remove_all(&ours)?;
            return Err(error);
        }
    }
    names(from, to)?;
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && entry.file_name() != version.as_os_str() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    take_after(&fs::symlink_metadata(from)?, to)
}

/// Names that kubelet keeps for itself.
fn is_kubelets(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"..") && name != ".."
}

/// Makes what is missing of `from` in `to`. What is there has its content, but may have been given to others since.
fn complete(from: &Path, to: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(from)?;
    let missing = fs::symlink_metadata(to).is_err();
    if found.is_dir() {
        if missing {
            // Shut, until what is in it has its owners.
            DirBuilder::new().mode(0o700).create(to)?;
        }
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            complete(&from.join(&name), &to.join(&name))?;
        }
    } else if !found.is_file() {
        return Err(io::Error::other(format!("{} is neither file nor folder", from.display())));
    } else if missing {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(to)?;
        io::copy(&mut File::open(from)?, &mut file)?;
        file.set_modified(found.modified()?)?;
    }
    take_after(&found, to)
}

/// Has `to` show this version.
fn show(from: &Path, to: &Path, version: &Path) -> io::Result<()> {
    let next = to.join(NEXT);
    if fs::symlink_metadata(&next).is_ok() {
        fs::remove_file(&next)?;
    }
    symlink(version, &next)?;
    take_after(&fs::symlink_metadata(from.join(DATA))?, &next)?;
    fs::rename(next, to.join(DATA))
}

/// Makes the names in `to` those of `from`.
fn names(from: &Path, to: &Path) -> io::Result<()> {
    let (theirs, ours) = (links(from)?, links(to)?);
    for (name, target) in &theirs {
        let place = to.join(name);
        if ours.get(name) != Some(target) {
            if ours.contains_key(name) {
                fs::remove_file(&place)?;
            }
            symlink(target, &place)?;
        }
        take_after(&fs::symlink_metadata(from.join(name))?, &place)?;
    }
    for gone in ours.keys().filter(|name| !theirs.contains_key(*name)) {
        fs::remove_file(to.join(gone))?;
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

/// Gives `to` the owner and the mode of what was found, where it has others.
fn take_after(found: &Metadata, to: &Path) -> io::Result<()> {
    let has = fs::symlink_metadata(to)?;
    let mut changed = false;
    if (has.uid(), has.gid()) != (found.uid(), found.gid()) {
        lchown(to, Some(found.uid()), Some(found.gid()))?;
        changed = true;
    }
    // A change of owner takes bits of a file's mode away.
    if !found.is_symlink() && (changed || has.mode() != found.mode()) {
        fs::set_permissions(to, Permissions::from_mode(found.mode() & 0o7777))?;
    }
    Ok(())
}

fn remove_all(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests;
