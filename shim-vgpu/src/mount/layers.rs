//! Overlays of many layers: mount(2) takes options of less than a page, which some fifty layers of containerd's fill with their full paths.
//!
//! Names below the folder that all of them share are short; they are looked up from the working folder of who mounts.

use std::{ffi::CString, io, path::Path, thread};

use nix::sched::{CloneFlags, unshare};
use rustix::mount::MountFlags;

/// What mount(2) reads of its options, their end included. What is longer it cuts off without a word. Source: `mount(2)`, Linux `copy_mount_options`.
const DATA_BYTES_MAX: usize = 4096;
const LOWER: &str = "lowerdir=";

/// Mounts a file system, whose options may be longer than mount(2) takes if they are an overlay's layers.
///
/// # Errors
/// mount(2)'s, and [`io::ErrorKind::ArgumentListTooLong`] for options that stay too long, with nothing mounted.
pub(super) fn mount(
    source: &str,
    target: &Path,
    kind: &str,
    flags: MountFlags,
    data: String,
) -> io::Result<()> {
    let mount = |data: String| {
        if data.len() >= DATA_BYTES_MAX {
            let long = data.len();
            let words = format!(
                "options of {long} bytes, mount(2) takes {}: an image of fewer layers needs less",
                DATA_BYTES_MAX - 1
            );
            return Err(io::Error::new(io::ErrorKind::ArgumentListTooLong, words));
        }
        Ok(rustix::mount::mount(source, target, kind, flags, CString::new(data)?.as_c_str())?)
    };
    if data.len() < DATA_BYTES_MAX {
        return mount(data);
    }
    let Some((base, data)) = shortened(&data) else { return mount(data) };
    thread::scope(|scope| {
        let beside = scope.spawn(|| {
            // The working folder is the process's, unless a thread has its own.
            unshare(CloneFlags::CLONE_FS)?;
            rustix::process::chdir(&base)?;
            mount(data)
        });
        beside.join().unwrap_or_else(|_| Err(io::Error::other("it panicked")))
    })
}

/// The folder that all lower layers are below, and the options with their names from there. None: there is none but the root.
fn shortened(data: &str) -> Option<(String, String)> {
    let lower = data.split(',').find_map(|option| option.strip_prefix(LOWER))?;
    let mut base = parent(lower.split(':').next()?)?;
    for layer in lower.split(':') {
        // A layer that is the folder itself has no name below it.
        while below(base, layer).is_none_or(str::is_empty) {
            base = parent(base.strip_suffix('/')?)?;
        }
    }
    if base == "/" {
        return None;
    }
    let names: Vec<&str> = lower.split(':').filter_map(|layer| below(base, layer)).collect();
    let data = data.replacen(&format!("{LOWER}{lower}"), &format!("{LOWER}{}", names.join(":")), 1);
    Some((base.to_owned(), data))
}

/// The name from there, which no slash begins: however many are between the two, it would be another one from the root.
fn below<'a>(base: &str, layer: &'a str) -> Option<&'a str> {
    layer.strip_prefix(base).map(|name| name.trim_start_matches('/'))
}

/// The folder of an absolute path, with the slash at its end.
fn parent(path: &str) -> Option<&str> {
    path.starts_with('/').then(|| path.rfind('/').map(|at| &path[..=at])).flatten()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn layers_are_named_from_the_folder_that_all_are_in() {
        let short = |lower: &str| shortened(&format!("index=off,lowerdir={lower},upperdir=/s/9/fs"));
        let is = |base: &str, lower: &str| {
            Some((base.to_owned(), format!("index=off,lowerdir={lower},upperdir=/s/9/fs")))
        };
        assert_eq!(short("/s/12/fs:/s/1/fs:/s/3/fs"), is("/s/", "12/fs:1/fs:3/fs"));
        assert_eq!(short("/s/12/fs:/s/12/fsx"), is("/s/12/", "fs:fsx"));
        assert_eq!(short("/var/s/12:/var/s2/1"), is("/var/", "s/12:s2/1"));
        assert_eq!(short("/s/1/fs:/s//2/fs:/s/3//fs"), is("/s/", "1/fs:2/fs:3//fs"));
        assert_eq!(short("/var/s//12/fs:/var/s/1/fs"), is("/var/s/", "12/fs:1/fs"));
        assert_eq!(short("/var/s/12/:/var/s/12//"), is("/var/s/", "12/:12//"));
        assert_eq!(short("/var/s/12/fs"), is("/var/s/12/", "fs"));
        for none in ["/a/fs:/b/fs", "a/fs:a/fs2", "/s/1:s/2", "/s/1:"] {
            assert_eq!(short(none), None, "{none}");
        }
        assert_eq!(shortened("size=1m"), None);
    }

    #[test]
    fn an_overlay_of_a_hundred_layers_shows_each_and_the_working_folder_stays() {
        let dir = tempfile::tempdir().unwrap();
        // An overlay can have no upper layer on some machines' /tmp, which is itself one.
        super::super::small_tmpfs(dir.path(), 1 << 22, 4096).unwrap();
        let root =
            dir.path().join("a-name-as-long-as-those-of-containerds-snapshotter-for-overlays/snapshots");
        let layers: Vec<_> = (0..100).map(|number| root.join(number.to_string()).join("fs")).collect();
        for (number, layer) in layers.iter().enumerate() {
            fs::create_dir_all(layer).unwrap();
            fs::write(layer.join(format!("of-{number}")), "").unwrap();
            fs::write(layer.join("top"), number.to_string()).unwrap();
        }
        let (upper, work, target) = (root.join("u"), root.join("w"), root.join("t"));
        for folder in [&upper, &work, &target] {
            fs::create_dir_all(folder).unwrap();
        }
        let lower: Vec<_> = layers.iter().map(|layer| layer.to_string_lossy()).collect();
        let data = format!(
            "index=off,workdir={},upperdir={},lowerdir={}",
            work.display(),
            upper.display(),
            lower.join(":")
        );
        assert!(data.len() > 2 * DATA_BYTES_MAX);
        let here = std::env::current_dir().unwrap();
        let mounted = mount("overlay", &target, "overlay", MountFlags::NODEV, data);
        let seen = fs::read_dir(&target).unwrap().count();
        let top = fs::read_to_string(target.join("top")).unwrap_or_default();
        super::super::take_away(dir.path()).unwrap();
        mounted.unwrap();
        assert_eq!((seen, top.as_str()), (101, "0"));
        assert_eq!(std::env::current_dir().unwrap(), here);
    }

    #[test]
    fn options_that_stay_too_long_are_refused_and_nothing_is_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size=1m{}", ",mode=0755".repeat(500));
        let refused = mount("x", dir.path(), "tmpfs", MountFlags::empty(), size).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ArgumentListTooLong);
        assert!(super::super::below(dir.path()).unwrap().is_empty());
    }
}
