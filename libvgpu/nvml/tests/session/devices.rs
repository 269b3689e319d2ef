//! Devices: how they are found, what they are, what is used of them.

use support::facts;

use super::*;

#[test]
fn devices_are_found_by_every_name_and_no_other() {
    let play = started();
    let (first, second) = (device(&play, 0), device(&play, 1));
    assert_ne!(first, second);
    let mut found = 0_usize;
    let place = &raw mut found;
    assert_eq!(nv!(play, nvmlDeviceGetHandleByIndex(1: u32, place: *mut usize)), 0);
    assert_eq!(found, second);
    for index in [2_u32, 16, u32::MAX] {
        assert_eq!(nv!(play, nvmlDeviceGetHandleByIndex_v2(index: u32, place: *mut usize)), INVALID_ARGUMENT);
    }
    assert_eq!(nv!(play, nvmlDeviceGetHandleByIndex_v2(0: u32, NULL: *mut c_void)), INVALID_ARGUMENT);

    let mut by_text = |name: &str, word: &CStr| {
        found = 0;
        let address = play.symbol(name);
        // SAFETY: the calls of this test have this type in nvml.h.
        let function = unsafe {
            std::mem::transmute::<*mut c_void, extern "C" fn(*const c_char, *mut usize) -> u32>(address)
        };
        (function(word.as_ptr(), &raw mut found), found)
    };
    for (word, expected) in [
        (c"0000:01:00.0", (0, first)),
        (c"00000000:01:00.0", (0, first)),
        (c"00000001:2C:03.0", (0, second)),
        (c"0001:2c:03.0", (0, second)),
        (c"0001:2c:03.1", (NOT_FOUND, 0)),
        (c"0000:02:00.0", (NOT_FOUND, 0)),
        (c"not an address", (INVALID_ARGUMENT, 0)),
    ] {
        assert_eq!(by_text("nvmlDeviceGetHandleByPciBusId_v2", word), expected, "{word:?}");
        assert_eq!(by_text("nvmlDeviceGetHandleByPciBusId", word), expected, "{word:?}");
    }
    let uuid = c"GPU-abababab-abab-abab-abab-abababababab";
    assert_eq!(by_text("nvmlDeviceGetHandleByUUID", uuid), (0, second));
    assert_eq!(by_text("nvmlDeviceGetHandleByUUID", c"GPU-abababab"), (NOT_FOUND, 0));
    assert_eq!(by_text("nvmlDeviceGetHandleBySerial", c"1"), (NOT_FOUND, 0));
    for name in
        ["nvmlDeviceGetHandleByUUID", "nvmlDeviceGetHandleBySerial", "nvmlDeviceGetHandleByPciBusId_v2"]
    {
        let address = play.symbol(name);
        // SAFETY: as above.
        let function = unsafe {
            std::mem::transmute::<*mut c_void, extern "C" fn(*const c_char, *mut usize) -> u32>(address)
        };
        assert_eq!(function(std::ptr::null(), place), INVALID_ARGUMENT, "{name}");
        assert_eq!(function(uuid.as_ptr(), std::ptr::null_mut()), INVALID_ARGUMENT, "{name}");
    }
}

/// `nvmlUUID_v1_t`.
#[repr(C)]
struct Uuid {
    version: u32,
    kind: u32,
    value: [u8; 41],
}

#[test]
fn a_device_is_found_by_its_uuid_as_text_and_as_bytes() {
    let play = started();
    let second = device(&play, 1);
    let mut value = [0; 41];
    value[..40].copy_from_slice(b"GPU-abababab-abab-abab-abab-abababababab");
    const VERSION: u32 = 52 | 1 << 24;
    for (version, kind, value, expected) in [
        (VERSION, 1, value, (0, second)),
        (VERSION, 2, [0xab; 41], (0, second)),
        (VERSION, 2, [1; 41], (NOT_FOUND, 0)),
        (VERSION, 0, value, (INVALID_ARGUMENT, 0)),
        (52 | 2 << 24, 1, value, (VERSION_MISMATCH, 0)),
    ] {
        let (mut uuid, mut found) = (Uuid { version, kind, value }, 0_usize);
        let (uuid_at, place) = (&raw mut uuid, &raw mut found);
        let code = nv!(play, nvmlDeviceGetHandleByUUIDV(uuid_at: *mut Uuid, place: *mut usize));
        assert_eq!((code, found), expected, "{version:#x} {kind}");
    }
}

