use super::*;
use crate::wire::{from_slice, to_vec};

const FLOATS: ArrayShape = ArrayShape { width: 64, height: 0, depth: 0, format: 0x20, channels: 1, flags: 0 };

#[test]
fn sizes_flags_and_formats_fit_each_other_or_are_1() {
    let two = ArrayShape { height: 64, ..FLOATS };
    let (good, bad, not_offered) = (Ok(()), Err(CuError::INVALID_VALUE), Err(CuError::NOT_SUPPORTED));
    for (shape, wanted) in [
        (FLOATS, good),
        (two, good),
        (ArrayShape { depth: 7, ..two }, good),
        (ArrayShape { depth: 7, ..FLOATS }, bad),
        (ArrayShape { depth: 7, flags: flag::LAYERED, ..FLOATS }, good),
        (ArrayShape { flags: flag::LAYERED, ..FLOATS }, bad),
        (ArrayShape { depth: 6, flags: flag::CUBEMAP, ..two }, good),
        (ArrayShape { depth: 12, flags: flag::CUBEMAP, ..two }, bad),
        (ArrayShape { depth: 12, flags: flag::CUBEMAP | flag::LAYERED, ..two }, good),
        (ArrayShape { depth: 6, width: 63, flags: flag::CUBEMAP, ..two }, bad),
        (ArrayShape { flags: flag::GATHER, ..two }, good),
        (ArrayShape { flags: flag::GATHER, ..FLOATS }, bad),
        (ArrayShape { width: 0, ..two }, bad),
        (ArrayShape { width: u64::MAX, ..two }, bad),
        (ArrayShape { channels: 3, ..two }, bad),
        (ArrayShape { format: 0x21, ..two }, bad),
        (ArrayShape { format: 0xb0, ..two }, not_offered),
        (ArrayShape { format: 0xc1, ..two }, bad),
        (ArrayShape { format: 0xc1, channels: 2, ..two }, good),
        (ArrayShape { flags: 0x40, ..two }, not_offered),
        (ArrayShape { flags: 0x200, ..two }, bad),
    ] {
        assert_eq!(shape.check(), wanted, "{shape:?}");
    }
}

#[test]
fn each_kind_of_array_has_its_own_limits() {
    // The limit of attribute n is 100 n.
    let fits = |shape: ArrayShape, mipmapped| {
        shape.fits(mipmapped, |number| i32::try_from(number).unwrap() * 100).is_ok()
    };
    let one = |width| ArrayShape { width, ..FLOATS };
    assert!(fits(one(2100), false) && !fits(one(2101), false) && fits(one(7700), true));
    assert!(fits(ArrayShape { flags: flag::SURFACE, ..one(2100) }, false));
    let two = |width, height| ArrayShape { height, ..one(width) };
    assert!(fits(two(2200, 2300), false) && !fits(two(2200, 2301), false) && fits(two(7300, 7400), true));
    assert!(fits(ArrayShape { flags: flag::GATHER, ..two(4500, 4600) }, false));
    let three = |width, height, depth, flags| ArrayShape { depth, flags, ..two(width, height) };
    assert!(fits(three(2400, 2500, 2600, 0), false) && fits(three(4700, 4800, 4900, 0), false));
    assert!(!fits(three(4700, 4800, 4901, 0), false));
    let (layered, cube) = (flag::LAYERED, flag::CUBEMAP);
    assert!(fits(three(4200, 0, 4300, layered), false) && !fits(three(4200, 0, 4301, layered), false));
    assert!(fits(three(2700, 2800, 2900, layered), false) && !fits(three(2701, 1, 1, layered), false));
    assert!(fits(three(5200, 5200, 6, cube), false) && !fits(three(5201, 5201, 6, cube), false));
    assert!(!fits(three(5300, 5300, 5406, cube | layered), false));
    assert!(!fits(ArrayShape { flags: flag::SURFACE, ..one(5600) }, true), "a surface's limit is another");
}

