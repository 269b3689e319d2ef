//! Volumes as kubelet makes them, and what is seen of their copies.

use std::{
    fs::Permissions,
    os::unix::fs::{PermissionsExt, lchown, symlink},
};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use vgpu_inside::{volume::Volume, watch::Watcher};

use super::*;

/// A volume and its copy.
struct Both {
    dir: tempfile::TempDir,
    volume: PathBuf,
    copy: PathBuf,
}

impl Both {
    fn of(files: &[(&str, &[u8])]) -> Both {
        let dir = tempfile::tempdir().unwrap();
        let [volume, copy] = ["volume", "copy"].map(|name| dir.path().join(name));
        fs::create_dir(&volume).unwrap();
        fs::create_dir(&copy).unwrap();
        let both = Both { dir, volume, copy };
        both.write("one", files);
        both
    }

    fn write(&self, version: &str, files: &[(&str, &[u8])]) {
        Volume::at(&self.volume).write(version, files).unwrap();
    }

    fn update(&self) -> io::Result<()> {
        update(&self.volume, &File::open(&self.copy)?)
    }

    fn assert_same(&self) {
        assert_eq!(all(&self.volume), all(&self.copy));
    }
}

/// Each path with its owner, its mode, and what it holds.
fn all(folder: &Path) -> BTreeMap<PathBuf, (u32, u32, u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut paths = vec![folder.to_owned()];
    while let Some(path) = paths.pop() {
        let is = fs::symlink_metadata(&path).unwrap();
        let holds = match (is.is_symlink(), is.is_dir()) {
            (true, _) => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
            (_, true) => {
                paths.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                Vec::new()
            }
            _ => fs::read(&path).unwrap(),
        };
        let below = path.strip_prefix(folder).unwrap().to_owned();
        found.insert(below, (is.uid(), is.gid(), is.mode(), holds));
    }
    found
}

/// Who watches a volume, and a file in it as programs do: through its links.
fn watcher(volume: &Path, file: &str) -> Watcher {
    Watcher::of(&[volume, &volume.join(file)]).unwrap()
}

#[test]
fn who_watches_the_copy_sees_what_who_watches_the_volume_sees() {
    let both = Both::of(&[("stays", b"1"), ("goes", b"1")]);
    both.update().unwrap();
    let watchers = [&both.volume, &both.copy].map(|folder| watcher(folder, "stays"));
    both.write("two", &[("stays", b"2"), ("comes", b"2")]);
    both.update().unwrap();
    let [right, ours] = watchers.map(|watcher| watcher.seen().unwrap());
    assert_eq!(ours, right);
    for part in
        ["1 MOVED_TO ..data", "1 CREATE comes", "1 DELETE goes", "1 DELETE ISDIR ..one", "2 DELETE_SELF"]
    {
        assert!(right.iter().any(|event| event.contains(part)), "{part} in {right:#?}");
    }
    both.assert_same();
}

