//! Whether NVML was started in this process, and what was learned. Start at [`session`].
//!
//! Between two calls nothing is open and nothing is locked: a child of `fork` may go on, and a gpu-proxy that was started again is found
//! by the next question.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use idm::hello::Hello;
use idm::record::RECORD_LIMIT_MAX;
use vgpu_zone_api::guest::facts::{self, DEVICES_MAX, DeviceFacts, Facts};

use crate::abi::{Device, be_quiet};
use crate::log::say;
use crate::result::{NvmlError, NvmlResult};

/// Where the socket is when `VGPU_SOCKET` doesn't say.
const SOCKET: &str = "/run/vgpu/gpu.sock";
/// How long a step of a question may take.
const LIMIT: Duration = Duration::from_secs(30);

/// The addresses of devices: nothing is ever read there.
static DEVICES: [u8; DEVICES_MAX] = [0; DEVICES_MAX];

#[derive(Debug)]
struct State {
    /// `nvmlInit`s without their `nvmlShutdown`.
    users: u32,
    facts: Option<Arc<Facts>>,
}

static STATE: Mutex<State> = Mutex::new(State { users: 0, facts: None });

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was learned at the start.
#[derive(Debug)]
pub struct Session(Arc<Facts>);

/// `nvmlInit`. Only the first one asks.
/// # Errors
/// Nobody answers, or no device was granted.
pub fn start() -> NvmlResult<()> {
    be_quiet();
    {
        let mut state = state();
        if state.facts.is_some() {
            state.users = state.users.saturating_add(1);
            return Ok(());
        }
    }
    let facts = ask()?;
    let mut state = state();
    state.users = state.users.saturating_add(1);
    // Of two threads that start at once the first one's answer stays.
    state.facts.get_or_insert_with(|| Arc::new(facts));
    Ok(())
}

/// `nvmlShutdown`.
/// # Errors
/// 1: it was not started, or every start has had its end.
pub fn end() -> NvmlResult<()> {
    let mut state = state();
    state.users = state.users.checked_sub(1).ok_or(NvmlError::UNINITIALIZED)?;
    if state.users == 0 {
        state.facts = None;
    }
    Ok(())
}

/// What was learned at the start.
/// # Errors
/// 1: NVML was not started.
pub fn session() -> NvmlResult<Session> {
    state().facts.clone().map(Session).ok_or(NvmlError::UNINITIALIZED)
}

impl Session {
    /// What does not change.
    pub fn facts(&self) -> &Facts {
        &self.0
    }

    /// The device of a handle, and its index.
    /// # Errors
    /// 2: it is none.
    pub fn device(&self, device: Device) -> NvmlResult<(usize, &DeviceFacts)> {
        let index = device.0.addr().wrapping_sub(DEVICES.as_ptr().addr());
        let facts = self.0.devices.get(index).ok_or(NvmlError::INVALID_ARGUMENT)?;
        Ok((index, facts))
    }

    /// The handle of the device at `index`.
    pub fn handle(&self, index: usize) -> Option<Device> {
        let place = DEVICES.get(index)?;
        (index < self.0.devices.len()).then(|| Device(std::ptr::from_ref(place)))
    }

    /// What is true now.
    /// # Errors
    /// Nobody answers any more, or with other devices than before.
    pub fn now(&self) -> NvmlResult<Facts> {
        let facts = ask().map_err(NvmlError::later)?;
        let ids = |facts: &Facts| facts.devices.iter().map(|device| device.uuid).collect::<Vec<_>>();
        if ids(&facts) == ids(&self.0) { Ok(facts) } else { Err(NvmlError::GPU_IS_LOST) }
    }
}

fn ask() -> NvmlResult<Facts> {
    let path = PathBuf::from(std::env::var_os("VGPU_SOCKET").unwrap_or_else(|| SOCKET.into()));
    let hello = Hello::new(RECORD_LIMIT_MAX, facts::APPLICATION);
    let (bytes, _) = idm::connect::ask(&path, &hello, facts::BYTES_MAX, LIMIT).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        say!("no answer about the GPU by {}: {error}{cause}", path.display());
        NvmlError::of(&error)
    })?;
    Facts::decode(&bytes).map_err(|error| {
        say!("{error}");
        NvmlError::UNKNOWN
    })
}
