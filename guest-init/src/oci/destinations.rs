//! Where mounts go in a container's root: by no link out of it, and also where a link of the image leads to what is not there, as with runc. Many
//! images have such an `/etc/resolv.conf`. The library makes what is missing, but follows links itself.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs,
    path::{Component, Path, PathBuf},
};

use libcontainer::oci_spec::runtime::Spec;

/// So many links has a path at most. Source: Linux `include/linux/namei.h`, `MAXSYMLINKS`.
const LINKS_MAX: usize = 40;

/// Has the binds and the tmpfs mounts of `spec`, whose root is at `rootfs`, go where their destinations lead. A proc or sysfs that a link of the
/// image leads elsewhere would be out of reach of what is masked and read-only in it: those the library refuses, and has to see.
pub fn resolve(spec: &mut Spec, rootfs: &Path) {
    let mut before: Vec<PathBuf> = Vec::new();
    for mount in spec.mounts_mut().iter_mut().flatten() {
        if matches!(mount.typ().as_deref(), None | Some("bind" | "tmpfs")) {
            mount.set_destination(resolved(rootfs, mount.destination(), &before));
        }
        before.push(mount.destination().clone());
    }
}

/// What `path` is without links. Below one of the places `mounted`, where something else lies by then, it is left as it is.
fn resolved(rootfs: &Path, path: &Path, mounted: &[PathBuf]) -> PathBuf {
    let parts = |path: &Path| -> Vec<OsString> {
        let names =
            path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
        names.map(|part| part.as_os_str().to_owned()).collect()
    };
    let (mut so_far, mut left, mut links) = (PathBuf::from("/"), VecDeque::from(parts(path)), 0);
    while let Some(part) = left.pop_front() {
        if part == ".." {
            so_far.pop();
            continue;
        }
        so_far.push(&part);
        let is_root = |mount: &&PathBuf| mount.as_os_str() != "/";
        if mounted.iter().filter(is_root).any(|mount| so_far.starts_with(mount)) {
            continue;
        }
        let Ok(target) = fs::read_link(rootfs.join(so_far.strip_prefix("/").unwrap_or(&so_far))) else {
            continue;
        };
        links += 1;
        if links > LINKS_MAX {
            // The library finds out and says it.
            return path.to_owned();
        }
        so_far.pop();
        if target.is_absolute() {
            so_far = "/".into();
        }
        parts(&target).into_iter().rev().for_each(|part| left.push_front(part));
    }
    so_far
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_kernel_shows_stays_where_the_spec_has_it() {
        let root = tempfile::tempdir().unwrap();
        for link in ["proc", "sys", "data", "tmp"] {
            symlink("none/../other", root.path().join(link)).unwrap();
        }
        let mounts: Vec<_> =
            [("/proc", "proc"), ("/sys", "sysfs"), ("/data", "bind"), ("/tmp", "tmpfs"), ("/proc/x", "bind")]
                .map(|(destination, kind)| json!({"destination": destination, "type": kind, "source": kind}))
                .into();
        let mut spec: Spec =
            serde_json::from_value(json!({"ociVersion": "1.1.0", "mounts": mounts})).unwrap();
        resolve(&mut spec, root.path());
        let destinations: Vec<_> =
            spec.mounts().iter().flatten().map(|mount| mount.destination().display().to_string()).collect();
        assert_eq!(destinations, ["/proc", "/sys", "/other", "/other", "/proc/x"]);
    }

    #[test]
    fn links_are_followed_inside_of_the_root_also_to_what_is_missing() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/folder")).unwrap();
        for (target, link) in [
            ("../run/resolve/stub", "etc/resolv.conf"),
            ("/run", "var"),
            ("../../../../../out", "etc/folder/out"),
            ("loop", "loop"),
            ("folder", "etc/to"),
            ("/etc/to", "to-to"),
        ] {
            symlink(target, root.path().join(link)).unwrap();
        }
        let of = |path: &str, mounted: &[&str]| {
            let mounted: Vec<_> = mounted.iter().map(PathBuf::from).collect();
            resolved(root.path(), Path::new(path), &mounted).to_string_lossy().into_owned()
        };
        assert_eq!(of("/etc/resolv.conf", &[]), "/run/resolve/stub");
        assert_eq!(of("/var/run/x", &[]), "/run/run/x");
        assert_eq!(of("/etc/folder/out", &[]), "/out");
        assert_eq!(of("/to-to/new", &["/"]), "/etc/folder/new");
        assert_eq!(of("/loop/x", &[]), "/loop/x");
        assert_eq!(of("/../etc/./folder/", &[]), "/etc/folder");
        assert_eq!(of("new", &[]), "/new");
        assert_eq!(of("/", &[]), "/");
        assert_eq!(of("/etc/resolv.conf", &["/etc"]), "/etc/resolv.conf", "another file lies there then");
        assert_eq!(of("/etc/resolv.conf", &["/run"]), "/run/resolve/stub");
    }
}
