//! The words of the shim's door. All of them are idempotent: a zone is named by its id, a grant by zone and container.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A zone: one pod and its domain, the unit of isolation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ZoneId(pub Uuid);

impl ZoneId {
    /// The zone of a sandbox: `cri_uid` (the pod's uid, from the CRI's annotation `io.kubernetes.cri.sandbox-uid`) when it is
    /// a UUID, else a UUIDv5 of containerd's namespace and the sandbox's id.
    #[must_use]
    pub fn of_sandbox(cri_uid: Option<&str>, namespace: &str, sandbox_id: &str) -> Self {
        if let Some(uid) = cri_uid.and_then(|uid| Uuid::try_parse(uid).ok()) {
            return Self(uid);
        }
        Self(Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("vgpu\0{namespace}\0{sandbox_id}").as_bytes()))
    }
}

impl fmt::Display for ZoneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A Xen domain. Ids are used again, so the UUID has to agree as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DomainRef {
    /// The domain's id.
    pub domid: u16,
    /// The UUID that the toolstack gave it.
    pub uuid: Uuid,
}

/// What shims of before there were several devices ask for, and what is not written, so that they are understood.
fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_one(devices: &u32) -> bool {
    *devices == 1
}

/// What the shim asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Makes the zone known and opens its guest's door. Again with the same domain: nothing. With another domain: refused.
    Register {
        /// The zone.
        zone: ZoneId,
        /// The pod's uid as Kubernetes writes it; names the workers' cgroup (`pod<uid>`). At most 64 of `[A-Za-z0-9-]`.
        pod_uid: String,
        /// The pod's domain.
        domain: DomainRef,
    },
    /// Gives a container devices, memory and share of each. Again with other figures: they replace the old ones, but for the number of
    /// devices while the container has a worker.
    Grant {
        /// The zone.
        zone: ZoneId,
        /// The container's id.
        container: String,
        /// What device: `0`, or the kind that there is (`cuda`, `soft`, `null`). gpu-proxy chooses which ones.
        device: String,
        /// How many.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        devices: u32,
        /// Memory of each device in bytes; `None`: all of the device's.
        bytes: Option<u64>,
        /// Share of each device's time, in thousandths; `None`: what is left over, fairly.
        share: Option<u32>,
    },
    /// Takes the grant back: the container's workers end.
    Revoke {
        /// The zone.
        zone: ZoneId,
        /// The container's id.
        container: String,
        /// As in [`Request::Release`].
        domain: DomainRef,
    },
    /// Ends the zone. Answered only when its workers are gone and its pages are unmapped.
    Release {
        /// The zone.
        zone: ZoneId,
        /// The domain it was registered for. If another one has it now, nothing is done: a pod's next sandbox has the same zone, and may
        /// have it before the last one's is cleaned up.
        domain: DomainRef,
    },
    /// What there is.
    List,
}

/// What the supervisor answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// It is so now.
    Done,
    /// The answer to [`Request::List`].
    Listing(Listing),
    /// It is not so, and why.
    Refused {
        /// The number of the `VGPU-nnn` code.
        code: u16,
        /// One sentence for a person.
        text: String,
    },
}

/// The node and its zones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The supervisor and its device.
    pub node: NodeInfo,
    /// In order of their ids.
    pub zones: Vec<ZoneInfo>,
}

/// The supervisor and its device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// gpu-proxy's version.
    pub version: String,
    /// `local` or `xen`.
    pub mode: String,
    /// `soft`, `null` or `cuda`.
    pub device: String,
    /// How many there are.
    #[serde(default = "one")]
    pub devices: u32,
    /// Bytes of each that one container may get at most.
    pub device_bytes: u64,
    /// The hash of the CUDA wire it speaks, in hex.
    pub wire_hash: String,
    /// Process id of the supervisor.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// What the sandbox of workers lacks on this machine, one sentence each; empty is good.
    pub sandbox_gaps: Vec<String>,
    /// What else is to be known of this node, one sentence each.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// Where a zone stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZoneState {
    /// Registered; its guest has not connected yet.
    Waiting,
    /// The guest's stream is up.
    Connected,
    /// The guest is gone; nothing is connected again.
    Ended,
}

