//! From an image as `cuModuleLoadData` gets it to the PTX text in it.
//!
//! Start at [`ptx_of`]. The bytes come from a guest: every offset is checked, sizes said by them are bounded before anything
//! is allocated. Formats: the reference's "Modules, libraries, fatbins"; `cuModuleLoadData` in the CUDA driver API.

mod fatbin;

use std::collections::HashMap;

use crate::module::GlobalInfo;
use crate::ptx::{self, ManagedVariable};

/// Longest PTX text accepted, in bytes; also the bound of what a compressed entry may expand to.
const TEXT_BYTES_MAX: usize = 64 << 20;
/// The bound of what compressed machine code may expand to, in bytes.
const MACHINE_CODE_BYTES_MAX: usize = 256 << 20;
const ELF_MAGIC: [u8; 4] = *b"\x7fELF";

/// Why an image was not loaded. All of them are the guest program's doing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// Neither PTX text nor a fatbin, or a broken one.
    #[error("invalid image: {0}")]
    Invalid(&'static str),
    /// Only machine code in it, or PTX for a newer GPU.
    #[error("no PTX for this device in the image: {0}")]
    NoBinary(&'static str),
    /// The PTX text is wrong.
    #[error("PTX line {line}: {what}")]
    Ptx {
        /// Line of the text, from 1.
        line: u32,
        /// What was wrong there.
        what: String,
    },
    /// Something this device cannot run.
    #[error("PTX line {line}: {what} is not supported by the software GPU")]
    Unsupported {
        /// Line of the text, from 1.
        line: u32,
        /// What is missing.
        what: String,
    },
}

impl ImageError {
    /// The CUDA driver's number for it. Source: `CUresult` of cuda.h.
    pub fn cu_result(&self) -> u32 {
        match self {
            ImageError::Invalid(_) => 200,
            ImageError::NoBinary(_) => 209,
            ImageError::Ptx { .. } | ImageError::Unsupported { .. } => 218,
        }
    }
}

/// The PTX in `image` for the highest target that `capability` (major, minor) can run.
pub(crate) fn ptx_of(image: &[u8], capability: (u32, u32)) -> Result<String, ImageError> {
    if image.starts_with(&ELF_MAGIC) {
        return Err(ImageError::NoBinary("it is machine code (a cubin)"));
    }
    if image.starts_with(&fatbin::MAGIC) {
        return text(fatbin::ptx_of(image, capability.0 * 10 + capability.1)?);
    }
    text(image.to_vec())
}

/// Hands out, one after the other, the machine code (cubins) in `image` that a device of `capability` (major, minor) runs, for who
/// has such a device. PTX holds none.
/// # Errors
/// [`ImageError::Invalid`] for a broken fatbin.
pub fn each_machine_code(
    image: &[u8],
    capability: (u32, u32),
    mut each: impl FnMut(&[u8]),
) -> Result<(), ImageError> {
    if image.starts_with(&ELF_MAGIC) {
        each(image);
    } else if image.starts_with(&fatbin::MAGIC) {
        fatbin::each_machine_code(image, capability.0 * 10 + capability.1, each)?;
    }
    Ok(())
}

/// Hands out the variables of each PTX in `image` that a driver may choose for a device of `capability` (major, minor), a text at a time:
/// for who has such a device.
/// # Errors
/// [`ImageError::Invalid`] for a broken fatbin, and for what is neither PTX nor machine code: a driver may know more forms of an image, as
/// one that says at which address the image is. [`ImageError::Ptx`] for a text whose variables cannot be known.
pub fn each_ptxs_variables(
    image: &[u8],
    capability: (u32, u32),
    mut each: impl FnMut(&[GlobalInfo]),
) -> Result<(), ImageError> {
    let mut look = |text: &[u8]| {
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        // It begins with a directive or a comment, and those may hold any bytes. Without a version it is no PTX for anybody.
        let begins = matches!(text.trim_ascii_start().first(), Some(b'.' | b'/'));
        let text = String::from_utf8_lossy(text);
        if !begins || !text.contains(".version") {
            return Err(ImageError::Invalid("it is neither PTX text nor a fatbin"));
        }
        each(&ptx::variables(&text)?);
        Ok(())
    };
    if image.starts_with(&fatbin::MAGIC) {
        fatbin::each_ptx(image, capability.0 * 10 + capability.1, look)
    } else if image.starts_with(&ELF_MAGIC) {
        Ok(())
    } else {
        look(image)
    }
}

/// What of an image a device takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chosen {
    /// Machine code (a cubin).
    MachineCode(Vec<u8>),
    /// PTX.
    Ptx(String),
}

