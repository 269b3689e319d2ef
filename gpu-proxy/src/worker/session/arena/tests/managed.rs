//! Images with managed variables, in a block of the arena.

use vgpu_api::{GoneHandle, ImageInfo, ManagedImage};

use super::*;
use crate::device::managed_cubin;

/// A word that begins as 40, a pointer to it, and a kernel that adds 2 to it by that pointer.
const PTX: &[u8] = b".version 9.0\n.target sm_90\n.address_size 64\n\
    .visible .global .attribute(.managed) .align 4 .u32 word = 40;\n\
    .global .attribute(.managed) .align 256 .b8 table[1000];\n\
    .global .attribute(.managed) .align 8 .u64 to_word = generic(word);\n\
    .global .u32 plain;\n\
    .visible .entry k() { .reg .b64 a; .reg .b32 r; ld.global.u64 a, [to_word]; ld.global.u32 r, [a]; \
    add.u32 r, r, 2; st.global.u32 [word], r; st.global.u32 [table+996], r; ret; }";
const TABLE: u64 = 256;
const TO_WORD: u64 = TABLE + 1000;
const BLOCK_BYTES: u64 = TO_WORD + 8;
const OUT: Staged = Staged { offset: 0, len: 4096 };
const IMAGE: ImageHandle = ImageHandle::new(0, 0);

impl World {
    fn upload(&self, image: &[u8]) {
        ask::vgpuUpload(&self.guest, C, 1, image.len() as u64, 0, image).unwrap();
    }

    fn told(&self, length: u64) -> ImageInfo {
        ImageInfo::parse(&self.staging.bytes(usize::try_from(length).unwrap())).unwrap()
    }

    fn load(&self, keep: bool) -> CuResult<ImageInfo> {
        let load = ask::vgpuImageLoad(&self.guest, C, NewHandle(IMAGE), ImageKind::Module, 1, keep, OUT);
        load.map(|length| self.told(length))
    }

    fn load_at(&self, keep: bool, block: DevicePtr) -> CuResult<ImageInfo> {
        let (image, kind) = (NewHandle(IMAGE), ImageKind::Module);
        let load = ask::vgpuImageLoadManaged(
            &self.guest,
            C,
            image,
            kind,
            ManagedImage { upload: 1, keep, block },
            OUT,
        );
        load.map(|length| self.told(length))
    }

    fn launch_first(&self) -> Option<CuError> {
        let function = FunctionHandle::of_image(IMAGE, 0);
        let shape =
            LaunchShape { function, stream: Stream::Legacy, grid: [1; 3], block: [1; 3], shared_bytes: 0 };
        let launch = Launch { shape, attributes: LaunchAttributes::default(), params: &[] };
        ask::cuLaunchKernel(&self.guest, C, launch).unwrap();
        ask::cuCtxSynchronize(&self.guest, C).err().or_else(|| self.guest.take_error())
    }
}

fn wants(block_bytes: u64) -> CuResult<ImageInfo> {
    Ok(ImageInfo { block_bytes, ..ImageInfo::default() })
}

#[test]
fn variables_lie_in_the_block_for_host_and_kernels() {
    let world = soft();
    world.add(at(0), 2 * PAGE).unwrap();
    // What was there before is no first value.
    world.pages.write(0, &[0xa5; 8192]);
    world.upload(PTX);
    assert_eq!(world.load(false), wants(BLOCK_BYTES));
    let block = at(512);
    let info = world.load_at(false, block).unwrap();
    let lies = |name: &str| {
        let one = info.managed.iter().find(|one| one.name == name).unwrap();
        (one.address.0 - block.0, one.bytes)
    };
    assert_eq!([lies("word"), lies("table"), lies("to_word")], [(0, 4), (TABLE, 1000), (TO_WORD, 8)]);
    let plain: Vec<_> = info.globals.iter().map(|one| one.name.as_str()).collect();
    assert_eq!((plain, info.managed.len(), info.block_bytes), (vec!["plain"], 3, 0));
    let read = |offset: u64, bytes| world.read(usize::try_from(512 + offset).unwrap(), bytes);
    assert_eq!(
        (read(0, 4), read(TO_WORD, 8)),
        (40_u32.to_le_bytes().to_vec(), block.0.to_le_bytes().to_vec())
    );
    assert_eq!(read(TABLE, 1000), [0; 1000]);
    assert_eq!((world.read(511, 1), read(BLOCK_BYTES, 1)), (vec![0xa5], vec![0xa5]), "around it");
    assert_eq!(world.launch_first(), None);
    assert_eq!(
        (read(0, 4), read(TABLE + 996, 4)),
        (42_u32.to_le_bytes().into(), 42_u32.to_le_bytes().into())
    );
    world.pages.write(512, &5_u32.to_le_bytes());
    assert_eq!((world.launch_first(), read(0, 4)), (None, 7_u32.to_le_bytes().to_vec()));
    // The pages are the guest's: it may take them away, and a kernel finds nothing there.
    ask::vgpuArenaSettle(&world.guest, ContextId::NONE).unwrap();
    assert_eq!(world.remove(at(0)), Ok(()));
    assert_eq!(world.launch_first(), Some(CuError::ILLEGAL_ADDRESS));
}

