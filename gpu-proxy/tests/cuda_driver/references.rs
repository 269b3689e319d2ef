//! What a driver is told of texture and surface references, and what is done where it has none of that.

use gpu_proxy::device::{Raw, TexelSource};
use vgpu_api::texture::{LinearTexels, PitchedTexels};
use vgpu_api::{ArrayShape, DevicePtr, ImageKind, SamplerField, SamplerSetting};

use super::{library, opened, played};

const TEXT: &[u8] = b".version 7.0\n.target sm_70\n.address_size 64\n.global .texref picture;\n";
const SHAPE: ArrayShape = ArrayShape { width: 16, height: 8, depth: 0, format: 0x20, channels: 1, flags: 2 };

/// Not a test of its own: says what came of each call.
#[test]
#[ignore = "played by the tests here as their child"]
fn child() {
    let mut device = opened(1).unwrap();
    let context = device.context_create(0, 0, true).unwrap();
    let other = device.context_create(0, 0, false).unwrap();
    let mut load = |kind| {
        let survey = device.survey(TEXT).unwrap();
        device.load(Some(context), kind, TEXT, survey).unwrap().raw
    };
    let (module, of_library) = (load(ImageKind::Module), load(ImageKind::Library));
    println!("no module: {:?}", device.texref_of(context, of_library, "picture"));
    println!("not there: {:?}", device.texref_of(context, module, "nobody"));
    println!("no name: {:?}", device.texref_of(context, module, "a\0b"));
    let created = device.texref_create(other);
    println!("created {:?}", created.map(drop));
    let (Ok(texref), Ok(surfref), Ok(created)) =
        (device.texref_of(context, module, "picture"), device.surfref_of(context, module, "canvas"), created)
    else {
        return;
    };
    let array = device.array_create(context, &SHAPE).unwrap();
    let mipmap = device.mipmap_create(context, &SHAPE, 2).unwrap();
    let row = |at| TexelSource::Linear(LinearTexels { at: DevicePtr(at), format: 9, channels: 9, bytes: 70 });
    let at = DevicePtr(0xde0);
    let rows = PitchedTexels { at, format: 0x20, channels: 4, width: 7, height: 6, pitch: 112 };
    let mut bind = |texels, told| println!("bound {:?}", device.texref_bind(context, texref, &texels, told));
    bind(TexelSource::Array(array), false);
    bind(TexelSource::Mipmap(mipmap), false);
    bind(row(0x1008), true);
    bind(row(0x1008), false);
    bind(row(0x1040), false);
    bind(TexelSource::Pitched(rows), false);
    bind(TexelSource::Array(Raw(77)), false);
    println!("let go {:?}", device.texref_let_go(context, texref));
    device.texref_format(context, texref, 8, 4).unwrap();
    for (field, words) in [
        (SamplerField::Address, [2, 3, 9, 9]),
        (SamplerField::Filter, [1, 9, 9, 9]),
        (SamplerField::MipFilter, [1, 9, 9, 9]),
        (SamplerField::MipBias, [0.5_f32.to_bits(), 9, 9, 9]),
        (SamplerField::Levels, [1.5_f32.to_bits(), 2.5_f32.to_bits(), 9, 9]),
        (SamplerField::Anisotropy, [16, 9, 9, 9]),
        (SamplerField::Border, [0.25_f32, 1.0, 2.0, 4.5].map(f32::to_bits)),
        (SamplerField::Flags, [3, 9, 9, 9]),
    ] {
        device.texref_set(context, created, &SamplerSetting { field, words }).unwrap();
    }
    println!("surface {:?}", device.surfref_bind(context, surfref, Some(array)));
    println!("of nothing {:?}", device.surfref_bind(context, surfref, None));
    println!("ended {:?} {:?}", device.texref_destroy(other, created), device.texref_destroy(other, created));
    println!(
        "ended {:?} {:?}",
        device.texref_destroy(context, texref),
        device.texref_destroy(context, texref)
    );
    device.surfref_destroy(surfref);
    println!("then {:?}", device.surfref_bind(context, surfref, Some(array)));
}

#[test]
fn references_reach_a_driver_setting_by_setting() {
    let folder = tempfile::tempdir().unwrap();
    library(folder.path(), concat!(include_str!("../data/driver.c"), include_str!("../data/references.c")));
    let said = played("references::child", folder.path());
    let lines: Vec<&str> = said.lines().skip_while(|line| !line.starts_with("no module")).collect();
    let expected = [
        "no module: Err(CUDA_ERROR_INVALID_HANDLE (400))",
        "reference: texture nobody in the first",
        "not there: Err(CUDA_ERROR_NOT_FOUND (500))",
        "no name: Err(CUDA_ERROR_NOT_FOUND (500))",
        "reference: created one in another",
        "created Ok(())",
        "reference: texture picture in the first",
        "reference: surface canvas in the first",
        "array 16 8 0 format 32 channels 1 flags 2",
        "reference: 0x502 array 0x7000 1",
        "bound Ok(0)",
        "reference: 0x502 levels (nil) 1",
        "bound Ok(0)",
        "reference: 0x502 70 at 1008, told",
        "bound Ok(8)",
        "reference: 0x502 70 at 1008, not told",
        "bound Err(CUDA_ERROR_INVALID_VALUE (1))",
        "reference: 0x502 70 at 1040, not told",
        "bound Ok(0)",
        "reference: 0x502 rows 7 6 format 32 channels 4 at de0, 112 apart",
        "bound Ok(0)",
        "bound Err(CUDA_ERROR_INVALID_HANDLE (400))",
        // A driver that wants an address gets one where nothing is.
        "reference: 0x502 0 at 0, told",
        "reference: 0x502 16 at 1000, told",
        "let go Ok(())",
        "reference: 0x502 format 8 4",
        "reference: 0x501 mode 2 3",
        "reference: 0x501 filter 1",
        "reference: 0x501 between levels 1",
        "reference: 0x501 bias 0.5",
        "reference: 0x501 levels 1.5 to 2.5",
        "reference: 0x501 anisotropy 16",
        "reference: 0x501 border 0.25 1 2 4.5",
        "reference: 0x501 flags 3",
        "reference: 0x503 surface of 0x7000 0",
        "surface Ok(())",
        // It has no call for that: the array goes on.
        "of nothing Err(CUDA_ERROR_NOT_SUPPORTED (801))",
        "reference: 0x501 ended in another",
        "ended Ok(()) Err(CUDA_ERROR_INVALID_HANDLE (400))",
        // A module's end with it.
        "ended Ok(()) Err(CUDA_ERROR_INVALID_HANDLE (400))",
        "then Err(CUDA_ERROR_INVALID_HANDLE (400))",
    ];
    assert_eq!(lines[..expected.len()], expected);
}

#[test]
fn a_driver_without_references_says_that_they_are_not_supported() {
    let folder = tempfile::tempdir().unwrap();
    library(folder.path(), include_str!("../data/driver.c"));
    let said = played("references::child", folder.path());
    for part in
        ["not there: Err(CUDA_ERROR_NOT_SUPPORTED (801))", "created Err(CUDA_ERROR_NOT_SUPPORTED (801))"]
    {
        assert!(said.contains(part), "{part} is missing in: {said}");
    }
}
