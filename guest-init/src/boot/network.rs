//! The loopback, and a name for a pod that has none. The pod's own interfaces come later, by the shim's word: `network`.

use std::fs;

use crate::error::{During, Result};

/// IFF_UP | IFF_LOOPBACK (Linux, `include/uapi/linux/if.h`).
const LOOPBACK_UP: &str = "0x9";

/// What containers see that bring no name of their own, until the shim's hello has one.
const HOSTNAME: &[u8] = b"vgpu";

/// Gives the guest a name in place of the kernel's "(none)".
/// # Errors
/// As sethostname(2).
pub fn default_hostname() -> Result<()> {
    rustix::system::sethostname(HOSTNAME).during(|| "set the hostname".into())
}

/// Brings `lo` up; the kernel gives it 127.0.0.1 and ::1 then.
/// # Errors
/// There is no such interface.
pub fn loopback_up() -> Result<()> {
    fs::write("/sys/class/net/lo/flags", LOOPBACK_UP).during(|| "bring lo up".into())
}
