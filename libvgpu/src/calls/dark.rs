//! `cuGetExportTable`: the tables are in `dark/`.

use vgpu_api::CuError;

use crate::abi::{In, Out, export};
use crate::dark::tables::{Slot, find};
use crate::log::say;

export! {
    /// Works before `cuInit`, as cudart expects.
    fn cuGetExportTable(out: Out<*const Slot>, uuid: In<[u8; 16]>) {
        let uuid = uuid.get()?;
        match find(&uuid) {
            Some(table) => out.set(table.as_ptr()),
            None => {
                say!("private table {uuid:02x?} was asked for; it is not there");
                out.set(std::ptr::null())?;
                Err(CuError::INVALID_VALUE)
            }
        }
    }
}
