//! Texture and surface references: what is set travels, each call for itself, and is told as it was set.

mod settings;
#[path = "../support/mod.rs"]
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

/// Each thread sets what no other one does, all at once, and then looks.
#[test]
fn what_threads_set_at_once_is_all_told() {
    const THREADS: u32 = 3;
    let session = session();
    let texref = created(&session);
    let (library, primary) = (&session.libcuda, vgpu_api::ContextId::primary(0).handle().raw());
    let all = &std::sync::Barrier::new(THREADS as usize);
    std::thread::scope(|scope| {
        for number in 0..THREADS {
            scope.spawn(move || {
                assert_eq!(cu!(library, cuCtxSetCurrent(primary: u64)), OK);
                let mut lost = Vec::new();
                for round in 1..100u32 {
                    let (mode, mut known) = (round % 4, 9u32);
                    let at = &raw mut known;
                    all.wait();
                    let set = cu!(library, cuTexRefSetAddressMode(texref: u64, number: u32, mode: u32));
                    all.wait();
                    let told = cu!(library, cuTexRefGetAddressMode(at: *mut u32, texref: u64, number: u32));
                    if (set, told, known) != (OK, OK, mode) {
                        lost.push((round, set, told, known));
                    }
                }
                assert_eq!(lost, [], "dimension {number}");
            });
        }
    });
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
    assert_eq!((address_told(), number), (OK, memory + 32), "where the texture starts");
    assert_eq!(linear(std::ptr::null_mut(), memory, 4096), OK);
    assert_eq!(linear(std::ptr::null_mut(), memory + 48, 4096), INVALID_VALUE, "nobody would be told");
    assert_eq!(
        (linear(offset_at, memory + 48, 0), offset, array_told()),
        (OK, 16, INVALID_VALUE),
        "no bytes"
    );
    let said = told(&session);
    assert_eq!(said.len(), 7, "the format, five of memory, and that nothing is read of no bytes: {said:?}");
    assert_eq!(said[6], name);
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
    assert_eq!((linear(offset_at, 0, 0), offset), (OK, 0), "let go of");
    assert_eq!((address_told(), number), (OK, 0));
    assert_eq!(told(&session), [name]);

    for (wrong, flags, wanted) in [
        (of_array, 2, INVALID_VALUE),
        (of_array, 3, INVALID_VALUE),
        (0, 1, INVALID_HANDLE),
        (ArrayHandle::new(3, 4000).raw(), 1, INVALID_HANDLE),
        (texref, 1, INVALID_HANDLE),
    ] {
        assert_eq!(cu!(session.libcuda, cuTexRefSetArray(texref: u64, wrong: u64, flags: u32)), wanted);
        let mipmap = cu!(session.libcuda, cuTexRefSetMipmappedArray(texref: u64, wrong: u64, flags: u32));
        assert_eq!(mipmap, INVALID_HANDLE);
    }
    assert_eq!(told(&session), [""; 0], "nothing of that travels");
    assert_eq!(destroy(&session, texref), OK);
    assert_eq!([destroy(&session, texref), flags(&session, texref)], [INVALID_HANDLE; 2]);
    assert_eq!(destroy(&session, 0), INVALID_HANDLE);
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
        cu!(session.libcuda, cuTexRefSetMipmappedArray(texref: u64, mipmap: u64, 2: u32)),
        INVALID_VALUE
    );
    assert_eq!(cu!(session.libcuda, cuMipmappedArrayDestroy(mipmap: u64)), OK);
    assert_eq!(destroy(&session, texref), OK);
}

/// NVIDIA's driver keeps them and tells them.
#[test]
fn a_name_of_a_texture_is_no_variable() {
    let session = session();
    let module = session.load(c"a module");
    let (mut address, null) = (9u64, 0u64);
    let at = &raw mut address;
    let global = |name: &CStr| {
        let name = name.as_ptr();
        cu!(session.libcuda, cuModuleGetGlobal_v2(at: *mut u64, null: u64, module: u64, name: *const i8))
    };
    assert_eq!([global(c"picture"), global(c"nobody"), global(c"")], [INVALID_VALUE, NOT_FOUND, NOT_FOUND]);
    assert_eq!(address, 9);
    session.unload(module);
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
    assert_eq!([bind(plain, 0), bind(for_surfaces, 1)], [INVALID_VALUE; 2]);
    assert_eq!([bind(0, 0), bind(canvas, 0)], [INVALID_HANDLE; 2]);
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
    assert_eq!([says(fill, -1, picture), says(fill, 0, picture)], [OK; 2]);
    assert_eq!(says(fill, -1, own), INVALID_VALUE);
    assert_eq!([says(fill, -1, fill), says(picture, -1, picture), says(fill, -1, 0)], [INVALID_HANDLE; 3]);
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