/// One zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneInfo {
    /// Its id.
    pub zone: ZoneId,
    /// The pod's uid.
    pub pod_uid: String,
    /// Its domain; none in the `local` mode.
    pub domain: Option<DomainRef>,
    /// Where it stands.
    pub state: ZoneState,
    /// Its grants.
    pub grants: Vec<GrantInfo>,
    /// Its living workers.
    pub workers: Vec<WorkerInfo>,
    /// Bytes of device memory in use by all of them.
    pub device_bytes: u64,
    /// Pages (4 KiB) of the guest's memory that are mapped.
    pub mapped_pages: u64,
}

/// One grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantInfo {
    /// The container.
    pub container: String,
    /// Its devices, by their numbers on the node: `0,1`.
    pub device: String,
    /// Bytes of each; `None`: all.
    pub bytes: Option<u64>,
    /// Thousandths of each device's time.
    pub share: Option<u32>,
}

/// One worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Its process id in the supervisor's domain.
    pub pid: u32,
    /// The container whose process it serves.
    pub container: String,
    /// The guest process, as the guest numbers it: a label, nothing is decided by it.
    pub guest_pid: u32,
    /// Bytes of device memory in use, of all its devices together.
    pub device_bytes: u64,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// It waits for the container's next process: `guest_pid` is 0.
    #[serde(default)]
    pub ahead: bool,
    /// What it says it has used of the device's time: `soft`: instructions of warps; `cuda`: nanoseconds with work on the device while other
    /// zones had some, too.
    #[serde(default)]
    pub used: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_uid_is_its_zone_and_others_are_told_apart_by_namespace_and_id() {
        let uid = "5f8c2f8e-2f0b-4c8e-9d53-0b6a1c7e8f11";
        assert_eq!(ZoneId::of_sandbox(Some(uid), "k8s.io", "a").to_string(), uid);
        let one = ZoneId::of_sandbox(None, "default", "a");
        assert_eq!(one, ZoneId::of_sandbox(None, "default", "a"));
        assert_ne!(one, ZoneId::of_sandbox(None, "default", "b"));
        assert_ne!(one, ZoneId::of_sandbox(None, "other", "a"));
    }

    /// A shim and a gpu-proxy of different releases understand each other as long as a container has one device.
    #[test]
    fn one_device_is_asked_for_as_before_there_were_several() {
        let grant = |devices| Request::Grant {
            zone: ZoneId(Uuid::from_u128(1)),
            container: "c".into(),
            device: "0".into(),
            devices,
            bytes: None,
            share: None,
        };
        let [one, two] = [1, 2].map(|devices| serde_json::to_string(&grant(devices)).unwrap());
        assert!(!one.contains("devices") && two.contains(r#""devices":2"#), "{one} {two}");
        assert_eq!(serde_json::from_str::<Request>(&one).unwrap(), grant(1));
        assert_eq!(serde_json::from_str::<Request>(&two).unwrap(), grant(2));
    }

    /// A release of whichever domain has the zone would end another pod's sandbox.
    #[test]
    fn a_request_without_its_domain_or_with_an_unknown_field_is_refused() {
        let domain = r#""domain":{"domid":5,"uuid":"00000000-0000-0000-0000-000000000002"}"#;
        for request in [r#""request":"release""#, r#""request":"revoke","container":"c""#] {
            let zone = format!(r#"{request},"zone":"00000000-0000-0000-0000-000000000001""#);
            let taken = |fields: &str| serde_json::from_str::<Request>(&format!("{{{fields}}}")).is_ok();
            assert!(taken(&format!("{zone},{domain}")));
            assert!(!taken(&zone), "{request} without a domain");
            assert!(!taken(&format!("{zone},\"domain\":null")), "{request} with no domain");
            assert!(!taken(&format!("{zone},{domain},\"force\":true")), "{request} with another field");
        }
    }
}
