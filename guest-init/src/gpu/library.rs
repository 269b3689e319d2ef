//! Where a container's loader finds our `libcuda.so.1`, and what is bound there.

use std::path::{Path, PathBuf};

/// The libraries in the initramfs.
pub const LIBRARIES: &str = "/usr/lib/vgpu";

/// (file in [`LIBRARIES`], names in the container). `libcuda.so` is what programs open that were linked against the stub.
const NAMES: &[(&str, &[&str])] =
    &[("libcuda.so.1", &["libcuda.so.1", "libcuda.so"]), ("libnvidia-ml.so.1", &["libnvidia-ml.so.1"])];

/// In this order: Debian's multiarch directory, where its loader looks without a cache; the other distributions' 64-bit one; the rest.
const DIRECTORIES: &[&str] = &["/usr/lib/x86_64-linux-gnu", "/usr/lib64"];
const LAST_RESORT: &str = "/usr/lib";

/// What to bind into the container with this root file system: each library of `libraries` that there is.
pub fn binds(libraries: &Path, rootfs: &Path) -> Vec<(PathBuf, PathBuf)> {
    let directory = directory(rootfs);
    let there = NAMES.iter().filter(|(file, _)| libraries.join(file).exists());
    there
        .flat_map(|(file, names)| names.iter().map(move |name| (libraries.join(file), directory.join(name))))
        .collect()
}

/// Looked at without following links: those of an image lead through the guest's root. `/lib64` and the like are links to these.
fn directory(rootfs: &Path) -> &'static Path {
    let is_directory = |path: &&&str| {
        let here = rootfs.join(path.trim_start_matches('/'));
        here.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
    };
    Path::new(DIRECTORIES.iter().find(is_directory).copied().unwrap_or(LAST_RESORT))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_library_goes_where_the_images_loader_looks() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(directory(root.path()), Path::new("/usr/lib"));
        fs::create_dir_all(root.path().join("usr/lib64")).unwrap();
        assert_eq!(directory(root.path()), Path::new("/usr/lib64"));
        fs::create_dir_all(root.path().join("usr/lib/x86_64-linux-gnu")).unwrap();
        assert_eq!(directory(root.path()), Path::new("/usr/lib/x86_64-linux-gnu"));
    }

    #[test]
    fn a_link_of_the_image_decides_nothing() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr")).unwrap();
        std::os::unix::fs::symlink("/etc", root.path().join("usr/lib64")).unwrap();
        assert_eq!(directory(root.path()), Path::new("/usr/lib"));
    }

    #[test]
    fn only_what_the_guest_has_is_bound() {
        let (libraries, rootfs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert!(binds(libraries.path(), rootfs.path()).is_empty());
        fs::write(libraries.path().join("libcuda.so.1"), "").unwrap();
        let names: Vec<_> = binds(libraries.path(), rootfs.path()).into_iter().map(|(_, to)| to).collect();
        assert_eq!(names, [Path::new("/usr/lib/libcuda.so.1"), Path::new("/usr/lib/libcuda.so")]);
    }
}
