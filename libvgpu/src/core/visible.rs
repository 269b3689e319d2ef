//! `CUDA_VISIBLE_DEVICES`, as NVIDIA's driver reads it: ordinals or UUIDs, the list ends at the first that names no device.

use vgpu_api::DeviceSnapshot;

/// The places of the devices that the program sees, in its order.
pub fn choose(devices: &[DeviceSnapshot], list: Option<&str>) -> Vec<usize> {
    let Some(list) = list else { return (0..devices.len()).collect() };
    let mut chosen: Vec<usize> = Vec::new();
    for word in list.split(',').map(str::trim) {
        match find(devices, word) {
            Some(place) if !chosen.contains(&place) => chosen.push(place),
            // A device named twice makes the whole list invalid.
            Some(_) => return Vec::new(),
            None => break,
        }
    }
    chosen
}

fn find(devices: &[DeviceSnapshot], word: &str) -> Option<usize> {
    if let Ok(ordinal) = word.parse::<usize>() {
        return (ordinal < devices.len()).then_some(ordinal);
    }
    let digits: String = word.strip_prefix("GPU-")?.chars().filter(|letter| *letter != '-').collect();
    let mut matching = devices
        .iter()
        .enumerate()
        .filter(|(_, device)| hex(&device.uuid).starts_with(&digits.to_lowercase()));
    match (matching.next(), matching.next()) {
        // A prefix is enough while it names one device.
        (Some((place, _)), None) if !digits.is_empty() => Some(place),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vgpu_api::PciAddress;

    fn devices() -> Vec<DeviceSnapshot> {
        (0..3u8)
            .map(|number| DeviceSnapshot {
                name: number.to_string(),
                uuid: [0x10 + number; 16],
                pci: PciAddress::default(),
                total_memory: 0,
                attributes: Vec::new(),
            })
            .collect()
    }

    fn names(list: Option<&str>) -> String {
        choose(&devices(), list).into_iter().map(|place| place.to_string()).collect()
    }

    #[test]
    fn the_list_chooses_orders_and_ends_at_the_first_stranger() {
        assert_eq!(names(None), "012");
        assert_eq!(names(Some("2,0")), "20");
        assert_eq!(names(Some("1,-1,0")), "1");
        assert_eq!(names(Some("")), "");
        assert_eq!(names(Some("NoDevFiles")), "");
        assert_eq!(names(Some("0,0")), "");
        assert_eq!(names(Some("GPU-12121212")), "2");
        assert_eq!(names(Some("GPU-1")), "", "the prefix names all three");
    }
}
