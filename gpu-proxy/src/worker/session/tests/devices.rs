//! Processes with several devices: each has its own grant, and says who reaches it.

use super::*;
use vgpu_api::Access;

const OTHER: ContextId = ContextId::primary(1);
const PIECE: u64 = 2 << 20;

struct Two {
    guest: Loopback<Session>,
    staging: Heap,
    grants: [Grant; 2],
}

/// A process with two devices, of which it was granted so many bytes, and the primary contexts of both.
fn two(device: impl Device + 'static, bytes: [u64; 2]) -> Two {
    let pages = [(); 2].map(|()| SharedPage::create().unwrap());
    let quotas: Vec<Quota> =
        pages.iter().map(|page| Quota::new(SharedPage::map(page.fd()).unwrap(), 3).unwrap()).collect();
    let mut bytes = bytes.into_iter();
    let grants = pages.map(|page| Grant::new(Arc::new(page), bytes.next().unwrap()));
    let staging = Heap::new(64 << 10);
    let guest = Loopback::new(Session::new(Box::new(device), quotas, Box::new(staging.clone())));
    for device in [0, 1] {
        ask::cuDevicePrimaryCtxRetain(&guest, ContextId::NONE, device, 0).unwrap();
    }
    Two { guest, staging, grants }
}

fn soft() -> Two {
    two(Soft::with_devices(2, 64 << 20).unwrap(), [32 << 20, 16 << 20])
}

impl Two {
    fn used(&self) -> [u64; 2] {
        [0, 1].map(|device: usize| self.grants[device].used_bytes(3))
    }

    fn alloc(&self, context: ContextId, bytes: u64) -> CuResult<DevicePtr> {
        ask::cuMemAlloc_v2(&self.guest, context, bytes)
    }

    fn write(&self, context: ContextId, at: DevicePtr, bytes: &[u8]) {
        ask::cuMemcpyHtoDAsync_v2(&self.guest, context, at, bytes, Stream::Legacy).unwrap();
        assert_eq!(self.guest.take_error(), None);
    }

    fn read(&self, context: ContextId, at: DevicePtr, bytes: usize) -> Vec<u8> {
        let to = Staged { offset: 0, len: bytes as u64 };
        ask::vgpuMemcpyDtoHStaged(&self.guest, context, to, at, Stream::Legacy).unwrap();
        self.staging.bytes(bytes)
    }

    /// Loads `text` as a library or a module in `context`; its first variable.
    fn load(
        &self,
        context: ContextId,
        number: u64,
        kind: ImageKind,
        text: &str,
    ) -> (ImageHandle, Option<DevicePtr>) {
        let (image, out) = (ImageHandle::new(0, number), Staged { offset: 0, len: 64 << 10 });
        let upload = u32::try_from(number).unwrap() + 1;
        ask::vgpuUpload(&self.guest, context, upload, text.len() as u64, 0, text.as_bytes()).unwrap();
        let length =
            ask::vgpuImageLoad(&self.guest, context, NewHandle(image), kind, upload, false, out).unwrap();
        let info = vgpu_api::ImageInfo::parse(&self.staging.bytes(usize::try_from(length).unwrap())).unwrap();
        (image, info.globals.first().map(|global| global.address))
    }

    /// Launches the first kernel of an image with the address; what comes of it.
    fn launch(&self, context: ContextId, image: ImageHandle, at: DevicePtr) -> Option<CuError> {
        let params = at.0.to_le_bytes();
        let shape = LaunchShape {
            function: FunctionHandle::of_image(image, 0),
            stream: Stream::Legacy,
            grid: [1; 3],
            block: [1; 3],
            shared_bytes: 0,
        };
        let launch = Launch { shape, attributes: LaunchAttributes::default(), params: &params };
        let _ = ask::cuLaunchKernel(&self.guest, context, launch);
        self.guest.take_error()
    }
}

/// Adds its variable to the word at the parameter.
pub(super) const ADD: &str = ".version 7.0\n.target sm_70\n.address_size 64\n.visible .global .align 4 .u32 word = 7;\n\
    .visible .entry add(.param .u64 at) { .reg .b64 %rd<2>; .reg .b32 %r<3>; ld.param.u64 %rd1, [at]; \
    ld.global.u32 %r1, [word]; ld.global.u32 %r2, [%rd1]; add.u32 %r1, %r1, %r2; st.global.u32 [%rd1], %r1; ret; }\n";

#[test]
fn each_device_has_its_own_grant_and_its_memory_goes_with_its_own_contexts() {
    for world in [soft(), two(Null::default().with_devices(2), [32 << 20, 16 << 20])] {
        world.alloc(C, 20 << 20).unwrap();
        assert_eq!(
            world.alloc(OTHER, 20 << 20),
            Err(CuError::OUT_OF_MEMORY),
            "of the second there are 16 MiB"
        );
        world.alloc(OTHER, 16 << 20).unwrap();
        assert_eq!(world.used(), [20 << 20, 16 << 20]);
        let info = |context| ask::cuMemGetInfo_v2(&world.guest, context).unwrap();
        assert_eq!((info(C).free, info(OTHER).free, info(OTHER).total), (12 << 20, 0, 16 << 20));
        assert_eq!(ask::cuDevicePrimaryCtxRetain(&world.guest, C, 2, 0), Err(CuError::INVALID_DEVICE));
        ask::cuDevicePrimaryCtxRelease_v2(&world.guest, C, 1).unwrap();
        assert_eq!(world.used(), [20 << 20, 0]);
        assert_eq!(world.alloc(OTHER, 1), Err(CuError::INVALID_CONTEXT));
    }
}

