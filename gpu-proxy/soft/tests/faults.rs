//! What goes wrong in a kernel: the fault, its CUDA number, and that nothing else was touched.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use vgpu_soft::{
    Device, DeviceConfig, Fault, Instance, LaunchConfig, MAPPING_ALIGN, MemoryError, Module, Protection,
    SharedWords,
};

const HEAD: &str = ".version 9.0\n.target sm_90\n.address_size 64\n";

fn device() -> Device {
    Device::new(DeviceConfig { memory_bytes: 1 << 20, seed: 3, host_threads: 2, ..Default::default() })
}

fn load(device: &Device, text: &str) -> Instance {
    let module = Module::load(format!("{HEAD}{text}").as_bytes()).unwrap_or_else(|error| panic!("{error}"));
    device.instantiate(&module).unwrap()
}

fn launch(device: &Device, text: &str, threads: u32, parameters: &[u8]) -> Result<(), Fault> {
    let config = LaunchConfig { grid: [1, 1, 1], block: [threads, 1, 1], shared_bytes: 0 };
    device.launch(&load(device, text), 0, &config, parameters)
}

/// Stores 4 bytes at the address given.
const STORE: &str =
    ".visible .entry k(.param .u64 p) { .reg .b64 a; ld.param.u64 a, [p]; st.global.u32 [a], 1; ret; }";
const GENERIC: &str = ".visible .entry k(.param .u64 p) { .reg .b64 a; .reg .b32 r; ld.param.u64 a, [p]; ld.u32 r, [a]; st.u32 [a], r; ret; }";

#[test]
fn a_store_past_the_end_before_the_start_or_to_freed_memory_is_700() {
    let device = device();
    let (first, second) = (device.memory().alloc(100).unwrap(), device.memory().alloc(100).unwrap());
    device.memory().free(second).unwrap();
    for address in [first + 100, first - 4, second, 0, u64::MAX - 3, 1 << 60] {
        let fault = launch(&device, STORE, 1, &address.to_le_bytes()).unwrap_err();
        assert_eq!((fault.cu_result(), fault.is_sticky()), (700, true), "{address:#x}: {fault}");
    }
    launch(&device, STORE, 1, &(first + 96).to_le_bytes()).unwrap();
    let mut all = [9; 100];
    device.memory().read(first, &mut all).unwrap();
    assert_eq!((all[..96].iter().sum::<u8>(), &all[96..]), (0, &[1, 0, 0, 0][..]));
}

#[test]
fn an_access_across_the_end_writes_nothing() {
    let device = device();
    let address = device.memory().alloc(6).unwrap();
    assert_eq!(launch(&device, STORE, 1, &(address + 4).to_le_bytes()).unwrap_err().cu_result(), 700);
    let mut all = [9; 6];
    device.memory().read(address, &mut all).unwrap();
    assert_eq!(all, [0; 6]);
}

#[test]
fn windows_of_other_spaces_end_where_their_memory_does() {
    let device = device();
    for window in [0x1_0000_0000u64, 0x2_0000_0000, 0x3_0000_0000, 0x4_0000_0000] {
        for offset in [0x100, 0xffff_fffc] {
            let fault = launch(&device, GENERIC, 1, &(window + offset).to_le_bytes()).unwrap_err();
            assert_eq!(fault.cu_result(), 700, "{window:#x}+{offset:#x}: {fault}");
        }
    }
    // The kernel's own parameters can be read, and not written.
    assert!(matches!(
        launch(&device, GENERIC, 1, &0x3_0000_0000u64.to_le_bytes()),
        Err(Fault::IllegalAddress { access: vgpu_soft::Access::Store, .. })
    ));
}

#[test]
fn two_devices_share_no_address() {
    let (one, other) =
        (device(), Device::new(DeviceConfig { memory_bytes: 1 << 20, seed: 4, ..Default::default() }));
    let address = one.memory().alloc(4096).unwrap();
    one.memory().write(address, b"secret").unwrap();
    assert!(other.memory().read(address, &mut [0; 6]).is_err());
    assert_eq!(launch(&other, GENERIC, 1, &address.to_le_bytes()).unwrap_err().cu_result(), 700);
}

#[test]
fn a_call_of_what_is_no_function_is_718() {
    const CALL: &str = ".visible .entry k(.param .u64 p) { .reg .b64 a; ld.param.u64 a, [p]; \
        f: .callprototype _ (); call a, (), f; ret; }";
    for address in [0, 1 << 40] {
        let fault = launch(&device(), CALL, 1, &u64::to_le_bytes(address)).unwrap_err();
        assert_eq!((fault.cu_result(), fault), (718, Fault::InvalidPc(address)));
    }
}

