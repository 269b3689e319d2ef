//! The worker dies in the middle of a call: the program gets an error and no hang, at once and from then on.

mod support;

use std::time::{Duration, Instant};

use support::device::KILLS;
use support::every::{call, params, supported};
use support::session::session;
use vgpu_api::result::describe;

const OK: u32 = 0;
const DEVICE_UNAVAILABLE: u32 = 46;

#[test]
fn a_dead_worker_is_46_from_every_call_and_never_a_hang() {
    let session = session();
    let (library, started) = (&session.libcuda, Instant::now());
    let kills = usize::try_from(KILLS).unwrap();
    // Another thread waits for a reply of its own meanwhile.
    let waiting = std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let primary = vgpu_api::ContextId::primary(0).handle().raw();
            assert_eq!(cu!(library, cuCtxSetCurrent(primary: u64)), OK);
            loop {
                let code = cu!(library, cuCtxSynchronize());
                if code != OK {
                    return code;
                }
            }
        });
        assert_eq!(cu!(library, cuCtxSetLimit(0: u32, kills: usize)), DEVICE_UNAVAILABLE);
        other.join().unwrap()
    });
    assert_eq!(waiting, DEVICE_UNAVAILABLE);
    let (mut address, mut count) = (0u64, 0i32);
    let (at, count_at) = (&raw mut address, &raw mut count);
    assert_eq!(cu!(library, cuMemAlloc_v2(at: *mut u64, 64: usize)), DEVICE_UNAVAILABLE);
    assert_eq!(cu!(library, cuMemsetD8_v2(0x7000_0000: u64, 0: u8, 4: usize)), DEVICE_UNAVAILABLE);
    assert_eq!(cu!(library, cuDeviceGetCount(count_at: *mut i32)), OK, "what is known stays known");
    for (name, _) in supported() {
        let code = call(library, name, params(&[]));
        assert!(describe(code).is_some(), "{name}: {code}");
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}
