//! Every answered call: its result, its bad arguments, and that it fails before the start.

mod support;

use std::ffi::{CStr, c_char, c_void};
use std::time::{Duration, Instant};

use support::{Play, facts};

const UNINITIALIZED: u32 = 1;
const INVALID_ARGUMENT: u32 = 2;
const NOT_SUPPORTED: u32 = 3;
const NOT_FOUND: u32 = 6;
const INSUFFICIENT_SIZE: u32 = 7;
const TIMEOUT: u32 = 10;
const GPU_IS_LOST: u32 = 15;
const VERSION_MISMATCH: u32 = 25;

#[path = "../src/answered.rs"]
#[allow(dead_code, reason = "the table needs a part of it")]
mod answered;
#[path = "../src/names.rs"]
mod names;

/// What a 32-bit word leaves of 8 bytes; behind it may be anything.
const LOW: u64 = 0xffff_ffff;
const NULL: *mut c_void = std::ptr::null_mut();

/// A started session.
fn started() -> Play {
    let play = Play::begin();
    assert_eq!(nv!(play, nvmlInit_v2()), 0);
    play
}

fn device(play: &Play, index: u32) -> usize {
    let mut device = 0;
    let place = &raw mut device;
    assert_eq!(nv!(play, nvmlDeviceGetHandleByIndex_v2(index: u32, place: *mut usize)), 0);
    device
}

/// A call `name(device, place)`: its result and what it wrote.
fn number(play: &Play, name: &str, device: usize) -> (u32, u32) {
    let mut value = 0;
    (call(play, name, device, (&raw mut value).cast()), value)
}

/// A call whose parameters are a device and one place.
fn call(play: &Play, name: &str, device: usize, place: *mut c_void) -> u32 {
    let address = play.symbol(name);
    assert!(!address.is_null(), "{name}");
    // SAFETY: the calls of this test have this type in nvml.h.
    let function =
        unsafe { std::mem::transmute::<*mut c_void, extern "C" fn(usize, *mut c_void) -> u32>(address) };
    function(device, place)
}

fn text(buffer: &[c_char]) -> String {
    // SAFETY: the buffers are zeroed and longer than any text here.
    unsafe { CStr::from_ptr(buffer.as_ptr()) }.to_str().expect("ASCII").to_owned()
}

/// A call `name(place, length)` or `name(device, place, length)`.
fn word(play: &Play, name: &str, device: Option<usize>, length: u32) -> (u32, String) {
    let (address, mut buffer) = (play.symbol(name), [0 as c_char; 128]);
    let place = buffer.as_mut_ptr();
    let code = match device {
        // SAFETY: the calls of this test have this type in nvml.h.
        None => unsafe {
            std::mem::transmute::<*mut c_void, extern "C" fn(*mut c_char, u32) -> u32>(address)(place, length)
        },
        // SAFETY: as above.
        Some(device) => unsafe {
            std::mem::transmute::<*mut c_void, extern "C" fn(usize, *mut c_char, u32) -> u32>(address)(
                device, place, length,
            )
        },
    };
    (code, text(&buffer))
}

