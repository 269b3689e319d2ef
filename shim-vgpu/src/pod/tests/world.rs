//! A node without Xen: fakes behind the seams, and a look at what is left.

mod link;

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use serde_json::Value;
use tokio::{
    io::DuplexStream,
    sync::{Mutex as AsyncMutex, Semaphore, watch},
};
use uuid::Uuid;
use vgpu_agent_api::network::Network;
use vgpu_codes::Code;
use vgpu_config::Config;

use super::fake_guest::{FakeGuest, Habits, Programs};
use crate::{
    error::{Error, Result},
    platform::{Platform, PlatformSource},
    share::{Backend, Process},
    toolstack::{DomainConfig, Toolstack},
};

/// In the environment of a holder: the folder of its world.
const HELD: &str = "VGPU_TEST_HELD";
/// There, it says that they are to move.
const MOVE: &str = "move";

/// What the fakes have made and not taken away.
#[derive(Debug, Default)]
pub struct Left {
    pub domains: BTreeMap<u16, Uuid>,
    pub backends: BTreeMap<Uuid, Child>,
    pub devices: Vec<u16>,
    /// What the node's sides of vifs are called.
    pub vifs: Vec<String>,
    /// Domains that run no more, and are to be destroyed.
    pub halted: Vec<u16>,
    /// In MiB, each that the domain was to be given after its creation, and each that it was.
    pub memory_asked: Vec<u64>,
    pub memory: Vec<u64>,
    /// What the last domain was made of.
    pub made: Option<DomainConfig>,
    /// Xen's caps, each that the domain was given, in hundredths of one CPU.
    pub caps: Vec<u32>,
    /// How many CPUs its guest was told to use, each time.
    pub cpus: Vec<u32>,
    /// The most that Xen has for a domain, in MiB.
    pub free_mib: Option<u64>,
}

/// What the guests' kernel did for want of memory.
#[derive(Debug)]
pub struct OutOfMemory {
    /// Its count, by container.
    pub kills: Mutex<BTreeMap<String, u64>>,
    /// What the guest has to tell by itself, once the poll lets it.
    pub events: Mutex<VecDeque<String>>,
    pub polls: Semaphore,
    /// How often somebody asked.
    pub asked: watch::Sender<u64>,
}

impl OutOfMemory {
    /// The kernel kills one, and the poll is slow.
    pub fn kill(&self, id: &str) {
        *self.kills.lock().unwrap().entry(id.into()).or_default() += 1;
        self.events.lock().unwrap().push_back(id.into());
    }

    /// The poll has come to it.
    pub fn poll(&self) {
        self.polls.add_permits(self.events.lock().unwrap().len());
    }
}

/// One fake node.
#[derive(Debug)]
pub struct World {
    pub dir: tempfile::TempDir,
    pub left: Mutex<Left>,
    pub habits: Habits,
    /// Who destroys a domain waits for this to be false, for 20 s at most.
    pub destroying_takes_long: AtomicBool,
    /// How often that was begun.
    pub destroyings: AtomicU32,
    /// Who sets a domain's memory waits for this to be false, for 60 s at most.
    pub memory_takes_long: AtomicBool,
    /// And its cap.
    pub cap_takes_long: AtomicBool,
    /// The limits that the guests were told to change, with their container, each time.
    pub updates: Mutex<Vec<(String, Value)>>,
    /// A guest that was told so waits for it.
    pub slow_update: AsyncMutex<()>,
    /// xl is being upgraded, and xenstore is away.
    pub no_xl: AtomicBool,
    pub streams: Mutex<BTreeMap<u32, DuplexStream>>,
    /// What the guest knows.
    pub programs: Mutex<Programs>,
    pub oom: OutOfMemory,
    /// From 1 on a slow container's Resume is refused, from 2 on it is frozen.
    pub freezes: watch::Sender<u32>,
    /// What the guests were told of the pod's network.
    pub networks: Mutex<Vec<Network>>,
    /// What the guests were told to set.
    pub sysctls: Mutex<BTreeMap<String, String>>,
    /// What the guests' clocks were set to.
    pub clocks: Mutex<Vec<SystemTime>>,
    /// How often the guests have changed the state of their vifs.
    pub vif_changes: watch::Sender<u64>,
    guests: Mutex<BTreeMap<u16, FakeGuest>>,
    /// The shim's ends of their agent streams.
    agents: Mutex<Vec<std::os::unix::net::UnixStream>>,
    ended: watch::Sender<u64>,
    config: Config,
}

