//! The calls that many tests make.

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

use super::session::Session;

/// As methods, for tests that have none of these names.
pub trait Calls {
    /// Replies that the library has waited for: the second word of its marker.
    fn replies(&self) -> u64;
    /// How many replies `work` waits for.
    fn waits(&self, work: impl FnOnce()) -> u64;
    /// How often the worker saw a call of this name.
    fn seen_count(&self, name: &str) -> usize;
    /// Loads a module, which must succeed.
    fn load(&self, image: &CStr) -> u64;
    fn unload(&self, module: u64);
    fn function(&self, module: u64, name: &CStr) -> u64;
    /// Launches `fill` over the fake device's variable.
    fn launch_fill(&self, fill: u64, stream: u64);
    fn stream(&self, flags: u32) -> u64;
    fn limit(&self, limit: u32) -> usize;
    fn function_attribute(&self, number: u32, function: u64) -> i32;
}

impl Calls for Session {
    fn replies(&self) -> u64 {
        let marker = self.libcuda.symbol("vgpu_is_shim").cast::<AtomicU64>();
        // SAFETY: two words that live as long as the library.
        let words = unsafe { std::slice::from_raw_parts(marker, 2) };
        assert_eq!(words[0].load(Ordering::Relaxed), vgpu_api::WIRE_HASH);
        words[1].load(Ordering::Relaxed)
    }

    fn waits(&self, work: impl FnOnce()) -> u64 {
        let before = self.replies();
        work();
        self.replies() - before
    }

    fn seen_count(&self, name: &str) -> usize {
        self.seen.lock().unwrap().calls.iter().filter(|call| **call == name).count()
    }

    fn load(&self, image: &CStr) -> u64 {
        let (mut module, image) = (0u64, image.as_ptr());
        let place = &raw mut module;
        assert_eq!(crate::cu!(self.libcuda, cuModuleLoadData(place: *mut u64, image: *const i8)), 0);
        module
    }

    fn unload(&self, module: u64) {
        assert_eq!(crate::cu!(self.libcuda, cuModuleUnload(module: u64)), 0);
    }

    fn function(&self, module: u64, name: &CStr) -> u64 {
        let (mut function, name) = (0u64, name.as_ptr());
        let place = &raw mut function;
        let code =
            crate::cu!(self.libcuda, cuModuleGetFunction(place: *mut u64, module: u64, name: *const i8));
        assert_eq!(code, 0);
        function
    }

    fn launch_fill(&self, fill: u64, stream: u64) {
        let (address, value, count) = (0x7000_0000u64, 7u32, 4u32);
        let params =
            [(&raw const address).cast(), (&raw const value).cast(), (&raw const count).cast::<c_void>()];
        let (list, null, one, none) = (params.as_ptr(), 0u64, 1u32, 0u32);
        let code = crate::cu!(self.libcuda, cuLaunchKernel(fill: u64, one: u32, one: u32, one: u32, one: u32, one: u32,
            one: u32, none: u32, stream: u64, list: *const *const c_void, null: u64));
        assert_eq!(code, 0);
    }

    fn stream(&self, flags: u32) -> u64 {
        let mut stream = 0u64;
        let place = &raw mut stream;
        assert_eq!(crate::cu!(self.libcuda, cuStreamCreate(place: *mut u64, flags: u32)), 0);
        stream
    }

    fn limit(&self, limit: u32) -> usize {
        let mut value = 0usize;
        let place = &raw mut value;
        assert_eq!(crate::cu!(self.libcuda, cuCtxGetLimit(place: *mut usize, limit: u32)), 0);
        value
    }

    fn function_attribute(&self, number: u32, function: u64) -> i32 {
        let mut value = 0;
        let place = &raw mut value;
        let code = crate::cu!(self.libcuda, cuFuncGetAttribute(place: *mut i32, number: u32, function: u64));
        assert_eq!(code, 0);
        value
    }
}