#[test]
fn memory_of_one_device_is_copied_to_another() {
    let world = soft();
    let [from, to] = [C, OTHER].map(|context| world.alloc(context, 4096).unwrap());
    world.write(C, from, &[5; 4096]);
    // In a stream of either, or of neither end.
    ask::cuMemcpyDtoDAsync_v2(&world.guest, OTHER, to, from, 4096, Stream::Legacy).unwrap();
    assert_eq!((world.guest.take_error(), world.read(OTHER, to, 4096)), (None, vec![5; 4096]));
    for (to, bytes) in [(to, 4097), (DevicePtr(to.0 + 1), 4096), (DevicePtr(8), 1)] {
        let _ = ask::cuMemcpyDtoDAsync_v2(&world.guest, C, to, from, bytes, Stream::Legacy);
        assert_eq!(world.guest.take_error(), Some(CuError::INVALID_VALUE), "both ends are checked");
    }
}

#[test]
fn a_context_reaches_another_devices_memory_from_when_it_is_let_until_it_is_not() {
    let world = soft();
    let guest = &world.guest;
    let [own, other] = [C, OTHER].map(|context| world.alloc(context, 4).unwrap());
    let (add, _) = world.load(C, 0, ImageKind::Module, ADD);
    world.write(OTHER, other, &1_u32.to_le_bytes());
    assert_eq!(ask::cuCtxDisablePeerAccess(guest, C, OTHER), Err(CuError::PEER_ACCESS_NOT_ENABLED));
    assert_eq!(ask::cuCtxEnablePeerAccess(guest, C, C), Err(CuError::PEER_ACCESS_UNSUPPORTED));
    assert_eq!(ask::cuCtxEnablePeerAccess(guest, C, ContextId(99)), Err(CuError::INVALID_CONTEXT));
    ask::cuCtxEnablePeerAccess(guest, C, OTHER).unwrap();
    assert_eq!(ask::cuCtxEnablePeerAccess(guest, C, OTHER), Err(CuError::PEER_ACCESS_ALREADY_ENABLED));
    assert_eq!(world.launch(C, add, other), None);
    assert_eq!(world.read(OTHER, other, 4), 8_u32.to_le_bytes());
    // It is one way, and another context of the same device has its own word.
    assert_eq!(ask::cuCtxDisablePeerAccess(guest, OTHER, C), Err(CuError::PEER_ACCESS_NOT_ENABLED));
    ask::cuCtxDisablePeerAccess(guest, C, OTHER).unwrap();
    assert_eq!(world.launch(C, add, own), None);
    let fault = world.launch(C, add, other);
    assert!(fault.is_some_and(CuError::is_sticky), "{fault:?}");
}

#[test]
fn access_ends_with_either_context() {
    for ends in [0, 1] {
        let world = two(Null::default().with_devices(2).keeping_primary(), [1 << 20; 2]);
        ask::cuCtxEnablePeerAccess(&world.guest, C, OTHER).unwrap();
        ask::cuDevicePrimaryCtxRelease_v2(&world.guest, ContextId::NONE, ends).unwrap();
        assert_eq!(ask::cuCtxEnablePeerAccess(&world.guest, C, OTHER), Err(CuError::INVALID_CONTEXT));
        ask::cuDevicePrimaryCtxRetain(&world.guest, ContextId::NONE, ends, 0).unwrap();
        assert_eq!(ask::cuCtxEnablePeerAccess(&world.guest, C, OTHER), Ok(()), "it has to be let anew");
    }
}

