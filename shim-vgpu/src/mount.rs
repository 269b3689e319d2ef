//! Mounts on the host: what containerd asks for, binds into the share, and taking all of it away again.

use std::{
    collections::BTreeMap,
    ffi::{CString, OsString},
    fs, io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use containerd_shim_protos::api::Mount;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use vgpu_codes::Code;

use crate::error::{Error, OrFail, Result};

mod layers;

/// Options that are flags of mount(2): to set, or to clear. Everything else is the file system's own. Source: `mount(8)`.
const FLAGS: [(&str, MountFlags, bool); 15] = [
    ("ro", MountFlags::RDONLY, true),
    ("rw", MountFlags::RDONLY, false),
    ("nosuid", MountFlags::NOSUID, true),
    ("suid", MountFlags::NOSUID, false),
    ("nodev", MountFlags::NODEV, true),
    ("dev", MountFlags::NODEV, false),
    ("noexec", MountFlags::NOEXEC, true),
    ("exec", MountFlags::NOEXEC, false),
    ("sync", MountFlags::SYNCHRONOUS, true),
    ("noatime", MountFlags::NOATIME, true),
    ("relatime", MountFlags::RELATIME, true),
    ("nodiratime", MountFlags::NODIRATIME, true),
    ("strictatime", MountFlags::STRICTATIME, true),
    ("lazytime", MountFlags::LAZYTIME, true),
    ("nosymfollow", MountFlags::NOSYMFOLLOW, true),
];

#[derive(Debug, PartialEq, Eq)]
struct Options {
    bind: bool,
    recursive: bool,
    flags: MountFlags,
    data: String,
}

fn options<'a>(list: impl IntoIterator<Item = &'a str>) -> Options {
    let mut found =
        Options { bind: false, recursive: false, flags: MountFlags::empty(), data: String::new() };
    for option in list {
        match option {
            "bind" => found.bind = true,
            "rbind" => (found.bind, found.recursive) = (true, true),
            "defaults" | "" => {}
            name => match FLAGS.iter().find(|(flag, ..)| *flag == name) {
                Some((_, flag, set)) => found.flags.set(*flag, *set),
                None => {
                    let comma = if found.data.is_empty() { "" } else { "," };
                    found.data.push_str(comma);
                    found.data.push_str(name);
                }
            },
        }
    }
    found
}

/// Mounts a container's root as containerd's snapshotter describes it, each mount over the one before.
///
/// # Errors
/// [`Code::HostFailure`] with the mount that failed, or that has a place of its own below the root, which no snapshotter of containerd's uses for
/// a container and whose way the image's links could lead out of. What was mounted before it stays, for cleaning up to take away.
pub fn rootfs(mounts: &[Mount], target: &Path) -> Result<()> {
    fs::create_dir_all(target).or_fail(Code::HostFailure, || format!("cannot make {}", target.display()))?;
    for mount in mounts {
        let asked = options(mount.options.iter().map(String::as_str));
        let what = || format!("cannot mount {} ({}) on {}", mount.source, mount.type_, target.display());
        if !mount.target.is_empty() {
            let words = format!("{}: at {} below the root, which is not supported", what(), mount.target);
            return Err(Error::new(Code::HostFailure, words));
        }
        if asked.bind || mount.type_ == "bind" {
            bind(Path::new(&mount.source), target, asked.recursive).or_fail(Code::HostFailure, what)?;
            if asked.flags.contains(MountFlags::RDONLY) {
                restrict(target, MountFlags::RDONLY).or_fail(Code::HostFailure, what)?;
            }
            continue;
        }
        layers::mount(&mount.source, target, &mount.type_, asked.flags, asked.data)
            .or_fail(Code::HostFailure, what)?;
    }
    Ok(())
}

/// Binds `source` on the existing `target`.
///
/// # Errors
/// mount(2)'s.
pub fn bind(source: &Path, target: &Path, recursive: bool) -> io::Result<()> {
    if recursive {
        return Ok(rustix::mount::mount_bind_recursive(source, target)?);
    }
    Ok(rustix::mount::mount_bind(source, target)?)
}

