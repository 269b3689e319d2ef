//! Kernels that name textures and surfaces of their module, as compilers before CUDA 12 wrote them.

use vgpu_soft::{
    AddressMode, ChannelKind, Device, DeviceConfig, Fault, ImageError, Instance, LaunchConfig, Level, Module,
    ReferenceInfo, Sampler, Surface, Texel, Texture,
};

const FLOATS: Texel = Texel { kind: ChannelKind::Float, channel_bytes: 4, channels: 1 };

fn clamping() -> Sampler {
    Sampler { address: [AddressMode::Clamp; 3], ..Sampler::default() }
}

/// A kernel of one thread that leaves a word in `r0`, beside these variables.
fn text(variables: &str, body: &str) -> String {
    format!(
        ".version 4.0\n.target sm_30\n.address_size 64\n{variables}\n\
         .visible .entry k(.param .u64 out)\n{{\n.reg .b64 o, h;\n.reg .f32 f<4>;\n.reg .b32 r<4>;\n\
         ld.param.u64 o, [out];\nmov.b32 r0, 0;\n{body}\nst.global.b32 [o], r0;\nret;\n}}"
    )
}

struct Bench {
    device: Device,
    out: u64,
    instance: Instance,
}

impl Bench {
    fn of(variables: &str, body: &str) -> Self {
        let device = Device::new(DeviceConfig { memory_bytes: 1 << 20, seed: 3, ..Default::default() });
        let out = device.memory().alloc(16).unwrap();
        let module = Module::load(text(variables, body).as_bytes()).unwrap();
        let instance = device.instantiate(&module).unwrap();
        Self { device, out, instance }
    }

    /// A row of floats in memory of its own.
    fn row(&self, values: &[f32]) -> Level {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let address = self.device.memory().alloc(bytes.len() as u64).unwrap();
        self.device.memory().write(address, &bytes).unwrap();
        let extent = [u32::try_from(values.len()).unwrap(), 1, 1];
        Level { address, extent, pitch: bytes.len() as u64, slice: 0 }
    }

    fn texture(&self, values: &[f32]) -> Texture {
        Texture { levels: vec![self.row(values)], texel: FLOATS, sampler: clamping(), zero_outside: false }
    }

    fn run(&self) -> Result<f32, Fault> {
        let config = LaunchConfig { grid: [1; 3], block: [1; 3], shared_bytes: 0 };
        self.device.launch(&self.instance, 0, &config, &self.out.to_le_bytes())?;
        let mut word = [0; 4];
        self.device.memory().read(self.out, &mut word).unwrap();
        Ok(f32::from_le_bytes(word))
    }
}

#[test]
fn a_kernel_reads_what_its_texture_is_bound_to_when_it_starts() {
    let bench = Bench::of(
        ".global .texref tex;",
        "mov.b32 r1, 2;\ntex.1d.v4.f32.s32 {f0, f1, f2, f3}, [tex, {r1}];\nmov.b32 r0, f0;",
    );
    let [reference] = bench.instance.references()[..] else { panic!("one reference") };
    assert!(matches!(bench.run(), Err(Fault::IllegalAddress { .. })), "bound to nothing");
    bench.device.texture_bind(reference, Some(bench.texture(&[1.0, 2.0, 3.0])));
    assert_eq!(bench.run(), Ok(3.0));
    let second = bench.texture(&[4.0, 5.0, 6.0]);
    let address = second.levels[0].address;
    bench.device.texture_bind(reference, Some(second));
    assert_eq!(bench.run(), Ok(6.0));
    bench.device.memory().free(address).unwrap();
    assert!(matches!(bench.run(), Err(Fault::IllegalAddress { .. })), "its memory is freed");
    bench.device.texture_bind(reference, None);
    assert!(matches!(bench.run(), Err(Fault::IllegalAddress { .. })));
}

