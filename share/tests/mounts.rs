//! Mounts below the root: part of the share, each with its own numbers of inodes and its own flags. In a mount namespace of the test's
//! own, which a process of many threads cannot make for itself.

mod client;
mod namespace;

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use client::{Guest, ROOT, me};
use namespace::{mount, play};
use rustix::io::Errno;
use vgpu_share::Text;
use vgpu_share::message::{Changes, Request};

#[test]
fn files_of_one_name_and_inode_number_are_not_mixed_up() {
    play("files_of_one_name_and_inode_number_are_not_mixed_up", || {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("a"), dir.path().join("b"));
        for place in [&first, &second] {
            mount(&["-t", "tmpfs", "none"], place);
            fs::write(place.join("same"), place.as_os_str().as_encoded_bytes()).unwrap();
        }
        let ids = [&first, &second].map(|place| fs::metadata(place.join("same")).unwrap());
        assert!(ids[0].ino() == ids[1].ino() && ids[0].dev() != ids[1].dev(), "as this test needs it");

        let mut guest = Guest::attach(dir.path());
        assert_ne!(guest.qid("a/same").path, guest.qid("b/same").path);
        let fid = guest.find("/").unwrap();
        guest.open(fid, 0).unwrap();
        for (name, qid, _) in guest.entries(fid, 4096).unwrap() {
            if name.len() == 1 && name != b"." {
                assert_eq!(
                    qid,
                    guest.qid(std::str::from_utf8(&name).unwrap()),
                    "a directory tells what is mounted"
                );
            }
        }
        // No name goes from one to the other, and no mount is moved or removed.
        let (a, b, file) =
            (guest.find("a").unwrap(), guest.find("b").unwrap(), guest.find("a/same").unwrap());
        let rename = |old, new| Request::Renameat {
            old_directory: old,
            old_name: Text(b"same"),
            new_directory: new,
            new_name: Text(b"new"),
        };
        assert_eq!(guest.does(&rename(a, b)), Err(Errno::XDEV));
        assert_eq!(
            guest.does(&Request::Link { directory: b, fid: file, name: Text(b"new") }),
            Err(Errno::XDEV)
        );
        assert_eq!(
            guest.does(&Request::Unlinkat { fid: ROOT, name: Text(b"a"), flags: 0x200 }),
            Err(Errno::BUSY)
        );

        mount(&["-t", "tmpfs", "none"], &dir.path().join("late"));
        fs::write(dir.path().join("late/f"), b"later").unwrap();
        let late = guest.find("late/f").unwrap();
        guest.open(late, 0).unwrap();
        assert_eq!(guest.read(late, 0, 10).unwrap(), b"later", "a mount that comes while the guest runs");
        assert_eq!(guest.walk_to(late, 50, &[]).unwrap(), []);
    });
}

#[test]
fn what_is_mounted_read_only_is_not_written_by_any_message() {
    play("what_is_mounted_read_only_is_not_written_by_any_message", || {
        let dir = tempfile::tempdir().unwrap();
        let (source, root) = (dir.path().join("source"), dir.path().join("root"));
        mount(&["-t", "tmpfs", "none"], &source);
        fs::create_dir(source.join("d")).unwrap();
        fs::write(source.join("f"), b"contents").unwrap();
        let place = root.join("ro");
        mount(&["--bind", source.to_str().unwrap()], &place);
        mount(&["-o", "remount,bind,ro"], &place);

        let mut guest = Guest::attach(&root);
        let (fid, file, gid) = (guest.find("ro").unwrap(), guest.find("ro/f").unwrap(), me().1);
        let (new, there) = (Text(b"new"), Text(b"f"));
        let changes = |valid| Changes {
            valid,
            mode: 0o777,
            uid: 1,
            gid: 1,
            size: 1,
            atime_s: 1,
            atime_ns: 1,
            mtime_s: 1,
            mtime_ns: 1,
        };
        for request in [
            Request::Lcreate { fid, name: new, flags: 2, mode: 0o600, gid },
            Request::Lopen { fid: file, flags: 1 },
            Request::Lopen { fid: file, flags: 2 },
            Request::Lopen { fid: file, flags: 0o1000 },
            Request::Symlink { fid, name: new, target: there, gid },
            Request::Mknod { fid, name: new, mode: 0o010_600, major: 0, minor: 0, gid },
            Request::Mkdir { fid, name: new, mode: 0o700, gid },
            Request::Link { directory: fid, fid: file, name: new },
            Request::Renameat { old_directory: fid, old_name: there, new_directory: fid, new_name: new },
            Request::Unlinkat { fid, name: there, flags: 0 },
            Request::Unlinkat { fid, name: Text(b"d"), flags: 0x200 },
            Request::Setattr { fid: file, changes: changes(1) },
            Request::Setattr { fid: file, changes: changes(2) },
            Request::Setattr { fid: file, changes: changes(4) },
            Request::Setattr { fid: file, changes: changes(8) },
            Request::Setattr { fid: file, changes: changes(1 << 5 | 1 << 8) },
        ] {
            assert_eq!(guest.does(&request), Err(Errno::ROFS), "{request:?}");
        }
        let value = guest.find("ro/f").unwrap();
        guest.does(&Request::Xattrcreate { fid: value, name: Text(b"user.x"), size: 0, flags: 0 }).unwrap();
        assert_eq!(guest.does(&Request::Clunk { fid: value }), Err(Errno::ROFS));
        guest.open(file, 0).unwrap();
        assert_eq!(guest.read(file, 0, 100).unwrap(), b"contents");
        let names: Vec<_> = fs::read_dir(&source).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2);
    });
}

