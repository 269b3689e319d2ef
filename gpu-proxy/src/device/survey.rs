//! What can be told of an image before the device has loaded it: its variables, so that they are counted first.

mod elf;

use std::collections::BTreeSet;
use std::ffi::CString;

use vgpu_api::{CuError, CuResult};

pub use elf::Elf;

/// An image's variables.
#[derive(Debug, Default)]
pub struct Survey {
    /// Device memory that they take, in bytes.
    pub variable_bytes: u64,
    /// What they may be called.
    pub variables: Vec<CString>,
}

impl Survey {
    /// Of PTX, a cubin or a fatbin for a device of `capability` (major, minor). Machine code has a table of variables; those of PTX the
    /// software GPU's parser knows. A fatbin may hold both, of which a driver loads one: the larger counts.
    ///
    /// # Errors
    /// 200 for a fatbin whose machine code cannot be looked at.
    pub fn of(image: &[u8], capability: (u32, u32)) -> CuResult<Self> {
        let (mut variable_bytes, mut variables) = (0, BTreeSet::new());
        vgpu_soft::each_machine_code(image, capability, |code| {
            if let Some(elf) = Elf::parse(code) {
                variable_bytes = elf.variable_bytes().max(variable_bytes);
                variables.extend(elf.variables());
            }
        })
        .map_err(|_| CuError::INVALID_IMAGE)?;
        if let Ok(module) = vgpu_soft::Module::load(image) {
            let all = module.globals().iter().fold(0_u64, |sum, global| sum.saturating_add(global.bytes));
            variable_bytes = all.max(variable_bytes);
            let names = module.globals().iter().map(|global| global.name.as_str());
            variables.extend(names.filter_map(|name| CString::new(name).ok()));
        }
        Ok(Self { variable_bytes, variables: variables.into_iter().collect() })
    }
}

#[cfg(test)]
pub(crate) use elf::tests::cubin;

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
        assert_eq!(Survey::of(b"", (9, 0)).unwrap().variable_bytes, 0);
    }
}
