//! Nothing above the root: whatever a name says, wherever a link leads, and whoever changes names meanwhile.

mod client;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use client::{Guest, ROOT, me};
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use tempfile::TempDir;
use vgpu_share::Text;
use vgpu_share::message::{Reply, Request};

/// Far more than both threads need to meet in every order.
const TRIES_MAX: u32 = 1_000_000;
const SECRET: &[u8] = b"not the guest's";

/// A root beside something that is not the guest's.
struct World {
    dir: TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root/d/e")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/secret"), SECRET).unwrap();
        fs::write(dir.path().join("root/d/secret"), b"the guest's").unwrap();
        World { dir }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn outside(&self) -> PathBuf {
        self.dir.path().join("outside")
    }

    /// What must still be there, and nothing more.
    fn assert_outside_is_whole(&self) {
        let entries: Vec<_> =
            fs::read_dir(self.outside()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(entries, ["secret"]);
        assert_eq!(fs::read(self.outside().join("secret")).unwrap(), SECRET);
        assert_eq!(fs::read_dir(self.dir.path()).unwrap().count(), 2);
    }
}

#[test]
fn no_name_leaves_the_root() {
    let world = World::new();
    let mut guest = Guest::attach(&world.root());
    let (gid, fid) = (me().1, ROOT);
    let file = guest.find("d/secret").unwrap();
    let absolute = world.outside().join("secret").into_os_string().into_encoded_bytes();
    let long = [b'x'; 256];
    let names: [(&[u8], Errno); 9] = [
        (b"", Errno::INVAL),
        (b".", Errno::INVAL),
        (b"..", Errno::INVAL),
        (b"/", Errno::INVAL),
        (b"../outside", Errno::INVAL),
        (b"d/secret", Errno::INVAL),
        (b"d\0", Errno::INVAL),
        (&absolute, Errno::INVAL),
        (&long, Errno::NAMETOOLONG),
    ];
    for (name, errno) in names {
        if name != b".." {
            assert_eq!(guest.walk_to(ROOT, 5, &[name]), Err(errno), "{name:?}");
        }
        let name = Text(name);
        for request in [
            Request::Lcreate { fid, name, flags: 2, mode: 0o600, gid },
            Request::Symlink { fid, name, target: Text(b"x"), gid },
            Request::Mknod { fid, name, mode: 0o100_600, major: 0, minor: 0, gid },
            Request::Mkdir { fid, name, mode: 0o700, gid },
            Request::Link { directory: fid, fid: file, name },
            Request::Renameat {
                old_directory: fid,
                old_name: name,
                new_directory: fid,
                new_name: Text(b"n"),
            },
            Request::Renameat {
                old_directory: fid,
                old_name: Text(b"d"),
                new_directory: fid,
                new_name: name,
            },
            Request::Unlinkat { fid, name, flags: 0 },
            Request::Unlinkat { fid, name, flags: 0x200 },
        ] {
            assert_eq!(guest.does(&request), Err(errno), "{request:?}");
        }
    }
    assert_eq!(fs::read_dir(world.root()).unwrap().count(), 1, "nothing was made or taken");
    world.assert_outside_is_whole();
}

#[test]
fn up_from_the_root_is_the_root() {
    let world = World::new();
    let mut guest = Guest::attach(&world.root());
    let root = guest.attributes(ROOT).unwrap().qid;
    assert_eq!(guest.walk_to(ROOT, 5, &[b"..", b"..", b".."]).unwrap(), [root; 3]);
    assert_eq!(guest.walk_to(5, 6, &[b"outside"]), Err(Errno::NOENT));
    let (d, e) = (guest.qid("d"), guest.qid("d/e"));
    assert_eq!(
        guest.walk_to(ROOT, 7, &[b"d", b"e", b"..", b"..", b"..", b"d"]).unwrap(),
        [d, e, d, root, root, d]
    );
    assert_eq!(guest.walk_to(7, 7, &[b"secret"]).unwrap().len(), 1);
    assert_eq!(guest.walk_to(7, 8, &[b".."]), Err(Errno::NOTDIR), "a file has no entries");
}

#[test]
fn links_are_told_and_never_followed() {
    let world = World::new();
    let outside = world.outside();
    for (name, target) in [
        ("absolute", outside.clone()),
        ("up", PathBuf::from("../outside")),
        ("inside", PathBuf::from("d")),
        ("file", outside.join("secret")),
        ("dangling", outside.join("new")),
    ] {
        symlink(target, world.root().join(name)).unwrap();
    }
    let mut guest = Guest::attach(&world.root());
    for name in ["absolute", "up", "inside", "file", "dangling"] {
        let link = guest.find(name).unwrap();
        assert_eq!(guest.attributes(link).unwrap().qid.kind, 0x02);
        assert_eq!(guest.open(link, 0), Err(Errno::LOOP));
        assert_eq!(guest.walk_to(link, 50, &[b"secret"]), Err(Errno::NOTDIR));
        assert_eq!(guest.walk_to(ROOT, 51, &[name.as_bytes(), b"secret"]).unwrap().len(), 1, "half a walk");
        assert_eq!(guest.attributes(51), Err(Errno::BADF), "makes no fid");
        let through = Request::Mkdir { fid: link, name: Text(b"x"), mode: 0o700, gid: me().1 };
        assert_eq!(guest.does(&through), Err(Errno::NOTDIR));
        // Where something is to be made, a link is something that is there.
        assert_eq!(guest.create(name, 2, 0o600).unwrap_err(), Errno::LOOP);
        assert_eq!(guest.create(name, 0o202, 0o600).unwrap_err(), Errno::EXIST);
        let remove = Request::Unlinkat { fid: ROOT, name: Text(name.as_bytes()), flags: 0 };
        guest.does(&remove).unwrap();
    }
    world.assert_outside_is_whole();
}