/// What a device of `capability` (major, minor) takes of an image: machine code if it can run it and `runs_machine_code`, else the PTX
/// for the highest target.
/// # Errors
/// [`ImageError`]: there is nothing for it.
pub fn chosen(image: &[u8], capability: (u32, u32), runs_machine_code: bool) -> Result<Chosen, ImageError> {
    let sm = capability.0 * 10 + capability.1;
    let code = match image {
        _ if !runs_machine_code => None,
        code if code.starts_with(&ELF_MAGIC) => Some(code.to_vec()),
        fatbin if fatbin.starts_with(&fatbin::MAGIC) => fatbin::machine_code_of(fatbin, sm)?,
        _ => None,
    };
    code.map_or_else(|| ptx_of(image, capability).map(Chosen::Ptx), |code| Ok(Chosen::MachineCode(code)))
}

/// The managed variables of a PTX text.
/// # Errors
/// [`ImageError`]: they cannot be known, or can be no part of other memory.
pub fn managed_variables(text: &str) -> Result<Vec<ManagedVariable>, ImageError> {
    ptx::managed_variables(text)
}

/// A PTX text whose managed variables lie at `addresses`, by name: it declares them no more.
/// # Errors
/// [`ImageError`]: a use of one that is not understood.
pub fn place_managed(text: &str, addresses: &HashMap<String, u64>) -> Result<String, ImageError> {
    ptx::placed(text, addresses)
}

