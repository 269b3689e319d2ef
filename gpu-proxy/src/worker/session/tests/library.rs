//! Libraries in several contexts of one device: each has variables of its own, which count there and end with it.

use super::devices::ADD;
use super::*;

const SECOND: ContextId = ContextId(100);
/// Of the one variable, as the software GPU gives memory.
const VARIABLE_BYTES: u64 = 512;
const LIBRARY: ImageHandle = ImageHandle::new(0, 0);

impl World {
    /// Loads [`ADD`] as a library in `context`.
    fn load_library(&self, context: ContextId) -> CuResult<DevicePtr> {
        let out = Staged { offset: 0, len: 64 << 10 };
        ask::vgpuUpload(&self.guest, context, 1, ADD.len() as u64, 0, ADD.as_bytes()).unwrap();
        let (library, kind) = (NewHandle(LIBRARY), ImageKind::Library);
        let length = ask::vgpuImageLoad(&self.guest, context, library, kind, 1, false, out)?;
        let info = self.staging.bytes(usize::try_from(length).unwrap());
        Ok(vgpu_api::ImageInfo::parse(&info).unwrap().globals[0].address)
    }

    /// Where its variable is in `context`.
    fn variable(&self, context: ContextId) -> CuResult<DevicePtr> {
        ask::vgpuImageVariables(&self.guest, context, LIBRARY, 0, Staged { offset: 0, len: 8 })?;
        Ok(DevicePtr(u64::from_le_bytes(self.staging.bytes(8).try_into().unwrap())))
    }

    fn write_word(&self, context: ContextId, at: DevicePtr, word: u32) -> Option<CuError> {
        let _ = ask::cuMemcpyHtoDAsync_v2(&self.guest, context, at, &word.to_le_bytes(), Stream::Legacy);
        self.guest.take_error()
    }

    /// What the kernel makes of 0 in `context`.
    fn run(&self, context: ContextId, at: DevicePtr) -> u32 {
        assert_eq!(self.write_word(context, at, 0), None);
        let (function, params) = (FunctionHandle::of_image(LIBRARY, 0), at.0.to_le_bytes());
        let (grid, block) = ([1; 3], [1; 3]);
        let shape = LaunchShape { function, stream: Stream::Legacy, grid, block, shared_bytes: 0 };
        let launch = Launch { shape, attributes: LaunchAttributes::default(), params: &params };
        ask::cuLaunchKernel(&self.guest, context, launch).unwrap();
        assert_eq!(self.guest.take_error(), None);
        let to = Staged { offset: 0, len: 4 };
        ask::vgpuMemcpyDtoHStaged(&self.guest, context, to, at, Stream::Legacy).unwrap();
        u32::from_le_bytes(self.staging.bytes(4).try_into().unwrap())
    }
}

#[test]
fn each_context_has_a_librarys_variables_of_its_own_and_pays_for_them() {
    let world = world_of(Soft::new(1 << 20).unwrap(), 1 << 20);
    let first = world.load_library(C).unwrap();
    let at = ask::cuMemAlloc_v2(&world.guest, C, 4).unwrap();
    let before = world.used_bytes();
    ask::cuCtxCreate_v2(&world.guest, C, SECOND, 0, 0).unwrap();
    assert_eq!(world.used_bytes(), before, "it was not used there yet");
    let second = world.variable(SECOND).unwrap();
    assert_ne!(first, second);
    assert_eq!((world.used_bytes(), world.variable(SECOND)), (before + VARIABLE_BYTES, Ok(second)));
    assert_eq!((world.write_word(C, first, 100), world.variable(C)), (None, Ok(first)));
    assert_eq!((world.run(C, at), world.run(SECOND, at)), (100, 7));
    ask::cuCtxDestroy_v2(&world.guest, C, SECOND).unwrap();
    assert_eq!((world.used_bytes(), world.run(C, at)), (before, 100));
    assert_eq!(world.write_word(C, second, 1), Some(CuError::INVALID_VALUE), "it went with its context");
    ask::vgpuImageUnload(&world.guest, C, GoneHandle(LIBRARY)).unwrap();
    assert_eq!(world.used_bytes(), before - VARIABLE_BYTES);
}

#[test]
fn a_library_is_in_no_more_contexts_than_the_grant_has_room_for() {
    let contexts: Vec<_> = (100..104).map(ContextId).collect();
    let world = world_of(Soft::new(1 << 20).unwrap(), 3 * VARIABLE_BYTES);
    ask::cuDevicePrimaryCtxRelease_v2(&world.guest, ContextId::NONE, 0).unwrap();
    // In no context: it is the first primary one's.
    world.load_library(ContextId::NONE).unwrap();
    ask::cuDevicePrimaryCtxRetain(&world.guest, ContextId::NONE, 0, 0).unwrap();
    world.variable(C).unwrap();
    for context in &contexts {
        ask::cuCtxCreate_v2(&world.guest, C, *context, 0, 0).unwrap();
    }
    let had: Vec<_> = contexts.iter().map(|context| world.variable(*context).err()).collect();
    assert_eq!(had, [None, None, Some(CuError::OUT_OF_MEMORY), Some(CuError::OUT_OF_MEMORY)]);
    ask::cuCtxDestroy_v2(&world.guest, C, contexts[0]).unwrap();
    assert_eq!((world.variable(contexts[2]).err(), world.used_bytes()), (None, 3 * VARIABLE_BYTES));
}

#[test]
fn a_library_outlives_the_context_that_it_was_loaded_in() {
    let world = world_of(Soft::new(1 << 20).unwrap(), 1 << 20);
    ask::cuCtxCreate_v2(&world.guest, C, SECOND, 0, 0).unwrap();
    let first = world.load_library(SECOND).unwrap();
    ask::cuCtxDestroy_v2(&world.guest, C, SECOND).unwrap();
    assert_eq!((world.used_bytes(), world.write_word(C, first, 1)), (0, Some(CuError::INVALID_VALUE)));
    let at = ask::cuMemAlloc_v2(&world.guest, C, 4).unwrap();
    assert_eq!((world.run(C, at), world.used_bytes()), (7, 2 * VARIABLE_BYTES));
    // A primary one that begins anew has what it had.
    let here = world.variable(C).unwrap();
    assert_eq!(world.write_word(C, here, 9), None);
    ask::cuDevicePrimaryCtxRelease_v2(&world.guest, ContextId::NONE, 0).unwrap();
    ask::cuDevicePrimaryCtxRetain(&world.guest, ContextId::NONE, 0, 0).unwrap();
    let at = ask::cuMemAlloc_v2(&world.guest, C, 4).unwrap();
    assert_eq!((world.variable(C), world.run(C, at)), (Ok(here), 9));
}