#[test]
fn coordinates_of_four_numbers_and_questions_name_a_texture_too() {
    let by_four = Bench::of(
        ".global .texref tex;",
        "mov.f32 f0, 0f3fc00000;\nmov.f32 f1, 0f00000000;\n\
         tex.2d.v4.f32.f32 {f0, f1, f2, f3}, [tex, {f0, f1, f1, f1}];\nmov.b32 r0, f0;",
    );
    by_four.device.texture_bind(by_four.instance.references()[0], Some(by_four.texture(&[7.0, 8.0])));
    assert_eq!(by_four.run(), Ok(8.0));
    let asks = Bench::of(".global .texref tex;", "txq.width.b32 r0, [tex];");
    asks.device.texture_bind(asks.instance.references()[0], Some(asks.texture(&[0.0; 5])));
    assert_eq!(asks.run().map(f32::to_bits), Ok(5));
    let by_number = Bench::of(
        ".global .texref other;\n.global .texref tex;",
        "mov.u64 h, tex;\nmov.b32 r1, 1;\ntex.1d.v4.f32.s32 {f0, f1, f2, f3}, [h, {r1}];\nmov.b32 r0, f0;",
    );
    by_number.device.texture_bind(by_number.instance.references()[1], Some(by_number.texture(&[1.5, 2.5])));
    assert_eq!(by_number.run(), Ok(2.5));
}

#[test]
fn a_surface_of_the_module_is_written_and_read() {
    let bench = Bench::of(
        ".global .surfref surf;",
        "mov.b32 r1, 4;\nmov.f32 f0, 0f40400000;\nmov.b32 r2, f0;\n\
         sust.b.1d.b32.trap [surf, {r1}], {r2};\nsuld.b.1d.b32.trap {r0}, [surf, {r1}];",
    );
    assert!(bench.run().is_err(), "bound to nothing");
    let level = bench.row(&[0.0; 4]);
    bench.device.surface_bind(bench.instance.references()[0], Some(Surface { level, texel: FLOATS }));
    assert_eq!(bench.run(), Ok(3.0));
    let mut bytes = [0; 16];
    bench.device.memory().read(level.address, &mut bytes).unwrap();
    assert_eq!(bytes[4..8], 3.0_f32.to_le_bytes());
}

/// `references.ptx`, by NVIDIA's compiler of CUDA 11.8, the last that has `texture<…>`. Of thread `i`:
/// ```text
/// out[i] = tex1Dfetch(row, i);                    texture<float, 1>
/// out[4 + i] = tex2D(picture, i + 0.5, 1.5).y;    texture<uchar4, 2, cudaReadModeNormalizedFloat>
/// out[8 + i] = tex3D(volume, i, 1, 2);            texture<float, 3>
/// out[12 + i] = tex2DLayered(layers, 1, 2, i);    texture<float, cudaTextureType2DLayered>
/// out[16 + i], before it is doubled, = surf2Dread(canvas, 4 * i, 1);
/// ```
#[test]
fn what_an_old_compiler_wrote_reads_and_writes_what_is_bound() {
    let device = Device::new(DeviceConfig { memory_bytes: 1 << 20, seed: 3, ..Default::default() });
    let module = Module::load(include_bytes!("kernels/references.ptx")).unwrap();
    let instance = device.instantiate(&module).unwrap();
    let bench = Bench { out: device.memory().alloc(80).unwrap(), device, instance };
    let floats = |count: u16, first: u16| (first..first + count).map(f32::from).collect::<Vec<_>>();
    let cut = |level: Level, extent: [u32; 3], element: u64| {
        let pitch = u64::from(extent[0]) * element;
        Level { extent, pitch, slice: pitch * u64::from(extent[1]), ..level }
    };
    let of = |level, texel| Texture { levels: vec![level], texel, sampler: clamping(), zero_outside: false };
    // Bytes 0 to 63.
    let bytes: Vec<f32> =
        (0..16_u8).map(|i| f32::from_le_bytes([4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3])).collect();
    let pixels = Texel { kind: ChannelKind::Unsigned, channel_bytes: 1, channels: 4 };
    let canvas = cut(bench.row(&floats(8, 500)), [4, 2, 1], 4);
    for (reference, number) in module.references().iter().zip(bench.instance.references()) {
        let texture = match reference.name.as_str() {
            "row" => of(bench.row(&floats(4, 100)), FLOATS),
            "picture" => of(cut(bench.row(&bytes), [4, 4, 1], 4), pixels),
            "volume" => of(cut(bench.row(&floats(64, 200)), [4, 4, 4], 4), FLOATS),
            "layers" => of(cut(bench.row(&floats(64, 300)), [4, 4, 4], 4), FLOATS),
            name => {
                assert_eq!((name, reference.is_surface), ("canvas", true));
                bench.device.surface_bind(*number, Some(Surface { level: canvas, texel: FLOATS }));
                continue;
            }
        };
        bench.device.texture_bind(*number, Some(texture));
    }
    let config = LaunchConfig { grid: [1; 3], block: [4, 1, 1], shared_bytes: 0 };
    bench.device.launch(&bench.instance, 0, &config, &bench.out.to_le_bytes()).unwrap();
    let read = |address, count: usize| {
        let mut bytes = vec![0; 4 * count];
        bench.device.memory().read(address, &mut bytes).unwrap();
        bytes.chunks(4).map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect::<Vec<_>>()
    };
    let got = read(bench.out, 20);
    for i in 0..4_u8 {
        let (x, place) = (f32::from(i), usize::from(i));
        assert_eq!(got[place], 100.0 + x);
        assert_eq!(got[4 + place], f32::from(4 * (4 + i) + 1) / 255.0);
        assert_eq!(got[8 + place], 200.0 + 32.0 + 4.0 + x);
        assert_eq!(got[12 + place], 300.0 + 16.0 * x + 8.0 + 1.0);
        assert_eq!(got[16 + place], 504.0 + x);
    }
    assert_eq!(read(canvas.address, 8), [500.0, 501.0, 502.0, 503.0, 1008.0, 1010.0, 1012.0, 1014.0]);
}

