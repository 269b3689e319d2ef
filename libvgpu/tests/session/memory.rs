//! Allocations, and bytes on their way.

use vgpu_api::ContextId;

use super::*;

/// More bytes than the device has.
const TOO_MUCH: usize = 1 << 40;
const OUT_OF_MEMORY: u32 = 2;

#[test]
fn bytes_of_every_size_come_back_whole() {
    let session = session();
    for len in [1usize, 4096, 32 * 1024, 32 * 1024 + 1, 3 << 20, (9 << 20) + 5] {
        let address = alloc(&session, len);
        let pattern: Vec<u8> = (0..len).map(|i| u8::try_from((i * 31 + len) % 251).unwrap()).collect();
        assert_eq!(write(&session, address, &pattern), OK);
        assert!(read(&session, address, len) == pattern, "{len} bytes");
        free(&session, address);
    }
}

#[test]
fn unified_copies_find_their_direction_and_bad_lengths_are_refused_at_once() {
    let session = session();
    let address = alloc(&session, 64);
    let (bytes, mut back) = ([7u8; 64], [0u8; 64]);
    let (from, to) = (bytes.as_ptr() as u64, back.as_mut_ptr() as u64);
    assert_eq!(cu!(session.libcuda, cuMemcpy(address: u64, from: u64, 64: usize)), OK);
    assert_eq!(cu!(session.libcuda, cuMemcpyAsync(to: u64, address: u64, 64: usize, 0: u64)), OK);
    assert_eq!(back, bytes);
    assert_eq!(write(&session, address, &[0; 65]), INVALID_VALUE);
    assert_eq!(write(&session, 0x10, &[0; 4]), OK, "an address nobody knows is the worker's to refuse");
    assert_eq!(synchronize(&session), INVALID_VALUE, "and comes with the next call");
    assert_eq!(synchronize(&session), OK, "once");
    free(&session, address);
}

#[test]
fn sets_fill_rows_and_elements() {
    let session = session();
    let address = alloc(&session, 64);
    assert_eq!(cu!(session.libcuda, cuMemsetD32_v2(address: u64, 0x0403_0201: u32, 16: usize)), OK);
    assert_eq!(cu!(session.libcuda, cuMemsetD2D8_v2(address: u64, 16: usize, 9: u8, 2: usize, 4: usize)), OK);
    let bytes = read(&session, address, 64);
    assert_eq!(
        (&bytes[..4], &bytes[16..20], &bytes[62..]),
        (&[9, 9, 3, 4][..], &[9, 9, 3, 4][..], &[3, 4][..])
    );
    let odd = address + 2;
    assert_eq!(cu!(session.libcuda, cuMemsetD32_v2(odd: u64, 0: u32, 1: usize)), INVALID_VALUE);
    free(&session, address);
}

#[test]
fn an_allocation_too_large_says_2_and_pointers_know_what_they_are() {
    let session = session();
    let mut place = 0u64;
    let at = &raw mut place;
    assert_eq!(cu!(session.libcuda, cuMemAlloc_v2(at: *mut u64, TOO_MUCH: usize)), OUT_OF_MEMORY);
    let address = alloc(&session, 4096);
    let inside = address + 100;
    let (mut kind, mut base, mut bytes) = (0u32, 0u64, 0usize);
    let (kind_at, base_at, bytes_at) = (&raw mut kind, &raw mut base, &raw mut bytes);
    assert_eq!(cu!(session.libcuda, cuPointerGetAttribute(kind_at: *mut u32, 2: u32, inside: u64)), OK);
    assert_eq!(
        cu!(session.libcuda, cuMemGetAddressRange_v2(base_at: *mut u64, bytes_at: *mut usize, inside: u64)),
        OK
    );
    assert_eq!((kind, base, bytes), (2, address, 4096));
    let mine = &raw const kind as u64;
    assert_eq!(
        cu!(session.libcuda, cuPointerGetAttribute(kind_at: *mut u32, 2: u32, mine: u64)),
        INVALID_VALUE
    );
    let (numbers, places) = ([2u32, 3], [kind_at as u64, base_at as u64]);
    let (numbers_at, places_at) = (numbers.as_ptr(), places.as_ptr());
    assert_eq!(
        cu!(session.libcuda, cuPointerGetAttributes(2: u32, numbers_at: *const u32, places_at: *const u64, mine: u64)),
        OK
    );
    assert_eq!((kind, base), (0, 0), "unregistered host memory: success, type 0");
    free(&session, address);
    assert_eq!(cu!(session.libcuda, cuMemFree_v2(address: u64)), INVALID_VALUE, "twice");
}

