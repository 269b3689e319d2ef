//! After a channel is connected no record takes a page fault. Alone in its program, whose faults are counted.

use idm::Region;
use idm::record::{RegionSpec, pair};
use idm::region::{PAGE_BYTES, sealed_memory};

const PAGES: usize = 256;

/// Page faults of this thread so far that needed no disk.
fn faults() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let (_, fields) = text.rsplit_once(") ").unwrap();
    fields.split(' ').nth(7).unwrap().parse().unwrap()
}

#[test]
fn the_first_lap_of_the_ring_takes_no_page_faults() {
    let (submitter, _consumer) = pair(RegionSpec::default()).unwrap();
    let launch = || assert!(submitter.submit_bytes(1, 0, &[7; 170]).is_ok());
    launch();
    let before = faults();
    // Nearly all of the ring.
    (0..5000).for_each(|_| launch());
    let taken = faults() - before;
    assert!(taken < 16, "{taken}");
    // The canary: as many pages that nobody has touched.
    let fresh = Region::map(sealed_memory("fresh", PAGES * PAGE_BYTES).unwrap(), PAGES * PAGE_BYTES).unwrap();
    let before = faults();
    (0..PAGES).for_each(|page| fresh.write(page * PAGE_BYTES, &[1]));
    assert!(faults() - before >= 16);
}
