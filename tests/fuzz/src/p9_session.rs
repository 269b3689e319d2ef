//! Frames with any bodies, in any order, for a session on a real directory: each is answered by a message within the agreed size, or
//! ends the session, and what lies beside the root stays as it was.
#![no_main]

use std::fs;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use rustix::fs::{CWD, Mode, OFlags};
use vgpu_share::message::{NO_FID, Reply, Request, split};
use vgpu_share::{Desk, Limits, Session, Text};

const MSIZE: u32 = 4096;
const LIMITS: Limits = Limits { msize_max: MSIZE, fids_max: 64, nodes_max: 128, values_bytes_max: 4096 };

/// A root with something of each kind, and a directory beside it.
fn world() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in("/dev/shm").expect("memory");
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("d")).expect("made");
    fs::create_dir(dir.path().join("outside")).expect("made");
    fs::write(root.join("f"), b"contents").expect("made");
    std::os::unix::fs::symlink("../outside", root.join("l")).expect("made");
    dir
}

fn open(root: &Path) -> Session {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, root, flags, Mode::empty()).expect("opened");
    Session::new(root, LIMITS).expect("a directory")
}

fuzz_target!(|frames: Vec<(u8, Vec<u8>)>| {
    let dir = world();
    let (session, mut desk, mut frame) = (open(&dir.path().join("root")), Desk::default(), Vec::new());
    let (user_name, tree) = (Text(b""), Text(b""));
    for first in [
        Request::Version { msize: MSIZE, version: Text(b"9P2000.L") },
        Request::Attach { fid: 0, auth_fid: NO_FID, user_name, tree, user: 0 },
    ] {
        first.frame(0, &mut frame);
        session.answer(&frame, &mut desk).expect("answered");
    }
    for (kind, body) in frames {
        let size = u32::try_from(body.len() + 7).unwrap_or(u32::MAX);
        frame.clear();
        frame.extend_from_slice(&size.to_le_bytes());
        frame.extend_from_slice(&[kind, 1, 0]);
        frame.extend_from_slice(&body);
        let Ok(reply) = session.answer(&frame, &mut desk) else { break };
        let (answer, tag, fields) = split(reply, MSIZE).expect("a message within its size");
        assert_eq!(tag, 1);
        Reply::parse(answer, fields).expect("an answer");
        assert!(answer == 7 || answer == kind + 1);
    }
    assert_eq!(fs::read_dir(dir.path().join("outside")).expect("there").count(), 0);
    assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 2);
});
