//! One session, answered by several threads at once, as workers will.

mod client;

use std::fs;

use client::{directory, me};
use rustix::io::Errno;
use vgpu_share::message::{NO_FID, Reply, Request, split};
use vgpu_share::{Data, Desk, Limits, Session, Text};

const THREADS: u32 = 4;
const ROUNDS: u32 = 200;
const SHARED: u32 = 1;

/// The answer's type, and its contents where it has some.
fn ask(session: &Session, desk: &mut Desk, request: &Request<'_>) -> Result<Vec<u8>, Errno> {
    let mut frame = Vec::new();
    request.frame(0, &mut frame);
    let (kind, _, body) = split(session.answer(&frame, desk).unwrap(), u32::MAX).unwrap();
    match Reply::parse(kind, body).unwrap() {
        Reply::Lerror { errno } => Err(Errno::from_raw_os_error(i32::try_from(errno).unwrap())),
        Reply::Read { data } => Ok(data.0.to_vec()),
        _ => Ok(Vec::new()),
    }
}

#[test]
fn requests_of_several_threads_do_not_mix_up_what_they_ask_for() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("shared"), b"for all").unwrap();
    let session = Session::new(directory(root.path()), Limits::default()).unwrap();
    let desk = &mut Desk::default();
    let (user_name, tree) = (Text(b""), Text(b""));
    for first in [
        Request::Version { msize: 8192, version: Text(b"9P2000.L") },
        Request::Attach { fid: 0, auth_fid: NO_FID, user_name, tree, user: me().0 },
        Request::Walk { fid: 0, new_fid: SHARED, names: vec![Text(b"shared")] },
        Request::Lopen { fid: SHARED, flags: 0 },
    ] {
        ask(&session, desk, &first).unwrap();
    }
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let session = &session;
            scope.spawn(move || {
                let (desk, fid) = (&mut Desk::default(), 10 + thread);
                let name = thread.to_string();
                for round in 0..ROUNDS {
                    let said = format!("{thread} {round}");
                    let name = Text(name.as_bytes());
                    let mut does = |request| ask(session, desk, &request).unwrap();
                    does(Request::Walk { fid: 0, new_fid: fid, names: vec![] });
                    does(Request::Lcreate { fid, name, flags: 0o302, mode: 0o600, gid: me().1 });
                    does(Request::Write { fid, offset: 0, data: Data(said.as_bytes()) });
                    assert_eq!(does(Request::Read { fid: SHARED, offset: 4, count: 100 }), b"all");
                    assert_eq!(does(Request::Read { fid, offset: 0, count: 100 }), said.as_bytes());
                    does(Request::Unlinkat { fid: 0, name, flags: 0 });
                    does(Request::Clunk { fid });
                    let gone = ask(session, desk, &Request::Read { fid, offset: 0, count: 1 });
                    assert_eq!(gone, Err(Errno::BADF));
                }
            });
        }
    });
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
}