/// Shows `source` to a guest at `target`: never with set-user-id programs or devices, and not to be written where `readonly`.
///
/// Flags that are set later don't reach copies that propagation has made. So the mounts get theirs at `stage`, which is private, and appear
/// at `target` as they are to be. `stage` and `target` exist and are of the source's kind.
///
/// # Errors
/// mount(2)'s. What is left at `stage` is for cleaning up to take away.
pub fn expose(source: &Path, stage: &Path, target: &Path, recursive: bool, readonly: bool) -> io::Result<()> {
    bind(source, stage, recursive)?;
    // Else what is unmounted below it is unmounted below the source too.
    make_private(stage)?;
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    flags.set(MountFlags::RDONLY, readonly);
    restrict(stage, flags)?;
    Ok(rustix::mount::mount_move(stage, target)?)
}

/// Sets `flags` for the mount at `dir` and those below it. What is set stays.
///
/// # Errors
/// mount(2)'s, or nothing is mounted at `dir`.
pub fn restrict(dir: &Path, flags: MountFlags) -> io::Result<()> {
    // Of several mounts at one place the last is what can be seen.
    let mounts: BTreeMap<PathBuf, MountFlags> = entries(dir)?.into_iter().collect();
    if !mounts.contains_key(dir) {
        return Err(io::Error::other(format!("nothing is mounted at {}", dir.display())));
    }
    for (point, has) in mounts {
        rustix::mount::mount_remount(&point, MountFlags::BIND | has | flags, "")?;
    }
    Ok(())
}

/// A file system in memory of at most `bytes` and `inodes`, for root alone.
///
/// # Errors
/// mount(2)'s.
pub fn small_tmpfs(target: &Path, bytes: u64, inodes: u64) -> io::Result<()> {
    let data =
        CString::new(format!("size={bytes},nr_inodes={inodes},mode=0755")).map_err(io::Error::other)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    Ok(rustix::mount::mount("vgpu-share", target, "tmpfs", flags, data.as_c_str())?)
}

/// Mounts and unmounts at and below `target` are its own from here on.
///
/// # Errors
/// mount(2)'s.
pub fn make_private(target: &Path) -> io::Result<()> {
    let recursive_private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    Ok(rustix::mount::mount_change(target, recursive_private)?)
}

/// Mounts that appear below `target` later appear in its slaves too.
///
/// # Errors
/// mount(2)'s.
pub fn make_shared(target: &Path) -> io::Result<()> {
    Ok(rustix::mount::mount_change(target, MountPropagationFlags::SHARED)?)
}

/// `target` and what is below it see later mounts of their origin, and never the other way round.
///
/// # Errors
/// mount(2)'s.
pub fn make_slave(target: &Path) -> io::Result<()> {
    let recursive_slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    Ok(rustix::mount::mount_change(target, recursive_slave)?)
}

/// The mount points at and below `dir`, in the order in which they were mounted.
///
/// # Errors
/// If `/proc/self/mountinfo` can't be read.
pub fn below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(entries(dir)?.into_iter().map(|(point, _)| point).collect())
}

/// The mounts at and below `dir` with their own flags, in the order in which they were mounted. Source: `proc_pid_mountinfo(5)`, 5 and 6.
///
/// # Errors
/// If `/proc/self/mountinfo` can't be read.
pub fn entries(dir: &Path) -> io::Result<Vec<(PathBuf, MountFlags)>> {
    let info = fs::read("/proc/self/mountinfo")?;
    let mounts = info.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ').skip(4);
        let point = unescape(fields.next()?);
        let flags = options(std::str::from_utf8(fields.next()?).ok()?.split(',')).flags;
        Some((point, flags))
    });
    Ok(mounts.filter(|(point, _)| point.starts_with(dir)).collect())
}

/// mountinfo writes blanks, tabs, line ends and backslashes as three octal digits. Source: `proc_pid_mountinfo(5)`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] if *first == b'\\' => {
                bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

