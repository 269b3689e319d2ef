//! Every message over a pipe, on real files: what a guest asks is what the host's directory then shows.

mod client;

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};

use client::{Guest, ROOT, me};
use rustix::io::Errno;
use vgpu_share::message::{Changes, NO_FID, Range, Reply, Request};
use vgpu_share::{Data, Limits, Text};

const RDWR: u32 = 2;
const WRONLY: u32 = 1;
const CREATE: u32 = 0o100;
const EXCLUSIVE: u32 = 0o200;
const TRUNCATE: u32 = 0o1000;
const APPEND: u32 = 0o2000;
const DIRECTORY: u32 = 0o200_000;
const NOTHING: Changes =
    Changes { valid: 0, mode: 0, uid: 0, gid: 0, size: 0, atime_s: 0, atime_ns: 0, mtime_s: 0, mtime_ns: 0 };

#[test]
fn every_message_that_begins_and_ends_a_session() {
    let root = tempfile::tempdir().unwrap();
    let mut guest = Guest::connect(root.path(), Limits { msize_max: 8192, ..Limits::default() });
    assert_eq!(guest.attach_as(ROOT, 0), Err(Errno::PROTO), "before a version");
    let version = |guest: &mut Guest, msize, version: &[u8]| match guest
        .ask(&Request::Version { msize, version: Text(version) })?
    {
        Reply::Version { msize, version } => Ok((msize, version.0.to_vec())),
        other => panic!("{other:?}"),
    };
    assert_eq!(version(&mut guest, 4095, b"9P2000.L"), Err(Errno::MSGSIZE));
    assert_eq!(version(&mut guest, 4096, b"9P2000.u"), Ok((4096, b"unknown".to_vec())));
    assert_eq!(guest.attach_as(ROOT, 0), Err(Errno::PROTO), "after another version");
    assert_eq!(version(&mut guest, 1 << 20, b"9P2000.L"), Ok((8192, b"9P2000.L".to_vec())));
    let (user_name, user) = (Text(b"root"), 0);
    let auth = Request::Auth { fid: 1, user_name, tree: Text(b""), user };
    assert_eq!(guest.does(&auth), Err(Errno::OPNOTSUPP));
    let attach = |auth_fid, tree| Request::Attach { fid: 1, auth_fid, user_name, tree: Text(tree), user };
    assert_eq!(guest.does(&attach(2, b"")), Err(Errno::OPNOTSUPP));
    assert_eq!(guest.does(&attach(NO_FID, b"/etc")), Err(Errno::NOENT), "there is one tree");
    guest.does(&attach(NO_FID, b"")).unwrap();
    assert_eq!(guest.does(&attach(NO_FID, b"")), Err(Errno::INVAL), "a fid is used once");
    guest.does(&Request::Flush { old_tag: 9 }).unwrap();
    guest.does(&Request::Clunk { fid: 1 }).unwrap();
    assert_eq!(guest.does(&Request::Clunk { fid: 1 }), Err(Errno::BADF));
    guest.attach_as(ROOT, 0).unwrap();
    version(&mut guest, 4096, b"9P2000.L").unwrap();
    assert!(matches!(guest.attributes(ROOT), Err(Errno::BADF)), "a version ends all fids");
    guest.end().unwrap();
}

