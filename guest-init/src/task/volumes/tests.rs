//! Copies of a container's volumes, and the room that they have.

use serde_json::json;

use super::*;

/// A container's folder in the share with such volumes, and its own.
struct World {
    dir: tempfile::TempDir,
    room: Room,
}

impl World {
    fn of(volumes: usize, bytes: usize, room: u64) -> World {
        let world = World { dir: tempfile::tempdir().unwrap(), room: Room::of(room) };
        for number in 0..volumes {
            fs::create_dir_all(world.source(number)).unwrap();
            world.write(number, "one", bytes);
        }
        world
    }

    fn source(&self, number: usize) -> PathBuf {
        self.dir.path().join("share/mounts").join(number.to_string())
    }

    /// A version with one key, of so many bytes.
    fn write(&self, number: usize, version: &str, bytes: usize) {
        let content = [version.as_bytes(), &vec![b'.'; bytes]].concat();
        vgpu_inside::volume::Volume::at(&self.source(number)).write(version, &[("key", &content)]).unwrap();
    }

    /// A container that mounts these of them, and where each mount comes from.
    fn container(&self, id: &str, numbers: &[usize]) -> (Volumes, Vec<PathBuf>) {
        let mount = |number: &usize| json!({"destination": format!("/{number}"), "type": "bind", "source": self.source(*number)});
        let named = numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
        let mut spec: Spec = serde_json::from_value(json!({
            "ociVersion": "1.1.0", "annotations": {VOLUMES: named},
            "mounts": numbers.iter().map(mount).collect::<Vec<_>>(),
        }))
        .unwrap();
        let (volumes, _mount_points) =
            Volumes::copy(&mut spec, &self.dir.path().join("share"), &self.dir.path().join(id), &self.room);
        let sources = spec.mounts().iter().flatten().filter_map(|mount| mount.source().clone());
        (volumes, sources.collect())
    }

    fn left(&self) -> u64 {
        *self.room.0.lock().unwrap()
    }
}

/// The version that a copy shows.
fn shown(volumes: &Volumes, number: usize) -> String {
    use std::os::fd::AsRawFd;
    let copy = volumes.0[number].copy.lock().unwrap();
    let text = fs::read_to_string(format!("/proc/self/fd/{}/key", copy.root.as_raw_fd())).unwrap();
    text.trim_end_matches('.').to_owned()
}

const KIB: u64 = 1024;

#[test]
fn what_finds_no_room_among_a_pods_copies_stays_in_the_share() {
    let world = World::of(3, 100_000, 250 * KIB);
    let (first, sources) = world.container("a", &[0, 1, 2]);
    assert_eq!(first.0.len(), 2);
    assert!(sources[..2].iter().all(|source| source.starts_with(world.dir.path().join("a"))), "{sources:?}");
    assert_eq!(sources[2], world.source(2));
    let (second, sources) = world.container("b", &[0]);
    assert!(second.0.is_empty() && sources == [world.source(0)], "another container of the pod");
    drop(first);
    assert_eq!(world.left(), 250 * KIB);
    assert_eq!(world.container("b", &[0, 1]).0.0.len(), 2);
}

#[test]
fn a_version_that_finds_no_room_is_told_and_shown_once_there_is_some() {
    let world = World::of(2, 100_000, 350 * KIB);
    let (one, _) = world.container("a", &[0]);
    let (other, _) = world.container("b", &[1]);
    world.write(0, "two", 200_000);
    let refused = one.refresh().unwrap_err().to_string();
    assert_eq!(refused, "show what the volume at /0 is now");
    let why = vgpu_codes::with_causes(&one.refresh().unwrap_err());
    assert!(why.ends_with("KiB are left for copies of the pod's volumes"), "{why}");
    assert_eq!((shown(&one, 0), shown(&other, 0)), ("one".into(), "one".into()));
    drop(other);
    one.refresh().unwrap();
    assert_eq!(shown(&one, 0), "two");
    let left = world.left();
    one.refresh().unwrap();
    assert_eq!(world.left(), left, "what is there takes nothing more");
    world.write(0, "three", 1);
    one.refresh().unwrap();
    drop(one);
    assert_eq!(world.left(), 350 * KIB);
}

#[test]
fn a_version_that_is_too_large_for_a_copy_is_told_and_the_next_one_is_shown() {
    let world = World::of(1, 1, 1 << 30);
    let (volumes, _) = world.container("a", &[0]);
    world.write(0, "two", 9 << 20);
    let why = vgpu_codes::with_causes(&volumes.refresh().unwrap_err());
    let told = "show what the volume at /0 is now: it takes more than the 4096 KiB or 4096 files that a copy may have";
    assert_eq!(why, told);
    assert_eq!(shown(&volumes, 0), "one");
    world.write(0, "three", 1);
    volumes.refresh().unwrap();
    assert_eq!(shown(&volumes, 0), "three");
}
