//! `-info`: what this runtime can do, for containerd 2.x.

use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use protobuf::{Message, MessageField, well_known_types::any::Any};
use serde_json::json;
use vgpu_codes::Code;

use crate::error::{OrFail, Result};

/// The type of `features`. Source: containerd `typeurl`, OCI runtime specification, `features.md`.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// The bytes of a `RuntimeInfo`.
///
/// # Errors
/// [`Code::HostFailure`] if it can't be encoded.
pub fn info() -> Result<Vec<u8>> {
    let features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.0",
        // Not `user`: kubelet would offer pods user namespaces.
        "mountOptions": ["bind", "rbind", "ro", "rro", "rw", "nosuid", "nodev", "noexec", "private", "rprivate"],
        "hooks": ["prestart", "createRuntime", "startContainer", "poststart", "poststop"],
        "linux": {
            "namespaces": ["pid", "network", "mount", "ipc", "uts", "cgroup"],
            "cgroup": {"v1": false, "v2": true, "systemd": false, "systemdUser": false, "rdma": false},
            "seccomp": {"enabled": true},
            "apparmor": {"enabled": false},
            "selinux": {"enabled": false}
        }
    });
    let version = RuntimeVersion { version: env!("CARGO_PKG_VERSION").into(), ..RuntimeVersion::default() };
    let info = RuntimeInfo {
        name: "io.containerd.vgpu.v1".into(),
        version: MessageField::some(version),
        features: MessageField::some(Any {
            type_url: FEATURES.into(),
            value: features.to_string().into(),
            ..Any::default()
        }),
        ..RuntimeInfo::default()
    };
    info.write_to_bytes().or_fail(Code::HostFailure, || "cannot write the answer to -info".into())
}
