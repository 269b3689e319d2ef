//! Images from a hostile guest: real kernels, damaged at random. Whatever they do, no panic, and an end.

use vgpu_soft::{
    ChannelKind, Device, DeviceConfig, Fault, LaunchConfig, Level, Module, Sampler, Surface, Texel, Texture,
};

const TEXTS: [&str; 5] = [
    include_str!("kernels/features.ptx"),
    include_str!("kernels/reduce.ptx"),
    include_str!("kernels/matmul_tiled.ptx"),
    include_str!("kernels/histogram.ptx"),
    include_str!("kernels/references.ptx"),
];

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit.max(1)
    }
}

/// Changes a byte, a digit, drops a line, or puts one line in another's place.
fn damage(text: &str, random: &mut Random) -> Vec<u8> {
    let mut lines: Vec<&str> = text.lines().collect();
    let (one, other) = (random.below(lines.len()), random.below(lines.len()));
    match random.below(4) {
        0 => lines[one] = lines[other],
        1 => drop(lines.remove(one)),
        _ => {}
    }
    let mut bytes = lines.join("\n").into_bytes();
    let digits: Vec<usize> = (0..bytes.len()).filter(|i| bytes[*i].is_ascii_digit()).collect();
    for _ in 0..random.below(3) {
        match random.below(3) {
            0 => {
                let at = random.below(bytes.len());
                bytes[at] = u8::try_from(random.below(256)).unwrap();
            }
            _ => bytes[digits[random.below(digits.len())]] = b'0' + u8::try_from(random.below(10)).unwrap(),
        }
    }
    bytes
}

#[test]
fn damaged_kernels_load_and_run_without_a_panic() {
    let mut random = Random(11);
    let (mut loaded, mut refused) = (0, 0);
    for round in 0..1000 {
        let bytes = damage(TEXTS[round % TEXTS.len()], &mut random);
        let Ok(module) = Module::load(&bytes) else {
            refused += 1;
            continue;
        };
        loaded += 1;
        let config =
            DeviceConfig { memory_bytes: 1 << 20, instructions_max: Some(20_000), ..Default::default() };
        let device = Device::new(config);
        let Ok(instance) = device.instantiate(&module) else { continue };
        let block = device.memory().alloc(1 << 12).unwrap();
        let texel = Texel { kind: ChannelKind::Float, channel_bytes: 4, channels: 1 };
        let level = Level { address: block, extent: [8, 4, 4], pitch: 32, slice: 128 };
        for reference in instance.references() {
            let sampler = Sampler { linear: true, normalized: true, ..Sampler::default() };
            let texture = Texture { levels: vec![level], texel, sampler, zero_outside: false };
            device.texture_bind(*reference, Some(texture));
            device.surface_bind(*reference, Some(Surface { level, texel }));
        }
        let shape = LaunchConfig { grid: [2, 1, 1], block: [64, 1, 1], shared_bytes: 256 };
        for (index, function) in module.functions().iter().enumerate() {
            // Pointers that are right, so that kernels get somewhere.
            let words = (function.parameter_bytes as usize).div_ceil(8);
            let parameters: Vec<u8> = (0..words).flat_map(|_| block.to_le_bytes()).collect();
            let _ = device.launch(&instance, index, &shape, &parameters);
        }
    }
    // Both kinds must be there, or the damage is not what it should be.
    assert!(loaded > 100 && refused > 100, "{loaded} loaded, {refused} refused");
}

