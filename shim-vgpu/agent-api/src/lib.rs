//! What the shim asks of guest-init beyond containerd's Task API: the messages, the ttrpc client and server, and how versions meet.
//!
//! Start at `agent.proto`; the messages are in [`agent`], [`agent_ttrpc::AgentClient`] calls them and [`agent_ttrpc::Agent`] serves them.
//! [`version::meet`] is the rule for the first call, `Hello`. Stdio streams are named by [`stream::StreamName`]; ring sizes and the
//! hello's words are in [`wire`]; what a pod has of a network is a [`network::Network`], what its containers have in common is named
//! by [`pod`], and the sysctls that it may set by [`sysctl`].
//! Not here: the stream below (idm), what a call does (guest-init).

use std::{collections::HashMap, sync::Arc};

use containerd_shim_protos::shim_async::{Task, create_task};
use protobuf::Enum;
use ttrpc::{Code, r#async::Service};

#[allow(
    missing_docs,
    missing_debug_implementations,
    unused_qualifications,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::cast_possible_truncation,
    clippy::ptr_as_ptr,
    reason = "generated code; agent.proto is its documentation"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/proto/mod.rs"));
}

pub mod network;
pub mod pod;
pub mod stream;
pub mod sysctl;
pub mod version;
pub mod wire;

pub use generated::{agent, agent_ttrpc};

/// The name under which guest-init serves containerd's Task API, beside `vgpu.agent.v1.Agent`. The shim serves it too (containerd 1.6 to 2.2).
pub const TASK_SERVICE: &str = "containerd.task.v2.Task";

/// The ttrpc code with this number: `vgpu-codes` numbers its own as ttrpc does. INTERNAL for none.
#[must_use]
pub fn rpc(number: i32) -> Code {
    Code::from_i32(number).unwrap_or(Code::INTERNAL)
}

/// A Task implementation as a service that is looked up as [`TASK_SERVICE`]. `create_task` knows only version 3's name; the messages
/// of the two versions are the same bytes.
pub fn task_v2(task: Arc<dyn Task + Send + Sync>) -> HashMap<String, Service> {
    create_task(task).into_values().map(|methods| (TASK_SERVICE.to_owned(), methods)).collect()
}
