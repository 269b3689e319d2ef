//! Whose libcuda a worker takes.

#[path = "cuda_driver/aside.rs"]
mod aside;
#[path = "cuda_driver/conditionals.rs"]
mod conditionals;
#[path = "cuda_driver/green.rs"]
mod green;
#[path = "cuda_driver/references.rs"]
mod references;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use gpu_proxy::device::{
    self, Device, DeviceKind, DeviceNode, DeviceWork, Exported, HostPages, Place, Raw, Shareable, Side,
    TexelSource, TextureSource,
};
use idm::arena::{Arena, WINDOW};
use vgpu_api::graph::{Body, CopyBox, GraphEdge, HostSide};
use vgpu_api::texture::{PitchedTexels, Sampler, View};
use vgpu_api::{Access, ArrayShape, CuError, CuResult, DevicePtr, Extent, ImageKind, LinearPlace, Memset};

/// The driver, which goes on to say to the test what it is given: a device keeps what is printed for its guest.
fn opened(devices: u32) -> Result<Box<dyn Device>, String> {
    let test = rustix::io::dup(rustix::stdio::stdout()).unwrap();
    let opened = device::open(DeviceKind::Cuda, devices, 1 << 30);
    rustix::stdio::dup2_stdout(&test).unwrap();
    opened
}

