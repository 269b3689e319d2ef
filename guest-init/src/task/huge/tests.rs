use libcontainer::oci_spec::runtime::LinuxHugepageLimitBuilder;

use super::*;

/// Pools of 2 MiB and 1 GiB, without a kernel behind them.
fn pools() -> (tempfile::TempDir, Arc<HugePages>) {
    let dir = tempfile::tempdir().unwrap();
    for kib in [2048, 1 << 20] {
        let pool = dir.path().join(format!("hugepages-{kib}kB"));
        fs::create_dir(&pool).unwrap();
        fs::write(pool.join("nr_hugepages"), "0\n").unwrap();
    }
    let pools = HugePages::new(dir.path().into());
    (dir, pools)
}

fn limits(limits: &[(&str, i64)]) -> Vec<LinuxHugepageLimit> {
    let limit = |&(size, limit): &(&str, i64)| {
        LinuxHugepageLimitBuilder::default().page_size(size).limit(limit).build().unwrap()
    };
    limits.iter().map(limit).collect()
}

fn pages(pools: &HugePages, kib: u64) -> String {
    fs::read_to_string(pools.pool(kib).join("nr_hugepages")).unwrap().trim().into()
}

/// Pools become smaller beside what is done here.
fn are(pools: &HugePages, pages_of: [(u64, &str); 2]) {
    let begun = std::time::Instant::now();
    let is_so = || pages_of.iter().all(|(kib, wanted)| pages(pools, *kib) == *wanted);
    while !is_so() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{pools:?}");
        std::thread::yield_now();
    }
}

#[test]
fn a_pool_is_as_large_as_the_limits_of_those_that_are_there() {
    let (_dir, pools) = pools();
    let first = pools.reserve(&limits(&[("2MB", 5 << 20), ("1GB", 0), ("64KB", 0)])).unwrap();
    are(&pools, [(2048, "3"), (1 << 20, "0")]);
    let second = pools.reserve(&limits(&[("2MB", 4 << 20), ("1GB", 1 << 30)])).unwrap();
    are(&pools, [(2048, "5"), (1 << 20, "1")]);
    drop(first);
    are(&pools, [(2048, "2"), (1 << 20, "1")]);
    drop(second);
    are(&pools, [(2048, "0"), (1 << 20, "0")]);
}

#[test]
fn a_size_that_the_kernel_has_not_is_refused_with_the_field_and_nothing_is_taken() {
    let (_dir, pools) = pools();
    for size in ["16MB", "2", "", "2XB"] {
        let error = pools.reserve(&limits(&[("2MB", 4 << 20), (size, 1)])).unwrap_err();
        assert_eq!(error.code(), vgpu_codes::Code::SpecInvalid);
        assert_eq!(error.to_string(), format!("{FIELD}: this guest has no pages of {size}"));
        are(&pools, [(2048, "0"), (1 << 20, "0")]);
    }
}
