//! Kernels that read textures and use surfaces, as nvcc writes them.

use vgpu_soft::{
    AddressMode, ChannelKind, Device, DeviceConfig, Fault, LaunchConfig, Level, Module, Sampler, Surface,
    Texel, Texture,
};

const FLOATS: Texel = Texel { kind: ChannelKind::Float, channel_bytes: 4, channels: 1 };

/// Every level, and the nearest element at the edges.
fn clamping() -> Sampler {
    Sampler { address: [AddressMode::Clamp; 3], level_max: 100.0, ..Sampler::default() }
}

/// A kernel of one thread: `body` works with the object `t`, the floats `f0` to `f3`, the words `i0` to `i3`, and leaves four words in
/// `r0` to `r3`.
fn kernel(body: &str) -> String {
    format!(
        ".version 9.0\n.target sm_90\n.address_size 64\n\
         .visible .entry k(.param .u64 object, .param .u64 out, .param .align 4 .b8 numbers[16])\n{{\n\
         .reg .b64 t, o;\n.reg .f32 f<4>;\n.reg .b32 i<4>;\n.reg .b32 r<4>;\n\
         ld.param.u64 t, [object];\nld.param.u64 o, [out];\n\
         ld.param.b32 i0, [numbers];\nld.param.b32 i1, [numbers+4];\nld.param.b32 i2, [numbers+8];\nld.param.b32 i3, [numbers+12];\n\
         mov.b32 f0, i0;\nmov.b32 f1, i1;\nmov.b32 f2, i2;\nmov.b32 f3, i3;\n\
         mov.b32 r0, 0;\nmov.b32 r1, 0;\nmov.b32 r2, 0;\nmov.b32 r3, 0;\n\
         {body}\n\
         st.global.v4.b32 [o], {{r0, r1, r2, r3}};\nret;\n}}"
    )
}

struct Bench {
    device: Device,
    out: u64,
}

impl Bench {
    fn new() -> Self {
        let device = Device::new(DeviceConfig { memory_bytes: 1 << 20, seed: 3, ..Default::default() });
        let out = device.memory().alloc(16).unwrap();
        Self { device, out }
    }

    fn put(&self, values: &[f32]) -> u64 {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let address = self.device.memory().alloc(bytes.len() as u64).unwrap();
        self.device.memory().write(address, &bytes).unwrap();
        address
    }

    fn words(&self, address: u64, count: usize) -> Vec<u32> {
        let mut bytes = vec![0; 4 * count];
        self.device.memory().read(address, &mut bytes).unwrap();
        bytes.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
    }

    fn run(&self, body: &str, object: u64, numbers: [u32; 4]) -> Result<[u32; 4], Fault> {
        let text = kernel(body);
        let module = Module::load(text.as_bytes()).unwrap_or_else(|error| panic!("{error} in:\n{text}"));
        let instance = self.device.instantiate(&module).unwrap();
        let mut params = [object.to_le_bytes(), self.out.to_le_bytes()].concat();
        params.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        let config = LaunchConfig { grid: [1; 3], block: [1; 3], shared_bytes: 0 };
        let ended = self.device.launch(&instance, 0, &config, &params);
        self.device.unload(&instance);
        ended.map(|()| self.words(self.out, 4).try_into().unwrap())
    }

    fn float(&self, body: &str, object: u64, numbers: [f32; 4]) -> f32 {
        f32::from_bits(self.run(body, object, numbers.map(f32::to_bits)).unwrap()[0])
    }
}

fn level(address: u64, extent: [u32; 3], element_bytes: u64) -> Level {
    let pitch = u64::from(extent[0]) * element_bytes;
    Level { address, extent, pitch, slice: pitch * u64::from(extent[1]) }
}

fn texture(levels: Vec<Level>, sampler: Sampler) -> Texture {
    Texture { levels, texel: FLOATS, sampler, zero_outside: false }
}

const TEX_1D: &str = "tex.1d.v4.f32.f32 {r0, r1, r2, r3}, [t, {f0}];";
const TEX_2D: &str = "tex.2d.v4.f32.f32 {r0, r1, r2, r3}, [t, {f0, f1}];";
const TEX_3D: &str = "tex.3d.v4.f32.f32 {r0, r1, r2, r3}, [t, {f0, f1, f2, f2}];";
const TEX_A1D: &str = "tex.a1d.v4.f32.f32 {r0, r1, r2, r3}, [t, {i3, f0}];";
const TEX_A2D: &str = "tex.a2d.v4.f32.f32 {r0, r1, r2, r3}, [t, {i3, f0, f1, f1}];";
const FETCH_1D: &str = "tex.1d.v4.f32.s32 {r0, r1, r2, r3}, [t, {i0}];";
const LEVEL_2D: &str = "tex.level.2d.v4.f32.f32 {r0, r1, r2, r3}, [t, {f0, f1}], f2;";

