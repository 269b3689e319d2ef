//! What of a container's limits means something to the guest's kernel.

use std::path::Path;

use libcontainer::oci_spec::runtime::LinuxResources;

/// Takes out limits that name the node's hardware or that this kernel has no file for: writing them would fail the container.
pub fn adapt(resources: &mut LinuxResources, huge_pages: &Path) {
    resources.set_devices(None).set_block_io(None).set_network(None).set_rdma(None);
    if let Some(cpu) = resources.cpu_mut() {
        // CPU numbers of the node. The pod has its own vCPUs.
        cpu.set_cpus(None).set_mems(None).set_realtime_period(None).set_realtime_runtime(None);
    }
    if let Some(memory) = resources.memory_mut() {
        memory.set_swap(None);
    }
    let here = resources.hugepage_limits_mut().take().map(|limits| {
        limits.into_iter().filter(|limit| has_huge_page(huge_pages, limit.page_size())).collect()
    });
    resources.set_hugepage_limits(here);
}

fn has_huge_page(huge_pages: &Path, page_size: &str) -> bool {
    page_kib(page_size).is_some_and(|kib| huge_pages.join(format!("hugepages-{kib}kB")).exists())
}

/// Of a size as in the spec: "2MB", "1GB", "64KB".
pub fn page_kib(page_size: &str) -> Option<u64> {
    let digits = page_size.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &page_size[digits.len()..] {
        "KB" => 1,
        "MB" => 1 << 10,
        "GB" => 1 << 20,
        _ => return None,
    };
    digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit))
}
