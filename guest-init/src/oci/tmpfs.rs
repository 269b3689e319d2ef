//! A tmpfs takes the mode of the folder that it covers, where its options name none: as with runc, so that an image's folder stays as open or
//! shut as it was. The library would leave the kernel's 1777.

use std::path::Path;

use libcontainer::oci_spec::runtime::{Mount, Spec};
use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, open, openat2};

/// Adds what is missing to the tmpfs mounts of `spec`, whose root is at `rootfs`.
pub fn add_modes(spec: &mut Spec, rootfs: &Path) {
    let mut mounts = spec.mounts_mut().take().unwrap_or_default();
    for at in 0..mounts.len() {
        let (before, from) = mounts.split_at_mut(at);
        let Some(mount) = from.first_mut().filter(|mount| has_none(mount)) else { continue };
        let below = |other: &Mount| mount.destination().starts_with(other.destination());
        // What a mount before it brings is not in the root.
        if before.iter().any(below) {
            continue;
        }
        if let Some(mode) = mode_of(rootfs, mount.destination()) {
            let options =
                mount.options().iter().flatten().cloned().chain([format!("mode={mode:o}")]).collect();
            mount.set_options(Some(options));
        }
    }
    spec.set_mounts(Some(mounts));
}

fn has_none(mount: &Mount) -> bool {
    let says = mount.options().iter().flatten().any(|option| option.starts_with("mode="));
    mount.typ().as_deref() == Some("tmpfs") && !says
}

/// None where there is no such folder: it is made, and has the kernel's mode.
fn mode_of(rootfs: &Path, folder: &Path) -> Option<u32> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(rootfs, flags, Mode::empty()).ok()?;
    // Links are followed inside of the root, as by a process whose root it is.
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = fstat(openat2(&root, folder, flags, Mode::empty(), resolve).ok()?).ok()?;
    Some(Mode::from_raw_mode(found.st_mode).bits())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
    };

    use serde_json::json;

    use super::*;

    /// The options that a tmpfs at the last of these places has then; those before it are binds.
    fn options(rootfs: &Path, places: &[&str], options: &[&str]) -> Vec<String> {
        let mounts: Vec<_> = places
            .iter()
            .enumerate()
            .map(|(at, place)| match at + 1 == places.len() {
                true => json!({"destination": place, "type": "tmpfs", "source": "tmpfs", "options": options}),
                false => json!({"destination": place, "type": "bind", "source": "/x"}),
            })
            .collect();
        let mut spec: Spec =
            serde_json::from_value(json!({"ociVersion": "1.1.0", "mounts": mounts})).unwrap();
        add_modes(&mut spec, rootfs);
        spec.mounts().as_ref().unwrap().last().unwrap().options().clone().unwrap_or_default()
    }

    #[test]
    fn a_folder_of_the_image_keeps_its_mode() {
        let root = tempfile::tempdir().unwrap();
        for (folder, mode) in [("shut", 0o700), ("everybodys", 0o1777)] {
            fs::create_dir(root.path().join(folder)).unwrap();
            fs::set_permissions(root.path().join(folder), fs::Permissions::from_mode(mode)).unwrap();
        }
        symlink("/shut", root.path().join("link")).unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        let of = |places: &[&str], given: &[&str]| options(root.path(), places, given);
        assert_eq!(of(&["/shut"], &["nosuid"]), ["nosuid", "mode=700"]);
        assert_eq!(of(&["/everybodys"], &[]), ["mode=1777"]);
        assert_eq!(of(&["/link"], &[]), ["mode=700"]);
        assert_eq!(of(&["/../shut"], &[]), ["mode=700"]);
        assert_eq!(of(&["/shut"], &["mode=750"]), ["mode=750"], "the spec has one");
        for missing in ["/none", "/file"] {
            assert_eq!(of(&[missing], &["nosuid"]), ["nosuid"], "{missing}");
        }
        assert_eq!(of(&["/", "/shut"], &[]), [""; 0], "another mount covers it");
        assert_eq!(of(&["/everybodys", "/shut"], &[]), ["mode=700"]);
    }
}