#[test]
fn the_system_is_told_with_the_versions_that_cuda_tells() {
    let play = started();
    assert_eq!(word(&play, "nvmlSystemGetDriverVersion", None, 80), (0, "580.159.04".into()));
    assert_eq!(word(&play, "nvmlSystemGetNVMLVersion", None, 80), (0, "13.580.159.04".into()));
    assert_eq!(word(&play, "nvmlSystemGetDriverVersion", None, 11).0, 0, "just room");
    assert_eq!(word(&play, "nvmlSystemGetDriverVersion", None, 10).0, INSUFFICIENT_SIZE);
    assert_eq!(nv!(play, nvmlSystemGetDriverVersion(NULL: *mut c_void, 80: u32)), INVALID_ARGUMENT);
    let mut version = 0;
    let place = &raw mut version;
    // The driver has a newer one than this release answers for.
    assert_eq!((nv!(play, nvmlSystemGetCudaDriverVersion_v2(place: *mut i32)), version), (0, 13000));
    assert_eq!(nv!(play, nvmlSystemGetCudaDriverVersion(place: *mut i32)), 0);
    assert_eq!(nv!(play, nvmlSystemGetCudaDriverVersion_v2(NULL: *mut c_void)), INVALID_ARGUMENT);
    let mut count = 9_u32;
    let place = &raw mut count;
    for name in ["nvmlUnitGetCount", "nvmlGetExcludedDeviceCount"] {
        count = 9;
        let address = play.symbol(name);
        // SAFETY: the type is that of nvml.h.
        let function = unsafe { std::mem::transmute::<*mut c_void, extern "C" fn(*mut u32) -> u32>(address) };
        assert_eq!((function(place), count), (0, 0), "{name}");
    }
    assert_eq!((nv!(play, nvmlSystemGetHicVersion(place: *mut u32, NULL: *mut c_void)), count), (0, 0));
    assert_eq!(nv!(play, nvmlUnitGetHandleByIndex(0: u32, place: *mut u32)), INVALID_ARGUMENT);
}

#[test]
fn nobody_here_computes_confidentially() {
    let play = started();
    let mut state = [7_u32; 4];
    let place = state.as_mut_ptr();
    assert_eq!(nv!(play, nvmlSystemGetConfComputeState(place: *mut u32)), 0);
    assert_eq!(state, [0, 0, 0, 7]);
    for (version, code, written) in [(20 | 1 << 24, 0, 0), (20 | 2 << 24, VERSION_MISMATCH, 7)] {
        let mut settings = [version, 7, 7, 7, 7, 7];
        let place = settings.as_mut_ptr();
        assert_eq!(nv!(play, nvmlSystemGetConfComputeSettings(place: *mut u32)), code);
        assert_eq!(settings, [version, written, written, written, written, 7]);
    }
    assert_eq!(nv!(play, nvmlSystemGetConfComputeSettings(NULL: *mut c_void)), INVALID_ARGUMENT);
}

/// What NVIDIA's own nvidia-smi asks beside the header's calls.
#[test]
fn the_private_table_gives_handles_and_named_processes_and_refuses_the_rest() {
    const ENTRY: usize = 4128;
    let play = Play::begin();
    let mut mine = facts();
    mine.processes[0].pid = std::process::id();
    play.answer(Ok(mine));
    assert_eq!(nv!(play, nvmlInit_v2()), 0);
    let table = |id: u128| {
        let (mut table, id) = (std::ptr::dangling::<*mut c_void>(), id.to_be_bytes());
        let (place, id) = (&raw mut table, id.as_ptr());
        let code = nv!(play, nvmlInternalGetExportTable(place: *mut *const *mut c_void, id: *const u8));
        (code, table)
    };
    assert_eq!(table(1), (INVALID_ARGUMENT, std::ptr::null()));
    let (code, table) = table(0xc4fe3e6c_c98f_6c4e_a327_ee696e12f7c4);
    assert_eq!(code, 0);
    // SAFETY: a table of the library starts with its size in bytes.
    let slots = unsafe { std::slice::from_raw_parts(table, 256) };
    assert_eq!(slots[0].addr(), 256 * 8);

    let (first, mut found) = (device(&play, 0), 0_usize);
    // SAFETY: the type that nvidia-smi calls it by.
    let by_index =
        unsafe { std::mem::transmute::<*mut c_void, extern "C" fn(u32, *mut usize) -> u32>(slots[81]) };
    assert_eq!((by_index(0, &raw mut found), found), (0, first));
    assert_eq!(by_index(2, &raw mut found), INVALID_ARGUMENT);

    for (slot, expected) in [(213, 2), (214, 0), (215, 0)] {
        let (mut count, mut list) = (3_u32, vec![0x55_u8; 3 * ENTRY]);
        // SAFETY: as above.
        let ask = unsafe {
            std::mem::transmute::<*mut c_void, extern "C" fn(usize, *mut u32, *mut u8) -> u32>(slots[slot])
        };
        assert_eq!((ask(first, &raw mut count, list.as_mut_ptr()), count), (0, expected), "slot {slot}");
        assert!(list[expected as usize * ENTRY..].iter().all(|byte| *byte == 0x55), "slot {slot}");
        if expected > 0 {
            assert_eq!(list[..4], std::process::id().to_le_bytes());
            assert_eq!(list[8..16], (500_u64 << 20).to_le_bytes());
            let name = list[32..ENTRY].split(|byte| *byte == 0).next().expect("a first part");
            assert_eq!(Some(name), std::env::args().next().as_ref().map(String::as_bytes));
            // The second one cannot be seen from here, most likely.
            assert_eq!(list[ENTRY..ENTRY + 4], 14_u32.to_le_bytes());
        }
        count = 0;
        let none = if expected > 0 { INSUFFICIENT_SIZE } else { 0 };
        assert_eq!(ask(first, &raw mut count, std::ptr::null_mut()), none);
        assert_eq!(ask(0, &raw mut count, std::ptr::null_mut()), INVALID_ARGUMENT);
    }
    // SAFETY: as above.
    let line = unsafe { std::mem::transmute::<*mut c_void, extern "C" fn(*const c_char) -> u32>(slots[26]) };
    assert_eq!(line(c"a line".as_ptr()), 0, "nvidia-smi prints nothing after a refusal");
    let known = [0, 26, 81, 213, 214, 215];
    for (number, slot) in slots.iter().enumerate().filter(|(number, _)| !known.contains(number)) {
        // SAFETY: whatever it is called with, it looks at nothing.
        let ask = unsafe { std::mem::transmute::<*mut c_void, extern "C" fn(usize, *mut u32) -> u32>(*slot) };
        assert_eq!(ask(first, std::ptr::null_mut()), NOT_SUPPORTED, "slot {number}");
    }
}

