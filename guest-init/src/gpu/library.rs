//! Where a container's loader finds our `libcuda.so.1` and `libnvidia-ml.so.1`, and a shell our `nvidia-smi`; what is bound there.

use std::path::{Path, PathBuf};

/// The libraries and the program in the initramfs.
pub const LIBRARIES: &str = "/usr/lib/vgpu";

/// (file in [`LIBRARIES`], names in the container). `libcuda.so` is what programs open that were linked against the stub.
const NAMES: &[(&str, &[&str])] =
    &[("libcuda.so.1", &["libcuda.so.1", "libcuda.so"]), ("libnvidia-ml.so.1", &["libnvidia-ml.so.1"])];

/// In this order: Debian's multiarch directory, where its loader looks without a cache; the other distributions' 64-bit one; the rest.
const DIRECTORIES: &[&str] = &["/usr/lib/x86_64-linux-gnu", "/usr/lib64"];
const LAST_RESORT: &str = "/usr/lib";

/// A program for images that have none: file in [`LIBRARIES`], and its directory in the container.
const PROGRAM: &str = "nvidia-smi";
const PROGRAMS: &str = "/usr/bin";

/// What to bind into the container with this root file system: each library of `libraries` that there is, and the program if the image
/// has none.
pub fn binds(libraries: &Path, rootfs: &Path) -> Vec<(PathBuf, PathBuf)> {
    let directory = directory(rootfs);
    let there = NAMES.iter().filter(|(file, _)| libraries.join(file).exists());
    there
        .flat_map(|(file, names)| names.iter().map(move |name| (libraries.join(file), directory.join(name))))
        .chain(program(libraries, rootfs))
        .collect()
}

fn program(libraries: &Path, rootfs: &Path) -> Option<(PathBuf, PathBuf)> {
    let (file, to) = (libraries.join(PROGRAM), Path::new(PROGRAMS).join(PROGRAM));
    let is_free = is_directory(rootfs, PROGRAMS) && is_free(&inside(rootfs, &to));
    (file.exists() && is_free).then_some((file, to))
}

/// Nothing is there, or the empty file that an earlier start of this root file system was bound onto: it stays when a container ends.
fn is_free(place: &Path) -> bool {
    !place.symlink_metadata().is_ok_and(|there| !there.is_file() || there.len() > 0)
}

fn directory(rootfs: &Path) -> &'static Path {
    let first = DIRECTORIES.iter().find(|path| is_directory(rootfs, path));
    Path::new(first.copied().unwrap_or(LAST_RESORT))
}

/// Looked at without following links: those of an image lead through the guest's root. `/lib64`, `/bin` and the like are links to ours.
fn is_directory(rootfs: &Path, path: &str) -> bool {
    inside(rootfs, Path::new(path)).symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
}

fn inside(rootfs: &Path, path: &Path) -> PathBuf {
    rootfs.join(path.strip_prefix("/").unwrap_or(path))
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
    fn an_image_keeps_its_own_program_and_gets_none_where_it_has_no_place() {
        let (libraries, rootfs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(libraries.path().join("nvidia-smi"), "").unwrap();
        let bound = || binds(libraries.path(), rootfs.path()).len();
        assert_eq!(bound(), 0, "no /usr/bin");
        fs::create_dir_all(rootfs.path().join("usr/bin")).unwrap();
        let to = PathBuf::from("/usr/bin/nvidia-smi");
        assert_eq!(binds(libraries.path(), rootfs.path()), [(libraries.path().join("nvidia-smi"), to)]);
        let there = rootfs.path().join("usr/bin/nvidia-smi");
        fs::write(&there, "").unwrap();
        assert_eq!(bound(), 1, "what a bind of an earlier start has left");
        fs::write(&there, "#!").unwrap();
        assert_eq!(bound(), 0);
        // Also one that leads nowhere is the image's own.
        fs::remove_file(&there).unwrap();
        std::os::unix::fs::symlink("/nowhere", &there).unwrap();
        assert_eq!(bound(), 0);
    }

    #[test]
    fn only_what_the_guest_has_is_bound() {
        let (libraries, rootfs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert!(binds(libraries.path(), rootfs.path()).is_empty());
        fs::write(libraries.path().join("libcuda.so.1"), "").unwrap();
        let names: Vec<_> = binds(libraries.path(), rootfs.path()).into_iter().map(|(_, to)| to).collect();
        assert_eq!(names, [Path::new("/usr/lib/libcuda.so.1"), Path::new("/usr/lib/libcuda.so")]);
        fs::write(libraries.path().join("libnvidia-ml.so.1"), "").unwrap();
        let last = binds(libraries.path(), rootfs.path()).pop().unwrap();
        assert_eq!(last, (libraries.path().join("libnvidia-ml.so.1"), "/usr/lib/libnvidia-ml.so.1".into()));
    }
}
