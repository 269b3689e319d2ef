//! A shim that serves, called as containerd calls it.

use std::os::fd::OwnedFd;

use containerd_shim_protos::api::{self, ConnectRequest, ConnectResponse, Empty, ShutdownRequest};
use protobuf::Message;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use ttrpc::{asynchronous::Client, proto::Request};

use super::{SOON, until};

/// A pod's shim.
#[derive(Debug)]
pub struct Shim {
    address: String,
    service: &'static str,
    /// Its process.
    pub pid: i32,
}

impl Shim {
    /// The one that serves there.
    pub(super) async fn at(address: String, service: &'static str) -> Self {
        let mut shim = Shim { address, service, pid: 0 };
        let connected: ConnectResponse =
            shim.call("Connect", &ConnectRequest::default()).await.expect("Connect");
        shim.pid = connected.shim_pid.cast_signed();
        shim
    }

    /// One call of the Task service over a connection of its own.
    /// # Errors
    /// The shim's.
    pub async fn call<Q: Message, A: Message>(&self, method: &str, request: &Q) -> ttrpc::Result<A> {
        self.call_of(self.service, method, request).await
    }

    /// The same of the Sandbox service: "StopSandbox".
    /// # Errors
    /// The shim's.
    pub async fn sandbox<Q: Message, A: Message>(&self, method: &str, request: &Q) -> ttrpc::Result<A> {
        self.call_of("containerd.runtime.sandbox.v1.Sandbox", method, request).await
    }

    async fn call_of<Q: Message, A: Message>(
        &self,
        service: &str,
        method: &str,
        request: &Q,
    ) -> ttrpc::Result<A> {
        let client = Client::connect(&self.address).await?;
        let payload = request.write_to_bytes().expect("a message");
        let request =
            Request { service: service.into(), method: method.into(), payload, ..Request::default() };
        let answer = tokio::time::timeout(SOON, client.request(request)).await;
        let answer = answer.unwrap_or_else(|_| panic!("{} has no answer to {method}", self.address));
        answer.map(|reply| A::parse_from_bytes(&reply.payload).expect("a reply"))
    }

    /// Exec, of what [`super::Containerd::asked_exec`] says.
    pub async fn exec(&self, asked: &api::ExecProcessRequest) {
        let _: Empty = self.call("Exec", asked).await.expect("Exec");
    }

    /// Start of init.
    pub async fn begin(&self, id: &str) {
        self.begin_exec(id, "").await;
    }

    /// Start of an exec; an empty one is init.
    pub async fn begin_exec(&self, id: &str, exec: &str) {
        let request = api::StartRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
        let _: api::StartResponse = self.call("Start", &request).await.expect("Start");
    }

    /// The exit status.
    pub async fn wait(&self, id: &str) -> u32 {
        self.wait_exec(id, "").await
    }

    /// The exit status of an exec; an empty one is init.
    pub async fn wait_exec(&self, id: &str, exec: &str) -> u32 {
        let request = api::WaitRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
        let reply: api::WaitResponse = self.call("Wait", &request).await.expect("Wait");
        reply.exit_status
    }

    /// The exit status.
    pub async fn delete(&self, id: &str) -> u32 {
        self.delete_exec(id, "").await
    }

    /// The exit status of an exec; an empty one is init.
    pub async fn delete_exec(&self, id: &str, exec: &str) -> u32 {
        let request = api::DeleteRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
        let reply: api::DeleteResponse = self.call("Delete", &request).await.expect("Delete");
        reply.exit_status
    }

    /// To init.
    pub async fn signal(&self, id: &str, signal: u32) {
        let request = api::KillRequest { id: id.into(), signal, ..Default::default() };
        let _: Empty = self.call("Kill", &request).await.expect("Kill");
    }

    /// Lets it go.
    pub async fn shut_down(&self) {
        let _: Empty = self.call("Shutdown", &ShutdownRequest::default()).await.expect("Shutdown");
    }

    /// Lets it go and waits for its end, if it has not gone already.
    pub async fn end(&self) {
        let Ok(pidfd) = pidfd_open(self.process(), PidfdFlags::empty()) else { return };
        // Its answer may be overtaken by its end.
        let _ = self.call::<_, Empty>("Shutdown", &ShutdownRequest::default()).await;
        gone(&pidfd).await;
    }

    /// SIGKILL, and waits for its end.
    pub async fn kill(&self) {
        let pidfd = pidfd_open(self.process(), PidfdFlags::empty()).expect("it lives");
        kill_process(self.process(), Signal::KILL).expect("it lives");
        gone(&pidfd).await;
    }

    fn process(&self) -> Pid {
        Pid::from_raw(self.pid).expect("a pid")
    }
}

async fn gone(pidfd: &OwnedFd) {
    // Its first thread is a zombie before the last one lets go of its sockets: the next shim of that name would find one that listens.
    let gone = || {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&at_once)).expect("polled") > 0
    };
    until("the shim is gone", gone, String::new).await;
}
