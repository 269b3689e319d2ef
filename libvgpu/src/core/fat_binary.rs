//! Fat binaries hold a program's code for many GPUs. What no device of the process can run does not travel.
//!
//! ```text
//! 0 magic u32 | 4 version u16 | 6 header bytes u16 | 8 bytes of all entries u64
//! entry: 0 kind u16 (1 PTX, 2 machine code) | 4 header bytes u32 | 8 payload bytes u64 | 28 target u32 (90 for 9.0)
//! ```
//! Nothing is believed of it: the worker parses what comes. What is not as above goes as it is, and so does one with nothing that runs here: why it
//! is not loaded is the driver's to say.

use std::borrow::Cow;

use vgpu_api::DeviceSnapshot;

const MAGIC: [u8; 4] = 0xba55_ed50_u32.to_le_bytes();
const HEADER_BYTES_MIN: usize = 16;
const ENTRY_BYTES_MIN: usize = 64;
const PTX: u16 = 1;
const MACHINE_CODE: u16 = 2;
/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR`, and `…_MINOR`.
const MAJOR: u32 = 75;
const MINOR: u32 = 76;

/// What of an image travels.
pub fn for_devices<'a>(devices: &[DeviceSnapshot], image: &'a [u8]) -> Cow<'a, [u8]> {
    let target = |device: &DeviceSnapshot| {
        let [major, minor] = [MAJOR, MINOR].map(|number| device.attribute(number));
        u32::try_from(major? * 10 + minor?).ok()
    };
    let devices: Vec<u32> = devices.iter().filter_map(target).collect();
    reduced(&devices, image).map_or(Cow::Borrowed(image), Cow::Owned)
}

/// `None` if all of it travels.
fn reduced(devices: &[u32], image: &[u8]) -> Option<Vec<u8>> {
    let header_bytes = usize::from(u16::from_le_bytes(field(image, 6)?));
    let body_bytes = usize::try_from(u64::from_le_bytes(field(image, 8)?)).ok()?;
    if !image.starts_with(&MAGIC) || header_bytes < HEADER_BYTES_MIN {
        return None;
    }
    let (header, behind) = image.split_at_checked(header_bytes)?;
    let (mut body, behind) = behind.split_at_checked(body_bytes)?;
    let (mut travels, mut has_code) = (Vec::new(), false);
    while body.len() >= ENTRY_BYTES_MIN {
        let entry_bytes = usize::try_from(u32::from_le_bytes(field(body, 4)?)).ok()?;
        let payload_bytes = usize::try_from(u64::from_le_bytes(field(body, 8)?)).ok()?;
        if entry_bytes < ENTRY_BYTES_MIN {
            return None;
        }
        let (entry, rest) = body.split_at_checked(entry_bytes.checked_add(payload_bytes)?)?;
        let target = u32::from_le_bytes(field(entry, 28)?);
        let runs = match u16::from_le_bytes(field(entry, 0)?) {
            PTX => Some(devices.iter().any(|device| target <= *device)),
            MACHINE_CODE => Some(devices.iter().any(|device| runs_on(target, *device))),
            _ => None,
        };
        if runs != Some(false) {
            travels.push(entry);
            has_code |= runs == Some(true);
        }
        body = rest;
    }
    // Padding.
    travels.push(body);
    let travel_bytes = travels.iter().map(|entry| entry.len()).sum::<usize>();
    if !has_code || travel_bytes == body_bytes {
        return None;
    }
    let mut smaller = Vec::with_capacity(header_bytes + travel_bytes + behind.len());
    smaller.extend_from_slice(header);
    smaller[8..16].copy_from_slice(&(travel_bytes as u64).to_le_bytes());
    travels.into_iter().chain([behind]).for_each(|part| smaller.extend_from_slice(part));
    Some(smaller)
}

/// Source: CUDA programming guide, "Binary Compatibility": the same major number, and no smaller a minor one.
fn runs_on(target: u32, device: u32) -> bool {
    target / 10 == device / 10 && target <= device
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Entry = (u16, u32, &'static [u8]);
    const OLD: Entry = (MACHINE_CODE, 80, b"machine code of an earlier one. ");
    const OWN: Entry = (MACHINE_CODE, 90, b"of this one. ");
    const EARLY_PTX: Entry = (PTX, 75, b"any later one runs it. ");
    const LATE_PTX: Entry = (PTX, 100, b"for later ones. ");
    const OTHER: Entry = (64, 80, b"something else. ");

    fn container(entries: &[Entry], padding: usize) -> Vec<u8> {
        let mut body = Vec::new();
        for (kind, target, payload) in entries {
            let mut entry = [0xa5; 72];
            entry[..2].copy_from_slice(&kind.to_le_bytes());
            entry[4..8].copy_from_slice(&72_u32.to_le_bytes());
            entry[8..16].copy_from_slice(&(payload.len() as u64).to_le_bytes());
            entry[28..32].copy_from_slice(&target.to_le_bytes());
            body.extend(entry);
            body.extend(*payload);
        }
        body.resize(body.len() + padding, 0);
        let mut image = MAGIC.to_vec();
        image.extend([1, 0, 16, 0]);
        image.extend((body.len() as u64).to_le_bytes());
        image.extend(body);
        image
    }

    #[test]
    fn what_no_device_runs_stays_behind() {
        let all = [OLD, EARLY_PTX, OTHER, OWN, LATE_PTX];
        for (devices, wanted) in [
            (&[90][..], &[EARLY_PTX, OTHER, OWN][..]),
            (&[80], &[OLD, EARLY_PTX, OTHER]),
            (&[86], &[OLD, EARLY_PTX, OTHER]),
            (&[120], &[EARLY_PTX, OTHER, LATE_PTX]),
            (&[75], &[EARLY_PTX, OTHER]),
            (&[80, 90], &[OLD, EARLY_PTX, OTHER, OWN]),
        ] {
            let mut image = container(&all, 40);
            image.extend(b"behind it");
            let mut smaller = container(wanted, 40);
            smaller.extend(b"behind it");
            assert_eq!(reduced(devices, &image), Some(smaller), "{devices:?}");
        }
        let of_minor = [(MACHINE_CODE, 89, OLD.2), OLD];
        assert_eq!(reduced(&[86], &container(&of_minor, 0)), Some(container(&[OLD], 0)));
    }

    #[test]
    fn what_runs_whole_or_not_at_all_goes_as_it_is() {
        for (devices, entries) in [
            (&[90][..], &[EARLY_PTX, OWN, OTHER][..]),
            (&[90], &[OLD, LATE_PTX]),
            (&[70], &[OLD, EARLY_PTX, OTHER]),
            (&[], &[OWN, OLD]),
            (&[90], &[]),
        ] {
            assert_eq!(reduced(devices, &container(entries, 8)), None, "{devices:?}");
        }
    }

    #[test]
    fn what_is_no_such_container_goes_as_it_is() {
        let image = container(&[OLD, OWN], 0);
        assert!(reduced(&[90], &image).is_some());
        assert!((0..image.len()).all(|cut| reduced(&[90], &image[..cut]).is_none()));
        // The magic, lengths of the header, of all entries, of the first one's header, of its payload.
        for (at, value) in [(0, 1_u8), (6, 15), (7, 1), (15, 1), (20, 63), (23, 1), (24, 200), (31, 0xff)] {
            let mut broken = image.clone();
            broken[at] = value;
            assert_eq!(reduced(&[90], &broken), None, "byte {at}");
        }
        for other in [&b".version 8.0"[..], b"\x7fELF of some length that is longer than a header", b""] {
            assert_eq!(reduced(&[90], other), None);
        }
    }
}
