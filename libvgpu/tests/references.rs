//! Texture and surface references: what is set travels, each call for itself, and is told as it was set.

mod support;

use std::ffi::CStr;

use support::calls::Calls;
use support::session::{Session, session};
use vgpu_api::{ArrayHandle, SurfRefHandle, TexRefHandle};

const OK: u32 = 0;
const INVALID_VALUE: u32 = 1;
const INVALID_HANDLE: u32 = 400;
const NOT_FOUND: u32 = 500;
const NOT_SUPPORTED: u32 = 801;

const FLOAT: u32 = 0x20;
const SURFACE: u64 = 2;

fn named(session: &Session, module: u64, name: &CStr) -> (u32, u64) {
    let (mut texref, name) = (0u64, name.as_ptr());
    let at = &raw mut texref;
    (cu!(session.libcuda, cuModuleGetTexRef(at: *mut u64, module: u64, name: *const i8)), texref)
}

fn surface_named(session: &Session, module: u64, name: &CStr) -> (u32, u64) {
    let (mut surfref, name) = (0u64, name.as_ptr());
    let at = &raw mut surfref;
    (cu!(session.libcuda, cuModuleGetSurfRef(at: *mut u64, module: u64, name: *const i8)), surfref)
}

fn created(session: &Session) -> u64 {
    let mut texref = 0u64;
    let at = &raw mut texref;
    assert_eq!(cu!(session.libcuda, cuTexRefCreate(at: *mut u64)), OK);
    texref
}

fn destroy(session: &Session, texref: u64) -> u32 {
    cu!(session.libcuda, cuTexRefDestroy(texref: u64))
}

fn array(session: &Session, flags: u64) -> u64 {
    let (mut array, shape) = (0u64, [16u64, 8, 0, u64::from(FLOAT) | 2 << 32, flags]);
    let (at, shape) = (&raw mut array, shape.as_ptr());
    assert_eq!(cu!(session.libcuda, cuArray3DCreate_v2(at: *mut u64, shape: *const u64)), OK);
    array
}

fn allocated(session: &Session, bytes: usize) -> u64 {
    let mut address = 0u64;
    let at = &raw mut address;
    assert_eq!(cu!(session.libcuda, cuMemAlloc_v2(at: *mut u64, bytes: usize)), OK);
    address
}

/// What the worker was told of references since the last time.
fn told(session: &Session) -> Vec<String> {
    assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), OK);
    std::mem::take(&mut session.seen.lock().unwrap().references)
}

fn flags(session: &Session, texref: u64) -> u32 {
    let mut flags = 9u32;
    let at = &raw mut flags;
    cu!(session.libcuda, cuTexRefGetFlags(at: *mut u32, texref: u64))
}

#[test]
fn a_name_of_a_module_has_one_reference_until_the_module_ends() {
    let session = session();
    let module = session.load(c"a module");
    told(&session);
    let (code, picture) = named(&session, module, c"picture");
    assert_eq!(code, OK);
    assert!(TexRefHandle::check(picture).is_ok(), "an opaque number");
    assert_eq!(named(&session, module, c"picture"), (OK, picture));
    assert_eq!(told(&session).len(), 1, "the worker is asked once");
    let (code, canvas) = surface_named(&session, module, c"canvas");
    assert!(code == OK && SurfRefHandle::check(canvas).is_ok());
    for (code, _) in [
        named(&session, module, c"canvas"),
        surface_named(&session, module, c"picture"),
        named(&session, module, c"nobody"),
    ] {
        assert_eq!(code, NOT_FOUND);
    }
    assert_eq!(named(&session, module, c"").0, INVALID_VALUE);
    assert_eq!(named(&session, 77, c"picture").0, INVALID_HANDLE);
    let other = session.load(c"another module");
    let (code, its) = named(&session, other, c"picture");
    assert!(code == OK && its != picture);
    assert_eq!(destroy(&session, picture), INVALID_HANDLE, "it is the module's");
    session.unload(module);
    assert_eq!((flags(&session, picture), flags(&session, its)), (INVALID_HANDLE, OK));
    let again = session.load(c"a module");
    let (code, renewed) = named(&session, again, c"picture");
    assert!(code == OK && renewed != picture);
    session.unload(again);
    session.unload(other);
}

