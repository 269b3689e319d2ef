//! What the exports stand on: the process's state, the channel to the worker, the tables that answer in the guest.

pub mod channel;
pub mod contexts;
pub mod image_size;
pub mod images;
pub mod process;
pub mod ranges;
pub mod slab;
pub mod stdio;
pub mod streams;
pub mod visible;