/// Not a test of its own: opens the driver that the library path leads to, and says what came of it.
#[test]
#[ignore = "played by the tests here as their child"]
fn child() {
    let mut device = match opened(1) {
        Ok(device) => device,
        Err(why) => return println!("{why}"),
    };
    println!("opened; {:?}", device.costs());
    let snapshot = device.snapshot(&[1 << 30]);
    let attribute = |number: usize| snapshot.devices[0].attributes[number];
    println!("memory {}, attributes {} {}", snapshot.devices[0].total_memory, attribute(1), attribute(99));
    let primary = device.context_create(0, 0, true).unwrap();
    let other = device.context_create(0, 0, false).unwrap();
    graphs(&mut *device, primary, other);
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

/// What the driver of `data/driver.c` is told of a graph.
fn graphs(device: &mut dyn Device, primary: Raw, other: Raw) {
    let edge = |from, kind| GraphEdge { from, from_port: kind, to_port: 0, kind };
    let (one, both) = ([edge(0, 0)], [edge(0, 0), edge(1, 1)]);
    let memset = |value| {
        DeviceWork::Fill(Memset { dst: DevicePtr(16), pitch: 8, element_bytes: 4, value, width: 1, rows: 2 })
    };
    let line = CopyBox::line(DevicePtr(0x1000), DevicePtr(0x2000), 8);
    let to_arena = CopyBox::line(DevicePtr(WINDOW as u64), DevicePtr(0x2000), 8);
    let nodes = |value| {
        [
            DeviceNode { context: primary, body: Body::NONE, needs: &[], work: memset(value) },
            DeviceNode {
                context: other,
                body: Body::NONE,
                needs: &one,
                work: DeviceWork::Copy(line, HostSide::Neither),
            },
            DeviceNode { context: primary, body: Body::NONE, needs: &both, work: DeviceWork::Empty },
            DeviceNode {
                context: primary,
                body: Body::NONE,
                needs: &one,
                work: DeviceWork::Copy(to_arena, HostSide::From),
            },
        ]
    };
    let place = Place { context: primary, stream: None };
    let graph = device.graph_instantiate(&nodes(7), 8).unwrap();
    device.graph_put(graph, 3, 0, b"host").unwrap();
    assert!(device.graph_put(graph, 3, 6, b"host").is_err());
    assert!(device.graph_put(graph, 0, 0, b"host").is_err());
    device.graph_launch(place, graph).unwrap();
    device.graph_set(graph, 0, primary, &memset(9)).unwrap();
    assert!(device.graph_set(graph, 4, primary, &memset(9)).is_err());
    device.graph_enable(graph, 1, false).unwrap();
    device.graph_update(graph, &nodes(10)).unwrap();
    device.graph_set(graph, 0, primary, &memset(12)).unwrap();
    device.graph_enable(graph, 1, true).unwrap();
    assert!(device.graph_update(graph, &nodes(11)).is_err());
    device.graph_launch(place, graph).unwrap();
    device.graph_destroy(graph).unwrap();
    assert!(device.graph_launch(place, graph).is_err());
    println!("one that cannot be built");
    let event = device.event_create(primary, 0).unwrap();
    let wait = DeviceNode { context: primary, body: Body::NONE, needs: &[], work: DeviceWork::Wait(event) };
    assert!(device.graph_instantiate(&[wait], 0).is_err());
}

/// The same for memory that other workers may have.
#[test]
#[ignore = "played by the tests here as their child"]
fn shared_child() {
    let mut device = opened(1).unwrap();
    let context = device.context_create(0, 0, true).unwrap();
    println!(
        "takes {:?}",
        [8, (2 << 20) - 1, 2 << 20, (5 << 20) + 4, u64::MAX].map(|bytes| device.allocation_bytes(bytes))
    );
    let at = device.alloc(context, (5 << 20) + 4).unwrap();
    let growth = [8, (2 << 20) - 512, (2 << 20) - 511].map(|bytes| device.piece_growth(context, bytes));
    let small = device.alloc(context, 8).unwrap();
    println!("allocated at {at:x}, small at {small:x}, which takes {growth:?}");
    println!("then {:?}, in pieces {}", device.piece_growth(context, 8), device.pieces_bytes(0));
    let Exported::Device(fd) = device.export(Shareable::Allocation(at)).unwrap() else {
        panic!("no descriptor")
    };
    println!("small {:?}", device.export(Shareable::Allocation(small)).is_ok());
    println!("none {:?}", device.export(Shareable::Allocation(0x1000)).err());
    let memory = device.import(0, fd, 6 << 20).unwrap();
    device.release(memory).unwrap();
    device.free(context, at).unwrap();
    println!("refused {:?}", device.alloc(context, 8 << 20));
    println!("freed {:?}", device.export(Shareable::Allocation(at)).err());
    println!("kept {:?}", device.alloc(context, 10 << 20));
    println!("which counts: {}", device.pieces_bytes(0));
    device.free(context, small).unwrap();
    println!("pieces there: {:?}", [small, at].map(|start| device.has_piece(start)));
}

/// The same for arrays and textures: the driver of the test says what it was given.
#[test]
#[ignore = "played by the tests here as their child"]
fn array_child() {
    let mut device = opened(1).unwrap();
    let context = device.context_create(0, 0, true).unwrap();
    let shape = ArrayShape { width: 16, height: 8, depth: 4, format: 0x20, channels: 2, flags: 2 };
    println!("needs {:?}", device.array_bytes(context, &shape, 1));
    println!("and with levels {:?}", device.array_bytes(context, &shape, 3));
    let array = device.array_create(context, &shape).unwrap();
    let (place, size) = (Place { context, stream: None }, Extent { width_bytes: 32, height: 2, depth: 2 });
    device.array_write(place, (array, [8, 1, 2]), size, &[0; 128]).unwrap();
    device.array_read(place, (array, [16, 2, 1]), size, &mut [0; 128]).unwrap();
    let rows = Side::Linear(LinearPlace { at: DevicePtr(0xabc), pitch: 64, height: 9 });
    device.copy_box(place, rows, Side::Array(array, [0, 3, 0]), size).unwrap();
    let sampler = Sampler {
        address: [1, 2, 3],
        filter: 1,
        flags: 2,
        anisotropy_max: 16,
        mip_filter: 1,
        mip_bias: 0.5,
        level_min: 1.5,
        level_max: 2.5,
        border: [4.5_f32.to_bits(), 0, 0, 5.5_f32.to_bits()],
    };
    let view = View { format: 1, width: 16, height: 8, depth: 4, levels: [0, 3], layers: [5, 6] };
    let texture = TextureSource { texels: TexelSource::Array(array), sampler, view: Some(view) };
    println!("number {:?}", device.texture_create(context, &texture).unwrap());
    let texels =
        PitchedTexels { at: DevicePtr(0xdef), format: 0x20, channels: 4, width: 7, height: 6, pitch: 112 };
    let texture = TextureSource { texels: TexelSource::Pitched(texels), sampler, view: None };
    device.texture_create(context, &texture).unwrap();
    println!("number {:?}", device.surface_create(context, array).unwrap());
    device.array_destroy(context, array).unwrap();
    println!("then {:?}", device.array_destroy(context, array));
}

/// The same for several devices.
#[test]
#[ignore = "played by the tests here as their child"]
fn several_child() {
    println!("of three: {}", opened(3).unwrap_err());
    let mut device = opened(2).unwrap();
    let snapshot = device.snapshot(&[1000, 3000]);
    let seen: Vec<_> = snapshot.devices.iter().map(|one| (one.pci.bus, one.total_memory)).collect();
    println!("seen {seen:?}, peers {} {}", snapshot.peer(2, 0, 1), snapshot.peer(5, 1, 0));
    let described = device::describe(DeviceKind::Cuda, 1, 1 << 30).unwrap();
    let names: Vec<_> = described.hardware.iter().map(|one| (one.name(), one.pci)).collect();
    println!("described {names:?}, of {}", described.snapshot.devices.len());
    let [first, second] = [0, 1].map(|number| device.context_create(number, 0, true).unwrap());
    let other = device.context_create(1, 0, false).unwrap();
    println!("no third: {:?}", device.context_create(2, 0, true));
    println!("allocated {:x?}", [first, second, other].map(|context| device.alloc(context, 8).unwrap()));
    let large = device.alloc(second, 4 << 20).unwrap();
    device.peer_enable(first, second).unwrap();
    device.peer_enable(other, first).unwrap();
    // What is there and what comes; once for both contexts of a device.
    device.free(second, large).unwrap();
    let large = device.alloc(first, 6 << 20).unwrap();
    device.peer_enable(second, first).unwrap();
    device.peer_disable(other, first).unwrap();
    println!("one is left");
    device.peer_disable(second, first).unwrap();
    device.free(first, large).unwrap();
    device.peer_disable(first, second).unwrap();
    let place = Place { context: second, stream: None };
    device.copy_between(place, (0x3000, 1), (0x1000, 0), 24).unwrap();
    println!("no third: {:?}", device.copy_between(place, (0x3000, 2), (0x1000, 0), 24));
    device.create(1, 2 << 20).unwrap();
    device.set_access(0, 0xa000, 2 << 20, Access::Read).unwrap();
    println!("takes {:?}", device.allocation_bytes((2 << 20) + 1));
    println!("no third: {:?} {:?}", device.create(2, 2 << 20), device.set_access(2, 0, 1, Access::Read));
    let text = b".version 7.0\n.target sm_70\n.address_size 64\n.visible .global .align 4 .u32 word = 7;\n";
    let survey = device.survey(text).unwrap();
    let library = device.load(None, ImageKind::Library, text, survey).unwrap();
    println!(
        "a variable at {:x?}",
        library.globals.iter().map(|global| global.address.0).collect::<Vec<_>>()
    );
    println!(
        "and at {:x?}, {:x?}",
        device.load_on(second, library.raw).unwrap(),
        device.load_on(first, library.raw).unwrap()
    );
}

fn open_with(library_path: &Path) -> String {
    played("child", library_path)
}

fn played(test: &str, library_path: &Path) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "--ignored", test, "--nocapture"]).env("LD_LIBRARY_PATH", library_path);
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
        "opened; Costs { context_bytes: 543162368, green_bytes: 33554432, resident_threads: 270336, graph_node_bytes: 4096, graph_row_bytes: 131072, graphs_are_kept: true }",
        // Threads of a block: as the driver says. Registration of host memory: it does not travel.
        "memory 2000, attributes 1 0",
        // Small allocations of a context are parts of one piece.
        "allocated at [50000000, 50200000, 50000200], MemInfo { free: 1000, total: 2000 }",
        "then 50000400, Err(",
        // Registered once, in one piece, where the device has the same address and nowhere else.
        "pinned [0, 712] [0, 1], moved 801, elsewhere 801",
    ] {
        assert!(said.contains(part), "{part} is missing in: {said}");
    }
}

