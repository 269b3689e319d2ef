//! The built library, opened as a program opens it, and a reader for its ELF tables.
#![allow(dead_code, reason = "each test binary uses a part")]

pub mod arrays;
pub mod calls;
pub mod device;
pub mod elf;
pub mod every;
pub mod memory;
pub mod session;

use std::ffi::{CString, c_void};
use std::path::{Path, PathBuf};

/// The library that cargo built beside this test.
pub fn built() -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a file");
    let deps = test.parent().expect("in target/…/deps");
    // The last: a carried benchmark, beside what a node installs.
    let candidates =
        [deps.join("libvgpu.so"), deps.with_file_name("libvgpu.so"), deps.join("../guest/libcuda.so.1")];
    candidates.into_iter().find(|path| path.is_file()).expect("cargo builds the cdylib for integration tests")
}

/// The library, loaded.
pub struct Library(*mut c_void);

// SAFETY: a handle of dlopen can be used from any thread.
unsafe impl Sync for Library {}
// SAFETY: as above.
unsafe impl Send for Library {}

impl Library {
    pub fn open() -> Self {
        Self::at(&built())
    }

    pub fn at(path: &Path) -> Self {
        let path = CString::new(path.as_os_str().as_encoded_bytes()).expect("no NUL in a path");
        // SAFETY: the library's constructors do nothing.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!handle.is_null(), "dlopen");
        Self(handle)
    }

    /// Closes the handle, as a program does; addresses of symbols stay good.
    pub fn close(self) {
        // SAFETY: the handle is open, and this is its end.
        assert_eq!(unsafe { libc::dlclose(self.0) }, 0);
    }

    pub fn symbol(&self, name: &str) -> *mut c_void {
        let name = CString::new(name).expect("no NUL in a name");
        // SAFETY: the handle is open, the name ends in NUL.
        unsafe { libc::dlsym(self.0, name.as_ptr()) }
    }
}

/// Calls an export: `cu!(library, cuMemAlloc_v2(place: *mut u64, 4096: usize))`. Gives the `CUresult`.
#[macro_export]
macro_rules! cu {
    ($library:expr, $name:ident($($value:tt: $t:ty),* $(,)?)) => {{
        let address = $library.symbol(stringify!($name));
        assert!(!address.is_null(), stringify!($name));
        // SAFETY: the types are those of CUDA's header, as the test writes them.
        #[allow(clippy::macro_metavars_in_unsafe, reason = "only types")]
        let function: unsafe extern "C" fn($($t),*) -> u32 = unsafe { std::mem::transmute(address) };
        // SAFETY: the pointers are places of the test.
        #[allow(clippy::macro_metavars_in_unsafe, reason = "the tests give names and numbers")]
        unsafe { function($($value),*) }
    }};
}
