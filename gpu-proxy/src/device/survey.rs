//! What can be told of an image before the device has loaded it: its variables, so that they are counted first.

mod elf;
mod managed;

use std::collections::BTreeSet;
use std::ffi::CString;

use vgpu_api::{CuError, CuResult};
use vgpu_soft::ImageError;

pub use elf::Elf;
pub use managed::{Managed, Placed};

/// What the addresses of allocations are multiples of, at least.
const FIRST_ALIGN: u64 = 256;

/// An image's variables.
#[derive(Debug, Default)]
pub struct Survey {
    /// Device memory that they take, in bytes.
    pub variable_bytes: u64,
    /// What they may be called.
    pub variables: Vec<CString>,
    /// Whether one of them is managed (`__managed__`). The device would make it in the worker, where the program cannot reach it: the image
    /// is loaded as [`Managed`] changes it.
    pub is_managed: bool,
}

impl Survey {
    /// Of PTX, a cubin or a fatbin for a device of `capability` (major, minor). Machine code has a table of variables; PTX is looked through
    /// for them. A fatbin may hold several of both, of which a driver loads one: the largest counts.
    ///
    /// # Errors
    /// 200 for what cannot be looked at, 218 for PTX whose variables cannot be known.
    pub fn of(image: &[u8], capability: (u32, u32)) -> CuResult<Self> {
        let (mut variable_bytes, mut variables, mut is_managed) = (0, BTreeSet::new(), false);
        let mut is_read = true;
        vgpu_soft::each_machine_code(image, capability, |code| {
            let Some(elf) = Elf::parse(code) else {
                // A driver might be less particular.
                is_read = false;
                return;
            };
            variable_bytes = elf.variable_bytes().max(variable_bytes);
            variables.extend(elf.variables());
            is_managed |= elf.has_managed();
        })
        .map_err(|_| CuError::INVALID_IMAGE)?;
        if !is_read {
            return Err(CuError::INVALID_IMAGE);
        }
        vgpu_soft::each_ptxs_variables(image, capability, |globals| {
            let all = laid_out(globals.iter().map(|global| (global.bytes, global.align)));
            variable_bytes = all.max(variable_bytes);
            variables.extend(globals.iter().filter_map(|global| CString::new(global.name.as_str()).ok()));
            is_managed |= globals.iter().any(|global| global.managed);
        })
        .map_err(|error| match error {
            ImageError::Ptx { .. } => CuError::INVALID_PTX,
            _ => CuError::INVALID_IMAGE,
        })?;
        Ok(Self { variable_bytes, variables: variables.into_iter().collect(), is_managed })
    }
}

/// What these lengths and alignments take at most, one behind the other in any order. Memory begins where a device's allocations do.
fn laid_out(parts: impl Iterator<Item = (u64, u64)> + Clone) -> u64 {
    let step = |(bytes, align): (u64, u64)| 1 << (bytes | align | FIRST_ALIGN).trailing_zeros();
    // All begin and end at multiples of it, but for what lies alone.
    let step = if parts.clone().nth(1).is_some() { parts.clone().map(step).min() } else { None };
    let step = step.unwrap_or(FIRST_ALIGN);
    parts.fold(0, |sum: u64, (bytes, align)| {
        sum.saturating_add(bytes).saturating_add(align.saturating_sub(step))
    })
}

#[cfg(test)]
pub(crate) use elf::tests::cubin;
#[cfg(test)]
pub(crate) use managed::tests::managed_cubin;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_machine_code_and_of_ptx_are_known() {
        let survey = Survey::of(&cubin(1000), (9, 0)).unwrap();
        let names = [c"factor".to_owned(), c"table".to_owned()];
        assert_eq!((survey.variable_bytes, survey.variables), (1256, names.into()));
        let ptx =
            b".version 9.0\n.target sm_90\n.address_size 64\n.visible .global .align 4 .b8 grid[4096];\n";
        let survey = Survey::of(ptx, (9, 0)).unwrap();
        assert_eq!((survey.variable_bytes, survey.variables), (4096, vec![c"grid".to_owned()]));
        assert_eq!(Survey::of(b"", (9, 0)).unwrap_err(), CuError::INVALID_IMAGE);
        // Neither an instruction that nobody here knows nor a byte of another alphabet hides one.
        let strange = b".version 99.0\n.target sm_90\n// \xe9\n.global .b8 big[77];\n.entry k() { of.another.day %r1; }\n";
        assert_eq!(Survey::of(strange, (9, 0)).unwrap().variable_bytes, 77);
        assert_eq!(
            Survey::of(b".version 8.0\n.global .b8 big[N];", (9, 0)).unwrap_err(),
            CuError::INVALID_PTX
        );
    }

    #[test]
    fn room_that_alignment_takes_counts() {
        for (parts, bytes) in [
            (&[][..], 0),
            (&[(1000, 256)], 1000),
            (&[(1, 1024)], 1 + 768),
            (&[(4, 4), (8, 4), (4000, 4)], 4012),
            (&[(1, 1), (8, 8)], 9 + 7),
            (&[(1, 1 << 30), (1, 1 << 30), (1, 1)], 3 + 2 * ((1 << 30) - 1)),
            (&[(1, u64::MAX), (2, 1)], u64::MAX),
        ] {
            assert_eq!(laid_out(parts.iter().copied()), bytes, "{parts:?}");
        }
        // ptxas gives this one a section of 2 GiB.
        let far = ".visible .global .align 1073741824 .b8";
        let ptx = format!(".version 8.0\n.target sm_90\n{far} a;\n{far} b;\n{far} c;\n");
        assert!(Survey::of(ptx.as_bytes(), (9, 0)).unwrap().variable_bytes > 2 << 30);
    }

    #[test]
    fn machine_code_that_cannot_be_read_is_refused() {
        let mut code = cubin(1000);
        assert!(Survey::of(&code, (9, 0)).is_ok());
        code[58] = 0;
        assert_eq!(Survey::of(&code, (9, 0)).unwrap_err(), CuError::INVALID_IMAGE);
        assert_eq!(Survey::of(b"\x7fELF\x01", (9, 0)).unwrap_err(), CuError::INVALID_IMAGE);
    }

    #[test]
    fn a_managed_variable_is_noticed_in_machine_code_and_in_ptx() {
        let is_managed = |image: &[u8]| Survey::of(image, (9, 0)).unwrap().is_managed;
        assert!(is_managed(&managed_cubin()) && !is_managed(&cubin(1000)));
        let ptx = |attribute| {
            let variable = format!(".visible .global {attribute} .align 4 .u32 counter;");
            format!(".version 9.0\n.target sm_90\n.address_size 64\n{variable}\n").into_bytes()
        };
        assert!(is_managed(&ptx(".attribute(.managed)")) && !is_managed(&ptx("")));
    }
}