#[test]
fn declarations_that_ask_for_too_much_are_refused() {
    let head = ".version 9.0\n.target sm_90\n.address_size 64\n";
    let bad = [
        ".visible .entry k() { .reg .b32 %r<4000000000>; ret; }",
        ".visible .entry k() { .local .b8 x[99999999999]; ret; }",
        ".visible .entry k() { .shared .b8 x[4294967295][4294967295][99]; ret; }",
        ".global .b8 x[18446744073709551615];",
        ".global .align 3 .b8 x[4];",
        ".visible .entry k(.param .b8 p[4000000000]) { ret; }",
        ".visible .entry k() .maxntid 4000000000, 4000000000, 1 { ret; }",
        ".visible .entry k() { bra nowhere; }",
        ".visible .entry k() { add.s32 %r1, %r2, %r3; }",
        ".extern .global .b32 elsewhere;",
        ".shared .attribute(.managed) .b32 x;",
        ".global .attribute(.unified(1, 2)) .b32 x;",
        ".global .attribute(.managed .b32 x;",
        ".global .attribute .b32 x;",
        ".visible .entry k() { tex.2d.v4.f32.s32 {%f1}, [t]; }",
    ];
    for text in bad {
        let error = Module::load(format!("{head}{text}").as_bytes()).unwrap_err();
        assert_eq!(error.cu_result(), 218, "{text}: {error}");
    }
    let nested = format!("{head}.visible .entry k() {}{}", "{".repeat(100_000), "}".repeat(100_000));
    assert!(Module::load(nested.as_bytes()).is_err());
    let vectors = format!("{head}.visible .entry k() {{ mov.b64 {}", "{".repeat(100_000));
    assert!(Module::load(vectors.as_bytes()).is_err());
}

fn run(text: &str, parameters: &[u8]) -> Result<(), Fault> {
    let config =
        DeviceConfig { memory_bytes: 1 << 20, instructions_max: Some(1 << 20), ..Default::default() };
    let device = Device::new(config);
    let head = ".version 9.0\n.target sm_90\n.address_size 64\n";
    let module = Module::load(format!("{head}{text}").as_bytes()).unwrap_or_else(|error| panic!("{error}"));
    let shape = LaunchConfig { grid: [1, 1, 1], block: [32, 1, 1], shared_bytes: 0 };
    device.launch(&device.instantiate(&module).unwrap(), 0, &shape, parameters)
}

/// printf with any pointer for its format and its arguments.
const PRINTF: &str = ".extern .func (.param .b32 r) vprintf(.param .b64 f, .param .b64 v);
    .global .align 1 .b8 text[4] = {37, 108, 100, 0};
    .visible .entry k(.param .u64 p, .param .u64 q) { .reg .b64 f, a; ld.param.u64 f, [p]; ld.param.u64 a, [q];
      setp: { .reg .pred z; setp.eq.u64 z, f, 0; @z mov.u64 f, text; }
      { .param .b64 x; st.param.b64 [x], f; .param .b64 y; st.param.b64 [y], a; .param .b32 r;
        call.uni (r), vprintf, (x, y); } ret; }";

#[test]
fn printf_with_wild_pointers_is_a_fault_and_no_panic() {
    for address in [1, 0x1_0000_0000, u64::MAX - 8, u64::MAX - 3, u64::MAX] {
        for pointers in [[address, 0], [0, address]] {
            let fault = run(PRINTF, &pointers.map(u64::to_le_bytes).concat()).unwrap_err();
            assert!(matches!(fault.cu_result(), 700 | 716), "{pointers:#x?}: {fault}");
        }
    }
}

#[test]
fn values_wider_than_their_instruction_and_arrivals_without_end_are_counted_without_a_panic() {
    let wide = ".visible .entry k() { .reg .b64 a; .reg .b32 s; mov.u64 a, -1;
        redux.sync.add.u32 s, a, 0xffffffff; ret; }";
    run(wide, &[]).unwrap();
    let arrivals = ".visible .entry k() { L: bar.arrive 1, 64; bra L; }";
    assert_eq!(run(arrivals, &[]), Err(Fault::Timeout));
}

#[test]
fn tables_of_branches_do_not_multiply() {
    let labels = vec!["A"; 5000].join(",");
    let branches = "brx.idx i, T;\n".repeat(5000);
    let text = format!(
        ".version 9.0\n.target sm_90\n.address_size 64\n.visible .entry k() {{ .reg .b32 i; A: T: .branchtargets {labels};
        {branches} ret; }}"
    );
    assert_eq!(Module::load(text.as_bytes()).unwrap_err().cu_result(), 218);
}