impl World {
    pub fn new(habits: Habits) -> Arc<World> {
        World::configured(habits, |_| {})
    }

    /// One whose configuration is another.
    pub fn configured(habits: Habits, change: impl FnOnce(&mut Config)) -> Arc<World> {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.shim.shared_dir = dir.path().join("shared");
        config.shim.state_dir = dir.path().join("sandboxes");
        config.shim.boot_timeout_s = 1;
        config.shim.kill_timeout_s = 1;
        config.proxy.socket = dir.path().join("gpu-proxy.sock");
        for image in [&mut config.guest.kernel, &mut config.guest.initramfs] {
            *image = dir.path().join("image");
        }
        std::fs::write(dir.path().join("image"), "").unwrap();
        change(&mut config);
        Arc::new(World {
            dir,
            left: Mutex::default(),
            habits,
            memory_takes_long: AtomicBool::default(),
            cap_takes_long: AtomicBool::default(),
            updates: Mutex::default(),
            slow_update: AsyncMutex::default(),
            destroying_takes_long: AtomicBool::default(),
            destroyings: AtomicU32::default(),
            no_xl: AtomicBool::default(),
            streams: Mutex::default(),
            programs: Mutex::default(),
            networks: Mutex::default(),
            sysctls: Mutex::default(),
            clocks: Mutex::default(),
            vif_changes: watch::Sender::new(0),
            freezes: watch::Sender::new(2),
            oom: OutOfMemory {
                kills: Mutex::default(),
                events: Mutex::default(),
                polls: Semaphore::new(0),
                asked: watch::Sender::new(0),
            },
            guests: Mutex::default(),
            agents: Mutex::default(),
            ended: watch::Sender::new(0),
            config,
        })
    }

    pub fn platform(self: &Arc<Self>) -> Platform {
        Platform {
            config: Arc::new(self.config.clone()),
            toolstack: Arc::new(Fake(self.clone())),
            share: Arc::new(Fake(self.clone())),
            link: Arc::new(Fake(self.clone())),
        }
    }

    pub fn proxy_socket(&self) -> PathBuf {
        self.config.proxy.socket.clone()
    }

    /// A bundle as containerd makes it.
    pub fn bundle(&self, id: &str, annotations: Value) -> PathBuf {
        let bundle = self.dir.path().join("bundles").join(id);
        std::fs::create_dir_all(bundle.join("rootfs")).unwrap();
        let mut spec = crate::spec::tests::ctr();
        spec["annotations"] = annotations;
        std::fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
        bundle
    }

    /// The domain goes without asking anybody, as by `xl destroy`.
    pub fn destroy_all(&self) {
        self.left.lock().unwrap().domains.clear();
        self.guests.lock().unwrap().clear();
        self.ended.send_modify(|count| *count += 1);
    }

    /// The guests' streams end, their domains are there.
    pub fn break_agents(&self) {
        for stream in self.agents.lock().unwrap().drain(..) {
            stream.shutdown(std::net::Shutdown::Both).unwrap();
        }
    }

    /// A container's program ends by itself.
    pub fn end(&self, id: &str, status: u32) {
        let programs = self.programs.lock().unwrap();
        programs[&(id.to_owned(), String::new())].ends(status);
    }

    /// Who serves the shares is killed.
    pub fn kill_backends(&self) {
        for child in self.left.lock().unwrap().backends.values_mut() {
            child.kill().unwrap();
        }
    }

