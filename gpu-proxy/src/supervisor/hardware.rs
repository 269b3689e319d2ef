//! Which GPU is which: a worker's driver is shown those of its grant by name, and may open their nodes in `/dev` and no others.

use std::fs;

use super::Supervisor;
use super::zones::Place;
use crate::device::Hardware;

/// What NVIDIA's driver goes by.
pub(super) const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";
/// One folder a GPU, by its PCI address. Source: NVIDIA's README, "The /proc/driver/nvidia directory".
const GPUS: &str = "/proc/driver/nvidia/gpus";

impl Supervisor {
    /// What a worker's `CUDA_VISIBLE_DEVICES` is; `None`: as ours, where there is no choice.
    pub(super) fn visible(&self, place: &Place) -> Option<String> {
        let hardware = self.known_hardware();
        if hardware.len() < 2 {
            return None;
        }
        let name = |(number, _): &(u32, _)| hardware.get(*number as usize).map(Hardware::name);
        let names: Option<Vec<String>> = place.devices.iter().map(name).collect();
        names.map(|names| names.join(","))
    }

    /// The numbers of the nodes `/dev/nvidia…` that a worker needs; `None` if that of one of its devices is not known.
    pub(super) fn nodes(&self, place: &Place) -> Option<Vec<u32>> {
        let hardware = self.known_hardware();
        let node = |(number, _): &(u32, _)| hardware.get(*number as usize).and_then(node_of);
        place.devices.iter().map(node).collect()
    }
}

fn node_of(hardware: &Hardware) -> Option<u32> {
    let [domain, bus, device] = hardware.pci;
    let path = format!("{GPUS}/{domain:04x}:{bus:02x}:{device:02x}.0/information");
    minor_in(&fs::read_to_string(path).ok()?)
}

/// The line `Device Minor: 3`.
fn minor_in(information: &str) -> Option<u32> {
    let mut minors = information.lines().filter_map(|line| line.strip_prefix("Device Minor:"));
    minors.next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_named_as_its_driver_names_it_and_its_node_is_read() {
        let uuid: [u8; 16] = *b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef";
        let hardware = Hardware { uuid, pci: [0, 0x2d, 0], links: 0 };
        assert_eq!(hardware.name(), "GPU-01234567-89ab-cdef-0123-456789abcdef");
        let information =
            "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 201\nDevice Minor: \t 3\nGPU Excluded:\t No\n";
        assert_eq!(minor_in(information), Some(3));
        assert_eq!((minor_in("Model: x\n"), minor_in("Device Minor: -\n")), (None, None));
    }
}
