//! How large the domain of a pod is: from the pod's summed limits, else the container's, else the configuration.

use serde_json::Value;
use vgpu_codes::Code;
use vgpu_config::{Guest, GuestKind};

use super::Spec;
use crate::error::{Error, Result};

/// Kubernetes' summed limits, on the sandbox from kubelet 1.23 on.
pub(super) const SANDBOX_MEMORY: &str = "io.kubernetes.cri.sandbox-memory";
pub(super) const SANDBOX_CPU_QUOTA: &str = "io.kubernetes.cri.sandbox-cpu-quota";
pub(super) const SANDBOX_CPU_PERIOD: &str = "io.kubernetes.cri.sandbox-cpu-period";

const CONTAINER_NAME: &str = "io.kubernetes.cri.container-name";

const MIB: u64 = 1 << 20;
/// The most virtual CPUs that the guest kernel is built for (`NR_CPUS`).
const VCPUS_MAX: u32 = 64;

/// The kernel's own for a quota without a period, in microseconds. Source: Linux `Documentation/admin-guide/cgroup-v2.rst`, `cpu.max`.
const PERIOD_US: u64 = 100_000;

/// Memory and CPUs of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DomainSize {
    /// In MiB.
    pub memory_mib: u64,
    /// Virtual CPUs that its guest uses from the start.
    pub vcpus: u32,
    /// Those that it has: its guest can use so many once limits ask for them.
    pub vcpus_max: u32,
}

/// How much of CPUs' time a container may use. Source: OCI runtime specification, `config-linux.md`, "CPU".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuLimit {
    /// None: all that there is.
    quota_us: Option<u64>,
    period_us: u64,
}

impl Default for CpuLimit {
    fn default() -> Self {
        CpuLimit { quota_us: None, period_us: PERIOD_US }
    }
}

impl CpuLimit {
    /// What it is after a change by `resources` of a spec or an Update: what is not in there stays.
    pub fn changed(self, resources: &Value) -> CpuLimit {
        let quota_us = match resources.pointer("/cpu/quota").and_then(Value::as_i64) {
            Some(quota) => u64::try_from(quota).ok().filter(|&quota| quota > 0),
            None => self.quota_us,
        };
        let period_us = resources.pointer("/cpu/period").and_then(Value::as_u64).filter(|&us| us > 0);
        CpuLimit { quota_us, period_us: period_us.unwrap_or(self.period_us) }
    }

    /// In hundredths of one CPU, rounded up. None: there is no limit.
    pub fn percent(self) -> Option<u64> {
        Some(percent(self.quota_us?, self.period_us))
    }
}

fn percent(quota_us: u64, period_us: u64) -> u64 {
    quota_us.saturating_mul(100).div_ceil(period_us)
}

/// As many CPUs as so many hundredths take.
pub fn vcpus(percent: u64) -> u32 {
    let whole = percent.div_ceil(100).clamp(1, VCPUS_MAX.into());
    u32::try_from(whole).unwrap_or(VCPUS_MAX)
}

/// Room for limits that are raised. A kernel keeps 188 KiB for each CPU that it may come to use.
fn vcpus_max(vcpus: u32, kind: GuestKind) -> u32 {
    match kind {
        GuestKind::Pvh => vcpus.saturating_mul(4).clamp(8, VCPUS_MAX),
        // Its kernel knows no others than it starts. Source: Linux `arch/x86/xen/smp_pv.c`, `xen_pv_smp_prepare_cpus`.
        GuestKind::Pv => vcpus,
    }
}

impl Spec {
    /// The size of this pod's domain.
    ///
    /// # Errors
    /// [`Code::MemoryTooSmall`] if the limits leave too little for the guest kernel.
    pub fn domain_size(&self, guest: &Guest) -> Result<DomainSize> {
        let limit_bytes = self.pod_memory().or_else(|| self.memory_limit());
        let memory_mib = match limit_bytes {
            None => guest.memory_mib,
            Some(bytes) => bytes.div_ceil(MIB).saturating_add(guest.memory_overhead_mib),
        };
        if memory_mib < guest.memory_min_mib {
            let least_mib = guest.memory_min_mib.saturating_sub(guest.memory_overhead_mib);
            return Err(Error::new(
                Code::MemoryTooSmall,
                format!(
                    "the pod's memory limit of {} MiB is below the least of {least_mib} MiB",
                    limit_bytes.unwrap_or_default().div_ceil(MIB)
                ),
            ));
        }
        let vcpus = self.pod_cpu().or_else(|| self.cpu_limit().percent()).map_or(guest.vcpus, vcpus);
        Ok(DomainSize { memory_mib, vcpus, vcpus_max: vcpus_max(vcpus, guest.kind) })
    }

    /// What Kubernetes says of all containers of the pod together, in bytes.
    pub fn pod_memory(&self) -> Option<u64> {
        self.number(SANDBOX_MEMORY)
    }

    /// Kubernetes' name of the container.
    pub fn container_name(&self) -> Option<&str> {
        self.annotation(CONTAINER_NAME)
    }

    /// The container's own limit, in bytes.
    pub fn memory_limit(&self) -> Option<u64> {
        self.positive("/linux/resources/memory/limit")
    }

