//! Images whose bytes stay with the worker, to be loaded again.

use vgpu_api::image::{KEPT_IMAGE_BYTES_MAX, KEPT_IMAGES_MAX};

use super::*;

/// Of a record, what a chunk may be.
const CHUNK: usize = 32 << 10;
const HEAD: &str = ".version 9.0\n.target sm_90\n.address_size 64\n";
const UNKNOWN_UPLOAD: Option<CuError> = Some(CuError::INVALID_VALUE);

fn upload(world: &World, number: u32, bytes: &[u8]) {
    for (chunk, place) in bytes.chunks(CHUNK).zip(0_u64..) {
        let (total, at) = (bytes.len() as u64, place * CHUNK as u64);
        ask::vgpuUpload(&world.guest, C, number, total, at, chunk).unwrap();
    }
}

fn load(world: &World, image: u64, number: u32, keep: bool) -> CuResult<u64> {
    let (image, out) = (NewHandle(ImageHandle::new(0, image)), Staged { offset: 0, len: 4096 });
    ask::vgpuImageLoad(&world.guest, C, image, ImageKind::Module, number, keep, out)
}

/// The error of a load that is only queued.
fn again(world: &World, image: u64, number: u32) -> Option<CuError> {
    let image = NewHandle(ImageHandle::new(0, image));
    ask::vgpuImageLoadAgain(&world.guest, C, image, ImageKind::Module, number).unwrap();
    world.guest.take_error()
}

/// The error of a launch of an image's first kernel.
fn launch(world: &World, image: u64) -> Option<CuError> {
    let function = FunctionHandle::of_image(ImageHandle::new(0, image), 0);
    let shape =
        LaunchShape { function, stream: Stream::Legacy, grid: [1; 3], block: [1; 3], shared_bytes: 0 };
    let launch = Launch { shape, attributes: LaunchAttributes::default(), params: &[] };
    ask::cuLaunchKernel(&world.guest, C, launch).unwrap();
    world.guest.take_error()
}

#[test]
fn a_kept_upload_is_loaded_as_often_as_the_guest_wants_until_it_lets_go_of_it() {
    for world in [world(), world_of(Soft::new(1 << 20).unwrap(), 1 << 20)] {
        upload(&world, 1, format!("{HEAD}.visible .entry k() {{ ret; }}").as_bytes());
        load(&world, 0, 1, true).unwrap();
        assert_eq!(again(&world, 1, 1), None);
        assert_eq!(again(&world, 1, 1), Some(CuError::INVALID_HANDLE), "a place that is in use");
        ask::vgpuImageUnload(&world.guest, C, GoneHandle(ImageHandle::new(0, 0))).unwrap();
        assert_eq!((launch(&world, 0), launch(&world, 1)), (Some(CuError::INVALID_HANDLE), None));
        // With a reply, as images with variables are: the bytes are there.
        assert!(load(&world, 2, 1, true).is_ok());
        ask::vgpuUploadForget(&world.guest, C, 1).unwrap();
        assert_eq!((again(&world, 3, 1), launch(&world, 1)), (UNKNOWN_UPLOAD, None));
        ask::vgpuUploadForget(&world.guest, C, 7).unwrap();
        assert_eq!(world.guest.take_error(), None);
    }
}

#[test]
fn what_was_not_to_be_kept_or_did_not_load_is_gone() {
    let world = world_of(Soft::new(1 << 20).unwrap(), 1 << 20);
    upload(&world, 1, format!("{HEAD}.visible .entry k() {{ ret; }}").as_bytes());
    load(&world, 0, 1, false).unwrap();
    upload(&world, 2, b".version 9.0 rubbish");
    assert!(load(&world, 1, 2, true).is_err());
    assert_eq!((again(&world, 1, 1), again(&world, 1, 2)), (UNKNOWN_UPLOAD, UNKNOWN_UPLOAD));
}

#[test]
fn variables_of_an_image_that_is_loaded_unasked_are_given_back() {
    let world = world_of(Soft::new(1 << 20).unwrap(), 1 << 20);
    let text = format!("{HEAD}.visible .global .align 8 .b8 table[4096];\n.visible .entry k() {{ ret; }}");
    upload(&world, 1, text.as_bytes());
    load(&world, 0, 1, true).unwrap();
    let used = world.used_bytes();
    assert_eq!(used, 4096);
    assert_eq!(again(&world, 1, 1), Some(CuError::UNKNOWN), "the guest would not know where they are");
    assert_eq!((world.used_bytes(), launch(&world, 1)), (used, Some(CuError::INVALID_HANDLE)));
}

/// What is kept is the worker's own memory.
#[test]
fn a_guest_that_has_more_kept_than_there_is_room_for_has_it_loaded_and_not_kept() {
    let world = world();
    let text = b".version";
    let mut large = vec![b' '; KEPT_IMAGE_BYTES_MAX + 1];
    large[1..][..text.len()].copy_from_slice(text);
    upload(&world, 1, &large);
    load(&world, 0, 1, true).unwrap();
    assert_eq!(again(&world, 1, 1), UNKNOWN_UPLOAD);
    // 16 MiB.
    for number in 0..17_u32 {
        upload(&world, number, &large[1..]);
        load(&world, 1 + u64::from(number), number, true).unwrap();
    }
    assert_eq!((again(&world, 50, 15), again(&world, 51, 16)), (None, UNKNOWN_UPLOAD));
    // Its code counts: a megabyte, which is all of the grant.
    assert_eq!(again(&world, 51, 14), Some(CuError::OUT_OF_MEMORY));
    ask::vgpuImageUnload(&world.guest, C, GoneHandle(ImageHandle::new(0, 50))).unwrap();
    (0..16).for_each(|number| ask::vgpuUploadForget(&world.guest, C, number).unwrap());
    let most = u32::try_from(KEPT_IMAGES_MAX).unwrap();
    for number in 0..=most {
        upload(&world, number, text);
        load(&world, 100 + u64::from(number), number, true).unwrap();
    }
    assert_eq!((again(&world, 52, most - 1), again(&world, 53, most)), (None, UNKNOWN_UPLOAD));
}

/// NVIDIA's driver knows an image that is no more than an address: as cudart passes one, and here the guest would say which.
#[test]
fn an_image_that_says_where_it_lies_is_refused() {
    let world = world();
    let wrapper = |version: u32| {
        let head = u64::from(version) << 32 | 0x4662_43b1;
        [head, idm::arena::WINDOW as u64, 0].map(u64::to_le_bytes).concat()
    };
    for version in [1, 2] {
        upload(&world, 1, &wrapper(version));
        assert_eq!(load(&world, 0, 1, false), Err(CuError::INVALID_IMAGE));
    }
}