#[test]
fn a_device_is_what_cuda_says_it_is() {
    let play = started();
    let (first, second) = (device(&play, 0), device(&play, 1));
    assert_eq!(word(&play, "nvmlDeviceGetName", Some(first), 96), (0, "NVIDIA H100 80GB HBM3".into()));
    assert_eq!(word(&play, "nvmlDeviceGetName", Some(first), 5).0, INSUFFICIENT_SIZE);
    let uuid = "GPU-76677075-2d63-7564-612d-646576696365";
    assert_eq!(word(&play, "nvmlDeviceGetUUID", Some(first), 80), (0, uuid.into()));
    assert_eq!(word(&play, "nvmlDeviceGetUUID", Some(first), 40).0, INSUFFICIENT_SIZE);
    for (name, of_first, of_second) in [
        ("nvmlDeviceGetIndex", (0, 0), (0, 1)),
        ("nvmlDeviceGetMinorNumber", (0, 0), (0, 1)),
        ("nvmlDeviceGetBrand", (0, 14), (0, 0)),
        ("nvmlDeviceGetArchitecture", (0, 9), (0, u32::MAX)),
        ("nvmlDeviceGetNumGpuCores", (0, 132 * 128), (NOT_SUPPORTED, 0)),
        ("nvmlDeviceGetMemoryBusWidth", (0, 5120), (NOT_SUPPORTED, 0)),
        ("nvmlDeviceGetComputeMode", (0, 0), (0, 0)),
        ("nvmlDeviceGetDisplayMode", (0, 0), (0, 0)),
        ("nvmlDeviceGetDisplayActive", (0, 0), (0, 0)),
        ("nvmlDeviceGetAccountingMode", (0, 0), (0, 0)),
        ("nvmlDeviceIsMigDeviceHandle", (0, 0), (0, 0)),
        ("nvmlDeviceGetMaxMigDeviceCount", (0, 0), (0, 0)),
    ] {
        assert_eq!(number(&play, name, first), of_first, "{name}");
        assert_eq!(number(&play, name, second), of_second, "{name}");
        assert_eq!(call(&play, name, first, NULL), INVALID_ARGUMENT, "{name} without a place");
    }
    let (mut one, mut two) = (7, 7);
    let (one_at, two_at) = (&raw mut one, &raw mut two);
    let code =
        nv!(play, nvmlDeviceGetCudaComputeCapability(first: usize, one_at: *mut i32, two_at: *mut i32));
    assert_eq!((code, one, two), (0, 9, 0));
    let code =
        nv!(play, nvmlDeviceGetCudaComputeCapability(first: usize, one_at: *mut i32, NULL: *mut c_void));
    assert_eq!(code, INVALID_ARGUMENT);
    for (of, ecc) in [(first, 1), (second, 0)] {
        let code = nv!(play, nvmlDeviceGetEccMode(of: usize, one_at: *mut i32, two_at: *mut i32));
        assert_eq!((code, one, two), (0, ecc, ecc));
    }
    for (clock, result, mhz) in
        [(0, 0, 1980), (1, 0, 1980), (2, 0, 2619), (3, NOT_SUPPORTED, 0), (4, INVALID_ARGUMENT, 0)]
    {
        one = 0;
        let code = nv!(play, nvmlDeviceGetMaxClockInfo(first: usize, clock: u32, one_at: *mut i32));
        assert_eq!((code, one), (result, mhz), "clock {clock}");
    }
    assert_eq!(nv!(play, nvmlDeviceGetMaxClockInfo(second: usize, 0: u32, one_at: *mut i32)), NOT_SUPPORTED);
}

/// `nvmlPciInfo_t` and what lies behind it.
#[repr(C)]
struct PciInfo {
    legacy: [c_char; 16],
    words: [u32; 5],
    id: [c_char; 32],
    behind: [u8; 8],
}

#[test]
fn the_pci_address_is_written_as_long_as_the_structure_was() {
    let play = started();
    let second = device(&play, 1);
    for (name, bytes) in
        [("nvmlDeviceGetPciInfo", 32), ("nvmlDeviceGetPciInfo_v2", 36), ("nvmlDeviceGetPciInfo_v3", 68)]
    {
        let mut info = PciInfo { legacy: [-1; 16], words: [u32::MAX; 5], id: [-1; 32], behind: [0xff; 8] };
        assert_eq!(call(&play, name, second, (&raw mut info).cast()), 0, "{name}");
        assert_eq!(text(&info.legacy), "0001:2C:03.0");
        assert_eq!(info.words[..3], [1, 0x2c, 3], "{name}");
        // SAFETY: plain bytes of a structure without padding.
        let bytes_of = unsafe { std::slice::from_raw_parts((&raw const info).cast::<u8>(), 76) };
        assert!(bytes_of[bytes..].iter().all(|byte| *byte == 0xff), "{name} writes past its structure");
        if bytes == 68 {
            assert_eq!(text(&info.id), "00000001:2C:03.0");
        }
        assert_eq!(call(&play, name, second, NULL), INVALID_ARGUMENT);
    }
    let extended = |version: u32| {
        let mut info = [u32::MAX; 17];
        info[0] = version;
        let place = info.as_mut_ptr();
        (nv!(play, nvmlDeviceGetPciInfoExt(second: usize, place: *mut u32)), info)
    };
    let (code, info) = extended(64 | 1 << 24);
    assert_eq!((code, &info[..8]), (0, &[64 | 1 << 24, 1, 0x2c, 3, 0, 0, 3, 2][..]));
    assert_eq!(info[16], u32::MAX);
    assert_eq!(extended(64 | 2 << 24).0, VERSION_MISMATCH);
}

