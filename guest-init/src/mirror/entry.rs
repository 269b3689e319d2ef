//! An entry of a folder that is held open, by its name, of a tree in which somebody else may change anything meanwhile. No call here follows a
//! link: each names no more than one step from a descriptor, and what a descriptor is of is looked at behind it.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, Metadata},
    io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::{ffi::OsStringExt, fs::MetadataExt},
    },
    path::PathBuf,
};

use rustix::{
    fs::{AtFlags, Gid, Mode, OFlags, Uid},
    io::Errno,
};

/// See the module.
#[derive(Debug)]
pub struct Entry<'a> {
    folder: &'a File,
    name: &'a OsStr,
}

impl<'a> Entry<'a> {
    /// `name` has no slash, and is neither `.` nor `..`.
    pub fn new(folder: &'a File, name: &'a (impl AsRef<OsStr> + ?Sized)) -> Entry<'a> {
        Entry { folder, name: name.as_ref() }
    }

    /// Where it leads, if it is a link.
    /// # Errors
    /// readlinkat(2)'s.
    pub fn target(&self) -> io::Result<Option<OsString>> {
        match rustix::fs::readlinkat(self.folder, self.name, Vec::new()) {
            Ok(target) => Ok(Some(OsString::from_vec(target.into_bytes()))),
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The folder there, made where there is none.
    /// # Errors
    /// mkdirat(2)'s, openat(2)'s, what [`Entry::remove`] says.
    pub fn folder(&self, mode: u32, depth: u32) -> io::Result<File> {
        match self.open_folder() {
            Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR | Errno::LOOP) => self.remove(depth)?,
            opened => return Ok(opened?),
        }
        rustix::fs::mkdirat(self.folder, self.name, Mode::from_raw_mode(mode))?;
        Ok(self.open_folder()?)
    }

    fn open_folder(&self) -> Result<File, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(self.folder, self.name, flags, Mode::empty())?.into())
    }

    /// A new file, unless there is one.
    /// # Errors
    /// openat(2)'s, what [`Entry::remove`] says.
    pub fn new_file(&self, mode: u32, depth: u32) -> io::Result<Option<File>> {
        match self.create_file(mode) {
            Err(Errno::EXIST) if self.found()?.1.is_file() => Ok(None),
            Err(Errno::EXIST) => {
                self.remove(depth)?;
                Ok(Some(self.create_file(mode)?))
            }
            created => Ok(Some(created?)),
        }
    }

    fn create_file(&self, mode: u32) -> Result<File, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(self.folder, self.name, flags, Mode::from_raw_mode(mode))?.into())
    }

    /// A link, in the place of whatever is there.
    /// # Errors
    /// symlinkat(2)'s, what [`Entry::remove`] says.
    pub fn link(&self, target: &OsStr) -> io::Result<()> {
        self.remove(super::DEPTH_MAX)?;
        Ok(rustix::fs::symlinkat(target, self.folder, self.name)?)
    }

    /// Puts it into the place of `to`, in the same folder.
    /// # Errors
    /// renameat(2)'s.
    pub fn rename(&self, to: &Entry) -> io::Result<()> {
        Ok(rustix::fs::renameat(self.folder, self.name, to.folder, to.name)?)
    }

    /// Takes away what is there, with all that is in it, to this depth.
    /// # Errors
    /// unlinkat(2)'s; it is deeper.
    pub fn remove(&self, depth: u32) -> io::Result<()> {
        match rustix::fs::unlinkat(self.folder, self.name, AtFlags::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR) => {}
            removed => return Ok(removed?),
        }
        let folder = self.open_folder()?;
        for name in names(&folder)? {
            Entry::new(&folder, &name).remove(super::deeper(depth)?)?;
        }
        Ok(rustix::fs::unlinkat(self.folder, self.name, AtFlags::REMOVEDIR)?)
    }

    /// Gives it the owner and the mode of what was found.
    /// # Errors
    /// openat(2)'s, and those of [`take_after`]; it is of another kind by now.
    pub fn take_after(&self, found: &Metadata) -> io::Result<()> {
        let (file, has) = self.found()?;
        if has.file_type() != found.file_type() {
            return Err(io::Error::other(format!("{} is another by now", self.name.display())));
        }
        take_after(found, &file)
    }

    /// Itself, a link too, and what it is.
    fn found(&self) -> io::Result<(File, Metadata)> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(self.folder, self.name, flags, Mode::empty())?);
        let has = file.metadata()?;
        Ok((file, has))
    }
}

/// Gives what a descriptor is of the owner and the mode of what was found, where it has others.
/// # Errors
/// chown(2)'s, chmod(2)'s.
pub fn take_after(found: &Metadata, to: &File) -> io::Result<()> {
    let has = to.metadata()?;
    let mut changed = false;
    if (has.uid(), has.gid()) != (found.uid(), found.gid()) {
        let (uid, gid) = (Uid::from_raw(found.uid()), Gid::from_raw(found.gid()));
        rustix::fs::chownat(to, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
        changed = true;
    }
    // A change of owner takes bits of a file's mode away.
    if !found.is_symlink() && (changed || has.mode() != found.mode()) {
        // By a descriptor that only names it the kernel changes no mode, by the way to it it does.
        rustix::fs::chmod(path_of(to), Mode::from_raw_mode(found.mode() & 0o7777))?;
    }
    Ok(())
}

/// What is in a folder.
/// # Errors
/// getdents(2)'s.
pub fn names(folder: &File) -> io::Result<Vec<OsString>> {
    fs::read_dir(path_of(folder))?.map(|entry| entry.map(|entry| entry.file_name())).collect()
}

/// Leads to what the descriptor is of, and nowhere else.
fn path_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()).into()
}
