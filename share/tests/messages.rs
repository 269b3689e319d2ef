//! The messages by themselves: what is written is read, and nothing else is.

use proptest::prelude::*;
use vgpu_share::message::{Attributes, Changes, Entry, FileSystem, Range, Reply, Request, split};
use vgpu_share::{Data, Malformed, Qid, Text};

const QID: Qid = Qid { kind: 0x80, version: 7, path: u64::MAX - 3 };
const RANGE: Range = Range { kind: 1, start: 2, length: u64::MAX, process: 77 };

fn requests() -> Vec<Request<'static>> {
    let (fid, name) = (0x0403_0201, Text(b"name"));
    let changes = Changes {
        valid: 0x1ff,
        mode: 1,
        uid: 2,
        gid: 3,
        size: 4,
        atime_s: 5,
        atime_ns: 6,
        mtime_s: 7,
        mtime_ns: 8,
    };
    vec![
        Request::Statfs { fid },
        Request::Lopen { fid, flags: 0o100_002 },
        Request::Lcreate { fid, name, flags: 1, mode: 0o644, gid: 9 },
        Request::Symlink { fid, name, target: Text(b"/there"), gid: 9 },
        Request::Mknod { fid, name, mode: 0o10644, major: 1, minor: 2, gid: 3 },
        Request::Rename { fid, directory: 2, name },
        Request::Readlink { fid },
        Request::Getattr { fid, mask: 0x7ff },
        Request::Setattr { fid, changes },
        Request::Xattrwalk { fid, new_fid: 5, name: Text(b"") },
        Request::Xattrcreate { fid, name, size: 1 << 40, flags: 2 },
        Request::Readdir { fid, offset: u64::MAX, count: 4096 },
        Request::Fsync { fid, data_only: 1 },
        Request::Lock { fid, kind: 1, flags: 1, start: 2, length: 3, process: 4, client: Text(b"guest") },
        Request::Getlock { fid, range: RANGE, client: Text(b"guest") },
        Request::Link { directory: 8, fid, name },
        Request::Mkdir { fid, name, mode: 0o755, gid: 1 },
        Request::Renameat { old_directory: 1, old_name: name, new_directory: 2, new_name: Text(b"new") },
        Request::Unlinkat { fid, name, flags: 0x200 },
        Request::Version { msize: 65536, version: Text(b"9P2000.L") },
        Request::Auth { fid, user_name: name, tree: Text(b""), user: 4 },
        Request::Attach { fid, auth_fid: u32::MAX, user_name: name, tree: Text(b""), user: 1000 },
        Request::Flush { old_tag: 0xfffe },
        Request::Walk { fid, new_fid: 6, names: vec![name, Text(b""), Text(b"..")] },
        Request::Read { fid, offset: 1 << 33, count: 512 },
        Request::Write { fid, offset: 3, data: Data(b"bytes\0more") },
        Request::Clunk { fid },
        Request::Remove { fid },
    ]
}

fn replies() -> Vec<Reply<'static>> {
    let of = Attributes {
        valid: 0x7ff,
        qid: QID,
        mode: 1,
        uid: 2,
        gid: 3,
        links: 4,
        device: 5,
        size: 6,
        block_size: 7,
        blocks: 8,
        atime_s: 9,
        atime_ns: 10,
        mtime_s: 11,
        mtime_ns: 12,
        ctime_s: 13,
        ctime_ns: 14,
        btime_s: 15,
        btime_ns: 16,
        generation: 17,
        data_version: 18,
    };
    let system = FileSystem {
        kind: 1,
        block_size: 2,
        blocks: 3,
        blocks_free: 4,
        blocks_available: 5,
        files: 6,
        files_free: 7,
        id: 8,
        name_bytes_max: 255,
    };
    vec![
        Reply::Lerror { errno: 2 },
        Reply::Statfs { of: system },
        Reply::Lopen { qid: QID, unit: 4096 },
        Reply::Lcreate { qid: QID, unit: 0 },
        Reply::Symlink { qid: QID },
        Reply::Mknod { qid: QID },
        Reply::Rename {},
        Reply::Readlink { target: Text(b"../there") },
        Reply::Getattr { of },
        Reply::Setattr {},
        Reply::Xattrwalk { size: 12 },
        Reply::Xattrcreate {},
        Reply::Readdir { entries: Data(b"...") },
        Reply::Fsync {},
        Reply::Lock { status: 1 },
        Reply::Getlock { range: RANGE, client: Text(b"guest") },
        Reply::Link {},
        Reply::Mkdir { qid: QID },
        Reply::Renameat {},
        Reply::Unlinkat {},
        Reply::Version { msize: 4096, version: Text(b"unknown") },
        Reply::Auth { qid: QID },
        Reply::Attach { qid: QID },
        Reply::Flush {},
        Reply::Walk { qids: vec![QID; 16] },
        Reply::Read { data: Data(&[0xff; 100]) },
        Reply::Write { count: 100 },
        Reply::Clunk {},
        Reply::Remove {},
    ]
}

