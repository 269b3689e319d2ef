//! What programs may learn without a worker: what their container's device is, and what the container uses of it.
//!
//! The supervisor holds no driver. A worker of nobody (`nobody.rs`), which makes no context, says once what the device is;
//! what is used stands in the page of the grant. Start at [`Supervisor::facts`].

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use vgpu_api::snapshot::PEER_ACCESS;
use vgpu_api::{DeviceSnapshot, Snapshot};
use vgpu_codes::Code;
use vgpu_zone_api::guest::facts::{DeviceFacts, Facts, ProcessFacts};
use vgpu_zone_api::shim::ZoneId;

use super::refusal::Refusal;
use super::workers::READY_LIMIT;
use super::zones::Usage;
use super::{Supervisor, nobody};
use crate::device::{self, DeviceKind, Hardware};
use crate::worker::assignment::{Question, Report};

/// After a failure nobody is asked again for so long, however often programs ask.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// The first line names the driver's version. Source: NVIDIA's README, "The /proc/driver/nvidia directory".
const DRIVER: &str = "/proc/driver/nvidia/version";

/// What is known of the device.
#[derive(Debug, Default)]
pub struct Description {
    known: OnceLock<Known>,
    /// When it could not be learned, and why. Locked while it is being learned.
    failed: Mutex<Option<(Instant, Code, String)>>,
}

/// What a worker of nobody said, and the driver's version.
#[derive(Debug)]
pub struct Known {
    snapshot: Snapshot,
    hardware: Vec<Hardware>,
    driver_version: String,
}

impl Supervisor {
    /// What a process of the container may know.
    ///
    /// # Errors
    /// No grant, or the device cannot be described.
    pub async fn facts(self: &Arc<Self>, zone: ZoneId, container: &str) -> Result<Facts, Refusal> {
        // First: who has no grant makes nobody be born.
        self.zones().usage(zone, container)?;
        let known = self.description().await?;
        let usage = self.zones().usage(zone, container)?;
        Ok(compose(self.device, known, &usage))
    }

    /// How the hardware calls each device; nothing if that is not known.
    pub(super) fn known_hardware(&self) -> &[Hardware] {
        self.description.known.get().map_or(&[], |known| &known.hardware)
    }

    /// What the device is: learned at the first call, kept for good.
    ///
    /// # Errors
    /// No worker, or no device.
    pub async fn description(self: &Arc<Self>) -> Result<&Known, Refusal> {
        if let Some(known) = self.description.known.get() {
            return Ok(known);
        }
        // In a task of its own, so that a caller who gives up leaves no worker behind.
        let supervisor = Arc::clone(self);
        let learned = tokio::spawn(async move { supervisor.learn().await });
        learned
            .await
            .map_err(|lost| Refusal::new(Code::WorkerFailed, format!("a task was lost: {lost}")))??;
        let lost = || Refusal::new(Code::WorkerFailed, "a description was lost");
        self.description.known.get().ok_or_else(lost)
    }

    async fn learn(&self) -> Result<(), Refusal> {
        let mut failed = self.description.failed.lock().await;
        if self.description.known.get().is_some() {
            return Ok(());
        }
        if let Some((when, code, text)) = &*failed
            && when.elapsed() < AGAIN_AFTER
        {
            return Err(Refusal::new(*code, text.clone()));
        }
        match self.ask_what_it_is().await {
            Ok((snapshot, reads_host_memory, hardware)) => {
                self.warn(risks(self.device, &snapshot, reads_host_memory));
                let driver_version = driver_version(self.device);
                self.zones().set_devices(snapshot.devices.len());
                let _ = self.description.known.set(Known { snapshot, hardware, driver_version });
                Ok(())
            }
            Err(refusal) => {
                *failed = Some((Instant::now(), refusal.code, refusal.text.clone()));
                Err(refusal)
            }
        }
    }

