//! Real mounts, so they run as root. What a guest could do is tried through `export`, by the paths that its backend uses.

use std::os::unix::fs::symlink;

use super::*;

/// A share, and a folder of the host beside it; nothing stays mounted whatever fails.
struct Host {
    dir: tempfile::TempDir,
    share: ShareDir,
}

impl Host {
    fn new() -> Host {
        let dir = tempfile::tempdir().unwrap();
        let share = ShareDir::at(dir.path().join("share"));
        fs::create_dir(dir.path().join("image")).unwrap();
        fs::write(dir.path().join("image/hello"), "x").unwrap();
        share.make().unwrap();
        Host { dir, share }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn add(&self, id: &str, binds: &[Bind]) {
        self.share.add(id, &self.path("image"), binds, b"{}").unwrap();
    }

    fn exported(&self, name: &str) -> PathBuf {
        self.share.export().join(name)
    }

    /// A volume on a file system of its own, with another one in its folder `below`. Both propagate, as systemd has it for a host's.
    fn volume(&self) -> PathBuf {
        let volume = self.path("volume");
        let below = volume.join("below");
        for dir in [&volume, &below] {
            fs::create_dir(dir).unwrap();
            mount::small_tmpfs(dir, 1 << 20, 64).unwrap();
            mount::make_shared(dir).unwrap();
        }
        volume
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.share.remove();
        let _ = mount::take_away(self.dir.path());
    }
}

fn bind(source: &Path, readonly: bool) -> Bind {
    Bind { source: source.into(), target: "mounts/0".into(), recursive: true, readonly }
}

#[track_caller]
fn assert_readonly(result: io::Result<()>, what: &str) {
    assert_eq!(result.map_err(|error| error.kind()), Err(io::ErrorKind::ReadOnlyFilesystem), "{what}");
}

#[test]
fn a_container_appears_in_the_export_and_goes_without_touching_its_files() {
    let host = Host::new();
    let volume = host.path("file");
    fs::write(&volume, "v").unwrap();
    host.add("c", &[bind(&volume, true)]);
    assert_eq!(fs::read(host.exported("c/rootfs/hello")).unwrap(), b"x");
    assert_eq!(fs::read(host.exported("c/mounts/0")).unwrap(), b"v");
    assert_eq!(fs::read(host.exported("c/config.json")).unwrap(), b"{}");
    host.share.remove_container("c").unwrap();
    assert!(!host.exported("c").exists());
    host.add("c", &[]);
    host.share.remove().unwrap();
    host.share.remove().unwrap();
    assert!(!host.path("share").exists());
    assert!(host.path("image/hello").exists() && volume.exists());
}

#[test]
fn a_guest_changes_nothing_of_the_skeleton_and_writes_its_root_and_volumes() {
    let host = Host::new();
    let volume = host.volume();
    for id in ["first", "later"] {
        host.add(id, &[bind(&volume, false)]);
        let (own, export) = (host.exported(id), host.share.export());
        for dir in [&export, &own, &own.join("mounts")] {
            assert_readonly(fs::write(dir.join("new"), ""), "a file");
            assert_readonly(fs::create_dir(dir.join("new")), "a folder");
            assert_readonly(symlink("/etc", dir.join("new")), "a link");
        }
        assert_readonly(fs::write(own.join("config.json"), ""), "the spec");
        assert_readonly(fs::remove_file(own.join("config.json")), "unlink");
        assert_readonly(fs::rename(own.join("config.json"), own.join("old")), "rename");
        assert_readonly(fs::rename(&own, export.join("old")), "the container's folder");
        for writable in ["rootfs/new", "mounts/0/new", "mounts/0/below/new"] {
            fs::write(own.join(writable), id).unwrap();
        }
        assert_eq!(fs::read_to_string(host.path("image/new")).unwrap(), id);
        assert_eq!(fs::read_to_string(volume.join("below/new")).unwrap(), id);
    }
}

#[test]
fn a_read_only_volume_cannot_be_written_through_the_export() {
    let host = Host::new();
    let (volume, file) = (host.volume(), host.path("file"));
    fs::write(volume.join("f"), "").unwrap();
    fs::write(&file, "").unwrap();
    host.add("c", &[bind(&volume, true), Bind { target: "mounts/1".into(), ..bind(&file, true) }]);
    for place in ["mounts/0/f", "mounts/0/new", "mounts/0/below/new", "mounts/1"] {
        assert_readonly(fs::write(host.exported("c").join(place), "x"), place);
    }
    assert_readonly(fs::remove_file(host.exported("c/mounts/0/f")), "unlink");
    fs::write(volume.join("below/host"), "the host itself may").unwrap();
}

#[test]
fn what_the_guest_sees_has_no_devices_and_no_set_user_id_and_keeps_what_the_volume_had() {
    let host = Host::new();
    let volume = host.volume();
    mount::restrict(&volume, MountFlags::NOEXEC).unwrap();
    host.add("c", &[bind(&volume, false)]);
    let mounts = mount::entries(&host.exported("c")).unwrap();
    assert_eq!(mounts.len(), 3, "root, volume, and what is below it: {mounts:?}");
    for (place, flags) in mounts {
        assert!(flags.contains(MountFlags::NOSUID | MountFlags::NODEV), "{place:?}: {flags:?}");
        let in_volume = place.starts_with(host.exported("c/mounts"));
        assert_eq!(flags.contains(MountFlags::NOEXEC), in_volume, "{place:?}: {flags:?}");
        assert!(!flags.contains(MountFlags::RDONLY), "{place:?}: {flags:?}");
    }
    let top = mount::entries(&host.share.export()).unwrap()[0].1;
    assert!(top.contains(MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RDONLY), "{top:?}");
}

#[test]
fn taking_a_container_away_unmounts_nothing_of_the_hosts() {
    let host = Host::new();
    let volume = host.volume();
    host.add("c", &[bind(&volume, false)]);
    host.share.remove_container("c").unwrap();
    assert_eq!(mount::below(&volume).unwrap(), [volume.clone(), volume.join("below")]);
    assert!(mount::below(&host.share.container("c")).unwrap().is_empty());
}

/// Killed between the first mount of a volume and its move: what is left at the stage is still tied to the host's.
#[test]
fn what_a_killed_shim_left_at_the_stage_is_taken_away_alone() {
    for remove in [ShareDir::remove, |share: &ShareDir| share.remove_container("c")] {
        let host = Host::new();
        let volume = host.volume();
        host.add("c", &[]);
        let stage = host.share.stage().join("c/mounts/0");
        fs::create_dir(&stage).unwrap();
        mount::bind(&volume, &stage, true).unwrap();
        remove(&host.share).unwrap();
        assert_eq!(mount::below(&volume).unwrap(), [volume.clone(), volume.join("below")]);
        assert!(mount::below(&stage).unwrap().is_empty() && !stage.exists());
        host.share.remove().unwrap();
        assert!(!host.path("share").exists());
    }
}

#[test]
fn no_link_is_followed_and_nothing_is_overwritten_below_rw() {
    let host = Host::new();
    let (victim, rw) = (host.path("victim"), host.path("share/rw"));
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("file"), "host").unwrap();
    symlink(&victim, rw.join("c")).unwrap();
    host.share.add("c", &host.path("image"), &[], b"{}").unwrap_err();
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 1, "made through the link");
    let (stage, target) = (host.path("stage"), rw.join("target"));
    symlink(victim.join("file"), &target).unwrap();
    let error = expose(&host.path("image/hello"), &stage, &target, false, false).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read_to_string(victim.join("file")).unwrap(), "host");
}

#[test]
fn the_share_holds_many_volumes_but_not_any_number_of_files() {
    let host = Host::new();
    let file = host.path("file");
    fs::write(&file, "").unwrap();
    let volumes: Vec<Bind> =
        (0..200).map(|n| Bind { target: format!("mounts/{n}"), ..bind(&file, true) }).collect();
    host.add("c", &volumes);
    let rw = host.path("share/rw");
    let made = (0..).take_while(|n| File::create_new(rw.join(format!("file{n}"))).is_ok()).count();
    assert!((3_800..=3_900).contains(&made), "{made} more than 205 inodes");
}