#[test]
fn every_message_of_a_plain_file() {
    let root = tempfile::tempdir().unwrap();
    let at = root.path().join("a");
    let mut guest = Guest::attach(root.path());
    let file = guest.create("a", CREATE | RDWR, 0o640).unwrap();
    assert_eq!(guest.write(file, 0, b"hello"), Ok(5));
    assert_eq!(guest.write(file, 8, b"world"), Ok(5));
    assert_eq!(fs::read(&at).unwrap(), b"hello\0\0\0world");
    assert_eq!(guest.read(file, 3, 100).unwrap(), b"lo\0\0\0world");
    assert_eq!(guest.read(file, 3, 2).unwrap(), b"lo");
    assert_eq!(guest.read(file, 13, 2).unwrap(), b"");
    guest.does(&Request::Fsync { fid: file, data_only: 0 }).unwrap();
    guest.does(&Request::Fsync { fid: file, data_only: 1 }).unwrap();
    let told = guest.attributes(file).unwrap();
    let meta = fs::metadata(&at).unwrap();
    assert_eq!((told.mode, told.size, told.links), (meta.mode(), 13, 1));
    assert_eq!((meta.mode(), told.uid, told.gid), (0o100_640, meta.uid(), meta.gid()));
    assert_eq!(
        (told.mtime_s.cast_signed(), i64::try_from(told.mtime_ns).unwrap()),
        (meta.mtime(), meta.mtime_nsec())
    );
    assert_eq!((told.blocks, told.block_size), (meta.blocks(), meta.blksize()));
    guest.does(&Request::Clunk { fid: file }).unwrap();
    assert_eq!(guest.read(file, 0, 1), Err(Errno::BADF));

    assert_eq!(guest.create("a", CREATE | EXCLUSIVE | RDWR, 0o600).unwrap_err(), Errno::EXIST);
    let again = guest.create("a", CREATE | RDWR, 0o777).unwrap();
    assert_eq!(guest.read(again, 0, 5).unwrap(), b"hello", "it was there");
    assert_eq!(fs::metadata(&at).unwrap().mode() & 0o7777, 0o640, "and stays as it was");
    let appending = guest.find("a").unwrap();
    guest.open(appending, WRONLY | APPEND).unwrap();
    assert_eq!(guest.open(appending, 0), Err(Errno::INVAL), "a fid is opened once");
    guest.write(appending, 0, b"!").unwrap();
    assert_eq!(guest.read(appending, 0, 1), Err(Errno::BADF));
    assert_eq!(fs::read(&at).unwrap(), b"hello\0\0\0world!");
    let truncating = guest.find("a").unwrap();
    guest.open(truncating, RDWR | TRUNCATE).unwrap();
    assert_eq!(fs::metadata(&at).unwrap().len(), 0);
    assert_eq!(guest.find("a").and_then(|fid| guest.open(fid, DIRECTORY)), Err(Errno::NOTDIR));

    fs::remove_file(&at).unwrap();
    guest.write(again, 0, b"still mine").unwrap();
    assert_eq!(guest.attributes(again).unwrap().links, 0);
    guest.does(&Request::Setattr { fid: again, changes: Changes { valid: 8, size: 5, ..NOTHING } }).unwrap();
    assert_eq!(guest.read(again, 0, 100).unwrap(), b"still", "a file without a name is as good");
}

#[test]
fn every_message_of_attributes() {
    let root = tempfile::tempdir().unwrap();
    let at = root.path().join("a");
    fs::write(&at, b"0123456789").unwrap();
    let mut guest = Guest::attach(root.path());
    let fid = guest.find("a").unwrap();
    let mut change = |changes| guest.does(&Request::Setattr { fid, changes });
    change(Changes { valid: 1, mode: 0o4751, ..NOTHING }).unwrap();
    assert_eq!(fs::metadata(&at).unwrap().permissions().mode() & 0o7777, 0o4751);
    change(Changes { valid: 8, size: 4, ..NOTHING }).unwrap();
    assert_eq!(fs::read(&at).unwrap(), b"0123");
    // Both at once: whatever size and owner take away, the mode is the last word.
    let (uid, gid) = me();
    change(Changes { valid: 1 | 2 | 4 | 8, mode: 0o4755, uid, gid, size: 3, ..NOTHING }).unwrap();
    assert_eq!(fs::metadata(&at).unwrap().permissions().mode() & 0o7777, 0o4755);
    let (old, now) = (1 << 4 | 1 << 7, 1 << 5);
    change(Changes { valid: old, atime_s: 1_000_000, atime_ns: 5, ..NOTHING }).unwrap();
    let meta = fs::metadata(&at).unwrap();
    assert_eq!((meta.atime(), meta.atime_nsec()), (1_000_000, 5));
    change(Changes { valid: now | 1 << 8, mtime_s: (-5_i64).cast_unsigned(), ..NOTHING }).unwrap();
    assert_eq!(fs::metadata(&at).unwrap().mtime(), -5, "before 1970");
    change(Changes { valid: now, ..NOTHING }).unwrap();
    let meta = fs::metadata(&at).unwrap();
    assert!(meta.mtime() > 1_700_000_000 && meta.atime() == 1_000_000);
    for wrong in [
        Changes { valid: 2, uid: u32::MAX, ..NOTHING },
        Changes { valid: 4, gid: u32::MAX, ..NOTHING },
        Changes { valid: old, atime_ns: 0x3fff_ffff, ..NOTHING },
        Changes { valid: 8, size: u64::MAX, ..NOTHING },
    ] {
        assert_eq!(change(wrong), Err(Errno::INVAL), "{wrong:?}");
    }
    let changes = Changes { valid: 8, ..NOTHING };
    assert_eq!(guest.does(&Request::Setattr { fid: ROOT, changes }), Err(Errno::ISDIR));
    assert_eq!(fs::read(&at).unwrap(), b"012");

    let Reply::Statfs { of } = guest.ask(&Request::Statfs { fid }).unwrap() else { panic!("another answer") };
    let real = rustix::fs::statvfs(root.path()).unwrap();
    assert_eq!((of.blocks, u64::from(of.name_bytes_max)), (real.f_blocks, real.f_namemax));
}

