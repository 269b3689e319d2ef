//! How containerds of different ages start a shim, and by which name they call it.

use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use protobuf::Message;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// 1.6 and 1.7: nothing on standard input, the answer is an address, the service is of version 2.
    V1,
    /// 2.3: a message each way, the service is of version 3.
    V2_3,
}

impl Flavour {
    /// What `start` reads.
    pub(super) fn asks(self, namespace: &str, id: &str, containerd: &str, events: &str) -> Vec<u8> {
        match self {
            Flavour::V1 => Vec::new(),
            Flavour::V2_3 => {
                let params = BootstrapParams {
                    instance_id: id.into(),
                    namespace: namespace.into(),
                    containerd_grpc_address: containerd.into(),
                    containerd_ttrpc_address: events.into(),
                    ..BootstrapParams::default()
                };
                params.write_to_bytes().expect("a message")
            }
        }
    }

    /// The shim's address of what `start` has written.
    pub(super) fn address(self, written: &[u8]) -> String {
        match self {
            Flavour::V1 => String::from_utf8(written.to_vec()).expect("an address").trim_end().to_owned(),
            Flavour::V2_3 => {
                let reply = BootstrapResult::parse_from_bytes(written).expect("a message");
                assert_eq!((reply.version, reply.protocol.as_str()), (3, "ttrpc"));
                reply.address
            }
        }
    }

    pub(super) fn service(self) -> &'static str {
        match self {
            Flavour::V1 => "containerd.task.v2.Task",
            Flavour::V2_3 => "containerd.task.v3.Task",
        }
    }
}