#[test]
fn a_misaligned_access_is_716() {
    let device = device();
    let address = device.memory().alloc(64).unwrap();
    assert_eq!(launch(&device, STORE, 1, &(address + 2).to_le_bytes()).unwrap_err().cu_result(), 716);
}

#[test]
fn trap_assert_and_a_wild_call_have_their_numbers() {
    let device = device();
    assert_eq!(launch(&device, ".visible .entry k() { trap; }", 1, &[]).unwrap_err().cu_result(), 719);
    let wild = ".visible .entry k() { .reg .b64 a; mov.u64 a, 12345; { f: .callprototype _ (); call a, (), f; } ret; }";
    assert_eq!(launch(&device, wild, 1, &[]).unwrap_err().cu_result(), 718);
    let assert = r#".extern .func __assertfail(.param .b64 a, .param .b64 b, .param .b32 c, .param .b64 d, .param .b64 e);
        .global .align 1 .b8 text[6] = {119, 114, 111, 110, 103, 0};
        .visible .entry k() { .reg .b64 t; mov.u64 t, text;
          { .param .b64 a; st.param.b64 [a], t; .param .b64 b; st.param.b64 [b], t; .param .b32 c; st.param.b32 [c], 12;
            .param .b64 d; st.param.b64 [d], t; .param .b64 e; st.param.b64 [e], 1;
            call.uni __assertfail, (a, b, c, d, e); } ret; }"#;
    let fault = launch(&device, assert, 1, &[]).unwrap_err();
    assert_eq!(fault.cu_result(), 710);
    assert!(fault.to_string().contains("wrong:12: wrong: block: [0,0,0], thread: [0,0,0]"), "{fault}");
}

#[test]
fn recursion_without_end_is_a_fault_of_the_launch() {
    let device = device();
    let text = ".func f(); .func f() { call f, (); ret; } .visible .entry k() { call f, (); ret; }";
    assert_eq!(launch(&device, text, 32, &[]).unwrap_err(), Fault::StackOverflow);
}

#[test]
fn recursion_with_an_end_returns_through_every_frame() {
    let device = device();
    let out = device.memory().alloc(32 * 4).unwrap();
    let text = ".func (.param .b32 r) f(.param .b32 n) { .reg .pred p; .reg .b32 a, b; ld.param.b32 a, [n];
          setp.eq.u32 p, a, 0; @p bra zero; sub.u32 b, a, 1;
          { .param .b32 x; st.param.b32 [x], b; .param .b32 y; call (y), f, (x); ld.param.b32 b, [y]; }
          add.u32 b, a, b; st.param.b32 [r], b; ret; zero: st.param.b32 [r], 0; ret; }
        .visible .entry k(.param .u64 p) { .reg .b64 o, t; .reg .b32 i, s; mov.u32 i, %tid.x; ld.param.u64 o, [p];
          { .param .b32 x; st.param.b32 [x], i; .param .b32 y; call (y), f, (x); ld.param.b32 s, [y]; }
          mul.wide.u32 t, i, 4; add.u64 o, o, t; st.global.u32 [o], s; ret; }";
    launch(&device, text, 32, &out.to_le_bytes()).unwrap();
    let mut data = [0; 128];
    device.memory().read(out, &mut data).unwrap();
    for (i, sum) in (0..).zip(data.chunks(4)) {
        assert_eq!(u32::from_le_bytes(sum.try_into().unwrap()), i * (i + 1) / 2);
    }
}

#[test]
fn threads_that_wait_for_ever_are_a_fault_and_ended_ones_are_not_waited_for() {
    let device = device();
    let half = ".visible .entry k() { .reg .pred p; .reg .b32 i; mov.u32 i, %tid.x; setp.lt.u32 p, i, 40; @p bar.sync 1, 64; ret; }";
    assert_eq!(launch(&device, half, 64, &[]).unwrap_err(), Fault::Deadlock);
    let ended = ".visible .entry k() { .reg .pred p; .reg .b32 i; mov.u32 i, %tid.x; setp.lt.u32 p, i, 40; @p ret; bar.sync 0; ret; }";
    launch(&device, ended, 64, &[]).unwrap();
}

const ENDLESS: &str = ".visible .entry k() { L: bra L; }";

#[test]
fn an_endless_kernel_ends_by_its_budget() {
    let device = Device::new(DeviceConfig { instructions_max: Some(1 << 20), ..Default::default() });
    assert_eq!(launch(&device, ENDLESS, 64, &[]).unwrap_err(), Fault::Timeout);
}