    /// Huge pages that the container may have, in bytes: kubelet counts them apart from its memory.
    pub fn huge_bytes(&self) -> u64 {
        let limits = self.list("/linux/resources/hugepageLimits").iter();
        limits.filter_map(|limit| limit.get("limit")?.as_u64()).fold(0, u64::saturating_add)
    }

    /// What Kubernetes says of all containers of the pod together, in hundredths of one CPU.
    pub fn pod_cpu(&self) -> Option<u64> {
        let (quota_us, period_us) = self.number(SANDBOX_CPU_QUOTA).zip(self.number(SANDBOX_CPU_PERIOD))?;
        Some(percent(quota_us, period_us))
    }

    /// The container's own limit.
    pub fn cpu_limit(&self) -> CpuLimit {
        let resources = self.0.pointer("/linux/resources");
        resources.map_or_else(CpuLimit::default, |resources| CpuLimit::default().changed(resources))
    }

    /// An annotation that is a number above 0: no limit is written as 0 or -1.
    fn number(&self, key: &str) -> Option<u64> {
        self.annotation(key)?.parse().ok().filter(|&number| number > 0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::spec::tests::spec;

    fn size(change: impl FnOnce(&mut Value)) -> Result<DomainSize> {
        spec(change).domain_size(&Guest::default())
    }

    #[test]
    fn a_pod_without_limits_gets_the_configured_size() {
        assert_eq!(size(|_| ()).unwrap(), DomainSize { memory_mib: 2048, vcpus: 4, vcpus_max: 16 });
    }

    #[test]
    fn the_pods_summed_limits_rule_and_the_guest_kernel_comes_on_top() {
        let pod = size(|s| {
            s["annotations"] = json!({SANDBOX_MEMORY: "536870912", SANDBOX_CPU_QUOTA: "150000", SANDBOX_CPU_PERIOD: "100000"});
            s["linux"]["resources"] = json!({"memory": {"limit": 4_294_967_296_u64}});
        });
        assert_eq!(pod.unwrap(), DomainSize { memory_mib: 512 + 64, vcpus: 2, vcpus_max: 8 });
        let own = size(|s| {
            s["linux"]["resources"] =
                json!({"memory": {"limit": 1 << 28}, "cpu": {"quota": 50_000, "period": 100_000}})
        });
        assert_eq!(own.unwrap(), DomainSize { memory_mib: 256 + 64, vcpus: 1, vcpus_max: 8 });
        let none = size(|s| {
            s["annotations"] =
                json!({SANDBOX_MEMORY: "0", SANDBOX_CPU_QUOTA: "-1", SANDBOX_CPU_PERIOD: "100000"})
        });
        assert_eq!(none.unwrap(), DomainSize { memory_mib: 2048, vcpus: 4, vcpus_max: 16 });
    }

    #[test]
    fn too_little_memory_names_the_least() {
        let error = size(|s| s["linux"]["resources"] = json!({"memory": {"limit": 16 << 20}})).unwrap_err();
        assert_eq!(error.code(), Some(Code::MemoryTooSmall));
        assert!(error.to_string().contains("16 MiB is below the least of 32 MiB"), "{error}");
    }

    #[test]
    fn a_domain_has_more_cpus_than_it_starts_but_for_a_pv_one() {
        let size = |cpus: u64, kind: GuestKind| {
            let guest = Guest { kind, ..Guest::default() };
            let resources = json!({"cpu": {"quota": cpus * 100_000, "period": 100_000}});
            let size = spec(|s| s["linux"]["resources"] = resources).domain_size(&guest).unwrap();
            (size.vcpus, size.vcpus_max)
        };
        let pvh = [1, 3, 20, 64, 1000].map(|cpus| size(cpus, GuestKind::Pvh));
        assert_eq!(pvh, [(1, 8), (3, 12), (20, 64), (64, 64), (64, 64)]);
        assert_eq!(size(3, GuestKind::Pv), (3, 3));
    }

    #[test]
    fn a_cpu_limit_changes_by_what_is_said_of_it() {
        let none = CpuLimit::default();
        assert_eq!(none.percent(), None);
        let half = none.changed(&json!({"cpu": {"quota": 50_000}}));
        assert_eq!(half.percent(), Some(50), "of the kernel's period");
        for (resources, percent) in [
            (json!({"cpu": {"shares": 2}, "memory": {"limit": 1}}), Some(50)),
            (json!({"cpu": {"period": 200_000}}), Some(25)),
            (json!({"cpu": {"quota": 1001, "period": 1000}}), Some(101)),
            (json!({"cpu": {"quota": u64::MAX}}), Some(50)),
            (json!({"cpu": {"quota": i64::MAX, "period": 1}}), Some(u64::MAX)),
            (json!({"cpu": {"quota": 1, "period": u64::MAX}}), Some(1)),
            (json!({"cpu": {"quota": -1}}), None),
            (json!({"cpu": {"quota": 0, "period": 0}}), None),
        ] {
            assert_eq!(half.changed(&resources).percent(), percent, "{resources}");
        }
    }
}
