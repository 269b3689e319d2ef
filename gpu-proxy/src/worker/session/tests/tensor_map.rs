//! Maps of tensors: of memory of the process, and whole.

use vgpu_api::TensorSpec;
use vgpu_api::tensor_map::form;

use super::*;

#[test]
fn a_tensor_map_is_of_memory_of_the_process_and_whole() {
    let world = world();
    let address = ask::cuMemAlloc_v2(&world.guest, C, 4096).unwrap();
    let tiled = TensorSpec {
        form: form::TILED,
        data_type: 7,
        address,
        dims: vec![16, 16],
        strides: vec![64],
        element_strides: vec![1, 1],
        boxes: vec![8, 8],
        lower: vec![],
        upper: vec![],
        channels: 0,
        pixels: 0,
        interleave: 0,
        mode: 0,
        swizzle: 0,
        promotion: 0,
        fill: 0,
    };
    let encode = |spec: TensorSpec| ask::vgpuTensorMapEncode(&world.guest, C, spec);
    let map = encode(tiled.clone()).unwrap();
    let deep = TensorSpec {
        form: form::IM2COL,
        dims: vec![8; 4],
        strides: vec![64; 3],
        element_strides: vec![1; 4],
        boxes: vec![],
        lower: vec![-1; 2],
        upper: vec![1; 2],
        ..tiled.clone()
    };
    encode(deep.clone()).unwrap();
    encode(TensorSpec { form: form::IM2COL_WIDE, lower: vec![0], upper: vec![0], ..deep.clone() }).unwrap();
    for (wrong, why) in [
        (TensorSpec { form: 3, ..tiled.clone() }, "no form"),
        (TensorSpec { dims: vec![], ..tiled.clone() }, "no rank"),
        (TensorSpec { dims: vec![16; 3], ..tiled.clone() }, "another rank"),
        (TensorSpec { strides: vec![64; 2], ..tiled.clone() }, "strides"),
        (TensorSpec { element_strides: vec![1; 3], ..tiled.clone() }, "element strides"),
        (TensorSpec { boxes: vec![8], ..tiled.clone() }, "boxes"),
        (TensorSpec { lower: vec![0], ..tiled.clone() }, "corners"),
        (TensorSpec { lower: vec![0; 3], ..deep.clone() }, "corners"),
        (TensorSpec { form: form::IM2COL_WIDE, ..deep.clone() }, "corners"),
        (TensorSpec { address: DevicePtr(address.0 + 4096), ..tiled.clone() }, "past the end"),
        (TensorSpec { address: DevicePtr(std::ptr::from_ref(&world) as u64), ..tiled.clone() }, "a host's"),
    ] {
        assert_eq!(encode(wrong), Err(CuError::INVALID_VALUE), "{why}");
    }
    let moved = |address| ask::cuTensorMapReplaceAddress(&world.guest, C, map, address);
    assert_eq!(moved(address), Ok(map));
    assert_eq!(moved(DevicePtr(address.0 + 4096)), Err(CuError::INVALID_VALUE));
    let soft = world_of(Soft::new(1 << 20).unwrap(), 1 << 20);
    let address = ask::cuMemAlloc_v2(&soft.guest, C, 4096).unwrap();
    let refused = ask::vgpuTensorMapEncode(&soft.guest, C, TensorSpec { address, ..tiled });
    assert_eq!(refused, Err(CuError::NOT_SUPPORTED));
}