/// PTX is ASCII and ends at its first NUL.
fn text(mut bytes: Vec<u8>) -> Result<String, ImageError> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    if end > TEXT_BYTES_MAX {
        return Err(ImageError::Invalid("the PTX text is longer than 64 MiB"));
    }
    bytes.truncate(end);
    let text =
        String::from_utf8(bytes).map_err(|_| ImageError::Invalid("it is neither PTX text nor a fatbin"))?;
    if text.contains(".version") {
        Ok(text)
    } else {
        Err(ImageError::Invalid("it is neither PTX text nor a fatbin"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &[u8] = b".version 9.0\n.target sm_80\n.address_size 64\n";

    #[test]
    fn text_ends_at_its_nul() {
        let image = [TEXT, b"\0junk"].concat();
        assert_eq!(ptx_of(&image, (9, 0)).unwrap().as_bytes(), TEXT);
    }

    #[test]
    fn machine_code_alone_is_no_binary() {
        assert_eq!(ptx_of(b"\x7fELF\x02\x01", (9, 0)).unwrap_err().cu_result(), 209);
        assert_eq!(ptx_of(b"hello", (9, 0)).unwrap_err().cu_result(), 200);
        assert_eq!(ptx_of(b"", (9, 0)).unwrap_err().cu_result(), 200);
    }

    #[test]
    fn what_a_driver_may_know_and_nobody_here_does_is_no_image() {
        let of = |image: &[u8]| each_ptxs_variables(image, (9, 0), |_| {});
        of(TEXT).unwrap();
        of(&[b"\n // \xe9\n", TEXT].concat()).unwrap();
        // What cudart hands to a driver: version, and where a fatbin lies, which here would be the guest's to say.
        let wrapper = [0x4662_43b1_u32.to_le_bytes(), *b".ver", *b"sion", [0; 4], [0; 4], [0; 4]].concat();
        let lone = |payload: &[u8]| fatbin(&[entry(1, 90, 0, payload, 0)]);
        for image in [&wrapper[..], b"", b"\0.version", b"BC\xc0\xde .version", b".target sm_90"] {
            assert_eq!(of(image).unwrap_err().cu_result(), 200, "{image:?}");
            assert_eq!(of(&lone(image)).unwrap_err().cu_result(), 200, "{image:?} in a fatbin");
        }
    }

    #[test]
    fn entries_that_nobody_looked_at_are_refused() {
        let image = |count| fatbin(&vec![entry(1, 75, 0, TEXT, 0); count]);
        assert!(ptx_of(&image(1024), (9, 0)).is_ok());
        assert_eq!(ptx_of(&image(1025), (9, 0)).unwrap_err().cu_result(), 200);
        assert!(each_machine_code(&image(1025), (9, 0), |_| {}).is_err());
    }

    fn entry(kind: u16, sm: u32, flags: u64, payload: &[u8], expanded: u64) -> Vec<u8> {
        let mut entry = vec![0; 64];
        entry[0..2].copy_from_slice(&kind.to_le_bytes());
        entry[4..8].copy_from_slice(&64u32.to_le_bytes());
        entry[8..16].copy_from_slice(&(payload.len() as u64).to_le_bytes());
        entry[16..20].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        entry[28..32].copy_from_slice(&sm.to_le_bytes());
        entry[40..48].copy_from_slice(&flags.to_le_bytes());
        entry[56..64].copy_from_slice(&expanded.to_le_bytes());
        entry.extend_from_slice(payload);
        entry
    }

    fn fatbin(entries: &[Vec<u8>]) -> Vec<u8> {
        let body = entries.concat();
        let mut image = fatbin::MAGIC.to_vec();
        image.extend_from_slice(&[1, 0, 16, 0]);
        image.extend_from_slice(&(body.len() as u64).to_le_bytes());
        image.extend_from_slice(&body);
        image
    }

    #[test]
    fn the_highest_target_that_the_device_runs_is_taken() {
        let text = |sm: u32| format!(".version 9.0\n.target sm_{sm}\n").into_bytes();
        let entries: Vec<_> = [75, 90, 80, 120].map(|sm| entry(1, sm, 0, &text(sm), 0)).into();
        assert!(ptx_of(&fatbin(&entries), (9, 0)).unwrap().contains("sm_90"));
        let newer = fatbin(&[entry(1, 120, 0, &text(120), 0), entry(2, 90, 0, b"\x7fELF", 0)]);
        assert_eq!(ptx_of(&newer, (9, 0)).unwrap_err().cu_result(), 209);
    }

    #[test]
    fn machine_code_is_handed_out_for_the_devices_that_run_it() {
        let code = |sm: u8| [b"\x7fELF".as_slice(), &[sm; 100]].concat();
        let packed = lz4_flex::block::compress(&code(86));
        let entries = [
            entry(2, 75, 0, &code(75), 0),
            entry(2, 80, 0, &code(80), 0),
            entry(2, 86, 0x2000, &packed, code(86).len() as u64),
            entry(2, 90, 0, &code(90), 0),
            entry(1, 90, 0, TEXT, 0),
        ];
        let of = |image: &[u8], capability| {
            let mut codes = Vec::new();
            each_machine_code(image, capability, |code| codes.push(code.to_vec())).map(|()| codes)
        };
        let image = fatbin(&entries);
        assert_eq!(of(&image, (8, 6)).unwrap(), [code(80), code(86)]);
        assert_eq!(of(&image, (9, 0)).unwrap(), [code(90)]);
        assert_eq!(of(&code(75), (9, 0)).unwrap(), [code(75)]);
        assert!(of(TEXT, (9, 0)).unwrap().is_empty());
        let broken = fatbin(&[entry(2, 90, 0x2000, &packed, u64::MAX)]);
        assert_eq!(of(&broken, (9, 0)).unwrap_err().cu_result(), 200);
    }

    #[test]
    fn one_entry_is_chosen_as_a_device_does() {
        let code = |sm: u8| [b"\x7fELF".as_slice(), &[sm; 100]].concat();
        let entries =
            [entry(2, 80, 0, &code(80), 0), entry(2, 86, 0, &code(86), 0), entry(1, 75, 0, TEXT, 0)];
        let image = fatbin(&entries);
        let text = || Chosen::Ptx(String::from_utf8(TEXT.to_vec()).unwrap());
        let of = |image: &[u8], capability, runs_code| chosen(image, capability, runs_code).unwrap();
        assert_eq!(of(&image, (8, 9), true), Chosen::MachineCode(code(86)));
        assert_eq!(of(&image, (9, 0), true), text());
        assert_eq!(of(&image, (8, 9), false), text());
        assert_eq!(of(&code(90), (9, 0), true), Chosen::MachineCode(code(90)));
        assert_eq!(of(TEXT, (9, 0), true), text());
        assert_eq!(chosen(&image, (7, 0), true).unwrap_err().cu_result(), 209);
        assert_eq!(chosen(&code(90), (9, 0), false).unwrap_err().cu_result(), 209);
    }

    #[test]
    fn lz4_expands_to_what_it_says_and_no_further() {
        let long = [TEXT, &[b' '; 5000]].concat();
        let packed = lz4_flex::block::compress(&long);
        let good = fatbin(&[entry(1, 80, 0x2000, &packed, long.len() as u64)]);
        assert_eq!(ptx_of(&good, (9, 0)).unwrap().as_bytes(), long);
        for said in [0, 10, long.len() as u64 - 1, u64::MAX] {
            assert_eq!(
                ptx_of(&fatbin(&[entry(1, 80, 0x2000, &packed, said)]), (9, 0)).unwrap_err().cu_result(),
                200
            );
        }
    }

    proptest! {
        #[test]
        fn a_damaged_fatbin_never_panics(at in 0usize..300, value: u8, cut in 0usize..300) {
            let packed = lz4_flex::block::compress(TEXT);
            let mut image = fatbin(&[entry(1, 80, 0x2000, &packed, TEXT.len() as u64), entry(1, 90, 0, TEXT, 0)]);
            let length = image.len();
            image[at % length] = value;
            image.truncate(length - cut % length);
            let _ = ptx_of(&image, (9, 0));
        }
    }
}
