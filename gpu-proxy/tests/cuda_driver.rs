//! Whose libcuda a worker takes.

use std::path::Path;
use std::process::Command;

use gpu_proxy::device::{self, DeviceKind};

const ROLE: &str = "VGPU_TEST_OPEN";

/// Not a test of its own: opens the driver that the library path leads to, and says what came of it.
#[test]
fn child() {
    if std::env::var_os(ROLE).is_some() {
        println!(
            "{}",
            device::open(DeviceKind::Cuda, 1 << 30).map(|_| "opened".to_owned()).unwrap_or_else(|why| why)
        );
    }
}

fn open_with(library_path: &Path) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "child", "--nocapture"]).env(ROLE, "1").env("LD_LIBRARY_PATH", library_path);
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
