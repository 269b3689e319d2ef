//! One program's session: the library connected to a fake worker in a thread of this test, over the real socket and rings.
//!
//! The library starts once a process; `cargo test` runs the tests of a file in one, so a session is held by one test at a time, and begins
//! without what the last one's primary context had and without the calls that it made.

use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use idm::Region;
use idm::arena::Arena;
use idm::connect::{ProgramEnd, answer, greet, make_ends, peer_of};
use idm::hello::Hello;
use idm::life::Liveness;
use idm::record::{Consumer, ErrorWord, RECORD_LIMIT_MAX, RegionSpec, StagingView};
use vgpu_api::wire::REPLY_BYTES_MAX;
use vgpu_api::{Call, ContextId, CuError, Staged, WIRE_HASH, dispatch};

use super::Library;
use super::device::{FakeDevice, Seen, Staging};

/// Of the program's arena.
pub const ARENA_BYTES: u64 = 64 << 20;
/// Set before the first session: the program is handed no arena.
pub static NO_ARENA: AtomicBool = AtomicBool::new(false);
/// Set before the first session: the program's arena is kept.
pub static KEPT_ARENA: AtomicBool = AtomicBool::new(false);

pub struct Session {
    pub libcuda: Library,
    pub seen: Arc<Mutex<Seen>>,
    _alone: MutexGuard<'static, bool>,
}

impl Session {
    /// Calls that reached the worker so far.
    pub fn call_count(&self) -> usize {
        self.seen.lock().unwrap().calls.len()
    }
}

static SEEN: LazyLock<Arc<Mutex<Seen>>> = LazyLock::new(serve_one);

/// Serves the one connection of this process, for a test that starts the library by itself.
pub fn served() -> Arc<Mutex<Seen>> {
    Arc::clone(&SEEN)
}

/// The library, initialized, with the primary context of device 0 retained and current.
pub fn session() -> Session {
    // Whether there was one before.
    static ALONE: Mutex<bool> = Mutex::new(false);
    let mut alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let seen = Arc::clone(&SEEN);
    let libcuda = Library::open();
    let mut context = 0u64;
    let place = &raw mut context;
    assert_eq!(crate::cu!(libcuda, cuInit(0: u32)), 0);
    if std::mem::replace(&mut *alone, true) {
        assert_eq!(crate::cu!(libcuda, cuDevicePrimaryCtxReset_v2(0: i32)), 0);
        seen.lock().unwrap_or_else(PoisonError::into_inner).calls.clear();
    }
    assert_eq!(crate::cu!(libcuda, cuDevicePrimaryCtxRetain(place: *mut u64, 0: i32)), 0);
    assert_eq!(crate::cu!(libcuda, cuCtxSetCurrent(context: u64)), 0);
    Session { libcuda, seen, _alone: alone }
}

/// Listens, says where in `VGPU_SOCKET`, and serves the one connection of this process.
fn serve_one() -> Arc<Mutex<Seen>> {
    let path = std::env::temp_dir().join(format!("vgpu-test-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&path).expect("a fresh path");
    // SAFETY: before any thread of this process reads the environment: the library reads it at `cuInit`, after this.
    unsafe { std::env::set_var("VGPU_SOCKET", &path) };
    let seen = Arc::new(Mutex::new(Seen::default()));
    let shared = Arc::clone(&seen);
    thread::spawn(move || {
        let (socket, _) = listener.accept().expect("the library connects");
        let peer = peer_of(&socket).expect("a process");
        std::fs::remove_file(&path).expect("it is ours");
        let limit = Duration::from_secs(5);
        let theirs = greet(&socket, peer, limit).expect("a hello");
        assert_eq!(theirs.application, WIRE_HASH);
        let spec = RegionSpec::default();
        let (program, server) = make_ends(&spec).expect("memory");
        let arena = Arena::make(ARENA_BYTES).expect("an arena").kept(KEPT_ARENA.load(Ordering::Relaxed));
        // The library of this process has the window.
        let pages = arena.map_elsewhere().expect("mapped");
        let handed = (!NO_ARENA.load(Ordering::Relaxed)).then_some(arena);
        let program = ProgramEnd { arena: handed, ..program };
        answer(&socket, peer, &Hello::new(RECORD_LIMIT_MAX, WIRE_HASH), &spec, &program).expect("answered");
        drop(program);
        let liveness = Liveness::socket(socket.into());
        let parts = server.into_parts(spec, peer, Some(liveness)).expect("mapped");
        serve(Consumer::from_parts(parts).expect("attached"), pages, shared);
    });
    seen
}

/// The loop of a worker.
fn serve(mut consumer: Consumer, arena: Region, seen: Arc<Mutex<Seen>>) {
    let mut device = FakeDevice::new(Box::new(View(consumer.staging().clone())), arena, seen);
    let replies = consumer.replies().clone();
    let mut reply = vec![0; REPLY_BYTES_MAX];
    loop {
        while let Some(record) = consumer.next().expect("records of the library are good") {
            let call = Call { context: ContextId(record.ctx), sync: record.lane.is_some() };
            let answer = dispatch(&mut device, record.op, call, record.payload, &mut reply)
                .expect("so are their payloads");
            match (record.lane, CuError::check(answer.code)) {
                (Some(_), _) if device.ends => {} // Dies before it answers.
                (Some(lane), _) => replies
                    .reply(lane, record.seq, answer.code, &reply[..answer.reply_bytes])
                    .expect("waited for"),
                (None, Ok(())) => {}
                (None, Err(error)) => replies.set_error(ErrorWord {
                    seq: record.seq,
                    code: error.code(),
                    sticky: error.is_sticky(),
                    ctx: record.ctx,
                }),
            }
            if device.ends {
                break;
            }
        }
        if device.ends || consumer.wait(None).is_err() {
            return; // The worker dies, or the process ends.
        }
    }
}

struct View(StagingView);

impl Staging for View {
    fn read(&self, from: Staged) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(from.len).unwrap()];
        self.0.read(from.offset, &mut bytes).expect("inside");
        bytes
    }
    fn write(&self, to: Staged, bytes: &[u8]) {
        self.0.write(to.offset, bytes).expect("inside");
    }
    fn wake(&self) {
        self.0.wake().expect("rung");
    }
}
