//! A working directory that the image lacks is made, as by runc: the library only enters it.
//!
//! It may lie in a mount of the container, and its root may become read-only. So a hook makes it, between the container's mounts and the change
//! of its root: this program again, as `guest-init workdir ROOT DIRECTORY WHY`, as the container's root user. Where it can't, it ends with the
//! error's number, so that the container is not made. The library says no more of that than that a hook has failed: the text is in the file WHY.

use std::{
    fs,
    io::{self, Write as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::PermissionsExt as _,
    },
    path::{Component, Path, PathBuf},
};

use libcontainer::oci_spec::runtime::{Hook, Hooks, Process, Root, Spec};
use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, open, openat2};

use crate::error::{During as _, GuestError, Result};

const FLAGS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// The file of its words, in the container's directory.
const WHY: &str = "workdir.why";
/// runc's.
const MODE: Mode = Mode::from_raw_mode(0o755);

/// Has `program`, which is this one, make the working directory of an adapted spec, and say in `container`, a directory of ours, why it can't.
/// # Errors
/// The file for that cannot be made.
pub fn add_hook(spec: &mut Spec, program: &Path, container: &Path) -> Result<()> {
    let root = spec.root().as_ref().map(Root::path);
    let directory = spec.process().as_ref().map(Process::cwd).filter(|cwd| *cwd != Path::new("/"));
    let (Some(root), Some(directory)) = (root, directory) else { return Ok(()) };
    let why = container.join(WHY);
    // Its root user may be any user here, who makes none.
    fs::write(&why, "")
        .and_then(|()| fs::set_permissions(&why, fs::Permissions::from_mode(0o622)))
        .during(|| format!("make {}", why.display()))?;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut hook = Hook::default();
    hook.set_path(program.to_owned());
    hook.set_args(Some(vec!["guest-init".into(), "workdir".into(), text(root), text(directory), text(&why)]));
    let mut hooks = spec.hooks().clone().unwrap_or_default();
    hooks.set_create_container(Some(vec![hook]));
    spec.set_hooks(Some::<Hooks>(hooks));
    Ok(())
}

/// Why a container was not made: what the hook said, if it did, or `error`.
pub fn explained(error: GuestError, container: &Path) -> GuestError {
    match fs::read_to_string(container.join(WHY)) {
        Ok(text) if !text.is_empty() => GuestError::Oci { operation: "create the container", text },
        _ => error,
    }
}

/// Serves `guest-init workdir ROOT DIRECTORY WHY`. Gives the exit code: the number of the error that kept it from being made.
pub fn main(root: &Path, directory: &Path, why: &Path) -> u8 {
    let Err(error) = make(root, directory) else { return 0 };
    let text = format!("cannot make the working directory {}: {error}", directory.display());
    // A number is better than nothing.
    let _ = fs::OpenOptions::new().write(true).open(why).and_then(|mut why| why.write_all(text.as_bytes()));
    error.raw_os_error().and_then(|number| u8::try_from(number).ok()).unwrap_or(u8::MAX)
}

/// Makes `directory`, and those above it, in `root`. Links are followed inside of it, as by a process whose root it is.
fn make(root: &Path, directory: &Path) -> io::Result<()> {
    let root = open(root, FLAGS, Mode::empty())?;
    if inside(&root, directory).is_ok() {
        return Ok(());
    }
    let mut parent = PathBuf::from("/");
    for part in directory.components() {
        if let Component::Normal(name) = part {
            match mkdirat(inside(&root, &parent)?, name, MODE) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        parent.push(part);
    }
    inside(&root, directory).map(drop)
}

fn inside(root: impl AsFd, directory: &Path) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(root, directory, FLAGS, Mode::empty(), resolve)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn is_empty(directory: &Path) -> bool {
        fs::read_dir(directory).unwrap().next().is_none()
    }

    #[test]
    fn what_lacks_is_made_and_what_is_there_is_left() {
        let root = tempfile::tempdir().unwrap();
        let there = root.path().join("there");
        fs::create_dir(&there).unwrap();
        fs::set_permissions(&there, fs::Permissions::from_mode(0o700)).unwrap();
        let mode = |path: &str| root.path().join(path).metadata().unwrap().permissions().mode() & 0o777;

        make(root.path(), Path::new("/there/a/b")).unwrap();
        make(root.path(), Path::new("/there/a/b")).unwrap();
        assert_eq!((mode("there"), mode("there/a"), mode("there/a/b")), (0o700, 0o755, 0o755));
        make(root.path(), Path::new("/../c/../../d")).unwrap();
        assert_eq!((mode("c"), mode("d")), (0o755, 0o755), "nothing is above the root");
    }

    #[test]
    fn why_it_cannot_be_made_is_said_and_given_as_a_number() {
        let (root, container) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(root.path().join("file"), "").unwrap();
        let why = container.path().join(WHY);
        fs::write(&why, "").unwrap();
        let other = || GuestError::NotFound("it".into());
        assert_eq!(main(root.path(), Path::new("/a"), &why), 0);
        assert_eq!(explained(other(), container.path()).to_string(), "it not found");
        let not_a_directory = u8::try_from(libc::ENOTDIR).unwrap();
        assert_eq!(main(root.path(), Path::new("/file/a"), &why), not_a_directory);
        let said = explained(other(), container.path()).to_string();
        assert!(said.contains("cannot make the working directory /file/a: Not a directory"), "{said}");
        assert_eq!(main(root.path(), Path::new("/file/a"), Path::new("/no/such")), not_a_directory);
    }

    #[test]
    fn a_link_leads_nowhere_but_into_the_root() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let same = root.path().join(outside.path().strip_prefix("/").unwrap());
        let up = Path::new("../../../../../..").join(outside.path().strip_prefix("/").unwrap());
        symlink(outside.path(), root.path().join("link")).unwrap();
        symlink(up, root.path().join("up")).unwrap();
        for link in ["/link/a", "/up/a", "/link", "/up"] {
            assert!(make(root.path(), Path::new(link)).is_err(), "{link} leads nowhere");
        }
        fs::create_dir_all(&same).unwrap();
        make(root.path(), Path::new("/link/a")).unwrap();
        make(root.path(), Path::new("/up/b")).unwrap();
        assert!(same.join("a").is_dir() && same.join("b").is_dir());
        assert!(is_empty(outside.path()));
    }

    #[test]
    fn hooks_of_the_spec_stay_and_the_root_directory_needs_none() {
        let spec = |cwd: &str| -> Spec {
            serde_json::from_value(serde_json::json!({
                "ociVersion": "1.1.0",
                "root": {"path": "/share/c1/rootfs"},
                "process": {"cwd": cwd, "args": ["/a"], "user": {"uid": 0, "gid": 0}},
                "hooks": {"startContainer": [{"path": "/own"}]},
            }))
            .unwrap()
        };
        let container = tempfile::tempdir().unwrap();
        let why = container.path().join(WHY);
        let mut plain = spec("/");
        add_hook(&mut plain, Path::new("/init"), container.path()).unwrap();
        assert_eq!((plain, why.exists()), (spec("/"), false));
        let mut with = spec("/srv");
        add_hook(&mut with, Path::new("/init"), container.path()).unwrap();
        let hooks = serde_json::to_value(with.hooks()).unwrap();
        assert_eq!(hooks["startContainer"][0]["path"], "/own");
        let args = serde_json::json!(["guest-init", "workdir", "/share/c1/rootfs", "/srv", why]);
        assert_eq!(
            (&hooks["createContainer"][0]["path"], &hooks["createContainer"][0]["args"]),
            (&"/init".into(), &args)
        );
    }
}
