//! Whose libcuda a worker takes.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use gpu_proxy::device::{self, DeviceKind, HostPages};
use idm::arena::{Arena, WINDOW};
use vgpu_api::{CuError, CuResult};

/// Not a test of its own: opens the driver that the library path leads to, and says what came of it.
#[test]
#[ignore = "played by the tests here as their child"]
fn child() {
    let mut device = match device::open(DeviceKind::Cuda, 1 << 30) {
        Ok(device) => device,
        Err(why) => return println!("{why}"),
    };
    println!("opened; {:?}", device.costs());
    let snapshot = device.snapshot(1 << 30);
    let attribute = |number: usize| snapshot.devices[0].attributes[number];
    println!("memory {}, attributes {} {}", snapshot.devices[0].total_memory, attribute(1), attribute(99));
    let primary = device.context_create(0, 0, true).unwrap();
    let other = device.context_create(0, 0, false).unwrap();
    let places = [primary, other, primary].map(|context| device.alloc(context, 8).unwrap());
    println!("allocated at {places:x?}, {:?}", device.memory(primary).unwrap());
    device.context_destroy(0, other, false).unwrap();
    println!("then {:x?}, {:?}", device.alloc(primary, 8).unwrap(), device.alloc(other, 8));

    let arena = Arena::make(1 << 20).unwrap();
    let [here, elsewhere] = [arena.map(), arena.map_elsewhere()].map(|region| Arc::new(region.unwrap()));
    let (at, code) = (WINDOW as u64, |result: CuResult<()>| result.map_or_else(CuError::code, |()| 0));
    let pages = |region, bytes| HostPages::of(region, at, bytes).unwrap();
    let moved = code(device.pin(pages(&here, 8192)));
    let once = [device.pin(pages(&here, 4096)), device.pin(pages(&here, 4096))].map(code);
    let never = code(device.pin(pages(&elsewhere, 4096)));
    let ended = [device.unpin(at), device.unpin(at)].map(code);
    println!("pinned {once:?} {ended:?}, moved {moved}, elsewhere {never}");
}

fn open_with(library_path: &Path) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "--ignored", "child", "--nocapture"]).env("LD_LIBRARY_PATH", library_path);
    String::from_utf8(child.output().unwrap().stdout).unwrap()
}

fn library(folder: &Path, source: &str) {
    std::fs::write(folder.join("fake.c"), source).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o", "libcuda.so.1", "fake.c"])
        .current_dir(folder)
        .status();
    assert!(built.unwrap().success());
}

#[test]
fn our_own_library_in_the_drivers_place_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    library(folder.path(), "unsigned long vgpu_is_shim = 1; int cuInit(unsigned f) { return 0; }");
    assert!(open_with(folder.path()).contains("vgpu's own library"), "{}", open_with(folder.path()));
}

#[test]
fn our_own_library_is_passed_over_for_the_driver_behind_it() {
    let (ours, drivers) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    library(ours.path(), "unsigned long vgpu_is_shim = 1; int cuInit(unsigned f) { return 0; }");
    library(drivers.path(), "int cuInit(unsigned f) { return 0; }");
    let path = std::env::join_paths([ours.path(), drivers.path()]).unwrap();
    // As far as this driver of the test goes.
    assert!(
        open_with(Path::new(&path)).contains("lacks cuDriverGetVersion"),
        "{}",
        open_with(Path::new(&path))
    );
}

#[test]
fn an_old_driver_is_named_by_what_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    library(folder.path(), "int cuInit(unsigned f) { return 0; }");
    assert!(open_with(folder.path()).contains("lacks cuDriverGetVersion"), "{}", open_with(folder.path()));
}

#[test]
fn without_a_driver_the_message_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let said = open_with(folder.path());
    assert!(said.contains("is NVIDIA's driver installed?") || said.contains("opened"), "{said}");
}

#[test]
fn a_driver_is_used_in_the_right_context_and_shows_what_travels() {
    let folder = tempfile::tempdir().unwrap();
    library(folder.path(), include_str!("data/driver.c"));
    let said = open_with(folder.path());
    for part in [
        "opened; Costs { context_bytes: 543162368, resident_threads: 270336 }",
        // Threads of a block: as the driver says. Registration of host memory: it does not travel.
        "memory 2000, attributes 1 0",
        "allocated at [1000, 2000, 1000], MemInfo { free: 1000, total: 2000 }",
        "then 1000, Err(",
        // Registered once, in one piece, where the device has the same address and nowhere else.
        "pinned [0, 712] [0, 1], moved 801, elsewhere 801",
    ] {
        assert!(said.contains(part), "{part} is missing in: {said}");
    }
}
