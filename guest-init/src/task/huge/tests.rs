use libcontainer::oci_spec::runtime::LinuxHugepageLimitBuilder;

use super::*;

/// Pools of 2 MiB and 1 GiB as files, without a kernel behind them.
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

/// Pools become smaller beside what is done here.
fn are(pools: &HugePages, pages_of: [(u64, u64); 2]) {
    let begun = std::time::Instant::now();
    // A file without a kernel behind it is empty while it is written.
    let is_so = || pages_of.iter().all(|(kib, wanted)| pools.pools.get(*kib).is_ok_and(|has| has == *wanted));
    while !is_so() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{pools:?}");
        std::thread::yield_now();
    }
}

#[test]
fn a_pool_is_as_large_as_the_limits_of_those_that_are_there() {
    let (_dir, pools) = pools();
    let first = pools.reserve(&limits(&[("2MB", 5 << 20), ("1GB", 0), ("64KB", 0)])).unwrap();
    are(&pools, [(2048, 3), (1 << 20, 0)]);
    let second = pools.reserve(&limits(&[("2MB", 4 << 20), ("1GB", 1 << 30)])).unwrap();
    are(&pools, [(2048, 5), (1 << 20, 1)]);
    drop(first);
    are(&pools, [(2048, 2), (1 << 20, 1)]);
    drop(second);
    are(&pools, [(2048, 0), (1 << 20, 0)]);
}

#[test]
fn a_size_that_the_kernel_has_not_is_refused_with_the_field_and_nothing_is_taken() {
    let (_dir, pools) = pools();
    for size in ["16MB", "2", "", "2XB"] {
        let error = pools.reserve(&limits(&[("2MB", 4 << 20), (size, 1)])).unwrap_err();
        assert_eq!(error.code(), vgpu_codes::Code::SpecInvalid);
        assert_eq!(error.to_string(), format!("{FIELD}: this guest has no pages of {size}"));
        are(&pools, [(2048, 0), (1 << 20, 0)]);
    }
}

/// Pools of 2 MiB and 1 GiB of a kernel with so much memory for both.
#[derive(Debug)]
struct Small {
    memory_kib: u64,
    pages: Mutex<BTreeMap<u64, u64>>,
}

impl Small {
    fn pools(memory_kib: u64) -> Arc<HugePages> {
        HugePages::of(Box::new(Small { memory_kib, pages: Mutex::new([(2048, 0), (1 << 20, 0)].into()) }))
    }
}

impl Pools for Small {
    fn has(&self, kib: u64) -> bool {
        self.pages.lock().unwrap().contains_key(&kib)
    }

    fn get(&self, kib: u64) -> Result<u64> {
        Ok(self.pages.lock().unwrap()[&kib])
    }

    fn set(&self, kib: u64, pages: u64) -> Result<()> {
        let mut all = self.pages.lock().unwrap();
        all.insert(kib, 0);
        let others: u64 = all.iter().map(|(kib, pages)| kib * pages).sum();
        all.insert(kib, pages.min((self.memory_kib - others) / kib));
        Ok(())
    }
}

#[test]
fn where_there_is_no_room_for_all_pages_none_is_taken_and_the_refusal_has_both_numbers() {
    let pools = Small::pools(5 << 11);
    let first = pools.reserve(&limits(&[("2MB", 6 << 20)])).unwrap();
    let error = pools.reserve(&limits(&[("2MB", 8 << 20)])).unwrap_err();
    assert_eq!(error.code(), vgpu_codes::Code::SpecInvalid);
    assert_eq!(
        error.to_string(),
        format!("{FIELD}: this guest has memory for 5 pages of 2048 KiB, and 7 are asked for")
    );
    assert_eq!(pools.pools.get(2048).unwrap(), 3, "those that the first one has");

    let second = pools.reserve(&limits(&[("2MB", 4 << 20)])).unwrap();
    are(&pools, [(2048, 5), (1 << 20, 0)]);
    drop((first, second));
    are(&pools, [(2048, 0), (1 << 20, 0)]);
}

#[test]
fn pages_of_one_size_go_back_where_there_is_no_room_for_those_of_another() {
    let pools = Small::pools(1 << 20);
    let error = pools.reserve(&limits(&[("2MB", 2 << 20), ("1GB", 1 << 30)])).unwrap_err();
    assert!(error.to_string().contains("memory for 0 pages of 1048576 KiB, and 1 are asked for"), "{error}");
    are(&pools, [(2048, 0), (1 << 20, 0)]);
    drop(pools.reserve(&limits(&[("1GB", 1 << 30)])).unwrap());
    are(&pools, [(2048, 0), (1 << 20, 0)]);
}

/// A container is deleted, and its next one is made at once: the kernel may not have heard of the end yet.
#[test]
fn pages_that_were_given_back_are_the_next_ones_at_once() {
    let pools = Small::pools(5 << 11);
    for _ in 0..200 {
        drop(pools.reserve(&limits(&[("2MB", 6 << 20)])).unwrap());
        drop(pools.reserve(&limits(&[("2MB", 8 << 20)])).unwrap());
    }
    are(&pools, [(2048, 0), (1 << 20, 0)]);
}
