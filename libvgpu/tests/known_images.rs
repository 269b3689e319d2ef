//! Images whose bytes the process has loaded before: they do not travel again, and what is known of them is not asked for again.

mod support;

use std::ffi::CString;

use support::calls::Calls;
use support::session::{Session, session};

const OK: u32 = 0;
const INVALID_HANDLE: u32 = 400;
/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`.
const MAX_DYNAMIC_SHARED: u32 = 8;

fn uploads(session: &Session) -> usize {
    session.seen.lock().unwrap().uploads.len()
}

#[test]
fn an_image_that_was_loaded_before_is_loaded_again_without_a_reply() {
    let session = session();
    let image = c".version 8.0 constant lazy again";
    let first = session.load(image);
    let (uploaded, again) = (uploads(&session), session.seen_count("image load again"));
    let fill = session.function(first, c"fill");
    assert_eq!(session.waits(|| assert_eq!(session.function_attribute(0, fill), 1024)), 1);
    assert_eq!(cu!(session.libcuda, cuFuncSetAttribute(fill: u64, MAX_DYNAMIC_SHARED: u32, 65_536: i32)), OK);
    for unloaded in [false, true] {
        if unloaded {
            session.unload(first);
        }
        let waits = session.waits(|| {
            let module = session.load(image);
            assert_ne!(module, first);
            let fill = session.function(module, c"fill");
            assert_eq!(session.function_attribute(0, fill), 1024);
            assert_eq!(session.function_attribute(MAX_DYNAMIC_SHARED, fill), 49_152, "set of the other one");
            session.launch_fill(fill, 0);
            session.unload(module);
            let null = 0u64;
            assert_eq!(
                cu!(session.libcuda, cuLaunchKernel(fill: u64, 1: u32, 1: u32, 1: u32, 1: u32, 1: u32, 1: u32, 0: u32,
                    null: u64, null: u64, null: u64)),
                INVALID_HANDLE
            );
        });
        assert_eq!(waits, 0, "unloaded: {unloaded}");
    }
    assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), OK);
    assert_eq!(uploads(&session), uploaded);
    assert_eq!(session.seen_count("image load again"), again + 2);
}

#[test]
fn attributes_that_were_set_before_they_were_known_stay_with_their_load() {
    let session = session();
    let image = c".version 8.0 constant lazy set";
    let (first, second) = (session.load(image), session.load(image));
    let [set, other] = [first, second].map(|module| session.function(module, c"fill"));
    // A carveout: nothing has to be known for it.
    assert_eq!(cu!(session.libcuda, cuFuncSetAttribute(set: u64, 9: u32, 50: i32)), OK);
    assert_eq!(session.waits(|| assert_eq!(session.function_attribute(0, set), 1024)), 1);
    assert_eq!(
        session.waits(|| assert_eq!(session.function_attribute(0, other), 1024)),
        1,
        "not the other one's"
    );
    [first, second].into_iter().for_each(|module| session.unload(module));
}

#[test]
fn variables_have_addresses_of_their_own_and_are_waited_for_without_an_upload() {
    let session = session();
    let first = session.load(c".version 8.0 with a variable");
    let uploaded = uploads(&session);
    let waits = session.waits(|| {
        let second = session.load(c".version 8.0 with a variable");
        session.unload(second);
    });
    assert_eq!((waits, uploads(&session)), (1, uploaded));
    session.unload(first);
}

#[test]
fn an_image_that_is_too_large_to_keep_travels_again_and_the_oldest_go_first() {
    let session = session();
    let image = |length: usize, name: &str| {
        CString::new(format!(".version 8.0 constant {name} {}", "-".repeat(length))).unwrap()
    };
    let load = |image: &CString| {
        let before = uploads(&session);
        session.unload(session.load(image));
        uploads(&session) - before
    };
    let (large, first) = (image(1 << 20, "large"), image(900 << 10, "first"));
    assert_eq!([load(&large), load(&large)], [1, 1]);
    assert_eq!([load(&first), load(&first)], [1, 0]);
    // 16 MiB are kept.
    for number in 0..18 {
        assert_eq!(load(&image(900 << 10, &number.to_string())), 1);
    }
    assert_eq!(load(&first), 1, "it had to go");
    // And 256 of them.
    for number in 0..256 {
        assert_eq!(load(&image(0, &format!("small {number}"))), 1);
    }
    assert_eq!(load(&image(0, "small 1")), 0);
    assert_eq!(load(&first), 1, "it had to go");
    assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), OK);
}