#[test]
fn one_two_and_three_dimensions_are_read_at_the_nearest_and_between() {
    let bench = Bench::new();
    let values: Vec<f32> = (0..24_u8).map(f32::from).collect();
    let at = bench.put(&values);
    let linear = Sampler { linear: true, ..clamping() };
    let of = |extent, sampler| bench.device.texture_create(texture(vec![level(at, extent, 4)], sampler));
    assert_eq!(bench.float(TEX_1D, of([24, 1, 1], clamping()), [7.9, 0.0, 0.0, 0.0]), 7.0);
    assert_eq!(bench.float(TEX_1D, of([24, 1, 1], linear), [7.75, 0.0, 0.0, 0.0]), 7.25);
    assert_eq!(bench.float(TEX_2D, of([4, 6, 1], clamping()), [2.5, 3.5, 0.0, 0.0]), 14.0);
    assert_eq!(bench.float(TEX_2D, of([4, 6, 1], linear), [3.0, 4.0, 0.0, 0.0]), 16.5);
    assert_eq!(bench.float(TEX_3D, of([4, 3, 2], clamping()), [1.0, 2.0, 1.0, 0.0]), 21.0);
    assert_eq!(bench.float(TEX_3D, of([4, 3, 2], linear), [2.0, 1.0, 1.0, 0.0]), 9.5);
    let normalized = Sampler { normalized: true, address: [AddressMode::Wrap; 3], ..clamping() };
    assert_eq!(bench.float(TEX_2D, of([4, 6, 1], normalized), [1.3, -0.1, 0.0, 0.0]), 21.0);
}

#[test]
fn a_layer_is_a_whole_number_and_nothing_is_read_between_two() {
    let bench = Bench::new();
    let values: Vec<f32> = (0..24_u8).map(f32::from).collect();
    let at = bench.put(&values);
    let linear = Sampler { linear: true, ..clamping() };
    let of = |extent| bench.device.texture_create(texture(vec![level(at, extent, 4)], linear));
    let layer = |number: u32| f32::from_bits(number);
    assert_eq!(bench.float(TEX_A1D, of([8, 1, 3]), [2.5, 0.0, 0.0, layer(2)]), 18.0);
    assert_eq!(bench.float(TEX_A1D, of([8, 1, 3]), [2.5, 0.0, 0.0, layer(9)]), 18.0, "the last there is");
    assert_eq!(bench.float(TEX_A2D, of([4, 3, 2]), [1.5, 1.0, 0.0, layer(1)]), 15.0);
}

#[test]
fn linear_memory_is_read_by_element_and_zero_outside() {
    let bench = Bench::new();
    let at = bench.put(&[1.5, 2.5, 3.5]);
    let row = Level { address: at, extent: [3, 1, 1], pitch: 0, slice: 0 };
    let object =
        bench.device.texture_create(Texture { zero_outside: true, ..texture(vec![row], clamping()) });
    let at = |index: i32| f32::from_bits(bench.run(FETCH_1D, object, [index.cast_unsigned(); 4]).unwrap()[0]);
    assert_eq!([at(0), at(2), at(3), at(-1), at(i32::MAX)], [1.5, 3.5, 0.0, 0.0, 0.0]);
}

#[test]
fn channels_and_integers_arrive_as_the_sampler_says() {
    let bench = Bench::new();
    let at = bench.device.memory().alloc(8).unwrap();
    bench.device.memory().write(at, &[255, 128, 0, 51, 1, 2, 3, 4]).unwrap();
    let texel = Texel { kind: ChannelKind::Unsigned, channel_bytes: 1, channels: 4 };
    let of = |as_integer, kind| {
        let sampler = Sampler { as_integer, ..clamping() };
        let texel = Texel { kind, ..texel };
        bench.device.texture_create(Texture { texel, ..texture(vec![level(at, [2, 1, 1], 4)], sampler) })
    };
    let fractions = bench.run(TEX_1D, of(false, ChannelKind::Unsigned), [0; 4]).unwrap().map(f32::from_bits);
    assert_eq!(fractions, [1.0, 128.0 / 255.0, 0.0, 0.2]);
    let body = "tex.1d.v4.s32.f32 {r0, r1, r2, r3}, [t, {f0}];";
    let minus = (-1_i32).cast_unsigned();
    assert_eq!(bench.run(body, of(true, ChannelKind::Signed), [0; 4]).unwrap(), [minus, 0xffff_ff80, 0, 51]);
    let body = "tex.1d.v4.u32.f32 {r0, _, r2, r3}, [t, {f0}];";
    assert_eq!(
        bench.run(body, of(true, ChannelKind::Unsigned), [1.5_f32.to_bits(); 4]).unwrap(),
        [1, 0, 3, 4]
    );
}

