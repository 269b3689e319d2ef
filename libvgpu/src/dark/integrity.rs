//! The answer to cudart's integrity check. Computed here because its inputs are the process's own.
//!
//! Own code, for interoperability. The algorithm is described publicly by ZLUDA's crate `dark_api`
//! (<https://github.com/vosen/ZLUDA>, MIT or Apache-2.0): an HMAC-MD2 over what the process can see of its driver.

use vgpu_api::DeviceSnapshot;

use super::md2::hmac_md2;

/// Of versions that end in 0 and 1 the answer is a constant.
const CONSTANT_0: [u64; 2] = [0x3341_181C_03CB_675C, 0x8ED3_83AA_1F4C_D1E8];
const CONSTANT_1: [u64; 2] = [0x1841_181C_03CB_675C, 0x8ED3_83AA_1F4C_D1E8];
const KEY: [u8; 16] =
    [0x14, 0x6A, 0xDD, 0xAE, 0x53, 0xA9, 0xA7, 0x52, 0xAA, 0x08, 0x41, 0x36, 0x0B, 0xF5, 0x5A, 0x9F];

/// What is hashed, in order.
#[derive(Debug, Clone)]
pub struct Inputs<'a> {
    /// As `cuDriverGetVersion` told the program.
    pub driver_version: u32,
    /// The check's own argument.
    pub version: u32,
    pub pid: u32,
    /// Low half of `pthread_self`.
    pub thread: u32,
    /// Addresses of the tables CUDART_INTERFACE and INTEGRITY_CHECK, and of the check.
    pub cudart_table: u64,
    pub integrity_table: u64,
    pub check: u64,
    pub unix_seconds: u64,
    /// As the guest's own calls report them.
    pub devices: &'a [DeviceSnapshot],
}

/// The answer, as two words in memory order.
pub fn answer(inputs: &Inputs<'_>) -> [u64; 2] {
    match inputs.version % 10 {
        0 => CONSTANT_0,
        1 => CONSTANT_1,
        _ => {
            let digest = hmac_md2(&KEY, &message(inputs));
            let word = |half: usize| u64::from_le_bytes(std::array::from_fn(|i| digest[8 * half + i]));
            [word(0), word(1)]
        }
    }
}

/// 48 bytes, then 28 for each device; little endian.
fn message(inputs: &Inputs<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(48 + 28 * inputs.devices.len());
    for word in [inputs.driver_version, inputs.version, inputs.pid, inputs.thread] {
        bytes.extend(word.to_le_bytes());
    }
    for word in [inputs.cudart_table, inputs.integrity_table, inputs.check, inputs.unix_seconds] {
        bytes.extend(word.to_le_bytes());
    }
    for device in inputs.devices {
        bytes.extend(device.uuid);
        for part in [device.pci.domain, device.pci.bus, device.pci.device] {
            bytes.extend(part.to_le_bytes());
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use vgpu_api::PciAddress;

    fn inputs(version: u32, devices: &[DeviceSnapshot]) -> Inputs<'_> {
        Inputs {
            driver_version: 13000,
            version,
            pid: 1,
            thread: 2,
            cudart_table: 3,
            integrity_table: 4,
            check: 5,
            unix_seconds: 6,
            devices,
        }
    }

    #[test]
    fn the_first_two_of_the_three_checks_have_constant_answers() {
        assert_eq!(answer(&inputs(13000, &[])), CONSTANT_0);
        assert_eq!(answer(&inputs(12081, &[])), CONSTANT_1);
    }

    #[test]
    fn the_message_has_its_published_layout_and_the_answer_depends_on_it() {
        let device = DeviceSnapshot {
            name: String::new(),
            uuid: [9; 16],
            pci: PciAddress { domain: 1, bus: 2, device: 3 },
            total_memory: 0,
            attributes: Vec::new(),
        };
        let devices = [device];
        let bytes = message(&inputs(13002, &devices));
        assert_eq!(bytes.len(), 48 + 28);
        assert_eq!(bytes[..16], [0xc8, 0x32, 0, 0, 0xca, 0x32, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(bytes[64..], [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]);
        assert_ne!(answer(&inputs(13002, &devices)), answer(&inputs(13002, &[])));
    }
}