#[test]
fn every_message_that_makes_moves_or_removes_a_name() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let mut guest = Guest::attach(root.path());
    let (fid, gid) = (ROOT, me().1);
    guest.does(&Request::Mkdir { fid, name: Text(b"d"), mode: 0o2750, gid }).unwrap();
    assert_eq!(fs::metadata(at("d")).unwrap().mode(), 0o042_750);
    let mut mknod = |name: &'static [u8], mode| {
        guest.does(&Request::Mknod { fid, name: Text(name), mode, major: 1, minor: 3, gid })
    };
    mknod(b"fifo", 0o010_622).unwrap();
    mknod(b"socket", 0o140_755).unwrap();
    mknod(b"plain", 0o100_600).unwrap();
    assert_eq!([mknod(b"c", 0o020_666), mknod(b"b", 0o060_666)], [Err(Errno::PERM); 2], "no devices");
    assert_eq!([mknod(b"l", 0o120_777), mknod(b"d2", 0o040_777), mknod(b"x", 0o644)], [Err(Errno::INVAL); 3]);
    let meta = |name| fs::symlink_metadata(at(name)).unwrap();
    assert!(meta("fifo").file_type().is_fifo() && meta("fifo").mode() & 0o7777 == 0o622);
    assert!(meta("socket").file_type().is_socket());
    assert!(meta("plain").file_type().is_file());

    for (name, target) in [(&b"l"[..], &b"../../etc/passwd"[..]), (b"long", &[b'x'; 4095])] {
        guest.does(&Request::Symlink { fid, name: Text(name), target: Text(target), gid }).unwrap();
        let link = guest.find(std::str::from_utf8(name).unwrap()).unwrap();
        let Ok(Reply::Readlink { target: told }) = guest.ask(&Request::Readlink { fid: link }) else {
            panic!("none")
        };
        assert_eq!(told.0, target);
        assert_eq!(guest.attributes(link).unwrap().mode, 0o120_777);
        assert_eq!(guest.open(link, 0), Err(Errno::LOOP));
        let changes = Changes { valid: 1, mode: 0, ..NOTHING };
        assert_eq!(guest.does(&Request::Setattr { fid: link, changes }), Err(Errno::OPNOTSUPP));
    }
    let long = Request::Symlink { fid, name: Text(b"x"), target: Text(&[b'x'; 4096]), gid };
    assert_eq!(guest.does(&long), Err(Errno::NAMETOOLONG));
    assert_eq!(guest.does(&Request::Readlink { fid }), Err(Errno::INVAL));

    let (directory, plain, link) =
        (guest.find("d").unwrap(), guest.find("plain").unwrap(), guest.find("l").unwrap());
    guest.does(&Request::Link { directory, fid: plain, name: Text(b"second") }).unwrap();
    guest.does(&Request::Link { directory, fid: link, name: Text(b"link") }).unwrap();
    assert_eq!((meta("plain").nlink(), meta("d/second").ino()), (2, meta("plain").ino()));
    assert_eq!(meta("d/link").ino(), meta("l").ino(), "a link to a link is no link to what it names");
    assert_eq!(guest.does(&Request::Link { directory, fid: directory, name: Text(b"x") }), Err(Errno::PERM));

    let rename = |old: (u32, &'static [u8]), new: (u32, &'static [u8])| Request::Renameat {
        old_directory: old.0,
        old_name: Text(old.1),
        new_directory: new.0,
        new_name: Text(new.1),
    };
    guest.does(&rename((ROOT, b"plain"), (directory, b"moved"))).unwrap();
    assert_eq!(guest.does(&rename((ROOT, b"d"), (directory, b"in itself"))), Err(Errno::INVAL));
    assert_eq!(guest.does(&rename((ROOT, b"gone"), (directory, b"x"))), Err(Errno::NOENT));
    assert!(!at("plain").exists() && at("d/moved").exists());
    assert_eq!(
        guest.does(&Request::Rename { fid: plain, directory, name: Text(b"x") }),
        Err(Errno::OPNOTSUPP)
    );

    let unlink = |fid, name: &'static [u8], flags| Request::Unlinkat { fid, name: Text(name), flags };
    assert_eq!(guest.does(&unlink(ROOT, b"d", 0)), Err(Errno::ISDIR));
    assert_eq!(guest.does(&unlink(ROOT, b"d", 0x200)), Err(Errno::NOTEMPTY));
    assert_eq!(guest.does(&unlink(ROOT, b"l", 0x100)), Err(Errno::INVAL));
    for name in [&b"moved"[..], b"second", b"link"] {
        guest.does(&Request::Unlinkat { fid: directory, name: Text(name), flags: 0 }).unwrap();
    }
    guest.does(&unlink(ROOT, b"d", 0x200)).unwrap();
    assert!(!at("d").exists());
    assert_eq!(guest.does(&Request::Remove { fid: plain }), Err(Errno::OPNOTSUPP));
    assert_eq!(guest.attributes(plain), Err(Errno::BADF), "it is clunked all the same");
}

