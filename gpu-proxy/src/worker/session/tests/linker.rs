//! Linkers of texts and machine code.

use vgpu_api::{JitOption, LinkerHandle};

use super::*;

/// What a guest reads of a linker's image, in pieces of `piece` bytes.
fn linked_image(world: &World, linker: LinkerHandle, bytes: u64, piece: u64) -> Vec<u8> {
    let mut image = Vec::new();
    while (image.len() as u64) < bytes {
        let (at, len) = (image.len() as u64, piece.min(bytes - image.len() as u64));
        ask::vgpuLinkImage(&world.guest, C, linker, at, Staged { offset: 0, len }).unwrap();
        image.extend_from_slice(&world.staging.0.lock().unwrap()[..usize::try_from(len).unwrap()]);
    }
    image
}

fn add(world: &World, linker: LinkerHandle, input: u32, bytes: &[u8], options: &[JitOption]) -> CuResult<()> {
    ask::vgpuUpload(&world.guest, C, 1, bytes.len() as u64, 0, bytes).unwrap();
    ask::cuLinkAddData_v2(&world.guest, C, linker, input, 1, "name".into(), options.to_vec())
}

const PTX: &[u8] = b".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry nothing() { ret; }\n\0";

#[test]
fn one_text_goes_through_the_linker_of_a_device_without_one() {
    let world = world_of(Soft::new(1 << 20).unwrap(), 1 << 20);
    let linker = LinkerHandle::new(0, 0);
    let create = |options| ask::cuLinkCreate_v2(&world.guest, C, NewHandle(linker), options, 100, 100);
    let number = |option, value| JitOption { option, value };
    // Places of the program, lists, and numbers that are no options.
    for option in [2, 3, 5, 17, 18, 25, 35, u32::MAX] {
        assert_eq!(create(vec![number(option, 1)]), Err(CuError::INVALID_VALUE), "{option}");
    }
    assert_eq!(create(vec![number(7, 4); 65]), Err(CuError::INVALID_VALUE));
    let huge = ask::cuLinkCreate_v2(&world.guest, C, NewHandle(linker), vec![], 1 << 20, 0);
    assert_eq!(huge, Err(CuError::INVALID_VALUE));
    create(vec![number(7, 4), number(0, 32)]).unwrap();
    assert_eq!(create(vec![]), Err(CuError::INVALID_HANDLE), "in use");

    assert_eq!(ask::cuLinkComplete(&world.guest, C, linker), Err(CuError::INVALID_VALUE), "nothing in it");
    assert_eq!(add(&world, linker, 6, PTX, &[]), Err(CuError::INVALID_VALUE));
    assert_eq!(add(&world, linker, 1, PTX, &[number(18, 1)]), Err(CuError::INVALID_VALUE));
    assert_eq!(add(&world, linker, 0, PTX, &[]), Err(CuError::NO_BINARY_FOR_GPU));
    let wrapper = [0x4662_43b1_u32.to_le_bytes(), [1, 0, 0, 0], [0; 4], [0, 0x68, 0, 0]].concat();
    for input in 0..6 {
        assert_eq!(add(&world, linker, input, &wrapper, &[]), Err(CuError::INVALID_IMAGE), "{input}");
    }
    assert_eq!(add(&world, linker, 1, b".version 7.0\nrubbish", &[]), Err(CuError::INVALID_PTX));
    let out = Staged { offset: 0, len: 4096 };
    assert_ne!(ask::vgpuLinkLog(&world.guest, C, linker, true, out), Ok(0), "says why");
    assert_eq!(ask::vgpuLinkLog(&world.guest, C, linker, false, out), Ok(0));
    add(&world, linker, 1, PTX, &[]).unwrap();
    assert_eq!(add(&world, linker, 1, PTX, &[]), Err(CuError::NOT_SUPPORTED));

    let bytes = ask::cuLinkComplete(&world.guest, C, linker).unwrap();
    assert_eq!(linked_image(&world, linker, bytes, 7), &PTX[..PTX.len() - 1]);
    let past = ask::vgpuLinkImage(&world.guest, C, linker, bytes + 1, out);
    assert_eq!(past, Err(CuError::INVALID_VALUE));
    let outside = ask::vgpuLinkImage(&world.guest, C, linker, 0, Staged { offset: 64 << 10, len: 1 });
    assert_eq!(outside, Err(CuError::INVALID_VALUE));
    ask::cuLinkDestroy(&world.guest, C, GoneHandle(linker)).unwrap();
    assert_eq!(world.guest.take_error(), None);
    assert_eq!(ask::cuLinkComplete(&world.guest, C, linker), Err(CuError::INVALID_HANDLE));
}

#[test]
fn linkers_are_bounded_and_end_with_their_context() {
    let world = world();
    let context = ContextId(100);
    ask::cuCtxCreate_v2(&world.guest, ContextId::NONE, context, 0, 0).unwrap();
    let create = |context, index| {
        let linker = NewHandle(LinkerHandle::new(0, index));
        ask::cuLinkCreate_v2(&world.guest, context, linker, vec![], 0, 0)
    };
    for index in 0..256 {
        create(context, index).unwrap();
    }
    assert_eq!(create(C, 256), Err(CuError::OUT_OF_MEMORY));
    assert_eq!(create(ContextId(7), 256), Err(CuError::INVALID_CONTEXT));
    ask::cuCtxDestroy_v2(&world.guest, ContextId::NONE, context).unwrap();
    let gone = ask::vgpuLinkTold(&world.guest, C, LinkerHandle::new(0, 0));
    assert_eq!(gone, Err(CuError::INVALID_HANDLE));
    create(C, 0).unwrap();
}

/// Each may be as large as an upload.
#[test]
fn what_linkers_hold_is_bounded_together_and_given_back() {
    let world = world();
    let linker = |number| LinkerHandle::new(0, number);
    let create = |number| {
        ask::cuLinkCreate_v2(&world.guest, C, NewHandle(linker(number)), vec![], 100, 100).unwrap();
    };
    let add = |number| {
        // Nothing of it is kept by a device that takes texts.
        let chunk = vec![0; 32 << 10];
        for offset in (0..256 << 20).step_by(chunk.len()) {
            ask::vgpuUpload(&world.guest, C, 1, 256 << 20, offset, &chunk).unwrap();
        }
        ask::cuLinkAddData_v2(&world.guest, C, linker(number), 1, 1, "name".into(), vec![])
    };
    (0..4).for_each(create);
    // The figure of README.md: 1 GiB, with the logs.
    assert_eq!([0, 1, 2, 3].map(add), [Ok(()), Ok(()), Ok(()), Err(CuError::OUT_OF_MEMORY)]);
    ask::cuLinkDestroy(&world.guest, C, GoneHandle(linker(1))).unwrap();
    assert_eq!(add(3), Ok(()));
    assert_eq!(add(3), Err(CuError::OUT_OF_MEMORY));
    ask::cuDevicePrimaryCtxReset_v2(&world.guest, ContextId::NONE, 0).unwrap();
    ask::cuDevicePrimaryCtxRetain(&world.guest, ContextId::NONE, 0, 0).unwrap();
    (0..3).for_each(create);
    assert_eq!([0, 1, 2].map(add), [Ok(()); 3]);
}
