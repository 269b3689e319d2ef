//! How many NVLinks of a GPU are up: CUDA does not tell, NVIDIA's management library does. Source: nvml.h.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::mem::transmute;
use std::path::PathBuf;
use std::ptr::NonNull;

use super::table::{library_folders, open, symbol};

/// `NVML_NVLINK_MAX_LINKS`.
const LINKS_MAX: c_uint = 18;
/// `NVML_FEATURE_ENABLED`.
const ENABLED: c_uint = 1;
/// `nvmlDeviceGetHandleByPciBusId_v2`.
type ByAddress = unsafe extern "C" fn(*const c_char, *mut *mut c_void) -> c_int;
/// `nvmlDeviceGetNvLinkState`.
type State = unsafe extern "C" fn(*mut c_void, c_uint, *mut c_uint) -> c_int;
/// `nvmlInit_v2`, `nvmlShutdown`.
type Plain = unsafe extern "C" fn() -> c_int;

/// The library, started.
pub struct Links {
    by_address: ByAddress,
    state: State,
    shutdown: Plain,
}

impl Links {
    /// Nothing if the library is not here or does not start, as vgpu's own one does not here: then no link is known.
    pub fn open() -> Option<Self> {
        let mut folders = std::iter::once(PathBuf::new()).chain(library_folders());
        folders.find_map(|folder| {
            let library = open(&folder.join("libnvidia-ml.so.1"))?;
            let find = |name: &str| symbol(library, name).map(NonNull::as_ptr);
            // SAFETY: the types, here and below, are those of nvml.h.
            let init = unsafe { transmute::<*mut c_void, Plain>(find("nvmlInit_v2\0")?) };
            // SAFETY: as above.
            let shutdown = unsafe { transmute::<*mut c_void, Plain>(find("nvmlShutdown\0")?) };
            let by_address = find("nvmlDeviceGetHandleByPciBusId_v2\0")?;
            // SAFETY: as above.
            let by_address = unsafe { transmute::<*mut c_void, ByAddress>(by_address) };
            // SAFETY: as above.
            let state = unsafe { transmute::<*mut c_void, State>(find("nvmlDeviceGetNvLinkState\0")?) };
            // SAFETY: a function without parameters.
            let code = unsafe { init() };
            if code != 0 {
                log::info!("links between GPUs are not known: nvmlInit_v2 gives {code}");
            }
            (code == 0).then(|| Self { by_address, state, shutdown })
        })
    }

    /// Links of the GPU at this PCI address that are up; 0 if that cannot be learned.
    pub fn of(&self, [domain, bus, device]: [u32; 3]) -> u32 {
        let Ok(address) = CString::new(format!("{domain:08x}:{bus:02x}:{device:02x}.0")) else { return 0 };
        let mut gpu = std::ptr::null_mut();
        // SAFETY: a C string, and a variable of ours for the handle.
        let code = unsafe { (self.by_address)(address.as_ptr(), &raw mut gpu) };
        if code != 0 {
            log::info!("links of {address:?} are not known: nvmlDeviceGetHandleByPciBusId_v2 gives {code}");
            return 0;
        }
        let is_up = |link: &c_uint| {
            let mut state = 0;
            // SAFETY: a handle that the library gave, and a variable of ours; links that are none are an error.
            unsafe { (self.state)(gpu, *link, &raw mut state) == 0 && state == ENABLED }
        };
        (0..LINKS_MAX).filter(is_up).fold(0, |count, _| count + 1)
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        // SAFETY: it was started once by us.
        unsafe { (self.shutdown)() };
    }
}
