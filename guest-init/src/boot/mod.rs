//! From the kernel's first process to a guest that serves its shim.
//!
//! [`run`] is the whole of it, in order: a root that can be left, mounts, the console, the loopback; then the share and the devices that
//! the shim made, at the same time. The rule: a step that fails ends the guest with a line on the console that names the step.

pub mod console;
mod mounts;
mod network;
pub mod power;
mod root;

use std::thread;

use crate::error::{During, GuestError, Result};
use console::say;

/// The 9p device's tag, as the shim writes it.
const SHARE_TAG: &str = "share0";
/// Where containers' files are.
const SHARE: &str = "/run/vgpu/share";

/// PID 1's life. Returns only with why it could not go on.
pub fn run() -> GuestError {
    power::off_at_panic();
    match prepare().and_then(|()| serve()) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn prepare() -> Result<()> {
    root::leave_initramfs()?;
    mounts::all()?;
    console::open()?;
    say("up");
    network::loopback_up()
}

fn serve() -> Result<std::convert::Infallible> {
    // The share's backend may take its time: the agent stream is made meanwhile.
    let share = thread::spawn(|| mounts::share(SHARE_TAG, SHARE));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .during(|| "make the event loop".into())?;
    let mounted = share.join().map_err(|_| GuestError::Oci { operation: "mount the share", text: "it panicked".into() })?;
    mounted?;
    say("share is mounted");
    runtime.block_on(std::future::pending())
}