#[test]
fn every_message_of_directories() {
    let root = tempfile::tempdir().unwrap();
    for number in 0..500 {
        fs::write(root.path().join(format!("{number:0>40}")), b"").unwrap();
    }
    fs::create_dir(root.path().join("d")).unwrap();
    let mut guest = Guest::attach(root.path());
    let fid = guest.find("/").unwrap();
    assert_eq!(guest.entries(fid, 4096), Err(Errno::BADF), "not open");
    guest.open(fid, DIRECTORY).unwrap();
    guest.does(&Request::Fsync { fid, data_only: 0 }).unwrap();
    assert_eq!(guest.read(fid, 0, 10), Err(Errno::ISDIR));
    assert_eq!(guest.write(fid, 0, b"x"), Err(Errno::BADF));
    for count in [64, 279, 4096, u32::MAX >> 16] {
        let mut names: Vec<_> =
            guest.entries(fid, count).unwrap().into_iter().map(|(name, ..)| name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 503, "each once, `.` and `..`, {count} bytes at a time");
    }
    let readdir = |offset, count| Request::Readdir { fid, offset, count };
    assert_eq!(guest.does(&readdir(0, 20)), Err(Errno::INVAL), "no entry fits, which is not the end");
    assert_eq!(guest.does(&readdir(u64::MAX, 4096)), Err(Errno::INVAL));
    for (name, qid, kind) in guest.entries(fid, 4096).unwrap() {
        let is_directory = name.len() < 40;
        assert_eq!((kind, qid.kind), if is_directory { (4, 0x80) } else { (8, 0) });
    }
}

#[test]
fn every_message_of_extended_attributes() {
    let root = tempfile::tempdir().unwrap();
    let at = root.path().join("a");
    fs::write(&at, b"").unwrap();
    rustix::fs::setxattr(&at, "user.there", b"value", rustix::fs::XattrFlags::empty()).unwrap();
    let mut guest = Guest::attach(root.path());
    let fid = guest.find("a").unwrap();
    fn get(guest: &mut Guest, fid: u32, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let new_fid = guest.new_fid();
        let Reply::Xattrwalk { size } = guest.ask(&Request::Xattrwalk { fid, new_fid, name: Text(name) })?
        else {
            panic!("another answer")
        };
        let value = guest.read(new_fid, 0, u32::MAX)?;
        assert_eq!(value.len() as u64, size);
        assert_eq!(guest.read(new_fid, size + 5, 9).unwrap(), b"");
        guest.does(&Request::Clunk { fid: new_fid })?;
        Ok(value)
    }
    fn set(guest: &mut Guest, name: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
        let fid = guest.find("a")?;
        let size = value.len() as u64;
        guest.does(&Request::Xattrcreate { fid, name: Text(name), size, flags })?;
        for (number, part) in value.chunks(1000).enumerate() {
            guest.write(fid, number as u64 * 1000, part)?;
        }
        guest.does(&Request::Clunk { fid })
    }
    assert_eq!(get(&mut guest, fid, b"user.there").unwrap(), b"value");
    assert_eq!(get(&mut guest, fid, b"user.none"), Err(Errno::NODATA));
    set(&mut guest, b"user.new", &[7; 2500], 1).unwrap();
    assert_eq!(get(&mut guest, fid, b"user.new").unwrap(), [7; 2500]);
    assert_eq!(set(&mut guest, b"user.new", b"x", 1), Err(Errno::EXIST));
    assert_eq!(set(&mut guest, b"user.none", b"x", 2), Err(Errno::NODATA));
    set(&mut guest, b"user.empty", b"", 0).unwrap();
    assert_eq!(get(&mut guest, fid, b"user.empty").unwrap(), b"");
    let mut names: Vec<_> = get(&mut guest, fid, b"").unwrap();
    names.pop();
    let mut names: Vec<_> = names.split(|byte| *byte == 0).collect();
    names.sort();
    assert_eq!(names, [&b"user.empty"[..], b"user.new", b"user.there"]);
    set(&mut guest, b"user.new", b"", 2).unwrap();
    assert_eq!(get(&mut guest, fid, b"user.new"), Err(Errno::NODATA), "replaced by nothing is removed");
    for name in [&b"trusted.overlay.opaque"[..], b"security.selinux", b"other"] {
        assert_eq!(set(&mut guest, name, b"y", 0), Err(Errno::OPNOTSUPP));
        assert_eq!(get(&mut guest, fid, name), Err(Errno::OPNOTSUPP));
    }
    // Half a value is none.
    let half = guest.find("a").unwrap();
    guest.does(&Request::Xattrcreate { fid: half, name: Text(b"user.half"), size: 4, flags: 0 }).unwrap();
    guest.write(half, 0, b"ha").unwrap();
    assert_eq!(guest.write(half, 2, b"too much"), Err(Errno::INVAL));
    assert_eq!(guest.does(&Request::Clunk { fid: half }), Err(Errno::INVAL));
    assert_eq!(get(&mut guest, fid, b"user.half"), Err(Errno::NODATA));
}