    /// The stand-ins of its containers.
    pub fn holders(&self) -> Vec<u32> {
        let word = format!("{HELD}={}", self.dir.path().display());
        let is_ours = |pid: &u32| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|entry| entry == word.as_bytes())
        };
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_ours).collect()
    }

    /// Has holders that move do so, as if their pids were other processes' now.
    pub fn move_holders(&self) {
        std::fs::write(self.dir.path().join(MOVE), "").unwrap();
    }

    /// Nothing is left: domains, backends, devices, holders, mounts, files.
    pub fn assert_nothing_left(&self, when: &str) {
        let left = self.left.lock().unwrap();
        assert!(
            left.domains.is_empty()
                && left.backends.is_empty()
                && left.devices.is_empty()
                && left.vifs.is_empty()
                && left.halted.is_empty(),
            "{when}: {left:?}"
        );
        let holders = self.holders();
        assert!(holders.is_empty(), "{when}: {holders:?}");
        let mounts = crate::mount::below(self.dir.path()).unwrap();
        assert!(mounts.is_empty(), "{when}: {mounts:?}");
        for folder in ["shared", "sandboxes"] {
            let entries: Vec<_> =
                std::fs::read_dir(self.dir.path().join(folder)).into_iter().flatten().flatten().collect();
            assert!(entries.is_empty(), "{when}: {entries:?}");
        }
    }
}

impl Drop for World {
    /// A test that ends early, or never deletes its containers, leaves no mounts on the machine.
    fn drop(&mut self) {
        let _ = crate::mount::take_away(self.dir.path());
    }
}

#[derive(Debug)]
struct Fake(Arc<World>);

#[derive(Debug)]
pub struct Source(pub Arc<World>);

impl PlatformSource for Source {
    fn config(&self, _: Option<&Path>) -> Result<Config> {
        Ok(self.0.config.clone())
    }

    fn platform(&self, config: Config) -> Platform {
        Platform { config: Arc::new(config), ..self.0.platform() }
    }

    fn holder(&self, _: &str, _: &str) -> Command {
        let mut command = if self.0.habits.holders_move {
            let mut command = Command::new("sh");
            let waits = format!("until test -e ${HELD}/{MOVE}; do sleep 0.01; done; exec unshare --net cat");
            command.args(["-c", &waits]);
            command
        } else {
            Command::new("cat")
        };
        command.env(HELD, self.0.dir.path());
        command
    }
}

impl Toolstack for Fake {
    fn check(&self) -> Result<()> {
        if self.0.habits.no_xen { Err(Error::new(Code::NoXen, "no Xen")) } else { Ok(()) }
    }

    fn create_paused(&self, domain: &DomainConfig) -> Result<u16> {
        let mut left = self.0.left.lock().unwrap();
        let domid = left.domains.keys().max().map_or(1, |last| last + 1);
        left.domains.insert(domid, domain.uuid);
        left.made = Some(domain.clone());
        Ok(domid)
    }

    fn end_creation(&self, file: &Path) -> Result<()> {
        assert!(file.ends_with("domain.cfg"));
        Ok(())
    }

    fn unpause(&self, domid: u16) -> Result<()> {
        let left = self.0.left.lock().unwrap();
        assert!(
            left.devices.contains(&domid) && !left.backends.is_empty(),
            "the domain runs before its devices are there"
        );
        drop(left);
        if !self.0.habits.never_boots {
            let guest = FakeGuest::boot(self.0.clone(), domid);
            self.0.guests.lock().unwrap().insert(domid, guest);
        }
        Ok(())
    }

    fn set_memory(&self, domid: u16, mib: u64) -> Result<()> {
        self.0.left.lock().unwrap().memory_asked.push(mib);
        while_it_takes_long(&self.0.memory_takes_long, Duration::from_secs(60));
        if self.0.no_xl.load(Ordering::Relaxed) {
            return Err(Error::new(Code::HostFailure, "no xl"));
        }
        let mut left = self.0.left.lock().unwrap();
        assert!(left.domains.contains_key(&domid), "no such domain");
        let free = left.free_mib.unwrap_or(u64::MAX);
        if mib > free {
            return Err(Error::new(Code::HostResource, format!("Xen has {free} MiB")));
        }
        left.memory.push(mib);
        Ok(())
    }

