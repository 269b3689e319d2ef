//! A guest that keeps to no rule: errors for it or the end of its session, and nothing else of the host's.

mod client;

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use client::{Guest, ROOT, directory, me};
use rustix::fs::{CWD, FileType, Mode};
use rustix::io::Errno;
use vgpu_share::message::{Changes, NO_FID, Range, Request};
use vgpu_share::{Data, Desk, Ended, Limits, Malformed, Session, Text};

#[test]
fn a_fid_that_is_not_there_is_an_error_of_each_message() {
    let root = tempfile::tempdir().unwrap();
    let mut guest = Guest::attach(root.path());
    let (name, client) = (Text(b"x"), Text(b""));
    let changes = Changes {
        valid: 1,
        mode: 0,
        uid: 0,
        gid: 0,
        size: 0,
        atime_s: 0,
        atime_ns: 0,
        mtime_s: 0,
        mtime_ns: 0,
    };
    for fid in [99, NO_FID] {
        for request in [
            Request::Statfs { fid },
            Request::Lopen { fid, flags: 0 },
            Request::Lcreate { fid, name, flags: 2, mode: 0, gid: 0 },
            Request::Symlink { fid, name, target: name, gid: 0 },
            Request::Mknod { fid, name, mode: 0o010_000, major: 0, minor: 0, gid: 0 },
            Request::Readlink { fid },
            Request::Getattr { fid, mask: 0 },
            Request::Setattr { fid, changes },
            Request::Xattrwalk { fid, new_fid: 5, name: Text(b"") },
            Request::Xattrcreate { fid, name: Text(b"user.x"), size: 0, flags: 0 },
            Request::Readdir { fid, offset: 0, count: 4096 },
            Request::Fsync { fid, data_only: 0 },
            Request::Lock { fid, kind: 0, flags: 0, start: 0, length: 0, process: 0, client },
            Request::Getlock { fid, range: Range { kind: 0, start: 0, length: 0, process: 0 }, client },
            Request::Link { directory: fid, fid: ROOT, name },
            Request::Link { directory: ROOT, fid, name },
            Request::Mkdir { fid, name, mode: 0, gid: 0 },
            Request::Renameat { old_directory: fid, old_name: name, new_directory: ROOT, new_name: name },
            Request::Renameat { old_directory: ROOT, old_name: name, new_directory: fid, new_name: name },
            Request::Unlinkat { fid, name, flags: 0 },
            Request::Walk { fid, new_fid: 5, names: vec![] },
            Request::Read { fid, offset: 0, count: 1 },
            Request::Write { fid, offset: 0, data: Data(b"x") },
            Request::Clunk { fid },
            Request::Remove { fid },
        ] {
            assert_eq!(guest.does(&request), Err(Errno::BADF), "{request:?}");
        }
    }
    assert_eq!(guest.walk_to(ROOT, NO_FID, &[]), Err(Errno::INVAL));
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn counts_and_offsets_that_are_too_large_are_cut_or_refused() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("big"), vec![1; 200_000]).unwrap();
    let mut guest = Guest::attach(root.path());
    let fid = guest.find("big").unwrap();
    guest.open(fid, 2).unwrap();
    assert_eq!(guest.read(fid, 0, u32::MAX).unwrap().len(), (64 << 10) - 11, "what a message holds");
    for offset in [1 << 63, u64::MAX] {
        assert_eq!(guest.read(fid, offset, 1), Err(Errno::INVAL));
        assert_eq!(guest.write(fid, offset, b"x"), Err(Errno::INVAL));
    }
    assert_eq!(guest.read(fid, i64::MAX.unsigned_abs(), 0), Ok(vec![]));
    let end = guest.write(fid, i64::MAX.unsigned_abs(), b"x");
    assert!(matches!(end, Err(Errno::FBIG | Errno::INVAL)), "{end:?}");
    assert_eq!(fs::metadata(root.path().join("big")).unwrap().len(), 200_000);
}

#[test]
fn an_answer_that_does_not_fit_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("x".repeat(4090), root.path().join("l")).unwrap();
    let mut guest = Guest::attach(root.path());
    let fid = guest.find("l").unwrap();
    guest.does(&Request::Readlink { fid }).unwrap();
    guest.does(&Request::Version { msize: 4096, version: Text(b"9P2000.L") }).unwrap();
    guest.attach_as(ROOT, me().0).unwrap();
    let fid = guest.find("l").unwrap();
    assert_eq!(guest.does(&Request::Readlink { fid }), Err(Errno::MSGSIZE));
    guest.attributes(fid).unwrap();
}

