//! Links between devices, and where a device is.

use super::*;

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
    assert_eq!(&info[..36], b"FFFFFFF:FF:FF.0\0\xff\xff\xff\xff\xff\0\0\0\xff\0\0\0\0\0\0\0\xff\xff\xff\xff");
    // A program of that time has room for 36 bytes.
    let mut old = [0x55_u8; 68];
    let place = old.as_mut_ptr();
    assert_eq!(nv!(play, nvmlDeviceGetNvLinkRemotePciInfo(first: usize, 0: u32, place: *mut u8)), 0);
    assert_eq!((&old[..36], &old[36..]), (&info[..36], &[0x55; 32][..]));
    assert_eq!(
        nv!(play, nvmlDeviceGetNvLinkRemotePciInfo(first: usize, 12: u32, place: *mut u8)),
        NOT_SUPPORTED
    );
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
