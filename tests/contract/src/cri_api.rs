//! CRI's messages, made of `cri.proto` and of the shim's `pod.proto`.

#[allow(
    missing_docs,
    missing_debug_implementations,
    unused_qualifications,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::cast_possible_truncation,
    clippy::ptr_as_ptr,
    reason = "generated code; the files are its documentation"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/cri/mod.rs"));
}
pub use generated::{
    cri::*,
    pod::{
        DNSConfig, LinuxContainerResources, LinuxPodSandboxConfig, LinuxSandboxSecurityContext,
        NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata, PortMapping,
    },
};
