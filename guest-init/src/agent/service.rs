//! `vgpu.agent.v1.Agent`: what the shim asks beyond containerd's Task API (`shim-vgpu/agent-api/agent.proto`).

use std::{
    fs,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use rustix::time::{ClockId, Timespec};
use ttrpc::r#async::TtrpcContext;
use vgpu_agent_api::{
    agent::{
        CloseStreamRequest, ContainerRequest, Empty, Event, ForwardRequest, HelloReply, HelloRequest,
        NextEventRequest, OomKillsReply, OpenStreamRequest, SetClockRequest, SetCpusRequest,
        SetNetworkRequest, SetSysctlsRequest, StreamOffer, event::Kind,
    },
    agent_ttrpc::Agent,
    network::Network,
    version::{self, Version},
};

use super::{forward::Forwards, streams::StdioStreams};
use crate::{
    cpus,
    error::{During, GuestError, Result},
    network, sys, sysctl,
    task::pod::Pod,
};

/// So that a mistaken shim cannot park a call for ever.
const EVENT_WAIT_MAX: Duration = Duration::from_secs(3600);
/// For the reply of PowerOff to leave before the guest does.
const POWER_OFF_DELAY: Duration = Duration::from_millis(50);

/// A clock that is as near as this is left alone: the shim tells the time each minute, and programs mind a step more than that.
const CLOCK_OFF_MAX: Duration = Duration::from_millis(100);

/// The machine around the service, so that tests do not switch it off.
pub trait Machine: Send + Sync {
    /// Sets the guest's name.
    /// # Errors
    /// As sethostname(2).
    fn set_hostname(&self, name: &str) -> Result<()>;
    /// Sets the wall clock, in nanoseconds since 1970.
    /// # Errors
    /// As clock_settime(2).
    fn set_clock(&self, unix_nanoseconds: u64) -> Result<()>;
    /// Takes random bytes in, so that no program waits for some or has to do without.
    /// # Errors
    /// As [`sys::add_entropy`].
    fn seed(&self, bytes: &[u8]) -> Result<()>;
    /// Makes the pod's network. Blocks.
    /// # Errors
    /// As [`network::make`].
    fn set_network(&self, network: &Network) -> Result<()>;
    /// Has so many CPUs online. Blocks.
    /// # Errors
    /// As [`cpus::set_online`].
    fn set_cpus(&self, count: u32) -> Result<()>;
    /// Kills everything and ends the domain.
    fn power_off(&self);
}

/// See the module.
pub struct AgentService {
    streams: Arc<StdioStreams>,
    forwards: Forwards,
    pod: Arc<Pod>,
    machine: Arc<dyn Machine>,
}

impl std::fmt::Debug for AgentService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentService").finish_non_exhaustive()
    }
}

impl AgentService {
    /// Serves these.
    pub fn new(streams: Arc<StdioStreams>, pod: Arc<Pod>, machine: Arc<dyn Machine>) -> Self {
        Self { forwards: Forwards::new(Arc::clone(&streams)), streams, pod, machine }
    }

    fn set_clock_to(&self, unix_nanoseconds: u64) -> Result<()> {
        if is_off(SystemTime::now(), unix_nanoseconds) {
            self.machine.set_clock(unix_nanoseconds)?;
        }
        Ok(())
    }

    fn meet(&self, req: &HelloRequest) -> Result<HelloReply> {
        let theirs = Version { major: req.major, minor: req.minor };
        let spoken = version::meet(version::CURRENT, theirs)
            .map_err(|error| GuestError::Version(error.to_string()))?;
        if !req.hostname.is_empty() {
            self.machine.set_hostname(&req.hostname)?;
        }
        if req.unix_nanoseconds != 0 {
            self.set_clock_to(req.unix_nanoseconds)?;
        }
        if !req.seed.is_empty() {
            self.machine.seed(&req.seed)?;
        }
        Ok(HelloReply {
            major: spoken.major,
            minor: spoken.minor,
            build: env!("CARGO_PKG_VERSION").into(),
            kernel_release: rustix::system::uname().release().to_string_lossy().into_owned(),
            memory_bytes: memory_bytes(),
            ..Default::default()
        })
    }
}

#[async_trait]
impl Agent for AgentService {
    async fn hello(&self, _: &TtrpcContext, req: HelloRequest) -> ttrpc::Result<HelloReply> {
        Ok(self.meet(&req)?)
    }

    async fn open_stream(&self, _: &TtrpcContext, req: OpenStreamRequest) -> ttrpc::Result<StreamOffer> {
        Ok(self.streams.open(req.id)?)
    }

    async fn close_stream(&self, _: &TtrpcContext, req: CloseStreamRequest) -> ttrpc::Result<Empty> {
        self.streams.close(req.id);
        self.forwards.close(req.id);
        Ok(Empty::new())
    }

    async fn set_clock(&self, _: &TtrpcContext, req: SetClockRequest) -> ttrpc::Result<Empty> {
        self.set_clock_to(req.unix_nanoseconds)?;
        Ok(Empty::new())
    }

