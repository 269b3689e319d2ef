//! How large the domain of a pod is: from the pod's summed limits, else the container's, else the configuration.

use vgpu_codes::Code;
use vgpu_config::Guest;

use super::Spec;
use crate::error::{Error, Result};

/// Kubernetes' summed limits, on the sandbox from kubelet 1.23 on.
pub(super) const SANDBOX_MEMORY: &str = "io.kubernetes.cri.sandbox-memory";
pub(super) const SANDBOX_CPU_QUOTA: &str = "io.kubernetes.cri.sandbox-cpu-quota";
pub(super) const SANDBOX_CPU_PERIOD: &str = "io.kubernetes.cri.sandbox-cpu-period";

const CONTAINER_NAME: &str = "io.kubernetes.cri.container-name";

const MIB: u64 = 1 << 20;
/// The most virtual CPUs that the guest kernel is built for (`NR_CPUS`).
const VCPUS_MAX: u64 = 64;

/// Memory and CPUs of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DomainSize {
    /// In MiB.
    pub memory_mib: u64,
    /// Virtual CPUs.
    pub vcpus: u32,
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
        Ok(DomainSize { memory_mib, vcpus: self.vcpus().unwrap_or(guest.vcpus) })
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

    /// The CPU limit, rounded up to whole CPUs.
    fn vcpus(&self) -> Option<u32> {
        let pod = self.number(SANDBOX_CPU_QUOTA).zip(self.number(SANDBOX_CPU_PERIOD));
        let own =
            || self.positive("/linux/resources/cpu/quota").zip(self.positive("/linux/resources/cpu/period"));
        let (quota, period) = pod.or_else(own)?;
        u32::try_from(quota.div_ceil(period).clamp(1, VCPUS_MAX)).ok()
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
        assert_eq!(size(|_| ()).unwrap(), DomainSize { memory_mib: 2048, vcpus: 4 });
    }

    #[test]
    fn the_pods_summed_limits_rule_and_the_guest_kernel_comes_on_top() {
        let pod = size(|s| {
            s["annotations"] = json!({SANDBOX_MEMORY: "536870912", SANDBOX_CPU_QUOTA: "150000", SANDBOX_CPU_PERIOD: "100000"});
            s["linux"]["resources"] = json!({"memory": {"limit": 4_294_967_296_u64}});
        });
        assert_eq!(pod.unwrap(), DomainSize { memory_mib: 512 + 64, vcpus: 2 });
        let own = size(|s| {
            s["linux"]["resources"] =
                json!({"memory": {"limit": 1 << 28}, "cpu": {"quota": 50_000, "period": 100_000}})
        });
        assert_eq!(own.unwrap(), DomainSize { memory_mib: 256 + 64, vcpus: 1 });
        let none = size(|s| {
            s["annotations"] =
                json!({SANDBOX_MEMORY: "0", SANDBOX_CPU_QUOTA: "-1", SANDBOX_CPU_PERIOD: "100000"})
        });
        assert_eq!(none.unwrap(), DomainSize { memory_mib: 2048, vcpus: 4 });
    }

    #[test]
    fn too_little_memory_names_the_least() {
        let error = size(|s| s["linux"]["resources"] = json!({"memory": {"limit": 16 << 20}})).unwrap_err();
        assert_eq!(error.code(), Some(Code::MemoryTooSmall));
        assert!(error.to_string().contains("16 MiB is below the least of 32 MiB"), "{error}");
    }
}
