//! File systems, mounted where nobody else sees it: in a mount namespace of this process's own, over its `/proc`.

use std::{
    ffi::CString,
    fs::{self, OpenOptions},
    io,
    os::fd::AsRawFd,
};

use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    process::{getegid, geteuid},
    thread::UnshareFlags,
};

use crate::raw;

const PLACE: &str = "/proc";

/// By the device, which a container has where its spec asks for it. Nobody serves it: a mount does not wait for that.
pub fn fuse() -> io::Result<()> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
    apart(UnshareFlags::NEWNS)?;
    at_place("fuse", &format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd()))
}

/// As tools do that build images without root: layers in memory, the user being root in a user namespace.
pub fn overlay_of_a_user() -> io::Result<()> {
    as_root_of_a_user_namespace()?;
    at_place("tmpfs", "")?;
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(format!("{PLACE}/{name}"))?;
    }
    let layers = ["lowerdir=lower", "upperdir=upper", "workdir=work"];
    let layers = layers.map(|layer| layer.replace('=', &format!("={PLACE}/"))).join(",");
    mounted("overlay", &format!("{PLACE}/merged"), &format!("{layers},userxattr"))?;
    fs::write(format!("{PLACE}/merged/file"), "")?;
    fs::metadata(format!("{PLACE}/upper/file")).map(drop)
}

/// Each user namespace has interpreters of its own.
pub fn binfmt_misc() -> io::Result<()> {
    as_root_of_a_user_namespace()?;
    at_place("binfmt_misc", "")?;
    fs::metadata(format!("{PLACE}/register")).map(drop)
}

fn as_root_of_a_user_namespace() -> io::Result<()> {
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    raw::unshare(UnshareFlags::NEWUSER)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))?;
    apart(UnshareFlags::NEWNS)
}

/// What is mounted from here on reaches no other namespace.
fn apart(kinds: UnshareFlags) -> io::Result<()> {
    raw::unshare(kinds)?;
    Ok(mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

fn at_place(kind: &str, options: &str) -> io::Result<()> {
    mounted(kind, PLACE, options)
}

fn mounted(kind: &str, place: &str, options: &str) -> io::Result<()> {
    let options = CString::new(options)?;
    Ok(mount(kind, place, kind, MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str())?)
}