    /// What the devices are, whether their kernels reach the memory of their process, and how the hardware calls them.
    async fn ask_what_it_is(&self) -> Result<(Snapshot, bool, Vec<Hardware>), Refusal> {
        match self.ask_nobody(Question::Describe, READY_LIMIT).await? {
            Report::Described { snapshot, reads_host_memory, hardware } => Snapshot::parse(&snapshot)
                .map(|snapshot| (snapshot, reads_host_memory, hardware))
                .map_err(|error| Refusal::new(Code::WorkerFailed, format!("a description: {error}"))),
            other => Err(nobody::astray(&other)),
        }
    }
}

/// What is to be said loudly of hardware that many share. None of it lets one guest reach another.
fn risks(device: DeviceKind, snapshot: &Snapshot, reads_host_memory: bool) -> Vec<String> {
    const ECC: u32 = 32;
    let mut risks = Vec::new();
    let without_ecc = |device: &DeviceSnapshot| device.attribute(ECC) == Some(0);
    if device == DeviceKind::Cuda && snapshot.devices.iter().any(without_ecc) {
        risks.push("the GPU's memory has no ECC, or it is off: a flipped bit is nobody's error".to_owned());
    }
    if reads_host_memory {
        let text = "kernels read all of their worker's memory (HMM or ATS; nvidia-uvm's uvm_disable_hmm=1 ends HMM): a worker holds no secret of another guest";
        risks.push(text.to_owned());
    }
    risks
}

/// As the container sees it: `usage_of` has its devices in its own order.
fn compose(kind: DeviceKind, known: &Known, usage_of: &[Usage]) -> Facts {
    let Known { snapshot, driver_version, hardware } = known;
    let (mut devices, mut processes) = (Vec::new(), Vec::new());
    for (usage, index) in usage_of.iter().zip(0..) {
        let Some(device) = snapshot.devices.get(usage.device as usize) else { continue };
        let reached = usage_of
            .iter()
            .zip(0..)
            .filter(|(peer, _)| snapshot.peer(PEER_ACCESS, usage.device, peer.device) != 0);
        let peers =
            reached.fold(0, |bits, (_, number): (_, u32)| bits | 1_u32.checked_shl(number).unwrap_or(0));
        // Links lead to the container's own devices, or they are not told.
        let links = hardware.get(usage.device as usize).filter(|_| peers != 0).map_or(0, |one| one.links);
        devices.push(DeviceFacts { peers, links, ..describe(kind, index, device, usage) });
        // A process may have several workers.
        let mut by_pid = BTreeMap::<u32, u64>::new();
        for &(pid, bytes) in &usage.processes {
            let sum = by_pid.entry(pid).or_default();
            *sum = sum.saturating_add(bytes);
        }
        processes.extend(by_pid.into_iter().map(|(pid, used_bytes)| ProcessFacts {
            device: index,
            pid,
            used_bytes,
        }));
    }
    Facts {
        cuda_version: snapshot.driver_version,
        driver_version: driver_version.clone(),
        devices,
        processes,
    }
}

/// Numbers: `CUdevice_attribute` of cuda.h 13.0.
fn describe(kind: DeviceKind, index: u32, device: &DeviceSnapshot, usage: &Usage) -> DeviceFacts {
    let number = |attribute: u32| {
        let value = device.attribute(attribute).and_then(|value| u32::try_from(value).ok());
        value.unwrap_or(0)
    };
    let small = |attribute| u16::try_from(number(attribute)).unwrap_or(0);
    let total_bytes = device.total_memory.min(usage.limit_bytes);
    let (uuid, pci) = device::identity(kind, index);
    DeviceFacts {
        name: device.name.clone(),
        uuid,
        pci: [pci.domain, pci.bus, pci.device].map(i32::unsigned_abs),
        capability: [small(75), small(76)],
        total_bytes,
        used_bytes: usage.used_bytes.min(total_bytes),
        multiprocessors: number(16),
        clock_khz: number(13),
        memory_clock_khz: number(36),
        memory_bus_bits: number(37),
        ecc: number(32) == 1,
        peers: 0,
        links: 0,
    }
}