#[test]
fn a_driver_gets_a_graph_node_by_node_and_loses_none() {
    let folder = tempfile::tempdir().unwrap();
    library(folder.path(), include_str!("data/driver.c"));
    let said = open_with(folder.path());
    let graph: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("driver: ")).collect();
    let built = |first: u32, value: u32| {
        let node = |place: u32| format!("{:#x}", first + place);
        vec![
            "graph made".to_owned(),
            format!("set 10 8 {value} 4 1 2"),
            format!("node {}: set after in the primary context", node(0)),
            "copy 2 2000 8 1 to 2 1000 8 1: 8 1 1".to_owned(),
            format!("node {}: copy after {} in the other context", node(1), node(0)),
            format!("node {}: nothing after {} in the primary context", node(2), node(0)),
            format!("edge {} {} 1 0 1", node(1), node(2)),
            // Pages of the arena are host memory to the driver: the address says so.
            "copy 1 0 8 1 to 4 680000000000 8 1: 8 1 1".to_owned(),
            format!("node {}: copy after {} in the primary context", node(3), node(0)),
        ]
    };
    let lines = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let expected = [
        built(0x100, 7),
        lines(&["instantiated 8", "launched with host", "node 0x100 sets 9", "node 0x101 is 0"]),
        built(0x104, 10),
        // Nodes keep the names that they were instantiated by.
        lines(&["updated", "graph ended", "node 0x100 sets 12", "node 0x101 is 1"]),
        built(0x108, 11),
        lines(&["updated", "graph ended", "launched with host", "exec ended", "graph ended"]),
        lines(&["graph made", "graph ended"]),
    ]
    .concat();
    assert_eq!(graph, expected);
}

