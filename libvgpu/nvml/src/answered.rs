//! What is answered: each name of `names.rs` that stands here has its export in `calls/`; the others are made by `build.rs`, and refuse.

/// A function that libnvidia-ml exports.
#[derive(Clone, Copy, Debug)]
pub struct Name {
    pub name: &'static str,
    /// Its first parameter is a device.
    pub on_device: bool,
}

/// A row of `names.rs`.
pub const fn n(name: &'static str, on_device: bool) -> Name {
    Name { name, on_device }
}

/// Names of one subject: the file in `calls/`.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    pub subject: &'static str,
    pub names: &'static [&'static str],
}

pub const ANSWERED: &[Group] = &[
    Group {
        subject: "system",
        names: &[
            "nvmlErrorString",
            "nvmlGetExcludedDeviceCount",
            "nvmlInit",
            "nvmlInitWithFlags",
            "nvmlInit_v2",
            "nvmlShutdown",
            "nvmlSystemGetConfComputeSettings",
            "nvmlSystemGetConfComputeState",
            "nvmlSystemGetCudaDriverVersion",
            "nvmlSystemGetCudaDriverVersion_v2",
            "nvmlSystemGetDriverVersion",
            "nvmlSystemGetHicVersion",
            "nvmlSystemGetNVMLVersion",
            "nvmlSystemGetProcessName",
            "nvmlUnitGetCount",
            "nvmlUnitGetHandleByIndex",
        ],
    },
    Group {
        subject: "handle",
        names: &[
            "nvmlDeviceGetCount",
            "nvmlDeviceGetCount_v2",
            "nvmlDeviceGetHandleByIndex",
            "nvmlDeviceGetHandleByIndex_v2",
            "nvmlDeviceGetHandleByPciBusId",
            "nvmlDeviceGetHandleByPciBusId_v2",
            "nvmlDeviceGetHandleBySerial",
            "nvmlDeviceGetHandleByUUID",
            "nvmlDeviceGetHandleByUUIDV",
        ],
    },
    Group {
        subject: "device",
        names: &[
            "nvmlDeviceGetAccountingMode",
            "nvmlDeviceGetArchitecture",
            "nvmlDeviceGetBrand",
            "nvmlDeviceGetComputeMode",
            "nvmlDeviceGetCudaComputeCapability",
            "nvmlDeviceGetDisplayActive",
            "nvmlDeviceGetDisplayMode",
            "nvmlDeviceGetEccMode",
            "nvmlDeviceGetFieldValues",
            "nvmlDeviceGetIndex",
            "nvmlDeviceGetMaxClockInfo",
            "nvmlDeviceGetMaxMigDeviceCount",
            "nvmlDeviceGetMemoryBusWidth",
            "nvmlDeviceGetMinorNumber",
            "nvmlDeviceGetName",
            "nvmlDeviceGetNumGpuCores",
            "nvmlDeviceGetPciInfo",
            "nvmlDeviceGetPciInfoExt",
            "nvmlDeviceGetPciInfo_v2",
            "nvmlDeviceGetPciInfo_v3",
            "nvmlDeviceGetUUID",
            "nvmlDeviceIsMigDeviceHandle",
        ],
    },
    Group {
        subject: "affinity",
        names: &[
            "nvmlDeviceGetCpuAffinity",
            "nvmlDeviceGetCpuAffinityWithinScope",
            "nvmlDeviceGetMemoryAffinity",
        ],
    },
    Group {
        subject: "event",
        names: &[
            "nvmlDeviceGetSupportedEventTypes",
            "nvmlDeviceRegisterEvents",
            "nvmlEventSetCreate",
            "nvmlEventSetFree",
            "nvmlEventSetWait",
            "nvmlEventSetWait_v2",
        ],
    },
    Group {
        subject: "link",
        names: &[
            "nvmlDeviceGetNvLinkCapability",
            "nvmlDeviceGetNvLinkRemoteDeviceType",
            "nvmlDeviceGetNvLinkRemotePciInfo",
            "nvmlDeviceGetNvLinkRemotePciInfo_v2",
            "nvmlDeviceGetNvLinkState",
        ],
    },
    Group { subject: "memory", names: &["nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2"] },
    Group {
        subject: "process",
        names: &[
            "nvmlDeviceGetComputeRunningProcesses",
            "nvmlDeviceGetComputeRunningProcesses_v2",
            "nvmlDeviceGetComputeRunningProcesses_v3",
            "nvmlDeviceGetGraphicsRunningProcesses",
            "nvmlDeviceGetGraphicsRunningProcesses_v2",
            "nvmlDeviceGetGraphicsRunningProcesses_v3",
            "nvmlDeviceGetMPSComputeRunningProcesses",
            "nvmlDeviceGetMPSComputeRunningProcesses_v2",
            "nvmlDeviceGetMPSComputeRunningProcesses_v3",
            "nvmlDeviceGetRunningProcessDetailList",
        ],
    },
    Group {
        subject: "topology",
        names: &[
            "nvmlDeviceGetGpuFabricInfo",
            "nvmlDeviceGetGpuFabricInfoV",
            "nvmlDeviceGetP2PStatus",
            "nvmlDeviceGetTopologyCommonAncestor",
            "nvmlDeviceGetTopologyNearestGpus",
            "nvmlDeviceOnSameBoard",
        ],
    },
];

