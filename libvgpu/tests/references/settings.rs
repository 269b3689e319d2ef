//! How a reference reads: each setting by itself, those that CUDA does not know among them.

use vgpu_api::{ArrayHandle, TexRefHandle};

use super::support::session::session;
use super::{FLOAT, INVALID_HANDLE, INVALID_VALUE, OK, allocated, array, created, destroy, told};
use crate::cu;

#[test]
fn each_setting_travels_and_is_told_as_it_was_set() {
    let session = session();
    let texref = created(&session);
    told(&session);
    let (colour, mut told_colour) = ([0.5f32, 1.5, 2.5, 3.5], [0f32; 4]);
    let (colour_at, told_at) = (colour.as_ptr(), told_colour.as_mut_ptr());
    for code in [
        cu!(session.libcuda, cuTexRefSetAddressMode(texref: u64, 1: i32, 3: u32)),
        cu!(session.libcuda, cuTexRefSetFilterMode(texref: u64, 1: u32)),
        cu!(session.libcuda, cuTexRefSetMipmapFilterMode(texref: u64, 1: u32)),
        cu!(session.libcuda, cuTexRefSetMipmapLevelBias(texref: u64, 0.25: f32)),
        cu!(session.libcuda, cuTexRefSetMipmapLevelClamp(texref: u64, 1.0: f32, 2.0: f32)),
        cu!(session.libcuda, cuTexRefSetMaxAnisotropy(texref: u64, 8: u32)),
        cu!(session.libcuda, cuTexRefSetBorderColor(texref: u64, colour_at: *const f32)),
        cu!(session.libcuda, cuTexRefSetFlags(texref: u64, 3: u32)),
        cu!(session.libcuda, cuTexRefSetFormat(texref: u64, 8: u32, 4: i32)),
    ] {
        assert_eq!(code, OK);
    }
    let name = format!("{:?}", TexRefHandle::check(texref).unwrap());
    let bits = |values: [f32; 4]| values.map(f32::to_bits);
    let wanted = [
        format!("{name} Address [1, 3, 0, 0]"),
        format!("{name} Filter [1, 0, 0, 0]"),
        format!("{name} MipFilter [1, 0, 0, 0]"),
        format!("{name} MipBias {:?}", bits([0.25, 0.0, 0.0, 0.0])),
        format!("{name} Levels {:?}", bits([1.0, 2.0, 0.0, 0.0])),
        format!("{name} Anisotropy [8, 0, 0, 0]"),
        format!("{name} Border {:?}", bits(colour)),
        format!("{name} Flags [3, 0, 0, 0]"),
        format!("{name} 8 4"),
    ];
    assert_eq!(told(&session), wanted);
    let (mut words, mut numbers) = ([9u32; 8], [9f32; 3]);
    let [w, n] = [words.as_mut_ptr() as usize, numbers.as_mut_ptr() as usize];
    let word = |i: usize| w + 4 * i;
    let number = |i: usize| n + 4 * i;
    let (first, second, third, fourth) = (word(0), word(1), word(2), word(3));
    let (fifth, sixth, seventh, eighth) = (word(4), word(5), word(6), word(7));
    let (bias, least, most) = (number(0), number(1), number(2));
    for code in [
        cu!(session.libcuda, cuTexRefGetAddressMode(first: usize, texref: u64, 0: i32)),
        cu!(session.libcuda, cuTexRefGetAddressMode(second: usize, texref: u64, 1: i32)),
        cu!(session.libcuda, cuTexRefGetFilterMode(third: usize, texref: u64)),
        cu!(session.libcuda, cuTexRefGetMipmapFilterMode(fourth: usize, texref: u64)),
        cu!(session.libcuda, cuTexRefGetMaxAnisotropy(fifth: usize, texref: u64)),
        cu!(session.libcuda, cuTexRefGetFlags(sixth: usize, texref: u64)),
        cu!(session.libcuda, cuTexRefGetFormat(seventh: usize, eighth: usize, texref: u64)),
        cu!(session.libcuda, cuTexRefGetMipmapLevelBias(bias: usize, texref: u64)),
        cu!(session.libcuda, cuTexRefGetMipmapLevelClamp(least: usize, most: usize, texref: u64)),
        cu!(session.libcuda, cuTexRefGetBorderColor(told_at: *mut f32, texref: u64)),
    ] {
        assert_eq!(code, OK);
    }
    assert_eq!((words, numbers, told_colour), ([1, 3, 1, 1, 8, 3, 8, 4], [0.25, 1.0, 2.0], colour));
    assert_eq!(told(&session), [""; 0], "what is asked is answered in the process");
    assert_eq!(destroy(&session, texref), OK);
}

#[test]
fn an_array_without_the_flag_leaves_the_references_own_format() {
    let session = session();
    let (texref, array) = (created(&session), array(&session, 0));
    let (name, mut format) = (format!("{:?}", TexRefHandle::check(texref).unwrap()), [9u32; 2]);
    let [format_at, channels_at] = [0, 1].map(|i| format.as_mut_ptr() as usize + 4 * i);
    let bound = format!("{name} Array({:?})", ArrayHandle::check(array).unwrap());
    told(&session);
    for (flags, said, wanted) in [
        (0, vec![bound.clone(), format!("{name} {FLOAT} 1")], [FLOAT, 1]),
        (1, vec![bound.clone()], [FLOAT, 2]),
        (0, vec![bound], [FLOAT, 2]),
    ] {
        assert_eq!(cu!(session.libcuda, cuTexRefSetArray(texref: u64, array: u64, flags: u32)), OK);
        assert_eq!(told(&session), said);
        let asked =
            cu!(session.libcuda, cuTexRefGetFormat(format_at: usize, channels_at: usize, texref: u64));
        assert_eq!((asked, format), (OK, wanted));
    }
    assert_eq!(destroy(&session, texref), OK);
}