#[test]
fn a_librarys_module_has_no_references() {
    let session = session();
    let (mut library, mut module, image) = (0u64, 0u64, c"a library".as_ptr());
    let (library_at, module_at, null) = (&raw mut library, &raw mut module, 0u64);
    let loaded = cu!(session.libcuda, cuLibraryLoadData(library_at: *mut u64, image: *const i8, null: u64, null: u64,
        0: u32, null: u64, null: u64, 0: u32));
    assert_eq!(loaded, OK);
    assert_eq!(cu!(session.libcuda, cuLibraryGetModule(module_at: *mut u64, library: u64)), OK);
    assert_eq!(named(&session, module, c"picture").0, NOT_SUPPORTED);
    assert_eq!(cu!(session.libcuda, cuLibraryUnload(library: u64)), OK);
}

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
    assert_eq!((words, numbers, told_colour), ([0, 3, 1, 1, 8, 3, 8, 4], [0.25, 1.0, 2.0], colour));
    assert_eq!(told(&session), [""; 0], "what is asked is answered in the process");
    assert_eq!(destroy(&session, texref), OK);
}

#[test]
fn what_a_reference_reads_travels_and_the_last_is_what_is_told() {
    let session = session();
    let (texref, of_array) = (created(&session), array(&session, 0));
    let name = format!("{:?}", TexRefHandle::check(texref).unwrap());
    let (mut number, mut offset, mut format) = (0u64, 9usize, [9u32; 2]);
    let (at, offset_at, null) = (&raw mut number, &raw mut offset, 0u64);
    let [format_at, channels_at] = [0, 1].map(|i| format.as_mut_ptr() as usize + 4 * i);
    let array_told = || cu!(session.libcuda, cuTexRefGetArray(at: *mut u64, texref: u64));
    let address_told = || cu!(session.libcuda, cuTexRefGetAddress_v2(at: *mut u64, texref: u64));
    let mipmap_told = || cu!(session.libcuda, cuTexRefGetMipmappedArray(at: *mut u64, texref: u64));
    assert_eq!([array_told(), address_told(), mipmap_told()], [INVALID_VALUE; 3], "nothing");
    told(&session);

    assert_eq!(cu!(session.libcuda, cuTexRefSetArray(texref: u64, of_array: u64, 1: u32)), OK);
    assert_eq!((array_told(), address_told()), (OK, INVALID_VALUE));
    assert_eq!(
        cu!(session.libcuda, cuTexRefGetFormat(format_at: usize, channels_at: usize, texref: u64)),
        OK
    );
    assert_eq!((number, format), (of_array, [FLOAT, 2]), "the array's");
    let handle = ArrayHandle::check(of_array).unwrap();
    assert_eq!(told(&session), [format!("{name} Array({handle:?})")]);

    let memory = allocated(&session, 65536);
    assert_eq!(cu!(session.libcuda, cuTexRefSetFormat(texref: u64, FLOAT: u32, 1: i32)), OK);
    let linear = |place: *mut usize, at: u64, bytes: usize| cu!(session.libcuda, cuTexRefSetAddress_v2(place: *mut usize, texref: u64, at: u64, bytes: usize));
    assert_eq!((linear(offset_at, memory, 4096), offset), (OK, 0));
    assert_eq!((linear(offset_at, memory + 48, 4096), offset), (OK, 16));
    assert_eq!((address_told(), number), (OK, memory + 48));
    assert_eq!(linear(std::ptr::null_mut(), memory, 4096), OK);
    assert_eq!(linear(std::ptr::null_mut(), memory + 48, 4096), INVALID_VALUE, "nobody would be told");
    assert_eq!((linear(offset_at, memory, 3), array_told()), (INVALID_VALUE, INVALID_VALUE));
    let said = told(&session);
    assert_eq!(said.len(), 5, "the format, and four of memory: {said:?}");
    assert!(said[2].contains(&format!("{:?}", vgpu_api::DevicePtr(memory + 48))), "{said:?}");

    let rows = |width: u64, height: u64, at: u64, pitch: usize| {
        let shape = [width, height, u64::from(FLOAT) | 1 << 32];
        let shape = shape.as_ptr();
        cu!(session.libcuda, cuTexRefSetAddress2D_v3(texref: u64, shape: *const u64, at: u64, pitch: usize))
    };
    assert_eq!(rows(100, 10, memory, 512), OK);
    for code in [
        rows(100, 10, memory + 16, 512),
        rows(100, 10, memory, 500),
        rows(100, 10, memory, 384),
        rows(4097, 10, memory, 65536),
        rows(100, 0, memory, 512),
    ] {
        assert_eq!(code, INVALID_VALUE);
    }
    assert_eq!(
        cu!(session.libcuda, cuTexRefSetAddress2D_v3(texref: u64, null: u64, memory: u64, 512: usize)),
        INVALID_VALUE
    );
    assert_eq!(told(&session).len(), 1);
    assert_eq!((linear(offset_at, 0, 0), offset, address_told()), (OK, 0, INVALID_VALUE), "let go of");
    assert_eq!(told(&session), [name]);

    for (wrong, flags, wanted) in [
        (of_array, 0, INVALID_VALUE),
        (of_array, 3, INVALID_VALUE),
        (0, 1, INVALID_VALUE),
        (ArrayHandle::new(3, 4000).raw(), 1, INVALID_HANDLE),
        (texref, 1, INVALID_HANDLE),
    ] {
        assert_eq!(cu!(session.libcuda, cuTexRefSetArray(texref: u64, wrong: u64, flags: u32)), wanted);
        assert_ne!(cu!(session.libcuda, cuTexRefSetMipmappedArray(texref: u64, wrong: u64, flags: u32)), OK);
    }
    assert_eq!(told(&session), [""; 0], "nothing of that travels");
    assert_eq!(destroy(&session, texref), OK);
    assert_eq!([destroy(&session, texref), flags(&session, texref)], [INVALID_HANDLE; 2]);
    assert_eq!(destroy(&session, 0), INVALID_VALUE);
}