#[test]
fn a_set_of_events_waits_for_none() {
    let play = started();
    let first = device(&play, 0);
    let (mut sets, mut types, mut data) = ([0_usize; 2], 7_u64, [0x55_u8; 32]);
    for set in &mut sets {
        let place = &raw mut *set;
        assert_eq!(nv!(play, nvmlEventSetCreate(place: *mut usize)), 0);
    }
    let [set, other] = sets;
    assert_ne!(set, other);
    assert_eq!(nv!(play, nvmlEventSetCreate(NULL: *mut c_void)), INVALID_ARGUMENT);
    let types_at = &raw mut types;
    assert_eq!(
        (nv!(play, nvmlDeviceGetSupportedEventTypes(first: usize, types_at: *mut u64)), types),
        (0, 0)
    );
    assert_eq!(nv!(play, nvmlDeviceRegisterEvents(first: usize, 0: u64, set: usize)), 0);
    assert_eq!(nv!(play, nvmlDeviceRegisterEvents(first: usize, 8: u64, set: usize)), NOT_SUPPORTED);
    assert_eq!(nv!(play, nvmlDeviceRegisterEvents(first: usize, 0: u64, 99: usize)), INVALID_ARGUMENT);
    assert_eq!(nv!(play, nvmlDeviceRegisterEvents(0: usize, 0: u64, set: usize)), INVALID_ARGUMENT);
    let data_at = data.as_mut_ptr();
    let began = Instant::now();
    assert_eq!(nv!(play, nvmlEventSetWait_v2(set: usize, data_at: *mut u8, 30: u32)), TIMEOUT);
    assert!(began.elapsed() >= Duration::from_millis(30));
    assert_eq!(nv!(play, nvmlEventSetWait(set: usize, data_at: *mut u8, 0: u32)), TIMEOUT);
    assert_eq!(nv!(play, nvmlEventSetWait_v2(set: usize, NULL: *mut c_void, 0: u32)), INVALID_ARGUMENT);
    assert_eq!(data, [0x55; 32]);
    assert_eq!(nv!(play, nvmlEventSetFree(set: usize)), 0);
    assert_eq!(nv!(play, nvmlEventSetFree(set: usize)), INVALID_ARGUMENT);
    assert_eq!(nv!(play, nvmlEventSetWait_v2(set: usize, data_at: *mut u8, 0: u32)), INVALID_ARGUMENT);
    assert_eq!(nv!(play, nvmlEventSetFree(other: usize)), 0);
}

