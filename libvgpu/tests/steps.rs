//! What a step of PyTorch costs in replies. The calls are those that it makes in the steady state, by the recorded mix of a training step
//! (2.10 for CUDA 12.8: 18 launches and one with attributes, two sets, and what is asked beside them) and by what a decoded token was seen
//! to ask (2.11 for CUDA 13): a plan of cuDNN for each new length, whose kernel is loaded anew, and two numbers that come back.

mod support;

use std::ffi::c_void;

use support::calls::Calls;
use support::session::{Session, session};

const OK: u32 = 0;
/// The address of the fake device's variable.
const TABLE: u64 = 0x7000_0000;
/// `CU_STREAM_LEGACY`'s other name: PyTorch's default stream.
const DEFAULT: u64 = 0;

/// What a process has made before its steps: a kernel of a library whose attributes nobody asks for, one of cuBLAS, and pinned memory.
struct World {
    session: Session,
    primary: u64,
    kernel: u64,
    cublas: u64,
    pinned: u64,
}

impl World {
    fn new() -> Self {
        let session = session();
        let kernel = session.function(session.load(c".version 8.0 lazy library"), c"fill");
        let cublas = session.function(session.load(c".version 8.0 lazy cublas"), c"fill");
        let (mut pinned, primary) = (0u64, vgpu_api::ContextId::primary(0).handle().raw());
        let place = &raw mut pinned;
        assert_eq!(cu!(session.libcuda, cuMemHostAlloc(place: *mut u64, 64: usize, 0: u32)), OK);
        Self { session, primary, kernel, cublas, pinned }
    }

    /// What PyTorch asks before each operation.
    fn asks(&self) {
        let library = &self.session.libcuda;
        let (mut device, mut flags, mut active, mut current) = (0i32, 0u32, 0i32, 0u64);
        let (device_at, flags_at, active_at, current_at) =
            (&raw mut device, &raw mut flags, &raw mut active, &raw mut current);
        for _ in 0..4 {
            assert_eq!(cu!(library, cuCtxGetDevice(device_at: *mut i32)), OK);
        }
        for _ in 0..2 {
            assert_eq!(
                cu!(library, cuDevicePrimaryCtxGetState(0: i32, flags_at: *mut u32, active_at: *mut i32)),
                OK
            );
        }
        let primary = self.primary;
        assert_eq!(cu!(library, cuCtxSetCurrent(primary: u64)), OK);
        assert_eq!(cu!(library, cuCtxGetCurrent(current_at: *mut u64)), OK);
    }

    fn operation(&self, kernel: u64) {
        self.asks();
        self.session.launch_fill(kernel, DEFAULT);
    }

    /// As cuBLAS launches: what the kernel allows is asked, then a launch with an attribute.
    fn product(&self, kernel: u64) {
        self.asks();
        let library = &self.session.libcuda;
        let (mut blocks, mut function, mut number) = (0i32, 0u64, 0i32);
        let (blocks_at, function_at, number_at) = (&raw mut blocks, &raw mut function, &raw mut number);
        assert_eq!(cu!(library, cuKernelGetFunction(function_at: *mut u64, kernel: u64)), OK);
        assert_eq!(cu!(library, cuDeviceGetAttribute(number_at: *mut i32, 16: i32, 0: i32)), OK);
        assert_eq!(self.session.function_attribute(0, kernel), 1024);
        assert_eq!(
            cu!(library, cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
                blocks_at: *mut i32, kernel: u64, 128: i32, 0: usize, 0: u32)),
            OK
        );
        let (address, value, count) = (TABLE, 7u32, 4u32);
        let params =
            [(&raw const address).cast(), (&raw const value).cast(), (&raw const count).cast::<c_void>()];
        let mut attribute = [0u8; 72];
        (attribute[0], attribute[8]) = (6, 1); // programmatic stream serialization
        let config = [1 | 1 << 32, 1 | 32 << 32, 1 | 1 << 32, 0, DEFAULT, attribute.as_ptr() as u64, 1];
        let (config_at, list, null) = (config.as_ptr(), params.as_ptr(), 0u64);
        assert_eq!(
            cu!(library, cuLaunchKernelEx(config_at: *const u64, kernel: u64, list: *const *const c_void, null: u64)),
            OK
        );
    }

    fn set(&self) {
        self.asks();
        assert_eq!(
            cu!(self.session.libcuda, cuMemsetD8Async(TABLE: u64, 0: u8, 64: usize, DEFAULT: u64)),
            OK
        );
    }

    /// `.item()`: by way of pinned memory.
    fn item(&self) {
        self.asks();
        let pinned = self.pinned;
        let library = &self.session.libcuda;
        assert_eq!(cu!(library, cuMemcpyDtoHAsync_v2(pinned: u64, TABLE: u64, 8: usize, DEFAULT: u64)), OK);
        assert_eq!(cu!(library, cuStreamSynchronize(DEFAULT: u64)), OK);
    }

    /// `.cpu()`, and `.item()` of older releases: to pageable memory.
    fn to_cpu(&self) {
        self.asks();
        let (library, mut bytes) = (&self.session.libcuda, [0u8; 8]);
        let place = bytes.as_mut_ptr();
        assert_eq!(
            cu!(library, cuMemcpyDtoHAsync_v2(place: *mut u8, TABLE: u64, 8: usize, DEFAULT: u64)),
            OK
        );
        assert_eq!(cu!(library, cuStreamSynchronize(DEFAULT: u64)), OK);
    }

    fn training_step(&self) {
        (0..2).for_each(|_| self.set());
        (0..18).for_each(|_| self.operation(self.kernel));
        self.product(self.cublas);
    }

    /// A plan of cuDNN for another length: its kernel is loaded, asked about and launched; what there is of a stack decides on more.
    fn attention(&self) {
        let module = self.session.load(c".version 8.0 constant lazy attention");
        let kernel = self.session.function(module, c"fill");
        for limit in [0, 0, 2, 0, 0] {
            assert_eq!(self.session.limit(limit), 1024);
        }
        assert_eq!(self.session.function_attribute(3, kernel), 0);
        self.operation(kernel);
        self.session.unload(module);
    }

    fn token(&self, number: &dyn Fn(&Self)) {
        for _layer in 0..2 {
            (0..10).for_each(|_| self.operation(self.kernel));
            self.product(self.cublas);
            self.attention();
        }
        number(self);
        number(self);
    }
}

/// Warms up, as all that is asked once is.
fn waits_of(times: u64, step: impl Fn(&World)) -> u64 {
    let world = World::new();
    (0..2).for_each(|_| step(&world));
    assert_eq!(cu!(world.session.libcuda, cuCtxSynchronize()), OK);
    let waits = world.session.waits(|| (0..times).for_each(|_| step(&world)));
    assert_eq!(cu!(world.session.libcuda, cuCtxSynchronize()), OK, "nothing has failed on the way");
    waits
}

#[test]
fn a_training_step_waits_for_nothing() {
    assert_eq!(waits_of(10, World::training_step), 0);
}

#[test]
fn a_training_step_whose_loss_is_looked_at_waits_once() {
    let looks: [&dyn Fn(&World); 2] = [&World::item, &World::to_cpu];
    for look in looks {
        let waits = waits_of(10, |world| {
            world.training_step();
            look(world);
        });
        assert_eq!(waits, 10);
    }
}

#[test]
fn a_decoded_token_waits_twice() {
    let looks: [&dyn Fn(&World); 2] = [&World::item, &World::to_cpu];
    for look in looks {
        assert_eq!(waits_of(32, |world| world.token(look)), 2 * 32);
    }
}