#[test]
fn levels_are_chosen_clamped_and_mixed() {
    let bench = Bench::new();
    let (zero, one) = (bench.put(&[8.0; 16]), bench.put(&[4.0; 4]));
    let levels = vec![level(zero, [4, 4, 1], 4), level(one, [2, 2, 1], 4)];
    let normalized = Sampler { normalized: true, ..clamping() };
    let of = |sampler| bench.device.texture_create(texture(levels.clone(), sampler));
    let at = |object, lod| bench.float(LEVEL_2D, object, [0.5, 0.5, lod, 0.0]);
    let point = of(normalized);
    assert_eq!([at(point, 0.0), at(point, 0.4), at(point, 0.6), at(point, 7.0)], [8.0, 8.0, 4.0, 4.0]);
    assert_eq!(at(point, f32::NAN), 8.0);
    let mixed = of(Sampler { mip_linear: true, ..normalized });
    assert_eq!([at(mixed, 0.25), at(mixed, -3.0)], [7.0, 8.0]);
    let limited = of(Sampler { mip_linear: true, level_min: 0.5, bias: -1.0, ..normalized });
    assert_eq!([at(limited, 0.0), at(limited, 1.75)], [6.0, 5.0]);
    assert_eq!(bench.run("txq.num_mipmap_levels.b32 r0, [t];", point, [0; 4]).unwrap()[0], 2);
    assert_eq!(
        bench.run("txq.width.b32 r0, [t];\ntxq.height.b32 r1, [t];", point, [0; 4]).unwrap()[..2],
        [4, 4]
    );
}

#[test]
fn four_texels_are_gathered_from_below_left_against_the_clock() {
    let bench = Bench::new();
    let values: Vec<f32> = (0..16_u8).map(f32::from).collect();
    let at = bench.put(&values);
    let object = bench.device.texture_create(texture(vec![level(at, [4, 4, 1], 4)], clamping()));
    let body = "tld4.r.2d.v4.f32.f32 {r0, r1, r2, r3}, [t, {f0, f1}];";
    let four = bench.run(body, object, [2.0_f32, 2.0, 0.0, 0.0].map(f32::to_bits)).unwrap();
    assert_eq!(four.map(f32::from_bits), [9.0, 10.0, 6.0, 5.0]);
}

#[test]
fn surfaces_are_written_and_read_by_bytes_rows_and_layers() {
    let bench = Bench::new();
    let at = bench.put(&[0.0; 48]);
    let texel = Texel { kind: ChannelKind::Unsigned, channel_bytes: 4, channels: 1 };
    let of = |extent| bench.device.surface_create(Surface { level: level(at, extent, 4), texel });
    bench.run("sust.b.2d.b32.trap [t, {i0, i1}], {i2};", of([4, 12, 1]), [8, 3, 77, 0]).unwrap();
    assert_eq!(bench.words(at, 48)[3 * 4 + 2], 77);
    let read = |body, extent, numbers| bench.run(body, of(extent), numbers).unwrap();
    assert_eq!(read("suld.b.2d.b32.trap {r0}, [t, {i0, i1}];", [4, 12, 1], [8, 3, 0, 0])[0], 77);
    assert_eq!(read("suld.b.1d.b32.trap {r0}, [t, {i0}];", [48, 1, 1], [56, 0, 0, 0])[0], 77);
    assert_eq!(read("suld.b.3d.b32.trap {r0}, [t, {i0, i1, i2, i2}];", [4, 3, 4], [8, 0, 1, 0])[0], 77);
    assert_eq!(read("suld.b.a2d.b32.trap {r0}, [t, {i2, i0, i1, i1}];", [4, 3, 4], [8, 0, 1, 0])[0], 77);
    assert_eq!(read("suld.b.a1d.b32.trap {r0}, [t, {i1, i0}];", [4, 1, 12], [8, 3, 0, 0])[0], 77);
    assert_eq!(
        read("suld.b.2d.v2.b32.trap {r0, r1}, [t, {i0, i1}];", [4, 12, 1], [8, 3, 0, 0])[..2],
        [77, 0]
    );
    assert_eq!(read("suld.b.2d.b32.clamp {r0}, [t, {i0, i1}];", [5, 3, 1], [100, 9, 0, 0])[0], 77);
    let body = "suld.b.2d.b32.zero {r0}, [t, {i0, i1}];";
    assert_eq!((read(body, [4, 4, 1], [8, 3, 0, 0])[0], read(body, [4, 3, 1], [8, 3, 0, 0])[0]), (77, 0));
    bench
        .run("sust.b.2d.v4.b32.zero [t, {i0, i1}], {i0, i1, i2, i3};", of([4, 12, 1]), [0, 12, 1, 1])
        .unwrap();
    assert_eq!(bench.words(at, 48).iter().sum::<u32>(), 77, "nothing was written outside");
    assert_eq!(bench.run("suq.width.b32 r0, [t];", of([5, 2, 1]), [0; 4]).unwrap()[0], 5);
}