#[test]
fn settings_that_a_driver_refuses_are_refused_and_change_nothing() {
    let session = session();
    let (texref, null, below) = (created(&session), 0u64, -1i32);
    told(&session);
    for code in [
        cu!(session.libcuda, cuTexRefSetAddressMode(texref: u64, 3: i32, 0: u32)),
        cu!(session.libcuda, cuTexRefSetAddressMode(texref: u64, below: i32, 0: u32)),
        cu!(session.libcuda, cuTexRefSetFormat(texref: u64, 0x20: u32, 3: i32)),
        cu!(session.libcuda, cuTexRefSetFormat(texref: u64, 0x20: u32, below: i32)),
        cu!(session.libcuda, cuTexRefSetBorderColor(texref: u64, null: u64)),
        cu!(session.libcuda, cuTexRefGetFlags(null: u64, texref: u64)),
    ] {
        assert_eq!(code, INVALID_VALUE);
    }
    assert_eq!(cu!(session.libcuda, cuTexRefSetFlags(null: u64, 0: u32)), INVALID_HANDLE);
    assert_eq!(told(&session), [""; 0]);
    let mut mode = 9u32;
    let at = &raw mut mode;
    assert_eq!(
        cu!(session.libcuda, cuTexRefGetAddressMode(at: *mut u32, texref: u64, 3: i32)),
        INVALID_VALUE
    );
    assert_eq!((cu!(session.libcuda, cuTexRefGetFilterMode(at: *mut u32, texref: u64)), mode), (OK, 0));
    for dimension in 0..3 {
        let asked = cu!(session.libcuda, cuTexRefGetAddressMode(at: *mut u32, texref: u64, dimension: i32));
        assert_eq!((asked, std::mem::replace(&mut mode, 9)), (OK, 1), "nothing was set: it clamps");
    }
    assert_eq!(destroy(&session, texref), OK);
}

#[test]
fn settings_that_cuda_does_not_know_are_told_and_nothing_is_read_while_they_last() {
    let session = session();
    let (texref, memory) = (created(&session), allocated(&session, 4096));
    let name = format!("{:?}", TexRefHandle::check(texref).unwrap());
    let (mut got, null) = ([9u32; 2], std::ptr::null_mut::<usize>());
    let [first, second] = [0, 1].map(|i| got.as_mut_ptr() as usize + 4 * i);
    told(&session);
    assert_eq!(
        cu!(session.libcuda, cuTexRefSetAddress_v2(null: *mut usize, texref: u64, memory: u64, 4096: usize)),
        OK
    );
    let bound = told(&session);
    assert_eq!(bound.len(), 1);
    let set = |which: usize, value: u32| match which {
        0 => cu!(session.libcuda, cuTexRefSetAddressMode(texref: u64, 0: i32, value: u32)),
        1 => cu!(session.libcuda, cuTexRefSetFilterMode(texref: u64, value: u32)),
        2 => cu!(session.libcuda, cuTexRefSetMipmapFilterMode(texref: u64, value: u32)),
        3 => cu!(session.libcuda, cuTexRefSetFlags(texref: u64, value: u32)),
        _ => cu!(session.libcuda, cuTexRefSetFormat(texref: u64, value: u32, 1: i32)),
    };
    let asked = |which: usize| match which {
        0 => cu!(session.libcuda, cuTexRefGetAddressMode(first: usize, texref: u64, 0: i32)),
        1 => cu!(session.libcuda, cuTexRefGetFilterMode(first: usize, texref: u64)),
        2 => cu!(session.libcuda, cuTexRefGetMipmapFilterMode(first: usize, texref: u64)),
        3 => cu!(session.libcuda, cuTexRefGetFlags(first: usize, texref: u64)),
        _ => cu!(session.libcuda, cuTexRefGetFormat(first: usize, second: usize, texref: u64)),
    };
    // An address mode clamps then, and a filter between levels is refused.
    assert_eq!((set(0, 4), asked(0), got[0]), (OK, OK, 1));
    assert_eq!((told(&session).len(), set(2, 2), asked(2), got[0]), (1, INVALID_VALUE, OK, 0));
    for (which, unknown, known) in [(1, 2, 0), (3, 4, 3), (4, 0x77, FLOAT)] {
        assert_eq!((set(which, unknown), asked(which), got[0]), (OK, OK, unknown), "{which}");
        assert_eq!(
            told(&session),
            std::slice::from_ref(&name),
            "it is bound to nothing, and that is all that travels"
        );
        assert_eq!(set(which, unknown), OK);
        assert_eq!(told(&session), [""; 0]);
        assert_eq!((set(which, known), asked(which), got[0]), (OK, OK, known), "{which}");
        let said = told(&session);
        assert_eq!(
            (said.len(), &said[1]),
            (2, &bound[0]),
            "the setting, then what it was bound to: {said:?}"
        );
    }
    // What is bound meanwhile is checked at once, and read later.
    assert_eq!((set(1, 2), told(&session).len()), (OK, 1));
    assert_eq!(
        cu!(session.libcuda, cuTexRefSetAddress_v2(null: *mut usize, texref: u64, memory: u64, 64: usize)),
        OK
    );
    let said = told(&session);
    assert_eq!((said.len(), &said[1]), (2, &name), "{said:?}");
    assert_eq!(set(1, 1), OK);
    assert_eq!(told(&session)[1..], said[..1]);
    assert_eq!(destroy(&session, texref), OK);
}