/// Takes away every mount at and below `dir`, the last one first. Nothing mounted there is no error.
///
/// # Errors
/// [`Code::HostFailure`] if some are left, or if `dir` is no folder below another: a damaged record must not unmount the host.
pub fn take_away(dir: &Path) -> Result<()> {
    let what = || format!("cannot unmount {}", dir.display());
    if !dir.is_absolute() || dir.parent().is_none() {
        return Err(Error::new(Code::HostFailure, format!("{}: no folder of a pod", what())));
    }
    loop {
        let points = below(dir).or_fail(Code::HostFailure, what)?;
        if points.is_empty() {
            return Ok(());
        }
        let mut last = None;
        let mut gone = 0;
        for point in points.iter().rev() {
            // Detached: a dying guest's backend may still hold a file below.
            match rustix::mount::unmount(
                point.as_os_str().as_bytes(),
                UnmountFlags::DETACH | UnmountFlags::NOFOLLOW,
            ) {
                Ok(()) => gone += 1,
                // Propagation took it already.
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
                Err(error) => last = Some(io::Error::from(error)),
            }
        }
        if gone == 0 {
            return Err(match last {
                Some(error) => Error::caused(Code::HostFailure, what(), error),
                None => Error::new(Code::HostFailure, what()),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_told_apart_from_the_file_systems_own() {
        let overlay = options(["index=off", "nodev", "workdir=/w", "upperdir=/u", "lowerdir=/a:/b"]);
        assert_eq!(overlay.flags, MountFlags::NODEV);
        assert_eq!(overlay.data, "index=off,workdir=/w,upperdir=/u,lowerdir=/a:/b");
        let native = options(["rbind", "ro", "rw"]);
        assert!(native.bind && native.recursive && native.flags.is_empty() && native.data.is_empty());
    }

    #[test]
    fn a_mount_point_with_a_blank_is_read_back() {
        assert_eq!(unescape(br"/a\040b\134c"), Path::new(r"/a b\c"));
        assert_eq!(unescape(br"/a\04"), Path::new(r"/a\04"));
    }

    #[test]
    fn what_was_mounted_in_layers_is_taken_away_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, beside) = (dir.path().join("in"), dir.path().join("in2"));
        fs::create_dir_all(inside.join("x")).unwrap();
        fs::create_dir_all(&beside).unwrap();
        small_tmpfs(&inside, 1 << 16, 16).unwrap();
        small_tmpfs(&inside, 1 << 16, 16).unwrap();
        small_tmpfs(&beside, 1 << 16, 16).unwrap();
        take_away(&inside).unwrap();
        take_away(&inside).unwrap();
        assert_eq!(below(dir.path()).unwrap(), std::slice::from_ref(&beside));
        take_away(&beside).unwrap();
    }

    #[test]
    fn a_damaged_record_cannot_unmount_the_host() {
        for dir in ["", "/", "run"] {
            assert!(take_away(Path::new(dir)).is_err(), "{dir:?}");
        }
        assert!(below(Path::new("/")).unwrap().contains(&"/proc".into()));
    }

    #[test]
    fn a_mount_below_the_root_is_refused_not_mounted_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let mount = Mount { type_: "tmpfs".into(), target: "etc".into(), ..Mount::default() };
        let refused = rootfs(&[mount], dir.path()).unwrap_err().to_string();
        assert!(refused.contains("at etc below the root"), "{refused}");
        assert!(below(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn a_readonly_bind_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join("s"), dir.path().join("t"));
        fs::create_dir_all(&source).unwrap();
        let mount = Mount {
            type_: "bind".into(),
            source: source.to_string_lossy().into_owned(),
            options: ["rbind", "ro"].map(str::to_owned).into(),
            ..Mount::default()
        };
        small_tmpfs(&source, 1 << 16, 16).unwrap();
        restrict(&source, MountFlags::NOEXEC).unwrap();
        rootfs(&[mount], &target).unwrap();
        let [(_, flags)] = entries(&target).unwrap()[..] else { panic!("mounted once") };
        let refused = fs::write(target.join("f"), "x").unwrap_err();
        take_away(&target).unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
        let written = fs::write(source.join("f"), "x");
        take_away(&source).unwrap();
        written.unwrap();
        assert!(flags.contains(MountFlags::NOEXEC | MountFlags::NODEV), "what the source had: {flags:?}");
    }
}