#[test]
fn blocks_that_wait_for_a_later_block_get_on() {
    let device = Device::new(DeviceConfig { memory_bytes: 1 << 20, ..Default::default() });
    let word = device.memory().alloc(4).unwrap();
    // Block 0 spins until block 5 has written.
    let text =
        ".visible .entry k(.param .u64 p) { .reg .b64 a; .reg .b32 i, v; .reg .pred q; ld.param.u64 a, [p];
        mov.u32 i, %ctaid.x; setp.eq.u32 q, i, 5; @q st.global.u32 [a], 1; setp.ne.u32 q, i, 0; @q ret;
        L: ld.volatile.global.u32 v, [a]; setp.eq.u32 q, v, 0; @q bra L; ret; }";
    let config = LaunchConfig { grid: [6, 1, 1], block: [32, 1, 1], shared_bytes: 0 };
    device.launch(&load(&device, text), 0, &config, &word.to_le_bytes()).unwrap();
}

#[test]
fn launches_that_cannot_be_are_refused_and_not_sticky() {
    let device = device();
    let text = ".visible .entry k(.param .u64 p) .maxntid 64, 1, 1 { ret; }";
    let instance = load(&device, text);
    let try_launch = |function, grid, block, shared_bytes, parameters: &[u8]| {
        let config = LaunchConfig { grid, block, shared_bytes };
        device
            .launch(&instance, function, &config, parameters)
            .map_err(|fault| (fault.cu_result(), fault.is_sticky()))
    };
    assert_eq!(try_launch(0, [1, 1, 1], [64, 1, 1], 0, &[0; 8]), Ok(()));
    assert_eq!(try_launch(1, [1, 1, 1], [64, 1, 1], 0, &[0; 8]), Err((1, false)));
    assert_eq!(try_launch(0, [0, 1, 1], [64, 1, 1], 0, &[0; 8]), Err((1, false)));
    assert_eq!(try_launch(0, [1, 1, 1], [1025, 1, 1], 0, &[0; 8]), Err((1, false)));
    assert_eq!(try_launch(0, [1, 1, 1], [65, 1, 1], 0, &[0; 8]), Err((701, false)));
    assert_eq!(try_launch(0, [1, 1, 1], [64, 1, 1], 1 << 20, &[0; 8]), Err((1, false)));
    assert_eq!(try_launch(0, [1, 1, 1], [64, 1, 1], 0, &[0; 7]), Err((1, false)));
}

#[test]
fn memory_has_an_end_and_comes_back() {
    let device = device();
    let memory = device.memory();
    assert_eq!(memory.alloc(0).unwrap_err().cu_result(), 1);
    assert_eq!(memory.alloc((1 << 20) + 1).unwrap_err().cu_result(), 2);
    assert_eq!(memory.alloc(u64::MAX).unwrap_err().cu_result(), 2);
    let all = memory.alloc(1 << 20).unwrap();
    assert_eq!((memory.used_bytes(), memory.alloc(1).unwrap_err().cu_result()), (1 << 20, 2));
    assert_eq!(memory.free(all + 512).unwrap_err().cu_result(), 1);
    memory.free(all).unwrap();
    assert_eq!((memory.used_bytes(), memory.free(all).unwrap_err().cu_result()), (0, 1));
    // The same place is not given again at once: a stale pointer stays wrong.
    assert_ne!(memory.alloc(1 << 20).unwrap(), all);
}

#[test]
fn overlapping_copies_go_as_if_through_a_buffer() {
    let device = Device::new(DeviceConfig { memory_bytes: 16 << 20, ..Default::default() });
    let length = 3 << 20;
    let data: Vec<u8> = (0..length).map(|i| u8::try_from(i * 31 % 251).unwrap()).collect();
    for (from, to) in [(0u64, 1u64), (1, 0), (0, 1 << 20), (1 << 20, 3)] {
        let base = device.memory().alloc(length as u64 + (1 << 20)).unwrap();
        device.memory().write(base + from, &data).unwrap();
        device.memory().copy(base + to, base + from, length as u64).unwrap();
        let mut found = vec![0; length];
        device.memory().read(base + to, &mut found).unwrap();
        assert!(found == data, "{from} to {to}");
        device.memory().free(base).unwrap();
    }
}

/// A guest may write such a record into its ring, whatever libvgpu would have answered.
#[test]
fn no_bytes_are_copied_read_written_and_set_anywhere() {
    let device = device();
    let memory = device.memory();
    let at = memory.alloc(64).unwrap();
    for (to, from) in [(at, at), (at, at + 64), (0, at), (u64::MAX, 0)] {
        assert_eq!(memory.copy(to, from, 0), Ok(()), "{from:#x} to {to:#x}");
        assert_eq!((memory.read(from, &mut []), memory.write(to, &[])), (Ok(()), Ok(())));
        assert_eq!(memory.fill(to, &[7], 0), Ok(()));
    }
    assert_eq!(memory.copy(at, at + 64, 1).unwrap_err().cu_result(), 1);
}