#[test]
fn what_is_outside_is_no_object_or_is_freed_ends_the_kernel() {
    let bench = Bench::new();
    let at = bench.put(&[0.0; 16]);
    let surface = bench.device.surface_create(Surface { level: level(at, [4, 4, 1], 4), texel: FLOATS });
    let store = "sust.b.2d.b32.trap [t, {i0, i1}], {i2};";
    for outside in [[16, 0, 0, 0], [u32::MAX, 0, 0, 0], [0, 4, 0, 0], [13, 0, 0, 0]] {
        assert_eq!(bench.run(store, surface, outside), Err(Fault::Trap), "{outside:?}");
    }
    assert!(matches!(bench.run(store, surface, [2, 0, 0, 0]), Err(Fault::Misaligned { .. })));
    let texture = bench.device.texture_create(texture(vec![level(at, [4, 4, 1], 4)], clamping()));
    for (body, object) in
        [(TEX_2D, surface), (TEX_2D, 0), (store, texture), ("txq.width.b32 r0, [t];", u64::MAX)]
    {
        assert!(matches!(bench.run(body, object, [0; 4]), Err(Fault::IllegalAddress { .. })), "{body}");
    }
    assert!(bench.device.surface_destroy(surface) && !bench.device.surface_destroy(surface));
    assert!(bench.run(store, surface, [0; 4]).is_err(), "it has ended");
    bench.device.memory().free(at).unwrap();
    assert!(matches!(bench.run(TEX_2D, texture, [0; 4]), Err(Fault::IllegalAddress { .. })));
    assert!(bench.device.texture_destroy(texture) && !bench.device.texture_destroy(texture));
}

#[test]
fn what_is_not_understood_is_refused_when_the_image_is_loaded() {
    for body in [
        "tex.cube.v4.f32.f32 {r0, r1, r2, r3}, [t, {f0, f1, f2, f2}];",
        "tex.grad.2d.v4.f32.f32 {r0, r1, r2, r3}, [t, {f0, f1}], {f2, f2}, {f3, f3};",
        "tex.2d.v4.f32.f32 {r0, r1, r2, r3}, [t, {f0}];",
        "tex.2d.v4.f32.f32 {r0, r1}, [t, {f0, f1}];",
        "tex.2d.v4.f32.f32 {r0, r1, r2, r3}, [t];",
        "tex.2d.v4.f16.f32 {r0, r1, r2, r3}, [t, {f0, f1}];",
        "tex.2d.f32.f32 r0, [t, {f0, f1}];",
        "tex.level.2d.v4.f32.s32 {r0, r1, r2, r3}, [t, {i0, i1}], i2;",
        "tex.1d.v4.f32.f32 {r0, r1, r2, r3}, [t, t, {f0}];",
        "suld.p.2d.v4.b32.trap {r0, r1, r2, r3}, [t, {i0, i1}];",
        "suld.b.2d.b32 {r0}, [t, {i0, i1}];",
        "suld.b.2d.u32.trap {r0}, [t, {i0, i1}];",
        "sured.b.add.2d.u32.trap [t, {i0, i1}], i2;",
        "txq.normalized_coords.b32 r0, [t];",
        "suq.num_mipmap_levels.b32 r0, [t];",
        "tld4.r.3d.v4.f32.f32 {r0, r1, r2, r3}, [t, {f0, f1, f2, f2}];",
    ] {
        assert!(Module::load(kernel(body).as_bytes()).is_err(), "{body}");
    }
}
