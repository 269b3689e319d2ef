//! The guest as the shim speaks with it: containerd's Task API and `vgpu.agent.v1` over the agent stream.
//!
//! Every wait on a guest has a limit of ours; it is not sent along, since ttrpc drops a handler at its deadline, and a half-done call
//! in the guest helps nobody. Whatever a guest answers is data: texts are passed on, nothing it says gives it authority.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use containerd_shim_protos::api::{DeleteRequest, DeleteResponse, Empty, KillRequest};
use protobuf::Message;
use tokio::sync::watch;
use ttrpc::{
    Code as Rpc,
    asynchronous::{Client, transport::Socket},
    proto::Request,
};
use vgpu_agent_api::{
    TASK_SERVICE,
    agent::{
        CloseStreamRequest, ContainerRequest, Event, ForwardRequest, HelloReply, HelloRequest,
        NextEventRequest, OomKillsReply, OpenStreamRequest, SetClockRequest, SetCpusRequest,
        SetSysctlsRequest, StreamOffer,
    },
    network::{DEVICES_LIMIT, Network},
    stream::StreamName,
    version::{self, Version},
    wire::ANSWER_BYTES_MAX,
};
use vgpu_codes::Code;

use crate::{
    error::{Error, OrFail, Result},
    frames::{Bounded, End, Ended},
    link::{AnyStream, Link},
};

const AGENT_SERVICE: &str = "vgpu.agent.v1.Agent";
/// For what the guest does without waiting for anything.
const SHORT: Duration = Duration::from_secs(10);
/// For it to forget a process: part of a Delete, which has 5 s.
const FORGET: Duration = Duration::from_secs(2);
/// Until it is asked again to forget one that it has just been told to kill.
const AGAIN: Duration = Duration::from_millis(50);
/// A long poll's own time, and ours around it.
const POLL: Duration = Duration::from_secs(60);

/// For it to make the pod's network: beyond what it may wait for its devices, so that it says which it has waited for.
const NETWORK: Duration = DEVICES_LIMIT.saturating_add(SHORT);
/// For it to connect to a port, which it tries for 10 s.
const FORWARD: Duration = Duration::from_secs(15);

/// A time that took longer to be heard is told again, so often at once.
const CLOCK_LATE: Duration = Duration::from_millis(100);
const CLOCK_TRIES: u32 = 3;

pub const SIGKILL: u32 = 9;

/// A guest that said hello.
pub struct Guest {
    client: Client,
    end: End,
    link: Arc<dyn Link>,
    domid: u16,
    streams: AtomicU32,
    dead: watch::Sender<bool>,
    /// What both ends speak.
    spoken: Version,
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest").field("domid", &self.domid).finish_non_exhaustive()
    }
}

impl Guest {
    /// Waits for the agent stream and says hello. The caller sets the limit.
    ///
    /// # Errors
    /// [`Code::GuestGone`], [`Code::ProtocolVersion`], or what the guest answered.
    pub async fn meet(link: Arc<dyn Link>, domid: u16, sandbox: &str, hostname: &str) -> Result<Guest> {
        let stream = Bounded::new(link.agent(domid).await?);
        let mut guest = Guest {
            end: stream.end(),
            client: Client::new(Socket::new(stream)),
            link,
            domid,
            streams: AtomicU32::new(1),
            dead: watch::Sender::new(false),
            spoken: version::CURRENT,
        };
        let reply = guest.hello(sandbox, hostname).await?;
        let theirs = Version { major: reply.major, minor: reply.minor };
        let met = version::meet(version::CURRENT, theirs).map_err(|error| {
            Error::caused(Code::ProtocolVersion, "the guest image does not fit this shim", error)
        })?;
        log::info!(
            "guest of domain {domid} is up: agent protocol {met}, build {:.64}, kernel {:.64}",
            reply.build,
            reply.kernel_release
        );
        guest.spoken = met;
        Ok(guest)
    }