#[test]
fn levels_are_bound_whole() {
    let session = session();
    let texref = created(&session);
    let (mut mipmap, mut number, shape) = (0u64, 0u64, [16u64, 16, 0, u64::from(FLOAT) | 1 << 32, 0]);
    let (mipmap_at, at, shape) = (&raw mut mipmap, &raw mut number, shape.as_ptr());
    assert_eq!(
        cu!(session.libcuda, cuMipmappedArrayCreate(mipmap_at: *mut u64, shape: *const u64, 3: u32)),
        OK
    );
    assert_eq!(cu!(session.libcuda, cuTexRefSetMipmappedArray(texref: u64, mipmap: u64, 1: u32)), OK);
    assert_eq!(cu!(session.libcuda, cuTexRefGetMipmappedArray(at: *mut u64, texref: u64)), OK);
    assert_eq!(number, mipmap);
    assert_eq!(
        cu!(session.libcuda, cuTexRefSetMipmappedArray(texref: u64, mipmap: u64, 0: u32)),
        INVALID_VALUE
    );
    assert_eq!(cu!(session.libcuda, cuMipmappedArrayDestroy(mipmap: u64)), OK);
    assert_eq!(destroy(&session, texref), OK);
}

#[test]
fn settings_that_cuda_does_not_know_are_refused_and_change_nothing() {
    let session = session();
    let (texref, null, below) = (created(&session), 0u64, -1i32);
    told(&session);
    for code in [
        cu!(session.libcuda, cuTexRefSetAddressMode(texref: u64, 3: i32, 0: u32)),
        cu!(session.libcuda, cuTexRefSetAddressMode(texref: u64, below: i32, 0: u32)),
        cu!(session.libcuda, cuTexRefSetAddressMode(texref: u64, 0: i32, 4: u32)),
        cu!(session.libcuda, cuTexRefSetFilterMode(texref: u64, 2: u32)),
        cu!(session.libcuda, cuTexRefSetFlags(texref: u64, 4: u32)),
        cu!(session.libcuda, cuTexRefSetFormat(texref: u64, 0x20: u32, 3: i32)),
        cu!(session.libcuda, cuTexRefSetFormat(texref: u64, 0x20: u32, below: i32)),
        cu!(session.libcuda, cuTexRefSetFormat(texref: u64, 0x77: u32, 1: i32)),
        cu!(session.libcuda, cuTexRefSetBorderColor(texref: u64, null: u64)),
        cu!(session.libcuda, cuTexRefSetFlags(null: u64, 0: u32)),
        cu!(session.libcuda, cuTexRefGetFlags(null: u64, texref: u64)),
    ] {
        assert_eq!(code, INVALID_VALUE);
    }
    assert_eq!(told(&session), [""; 0]);
    let mut mode = 9u32;
    let at = &raw mut mode;
    assert_eq!(
        cu!(session.libcuda, cuTexRefGetAddressMode(at: *mut u32, texref: u64, 3: i32)),
        INVALID_VALUE
    );
    assert_eq!((cu!(session.libcuda, cuTexRefGetFilterMode(at: *mut u32, texref: u64)), mode), (OK, 0));
    assert_eq!(destroy(&session, texref), OK);
}

