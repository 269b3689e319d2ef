//! A guest of the tests' own: it speaks to a session over a pipe, by the messages of the crate.
#![allow(dead_code, reason = "each file of tests uses a part of it")]

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::JoinHandle;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use vgpu_share::message::{self, Attributes, Entry, NO_FID, Reply, Request};
use vgpu_share::{Ended, Limits, Qid, Session, Text};

pub const ROOT: u32 = 0;
const MSIZE: u32 = 64 << 10;

pub struct Guest {
    stream: UnixStream,
    server: Option<JoinHandle<Result<(), Ended>>>,
    frame: Vec<u8>,
    fid: u32,
}

pub fn directory(path: &Path) -> OwnedFd {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

/// Who runs the tests: what is made belongs to them, so that no privilege is needed.
pub fn me() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

impl Guest {
    /// Connected; nothing is said yet.
    pub fn connect(root: &Path, limits: Limits) -> Self {
        let session = Session::new(directory(root), limits).unwrap();
        let (stream, theirs) = UnixStream::pair().unwrap();
        let server = std::thread::spawn(move || {
            let (mut from, mut to) = (theirs.try_clone().unwrap(), theirs);
            vgpu_share::serve(&session, &mut from, &mut to)
        });
        Guest { server: Some(server), ..Guest::over(stream) }
    }

    /// Connected to a server that is no thread of ours; nothing is said yet.
    pub fn over(stream: UnixStream) -> Self {
        Guest { stream, server: None, frame: Vec::new(), fid: 1000 }
    }

    /// Attached: `ROOT` is the root's fid.
    pub fn attach(root: &Path) -> Self {
        Guest::attach_with(root, Limits::default())
    }

    pub fn attach_with(root: &Path, limits: Limits) -> Self {
        let mut guest = Guest::connect(root, limits);
        guest.ask(&Request::Version { msize: MSIZE, version: Text(b"9P2000.L") }).unwrap();
        guest.attach_as(ROOT, me().0).unwrap();
        guest
    }

    pub fn attach_as(&mut self, fid: u32, user: u32) -> Result<Qid, Errno> {
        let (user_name, tree) = (Text(b""), Text(b""));
        match self.ask(&Request::Attach { fid, auth_fid: NO_FID, user_name, tree, user })? {
            Reply::Attach { qid } => Ok(qid),
            other => panic!("{other:?}"),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// What the server says next; nothing once it has ended.
    pub fn receive(&mut self) -> Option<(u16, Reply<'_>)> {
        let mut size = [0; 4];
        self.stream.read_exact(&mut size).ok()?;
        self.frame = size.to_vec();
        self.frame.resize(u32::from_le_bytes(size) as usize, 0);
        self.stream.read_exact(&mut self.frame[4..]).ok()?;
        let (kind, tag, body) = message::split(&self.frame, u32::MAX).unwrap();
        Some((tag, Reply::parse(kind, body).unwrap()))
    }

    /// The answer to a request, which is of the request's kind.
    pub fn ask(&mut self, request: &Request<'_>) -> Result<Reply<'_>, Errno> {
        let mut frame = Vec::new();
        request.frame(7, &mut frame);
        self.send(&frame);
        let kind = request.kind();
        let (tag, reply) = self.receive().unwrap_or_else(|| panic!("no answer to {request:?}"));
        assert_eq!(tag, 7);
        match reply {
            Reply::Lerror { errno } => Err(Errno::from_raw_os_error(i32::try_from(errno).unwrap())),
            reply => {
                assert_eq!(reply.kind(), kind + 1);
                Ok(reply)
            }
        }
    }

    /// Whether a request is done.
    pub fn does(&mut self, request: &Request<'_>) -> Result<(), Errno> {
        self.ask(request).map(drop)
    }

    /// Ends the stream, and says how the session ended.
    pub fn end(mut self) -> Result<(), Ended> {
        self.stream.shutdown(std::net::Shutdown::Both).unwrap();
        self.server.take().unwrap().join().expect("the server panicked")
    }

    /// A number that is not in use.
    pub fn new_fid(&mut self) -> u32 {
        self.fid += 1;
        self.fid
    }

    pub fn walk_to(&mut self, fid: u32, new_fid: u32, names: &[&[u8]]) -> Result<Vec<Qid>, Errno> {
        let names = names.iter().map(|name| Text(name)).collect();
        match self.ask(&Request::Walk { fid, new_fid, names })? {
            Reply::Walk { qids } => Ok(qids),
            other => panic!("{other:?}"),
        }
    }

    /// A fid of what a path below the root names.
    pub fn find(&mut self, path: &str) -> Result<u32, Errno> {
        let (fid, mut names) = (self.new_fid(), path.split('/').filter(|name| !name.is_empty()));
        self.walk_to(ROOT, fid, &[])?;
        loop {
            let part: Vec<_> = names.by_ref().take(16).map(str::as_bytes).collect();
            if part.is_empty() {
                return Ok(fid);
            }
            if self.walk_to(fid, fid, &part)?.len() < part.len() {
                return Err(Errno::NOENT);
            }
        }
    }

    pub fn qid(&mut self, path: &str) -> Qid {
        let fid = self.find(path).unwrap();
        self.attributes(fid).unwrap().qid
    }

    pub fn open(&mut self, fid: u32, flags: u32) -> Result<(), Errno> {
        self.does(&Request::Lopen { fid, flags })
    }

    pub fn create(&mut self, path: &str, flags: u32, mode: u32) -> Result<u32, Errno> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let fid = self.find(parent)?;
        let name = Text(name.as_bytes());
        self.does(&Request::Lcreate { fid, name, flags, mode, gid: me().1 })?;
        Ok(fid)
    }

    pub fn read(&mut self, fid: u32, offset: u64, count: u32) -> Result<Vec<u8>, Errno> {
        match self.ask(&Request::Read { fid, offset, count })? {
            Reply::Read { data } => Ok(data.0.to_vec()),
            other => panic!("{other:?}"),
        }
    }

    pub fn write(&mut self, fid: u32, offset: u64, data: &[u8]) -> Result<u32, Errno> {
        match self.ask(&Request::Write { fid, offset, data: vgpu_share::Data(data) })? {
            Reply::Write { count } => Ok(count),
            other => panic!("{other:?}"),
        }
    }

    pub fn attributes(&mut self, fid: u32) -> Result<Attributes, Errno> {
        match self.ask(&Request::Getattr { fid, mask: 0x7ff })? {
            Reply::Getattr { of } => Ok(of),
            other => panic!("{other:?}"),
        }
    }

    /// All entries of an open directory, `count` bytes at a time.
    pub fn entries(&mut self, fid: u32, count: u32) -> Result<Vec<(Vec<u8>, Qid, u8)>, Errno> {
        let (mut found, mut offset) = (Vec::new(), 0);
        loop {
            let Reply::Readdir { entries } = self.ask(&Request::Readdir { fid, offset, count })? else {
                panic!("another answer")
            };
            assert!(entries.0.len() <= count as usize);
            let part = Entry::all(entries.0).unwrap();
            let Some(last) = part.last() else { return Ok(found) };
            offset = last.next;
            found.extend(part.iter().map(|entry| (entry.name.to_vec(), entry.qid, entry.kind)));
        }
    }
}
