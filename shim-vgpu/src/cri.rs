//! CRI's messages, made of `pod.proto`.

#[allow(
    missing_docs,
    missing_debug_implementations,
    unused_qualifications,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::cast_possible_truncation,
    clippy::ptr_as_ptr,
    reason = "generated code; pod.proto is its documentation"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/cri/mod.rs"));
}

pub use generated::pod::*;
