//! The loopback. The pod's own interface is configured by the agent.

use std::fs;

use crate::error::{During, Result};

/// IFF_UP | IFF_LOOPBACK (Linux, `include/uapi/linux/if.h`).
const LOOPBACK_UP: &str = "0x9";

/// Brings `lo` up; the kernel gives it 127.0.0.1 and ::1 then.
/// # Errors
/// There is no such interface.
pub fn loopback_up() -> Result<()> {
    fs::write("/sys/class/net/lo/flags", LOOPBACK_UP).during(|| "bring lo up".into())
}
