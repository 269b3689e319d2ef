//! A pod to whom something happens: its way there, and the victims.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use containerd_shim_protos::{
    api::{self, Empty},
    protobuf::Message,
};
use rustix::{
    fs::{CWD, Mode, mkfifoat},
    process::{Pid, Signal, kill_process},
};
use serde_json::{Value, json};
use tokio::{net::unix::pipe, task::JoinHandle, time};
use vgpu_contract::{left, mock::Shim};

use crate::{
    containerd::{Containerd, until},
    plan::{Doing, Plan, Victim},
};

/// The pod's sandbox, by its container.
pub const SANDBOX: &str = "pod";
const SECOND: &str = "app";
pub const EXEC: &str = "e";
pub const SIGKILL: u32 = 9;
/// A client reads so much, and pauses.
const READ_BYTES: usize = 64 << 10;
const READ_PAUSE: Duration = Duration::from_millis(1);

/// What a call gives.
pub type Answer = ttrpc::Result<()>;

/// See the module.
pub struct Pod {
    pub containerd: Arc<Containerd>,
    pub shim: Arc<Shim>,
    /// To whom it happens.
    pub id: &'static str,
}

impl Pod {
    /// Up to what the plan has happen next; its bundles are there.
    pub async fn begin(plan: &Plan) -> Self {
        let containerd = Arc::new(Containerd::new().await);
        containerd.bundle(SANDBOX, "exec sleep 1000", |spec| spec["annotations"] = annotations("sandbox"));
        let shim = Arc::new(containerd.start(SANDBOX).await);
        let mut id = SANDBOX;
        if plan.second {
            id = SECOND;
            containerd.create(&shim, SANDBOX).await;
            containerd
                .bundle(SECOND, "exec sleep 1000", |spec| spec["annotations"] = annotations("container"));
            containerd.start(SECOND).await;
        }
        let pod = Pod { containerd, shim, id };
        for doing in Doing::ALL.into_iter().take_while(|doing| *doing != plan.doing) {
            pod.does(doing).await.unwrap_or_else(|error| panic!("{doing:?} before it: {error}"));
        }
        pod
    }