#[test]
fn references_are_told_and_end_with_their_module() {
    let variables =
        ".global .texref one, two;\n.global .surfref three;\n.global .samplerref nobody;\n.global .u32 word;";
    let bench = Bench::of(variables, "");
    let module = bench.instance.module();
    let named = |name: &str, is_surface| ReferenceInfo { name: name.into(), is_surface };
    assert_eq!(module.references(), [named("one", false), named("two", false), named("three", true)]);
    assert_eq!(module.globals().len(), 1, "they have no memory");
    let [one, two, three] = bench.instance.references()[..] else { panic!("three references") };
    assert!(one != two && two != three && one != three);
    let again = bench.device.instantiate(module).unwrap();
    assert!(!again.references().contains(&one), "each instance has its own");
    let object = bench.device.texture_create(bench.texture(&[1.0]));
    assert!(![one, two, three].contains(&object) && !again.references().contains(&object));
    bench.device.texture_bind(two, Some(bench.texture(&[1.0])));
    bench.device.unload(&bench.instance);
    assert!(!bench.device.texture_destroy(two), "nothing is left of it");
    assert!(bench.device.texture_destroy(object));
}

#[test]
fn where_samplers_are_apart_no_texture_is_read_without_one() {
    let reads = text(".global .texref tex;", "tex.1d.v4.f32.s32 {f0, f1, f2, f3}, [tex, {r0}];");
    let apart = |text: &str| Module::load(text.replace("sm_30", "sm_30, texmode_independent").as_bytes());
    assert!(Module::load(reads.as_bytes()).is_ok());
    assert!(matches!(apart(&reads), Err(ImageError::Unsupported { .. })));
    assert!(apart(&text(".global .texref tex;\n.global .samplerref samp;", "")).is_ok());
}

#[test]
fn what_is_not_understood_of_references_is_refused() {
    for (variables, body) in [
        (".global .texref tex[4];", ""),
        (".global .texref tex = {width = 3};", ""),
        (".const .texref tex;", ""),
        (".global .u32 .texref tex;", ""),
        (".global .v2 .texref tex;", ""),
        ("", ".global .texref tex;"),
        (
            ".global .texref tex;",
            "ld.global.u32 r0, [tex+4];\ntex.1d.v4.f32.s32 {f0, f1, f2, f3}, [tex+4, {r0}];",
        ),
        (".global .texref t;\n.global .samplerref s;", "tex.1d.v4.f32.s32 {f0, f1, f2, f3}, [t, s, {r0}];"),
        (".global .samplerref s;", "tex.1d.v4.f32.s32 {f0, f1, f2, f3}, [s, {r0}];"),
    ] {
        let refused = Module::load(text(variables, body).as_bytes());
        let expected = matches!(refused, Err(ImageError::Ptx { .. } | ImageError::Unsupported { .. }));
        assert!(expected, "{variables} {body}");
    }
}
