//! What a driver is told of green contexts.

use gpu_proxy::device::{DeviceNode, DeviceWork};
use vgpu_api::graph::{Body, CopyBox, HostSide};
use vgpu_api::{DevicePtr, SmSplit};

use super::{library, opened, played};

/// Not a test of its own: says what came of each call.
#[test]
#[ignore = "played by the tests here as their child"]
fn child() {
    let mut device = opened(1).unwrap();
    let context = device.context_create(0, 0, true).unwrap();
    let split = SmSplit { groups: 0, flags: 0, count_min: 0 };
    let (green, _) = device.green_create(0, None, split, &[]).unwrap();
    let line = CopyBox::line(DevicePtr(0x2000), DevicePtr(0), 8);
    let work = DeviceWork::Copy(line, HostSide::From);
    let graph = device.graph_instantiate(&[DeviceNode { context, body: Body::NONE, needs: &[], work }], 0);
    // For the end of what its launches read all contexts are waited for.
    device.graph_destroy(graph.unwrap()).unwrap();
    println!("of it {:?}", device.sm_resource(0, Some(green)).map(drop));
    println!("ended {:?} {:?}", device.green_destroy(green), device.green_destroy(green));
}

#[test]
fn a_green_context_is_no_context_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    library(folder.path(), concat!(include_str!("../data/driver.c"), include_str!("../data/green.c")));
    let said = played("green::child", folder.path());
    let lines: Vec<&str> = said.lines().skip_while(|line| !line.starts_with("driver: exec ended")).collect();
    let expected = [
        "driver: exec ended",
        "driver: graph ended",
        "of it Ok(())",
        "driver: green context ended, 1",
        "ended Ok(()) Err(CUDA_ERROR_INVALID_CONTEXT (201))",
    ];
    assert_eq!(lines[..expected.len()], expected);
    assert!(!said.contains("no context was made current"), "{said}");
}