    fn set_cap(&self, domid: u16, percent: u32) -> Result<()> {
        while_it_takes_long(&self.0.cap_takes_long, Duration::from_secs(60));
        if self.0.no_xl.load(Ordering::Relaxed) {
            return Err(Error::new(Code::NoXen, "no xl"));
        }
        let mut left = self.0.left.lock().unwrap();
        assert!(left.domains.contains_key(&domid), "no such domain");
        if self.0.habits.no_caps {
            return Err(Error::new(Code::HostFailure, "its scheduler is another one"));
        }
        let most = 100 * left.made.as_ref().map_or(0, |made| made.vcpus);
        if percent > most {
            // As libxl.
            let what = format!("Cpu cap out of range, valid range is from 0 to {most}");
            return Err(Error::new(Code::HostFailure, what));
        }
        left.caps.push(percent);
        Ok(())
    }

    fn find(&self, uuid: Uuid) -> Result<Option<u16>> {
        if self.0.habits.no_xen || self.0.no_xl.load(Ordering::Relaxed) {
            return Err(Error::new(Code::NoXen, "no xl"));
        }
        let left = self.0.left.lock().unwrap();
        Ok(left.domains.iter().find(|(_, found)| **found == uuid).map(|(domid, _)| *domid))
    }

    fn runs(&self, uuid: Uuid) -> Result<bool> {
        self.find(uuid).map(|found| found.is_some())
    }

    fn halt(&self, uuid: Uuid, limit: Duration) -> Result<Option<u16>> {
        let Some(domid) = self.find(uuid)? else { return Ok(None) };
        if self.0.habits.never_halts {
            thread::sleep(limit);
            return Err(Error::new(Code::HostFailure, "it may run on"));
        }
        let mut left = self.0.left.lock().unwrap();
        assert!(left.backends.is_empty(), "its share is still served");
        left.halted.push(domid);
        self.0.guests.lock().unwrap()[&domid].halt();
        Ok(Some(domid))
    }

    fn destroy(&self, domid: u16) -> Result<()> {
        self.0.destroyings.fetch_add(1, Ordering::Relaxed);
        while_it_takes_long(&self.0.destroying_takes_long, Duration::from_secs(20));
        let mut left = self.0.left.lock().unwrap();
        left.domains.remove(&domid);
        left.halted.retain(|halted| *halted != domid);
        drop(left);
        self.0.guests.lock().unwrap().remove(&domid);
        self.0.ended.send_modify(|count| *count += 1);
        Ok(())
    }
}

fn while_it_takes_long(takes_long: &AtomicBool, at_most: Duration) {
    let begun = Instant::now();
    while takes_long.load(Ordering::Relaxed) && begun.elapsed() < at_most {
        thread::sleep(Duration::from_millis(5));
    }
}

impl Backend for Fake {
    fn attach(&self, _: u16, uuid: Uuid, export: &Path) -> Result<Process> {
        assert!(export.is_dir());
        // It ends with its stdin, so with a test that panics.
        let child = Command::new("sh").args(["-c", "read line"]).stdin(Stdio::piped()).spawn().unwrap();
        let process = Process::of(child.id()).unwrap();
        self.0.left.lock().unwrap().backends.insert(uuid, child);
        Ok(process)
    }

    fn end(&self, uuid: Uuid, known: Option<Process>) -> Result<()> {
        if let Some(mut child) = self.0.left.lock().unwrap().backends.remove(&uuid) {
            assert!(known.is_none_or(|known| known.pid.unsigned_abs() == child.id()), "another process");
            child.kill().unwrap();
            child.wait().unwrap();
        }
        Ok(())
    }

    fn detach(&self, _: u16, uuid: Uuid) -> Result<()> {
        assert!(!self.0.left.lock().unwrap().backends.contains_key(&uuid), "its backend goes on");
        Ok(())
    }
}