#[test]
fn every_message_of_locks() {
    let root = tempfile::tempdir().unwrap();
    let mut guest = Guest::attach(root.path());
    let fid = guest.create("a", CREATE | RDWR, 0o600).unwrap();
    let client = Text(b"guest");
    let lock = |fid, kind| Request::Lock { fid, kind, flags: 0, start: 0, length: 0, process: 1, client };
    for kind in [0, 1, 2] {
        assert_eq!(guest.ask(&lock(fid, kind)), Ok(Reply::Lock { status: 0 }));
    }
    let range = Range { kind: 1, start: 5, length: 6, process: 7 };
    let told = Reply::Getlock { range: Range { kind: 2, ..range }, client };
    assert_eq!(guest.ask(&Request::Getlock { fid, range, client }), Ok(told));
    assert_eq!(guest.does(&lock(fid, 3)), Err(Errno::INVAL));
    assert_eq!(guest.does(&lock(ROOT, 1)), Err(Errno::BADF));
    assert_eq!(guest.does(&lock(99, 1)), Err(Errno::BADF));
}

#[test]
fn what_a_user_of_the_guest_makes_is_its_own() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT TRIED: {}: only root gives files away", file!());
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let mut guest = Guest::attach(root.path());
    let (fid, gid) = (5, 2000);
    guest.attach_as(fid, 1000).unwrap();
    let create =
        |fid, gid| Request::Lcreate { fid, name: Text(b"f"), flags: CREATE | RDWR, mode: 0o6755, gid };
    guest.walk_to(fid, 6, &[]).unwrap();
    guest.does(&create(6, gid)).unwrap();
    guest.does(&Request::Write { fid: 6, offset: 0, data: Data(b"x") }).unwrap();
    guest.does(&Request::Mkdir { fid, name: Text(b"d"), mode: 0o1777, gid }).unwrap();
    guest.does(&Request::Mknod { fid, name: Text(b"p"), mode: 0o010_600, major: 0, minor: 0, gid }).unwrap();
    guest.does(&Request::Symlink { fid, name: Text(b"l"), target: Text(b"f"), gid }).unwrap();
    for (name, mode) in [("d", 0o041_777), ("p", 0o010_600), ("l", 0o120_777)] {
        let meta = fs::symlink_metadata(root.path().join(name)).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode()), (1000, 2000, mode), "{name}");
    }
    guest.attach_as(7, u32::MAX).unwrap();
    assert_eq!(
        guest.does(&Request::Mkdir { fid: 7, name: Text(b"x"), mode: 0, gid }),
        Err(Errno::INVAL),
        "nobody"
    );
    assert_eq!(guest.does(&create(5, u32::MAX)), Err(Errno::INVAL), "no group");
    assert!(!root.path().join("x").exists());
}
