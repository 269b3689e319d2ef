//! Two devices, the first of which reaches the memory of the second, and not the other way.

mod support;

use std::ffi::c_void;

use support::calls::Calls as _;
use support::session::{Session, session};
use vgpu_api::ContextId;

const OK: u32 = 0;
const INVALID_VALUE: u32 = 1;
const INVALID_DEVICE: u32 = 101;
const PEER_ACCESS_UNSUPPORTED: u32 = 217;
const ALREADY_ENABLED: u32 = 704;
const NOT_ENABLED: u32 = 705;
const NOT_SUPPORTED: u32 = 801;
const READ: u32 = 1;
const READ_WRITE: u32 = 3;
/// `support::device::PIECE`.
const PIECE: usize = 2 << 20;

/// `CUmemLocation`, `CUmemAccessDesc`, `CUmemAllocationProp`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Location(u32, i32);
#[derive(Clone, Copy)]
#[repr(C)]
struct AccessOf(Location, u32);
#[repr(C)]
struct Properties(u32, u32, Location, [u64; 2]);

fn primary(device: u32) -> u64 {
    ContextId::primary(device).handle().raw()
}

/// The session, with the primary context of the second device retained too. That of the first is current.
fn two() -> Session {
    let session = session();
    let mut context = 0u64;
    let place = &raw mut context;
    assert_eq!(cu!(session.libcuda, cuDevicePrimaryCtxRetain(place: *mut u64, 1: i32)), OK);
    assert_eq!(context, primary(1));
    session
}

fn end(session: &Session) {
    make_current(session, 0);
    assert_eq!(cu!(session.libcuda, cuDevicePrimaryCtxRelease_v2(1: i32)), OK);
}

fn make_current(session: &Session, device: u32) {
    let context = primary(device);
    assert_eq!(cu!(session.libcuda, cuCtxSetCurrent(context: u64)), OK);
}

fn alloc(session: &Session, bytes: usize) -> u64 {
    let mut address = 0u64;
    let place = &raw mut address;
    assert_eq!(cu!(session.libcuda, cuMemAlloc_v2(place: *mut u64, bytes: usize)), OK);
    address
}

fn ordinal(session: &Session, address: u64) -> i32 {
    let mut value = -1i32;
    let place = &raw mut value;
    assert_eq!(cu!(session.libcuda, cuPointerGetAttribute(place: *mut i32, 9: u32, address: u64)), OK);
    value
}

#[test]
fn what_a_pair_of_devices_can_is_told_without_the_worker() {
    let session = session();
    let sent = session.call_count();
    let mut value = -1i32;
    let at = &raw mut value;
    for (device, peer, can, rank) in [(0, 1, 1, 1), (1, 0, 0, 0)] {
        assert_eq!(cu!(session.libcuda, cuDeviceCanAccessPeer(at: *mut i32, device: i32, peer: i32)), OK);
        assert_eq!(value, can);
        let attribute = |number: u32| cu!(session.libcuda, cuDeviceGetP2PAttribute(at: *mut i32, number: u32, device: i32, peer: i32));
        assert_eq!((attribute(1), value), (OK, rank));
        assert_eq!((attribute(5), value), (OK, 5 * rank));
        assert_eq!((attribute(0), attribute(6)), (INVALID_VALUE, INVALID_VALUE));
    }
    for (device, peer) in [(0, 0), (0, 2), (-1, 1)] {
        assert_eq!(
            cu!(session.libcuda, cuDeviceGetP2PAttribute(at: *mut i32, 2: u32, device: i32, peer: i32)),
            INVALID_DEVICE
        );
    }
    assert_eq!(session.call_count(), sent);
}

#[test]
fn access_is_enabled_once_and_ended_once_by_the_context_that_has_it() {
    let session = two();
    let [first, second] = [0, 1].map(primary);
    let enable = |peer: u64, flags: u32| cu!(session.libcuda, cuCtxEnablePeerAccess(peer: u64, flags: u32));
    let disable = |peer: u64| cu!(session.libcuda, cuCtxDisablePeerAccess(peer: u64));
    assert_eq!((disable(second), enable(second, 1)), (NOT_ENABLED, INVALID_VALUE));
    assert_eq!((enable(second, 0), enable(second, 0)), (OK, ALREADY_ENABLED));
    make_current(&session, 1);
    assert_eq!((enable(first, 0), disable(first)), (PEER_ACCESS_UNSUPPORTED, NOT_ENABLED));
    make_current(&session, 0);
    assert_eq!((disable(second), disable(second)), (OK, NOT_ENABLED));
    end(&session);
}

