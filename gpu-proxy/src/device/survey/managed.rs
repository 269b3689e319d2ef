//! Images with managed variables (`__managed__`), and what is loaded in their place. The guest has a block of memory that it and the device
//! reach at one address; the variables lie there, and the image's code finds them there: [`Managed::placed`].
//!
//! Machine code: `cubin.rs`; PTX: `vgpu_soft::place_managed`. Both are the guest's bytes. What is not understood is refused: a variable
//! that code finds elsewhere than the program would be wrong without a word.

mod cubin;

use std::collections::HashMap;

use vgpu_api::image::MANAGED_ALIGN;
use vgpu_api::{CuError, DevicePtr, GlobalInfo};
use vgpu_soft::{Chosen, ImageError, ManagedVariable};

use crate::device::LoadError;

/// More than any arena has.
const BLOCK_BYTES_MAX: u64 = 1 << 40;

/// What a device takes of an image, and its managed variables.
#[derive(Debug)]
pub struct Managed {
    form: Form,
    variables: Vec<Variable>,
    /// Of the block that they lie in.
    bytes: u64,
}

#[derive(Debug)]
enum Form {
    MachineCode(cubin::Code),
    Ptx(String, Vec<ManagedVariable>),
}

#[derive(Debug)]
struct Variable {
    name: String,
    /// In the block.
    offset: u64,
    bytes: u64,
}

/// An image whose managed variables have addresses.
#[derive(Debug)]
pub struct Placed {
    /// It has no managed variable: what is loaded.
    pub image: Vec<u8>,
    /// They, where they are.
    pub variables: Vec<GlobalInfo>,
    /// Their first values that are not zeros: where in the block, and what.
    pub initial: Vec<(u64, Vec<u8>)>,
}

fn refused(log: impl Into<String>) -> LoadError {
    LoadError {
        code: CuError::NOT_SUPPORTED,
        log: format!("its managed variables (__managed__): {}", log.into()),
    }
}

fn of_ptx(error: &ImageError) -> LoadError {
    refused(error.to_string())
}

impl Managed {
    /// # Errors
    /// 801 with the reason.
    pub fn of(chosen: Chosen) -> Result<Self, LoadError> {
        let (form, told): (_, Vec<(String, u64, u64)>) = match chosen {
            Chosen::MachineCode(bytes) => {
                let code = cubin::Code::of(bytes).map_err(refused)?;
                let told = code.variables().collect();
                (Form::MachineCode(code), told)
            }
            Chosen::Ptx(text) => {
                let variables = vgpu_soft::managed_variables(&text).map_err(|error| of_ptx(&error))?;
                let told = variables.iter().map(|one| (one.name.clone(), one.bytes, one.align)).collect();
                (Form::Ptx(text, variables), told)
            }
        };
        let (mut variables, mut end) = (Vec::with_capacity(told.len()), 0_u64);
        for (name, bytes, align) in told {
            if align > MANAGED_ALIGN {
                return Err(refused(format!("{name:.60} is aligned to more than {MANAGED_ALIGN} bytes")));
            }
            // The next one never begins where this one does.
            let offset = end.next_multiple_of(align.max(1));
            end = offset.saturating_add(bytes.max(1));
            if end > BLOCK_BYTES_MAX {
                return Err(refused(format!("{name:.60} is too large")));
            }
            variables.push(Variable { name, offset, bytes });
        }
        Ok(Self { form, variables, bytes: end })
    }

    /// How long the block has to be; 0 without managed variables.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// With the block at the address `block`, a multiple of [`MANAGED_ALIGN`].
    ///
    /// # Errors
    /// 801 with the reason.
    pub fn placed(self, block: u64) -> Result<Placed, LoadError> {
        let at = |variable: &Variable| block.wrapping_add(variable.offset);
        let addresses: Vec<u64> = self.variables.iter().map(at).collect();
        let (image, initial) = match self.form {
            Form::MachineCode(code) => code.placed(&addresses).map_err(refused)?,
            Form::Ptx(text, variables) => {
                let named: HashMap<_, _> =
                    variables.iter().zip(&addresses).map(|(one, at)| (one.name.clone(), *at)).collect();
                if named.len() < variables.len() {
                    return Err(refused("two of one name"));
                }
                let initial = variables.into_iter().map(|one| first_values(one, &named));
                let initial = initial.collect::<Result<Vec<_>, _>>()?;
                let text = vgpu_soft::place_managed(&text, &named).map_err(|error| of_ptx(&error))?;
                (text.into_bytes(), initial)
            }
        };
        let variables = self.variables.into_iter().zip(&addresses);
        let variables = variables.map(|(one, at)| GlobalInfo {
            name: one.name,
            address: DevicePtr(*at),
            bytes: one.bytes,
        });
        let initial = addresses.iter().copied().zip(initial).filter(|(_, bytes)| !bytes.is_empty()).collect();
        Ok(Placed { image, variables: variables.collect(), initial })
    }
}

/// Of a variable of PTX, with the addresses that are among them.
fn first_values(variable: ManagedVariable, addresses: &HashMap<String, u64>) -> Result<Vec<u8>, LoadError> {
    let ManagedVariable { name, bytes, mut initial, addresses: pointers, .. } = variable;
    for (at, of, offset) in pointers {
        let address = addresses.get(&of).ok_or_else(|| {
            refused(format!("{name:.60} begins with the address of {of:.60}, which is not managed"))
        })?;
        let place = initial.get_mut(at..).and_then(|rest| rest.first_chunk_mut());
        let place: &mut [u8; 8] = place.ok_or_else(|| refused("a value outside of its variable"))?;
        *place = address.wrapping_add_signed(offset).to_le_bytes();
    }
    if initial.len() as u64 > bytes {
        return Err(refused(format!("{name:.60} has more first values than it holds")));
    }
    Ok(initial)
}

#[cfg(test)]
pub(crate) mod tests;