#[test]
fn links_of_the_kernels_own_are_not_followed_either() {
    let mut guest = Guest::attach(Path::new("/proc"));
    let own = std::process::id().to_string();
    for name in ["root", "cwd", "exe"] {
        let link = guest.find(&format!("{own}/{name}")).unwrap();
        assert_eq!(guest.walk_to(link, 50, &[b"etc"]), Err(Errno::NOTDIR), "{name}");
        assert_eq!(guest.open(link, 0), Err(Errno::LOOP), "{name}");
    }
    let link = guest.find("self").unwrap();
    assert!(matches!(guest.ask(&Request::Readlink { fid: link }), Ok(Reply::Readlink { .. })));
}

/// Swaps two names until it is dropped.
struct Swapper {
    stop: std::sync::Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Swapper {
    fn new(first: PathBuf, second: PathBuf) -> Self {
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let until = std::sync::Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(CWD, &first, CWD, &second, RenameFlags::EXCHANGE).unwrap();
            }
        });
        Swapper { stop, thread: Some(thread) }
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn a_directory_that_becomes_a_link_while_it_is_walked_leads_nowhere() {
    let world = World::new();
    symlink(world.outside(), world.root().join("link")).unwrap();
    let mut guest = Guest::attach(&world.root());
    let swapper = Swapper::new(world.root().join("d"), world.root().join("link"));
    // Both are met a hundred times, however the threads take turns.
    let (mut found, mut refused, mut tries) = (0, 0, 0..TRIES_MAX);
    while found < 100 || refused < 100 {
        tries.next().expect("directory and link, each a hundred times");
        let fid = guest.new_fid();
        if guest.walk_to(ROOT, fid, &[b"d", b"secret"]).unwrap().len() < 2 {
            refused += 1;
            continue;
        }
        guest.open(fid, 0).unwrap();
        assert_eq!(guest.read(fid, 0, 100).unwrap(), b"the guest's");
        guest.does(&Request::Clunk { fid }).unwrap();
        found += 1;
    }
    drop(swapper);
    world.assert_outside_is_whole();
}

#[test]
fn a_file_that_becomes_a_link_while_it_is_made_is_not_written_through() {
    let world = World::new();
    fs::write(world.root().join("f"), b"").unwrap();
    symlink(world.outside().join("secret"), world.root().join("link")).unwrap();
    let mut guest = Guest::attach(&world.root());
    let swapper = Swapper::new(world.root().join("f"), world.root().join("link"));
    let (mut found, mut refused, mut tries) = (0, 0, 0..TRIES_MAX);
    while found < 100 || refused < 100 {
        tries.next().expect("file and link, each a hundred times");
        match guest.create("f", 0o1002, 0o600) {
            Ok(fid) => {
                guest.write(fid, 0, b"over it").unwrap();
                guest.does(&Request::Clunk { fid }).unwrap();
                found += 1;
            }
            Err(Errno::LOOP) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    drop(swapper);
    world.assert_outside_is_whole();
}

#[test]
fn a_directory_that_is_moved_out_while_it_is_walked_leads_to_nothing_beside_it() {
    let world = World::new();
    let mut guest = Guest::attach(&world.root());
    let (root, d) = (guest.qid("/"), guest.qid("d"));
    let fid = guest.find("d/e").unwrap();
    fs::rename(world.root().join("d/e"), world.outside().join("e")).unwrap();
    assert_eq!(guest.walk_to(fid, 50, &[b"secret"]), Err(Errno::NOENT));
    assert_eq!(guest.walk_to(fid, 51, &[b"..", b"secret"]).unwrap().len(), 2, "up is where it was found");
    guest.open(51, 0).unwrap();
    assert_eq!(guest.read(51, 0, 100).unwrap(), b"the guest's");
    assert_eq!(guest.walk_to(fid, 52, &[b"..", b"..", b".."]).unwrap(), [d, root, root]);
    guest.open(fid, 0).unwrap();
    let entries = guest.entries(fid, 4096).unwrap();
    let up = entries.iter().find(|entry| entry.0 == b"..").unwrap();
    assert_eq!(up.1, d, "what lies above it now is not told");
    fs::remove_dir(world.outside().join("e")).unwrap();
    world.assert_outside_is_whole();
}
