//! The exports, a file a subject: the list is `answered.rs`. Here is what has no answer.

mod affinity;
mod device;
mod event;
mod handle;
mod link;
mod memory;
mod private;
mod process;
mod system;
mod topology;

use crate::abi::{exports, unsupported, unsupported_of_device};

include!(concat!(env!("OUT_DIR"), "/unsupported.rs"));