#[test]
fn machine_code_has_its_variables_in_the_block_and_what_is_left_of_them_is_nobodys() {
    let world = world(Box::new(Null::default()), true);
    world.add(at(0), PAGE).unwrap();
    world.upload(&managed_cubin());
    assert_eq!(world.load(false), wants(1024));
    let info = world.load_at(false, at(0)).unwrap();
    let names = |list: &[vgpu_api::GlobalInfo]| list.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
    assert_eq!(
        (names(&info.globals), names(&info.managed)),
        (vec!["d".into(), "q".into()], ["x", "table", "p"].map(String::from).into())
    );
    assert_eq!(
        (world.read(0, 4), world.read(1016, 8)),
        (5_u32.to_le_bytes().into(), at(28).0.to_le_bytes().into())
    );
}

#[test]
fn a_block_is_whole_and_aligned_and_the_guests_own() {
    let world = soft();
    world.add(at(0), PAGE).unwrap();
    world.add(at(PAGE), PAGE).unwrap();
    let on_device = ask::cuMemAlloc_v2(&world.guest, C, 1 << 16).unwrap();
    let own = DevicePtr(std::ptr::from_ref(&world) as u64 & !511);
    let room = PAGE - PAGE % 512;
    for block in [
        DevicePtr(0),
        DevicePtr(u64::MAX),
        DevicePtr(u64::MAX - 511),
        own,
        on_device,
        at(256),
        at(8),
        // Over the end of one part, of both, of the arena; beside them.
        at(room - 1024),
        at(PAGE + room - 512),
        at(2 * PAGE),
        at(BYTES - 512),
        DevicePtr(WINDOW as u64 - 512),
    ] {
        world.upload(PTX);
        assert_eq!(world.load_at(false, block), Err(CuError::INVALID_VALUE), "{block:?}");
    }
    assert_eq!(world.launch_first(), Some(CuError::INVALID_HANDLE), "none of them is loaded");
    world.upload(PTX);
    assert!(world.load_at(false, at(PAGE)).is_ok());
}

/// More uploads than a worker has room for at once.
#[test]
fn a_guest_without_room_for_a_block_lets_go_of_the_upload() {
    let world = soft();
    world.add(at(0), PAGE).unwrap();
    let load = |number| {
        ask::vgpuUpload(&world.guest, C, number, PTX.len() as u64, 0, PTX).unwrap();
        let load =
            ask::vgpuImageLoad(&world.guest, C, NewHandle(IMAGE), ImageKind::Module, number, true, OUT);
        load.map(|length| world.told(length))
    };
    for number in 0..100 {
        assert_eq!(load(number), wants(BLOCK_BYTES), "upload {number}");
        ask::vgpuUploadForget(&world.guest, C, number).unwrap();
    }
    world.upload(PTX);
    assert_eq!(world.load(false), wants(BLOCK_BYTES));
    ask::vgpuUploadForget(&world.guest, C, 1).unwrap();
    assert_eq!(world.load_at(false, at(0)), Err(CuError::INVALID_VALUE), "it is gone");
}

#[test]
fn who_has_none_has_no_block_and_a_kept_image_is_told_of_one_each_time() {
    let world = soft();
    world.add(at(0), 2 * PAGE).unwrap();
    world.upload(b".version 9.0\n.target sm_90\n.address_size 64\n.visible .entry k() { ret; }");
    assert_eq!(world.load_at(false, at(0)), Err(CuError::INVALID_VALUE));
    world.upload(PTX);
    assert_eq!(world.load(true), wants(BLOCK_BYTES));
    let again = || {
        ask::vgpuImageLoadAgain(&world.guest, C, NewHandle(IMAGE), ImageKind::Module, 1).unwrap();
        world.guest.take_error()
    };
    assert_eq!(again(), Some(CuError::INVALID_VALUE), "nothing is kept yet");
    world.load_at(true, at(0)).unwrap();
    ask::vgpuImageUnload(&world.guest, C, GoneHandle(IMAGE)).unwrap();
    assert_eq!(again(), Some(CuError::INVALID_VALUE), "without a block");
    assert_eq!(world.load(true), wants(BLOCK_BYTES));
    let info = world.load_at(true, at(PAGE)).unwrap();
    assert_eq!(info.managed[0].address, at(PAGE));
    assert_eq!(world.launch_first(), None);
    assert_eq!(world.read(usize::try_from(PAGE).unwrap(), 4), 42_u32.to_le_bytes());
}