#[test]
fn bytes_that_are_no_message_end_the_session() {
    let root = tempfile::tempdir().unwrap();
    let long = [&0x0001_0001_u32.to_le_bytes()[..], &[0; 100]].concat();
    for (bytes, is_expected) in [
        (
            &b"\x06\0\0\0\x78\0\0"[..],
            (|ended| matches!(ended, Malformed::Size { size: 6, .. })) as fn(_) -> bool,
        ),
        (&[0xff; 64], |ended| matches!(ended, Malformed::Size { size: u32::MAX, .. })),
        (&long, |ended| matches!(ended, Malformed::Size { size: 65537, limit: 65536 })),
        (b"\x08\0\0\0\x78\0\0\0", |ended| ended == Malformed::Short(120)),
        (b"\x0c\0\0\0\x78\0\0\0\0\0\0\0", |ended| ended == Malformed::Long(120, 1)),
    ] {
        let mut guest = Guest::attach(root.path());
        guest.send(bytes);
        assert_eq!(guest.receive(), None, "{bytes:?}");
        match guest.end() {
            Err(Ended::Protocol(malformed)) => assert!(is_expected(malformed), "{malformed}"),
            other => panic!("{other:?}"),
        }
    }
    let mut guest = Guest::attach(root.path());
    guest.send(b"\x07\0\0\0\xfe\x05\0");
    let unknown =
        vgpu_share::message::Reply::Lerror { errno: Errno::OPNOTSUPP.raw_os_error().unsigned_abs() };
    assert_eq!(guest.receive(), Some((5, unknown)), "what we don't know is told so");
    guest.attributes(ROOT).unwrap();
    guest.send(b"\x07\0\0");
    assert!(matches!(guest.end(), Err(Ended::Stream(_))), "half a message");
}

#[test]
fn only_plain_files_and_directories_are_opened() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let _listener = UnixListener::bind(at("socket")).unwrap();
    let mut guest = Guest::attach(root.path());
    // Nobody reads or writes the fifo: an open of it would wait for ever.
    for name in ["fifo", "socket"] {
        for flags in [0, 1, 2] {
            let fid = guest.find(name).unwrap();
            assert_eq!(guest.open(fid, flags), Err(Errno::NXIO), "{name}");
            assert_eq!(guest.create(name, 0o100 | flags, 0o600).unwrap_err(), Errno::NXIO, "{name}");
        }
    }
    let mut guest = Guest::attach(Path::new("/dev"));
    let (null, told) = (guest.find("null").unwrap(), fs::metadata("/dev/null").unwrap());
    assert_eq!(guest.attributes(null).unwrap().device, std::os::unix::fs::MetadataExt::rdev(&told));
    assert_eq!(guest.open(null, 2), Err(Errno::NXIO));
}

#[test]
fn what_a_guest_makes_a_session_keep_is_bounded() {
    let root = tempfile::tempdir().unwrap();
    let limits = Limits { fids_max: 20, values_bytes_max: 1000, ..Limits::default() };
    let mut guest = Guest::attach_with(root.path(), limits);
    for fid in 1..20 {
        guest.walk_to(ROOT, fid, &[]).unwrap();
    }
    assert_eq!(guest.walk_to(ROOT, 20, &[]), Err(Errno::NFILE));
    assert_eq!(guest.attach_as(20, 0), Err(Errno::NFILE));
    guest.walk_to(1, 1, &[]).unwrap();
    guest.does(&Request::Clunk { fid: 1 }).unwrap();
    guest.walk_to(ROOT, 20, &[]).unwrap();
    let value = |fid, size| Request::Xattrcreate { fid, name: Text(b"user.x"), size, flags: 0 };
    guest.does(&value(2, 600)).unwrap();
    assert_eq!(guest.does(&value(3, 401)), Err(Errno::NOMEM));
    assert_eq!(guest.does(&value(3, u64::MAX)), Err(Errno::RANGE));
    assert_eq!(guest.does(&Request::Clunk { fid: 2 }), Err(Errno::INVAL), "nothing was written");
    guest.does(&value(3, 1000)).unwrap();
}

/// A fid keeps all that is above its object, and each walk finds that anew.
#[test]
fn descriptors_on_the_way_to_an_object_are_bounded() {
    let root = tempfile::tempdir().unwrap();
    let deep = ["a"; 8];
    fs::create_dir_all(root.path().join(deep.join("/"))).unwrap();
    let mut guest = Guest::attach_with(root.path(), Limits { nodes_max: 20, ..Limits::default() });
    let way = [&b"a"[..]; 8];
    guest.walk_to(ROOT, 1, &way).unwrap();
    guest.walk_to(ROOT, 2, &way).unwrap();
    // Three are left, and what is found again beside a fid costs nothing.
    guest.walk_to(1, 3, &[]).unwrap();
    let qids = guest.does(&Request::Walk { fid: ROOT, new_fid: 4, names: way.map(Text).to_vec() });
    qids.expect("it goes as far as it can");
    assert_eq!(guest.attributes(4).unwrap_err(), Errno::BADF);
    guest.walk_to(ROOT, 4, &way[..3]).unwrap();
    let mkdir = Request::Mkdir { fid: 1, name: Text(b"new"), mode: 0o700, gid: me().1 };
    assert_eq!(guest.does(&mkdir), Err(Errno::NFILE));
    assert!(!root.path().join(deep.join("/")).join("new").exists(), "it was told of none");
    guest.does(&Request::Clunk { fid: 2 }).unwrap();
    guest.does(&mkdir).unwrap();
}