#[test]
fn links_are_told_by_their_number_and_lead_nowhere_that_is_named() {
    let play = started();
    let (first, second) = (device(&play, 0), device(&play, 1));
    let state = |device: usize, link: u32| {
        let mut up = 7_u32;
        let place = &raw mut up;
        (nv!(play, nvmlDeviceGetNvLinkState(device: usize, link: u32, place: *mut u32)), up)
    };
    assert_eq!((state(first, 11), state(first, 12)), ((0, 1), (0, 0)), "12 are up");
    assert_eq!((state(first, 18), state(second, 0)), ((INVALID_ARGUMENT, 7), (NOT_SUPPORTED, 7)));
    let capability = |link: u32, kind: u32| {
        let mut able = 7_u32;
        let place = &raw mut able;
        (nv!(play, nvmlDeviceGetNvLinkCapability(first: usize, link: u32, kind: u32, place: *mut u32)), able)
    };
    assert_eq!(
        (0..6).map(|kind| capability(0, kind)).collect::<Vec<_>>(),
        [0, 1, 2, 3, 4, 5].map(|kind| (0, u32::from([0, 2, 5].contains(&kind))))
    );
    assert_eq!((capability(12, 0), capability(0, 6)), ((0, 0), (INVALID_ARGUMENT, 7)));
    let mut info = [0x55_u8; 68];
    let place = info.as_mut_ptr();
    assert_eq!(
        nv!(play, nvmlDeviceGetNvLinkRemotePciInfo_v2(first: usize, 12: u32, place: *mut u8)),
        NOT_SUPPORTED
    );
    assert_eq!(nv!(play, nvmlDeviceGetNvLinkRemotePciInfo_v2(first: usize, 0: u32, place: *mut u8)), 0);
    assert_eq!(&info[36..53], b"FFFFFFFF:FF:FF.0\0");
    assert_eq!(
        nv!(play, nvmlDeviceGetNvLinkRemotePciInfo_v2(first: usize, 0: u32, NULL: *mut c_void)),
        INVALID_ARGUMENT
    );
    let mut kind = 7_u32;
    let place = &raw mut kind;
    assert_eq!(
        (nv!(play, nvmlDeviceGetNvLinkRemoteDeviceType(first: usize, 0: u32, place: *mut u32)), kind),
        (0, 2)
    );
    assert_eq!(
        nv!(play, nvmlDeviceGetNvLinkRemoteDeviceType(second: usize, 0: u32, place: *mut u32)),
        NOT_SUPPORTED
    );
}

#[test]
fn a_device_is_near_every_processor_and_all_memory() {
    let play = started();
    let first = device(&play, 0);
    let mut words = [0x55_u64; 18];
    let place = words.as_mut_ptr();
    assert_eq!(nv!(play, nvmlDeviceGetCpuAffinity(first: usize, 17: u32, place: *mut u64)), 0);
    // SAFETY: no preconditions.
    let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    assert_eq!(i64::from(words[..17].iter().map(|word| word.count_ones()).sum::<u32>()), online);
    assert_eq!(words[17], 0x55);
    for (scope, code) in [(0, 0), (1, 0), (2, INVALID_ARGUMENT)] {
        assert_eq!(
            nv!(play, nvmlDeviceGetMemoryAffinity(first: usize, 1: u32, place: *mut u64, scope: u32)),
            code
        );
        assert_eq!(
            nv!(play, nvmlDeviceGetCpuAffinityWithinScope(first: usize, 1: u32, place: *mut u64, scope: u32)),
            code
        );
    }
    assert_eq!(nv!(play, nvmlDeviceGetCpuAffinity(first: usize, 0: u32, place: *mut u64)), INVALID_ARGUMENT);
    assert_eq!(
        nv!(play, nvmlDeviceGetCpuAffinity(first: usize, 1: u32, NULL: *mut c_void)),
        INVALID_ARGUMENT
    );
    assert_eq!(nv!(play, nvmlDeviceGetCpuAffinity(0: usize, 1: u32, place: *mut u64)), INVALID_ARGUMENT);
}

