//! What devices say of themselves: answered in the process.

use vgpu_api::snapshot::is_offered;

use super::*;

#[test]
fn devices_are_answered_from_the_snapshot() {
    let session = session();
    let (mut count, mut name, mut major, mut bytes, mut uuid) = (0i32, [0u8; 32], 0i32, 0usize, [0u8; 16]);
    let (count_at, name_at, major_at, bytes_at, uuid_at) =
        (&raw mut count, name.as_mut_ptr(), &raw mut major, &raw mut bytes, uuid.as_mut_ptr());
    let before = session.call_count();
    assert_eq!(cu!(session.libcuda, cuDeviceGetCount(count_at: *mut i32)), OK);
    assert_eq!(cu!(session.libcuda, cuDeviceGetName(name_at: *mut u8, 32: i32, 1: i32)), OK);
    assert_eq!(cu!(session.libcuda, cuDeviceGetAttribute(major_at: *mut i32, 75: u32, 0: i32)), OK);
    assert_eq!(cu!(session.libcuda, cuDeviceTotalMem_v2(bytes_at: *mut usize, 0: i32)), OK);
    assert_eq!(cu!(session.libcuda, cuDeviceGetUuid(uuid_at: *mut u8, 1: i32)), OK);
    assert_eq!((count, &name[..7], major, bytes, uuid), (2, &b"fake 1\0"[..], 9, 1 << 30, [2; 16]));
    for attribute in 1..148u32 {
        assert_eq!(
            cu!(session.libcuda, cuDeviceGetAttribute(major_at: *mut i32, attribute: u32, 0: i32)),
            OK,
            "{attribute}"
        );
        // The fake device says 1 to all of these.
        if !is_offered(attribute) {
            assert_eq!(major, 0, "{attribute}");
        }
    }
    // What CUDA 13.0 has no name for, as from a driver that does not know it.
    for attribute in [0, 148, 149, 159, 160, 4000, u32::MAX] {
        let code = cu!(session.libcuda, cuDeviceGetAttribute(major_at: *mut i32, attribute: u32, 0: i32));
        assert_eq!(code, INVALID_VALUE, "{attribute}");
    }
    assert_eq!(cu!(session.libcuda, cuDeviceGetName(name_at: *mut u8, 32: i32, 2: i32)), 101);
    assert_eq!(session.call_count(), before, "nothing of it travels");
}

#[test]
fn what_old_programs_ask_of_a_device_is_made_of_its_attributes() {
    let session = session();
    let (mut properties, mut value) = ([0i32; 14], 9i32);
    let (at, value_at) = (&raw mut properties, &raw mut value);
    assert_eq!(cu!(session.libcuda, cuDeviceGetProperties(at: *mut [i32; 14], 0: i32)), OK);
    assert_eq!((properties[0], properties[3], properties[7], properties[9]), (1024, 64, 49152, 32));
    assert_eq!(cu!(session.libcuda, cuDeviceGetP2PAttribute(value_at: *mut i32, 2: u32, 1: i32, 0: i32)), OK);
    assert_eq!(value, 0);
    assert_eq!(
        cu!(session.libcuda, cuDeviceGetP2PAttribute(value_at: *mut i32, 2: u32, 0: i32, 0: i32)),
        101
    );
}
