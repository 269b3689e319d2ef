//! The server as the shim starts it, but for its rings: a socket is in their place. What it does from behind its walls, and what it has there.

mod client;
mod namespace;

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use client::{Guest, ROOT};
use namespace::{mount, play};
use rustix::io::Errno;
use vgpu_share::message::Request;
use vgpu_share::{Data, Text};

/// A server and its guest; killed at the end.
struct World {
    guest: Guest,
    server: Child,
}

impl World {
    fn serve(directory: &Path) -> Self {
        Self::start(Command::new(env!("CARGO_BIN_EXE_share-server")), directory)
    }

    /// By a command that lacks the server's arguments.
    fn start(mut server: Command, directory: &Path) -> Self {
        let (stream, theirs) = UnixStream::pair().unwrap();
        server
            .args(["test", "-"])
            .arg(directory)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped());
        let mut server = server.spawn().unwrap();
        let mut said = server.stdout.take().unwrap();
        let mut ready = [0; 6];
        said.read_exact(&mut ready).unwrap();
        assert_eq!(&ready, b"ready\n");
        let mut guest = Guest::over(stream);
        guest.ask(&Request::Version { msize: 64 << 10, version: Text(b"9P2000.L") }).unwrap();
        guest.attach_as(ROOT, 0).unwrap();
        World { guest, server }
    }

    fn told(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.server.id())).unwrap()
    }

    fn line(&self, file: &str, start: &str) -> String {
        let text = self.told(file);
        let line =
            text.lines().find_map(|line| line.strip_prefix(start)).unwrap_or_else(|| panic!("{start}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn all_that_a_guest_may_ask_is_done_behind_the_walls() {
    play("all_that_a_guest_may_ask_is_done_behind_the_walls", || {
        let dir = tempfile::tempdir().unwrap();
        let share = dir.path().join("share");
        mount(&["-t", "tmpfs", "none"], &share);
        let mut world = World::serve(&share);
        let guest = &mut world.guest;
        let file = guest.create("/file", 2, 0o4755).unwrap();
        assert_eq!(guest.write(file, 3, b"bytes").unwrap(), 5);
        assert_eq!(guest.read(file, 0, 100).unwrap(), b"\0\0\0bytes");
        guest.does(&Request::Fsync { fid: file, data_only: 0 }).unwrap();
        guest.does(&Request::Fsync { fid: file, data_only: 1 }).unwrap();
        // Opened anew by its descriptor's name, whose own mount is read-only.
        let again = guest.find("/file").unwrap();
        guest.open(again, 1).unwrap();
        assert_eq!(guest.write(again, 3, b"again").unwrap(), 5);
        assert_eq!(guest.write(again, 3, b"bytes").unwrap(), 5);
        let name = Text(b"user.key");
        let value = guest.new_fid();
        guest.walk_to(file, value, &[]).unwrap();
        guest.does(&Request::Xattrcreate { fid: value, name, size: 5, flags: 0 }).unwrap();
        // Some kernels' tmpfs has none of the user's.
        let kept = guest.does(&Request::Write { fid: value, offset: 0, data: Data(b"value") });
        let kept = kept.and(guest.does(&Request::Clunk { fid: value }));
        assert!(matches!(kept, Ok(()) | Err(Errno::OPNOTSUPP)), "{kept:?}");
        let top = guest.find("/").unwrap();
        guest.does(&Request::Mkdir { fid: top, name: Text(b"dir"), mode: 0o2777, gid: 7 }).unwrap();
        guest
            .does(&Request::Symlink { fid: top, name: Text(b"link"), target: Text(b"/etc"), gid: 0 })
            .unwrap();
        let fifo =
            Request::Mknod { fid: top, name: Text(b"fifo"), mode: 0o10_644, major: 0, minor: 0, gid: 0 };
        guest.does(&fifo).unwrap();
        let device =
            Request::Mknod { fid: top, name: Text(b"null"), mode: 0o20_666, major: 1, minor: 3, gid: 0 };
        assert_eq!(guest.does(&device), Err(Errno::PERM));
        guest.does(&Request::Link { directory: top, fid: file, name: Text(b"again") }).unwrap();
        let (old_name, new_name) = (Text(b"again"), Text(b"moved"));
        let dir_fid = guest.find("/dir").unwrap();
        let moved = Request::Renameat { old_directory: top, old_name, new_directory: dir_fid, new_name };
        guest.does(&moved).unwrap();
        let link = guest.find("/link").unwrap();
        guest.does(&Request::Readlink { fid: link }).unwrap();
        guest.does(&Request::Statfs { fid: top }).unwrap();
        guest.open(top, 0).unwrap();
        let names: BTreeSet<_> =
            guest.entries(top, 200).unwrap().into_iter().map(|(name, ..)| name).collect();
        let expected: [&[u8]; 6] = [b".", b"..", b"dir", b"fifo", b"file", b"link"];
        assert_eq!(names, expected.iter().map(|name| name.to_vec()).collect());
        guest.does(&Request::Unlinkat { fid: dir_fid, name: Text(b"moved"), flags: 0 }).unwrap();
        let stat = guest.attributes(file).unwrap();
        assert_eq!((stat.mode, stat.uid), (0o104_755, 0));
        assert_eq!(fs::read(share.join("file")).unwrap(), b"\0\0\0bytes");
    });
}

#[test]
fn what_is_mounted_and_unmounted_later_comes_and_goes() {
    play("what_is_mounted_and_unmounted_later_comes_and_goes", || {
        let dir = tempfile::tempdir().unwrap();
        let share = dir.path().join("share");
        mount(&["-t", "tmpfs", "none"], &share);
        mount(&["--make-shared"], &share);
        let mut world = World::serve(&share);
        assert!(world.guest.find("/later/file").is_err());
        let later = share.join("later");
        mount(&["-t", "tmpfs", "none"], &later);
        fs::write(later.join("file"), "there").unwrap();
        let fid = world.guest.find("/later/file").unwrap();
        world.guest.open(fid, 0).unwrap();
        assert_eq!(world.guest.read(fid, 0, 10).unwrap(), b"there");
        world.guest.does(&Request::Clunk { fid }).unwrap();
        assert!(Command::new("umount").arg(&later).status().unwrap().success());
        assert_eq!(world.guest.find("/later/file"), Err(Errno::NOENT));
    });
}

#[test]
fn behind_the_walls_is_the_share_and_nothing_of_the_node() {
    play("behind_the_walls_is_the_share_and_nothing_of_the_node", || {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("its"), "").unwrap();
        let mut world = World::serve(dir.path());
        // An answer says that the walls are closed.
        world.guest.find("/its").unwrap();

        let pid = world.server.id();
        let list = |path: PathBuf| -> BTreeSet<String> {
            let entries = fs::read_dir(path).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        let root = PathBuf::from(format!("/proc/{pid}/root"));
        assert_eq!(list(root.clone()), ["proc", "share"].map(String::from).into());
        assert_eq!(list(root.join("share")), ["its".to_owned()].into());
        assert_eq!(
            list(root.join("proc")),
            ["self".to_owned()].into(),
            "another process, settings of the kernel"
        );
        assert_eq!(list(root.join("proc/self")), ["fd".to_owned()].into(), "its memory, its settings");
        let mounts = world.told("mountinfo");
        let mut places: Vec<_> = mounts.lines().map(|line| line.split(' ').nth(4).unwrap()).collect();
        places.sort_unstable();
        assert_eq!(places, ["/", "/proc/self/fd", "/share"], "{mounts}");
        for line in mounts.lines().filter(|line| !line.contains(" /share ")) {
            assert!(line.contains(" ro,nosuid,nodev,noexec,"), "{line}");
        }
        for kind in ["mnt", "net", "ipc", "uts", "cgroup"] {
            let of = |who: &str| fs::read_link(format!("/proc/{who}/ns/{kind}")).unwrap();
            assert_ne!(of(&pid.to_string()), of("self"), "{kind}");
        }

        // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETFCAP. Source: `capability.h`.
        let held = format!("{:016x}", 1_u64 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 31);
        for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
            assert_eq!(world.line("status", set), held, "{set}");
        }
        for set in ["CapInh:", "CapAmb:"] {
            assert_eq!(world.line("status", set), "0".repeat(16), "{set}");
        }
        assert_eq!((&*world.line("status", "NoNewPrivs:"), &*world.line("status", "Seccomp:")), ("1", "2"));
        assert_eq!(world.line("status", "Threads:"), "1");
        assert_eq!(world.line("limits", "Max data size"), "67108864 67108864 bytes");
        assert_eq!(world.line("limits", "Max address space"), "268435456 268435456 bytes");
        // 32768 nodes, 8192 open ones and some more, or what may be had here at most.
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        let most = most.map_or(41_024, |most| most.min(41_024));
        assert_eq!(world.line("limits", "Max open files"), format!("{most} {most} files"));
        assert_eq!(world.line("limits", "Max core file size"), "0 0 bytes");
        assert_eq!(world.told("oom_score_adj").trim(), "500");
    });
}

#[test]
fn what_whoever_started_it_left_open_is_closed() {
    play("what_whoever_started_it_left_open_is_closed", || {
        let dir = tempfile::tempdir().unwrap();
        // Descriptors of one digit are those that a shell can name.
        let script = "exec 7< /etc 9< /dev/null; exec \"$0\" \"$@\"";
        let mut server = Command::new("sh");
        server.args(["-c", script, env!("CARGO_BIN_EXE_share-server")]);
        let mut world = World::start(server, dir.path());
        world.guest.find("/").unwrap();
        let open = fs::read_dir(format!("/proc/{}/fd", world.server.id())).unwrap();
        for open in open.map(|open| open.unwrap().path()) {
            let leads = fs::read_link(&open).unwrap();
            assert!(!leads.starts_with("/etc"), "{}: {}", open.display(), leads.display());
            let is_standard =
                matches!(open.file_name().and_then(|name| name.to_str()), Some("0" | "1" | "2"));
            assert!(is_standard || !leads.starts_with("/dev"), "{}: {}", open.display(), leads.display());
        }
    });
}

#[test]
fn a_guest_that_breaks_the_protocol_ends_its_server_which_says_why() {
    play("a_guest_that_breaks_the_protocol_ends_its_server_which_says_why", || {
        let dir = tempfile::tempdir().unwrap();
        let (stream, theirs) = UnixStream::pair().unwrap();
        let mut server = Command::new(env!("CARGO_BIN_EXE_share-server"));
        server.args(["test", "-"]).arg(dir.path()).stdin(Stdio::from(OwnedFd::from(theirs)));
        let server = server.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Guest::over(stream).send(&[3, 0, 0, 0, 100, 0, 0]);
        let ended = server.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(1), "{}", ended.status);
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(said.starts_with("the guest broke the protocol: "), "{said}");
    });
}