#[test]
fn a_processs_name_is_its_first_word_and_cut_to_fit() {
    let play = started();
    let own = std::process::id();
    let mut name = [0 as c_char; 4096];
    let place = name.as_mut_ptr();
    assert_eq!(nv!(play, nvmlSystemGetProcessName(own: u32, place: *mut c_char, 4096: u32)), 0);
    let whole = text(&name);
    assert_eq!(Some(whole.as_str()), std::env::args().next().as_deref());
    assert_eq!(nv!(play, nvmlSystemGetProcessName(own: u32, place: *mut c_char, 4: u32)), 0);
    assert_eq!(text(&name), whole[..3]);
    assert_eq!(nv!(play, nvmlSystemGetProcessName(own: u32, place: *mut c_char, 0: u32)), INVALID_ARGUMENT);
    assert_eq!(nv!(play, nvmlSystemGetProcessName(own: u32, NULL: *mut c_void, 9: u32)), INVALID_ARGUMENT);
    let nobody = u32::MAX;
    assert_eq!(nv!(play, nvmlSystemGetProcessName(nobody: u32, place: *mut c_char, 9: u32)), NOT_FOUND);
}

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
fn processes_are_the_containers_own_in_every_version() {
    const ROOM: u32 = 4;
    let play = started();
    let first = device(&play, 0);
    // Words of 8 bytes an entry: pid, bytes, instances.
    for (name, words) in [
        ("nvmlDeviceGetComputeRunningProcesses", 2),
        ("nvmlDeviceGetComputeRunningProcesses_v2", 3),
        ("nvmlDeviceGetComputeRunningProcesses_v3", 3),
    ] {
        let (address, mut count, mut list) = (play.symbol(name), 0_u32, [0x55_u64; 16]);
        // SAFETY: the type is that of nvml.h.
        let function = unsafe {
            std::mem::transmute::<*mut c_void, extern "C" fn(usize, *mut u32, *mut u64) -> u32>(address)
        };
        assert_eq!(function(first, &raw mut count, std::ptr::null_mut()), INSUFFICIENT_SIZE, "{name}");
        assert_eq!(count, 2);
        count = 1;
        assert_eq!((function(first, &raw mut count, list.as_mut_ptr()), count), (INSUFFICIENT_SIZE, 2));
        assert_eq!(list, [0x55; 16], "{name}: nothing is written without room for all");
        count = ROOM;
        assert_eq!((function(first, &raw mut count, list.as_mut_ptr()), count), (0, 2));
        let pids: Vec<_> =
            list.chunks(words).take(2).map(|entry| u32::try_from(entry[0] & LOW).expect("32 bits")).collect();
        let bytes: Vec<_> = list.chunks(words).take(2).map(|entry| entry[1]).collect();
        assert_eq!((pids, bytes), (vec![12, 14], vec![500 << 20, 18 << 20]), "{name}");
        assert!(words == 2 || list[2] == u64::MAX, "{name}: no instance");
        assert_eq!(list[2 * words], 0x55);
        assert_eq!(function(first, std::ptr::null_mut(), list.as_mut_ptr()), INVALID_ARGUMENT, "{name}");
        count = ROOM;
        assert_eq!(function(first, &raw mut count, std::ptr::null_mut()), INVALID_ARGUMENT, "{name}");
    }
    for kind in ["Graphics", "MPSCompute"] {
        for version in ["", "_v2", "_v3"] {
            let name = format!("nvmlDeviceGet{kind}RunningProcesses{version}");
            let (address, mut count) = (play.symbol(&name), 0_u32);
            // SAFETY: as above.
            let function = unsafe {
                std::mem::transmute::<*mut c_void, extern "C" fn(usize, *mut u32, *mut u64) -> u32>(address)
            };
            assert_eq!((function(first, &raw mut count, std::ptr::null_mut()), count), (0, 0), "{name}");
            assert_eq!(function(first, std::ptr::null_mut(), std::ptr::null_mut()), INVALID_ARGUMENT);
        }
    }
}

