//! Landlock: no path of the file system, no network, no signals or abstract sockets to others. It holds where seccomp cannot look,
//! in the paths that NVIDIA's driver opens.

use std::path::{Path, PathBuf};

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
/// Its device nodes beside those of its GPUs. Not `/dev/nvidia-caps`: the nodes there open parts of a GPU (MIG), everybody's on the node, and are
/// not asked for where there are none. Not `/dev/shm`: the driver takes the name of a library to load from a file there, which a worker of
/// another zone could have written.
const CUDA_DEVICES: &[&str] = &["/dev/nvidiactl", "/dev/nvidia-uvm"];
/// Here the driver names its threads; where it cannot, `cuInit` gives 304 (seen with 580.159.04).
const CUDA_THREADS: &[&str] = &["/proc/self/task"];

/// The rights that a worker is asked to have none of: all that Linux 6.12 knows, the kernel of Debian 13's Dom0.
const HANDLED: ABI = ABI::V6;

/// GPUs of a node at most.
const NODES_MAX: u32 = 16;

/// Restricts this thread and those it starts: of the GPUs' nodes to those with these numbers, `None`: to all. Files are made nowhere but
/// in the directory for what the driver compiles, if there is one. The gaps that are left.
pub fn restrict(device: DeviceKind, nodes: Option<&[u32]>, code: Option<&Path>) -> Vec<Gap> {
    let mut gaps = Vec::new();
    if device == DeviceKind::Cuda
        && nodes.is_none()
        && (0..NODES_MAX).filter(|number| node(*number).exists()).count() > 1
    {
        gaps.push("workers may open every GPU of the node: which one is whose is not known".into());
    }
    gaps.extend(match try_restrict(device, nodes, code) {
        Ok(status) => gap(&status),
        Err(error) => Some(format!("workers have no Landlock: {error}")),
    });
    gaps
}

fn node(number: u32) -> PathBuf {
    format!("/dev/nvidia{number}").into()
}

/// Every right of [`HANDLED`] counts: a kernel that knows some of them leaves the others open.
fn gap(status: &RulesetStatus) -> Option<Gap> {
    match status {
        RulesetStatus::FullyEnforced => None,
        RulesetStatus::PartiallyEnforced => {
            Some("workers have Landlock in part: this kernel is older than Linux 6.12".into())
        }
        RulesetStatus::NotEnforced => Some("workers have no Landlock: this kernel lacks it".into()),
    }
}

/// What the driver may do where it keeps what it compiled: plain files and folders. No links, devices or sockets, and nothing is run.
fn code_files() -> BitFlags<AccessFs> {
    AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer
}

/// What a device node is for: it is opened and spoken to. Nothing is made beside it.
fn device_node() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev
}

/// Which paths NVIDIA's driver may use how.
fn cuda_rules(nodes: Option<&[u32]>, code: Option<&Path>) -> Vec<(PathBuf, BitFlags<AccessFs>)> {
    let reads = AccessFs::from_read(HANDLED);
    let of_all = |paths: &[&str], access| paths.iter().map(|path| (path.into(), access)).collect::<Vec<_>>();
    let mut rules = of_all(CUDA_READS, reads);
    // One by one: such a folder may be a link that leads out of those above.
    rules.extend(library_folders().into_iter().map(|folder| (folder, reads)));
    rules.extend(of_all(CUDA_DEVICES, device_node()));
    rules.extend(of_all(CUDA_THREADS, AccessFs::WriteFile | AccessFs::Truncate));
    let nodes = nodes.map_or_else(|| (0..NODES_MAX).collect(), <[u32]>::to_vec);
    rules.extend(nodes.into_iter().map(|number| (node(number), device_node())));
    rules.extend(code.map(|code| (code.to_owned(), code_files())));
    rules
}

fn try_restrict(
    device: DeviceKind,
    nodes: Option<&[u32]>,
    code: Option<&Path>,
) -> Result<RulesetStatus, RulesetError> {
    let abi = HANDLED;
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?;
    let rules = if device == DeviceKind::Cuda { cuda_rules(nodes, code) } else { Vec::new() };
    let rules = rules.into_iter().flat_map(|(path, access)| path_beneath_rules([path], access));
    Ok(ruleset.add_rules(rules)?.restrict_self()?.ruleset)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::{fs, thread};

    use super::*;

    #[test]
    fn a_kernel_that_enforces_some_rights_leaves_a_gap_as_one_that_enforces_none() {
        assert_eq!(gap(&RulesetStatus::FullyEnforced), None);
        let partly = gap(&RulesetStatus::PartiallyEnforced).unwrap();
        let none = gap(&RulesetStatus::NotEnforced).unwrap();
        assert_ne!(partly, none);
    }

    /// Of what lies in `/dev`. All else there is other programs', or opens a GPU that is another's.
    #[test]
    fn of_device_nodes_only_those_of_its_gpus_and_the_drivers_two_are_opened_and_nothing_is_made_there() {
        let in_dev = |rules: Vec<(PathBuf, _)>| {
            let mut rules =
                rules.into_iter().filter(|(path, _)| path.starts_with("/dev")).collect::<Vec<_>>();
            rules.sort_by(|(one, _), (other, _)| one.cmp(other));
            rules
        };
        let node = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
        let named = ["/dev/nvidia-uvm", "/dev/nvidia2", "/dev/nvidia5", "/dev/nvidiactl"];
        assert_eq!(in_dev(cuda_rules(Some(&[5, 2]), None)), named.map(|path| (path.into(), node)));
        for (path, access) in cuda_rules(Some(&[0]), None) {
            let makes = AccessFs::from_write(HANDLED) & !node & !AccessFs::Truncate;
            assert!((access & makes).is_empty(), "{}: {access:?}", path.display());
        }
    }

    #[test]
    fn the_rules_of_nvidias_driver_leave_no_gap_of_their_own() {
        let gap_of = |device| thread::spawn(move || restrict(device, Some(&[0]), None)).join().unwrap();
        assert_eq!(gap_of(DeviceKind::Cuda), gap_of(DeviceKind::Soft));
    }

    /// Behind the door of these devices every open is ENOSYS already (seccomp): this is the wall before it closes, and the second after.
    #[test]
    fn a_worker_without_nvidias_driver_opens_no_path() {
        for device in [DeviceKind::Soft, DeviceKind::Null] {
            fs::read("/proc/self/status").unwrap();
            // The rules bind the thread that asks for them.
            let bound = thread::spawn(move || {
                let gaps = restrict(device, None, None);
                assert!(gaps.iter().all(|gap| gap.contains("in part")), "{gaps:?}");
                let refused = |what: &str, error: std::io::Error| {
                    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{device}: {what}: {error}");
                };
                for path in ["/proc/self/status", "/dev/null", "/etc/passwd"] {
                    refused(path, fs::File::open(path).unwrap_err());
                }
                refused("a folder", fs::read_dir("/").unwrap_err());
                refused("a new file", fs::write("/tmp/planted", "x").unwrap_err());
            });
            bound.join().unwrap();
        }
    }
}