#[test]
fn two_containers_over_one_layer_have_files_of_their_own() {
    if !fs::read_to_string("/proc/filesystems").unwrap().contains("\toverlay\n") {
        eprintln!("NOT TRIED: {}: this kernel has no overlayfs", file!());
        return;
    }
    play("two_containers_over_one_layer_have_files_of_their_own", || {
        let dir = tempfile::tempdir().unwrap();
        let layers = dir.path().join("layers");
        mount(&["-t", "tmpfs", "none"], &layers);
        for name in ["lower/d", "upper1", "work1", "upper2", "work2"] {
            fs::create_dir_all(layers.join(name)).unwrap();
        }
        fs::write(layers.join("lower/f"), b"of the image").unwrap();
        fs::hard_link(layers.join("lower/f"), layers.join("lower/d/g")).unwrap();
        let root = dir.path().join("root");
        for number in ["1", "2"] {
            let at = |name: &str| layers.join(name).display().to_string();
            let (lower, upper, work) =
                (at("lower"), at(&format!("upper{number}")), at(&format!("work{number}")));
            let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
            mount(&["-t", "overlay", "overlay", "-o", &options], &root.join(number));
        }
        let mut guest = Guest::attach(&root);
        let (first, second) = (guest.qid("1/f"), guest.qid("2/f"));
        assert_ne!(first.path, second.path, "one file of the layer, two of the containers");
        let file = guest.find("1/f").unwrap();
        guest.open(file, 2).unwrap();
        guest.write(file, 0, b"my").unwrap();
        assert_eq!(guest.read(file, 0, 100).unwrap(), b"my the image");
        assert_eq!(fs::read(layers.join("lower/f")).unwrap(), b"of the image");
        let other = guest.find("2/f").unwrap();
        guest.open(other, 0).unwrap();
        assert_eq!(guest.read(other, 0, 100).unwrap(), b"of the image");

        // What the overlay keeps for itself in its upper layer is neither told nor made by the guest.
        let folder = guest.find("1").unwrap();
        guest.does(&Request::Unlinkat { fid: folder, name: Text(b"f"), flags: 0 }).unwrap();
        assert_eq!(guest.find("1/f"), Err(Errno::NOENT));
        assert!(
            fs::symlink_metadata(layers.join("upper1/f")).unwrap().file_type().is_char_device(),
            "a whiteout"
        );
        let made = Request::Mknod {
            fid: folder,
            name: Text(b"x"),
            mode: 0o020_000,
            major: 0,
            minor: 0,
            gid: me().1,
        };
        assert_eq!(guest.does(&made), Err(Errno::PERM));
        let name = Text(b"trusted.overlay.opaque");
        let value = guest.find("1/d").unwrap();
        assert_eq!(
            guest.does(&Request::Xattrcreate { fid: value, name, size: 1, flags: 0 }),
            Err(Errno::OPNOTSUPP)
        );
        guest.open(folder, 0).unwrap();
        let names: Vec<_> = guest.entries(folder, 4096).unwrap().into_iter().map(|(name, ..)| name).collect();
        assert!(names.contains(&b"d".to_vec()) && !names.contains(&b"f".to_vec()));
    });
}