#[test]
fn levels_halve_every_side_but_layers() {
    let shape = ArrayShape { width: 100, height: 30, depth: 5, ..FLOATS };
    assert_eq!(shape.levels_max(), 7);
    assert_eq!(shape.level(2), ArrayShape { width: 25, height: 7, depth: 1, ..shape });
    assert_eq!(shape.level(6).extent(), [1, 1, 1]);
    let layered = ArrayShape { flags: flag::LAYERED, ..shape };
    assert_eq!(layered.level(6).extent(), [1, 1, 5]);
    assert_eq!((FLOATS.level(3).height, FLOATS.level(3).width), (0, 8));
    assert_eq!(ArrayShape { height: 2, ..FLOATS }.bytes_of_levels(2), Some(4 * (128 + 32)));
}

#[test]
fn a_box_lies_inside_and_between_elements() {
    let shape = ArrayShape { height: 8, depth: 2, ..FLOATS };
    let size = Extent { width_bytes: 16, height: 2, depth: 1 };
    let check = |corner, size| shape.check_box(corner, size).is_ok();
    assert!(check([240, 6, 1], size));
    assert!(!check([244, 6, 1], size) && !check([240, 7, 1], size) && !check([240, 6, 2], size));
    assert!(!check([2, 0, 0], size) && !check([0, 0, 0], Extent { width_bytes: 15, ..size }));
    assert!(!check([u64::MAX - 3, 0, 0], size) && !check([0, u64::MAX, 0], size));
}

#[test]
fn rows_of_device_memory_do_not_overlap_and_end_somewhere() {
    let place = LinearPlace { at: DevicePtr(0), pitch: 100, height: 10 };
    let span =
        |place: LinearPlace, width_bytes, height, depth| place.span(Extent { width_bytes, height, depth });
    assert_eq!(span(place, 100, 10, 2), Some(2000));
    assert_eq!(span(place, 101, 2, 1), None);
    assert_eq!(span(place, 101, 1, 2), None);
    assert_eq!(span(place, 101, 1, 1), Some(101));
    assert_eq!(span(place, 10, 11, 2), None);
    assert_eq!(span(LinearPlace { pitch: u64::MAX, ..place }, 1, 3, 1), None);
    assert_eq!(span(LinearPlace { height: u64::MAX, ..place }, 1, 3, 2), None);
    assert_eq!(span(place, u64::MAX, 0, 9), Some(0));
}

#[test]
fn pieces_cover_a_box_once_and_fit_the_room() {
    for (width_bytes, height, depth) in [(12, 5, 7), (100, 3, 2), (1000, 2, 2), (12, 0, 4)] {
        for room in [16, 60, 100, 128, 10_000] {
            let size = Extent { width_bytes, height, depth };
            let mut seen = std::collections::BTreeSet::new();
            for ([x, y, z], piece) in size.pieces(4, room) {
                assert!(piece.bytes().unwrap() <= room && x % 4 == 0 && piece.width_bytes % 4 == 0);
                for place in 0..piece.bytes().unwrap() {
                    let (row, slice) = (piece.width_bytes, piece.width_bytes * piece.height);
                    let at = [x + place % row, y + place % slice / row, z + place / slice];
                    assert!(seen.insert(at), "{at:?} twice");
                }
            }
            assert_eq!(seen.len() as u64, size.bytes().unwrap(), "{size:?} in {room}");
        }
    }
}

#[test]
fn a_side_comes_back_whole_and_every_cut_is_an_error() {
    let linear = BoxSide::Linear(LinearPlace { at: DevicePtr(7), pitch: 8, height: 9 });
    let array = BoxSide::Array(ArrayPlace { array: ArrayHandle::new(1, 2), x_bytes: 3, y: 4, z: 5 });
    for side in [linear, array] {
        let bytes = to_vec(&side);
        assert_eq!(from_slice::<BoxSide>(&bytes), Ok(side));
        assert!((0..bytes.len()).all(|cut| from_slice::<BoxSide>(&bytes[..cut]).is_err()));
    }
    assert!(from_slice::<BoxSide>(&[2; 33]).is_err());
}
