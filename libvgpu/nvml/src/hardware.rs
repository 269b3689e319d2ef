//! What follows from a device's name and compute capability.

/// `NVML_DEVICE_ARCH_*`; all ones for what is not known. Source: nvml.h, "Device Architecture".
pub fn architecture([major, minor]: [u16; 2]) -> u32 {
    match (major, minor) {
        (3, _) => 2,
        (5, _) => 3,
        (6, _) => 4,
        (7, 5) => 6,
        (7, _) => 5,
        (8, 9) => 8,
        (8, _) => 7,
        (9, _) => 9,
        (10 | 12, _) => 10,
        _ => u32::MAX,
    }
}

/// CUDA cores of a multiprocessor. Source: CUDA C++ Programming Guide, "Compute Capabilities".
pub fn cores_of_multiprocessor([major, minor]: [u16; 2]) -> Option<u32> {
    match (major, minor) {
        (3, _) => Some(192),
        (6, 0) | (7, _) | (8, 0) => Some(64),
        (5 | 6 | 8 | 9 | 10 | 12, _) => Some(128),
        _ => None,
    }
}

/// `nvmlBrandType_t` by the product's name.
pub fn brand(name: &str) -> u32 {
    const NAMES: [(&str, u32); 9] = [
        ("NVIDIA RTX", 13),
        ("Quadro RTX", 12),
        ("Quadro", 1),
        ("Tesla", 2),
        ("NVS", 3),
        ("GRID", 4),
        ("GeForce", 5),
        ("TITAN", 6),
        ("NVIDIA", 14),
    ];
    NAMES.iter().find(|(part, _)| name.contains(part)).map_or(0, |(_, brand)| *brand)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_products_are_what_they_are() {
        for (name, capability, expected) in [
            ("NVIDIA H100 80GB HBM3", [9, 0], (14, 9, Some(128))),
            ("NVIDIA A100-SXM4-80GB", [8, 0], (14, 7, Some(64))),
            ("NVIDIA GeForce RTX 4090", [8, 9], (5, 8, Some(128))),
            ("NVIDIA RTX A6000", [8, 6], (13, 7, Some(128))),
            ("Tesla T4", [7, 5], (2, 6, Some(64))),
            ("Tesla V100-SXM2-16GB", [7, 0], (2, 5, Some(64))),
            ("vgpu soft device", [99, 0], (0, u32::MAX, None)),
        ] {
            let found = (brand(name), architecture(capability), cores_of_multiprocessor(capability));
            assert_eq!(found, expected, "{name}");
        }
    }
}