#[test]
fn a_library_has_its_variables_on_each_device_that_uses_it() {
    let world = soft();
    let (add, word) = world.load(C, 0, ImageKind::Library, ADD);
    let word = word.unwrap();
    assert_eq!(world.used(), [512, 0]);
    let out = Staged { offset: 0, len: 8 };
    ask::vgpuImageVariables(&world.guest, OTHER, add, 0, out).unwrap();
    let elsewhere = DevicePtr(u64::from_le_bytes(world.staging.bytes(8).try_into().unwrap()));
    assert_ne!(elsewhere, word);
    assert_eq!(world.used(), [512, 512]);
    ask::vgpuImageVariables(&world.guest, C, add, 0, out).unwrap();
    assert_eq!(world.staging.bytes(8), word.0.to_le_bytes());
    assert_eq!(ask::vgpuImageVariables(&world.guest, C, add, 2, out), Err(CuError::INVALID_VALUE));
    world.write(C, word, &100_u32.to_le_bytes());
    for (context, sum) in [(C, 100_u32), (OTHER, 7)] {
        let at = world.alloc(context, 4).unwrap();
        world.write(context, at, &[0; 4]);
        assert_eq!(world.launch(context, add, at), None);
        assert_eq!(world.read(context, at, 4), sum.to_le_bytes());
    }
    assert_eq!(world.used(), [1024, 1024]);
    ask::vgpuImageUnload(&world.guest, C, GoneHandle(add)).unwrap();
    assert_eq!(world.used(), [512, 512]);
    let _ = ask::cuMemcpyHtoDAsync_v2(&world.guest, OTHER, elsewhere, &[0; 4], Stream::Legacy);
    assert_eq!(world.guest.take_error(), Some(CuError::INVALID_VALUE), "it went with the library");
    // A module is its context's alone.
    let (module, _) = world.load(C, 1, ImageKind::Module, ADD);
    let at = world.alloc(OTHER, 4).unwrap();
    assert_eq!(world.launch(OTHER, module, at), Some(CuError::INVALID_HANDLE));
}

#[test]
fn mapped_memory_counts_where_it_lies_and_is_touched_by_whom_it_was_let() {
    let world = soft();
    let guest = &world.guest;
    let memory = MemoryHandle::new(0, 0);
    ask::cuMemCreate(guest, C, NewHandle(memory), PIECE, 1).unwrap();
    assert_eq!(
        ask::cuMemCreate(guest, C, NewHandle(MemoryHandle::new(0, 1)), PIECE, 2),
        Err(CuError::INVALID_DEVICE)
    );
    assert_eq!(world.used(), [0, PIECE]);
    let at = ask::cuMemAddressReserve(guest, C, PIECE, 0, DevicePtr(0)).unwrap();
    let access = |device, access| {
        let _ = ask::cuMemSetAccess(guest, C, at, PIECE, device, access);
        guest.take_error()
    };
    ask::cuMemMap(guest, C, at, PIECE, memory).unwrap();
    let write = || {
        let _ = ask::cuMemcpyHtoDAsync_v2(guest, OTHER, at, &[0; 4], Stream::Legacy);
        guest.take_error()
    };
    assert_eq!(write(), Some(CuError::INVALID_VALUE), "nobody may");
    assert_eq!(
        (access(1, Access::ReadWrite), access(0, Access::Read), access(2, Access::Read)),
        (None, None, Some(CuError::INVALID_DEVICE))
    );
    assert_eq!(write(), None, "the second device may");
    let (add, _) = world.load(OTHER, 0, ImageKind::Module, ADD);
    assert_eq!(world.launch(OTHER, add, at), None);
    assert_eq!(access(1, Access::None), None);
    assert_eq!(write(), Some(CuError::INVALID_VALUE), "the first may only read");
    assert_eq!(world.read(C, at, 4), 7_u32.to_le_bytes());
    assert_eq!(access(0, Access::None), None);
    assert_eq!(write(), Some(CuError::INVALID_VALUE));
    let _ = ask::cuMemUnmap(guest, C, at, PIECE);
    let _ = ask::cuMemRelease(guest, C, GoneHandle(memory));
    assert_eq!((guest.take_error(), world.used()), (None, [0, 512]), "the variable of the module");
}

#[test]
fn a_pool_is_one_devices_and_others_reach_it_as_far_as_they_are_let() {
    let world = soft();
    let guest = &world.guest;
    let pool = PoolHandle::new(0, 0);
    ask::cuMemPoolCreate(guest, C, NewHandle(pool), 1, 0, false).unwrap();
    let alloc = |bytes| ask::cuMemAllocFromPoolAsync(guest, OTHER, bytes, pool, Stream::Legacy);
    let first = alloc(4).unwrap();
    assert_eq!(world.used(), [0, PIECE]);
    let (add, _) = world.load(C, 0, ImageKind::Module, ADD);
    for (device, access, wanted) in [
        (1, Access::ReadWrite, Ok(())),
        (1, Access::Read, Err(CuError::INVALID_DEVICE)),
        (2, Access::Read, Err(CuError::INVALID_DEVICE)),
        (0, Access::ReadWrite, Ok(())),
    ] {
        assert_eq!(ask::cuMemPoolSetAccess(guest, C, pool, device, access), wanted);
    }
    // What it has, and what it takes from now on.
    let later = alloc(PIECE).unwrap();
    for at in [first, later] {
        world.write(OTHER, at, &[0; 4]);
        assert_eq!(world.launch(C, add, at), None);
        assert_eq!(world.read(OTHER, at, 4), 7_u32.to_le_bytes());
    }
    // The end of the other device's primary context ends nothing of it, that of its own all.
    ask::cuDevicePrimaryCtxRelease_v2(guest, ContextId::NONE, 0).unwrap();
    assert_eq!(world.read(OTHER, later, 4), 7_u32.to_le_bytes());
    ask::cuDevicePrimaryCtxRelease_v2(guest, ContextId::NONE, 1).unwrap();
    assert_eq!(world.used(), [0, 0]);
}