/// Each of a kind once, whole, cut at each byte, and with a byte too many.
macro_rules! check {
    ($enum:ident, $samples:expr) => {
        let samples = $samples;
        let kinds: Vec<_> = samples.iter().map($enum::kind).collect();
        assert_eq!(kinds, $enum::ALL.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), "a sample of each");
        for message in samples {
            let mut frame = Vec::new();
            message.frame(0x1234, &mut frame);
            let (kind, tag, body) = split(&frame, 1 << 20).unwrap();
            assert_eq!((kind, tag), (message.kind(), 0x1234));
            assert_eq!($enum::parse(kind, body), Ok(message.clone()));
            for end in 0..body.len() {
                assert_eq!(
                    $enum::parse(kind, &body[..end]),
                    Err(Malformed::Short(kind)),
                    "{message:?} to {end}"
                );
            }
            let longer = [body, b"x"].concat();
            assert_eq!($enum::parse(kind, &longer), Err(Malformed::Long(kind, 1)), "{message:?}");
        }
    };
}

#[test]
fn every_message_is_read_as_it_was_written_and_no_byte_less_or_more() {
    check!(Request, requests());
    check!(Reply, replies());
}

/// Bytes as Linux's client sends them; so what is told here is not only what we take for the protocol.
#[test]
fn every_message_has_the_bytes_that_linux_sends() {
    let bytes = |message: Request<'_>| {
        let mut frame = Vec::new();
        message.frame(1, &mut frame);
        frame
    };
    let version = Request::Version { msize: 8192, version: Text(b"9P2000.L") };
    assert_eq!(bytes(version), b"\x15\0\0\0\x64\x01\0\0\x20\0\0\x08\x009P2000.L");
    let walk = Request::Walk { fid: 1, new_fid: 2, names: vec![Text(b"a"), Text(b"bc")] };
    assert_eq!(bytes(walk), b"\x18\0\0\0\x6e\x01\0\x01\0\0\0\x02\0\0\0\x02\0\x01\0a\x02\0bc");
    let unlink = Request::Unlinkat { fid: 3, name: Text(b"d"), flags: 0x200 };
    assert_eq!(bytes(unlink), b"\x12\0\0\0\x4c\x01\0\x03\0\0\0\x01\0d\0\x02\0\0");
    let size = |message: Request<'_>| bytes(message).len() - 7;
    // Fixed parts, as its marshalling counts them.
    let (fid, client) = (1, Text(b""));
    let lock = Request::Lock { fid, kind: 0, flags: 0, start: 0, length: 0, process: 0, client };
    assert_eq!((size(lock), size(Request::Getlock { fid, range: RANGE, client })), (31, 27));
    assert_eq!(size(requests().swap_remove(8)), 4 + 4 + 4 + 4 + 4 + 5 * 8);
}

#[test]
fn a_frame_that_lies_about_its_size_is_none() {
    for (frame, limit) in [
        (&b""[..], 100),
        (b"\x07", 100),
        (b"\x06\0\0\0\x64\0", 100),
        (b"\x08\0\0\0\x78\0\0", 100),
        (b"\x07\0\0\0\x78\0\0\0", 100),
        (b"\x07\0\0\0\x78\0\0", 6),
        (b"\xff\xff\xff\xff\x78\0\0", u32::MAX),
    ] {
        assert!(matches!(split(frame, limit), Err(Malformed::Size { .. })), "{frame:?}");
    }
    assert_eq!(split(b"\x07\0\0\0\x78\x01\x02", 7), Ok((0x78, 0x201, &b""[..])));
}

#[test]
fn lengths_inside_a_message_are_held_against_what_is_there() {
    assert_eq!(
        Request::parse(118, b"\x01\0\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff"),
        Err(Malformed::Short(118))
    );
    assert_eq!(Request::parse(110, b"\x01\0\0\0\x02\0\0\0\x11\0"), Err(Malformed::Steps(17)));
    assert_eq!(Request::parse(110, b"\x01\0\0\0\x02\0\0\0\xff\xff"), Err(Malformed::Steps(65535)));
    assert_eq!(Request::parse(110, b"\x01\0\0\0\x02\0\0\0\x01\0\xff\xff"), Err(Malformed::Short(110)));
    for kind in [0, 6, 7, 9, 106, 107, 119, 121, 124, 255] {
        assert_eq!(Request::parse(kind, b""), Err(Malformed::Type(kind)));
    }
    assert_eq!(Entry::all(b"short"), Err(Malformed::Short(41)));
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_that_is_written_alike_or_none(kind: u8, body: Vec<u8>) {
        let mut frame = Vec::new();
        if let Ok(message) = Request::parse(kind, &body) {
            message.frame(0, &mut frame);
            prop_assert_eq!(&frame[7..], &body[..]);
        }
        if let Ok(message) = Reply::parse(kind, &body) {
            message.frame(0, &mut frame);
            prop_assert_eq!(&frame[7..], &body[..]);
        }
    }
}