/// Exported beside the header's names: NVIDIA's own nvidia-smi asks for it (`calls/private.rs`).
pub const PRIVATE: &str = "nvmlInternalGetExportTable";

/// The subject of a name that is answered.
pub fn subject_of(name: &str) -> Option<&'static str> {
    let group = ANSWERED.iter().find(|group| group.names.contains(&name))?;
    Some(group.subject)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write as _;

    use super::*;
    use crate::names::NAMES;

    #[test]
    fn each_answer_stands_once_and_is_one_of_libnvidia_ml() {
        let mut seen = BTreeSet::new();
        for name in ANSWERED.iter().flat_map(|group| group.names) {
            assert!(seen.insert(name), "{name} stands twice");
            assert!(NAMES.iter().any(|row| row.name == *name), "{name} is no name of libnvidia-ml");
        }
    }

    #[test]
    fn what_begins_with_a_device_is_known() {
        let of_device = |name: &str| NAMES.iter().any(|row| row.name == name && row.on_device);
        assert!(of_device("nvmlDeviceGetTemperature") && of_device("nvmlDeviceSetComputeMode"));
        assert!(!of_device("nvmlSystemGetDriverBranch") && !of_device("nvmlDeviceGetCount_v2"));
    }

    fn coverage() -> String {
        let answered = NAMES.iter().filter(|row| subject_of(row.name).is_some()).count();
        let mut out = format!(
            "# NVML coverage\n\nMade from `libvgpu/nvml/src/answered.rs` by `UPDATE=1 cargo test -p libvgpu-nvml coverage`; a test compares.\n\n\
             nvml.h of CUDA 13.0 declares {} names. All are exported, and `{PRIVATE}`; {answered} are answered, the others return 3\n\
             (`NVML_ERROR_NOT_SUPPORTED`), or 1 before `nvmlInit` and 2 for a device that is none. The subject is the file in\n\
             `libvgpu/nvml/src/calls`; tests are in `libvgpu/nvml/tests`.\n\n| subject | names |\n|---|---|\n",
            NAMES.len()
        );
        for group in ANSWERED {
            let _ = writeln!(out, "| {} | {} |", group.subject, group.names.join(" "));
        }
        let missing: Vec<_> =
            NAMES.iter().map(|row| row.name).filter(|name| subject_of(name).is_none()).collect();
        let _ = write!(out, "\n## Not supported: {} names\n\n", missing.len());
        for line in missing.chunks(4) {
            let _ = writeln!(out, "{}", line.join(" "));
        }
        out
    }

    #[test]
    fn the_coverage_table_is_up_to_date() {
        let place = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/nvml-coverage.md");
        let table = coverage();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(place, &table).unwrap();
        }
        let committed = std::fs::read_to_string(place).unwrap_or_default();
        assert!(
            committed == table,
            "docs/nvml-coverage.md: run UPDATE=1 cargo test -p libvgpu-nvml coverage"
        );
    }
}