#[test]
fn a_tree_that_is_too_deep_ends_somewhere() {
    let root = tempfile::tempdir().unwrap();
    let mut guest = Guest::attach(root.path());
    let gid = me().1;
    guest.walk_to(ROOT, 1, &[]).unwrap();
    let mut depth = 0;
    let errno = loop {
        let made = guest.does(&Request::Mkdir { fid: 1, name: Text(b"d"), mode: 0o700, gid });
        match made.and_then(|()| guest.walk_to(1, 1, &[b"d"])) {
            Ok(_) => depth += 1,
            Err(errno) => break errno,
        }
    };
    // A process with fewer descriptors meets their end first.
    assert!(
        matches!((errno, depth), (Errno::NAMETOOLONG, 2048) | (Errno::MFILE, 500..)),
        "{errno} at {depth}"
    );
    guest.does(&Request::Clunk { fid: 1 }).unwrap();
    guest.walk_to(ROOT, 1, &[&b"d"[..]; 16]).unwrap();
    guest.end().unwrap();
}

/// Numbers without a pattern, the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % sides
    }

    fn number(&mut self) -> u32 {
        u32::try_from(self.roll(1 << 31)).unwrap()
    }

    fn of<T: Copy>(&mut self, these: &[T]) -> T {
        these[usize::try_from(self.roll(these.len() as u64)).unwrap()]
    }
}

fn any_request(dice: &mut Dice) -> Request<'static> {
    const NAMES: [&[u8]; 9] = [b"a", b"b", b"c", b"d", b"..", b".", b"../outside", b"/", b"link"];
    let (fid, name) = (dice.of(&[0, 1, 2, 3, 4, 5]), Text(dice.of(&NAMES)));
    let (other, second) = (dice.of(&[0, 1, 2, 3, 4, 5, 6]), Text(dice.of(&NAMES)));
    let (flags, gid) = (dice.of(&[0, 1, 2, 0o102, 0o1002, u32::MAX]), me().1);
    let offset = dice.of(&[0, 1, 100, u64::MAX]);
    match dice.roll(20) {
        0 => Request::Lopen { fid, flags },
        1 => Request::Lcreate { fid, name, flags, mode: 0o600, gid },
        2 => Request::Symlink { fid, name, target: Text(b"../outside"), gid },
        3 => Request::Mknod {
            fid,
            name,
            mode: dice.of(&[0o100_600, 0o010_600, 0o140_600, 0o020_600, u32::MAX]),
            major: 1,
            minor: 3,
            gid,
        },
        4 => Request::Xattrwalk { fid, new_fid: other, name: Text(b"") },
        5 => Request::Xattrcreate { fid, name: Text(b"user.x"), size: 1, flags: 0 },
        6 => Request::Readdir { fid, offset, count: 1000 },
        7 => Request::Link { directory: fid, fid: other, name },
        8 => Request::Mkdir { fid, name, mode: 0o700, gid },
        9 => Request::Renameat { old_directory: fid, old_name: name, new_directory: other, new_name: second },
        10 => Request::Unlinkat { fid, name, flags: dice.of(&[0, 0x200]) },
        11 => Request::Read { fid, offset, count: dice.number() },
        12 => Request::Write { fid, offset, data: Data(b"x") },
        13 | 14 => Request::Clunk { fid },
        15 => Request::Getattr { fid, mask: 0 },
        _ => Request::Walk {
            fid,
            new_fid: other,
            names: vec![name, second][..dice.of(&[0, 1, 1, 2])].to_vec(),
        },
    }
}

#[test]
fn any_messages_in_any_order_are_answered_and_touch_nothing_outside() {
    let dir = tempfile::tempdir().unwrap();
    let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
    fs::create_dir(&root).unwrap();
    fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink("../outside", root.join("link")).unwrap();
    let session = Session::new(directory(&root), Limits::default()).unwrap();
    let (mut desk, mut frame, mut dice) = (Desk::default(), Vec::new(), Dice(5));
    Request::Version { msize: 8192, version: Text(b"9P2000.L") }.frame(0, &mut frame);
    session.answer(&frame, &mut desk).unwrap();
    let mut done = [0; 256];
    for number in 0..20_000 {
        let request = if number % 20 == 0 {
            Request::Attach { fid: 0, auth_fid: NO_FID, user_name: Text(b""), tree: Text(b""), user: me().0 }
        } else {
            any_request(&mut dice)
        };
        request.frame(3, &mut frame);
        let reply = session.answer(&frame, &mut desk).unwrap();
        assert!(reply.len() <= 8192 && reply[5..7] == [3, 0]);
        done[usize::from(reply[4])] += 1;
    }
    for kind in [13, 15, 17, 19, 25, 31, 33, 41, 71, 73, 75, 77, 105, 111, 117, 119, 121] {
        assert!(done[kind] > 0, "no request was done of those with answer {kind}");
    }
    assert_eq!(fs::read_dir(outside).unwrap().count(), 0);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}
