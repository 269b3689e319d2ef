//! Mounts below the root: part of the share, each with its own numbers of inodes and its own flags. In a mount namespace of the test's
//! own, which a process of many threads cannot make for itself.

mod client;

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use client::{Guest, ROOT, me};
use rustix::io::Errno;
use vgpu_share::Text;
use vgpu_share::message::{Changes, Request};

const INSIDE: &str = "VGPU_SHARE_MOUNTS";
const UNSHARE: [&str; 3] = ["--mount", "--propagation", "private"];

/// Plays `story` in a namespace: this program again, with this test alone.
fn play(test: &str, story: fn()) {
    if env::var_os(INSIDE).is_some() {
        return story();
    }
    if !Command::new("unshare").args(UNSHARE).arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("NOT TRIED: {}: no mount namespace can be made here", file!());
        return;
    }
    let mut again = Command::new("unshare");
    again.args(UNSHARE).arg(env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]);
    let ended = again.env(INSIDE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(
        ended.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&ended.stderr)
    );
}

fn mount(arguments: &[&str], place: &Path) {
    fs::create_dir_all(place).unwrap();
    assert!(Command::new("mount").args(arguments).arg(place).status().unwrap().success());
}

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
