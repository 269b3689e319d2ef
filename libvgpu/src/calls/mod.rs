//! The exports, one file a subject. Every name that no file has returns 801: `generated` holds those and the table of
//! `cuGetProcAddress`, made by `build.rs` from the generated symbols and `vgpu_api::surface`.

pub mod array;
pub mod capture;
pub mod context;
pub mod copy;
pub mod copy_array;
pub mod copy_batch;
pub mod copy_box;
pub mod copy_box_batch;
pub mod copy_node;
mod copy_pageable;
pub mod dark;
pub mod device;
pub mod event;
pub mod function;
pub mod graph;
pub mod graph_change;
pub mod graph_conditional;
pub mod graph_exec;
pub mod graph_memory;
pub mod graph_nodes;
pub mod graph_work;
pub mod green;
pub mod host_function;
pub mod host_memory;
pub mod init;
pub mod ipc;
pub mod launch;
pub mod library;
pub mod link;
pub mod logs;
pub mod managed;
pub mod managed_batch;
pub mod memory;
pub mod memset;
pub mod module;
pub mod module_references;
pub mod occupancy;
pub mod old_launch;
pub mod peer;
pub mod pointer;
pub mod pool;
pub mod pool_ipc;
pub mod primary;
pub mod proc_address;
pub mod stream;
pub mod stream_attribute;
pub mod stream_memory;
pub mod tensor_map;
pub mod texref;
pub mod texture;
pub mod user_object;
pub mod virtual_memory;

/// Everything that is exported.
pub mod generated {
    #![allow(non_snake_case, reason = "CUDA's names")]
    use super::proc_address::{Base, Form};
    use super::{array::*, copy_array::*, proc_address::*, stream::*, texture::*};
    use super::{
        capture::*, context::*, copy::*, copy_box::*, dark::*, device::*, event::*, function::*,
        host_function::*, host_memory::*,
    };
    use super::{
        copy_batch::*, copy_box_batch::*, peer::*, pool::*, pool_ipc::*, stream_attribute::*,
        stream_memory::*, virtual_memory::*,
    };
    use super::{
        graph::*, graph_change::*, graph_conditional::*, graph_exec::*, graph_memory::*, graph_nodes::*,
        green::*, init::*, ipc::*,
    };
    use super::{
        launch::*, library::*, link::*, logs::*, managed::*, memory::*, memset::*, module::*,
        module_references::*, occupancy::*, old_launch::*, pointer::*, primary::*,
    };
    use super::{managed_batch::*, tensor_map::*, texref::*, user_object::*};

    /// Exports that say 801, whatever their parameters: the caller cleans up, so none need be declared.
    macro_rules! unsupported {
        ($($name:ident)*) => { $(
            #[unsafe(no_mangle)]
            pub extern "C" fn $name() -> u32 {
                $crate::log::say!("{} is not supported", stringify!($name));
                $crate::core::logs::failed(stringify!($name), vgpu_api::CuError::NOT_SUPPORTED)
            }
        )* };
    }

    include!(concat!(env!("OUT_DIR"), "/symbols.rs"));
}
