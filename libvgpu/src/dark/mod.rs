//! The private tables of `cuGetExportTable`: cudart, cuBLAS and others don't start without them.
//!
//! A table is an array of pointers; slot 0 is its size in bytes, itself included (but that of context-local storage has no size and ends with NULL).
//! Callers don't check a slot for NULL, so each unknown slot is a function that says 801 and, with `VGPU_LOG`, its place.
//! Names and slots follow what ZLUDA's `dark_api` publishes (MIT or Apache-2.0); the code is our own.

pub mod cls;
pub mod integrity;
mod md2;
#[expect(unsafe_code, reason = "tables of C functions")]
pub mod tables;