#[test]
fn an_address_tells_its_device_and_is_copied_to_the_others() {
    let session = two();
    let here = alloc(&session, 64);
    make_current(&session, 1);
    let there = alloc(&session, 64);
    assert_eq!((ordinal(&session, here), ordinal(&session, there)), (0, 1));
    let words = [7u64; 8];
    let bytes = words.as_ptr();
    assert_eq!(cu!(session.libcuda, cuMemcpyHtoD_v2(there: u64, bytes: *const u64, 64: usize)), OK);
    make_current(&session, 0);
    let [first, second] = [0, 1].map(primary);
    let before = session.replies();
    let copy = |bytes: usize| cu!(session.libcuda, cuMemcpyPeerAsync(here: u64, first: u64, there: u64, second: u64, bytes: usize, 0: u64));
    assert_eq!((copy(64), copy(65)), (OK, INVALID_VALUE));
    assert_eq!(session.replies(), before, "it is queued");
    // One that waits is in the order of both contexts: they are waited for before, and the copy behind.
    let waited = |session: &Session| session.seen_count("ctx sync");
    let synchronized = waited(&session);
    assert_eq!(
        cu!(session.libcuda, cuMemcpyPeer(here: u64, first: u64, there: u64, second: u64, 64: usize)),
        OK
    );
    assert_eq!(waited(&session), synchronized + 2);
    let mut back = [0u64; 8];
    let to = back.as_mut_ptr();
    assert_eq!(cu!(session.libcuda, cuMemcpyDtoH_v2(to: *mut u64, here: u64, 64: usize)), OK);
    assert_eq!(back, words);
    assert_eq!(cu!(session.libcuda, cuMemFree_v2(here: u64)), OK);
    end(&session);
    let mut value = 0i32;
    let at = &raw mut value;
    assert_eq!(cu!(session.libcuda, cuPointerGetAttribute(at: *mut i32, 9: u32, there: u64)), INVALID_VALUE);
}

#[test]
fn mapped_memory_and_pools_are_another_devices_as_far_as_it_can_reach_them() {
    let session = two();
    let on = |device| Location(1, device);
    let memory_of = |device| {
        let properties = Properties(1, 0, on(device), [0; 2]);
        let (mut handle, mut address) = (0u64, 0u64);
        let (handle_at, address_at, wanted) = (&raw mut handle, &raw mut address, &raw const properties);
        assert_eq!(
            cu!(session.libcuda, cuMemCreate(handle_at: *mut u64, PIECE: usize, wanted: *const Properties, 0: u64)),
            OK
        );
        assert_eq!(
            cu!(session.libcuda, cuMemAddressReserve(address_at: *mut u64, PIECE: usize, 0: usize, 0: u64, 0: u64)),
            OK
        );
        assert_eq!(
            cu!(session.libcuda, cuMemMap(address: u64, PIECE: usize, 0: usize, handle: u64, 0: u64)),
            OK
        );
        (handle, address)
    };
    let set = |address: u64, all: &[AccessOf]| {
        let (all, count) = (all.as_ptr(), all.len());
        cu!(session.libcuda, cuMemSetAccess(address: u64, PIECE: usize, all: *const AccessOf, count: usize))
    };
    let get = |address: u64, device| {
        let (mut flags, location) = (9u64, on(device));
        let (flags_at, location) = (&raw mut flags, &raw const location);
        let code =
            cu!(session.libcuda, cuMemGetAccess(flags_at: *mut u64, location: *const Location, address: u64));
        (code, flags)
    };
    let [(own, of_first), (other, of_second)] = [0, 1].map(memory_of);
    assert_eq!(ordinal(&session, of_second), 1);
    let both = [0, 1].map(|device| AccessOf(on(device), READ_WRITE));
    let told = session.seen_count("set access of the second");
    assert_eq!(set(of_first, &both), NOT_SUPPORTED, "the second reaches nothing of the first");
    assert_eq!(get(of_first, 0), (OK, 0), "and then nothing of the list is done");
    assert_eq!(set(of_second, &both), OK);
    assert_eq!(set(of_second, &[AccessOf(on(0), READ)]), OK);
    assert_eq!((get(of_second, 0), get(of_second, 1)), ((OK, 1), (OK, 3)));
    for (handle, address) in [(own, of_first), (other, of_second)] {
        assert_eq!(cu!(session.libcuda, cuMemUnmap(address: u64, PIECE: usize)), OK);
        assert_eq!(cu!(session.libcuda, cuMemRelease(handle: u64)), OK);
        assert_eq!(cu!(session.libcuda, cuMemAddressFree(address: u64, PIECE: usize)), OK);
    }
    let pool_of = |device: i32| {
        let mut pool = 0u64;
        let at = &raw mut pool;
        assert_eq!(cu!(session.libcuda, cuDeviceGetDefaultMemPool(at: *mut u64, device: i32)), OK);
        pool
    };
    let set = |pool: u64, of: AccessOf| {
        let of = &raw const of;
        cu!(session.libcuda, cuMemPoolSetAccess(pool: u64, of: *const AccessOf, 1: usize))
    };
    let get = |pool: u64, device| {
        let (mut flags, location) = (9u32, on(device));
        let (flags_at, location) = (&raw mut flags, &raw const location);
        assert_eq!(
            cu!(session.libcuda, cuMemPoolGetAccess(flags_at: *mut u32, pool: u64, location: *const Location)),
            OK
        );
        flags
    };
    let (first, second) = (pool_of(0), pool_of(1));
    assert_eq!(set(first, AccessOf(on(1), READ_WRITE)), NOT_SUPPORTED);
    assert_eq!((get(second, 0), get(second, 1)), (0, READ_WRITE));
    assert_eq!((set(second, AccessOf(on(0), READ_WRITE)), get(second, 0)), (OK, READ_WRITE));
    assert_eq!((set(second, AccessOf(on(0), READ)), get(second, 0)), (INVALID_DEVICE, READ_WRITE), "refused");
    assert_eq!((set(second, AccessOf(on(0), 0)), get(second, 0)), (OK, 0));
    // All that was queued has been seen by now.
    assert_eq!(session.seen_count("set access of the second"), told + 1);
    end(&session);
}