/// `nvmlProcessDetailList_v1_t`.
#[repr(C)]
struct DetailList {
    version: u32,
    mode: u32,
    count: u32,
    list: *mut u64,
}

#[test]
fn the_detailed_list_says_the_same() {
    let play = started();
    let second = device(&play, 1);
    const VERSION: u32 = 24 | 1 << 24;
    let one = [13, 1, u64::MAX, u64::MAX];
    for (version, mode, room, expected, written) in [
        (VERSION, 0, 0, (INSUFFICIENT_SIZE, 1), [0; 4]),
        (VERSION, 0, 1, (0, 1), one),
        (VERSION, 1, 1, (0, 0), [0; 4]),
        (VERSION, 2, 1, (0, 0), [0; 4]),
        (VERSION, 3, 1, (INVALID_ARGUMENT, 1), [0; 4]),
        (24 | 2 << 24, 0, 1, (VERSION_MISMATCH, 1), [0; 4]),
    ] {
        let mut list = [0_u64; 5];
        let mut asked = DetailList { version, mode, count: room, list: list.as_mut_ptr() };
        let place = &raw mut asked;
        let code = nv!(play, nvmlDeviceGetRunningProcessDetailList(second: usize, place: *mut DetailList));
        assert_eq!((code, asked.count), expected, "{version:#x}, mode {mode}");
        list[0] &= LOW;
        assert_eq!((&list[..4], list[4]), (&written[..], 0), "mode {mode}");
    }
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
fn links_and_places_are_told_as_far_as_they_are_known() {
    let play = started();
    let (first, second) = (device(&play, 0), device(&play, 1));
    let mut value = 7_u32;
    let place = &raw mut value;
    for (two, level, same) in [(first, 0, 1), (second, 50, 0)] {
        assert_eq!(
            nv!(play, nvmlDeviceGetTopologyCommonAncestor(first: usize, two: usize, place: *mut u32)),
            0
        );
        assert_eq!(value, level);
        assert_eq!(nv!(play, nvmlDeviceOnSameBoard(first: usize, two: usize, place: *mut u32)), 0);
        assert_eq!(value, same);
    }
    let code = nv!(play, nvmlDeviceGetTopologyCommonAncestor(first: usize, 0: usize, place: *mut u32));
    assert_eq!(code, INVALID_ARGUMENT);
    value = 7;
    let code = nv!(play, nvmlDeviceGetTopologyNearestGpus(first: usize, 50: u32, place: *mut u32, NULL: *mut c_void));
    assert_eq!((code, value), (0, 0));
    // The first reads and writes the second's memory, which is all that is known; the second reaches nothing.
    for (one, two, statuses) in
        [(first, first, [0; 5]), (first, second, [0, 0, 5, 5, 5]), (second, first, [5; 5])]
    {
        for (kind, status) in (0..).zip(statuses) {
            value = 7;
            let code = nv!(play, nvmlDeviceGetP2PStatus(one: usize, two: usize, kind: u32, place: *mut u32));
            assert_eq!((code, value), (0, status), "kind {kind}");
        }
        let code = nv!(play, nvmlDeviceGetP2PStatus(one: usize, two: usize, 5: u32, place: *mut u32));
        assert_eq!(code, INVALID_ARGUMENT);
    }
    let code = nv!(play, nvmlDeviceGetP2PStatus(first: usize, 0: usize, 0: u32, place: *mut u32));
    assert_eq!(code, INVALID_ARGUMENT);
    // What PyTorch asks: it ends its search at the first link that is none.
    assert_eq!(
        nv!(play, nvmlDeviceGetNvLinkRemoteDeviceType(second: usize, 0: u32, place: *mut u32)),
        NOT_SUPPORTED
    );
    assert_eq!(
        nv!(play, nvmlDeviceGetNvLinkRemotePciInfo_v2(second: usize, 0: u32, place: *mut u32)),
        NOT_SUPPORTED
    );
    // And takes any result but success here for a defect.
    for (version, bytes) in [(2_u32, 36_u32), (3, 40)] {
        let mut fabric = [0xff_u8; 44];
        fabric[..4].copy_from_slice(&(bytes | version << 24).to_le_bytes());
        let place = fabric.as_mut_ptr();
        assert_eq!(nv!(play, nvmlDeviceGetGpuFabricInfoV(first: usize, place: *mut u8)), 0);
        assert_eq!(fabric[28], 0, "state: not supported");
        assert!(fabric[bytes as usize..].iter().all(|byte| *byte == 0xff), "version {version}");
    }
    let mut fabric = [0_u32; 11];
    let place = fabric.as_mut_ptr();
    assert_eq!(nv!(play, nvmlDeviceGetGpuFabricInfoV(first: usize, place: *mut u32)), VERSION_MISMATCH);
    assert_eq!(nv!(play, nvmlDeviceGetGpuFabricInfoV(first: usize, NULL: *mut c_void)), INVALID_ARGUMENT);
    assert_eq!(nv!(play, nvmlDeviceGetGpuFabricInfo(first: usize, place: *mut u32)), 0);
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

/// Most of NVML. A buffer as large as any of its structures is given in each place, so that a call which does more than refuse is seen.
#[test]
fn what_is_not_answered_refuses_and_writes_nothing() {
    let play = Play::begin();
    let refused: Vec<_> =
        names::NAMES.iter().filter(|row| answered::subject_of(row.name).is_none()).collect();
    assert!(refused.len() > 300, "{}", refused.len());
    let mut buffer = vec![0x5a_u8; 64 << 10];
    let place = buffer.as_mut_ptr();
    let ask = |name: &str, first: usize| {
        let address = play.symbol(name);
        assert!(!address.is_null(), "{name}");
        // SAFETY: exports that refuse read at most their first parameter; all have C's calling convention.
        let function = unsafe {
            std::mem::transmute::<*mut c_void, extern "C" fn(usize, *mut u8, *mut u8, *mut u8) -> u32>(
                address,
            )
        };
        function(first, place, place, place)
    };
    for row in &refused {
        assert_eq!(ask(row.name, 0), UNINITIALIZED, "{} before the start", row.name);
    }
    assert_eq!(nv!(play, nvmlInit_v2()), 0);
    let first = device(&play, 0);
    for row in &refused {
        assert_eq!(ask(row.name, first), NOT_SUPPORTED, "{}", row.name);
        let of_none = if row.on_device { INVALID_ARGUMENT } else { NOT_SUPPORTED };
        for none in [0, first.wrapping_sub(1), first + 2, usize::MAX] {
            assert_eq!(ask(row.name, none), of_none, "{} of {none:#x}", row.name);
        }
    }
    assert!(buffer.iter().all(|byte| *byte == 0x5a));
}

#[test]
fn what_is_answered_refuses_before_the_start_and_a_device_that_is_none() {
    let play = Play::begin();
    let free = ["nvmlInit", "nvmlInit_v2", "nvmlInitWithFlags", "nvmlShutdown", "nvmlErrorString"];
    let mut buffer = vec![0_u8; 64 << 10];
    let place = buffer.as_mut_ptr();
    let ask = |name: &str, first: usize| {
        // SAFETY: every place is larger than what the calls read or write; numbers among the parameters are addresses' low halves,
        // and a count read from the buffer is 0.
        let function = unsafe {
            std::mem::transmute::<*mut c_void, extern "C" fn(usize, *mut u8, *mut u8, *mut u8) -> u32>(
                play.symbol(name),
            )
        };
        function(first, place, place, place)
    };
    let rows = names::NAMES
        .iter()
        .filter(|row| answered::subject_of(row.name).is_some() && !free.contains(&row.name));
    let rows: Vec<_> = rows.collect();
    for row in &rows {
        assert_eq!(ask(row.name, 0), UNINITIALIZED, "{}", row.name);
    }
    assert_eq!(nv!(play, nvmlInit_v2()), 0);
    for row in rows.iter().filter(|row| row.on_device) {
        for none in [0, device(&play, 1) + 1, usize::MAX] {
            assert_eq!(ask(row.name, none), INVALID_ARGUMENT, "{} of {none:#x}", row.name);
        }
    }
}