    /// The ids of its containers, the sandbox last.
    pub fn ids(&self) -> Vec<&'static str> {
        if self.id == SANDBOX { vec![SANDBOX] } else { vec![SECOND, SANDBOX] }
    }

    /// One operation, to its answer.
    pub async fn does(&self, doing: Doing) -> Answer {
        let id = self.id.to_owned();
        match doing {
            Doing::Create => {
                self.asks::<_, api::CreateTaskResponse>("Create", self.containerd.asked(&id)).await
            }
            Doing::Start => self.start("").await,
            Doing::Exec => self.asks::<_, Empty>("Exec", self.exec()).await,
            Doing::StartExec => self.start(EXEC).await,
            Doing::Output => {
                time::sleep(Duration::from_millis(10)).await;
                Ok(())
            }
            Doing::Pause => {
                self.asks::<_, Empty>("Pause", api::PauseRequest { id, ..Default::default() }).await
            }
            Doing::Resume => {
                self.asks::<_, Empty>("Resume", api::ResumeRequest { id, ..Default::default() }).await
            }
            Doing::Kill => {
                self.kill(self.id).await?;
                self.wait(self.id).await
            }
            Doing::Delete => self.delete(self.id).await,
        }
    }

    async fn asks<Q: Message, A: Message>(&self, method: &str, request: Q) -> Answer {
        self.shim.call::<Q, A>(method, &request).await.map(drop)
    }

    async fn start(&self, exec: &str) -> Answer {
        let request = api::StartRequest { id: self.id.into(), exec_id: exec.into(), ..Default::default() };
        self.asks::<_, api::StartResponse>("Start", request).await
    }

    /// An exec that writes without end, to a client that reads.
    fn exec(&self) -> api::ExecProcessRequest {
        let mut request = self.containerd.asked_exec(self.id, EXEC, "exec cat /dev/zero", |_| {});
        let fifo = self.containerd.bundle_of(self.id).join("fifo");
        mkfifoat(CWD, &fifo, Mode::RWXU).unwrap();
        // Like containerd's, it goes on when a shim goes away.
        let client = pipe::OpenOptions::new().read_write(true).open_receiver(&fifo).unwrap();
        tokio::spawn(read(client, Arc::downgrade(&self.containerd)));
        request.stdout = fifo.to_string_lossy().into_owned();
        request.stderr.clear();
        request
    }

    pub async fn state(&self, id: &str) -> Answer {
        self.asks::<_, api::StateResponse>("State", api::StateRequest { id: id.into(), ..Default::default() })
            .await
    }

    pub async fn kill(&self, id: &str) -> Answer {
        let request = api::KillRequest { id: id.into(), signal: SIGKILL, all: true, ..Default::default() };
        self.asks::<_, Empty>("Kill", request).await
    }

    pub async fn wait(&self, id: &str) -> Answer {
        self.asks::<_, api::WaitResponse>("Wait", api::WaitRequest { id: id.into(), ..Default::default() })
            .await
    }

    pub async fn delete(&self, id: &str) -> Answer {
        let request = api::DeleteRequest { id: id.into(), ..Default::default() };
        self.asks::<_, api::DeleteResponse>("Delete", request).await
    }

    /// Says whether there was a victim: an operation may end without one.
    pub async fn strike(&self, plan: &Plan, operation: &JoinHandle<Answer>) -> bool {
        let there = || self.pid(plan.victim).is_some() || operation.is_finished();
        until("there is a victim", there, || format!("{plan:?}")).await;
        time::sleep(plan.after).await;
        let cgroup = || left::lives(&self.containerd.node()).first().and_then(|uuid| left::cgroup_of(uuid));
        match plan.victim {
            Victim::Connection => true,
            Victim::Shim => {
                self.shim.kill().await;
                true
            }
            Victim::Domain => {
                cgroup().is_some_and(|cgroup| fs::write(cgroup.join("cgroup.kill"), "1").is_ok())
            }
            Victim::Guest => {
                cgroup().is_some_and(|cgroup| fs::write(cgroup.join("cgroup.freeze"), "1").is_ok())
            }
            _ => self.pid(plan.victim).is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok()),
        }
    }

    /// The victim, or the process by which it is seen.
    fn pid(&self, victim: Victim) -> Option<Pid> {
        let lives = left::lives(&self.containerd.node());
        let cgroup = || left::cgroup_of(lives.first()?);
        let first = |folder: PathBuf| {
            fs::read_to_string(folder.join("cgroup.procs")).ok()?.lines().next()?.parse().ok()
        };
        let pid = match victim {
            Victim::Shim | Victim::Connection => Some(self.shim.pid),
            Victim::Agent | Victim::Guest => left::pid_1(&cgroup()?),
            Victim::Backend | Victim::Domain => first(cgroup()?),
            Victim::Program => first(cgroup()?.join("vgpu").join(self.id)),
            Victim::Holder => self.holder(),
        };
        pid.and_then(Pid::from_raw)
    }

    /// By the shim's record.
    fn holder(&self) -> Option<i32> {
        let records = fs::read_dir(self.containerd.node().join("sandboxes")).ok()?;
        let record = records.flatten().next()?.path().join("state.json");
        let record: Value = serde_json::from_slice(&fs::read(record).ok()?).ok()?;
        record["containers"][self.id]["holder"]["pid"].as_i64()?.try_into().ok()
    }
}

fn annotations(kind: &str) -> Value {
    json!({"io.kubernetes.cri.container-type": kind, "io.kubernetes.cri.sandbox-id": SANDBOX})
}

/// As a client that is not quick, until its containerd is no more.
async fn read(fifo: pipe::Receiver, containerd: Weak<Containerd>) {
    let mut bytes = vec![0; READ_BYTES];
    while containerd.strong_count() > 0 {
        // Nothing there is an error, too.
        let _ = fifo.try_read(&mut bytes);
        time::sleep(READ_PAUSE).await;
    }
}
