//! The built library, opened as a program opens it, and a door that answers its questions.
#![allow(dead_code, reason = "each test binary uses a part")]

#[path = "../../../tests/support/elf.rs"]
pub mod elf;

use std::ffi::{CString, c_void};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use idm::connect::{greet, peer_of, refuse, tell};
use idm::hello::Hello;
use vgpu_zone_api::guest::facts::{self, DeviceFacts, Facts, ProcessFacts};

const LIMIT: Duration = Duration::from_secs(10);

/// The library that cargo built beside this test.
pub fn built() -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a file");
    let deps = test.parent().expect("in target/…/deps");
    let candidates = [deps.join("libvgpu_nvml.so"), deps.with_file_name("libvgpu_nvml.so")];
    candidates.into_iter().find(|path| path.is_file()).expect("cargo builds the cdylib for integration tests")
}

/// The library, loaded.
pub struct Library(*mut c_void);

// SAFETY: a handle of dlopen can be used from any thread.
unsafe impl Sync for Library {}
// SAFETY: as above.
unsafe impl Send for Library {}

impl Library {
    pub fn at(path: &Path) -> Self {
        let path = CString::new(path.as_os_str().as_encoded_bytes()).expect("no NUL in a path");
        // SAFETY: the library's constructors do nothing.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!handle.is_null(), "dlopen");
        Self(handle)
    }

    pub fn symbol(&self, name: &str) -> *mut c_void {
        let name = CString::new(name).expect("no NUL in a name");
        // SAFETY: the handle is open, the name ends in NUL.
        unsafe { libc::dlsym(self.0, name.as_ptr()) }
    }

    /// Closes the handle, as a program does; addresses of symbols stay good.
    pub fn close(self) {
        // SAFETY: the handle is open, and this is its end.
        assert_eq!(unsafe { libc::dlclose(self.0) }, 0);
    }
}

/// Calls an export: `nv!(library, nvmlDeviceGetCount_v2(place: *mut u32))`. Gives the `nvmlReturn_t`.
#[macro_export]
macro_rules! nv {
    ($library:expr, $name:ident($($value:tt: $t:ty),* $(,)?)) => {{
        let address = $library.symbol(stringify!($name));
        assert!(!address.is_null(), stringify!($name));
        // SAFETY: the types are those of nvml.h, as the test writes them.
        #[allow(clippy::macro_metavars_in_unsafe, reason = "only types")]
        let function: unsafe extern "C" fn($($t),*) -> u32 = unsafe { std::mem::transmute(address) };
        // SAFETY: the pointers are places of the test.
        #[allow(clippy::macro_metavars_in_unsafe, reason = "the tests give names and numbers")]
        unsafe { function($($value),*) }
    }};
}

/// What the door says: facts, or the number of a code.
type Answer = Arc<Mutex<Result<Facts, u16>>>;

/// The library, one a process: the tests of a file play one after the other.
struct Scene {
    nvml: Library,
    playing: Mutex<()>,
}

/// A test that plays, with a door of its own. It begins with two devices and without an `nvmlInit`.
pub struct Play {
    nvml: &'static Library,
    answer: Answer,
    questions: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    dir: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Play {
    pub fn begin() -> Self {
        static SCENE: OnceLock<Scene> = OnceLock::new();
        let scene = SCENE.get_or_init(|| Scene { nvml: Library::at(&built()), playing: Mutex::new(()) });
        let alone = scene.playing.lock().unwrap_or_else(PoisonError::into_inner);
        while nv!(scene.nvml, nvmlShutdown()) == 0 {}
        let dir = tempfile::tempdir().expect("a fresh directory");
        let path = dir.path().join("gpu.sock");
        let listener = UnixListener::bind(&path).expect("bound");
        // SAFETY: one test of this process plays at a time, and the library reads it only in the test's own calls.
        unsafe { std::env::set_var("VGPU_SOCKET", &path) };
        let play = Self {
            nvml: &scene.nvml,
            answer: Arc::new(Mutex::new(Ok(facts()))),
            questions: Arc::default(),
            ended: Arc::default(),
            dir,
            _alone: alone,
        };
        let (answer, questions, ended) =
            (Arc::clone(&play.answer), Arc::clone(&play.questions), Arc::clone(&play.ended));
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                serve(&socket.expect("accepted"), &answer, &questions);
            }
        });
        play
    }
}

fn serve(socket: &UnixStream, answer: &Answer, questions: &AtomicUsize) {
    let peer = peer_of(socket).expect("a peer");
    let theirs = greet(socket, peer, LIMIT).expect("a hello");
    assert_eq!(theirs.application, facts::APPLICATION);
    questions.fetch_add(1, Ordering::SeqCst);
    let ours = Hello::new(64 << 10, facts::APPLICATION);
    let answer = answer.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let _ = match answer {
        Ok(facts) => tell(socket, peer, &ours, &facts.encode()),
        Err(0) => Ok(()),
        Err(code) => refuse(socket, peer, &ours, code),
    };
}

impl Drop for Play {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(self.dir.path().join("gpu.sock"));
    }
}

impl Play {
    /// What is said from now on. A code of 0: nothing, the socket ends.
    pub fn answer(&self, answer: Result<Facts, u16>) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    /// Questions that were asked in `during`.
    pub fn questions<T>(&self, during: impl FnOnce() -> T) -> (usize, T) {
        let before = self.questions.load(Ordering::SeqCst);
        let result = during();
        (self.questions.load(Ordering::SeqCst) - before, result)
    }
}

impl std::ops::Deref for Play {
    type Target = Library;
    fn deref(&self) -> &Library {
        self.nvml
    }
}

/// Two devices, and three processes.
pub fn facts() -> Facts {
    let device = DeviceFacts {
        name: "NVIDIA H100 80GB HBM3".into(),
        uuid: *b"vgpu-cuda-device",
        pci: [0, 1, 0],
        capability: [9, 0],
        total_bytes: 8 << 30,
        used_bytes: 518 << 20,
        multiprocessors: 132,
        clock_khz: 1_980_000,
        memory_clock_khz: 2_619_000,
        memory_bus_bits: 5120,
        ecc: true,
        peers: 1 << 1,
        links: 12,
    };
    let second = DeviceFacts {
        name: "second".into(),
        uuid: [0xab; 16],
        pci: [1, 0x2c, 3],
        capability: [99, 0],
        multiprocessors: 0,
        clock_khz: 0,
        memory_clock_khz: 0,
        memory_bus_bits: 0,
        ecc: false,
        peers: 0,
        links: 0,
        ..device.clone()
    };
    let process = |device, pid, used_bytes| ProcessFacts { device, pid, used_bytes };
    Facts {
        cuda_version: 13020,
        driver_version: "580.159.04".into(),
        devices: vec![device, second],
        processes: vec![process(0, 12, 500 << 20), process(1, 13, 1), process(0, 14, 18 << 20)],
    }
}