#[test]
fn memory_is_the_grant_and_what_is_used_of_it_now() {
    let play = started();
    let first = device(&play, 0);
    let mut memory = [0_u64; 3];
    let place = memory.as_mut_ptr();
    assert_eq!(nv!(play, nvmlDeviceGetMemoryInfo(first: usize, place: *mut u64)), 0);
    assert_eq!(memory, [8 << 30, (8 << 30) - (518 << 20), 518 << 20]);
    let mut more = facts();
    more.devices[0].used_bytes = 1 << 30;
    play.answer(Ok(more));
    let mut memory = [0_u64; 6];
    memory[5] = u64::MAX;
    memory[0] = 40 | 2 << 24;
    let place = memory.as_mut_ptr();
    assert_eq!(nv!(play, nvmlDeviceGetMemoryInfo_v2(first: usize, place: *mut u64)), 0);
    assert_eq!(memory[1..], [8 << 30, 0, 7 << 30, 1 << 30, u64::MAX]);
    for version in [2, 24 | 1 << 24, 40 | 3 << 24, 0] {
        memory[0] = version;
        assert_eq!(nv!(play, nvmlDeviceGetMemoryInfo_v2(first: usize, place: *mut u64)), VERSION_MISMATCH);
    }
    let (questions, code) =
        play.questions(|| nv!(play, nvmlDeviceGetMemoryInfo(first: usize, NULL: *mut c_void)));
    assert_eq!((questions, code), (0, INVALID_ARGUMENT));
}

#[test]
fn the_facts_of_the_start_are_not_asked_again_and_those_of_now_are() {
    let play = started();
    let first = device(&play, 0);
    let (questions, ()) = play.questions(|| {
        number(&play, "nvmlDeviceGetIndex", first);
        word(&play, "nvmlDeviceGetName", Some(first), 96);
        word(&play, "nvmlSystemGetDriverVersion", None, 96);
    });
    assert_eq!(questions, 0);
    let (mut memory, mut count) = ([0_u64; 3], 0_u32);
    let (memory_at, count_at) = (memory.as_mut_ptr(), &raw mut count);
    let (questions, code) =
        play.questions(|| nv!(play, nvmlDeviceGetMemoryInfo(first: usize, memory_at: *mut u64)));
    assert_eq!((questions, code), (1, 0));
    // The proxy is gone, the grant was taken back, or other devices are there: each is a lost GPU.
    let mut others = facts();
    others.devices[0].uuid = [1; 16];
    for answer in [Err(0), Err(403), Ok(others)] {
        play.answer(answer);
        assert_eq!(nv!(play, nvmlDeviceGetMemoryInfo(first: usize, memory_at: *mut u64)), GPU_IS_LOST);
        let code = nv!(play, nvmlDeviceGetComputeRunningProcesses_v3(first: usize, count_at: *mut u32, NULL: *mut c_void));
        assert_eq!(code, GPU_IS_LOST);
    }
    play.answer(Ok(facts()));
    assert_eq!(nv!(play, nvmlDeviceGetMemoryInfo(first: usize, memory_at: *mut u64)), 0, "it is found again");
}

#[test]
fn fields_say_for_themselves_that_they_are_not_supported() {
    let play = started();
    let first = device(&play, 0);
    // Of five words of 8 bytes; the fourth holds type and result.
    let mut fields = [0x0000_0007_0000_0051_u64; 10];
    let place = fields.as_mut_ptr();
    assert_eq!(nv!(play, nvmlDeviceGetFieldValues(first: usize, 1: i32, place: *mut u64)), 0);
    assert_eq!((fields[0], fields[3] >> 32, fields[5]), (0x0000_0007_0000_0051, 3, 0x0000_0007_0000_0051));
    // How many links are up, and of two links whether they are.
    for (field, scope, expected) in
        [(91_u64, 0_u64, (0, 12)), (165, 11, (0, 1)), (165, 12, (0, 0)), (165, 18, (2, 0))]
    {
        fields[0] = field | scope << 32;
        assert_eq!(nv!(play, nvmlDeviceGetFieldValues(first: usize, 1: i32, place: *mut u64)), 0);
        assert_eq!((fields[3], fields[4]), (1 | expected.0 << 32, expected.1), "{field} of {scope}");
    }
    for count in [0_i32, -1] {
        assert_eq!(
            nv!(play, nvmlDeviceGetFieldValues(first: usize, count: i32, place: *mut u64)),
            INVALID_ARGUMENT
        );
    }
    assert_eq!(
        nv!(play, nvmlDeviceGetFieldValues(first: usize, 1: i32, NULL: *mut c_void)),
        INVALID_ARGUMENT
    );
}
