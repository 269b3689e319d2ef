//! The shim's door: zones are registered, granted memory, released. Start at [`Client`]; the words are in [`Request`].
//!
//! A connection is a fixed 24-byte hello each way (see [`Hello`]), then frames of a little-endian `u32` length and that many
//! bytes of JSON: one [`Reply`] for each [`Request`], in order. Every request may be sent again: the answer is the same.

mod client;
mod frame;
mod hello;
mod message;

pub use client::{Client, ClientError};
pub use frame::{FrameError, REPLY_BYTES_MAX, REQUEST_BYTES_MAX, decode, encode, frame_len};
pub use hello::{HELLO_BYTES, Hello, HelloError};
pub use message::{
    DomainRef, GrantInfo, Listing, NodeInfo, Reply, Request, WorkerInfo, ZoneId, ZoneInfo, ZoneState,
};
