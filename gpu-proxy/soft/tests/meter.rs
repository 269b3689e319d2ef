//! Instructions are told as they are run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use vgpu_soft::{Device, DeviceConfig, Fault, LaunchConfig, Module};

/// Counts to `rounds`, then stores to where there is nothing.
const COUNTS: &str = ".version 9.0\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u32 rounds, .param .u32 faults)\n{
    .reg .pred p; .reg .b32 n, most, store; .reg .b64 nowhere;
    ld.param.u32 most, [rounds];
    ld.param.u32 store, [faults];
    mov.u32 n, 0;
L:  add.u32 n, n, 1;
    setp.lt.u32 p, n, most;
    @p bra L;
    setp.eq.u32 p, store, 0;
    @p bra E;
    mov.u64 nowhere, 8;
    st.global.u32 [nowhere], n;
E:  ret;
}";
/// In a round.
const ROUND: u64 = 3;

struct World {
    device: Device,
    module: Module,
}

fn world(meter: impl Fn(u64) + Send + Sync + 'static) -> World {
    let mut device =
        Device::new(DeviceConfig { memory_bytes: 1 << 20, host_threads: 2, ..Default::default() });
    device.set_meter(Arc::new(meter));
    World { device, module: Module::load(COUNTS.as_bytes()).unwrap() }
}

impl World {
    fn run(&self, blocks: u32, warps: u32, rounds: u32, store: bool) -> Result<(), Fault> {
        let instance = self.device.instantiate(&self.module).unwrap();
        let config = LaunchConfig { grid: [blocks, 1, 1], block: [32 * warps, 1, 1], shared_bytes: 0 };
        let params = [rounds.to_le_bytes(), u32::from(store).to_le_bytes()].concat();
        self.device.launch(&instance, 0, &config, &params)
    }
}

#[test]
fn each_instruction_of_each_warp_is_told_once_that_of_a_fault_too() {
    let told = Arc::new(AtomicU64::new(0));
    let world = world({
        let told = Arc::clone(&told);
        move |instructions| {
            told.fetch_add(instructions, Ordering::Relaxed);
        }
    });
    let count = |blocks, warps, rounds, store| {
        told.store(0, Ordering::Relaxed);
        assert_eq!(world.run(blocks, warps, rounds, store).is_err(), store);
        told.load(Ordering::Relaxed)
    };
    let (one, more) = (count(1, 1, 1, false), count(1, 1, 100_001, false));
    assert_eq!(more - one, 100_000 * ROUND);
    assert_eq!(count(6, 1, 1, false), 6 * one);
    assert_eq!(count(1, 4, 1000, false), 4 * (one + 999 * ROUND));
    assert!(count(1, 1, 1000, true) >= 1000 * ROUND);
}

/// Who is told decides when the kernel goes on.
#[test]
fn a_kernel_waits_for_who_is_told() {
    let (go, may_go) = mpsc::sync_channel::<()>(0);
    let may_go = std::sync::Mutex::new(may_go);
    let told = Arc::new(AtomicU64::new(0));
    let world = world({
        let told = Arc::clone(&told);
        move |instructions| {
            told.fetch_add(instructions, Ordering::SeqCst);
            // An error: nobody holds it up any more.
            let _ = may_go.lock().unwrap().recv();
        }
    });
    thread::scope(|scope| {
        let runs = scope.spawn(|| world.run(1, 1, 200_000, false));
        for step in 1..=3_u64 {
            while told.load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
            thread::sleep(std::time::Duration::from_millis(10));
            let used = told.swap(0, Ordering::SeqCst);
            assert!(used <= 1 << 15, "{used} instructions in step {step}");
            go.send(()).unwrap();
        }
        drop(go);
        runs.join().unwrap().unwrap();
    });
}