#[test]
fn fills_repeat_their_pattern_and_stay_inside() {
    let device = device();
    let base = device.memory().alloc(10_000).unwrap();
    device.memory().fill(base + 2, &[1, 2], 4000).unwrap();
    let mut found = [0; 10_000];
    device.memory().read(base, &mut found).unwrap();
    assert!(found[2..8002].chunks(2).all(|pair| pair == [1, 2]));
    assert_eq!((found[1], found[8002]), (0, 0));
    assert_eq!(device.memory().fill(base + 1, &[1, 2], 1).unwrap_err().cu_result(), 1);
    assert_eq!(device.memory().fill(base, &[1, 2, 3, 4], 2501).unwrap_err().cu_result(), 1);
    assert_eq!(device.memory().fill(base, &[1, 2, 3, 4], u64::MAX).unwrap_err().cu_result(), 1);
}

#[derive(Debug)]
struct Host(Vec<AtomicU64>);

impl SharedWords for Host {
    fn words(&self) -> &[AtomicU64] {
        &self.0
    }
}

#[test]
fn host_memory_is_reached_where_it_was_shared_and_no_further() {
    const AT: u64 = 0x6800_0000_0000;
    let device = device();
    let memory = device.memory();
    let host = Arc::new(Host((0..4).map(AtomicU64::new).collect()));
    assert_eq!(launch(&device, STORE, 1, &AT.to_le_bytes()).unwrap_err().cu_result(), 700, "not shared yet");
    memory.share(AT, host.clone()).unwrap();
    assert_eq!(memory.used_bytes(), 0, "it is not the device's");
    launch(&device, STORE, 1, &(AT + 28).to_le_bytes()).unwrap();
    assert_eq!(host.0[3].load(Relaxed), 3 | 1 << 32, "its upper half");
    for address in [AT - 4, AT + 32] {
        assert_eq!(launch(&device, STORE, 1, &address.to_le_bytes()).unwrap_err().cu_result(), 700);
    }
    // Copies and sets reach it, both ways.
    let own = memory.alloc(32).unwrap();
    memory.copy(own, AT, 32).unwrap();
    let mut seen = [0; 8];
    memory.read(own + 24, &mut seen).unwrap();
    assert_eq!(u64::from_le_bytes(seen), 3 | 1 << 32);
    memory.fill(own, &[7], 32).unwrap();
    memory.copy(AT + 16, own, 16).unwrap();
    assert_eq!(host.0[2].load(Relaxed), 0x0707_0707_0707_0707);
    assert!(memory.copy(AT + 24, own, 16).is_err());

    // Nobody frees it as an allocation, shares it twice, or shares what is the device's.
    assert_eq!(memory.free(AT), Err(MemoryError::InvalidValue));
    assert_eq!(memory.unshare(own), Err(MemoryError::InvalidValue));
    for address in [AT, AT + 24, AT - 24, own, AT + 33, u64::MAX - 8] {
        assert_eq!(memory.share(address, host.clone()), Err(MemoryError::InvalidValue), "{address:#x}");
    }
    assert_eq!(memory.share(AT + 4096, Arc::new(Host(Vec::new()))), Err(MemoryError::InvalidValue));
    memory.unshare(AT).unwrap();
    assert_eq!(launch(&device, STORE, 1, &AT.to_le_bytes()).unwrap_err().cu_result(), 700);
}

/// Reserved addresses are no memory, whatever is mapped beside them; what may only be read is not written.
#[test]
fn addresses_without_open_memory_are_700() {
    let device =
        Device::new(DeviceConfig { memory_bytes: 4 << 20, seed: 3, host_threads: 2, ..Default::default() });
    let (memory, piece) = (device.memory(), MAPPING_ALIGN);
    let base = memory.reserve(3 * piece, 0, 0).unwrap();
    let first = memory.create(piece).unwrap();
    memory.map(base + piece, piece, first).unwrap();
    let code =
        |address: u64| launch(&device, STORE, 1, &address.to_le_bytes()).map_err(|fault| fault.cu_result());
    let ends = [base + piece, base + 2 * piece - 4];
    assert_eq!(ends.map(code), [Err(700); 2], "mapped, but not opened");
    memory.protect(base + piece, piece, Protection::Read).unwrap();
    assert_eq!(ends.map(code), [Err(700); 2], "to be read only");
    memory.protect(base + piece, piece, Protection::ReadWrite).unwrap();
    assert_eq!(ends.map(code), [Ok(()); 2]);
    assert_eq!([base, base + piece - 4, base + 2 * piece].map(code), [Err(700); 3], "nothing there");
    memory.unmap(base + piece, piece).unwrap();
    assert_eq!(ends.map(code), [Err(700); 2], "taken away");
}
