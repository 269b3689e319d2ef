//! Landlock: no path of the file system, no network, no signals or abstract sockets to others. It holds where seccomp cannot look,
//! in the paths that NVIDIA's driver opens.

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

use super::Gap;
use crate::device::{DeviceKind, library_folders};

/// What NVIDIA's driver reads, its libraries included. Of `/proc` only what it was seen to open: the rest tells of
/// the node's other processes.
const CUDA_READS: &[&str] = &[
    "/usr",
    "/lib",
    "/lib64",
    "/etc",
    "/sys",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/devices",
    "/proc/meminfo",
    "/proc/modules",
    "/proc/stat",
    "/proc/sys/vm",
    "/proc/driver/nvidia",
];
/// Its device nodes. Not `/dev/shm`: the driver takes the name of a library to load from a file there, which a worker of another zone
/// could have written.
const CUDA_DEVICES: &[&str] = &["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-caps"];
/// Here the driver names its threads; where it cannot, `cuInit` gives 304 (seen with 580.159.04).
const CUDA_THREADS: &[&str] = &["/proc/self/task"];

/// Restricts this thread and those it starts. The gap that is left, if any.
pub fn restrict(device: DeviceKind) -> Option<Gap> {
    match try_restrict(device) {
        Ok(RulesetStatus::NotEnforced) => Some("workers have no Landlock: this kernel lacks it".into()),
        Ok(_) => None,
        Err(error) => Some(format!("workers have no Landlock: {error}")),
    }
}

fn try_restrict(device: DeviceKind) -> Result<RulesetStatus, RulesetError> {
    let abi = ABI::V6;
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?;
    let ruleset = if device == DeviceKind::Cuda {
        let devices = (0..16).map(|number| format!("/dev/nvidia{number}"));
        let writes: BitFlags<AccessFs> = AccessFs::from_all(abi) & !AccessFs::Execute;
        ruleset
            .add_rules(path_beneath_rules(CUDA_READS, AccessFs::from_read(abi)))?
            // One by one: such a folder may be a link that leads out of those above.
            .add_rules(path_beneath_rules(library_folders(), AccessFs::from_read(abi)))?
            .add_rules(path_beneath_rules(CUDA_DEVICES, writes))?
            .add_rules(path_beneath_rules(CUDA_THREADS, AccessFs::WriteFile | AccessFs::Truncate))?
            .add_rules(path_beneath_rules(devices, writes))?
    } else {
        ruleset
    };
    Ok(ruleset.restrict_self()?.ruleset)
}