/// The software GPU is part of this release.
fn driver_version(device: DeviceKind) -> String {
    let text = match device {
        DeviceKind::Cuda => std::fs::read_to_string(DRIVER).unwrap_or_default(),
        DeviceKind::Soft | DeviceKind::Null => String::new(),
    };
    version_in(&text).unwrap_or(env!("CARGO_PKG_VERSION")).to_owned()
}

/// The first word of the first line that is a version: numbers with dots between.
fn version_in(text: &str) -> Option<&str> {
    let is_version = |word: &&str| {
        let parts = word.split('.');
        parts.clone().count() > 1
            && parts.clone().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    };
    text.lines().next()?.split_whitespace().find(is_version)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use vgpu_api::PciAddress;
    use vgpu_config::Config;

    use super::*;
    use crate::supervisor::Mode;
    use crate::supervisor::cgroup::Cgroups;

    fn known(driver_version: &str) -> Known {
        let mut attributes = vec![0; 148];
        for (attribute, value) in
            [(13, 1_980_000), (16, 132), (32, 1), (36, 2_619_000), (37, 5120), (75, 9), (76, 0)]
        {
            attributes[attribute] = value;
        }
        let device = DeviceSnapshot {
            name: "NVIDIA H100 80GB HBM3".into(),
            uuid: [7; 16],
            pci: PciAddress { domain: 0, bus: 1, device: 0 },
            total_memory: 80 << 30,
            attributes,
        };
        let snapshot = Snapshot {
            driver_version: 13000,
            priority_greatest: 0,
            priority_least: 0,
            limits: Vec::new(),
            devices: vec![device],
            peers: Vec::new(),
        };
        Known { snapshot, hardware: Vec::new(), driver_version: driver_version.into() }
    }

    fn usage(device: u32, limit_bytes: u64, processes: &[(u32, u64)]) -> Usage {
        let used_bytes = processes.iter().map(|(_, bytes)| bytes).sum();
        Usage { device, limit_bytes, used_bytes, processes: processes.to_vec() }
    }

    /// Nobody is born in this test: what a worker would say is there already, or its failure is.
    #[tokio::test]
    async fn a_failure_is_told_and_not_tried_again_at_once_and_what_is_known_stays() {
        const ZONE: ZoneId = ZoneId(Uuid::from_u128(1));
        let supervisor = Supervisor::new(&Config::default(), DeviceKind::Null, Mode::Local).unwrap();
        supervisor.zones().register(ZONE, "a-1", None).unwrap();
        supervisor.zones().grant(ZONE, "c", 1, Some(1 << 20), None).unwrap();
        let failure = (Instant::now(), Code::NoDevice, "no driver".to_owned());
        *supervisor.description.failed.lock().await = Some(failure);
        let code = |facts: Result<Facts, Refusal>| facts.unwrap_err().code;
        assert_eq!(code(supervisor.facts(ZONE, "d").await), Code::NotGranted);
        assert_eq!(code(supervisor.facts(ZONE, "c").await), Code::NoDevice);
        supervisor.description.known.set(known("580.95.05")).unwrap();
        assert_eq!(supervisor.facts(ZONE, "c").await.unwrap().devices[0].total_bytes, 1 << 20);
        supervisor.release_all(AGAIN_AFTER).await;
    }

    /// No worker is born into a folder that is no cgroup.
    #[tokio::test]
    async fn who_cannot_be_asked_leaves_no_cgroup_and_no_user_behind() {
        let base = tempfile::tempdir().unwrap();
        let mut supervisor = Supervisor::new(&Config::default(), DeviceKind::Null, Mode::Local).unwrap();
        Arc::get_mut(&mut supervisor).unwrap().cgroups = Some(Cgroups::without_controllers(base.path()));
        let free = supervisor.zones().lend_uid().unwrap();
        supervisor.zones().give_uid_back(free);
        assert!(supervisor.description().await.is_err());
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
        assert_eq!(supervisor.zones().lend_uid().unwrap(), free);
        supervisor.release_all(AGAIN_AFTER).await;
    }

    #[test]
    fn hardware_that_is_a_risk_is_said_and_other_is_not() {
        let with_ecc = known("").snapshot;
        let mut without = with_ecc.clone();
        without.devices[0].attributes[32] = 0;
        assert!(risks(DeviceKind::Cuda, &with_ecc, false).is_empty());
        assert!(risks(DeviceKind::Cuda, &without, false)[0].contains("no ECC"));
        assert!(risks(DeviceKind::Soft, &without, false).is_empty());
        let both = risks(DeviceKind::Cuda, &without, true);
        assert!(both.len() == 2 && both[1].contains("HMM"), "{both:?}");
    }

    #[test]
    fn a_container_sees_its_grant_and_its_processes() {
        let facts = compose(
            DeviceKind::Cuda,
            &known("580.95.05"),
            &[usage(0, 8 << 30, &[(7, 100), (9, 20), (7, 3)])],
        );
        assert_eq!((facts.cuda_version, facts.driver_version.as_str()), (13000, "580.95.05"));
        let device = &facts.devices[0];
        assert_eq!((device.total_bytes, device.used_bytes), (8 << 30, 123));
        assert_eq!((device.capability, device.multiprocessors, device.ecc), ([9, 0], 132, true));
        assert_eq!((device.clock_khz, device.memory_clock_khz), (1_980_000, 2_619_000));
        assert_eq!((device.memory_bus_bits, device.pci), (5120, [0, 1, 0]));
        let processes: Vec<_> = facts.processes.iter().map(|one| (one.pid, one.used_bytes)).collect();
        assert_eq!(processes, [(7, 103), (9, 20)]);
    }

    #[test]
    fn a_container_with_several_devices_sees_each_as_its_own_numbers_say() {
        let mut known = known("");
        let mut other = known.snapshot.devices[0].clone();
        other.name = "another".into();
        known.snapshot.devices.insert(0, other);
        known.hardware = [12, 18].map(|links| Hardware { uuid: [0; 16], pci: [0; 3], links }).to_vec();
        // Of the node's devices the second reaches the first.
        known.snapshot.peers = Snapshot::all_peers(2, |_, device, _| i32::from(device == 1));
        let of = [usage(1, 1 << 30, &[(7, 100)]), usage(0, 1 << 30, &[(7, 5), (9, 6)]), usage(2, 1, &[])];
        let facts = compose(DeviceKind::Cuda, &known, &of);
        let devices: Vec<_> =
            facts.devices.iter().map(|one| (one.name.as_str(), one.pci, one.used_bytes)).collect();
        assert_eq!(devices, [("NVIDIA H100 80GB HBM3", [0, 1, 0], 100), ("another", [0, 2, 0], 11)]);
        assert_ne!(facts.devices[0].uuid, facts.devices[1].uuid);
        assert_eq!(
            [0, 1].map(|device: usize| facts.devices[device].peers),
            [1 << 1, 0],
            "by the container's numbers"
        );
        assert_eq!([0, 1].map(|device: usize| facts.devices[device].links), [18, 0]);
        let processes: Vec<_> =
            facts.processes.iter().map(|one| (one.device, one.pid, one.used_bytes)).collect();
        assert_eq!(processes, [(0, 7, 100), (1, 7, 5), (1, 9, 6)]);
    }

    #[test]
    fn who_is_given_all_sees_the_device_and_never_more() {
        let facts = compose(DeviceKind::Cuda, &known(""), &[usage(0, 1 << 47, &[(7, 1 << 46)])]);
        assert_eq!((facts.devices[0].total_bytes, facts.devices[0].used_bytes), (80 << 30, 80 << 30));
    }

    #[test]
    fn the_drivers_version_is_found_in_either_of_its_forms() {
        let closed =
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024\n";
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build\nGCC version:  gcc 12.3.0\n";
        assert_eq!(version_in(closed), Some("550.54.14"));
        assert_eq!(version_in(open), Some("580.159.04"));
        for text in ["", "\n580.1.2", "no version", "1. .2 v1.2"] {
            assert_eq!(version_in(text), None, "{text}");
        }
    }
}