/// `CUDA_MEMCPY3D`, both sides on the device or in host memory, as 25 words.
fn copy_3d(
    src: (u32, u64, [u64; 3], u64, u64),
    dst: (u32, u64, [u64; 3], u64, u64),
    size: [u64; 3],
) -> [u64; 25] {
    let mut words = [0; 25];
    for (at, (kind, address, [x, y, z], pitch, height)) in [(0, src), (11, dst)] {
        let (host, device) = if kind == 1 { (address, 0) } else { (0, address) };
        words[at..at + 11].copy_from_slice(&[x, y, z, 0, kind.into(), host, device, 0, 0, pitch, height]);
    }
    words[22..].copy_from_slice(&size);
    words
}

#[test]
fn a_box_of_bytes_is_copied_row_by_row_and_nothing_beside_it() {
    let session = session();
    // Two slices of three rows of sixteen bytes on the device; of each the middle 4 x 2 bytes are set from packed host memory.
    let address = alloc(&session, 96);
    assert_eq!(cu!(session.libcuda, cuMemsetD8_v2(address: u64, 0xee: u8, 96: usize)), OK);
    let source: Vec<u8> = (1..=16).collect();
    let words = copy_3d((1, source.as_ptr() as u64, [0; 3], 4, 2), (2, address, [6, 1, 0], 16, 3), [4, 2, 2]);
    let at = words.as_ptr();
    assert_eq!(cu!(session.libcuda, cuMemcpy3D_v2(at: *const u64)), OK);
    let bytes = read(&session, address, 96);
    let mut wanted = vec![0xee; 96];
    for (row, start) in [22, 38, 70, 86].into_iter().enumerate() {
        wanted[start..start + 4].copy_from_slice(&source[4 * row..4 * row + 4]);
    }
    assert_eq!(bytes, wanted);
    // And back, by the form for two contexts of one device.
    let mut back = [0u8; 16];
    let primary = ContextId::primary(0).handle().raw();
    let mut words =
        copy_3d((2, address, [6, 1, 0], 16, 3), (1, back.as_mut_ptr() as u64, [0; 3], 4, 2), [4, 2, 2]);
    (words[8], words[19]) = (primary, primary);
    let at = words.as_ptr();
    assert_eq!(cu!(session.libcuda, cuMemcpy3DPeer(at: *const u64)), OK);
    assert_eq!(back, source[..]);
    words[9] = 8; // rows that overlap: 6 bytes in, 4 wide, 8 apart
    let at = words.as_ptr();
    assert_eq!(cu!(session.libcuda, cuMemcpy3DPeer(at: *const u64)), INVALID_VALUE);
    let other = alloc(&session, 96);
    assert_eq!(
        cu!(session.libcuda, cuMemcpyPeer(other: u64, primary: u64, address: u64, primary: u64, 96: usize)),
        OK
    );
    assert_eq!(read(&session, other, 96), wanted);
    free(&session, address);
    free(&session, other);
}

#[test]
fn rows_to_the_host_are_asked_for_together() {
    let session = session();
    // Rows of 1000 bytes, 1024 apart: 2.4 MB, three questions of a megabyte at most.
    const ROWS: usize = 2500;
    let (address, pattern) =
        (alloc(&session, ROWS * 1024), (0..ROWS * 1024).map(|i| u8::try_from(i * 13 % 251).unwrap()));
    let pattern: Vec<u8> = pattern.collect();
    assert_eq!(write(&session, address, &pattern), OK);
    let mut back = vec![0u8; ROWS * 1000];
    // `CUDA_MEMCPY2D`, as 16 words: source, destination, width, height.
    let words =
        [0, 0, 2, 0, address, 0, 1024, 0, 0, 1, back.as_mut_ptr() as u64, 0, 0, 1000, 1000, ROWS as u64];
    let at = words.as_ptr();
    assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), OK);
    session.seen.lock().unwrap().calls.clear();
    assert_eq!(cu!(session.libcuda, cuMemcpy2D_v2(at: *const u64)), OK);
    let wanted: Vec<u8> = pattern.chunks(1024).flat_map(|row| &row[..1000]).copied().collect();
    assert!(back == wanted);
    assert_eq!(session.seen.lock().unwrap().calls, ["copy, then wait"; 3]);
    free(&session, address);
}
