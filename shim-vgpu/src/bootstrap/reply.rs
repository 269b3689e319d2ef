//! What containerd said to `start`, and the answer in the form that it understands.

use std::path::PathBuf;

use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use protobuf::{Message, well_known_types::any::Any};

use super::Address;
use crate::{args::Args, error::Result, options};

/// What containerd asked, from stdin, flags and environment.
#[derive(Debug, Clone)]
pub struct Asked {
    /// containerd's gRPC socket.
    pub containerd: String,
    /// Where events go; empty if there is nobody (CRI-O).
    pub events: String,
    /// Log at level debug.
    pub debug: bool,
    /// The configuration that the runtime handler names. Create brings it too, CreateSandbox does not.
    pub config: Option<PathBuf>,
    socket_dir: Option<String>,
    /// containerd 2.3 and later: the answer is a message, and the later containers of the pod come without a `start`.
    speaks_bootstrap: bool,
}

impl Asked {
    /// Reads `input`, a `BootstrapParams` from containerd 2.3 on, an `Any` or nothing before.
    ///
    /// An `Any` parses as `BootstrapParams` too (its type URL lands in `instance_id`), so both names are compared.
    ///
    /// # Errors
    /// [`vgpu_codes::Code::SpecInvalid`]: the runtime options can't be read.
    pub fn read(input: &[u8], args: &Args) -> Result<Asked> {
        let boot = BootstrapParams::parse_from_bytes(input)
            .ok()
            .filter(|boot| boot.instance_id == args.id && boot.namespace == args.namespace);
        Ok(match boot {
            Some(boot) => Asked {
                containerd: boot.containerd_grpc_address,
                events: boot.containerd_ttrpc_address,
                // An open enum: everything at or below -4 is at least as talkative as debug.
                debug: args.debug || boot.log_level.value() <= -4,
                config: config_of(boot.extensions.iter().map(|it| it.value.get_or_default()))?,
                socket_dir: boot.socket_dir.filter(|dir| !dir.is_empty()),
                speaks_bootstrap: true,
            },
            None => Asked {
                containerd: args.address.clone(),
                events: std::env::var("TTRPC_ADDRESS").unwrap_or_default(),
                debug: args.debug,
                // Nothing, where it is none.
                config: config_of(Any::parse_from_bytes(input).iter())?,
                socket_dir: None,
                speaks_bootstrap: false,
            },
        })
    }

    /// Where containerd wants the socket.
    pub fn socket_dir(&self) -> Option<&str> {
        self.socket_dir.as_deref()
    }

    /// The bytes for stdout.
    pub fn reply(&self, address: &Address) -> Vec<u8> {
        if !self.speaks_bootstrap {
            // A plain address means task API v2 to every containerd from 1.6 to 2.2.
            return address.to_string().into_bytes();
        }
        let result = BootstrapResult {
            version: 3,
            address: address.to_string(),
            protocol: "ttrpc".into(),
            ..BootstrapResult::default()
        };
        // Encoding three plain fields into memory has no way to fail.
        result.write_to_bytes().unwrap_or_default()
    }
}

fn config_of<'a>(options: impl Iterator<Item = &'a Any>) -> Result<Option<PathBuf>> {
    let named = options.map(options::config_path);
    named.collect::<Result<Vec<_>>>().map(|paths| paths.into_iter().flatten().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> Args {
        Args { id: "a".into(), namespace: "k8s.io".into(), address: "/c.sock".into(), ..Args::default() }
    }

    fn reply(input: &[u8]) -> Vec<u8> {
        Asked::read(input, &args()).unwrap().reply(&Address::new(None, "/c.sock", "k8s.io", "a"))
    }

    #[test]
    fn old_containerds_read_a_plain_address() {
        let options = Any {
            type_url: "runtimeoptions.v1.Options".into(),
            value: b"\x12\x02/a".to_vec(),
            ..Any::default()
        };
        for input in [Vec::new(), options.write_to_bytes().unwrap(), b"\xff\xff".to_vec()] {
            assert!(reply(&input).starts_with(b"unix:///run/containerd/s/"), "{input:?}");
        }
    }

    #[test]
    fn new_ones_read_a_message_of_version_3_with_the_folder_they_named() {
        let boot = BootstrapParams {
            instance_id: "a".into(),
            namespace: "k8s.io".into(),
            socket_dir: Some("/run/s2".into()),
            ..BootstrapParams::default()
        };
        let asked = Asked::read(&boot.write_to_bytes().unwrap(), &args()).unwrap();
        let bytes = asked.reply(&Address::new(asked.socket_dir(), "/c.sock", "k8s.io", "a"));
        let result = BootstrapResult::parse_from_bytes(&bytes).unwrap();
        assert_eq!((result.version, result.protocol.as_str()), (3, "ttrpc"));
        assert!(result.address.starts_with("unix:///run/s2/"));
    }

    #[test]
    fn a_message_for_another_shim_is_no_message_for_us() {
        let boot = BootstrapParams {
            instance_id: "b".into(),
            namespace: "k8s.io".into(),
            ..BootstrapParams::default()
        };
        assert!(reply(&boot.write_to_bytes().unwrap()).starts_with(b"unix://"));
    }
}
