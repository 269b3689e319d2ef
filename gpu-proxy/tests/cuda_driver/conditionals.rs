//! What a driver is told of graphs with conditional nodes.

use gpu_proxy::device::{DeviceNode, DeviceWork};
use vgpu_api::DevicePtr;
use vgpu_api::graph::{Body, Conditional, CopyBox, GraphEdge, HostSide};

use super::{library, opened, played};

/// Not a test of its own: says what came of each call.
#[test]
#[ignore = "played by the tests here as their child"]
fn child() {
    let mut device = opened(1).unwrap();
    let context = device.context_create(0, 0, true).unwrap();
    let (of, handle) = device.conditional_create(context, None, 1, 1).unwrap();
    let conditional = Conditional { graph: 1, handle, flavor: Conditional::IF, bodies: 1 };
    let unknown = [GraphEdge { from: 0, from_port: 0, to_port: 0, kind: 2 }];
    let node = |needs, work| DeviceNode { context, body: Body::NONE, needs, work };
    let choice = || node(&[], DeviceWork::Conditional { of, conditional });
    let copy = |needs| {
        let line = CopyBox::line(DevicePtr(0), DevicePtr(0x2000), 8);
        node(needs, DeviceWork::Copy(line, HostSide::To))
    };
    println!("refused {:?}", device.graph_instantiate(&[choice(), copy(&unknown)], 0).err());
    println!("then {:?}", device.graph_instantiate(&[choice()], 0).err());
    println!("and {:?}", device.graph_instantiate(&[choice(), copy(&[])], 0).err());
    device.conditionals_destroy(of).unwrap();

    let (of, handle) = device.conditional_create(context, None, 1, 1).unwrap();
    let conditional = Conditional { handle, ..conditional };
    let choice = node(&[], DeviceWork::Conditional { of, conditional });
    println!("another {:?}", device.graph_instantiate(&[choice, copy(&[])], 0).err());
}

/// What it was to write to is freed: a launch of it would write there.
#[test]
fn nothing_is_made_of_a_graph_that_may_have_a_node_which_the_driver_refused() {
    let folder = tempfile::tempdir().unwrap();
    library(folder.path(), concat!(include_str!("../data/driver.c"), include_str!("../data/conditionals.c")));
    let said = played("conditionals::child", folder.path());
    let lines: Vec<&str> = said.lines().skip_while(|line| !line.starts_with("driver: graph made")).collect();
    let expected = [
        "driver: graph made",
        "driver: node 0x100: choice after in the primary context",
        "driver: copy 2 2000 8 1 to 1 0 8 1: 8 1 1",
        "driver: node 0x101: copy after in the primary context",
        "driver: edge 0x100 0x101 0 0 2",
        "refused Some(CUDA_ERROR_INVALID_VALUE (1))",
        "then Some(CUDA_ERROR_NOT_SUPPORTED (801))",
        "and Some(CUDA_ERROR_NOT_SUPPORTED (801))",
        "driver: graph ended",
        "driver: graph made",
        "driver: node 0x102: choice after in the primary context",
        "driver: copy 2 2000 8 1 to 1 0 8 1: 8 1 1",
        "driver: node 0x103: copy after in the primary context",
        "driver: instantiated 0",
        "another None",
    ];
    assert_eq!(lines[..expected.len()], expected);
}