#[test]
fn a_librarys_variables_are_asked_for_once_in_each_other_context() {
    let session = two();
    let (mut library, image, null) = (0u64, c"image".as_ptr(), std::ptr::null::<c_void>());
    let at = &raw mut library;
    assert_eq!(
        cu!(session.libcuda, cuLibraryLoadData(at: *mut u64, image: *const i8, null: *const c_void, null: *const c_void,
            0: u32, null: *const c_void, null: *const c_void, 0: u32)),
        OK
    );
    let variable = || {
        let (mut address, mut bytes, name) = (0u64, 0usize, c"table".as_ptr());
        let (address_at, bytes_at) = (&raw mut address, &raw mut bytes);
        assert_eq!(
            cu!(session.libcuda, cuLibraryGetGlobal(address_at: *mut u64, bytes_at: *mut usize, library: u64, name: *const i8)),
            OK
        );
        assert_eq!(bytes, 64);
        address
    };
    let asked = || session.seen_count("image variables");
    let (before, own) = (asked(), variable());
    assert_eq!(asked(), before, "the load told");
    make_current(&session, 1);
    let there = variable();
    assert_eq!((there, variable(), asked()), (own + (1 << 20), there, before + 1));
    assert_eq!(ordinal(&session, there + 63), 1);
    make_current(&session, 0);
    assert_eq!((variable(), ordinal(&session, own)), (own, 0));
    // Another context of the same device has its own, which the program knows no more once it has ended.
    let mut created = 0u64;
    let at = &raw mut created;
    assert_eq!(cu!(session.libcuda, cuCtxCreate_v2(at: *mut u64, 0: u32, 0: i32)), OK);
    assert_eq!((variable(), variable(), asked()), (there, there, before + 2));
    assert_eq!(cu!(session.libcuda, cuCtxDestroy_v2(created: u64)), OK);
    make_current(&session, 1);
    assert_eq!((variable(), asked()), (there, before + 2));
    make_current(&session, 0);
    assert_eq!(cu!(session.libcuda, cuLibraryUnload(library: u64)), OK);
    let mut value = 0i32;
    let at = &raw mut value;
    assert_eq!(cu!(session.libcuda, cuPointerGetAttribute(at: *mut i32, 9: u32, there: u64)), INVALID_VALUE);
    end(&session);
}