#[test]
fn the_copy_has_the_volumes_bytes_folders_owners_and_modes() {
    let binary: Vec<u8> = (0..100_000u32).map(|number| number.to_le_bytes()[number as usize % 4]).collect();
    let both = Both::of(&[("key", &binary), ("a/b/c/deep", b"x"), ("a/b/other", b""), ("token", b"t")]);
    let version = both.volume.join("..one");
    // As kubelet does for fsGroup.
    for (path, mode) in
        [(both.volume.clone(), 0o2770), (version.clone(), 0o2750), (version.join("a/b"), 0o2750)]
    {
        lchown(&path, None, Some(2000)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
    lchown(both.volume.join("key"), None, Some(2000)).unwrap();
    lchown(version.join("token"), Some(1000), Some(2000)).unwrap();
    fs::set_permissions(version.join("token"), Permissions::from_mode(0o600)).unwrap();
    both.update().unwrap();
    both.assert_same();
    let changed = |volume: &Path| fs::metadata(volume.join("key")).unwrap().modified().unwrap();
    assert_eq!(changed(&both.copy), changed(&both.volume));

    both.write("two", &[("a/b/c/deep", b"y")]);
    both.update().unwrap();
    both.assert_same();
}

/// Older kubelets give a version its owners when it is shown already.
#[test]
fn an_owner_that_comes_late_is_followed_and_nothing_else_happens() {
    let both = Both::of(&[("key", b"1")]);
    both.update().unwrap();
    let watcher = watcher(&both.copy, "key");
    both.update().unwrap();
    assert_eq!(watcher.seen().unwrap(), [""; 0]);
    lchown(both.volume.join("..one/key"), Some(7), Some(8)).unwrap();
    both.update().unwrap();
    both.assert_same();
    assert!(!watcher.seen().unwrap().is_empty());
}

#[test]
fn what_does_not_fit_leaves_the_version_before_and_a_later_one_comes() {
    let both = Both::of(&[("key", b"1")]);
    mount("copy", &both.copy, "tmpfs", MountFlags::empty(), c"size=64k").unwrap();
    let outcome = || -> io::Result<()> {
        both.update()?;
        both.write("two", &[("key", &[2; 100_000]), ("new", b"2")]);
        let refused = both.update().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(both.copy.join("key"))?, b"1");
        assert_eq!(fs::read_dir(&both.copy)?.count(), 3, "..data, ..one and key");
        both.write("three", &[("key", b"3")]);
        both.update()
    };
    let outcome = outcome();
    let read = fs::read(both.copy.join("key"));
    unmount(&both.copy, UnmountFlags::DETACH).unwrap();
    outcome.unwrap();
    assert_eq!(read.unwrap(), b"3");
}

#[test]
fn what_is_not_of_kubelets_form_is_no_volume() {
    let both = Both::of(&[("key", b"1")]);
    for elsewhere in ["/etc", "..", "one", "../volume", "..one/a"] {
        fs::remove_file(both.volume.join(DATA)).unwrap();
        symlink(elsewhere, both.volume.join(DATA)).unwrap();
        both.update().unwrap_err();
    }
    fs::remove_file(both.volume.join(DATA)).unwrap();
    assert_eq!(both.update().unwrap_err().kind(), io::ErrorKind::NotFound);
    symlink("..one", both.volume.join(DATA)).unwrap();
    fs::write(both.volume.join("file"), "beside the links").unwrap();
    both.update().unwrap_err();
    fs::remove_file(both.volume.join("file")).unwrap();
    both.update().unwrap();
    let secret = both.dir.path().join("secret");
    fs::write(&secret, "the node's").unwrap();
    symlink(&secret, both.volume.join("..one/link")).unwrap();
    both.update().unwrap_err();
}

/// What a container plants that has made its view of the copy writable. It stays as it is, and the copy is the volume's again.
#[test]
fn no_link_that_somebody_plants_in_a_copy_is_followed() {
    let files: &[(&str, &[u8])] = &[("key", b"1"), ("folder/deep", b"1")];
    let plants = [
        ("..one", "outside"),
        ("..one/key", "outside/key"),
        ("..one/folder", "outside"),
        ("..one/folder/deep", "outside/key"),
        ("..data", "outside"),
        ("..data_tmp", "outside"),
        ("..two", "outside"),
        ("key", "outside/key"),
        ("folder", "outside"),
        ("..other", "outside"),
        ("other", "outside/key"),
    ];
    for (place, leads_to) in plants {
        for next in [None, Some("two")] {
            let both = Both::of(files);
            both.update().unwrap();
            let outside = both.dir.path().join("outside");
            fs::create_dir(&outside).unwrap();
            Volume::at(&outside).write("two", &[]).unwrap();
            fs::write(outside.join("key"), "the guest's").unwrap();
            fs::set_permissions(outside.join("key"), Permissions::from_mode(0o600)).unwrap();
            lchown(outside.join("key"), Some(7), Some(7)).unwrap();
            let before = all(&outside);
            let planted = both.copy.join(place);
            if fs::symlink_metadata(&planted).is_ok_and(|there| there.is_dir()) {
                fs::remove_dir_all(&planted).unwrap();
            } else if fs::symlink_metadata(&planted).is_ok() {
                fs::remove_file(&planted).unwrap();
            }
            symlink(both.dir.path().join(leads_to), &planted).unwrap();
            if let Some(version) = next {
                both.write(version, &[("key", b"2"), ("folder/deep", b"2")]);
            }
            let updated = both.update();
            assert_eq!(all(&outside), before, "{place}, then {next:?}: {updated:?}");
            updated.unwrap();
            both.assert_same();
        }
    }
}

#[test]
fn what_is_of_another_kind_than_kubelet_made_it_is_replaced() {
    for place in ["..data", "..data_tmp", "..two", "key", "other"] {
        for is_folder in [false, true] {
            let both = Both::of(&[("key", b"1")]);
            both.update().unwrap();
            let planted = both.copy.join(place);
            let _ = fs::remove_file(&planted);
            if is_folder {
                fs::create_dir_all(planted.join("a/b")).unwrap();
                fs::write(planted.join("a/b/c"), "planted").unwrap();
            } else {
                fs::write(&planted, "planted").unwrap();
            }
            both.write("two", &[("key", b"2")]);
            both.update().unwrap();
            both.assert_same();
        }
    }
}