#[test]
fn several_devices_of_a_driver_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    library(folder.path(), include_str!("data/driver.c"));
    let said = played("several_child", folder.path());
    for part in [
        "of three: there are 2 NVIDIA devices, 3 are wanted\n",
        "seen [(1, 1000), (2, 2000)], peers 201 510\n",
        // What is described is all that there is.
        "described [(\"GPU-00000000-0000-0000-0000-000000000010\", [1, 1, 1]), (\"GPU-00000000-0000-0000-0000-000000000011\", [1, 1, 1])], of 2\n",
        "vmm: access 3 of 1 to 2097152 at 50400000\nallocated [50000000, 50200000, 50400000]\n",
        // An allocation or piece is opened to its own device, and to those that reach its context.
        "vmm: create 4 of 4194304 on 1, types 1\nvmm: reserve 4194304\nvmm: map 4194304 of 4 at 40000000\n\
         vmm: access 3 of 1 to 4194304 at 40000000\ndriver: the first reaches the second 0\n\
         vmm: access 3 of 0 to 4194304 at 40000000\nvmm: access 3 of 0 to 2097152 at 50200000\n\
         driver: another reaches the first 0\nvmm: access 3 of 1 to 2097152 at 50000000\n",
        "vmm: create 5 of 6291456 on 0, types 1\nvmm: reserve 6291456\nvmm: map 6291456 of 5 at 40000000\n\
         vmm: access 3 of 0 to 6291456 at 40000000\nvmm: access 3 of 1 to 6291456 at 40000000\n\
         driver: the second reaches the first 0\ndriver: another leaves the first\none is left\n\
         driver: the second leaves the first\nvmm: access 0 of 1 to 6291456 at 40000000\n\
         vmm: access 0 of 1 to 2097152 at 50000000\nvmm: unmap",
        "driver: the first leaves the second\nvmm: access 0 of 0 to 2097152 at 50200000\ndriver: 24 bytes",
        "driver: 24 bytes from 1000 of the first to 3000 of the second in the second\nno third: Err(CUDA_ERROR_INVALID_DEVICE (101))\n",
        "vmm: create 6 of 2097152 on 1, types 1\nvmm: access 1 of 0 to 2097152 at a000\ntakes Some(4194304)\nno third: Err(CUDA_ERROR_INVALID_DEVICE (101)) Err(CUDA_ERROR_INVALID_DEVICE (101))\n",
        "a variable at [8000]\nand at [9000], [8000]\n",
    ] {
        assert!(said.contains(part), "{part} is missing in: {said}");
    }
}