    async fn hello(&self, sandbox: &str, hostname: &str) -> Result<HelloReply> {
        let request = HelloRequest {
            major: version::CURRENT.major,
            minor: version::CURRENT.minor,
            build: env!("CARGO_PKG_VERSION").into(),
            sandbox_id: sandbox.into(),
            hostname: hostname.into(),
            unix_nanoseconds: unix_nanoseconds(SystemTime::now()),
            seed: seed().or_fail(Code::HostFailure, || "cannot read random bytes".into())?.into(),
            ..HelloRequest::default()
        };
        self.call(AGENT_SERVICE, "Hello", &request, None).await
    }

    /// Nothing of it runs any more: who waits for it need not. Xen ends the streams of a domain when it is destroyed, not when it is halted.
    pub fn died(&self) {
        self.dead.send_replace(true);
    }

    /// Resolves when nothing of it runs any more.
    pub async fn death(&self) {
        // The sender lives in `self`.
        let _ = self.dead.subscribe().wait_for(|dead| *dead).await;
    }

    async fn unless_dead<T>(&self, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            done = work => done,
            () = self.death() => Err(Error::new(Code::GuestGone, format!("{what}: the guest is gone"))),
        }
    }

    /// Refuses `what`, which the protocol has since `since`, for an older guest: it may take it for something else.
    ///
    /// # Errors
    /// [`Code::ProtocolVersion`].
    pub fn require(&self, since: Version, what: &str) -> Result<()> {
        if self.spoken >= since {
            return Ok(());
        }
        let needs = format!("{what} needs agent protocol {since}, and it speaks {}", self.spoken);
        Err(Error::new(Code::ProtocolVersion, format!("the guest image does not fit this shim: {needs}")))
    }

    /// One call of containerd's Task API; `limit` is how long we wait.
    ///
    /// # Errors
    /// What the guest answered, [`Code::GuestSilent`], [`Code::GuestGone`].
    pub async fn task<Q: Message, A: Message>(
        &self,
        method: &str,
        request: &Q,
        limit: Option<Duration>,
    ) -> Result<A> {
        self.call(TASK_SERVICE, method, request, limit).await
    }

    /// Has it forget a process and end its streams; one that still runs, which nobody else will end, is killed. A guest that does not do so
    /// in time, or does not know the process, keeps nobody waiting.
    pub async fn forget(&self, id: &str, exec_id: &str) {
        let request = DeleteRequest { id: id.into(), exec_id: exec_id.into(), ..DeleteRequest::default() };
        let forgotten = async {
            loop {
                match self.task::<_, DeleteResponse>("Delete", &request, None).await {
                    // It runs, or is still being made.
                    Err(Error::Guest { rpc, message }) if rpc != Rpc::NOT_FOUND => {
                        log::debug!("delete {id} {exec_id} in the guest: {message}");
                    }
                    // Nor will a guest that is gone or broken do better when it is asked again.
                    _ => return,
                }
                self.end(id, exec_id).await;
                tokio::time::sleep(AGAIN).await;
            }
        };
        if tokio::time::timeout(FORGET, forgotten).await.is_err() {
            log::warn!("the guest has not deleted {id} {exec_id} within {} s", FORGET.as_secs());
        }
    }

    async fn end(&self, id: &str, exec_id: &str) {
        let (id, exec_id) = (id.to_owned(), exec_id.to_owned());
        let all = exec_id.is_empty();
        let request = KillRequest { id, exec_id, signal: SIGKILL, all, ..KillRequest::default() };
        if let Err(error) = self.task::<_, Empty>("Kill", &request, None).await {
            log::debug!("kill {} {} in the guest: {error}", request.id, request.exec_id);
        }
    }

    async fn call<Q: Message, A: Message>(
        &self,
        service: &str,
        method: &str,
        request: &Q,
        limit: Option<Duration>,
    ) -> Result<A> {
        let payload = request
            .write_to_bytes()
            .or_fail(Code::HostFailure, || format!("{method}: the request can't be written"))?;
        let request =
            Request { service: service.into(), method: method.into(), payload, ..Request::default() };
        let answer = async { self.client.request(request).await.map_err(|error| self.failed(method, error)) };
        let answer = self.unless_dead(method, answer);
        let answer = match limit {
            None => answer.await,
            Some(limit) => tokio::time::timeout(limit, answer).await.map_err(|_| {
                Error::new(Code::GuestSilent, format!("{method}: no answer within {} s", limit.as_secs_f32()))
            })?,
        }?;
        A::parse_from_bytes(&answer.payload).map_err(|error| {
            Error::caused(Code::ProtocolBroken, format!("{method}: the guest's answer can't be read"), error)
        })
    }

    /// A status that came stands, whatever its stream's end was.
    fn failed(&self, method: &str, error: ttrpc::Error) -> Error {
        let broken =
            |why: String| Error::new(Code::ProtocolBroken, format!("{method}: the guest sent {why}"));
        match (self.end.why(), error) {
            (_, error @ ttrpc::Error::RpcStatus(_)) => Error::from_guest(method, error),
            (Some(Ended::FrameTooLong(bytes)), _) => {
                broken(format!("{bytes} bytes as one, of {ANSWER_BYTES_MAX} at most"))
            }
            (Some(Ended::NoAnswer(kind)), _) => broken(format!("a frame of type {kind}, which is no answer")),
            (Some(Ended::Closed), why @ ttrpc::Error::Others(_)) => {
                Error::caused(Code::GuestGone, format!("{method}: the guest is gone"), why)
            }
            (_, error) => Error::from_guest(method, error),
        }
    }

    /// A new raw stream between us and the guest.
    ///
    /// # Errors
    /// As [`Guest::task`]; [`Code::ProtocolBroken`] if the guest offers another one.
    pub async fn open_stream(&self) -> Result<(StreamName, AnyStream)> {
        let id = self.stream_id()?;
        let request = OpenStreamRequest { id: id.get(), ..OpenStreamRequest::default() };
        let offer: StreamOffer = self.call(AGENT_SERVICE, "OpenStream", &request, Some(SHORT)).await?;
        Ok((StreamName(id), self.accept(id, &offer).await?))
    }

    /// Has it connect to a port of its loopback: a stream of the connection's bytes, which ends at its end there with the connection.
    ///
    /// # Errors
    /// As [`Guest::open_stream`]; what it answers where nobody accepts the connection.
    pub async fn forward(&self, port: u16, ipv6: bool) -> Result<AnyStream> {
        let id = self.stream_id()?;
        let request = ForwardRequest { id: id.get(), port: port.into(), ipv6, ..ForwardRequest::default() };
        let opened = async {
            let offer: StreamOffer = self.call(AGENT_SERVICE, "Forward", &request, Some(FORWARD)).await?;
            self.accept(id, &offer).await
        };
        let opened = opened.await;
        if matches!(opened, Err(Error::Own { .. })) {
            // It may have made one, which would wait for us.
            self.close_stream(StreamName(id)).await;
        }
        opened
    }

    fn stream_id(&self) -> Result<NonZeroU32> {
        NonZeroU32::new(self.streams.fetch_add(1, Ordering::Relaxed))
            .ok_or_else(|| Error::new(Code::HostResource, "the sandbox has used up its stream ids"))
    }

    async fn accept(&self, id: NonZeroU32, offer: &StreamOffer) -> Result<AnyStream> {
        if offer.id != id.get() {
            return Err(Error::new(
                Code::ProtocolBroken,
                format!("the guest offers stream {} for {id}", offer.id),
            ));
        }
        let stream = self.unless_dead("a stream", self.link.accept(self.domid, offer));
        tokio::time::timeout(SHORT, stream)
            .await
            .map_err(|_| Error::new(Code::GuestSilent, "a stream that the guest offered did not come up"))?
    }

    /// Our end of a stream is gone: the guest may have its pages back.
    pub async fn close_stream(&self, name: StreamName) {
        let request = CloseStreamRequest { id: name.0.get(), ..CloseStreamRequest::default() };
        let closed: Result<vgpu_agent_api::agent::Empty> =
            self.call(AGENT_SERVICE, "CloseStream", &request, Some(SHORT)).await;
        if let Err(error) = closed {
            log::debug!("closing {name}: {error}");
        }
    }

    /// Tells it what time it is here. Gives whether it heard that in time: else its clock may have been set back by as much as it was late.
    ///
    /// # Errors
    /// As [`Guest::task`]. One that is silent has the word still before it.
    pub async fn set_clock(&self) -> Result<bool> {
        for _ in 0..CLOCK_TRIES {
            let asked = Instant::now();
            let unix_nanoseconds = unix_nanoseconds(SystemTime::now());
            let request = SetClockRequest { unix_nanoseconds, ..SetClockRequest::default() };
            let _: vgpu_agent_api::agent::Empty =
                self.call(AGENT_SERVICE, "SetClock", &request, Some(SHORT)).await?;
            if asked.elapsed() <= CLOCK_LATE {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Has it make the pod's network.
    ///
    /// # Errors
    /// As [`Guest::task`] and [`Guest::require`].
    pub async fn set_network(&self, network: &Network) -> Result<()> {
        self.require(version::POD_SINCE, "a pod's network")?;
        if !network.sysctls.is_empty() && self.spoken < version::NETWORK_SYSCTLS_SINCE {
            // A pod under such an image had to do without them before, too.
            log::warn!(
                "the guest image is too old for the sysctls of the pod's network namespace: it has none of them"
            );
        }
        let made: Result<vgpu_agent_api::agent::Empty> =
            self.call(AGENT_SERVICE, "SetNetwork", &network.to_wire(), Some(NETWORK)).await;
        made.map(drop)
    }

    /// Has it set sysctls of the pod.
    ///
    /// # Errors
    /// As [`Guest::task`].
    pub async fn set_sysctls(&self, sysctls: &BTreeMap<String, String>) -> Result<()> {
        let sysctls = sysctls.clone().into_iter().collect();
        let request = SetSysctlsRequest { sysctls, ..SetSysctlsRequest::default() };
        let set: Result<vgpu_agent_api::agent::Empty> =
            self.call(AGENT_SERVICE, "SetSysctls", &request, Some(SHORT)).await;
        set.map(drop)
    }

    /// Has it look at the volumes that its copy of the container's spec names, which have changed.
    ///
    /// # Errors
    /// As [`Guest::task`].
    pub async fn refresh_volumes(&self, id: &str) -> Result<()> {
        let request = ContainerRequest { container_id: id.into(), ..ContainerRequest::default() };
        let refreshed: Result<vgpu_agent_api::agent::Empty> =
            self.call(AGENT_SERVICE, "RefreshVolumes", &request, Some(SHORT)).await;
        refreshed.map(drop)
    }

    /// Has it use so many of its domain's CPUs.
    ///
    /// # Errors
    /// As [`Guest::task`] and [`Guest::require`].
    pub async fn set_cpus(&self, count: u32) -> Result<()> {
        self.require(version::CPUS_SINCE, "another number of CPUs")?;
        let request = SetCpusRequest { count, ..SetCpusRequest::default() };
        let set: Result<vgpu_agent_api::agent::Empty> =
            self.call(AGENT_SERVICE, "SetCpus", &request, Some(SHORT)).await;
        set.map(drop)
    }

    /// The next thing that the guest has to tell, or nothing for a while.
    ///
    /// # Errors
    /// As [`Guest::task`].
    pub async fn next_event(&self) -> Result<Event> {
        let timeout_ms = u32::try_from(POLL.as_millis()).unwrap_or(u32::MAX);
        let request = NextEventRequest { timeout_ms, ..NextEventRequest::default() };
        self.call(AGENT_SERVICE, "NextEvent", &request, Some(POLL + SHORT)).await
    }

    /// How often its kernel killed a process of this container for want of memory; `limit` is how long we wait.
    ///
    /// # Errors
    /// As [`Guest::task`]; UNIMPLEMENTED of a guest of protocol 1.0.
    pub async fn oom_kills(&self, id: &str, limit: Duration) -> Result<u64> {
        let request = ContainerRequest { container_id: id.into(), ..ContainerRequest::default() };
        let reply: OomKillsReply = self.call(AGENT_SERVICE, "OomKills", &request, Some(limit)).await?;
        Ok(reply.count)
    }
}

/// As much as a kernel's generator takes in before it is ready. Source: Linux, `include/crypto/blake2s.h`, `BLAKE2S_HASH_SIZE`.
fn seed() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn unix_nanoseconds(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
