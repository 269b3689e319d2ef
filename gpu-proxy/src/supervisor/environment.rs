//! What a worker's process is born with.

use std::ffi::CString;

use super::code_cache::{self, Keeper};
use super::hardware;
use crate::device::DeviceKind;

/// All of a worker's environment: nothing of the supervisor's own but what leads NVIDIA's driver to itself and to its devices, which are
/// those that the supervisor was given unless `visible` says which.
pub(super) fn environment(
    device: DeviceKind,
    visible: Option<String>,
    code: Option<&Keeper>,
) -> Vec<CString> {
    if device != DeviceKind::Cuda {
        return Vec::new();
    }
    let variable = |name: &str, value: Option<String>| {
        value.or_else(|| std::env::var(name).ok()).map(|value| format!("{name}={value}"))
    };
    let ours =
        [variable(hardware::VISIBLE, visible), variable("LD_LIBRARY_PATH", None)].into_iter().flatten();
    let all = code_cache::environment(code).into_iter().chain(ours);
    all.filter_map(|variable| CString::new(variable).ok()).collect()
}