#[test]
fn allocations_are_mapped_so_that_other_workers_can_have_them() {
    let folder = tempfile::tempdir().unwrap();
    library(folder.path(), include_str!("data/driver.c"));
    let said = played("shared_child", folder.path());
    let lines: Vec<&str> = said.lines().skip_while(|line| !line.starts_with("takes")).collect();
    let expected = [
        "takes [Some(512), Some(2097152), Some(2097152), Some(6291456), None]",
        "vmm: create 1 of 6291456 on 0, types 1",
        "vmm: reserve 6291456",
        "vmm: map 6291456 of 1 at 40000000",
        "vmm: access 3 of 0 to 6291456 at 40000000",
        "vmm: create 2 of 2097152 on 0, types 1",
        "vmm: reserve 2097152",
        "vmm: map 2097152 of 2 at 50000000",
        "vmm: access 3 of 0 to 2097152 at 50000000",
        "allocated at 40000000, small at 50000000, which takes [Some(2097152), Some(2097152), None]",
        "then Some(0), in pieces 2097152",
        "vmm: export 1 as 1",
        "vmm: export 2 as 1",
        "small true",
        "none Some(CUDA_ERROR_NOT_SUPPORTED (801))",
        "vmm: import 3 as 1, open",
        "vmm: release 3",
        "vmm: unmap 6291456 at 40000000",
        "vmm: release 1",
        "vmm: unreserve 6291456 at 40000000",
        // Nothing stays of what could not be had whole.
        "vmm: create 4 of 8388608 on 0, types 1",
        "vmm: reserve 8388608",
        "vmm: map 8388608 of 4 at 40000000",
        "vmm: access 3 of 0 to 8388608 at 40000000",
        "vmm: unmap 8388608 at 40000000",
        "vmm: unreserve 8388608 at 40000000",
        "vmm: release 4",
        "refused Err(CUDA_ERROR_INVALID_VALUE (1))",
        "freed Some(CUDA_ERROR_NOT_SUPPORTED (801))",
        // But for what the driver does not let go of.
        "vmm: create 5 of 10485760 on 0, types 1",
        "vmm: reserve 10485760",
        "vmm: map 10485760 of 5 at 40000000",
        "vmm: access 3 of 0 to 10485760 at 40000000",
        "vmm: unmap 10485760 at 40000000",
        "vmm: unreserve 10485760 at 40000000",
        "vmm: release 5",
        "kept Err(CUDA_ERROR_INVALID_VALUE (1))",
        "which counts: 12582912",
        // One more than what is used needs stays.
        "pieces there: [true, false]",
    ];
    assert_eq!(lines[..expected.len()], expected);
}

#[test]
fn arrays_and_textures_reach_a_driver_field_by_field() {
    let folder = tempfile::tempdir().unwrap();
    library(folder.path(), include_str!("data/driver.c"));
    let said = played("array_child", folder.path());
    for part in [
        // Asked for without memory, ended, then made.
        "array 16 8 4 format 32 channels 2 flags 130\narray 0x7000 destroyed, 0 live\nneeds Ok(65536)",
        "and with levels Ok(0)",
        "array 16 8 4 format 32 channels 2 flags 2\n",
        "copy from 0 0 0 kind 1 host 1 device 0 array (nil) pitch 32 2, \
         to 8 1 2 kind 3 host 0 device 0 array 0x7000 pitch 0 0, size 32 2 2",
        "copy from 16 2 1 kind 3 host 0 device 0 array 0x7000 pitch 0 0, \
         to 0 0 0 kind 1 host 1 device 0 array (nil) pitch 32 2, size 32 2 2",
        "copy from 0 3 0 kind 3 host 0 device 0 array 0x7000 pitch 0 0, \
         to 0 0 0 kind 2 host 0 device abc array (nil) pitch 64 9, size 32 2 2",
        "texture of 0x7000, address 1 2 3 filter 1 flags 2 16 1, 0.5 1.5 2.5, border 4.5 5.5, view 1 8 3 5\n",
        "number Object(77)",
        "texture at def format 32 channels 4 7 6 112, address 1 2 3 filter 1 flags 2 16 1, 0.5 1.5 2.5, \
         border 4.5 5.5, view 0 0 0 0\n",
        "surface of 0x7000\nnumber Object(78)",
        "then Err(",
    ] {
        assert!(said.contains(part), "{part} is missing in: {said}");
    }
}