    async fn next_event(&self, _: &TtrpcContext, req: NextEventRequest) -> ttrpc::Result<Event> {
        let limit = Duration::from_millis(req.timeout_ms.into()).min(EVENT_WAIT_MAX);
        let Some(container_id) = self.pod.host().oom.next(limit).await else { return Ok(Event::new()) };
        Ok(Event { container_id, kind: Kind::OUT_OF_MEMORY.into(), ..Default::default() })
    }

    async fn oom_kills(&self, _: &TtrpcContext, req: ContainerRequest) -> ttrpc::Result<OomKillsReply> {
        let count = self.pod.get(&req.container_id)?.oom.kills();
        Ok(OomKillsReply { count, ..Default::default() })
    }

    async fn refresh_volumes(&self, _: &TtrpcContext, req: ContainerRequest) -> ttrpc::Result<Empty> {
        let container = self.pod.get(&req.container_id)?;
        // The share may be slow, and PID 1 has to reap meanwhile.
        let refreshed = tokio::task::spawn_blocking(move || container.volumes.refresh());
        refreshed.await.map_err(std::io::Error::other).during(|| "refresh volumes".into())??;
        Ok(Empty::new())
    }

    async fn set_network(&self, _: &TtrpcContext, req: SetNetworkRequest) -> ttrpc::Result<Empty> {
        let network = Network::from_wire(&req)
            .map_err(|malformed| GuestError::Invalid { field: malformed.field, why: malformed.why })?;
        let machine = Arc::clone(&self.machine);
        // Its devices take their time, and PID 1 has to reap meanwhile.
        let made = tokio::task::spawn_blocking(move || machine.set_network(&network));
        made.await.map_err(std::io::Error::other).during(|| "make the network".into())??;
        Ok(Empty::new())
    }

    async fn set_sysctls(&self, _: &TtrpcContext, req: SetSysctlsRequest) -> ttrpc::Result<Empty> {
        let sysctls = req.sysctls.iter().map(|(name, value)| Ok((sysctl::parse(name)?, value)));
        // All or none of a list with one that no pod sets.
        for (sysctl, value) in sysctls.collect::<Result<Vec<_>>>()? {
            sysctl::set(&sysctl, value)?;
        }
        Ok(Empty::new())
    }

    async fn set_cpus(&self, _: &TtrpcContext, req: SetCpusRequest) -> ttrpc::Result<Empty> {
        let machine = Arc::clone(&self.machine);
        // All CPUs stop for one that goes, and PID 1 has to reap meanwhile.
        let set = tokio::task::spawn_blocking(move || machine.set_cpus(req.count));
        set.await.map_err(std::io::Error::other).during(|| "set CPUs online".into())??;
        Ok(Empty::new())
    }

    async fn forward(&self, _: &TtrpcContext, req: ForwardRequest) -> ttrpc::Result<StreamOffer> {
        Ok(self.forwards.open(&req).await?)
    }

    async fn power_off(&self, _: &TtrpcContext, _: Empty) -> ttrpc::Result<Empty> {
        let machine = Arc::clone(&self.machine);
        tokio::spawn(async move {
            tokio::time::sleep(POWER_OFF_DELAY).await;
            machine.power_off();
        });
        Ok(Empty::new())
    }
}

/// Whether a clock that says `now` is to be stepped.
fn is_off(now: SystemTime, unix_nanoseconds: u64) -> bool {
    let right = SystemTime::UNIX_EPOCH + Duration::from_nanos(unix_nanoseconds);
    right.duration_since(now).unwrap_or_else(|ahead| ahead.duration()) > CLOCK_OFF_MAX
}

/// MemTotal of /proc/meminfo; 0 when it cannot be read.
fn memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// The real one.
#[derive(Clone, Copy, Debug)]
pub struct Guest;

impl Machine for Guest {
    fn set_hostname(&self, name: &str) -> Result<()> {
        rustix::system::sethostname(name.as_bytes()).during(|| format!("set the hostname {name:?}"))
    }

    fn set_clock(&self, unix_nanoseconds: u64) -> Result<()> {
        let time = Timespec {
            tv_sec: (unix_nanoseconds / 1_000_000_000).cast_signed(),
            tv_nsec: (unix_nanoseconds % 1_000_000_000).cast_signed(),
        };
        rustix::time::clock_settime(ClockId::Realtime, time).during(|| "set the clock".into())
    }

    fn seed(&self, bytes: &[u8]) -> Result<()> {
        sys::add_entropy(bytes).during(|| "take in the node's random bytes".into())
    }

    fn set_network(&self, network: &Network) -> Result<()> {
        network::make(network)
    }

    fn set_cpus(&self, count: u32) -> Result<()> {
        cpus::set_online(count)
    }

    fn power_off(&self) {
        crate::boot::power::off();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_stepped_only_where_it_is_off_by_more_than_a_tenth_of_a_second() {
        let at = |milliseconds| SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds);
        for (now, right, off) in [
            (5000, 5000, false),
            (5000, 5100, false),
            (5100, 5000, false),
            (5000, 5101, true),
            (5101, 5000, true),
        ] {
            assert_eq!(is_off(at(now), right * 1_000_000), off, "{now} {right}");
        }
        assert!(is_off(at(0), u64::MAX));
    }
}