#[test]
fn a_surface_reference_takes_an_array_that_is_for_surfaces() {
    let session = session();
    let module = session.load(c"a module");
    let (_, canvas) = surface_named(&session, module, c"canvas");
    let (plain, for_surfaces, mut number) = (array(&session, 0), array(&session, SURFACE), 0u64);
    let at = &raw mut number;
    let bind =
        |array: u64, flags: u32| cu!(session.libcuda, cuSurfRefSetArray(canvas: u64, array: u64, flags: u32));
    let asked = || cu!(session.libcuda, cuSurfRefGetArray(at: *mut u64, canvas: u64));
    assert_eq!(asked(), INVALID_VALUE, "none");
    told(&session);
    assert_eq!([bind(plain, 0), bind(for_surfaces, 1), bind(0, 0)], [INVALID_VALUE; 3]);
    assert_eq!(bind(canvas, 0), INVALID_HANDLE);
    assert_eq!(told(&session), [""; 0]);
    assert_eq!((bind(for_surfaces, 0), asked(), number), (OK, OK, for_surfaces));
    assert_eq!(told(&session).len(), 1);
    session.unload(module);
    assert_eq!([bind(for_surfaces, 0), asked()], [INVALID_HANDLE; 2]);
}

#[test]
fn an_old_kernel_may_say_which_textures_it_reads() {
    let session = session();
    let module = session.load(c"a module");
    let (_, picture) = named(&session, module, c"picture");
    let (fill, own) = (session.function(module, c"fill"), created(&session));
    let says = |function: u64, unit: i32, texref: u64| cu!(session.libcuda, cuParamSetTexRef(function: u64, unit: i32, texref: u64));
    assert_eq!(says(fill, -1, picture), OK);
    assert_eq!([says(fill, 0, picture), says(fill, -1, own), says(fill, -1, 0)], [INVALID_VALUE; 3]);
    assert_eq!([says(fill, -1, fill), says(picture, -1, picture)], [INVALID_HANDLE; 2]);
    assert_eq!(destroy(&session, own), OK);
    session.unload(module);
}

#[test]
fn a_contexts_references_end_with_it() {
    let session = session();
    let (mut context, mut popped) = (0u64, 0u64);
    let (at, popped_at) = (&raw mut context, &raw mut popped);
    assert_eq!(cu!(session.libcuda, cuCtxCreate_v2(at: *mut u64, 0: u32, 0: i32)), OK);
    let module = session.load(c"a module");
    let ((_, picture), own) = (named(&session, module, c"picture"), created(&session));
    assert_eq!(cu!(session.libcuda, cuCtxPopCurrent_v2(popped_at: *mut u64)), OK);
    assert_eq!([flags(&session, picture), flags(&session, own)], [OK; 2]);
    assert_eq!(cu!(session.libcuda, cuCtxDestroy_v2(context: u64)), OK);
    assert_eq!([flags(&session, picture), flags(&session, own)], [INVALID_HANDLE; 2]);
}
