//! A guest-init that runs nothing: it serves the two services over a unix socket, and its programs are a few habits by their id.

mod own;

use std::{
    collections::BTreeMap,
    os::unix::net::UnixListener,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use containerd_shim_protos::{
    api,
    cgroups_v2::metrics::{IOEntry, Metrics},
    shim_async::Task,
};
use protobuf::{Message, well_known_types::any::Any};
use tokio::{
    io::{AsyncWriteExt, DuplexStream},
    net::UnixStream,
    sync::watch,
    task::JoinHandle,
};
use ttrpc::r#async::{Server, TtrpcContext, transport::Listener};
use vgpu_agent_api::agent_ttrpc;

use super::world::World;

/// A container whose Create takes a while, its Pause and the refusal of its Resume as long as [`World::freezes`] says.
pub const SLOW: &str = "slow";
/// One whose Start and Update, or an exec whose Exec, are done but not answered.
pub const MUTE: &str = "mute";
/// An exec whose Start is done but not answered.
pub const STUCK: &str = "stuck";

/// One whose Pause and Resume are done but not answered.
pub const LOST: &str = "lost";
/// One whose Pause and Resume are done and answered with an error of the guest's, and a part of an Update.
pub const FAILING: &str = "failing";
/// One whose Pause and Resume are neither done nor answered.
pub const IGNORED: &str = "ignored";
/// One whose figures are none.
pub const STRANGE: &str = "strange";

/// How this node's guests misbehave.
#[derive(Debug, Default, Clone, Copy)]
pub struct Habits {
    pub no_xen: bool,
    /// Xen has a scheduler that holds nobody back.
    pub no_caps: bool,
    pub never_boots: bool,
    /// Kill, Pids, Pause, State, SetClock, SetNetwork and OomKills are never answered.
    pub hangs: bool,
    /// Kill is answered, and nothing dies.
    pub lies: bool,
    /// Wait and Pids say that there is no such process.
    pub denies: bool,
    /// Create answers that the command is missing.
    pub command_missing: bool,
    /// Its domain cannot be stopped, which is said at the limit, but destroyed.
    pub never_halts: bool,
    /// SetClock takes a while, and SetNetwork longer than a boot may.
    pub is_slow: bool,
    /// It is of protocol 1.0.
    pub is_old: bool,
    /// The holders of its containers go to another network namespace once [`World::move_holders`] says so.
    pub holders_move: bool,
    /// Who meets it panics: a defect of ours.
    pub panics: bool,
    /// Instead of ttrpc it says this again and again.
    pub babbles: Option<&'static [u8]>,
}

#[derive(Debug)]
pub struct FakeGuest {
    serving: JoinHandle<()>,
    /// No processor runs it any more; it is gone with its sender.
    halted: watch::Sender<bool>,
}

impl FakeGuest {
    pub fn socket(world: &World, domid: u16) -> PathBuf {
        world.dir.path().join(format!("guest-{domid}.sock"))
    }

    pub fn boot(world: Arc<World>, domid: u16) -> FakeGuest {
        let path = FakeGuest::socket(&world, domid);
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(path).unwrap();
        if let Some(words) = world.habits.babbles {
            return FakeGuest::babble(listener, words);
        }
        FakeGuest::serving(async move {
            let inner = Arc::new(Inner { world, streams: Mutex::default() });
            let agent: Arc<dyn agent_ttrpc::Agent + Send + Sync> = inner.clone();
            let mut server = Server::new()
                .add_listener(Listener::try_from(listener).unwrap())
                .register_service(vgpu_agent_api::task_v2(inner))
                .register_service(agent_ttrpc::create_agent(agent));
            server.start().await.unwrap();
            // Dropped with the domain.
            let _guard = Disconnect(Some(server));
            std::future::pending::<()>().await;
        })
    }

    fn serving(serve: impl Future<Output = ()> + Send + 'static) -> FakeGuest {
        let serving = tokio::runtime::Handle::current().spawn(serve);
        FakeGuest { serving, halted: watch::Sender::new(false) }
    }

    /// It does nothing any more.
    pub fn halt(&self) {
        self.halted.send_replace(true);
    }

    /// A stream between it and the shim. Xen ends none of a domain that is only halted: nothing comes any more, until it is destroyed.
    pub fn stream(&self, mut guests: UnixStream) -> DuplexStream {
        let (shims, mut between) = tokio::io::duplex(64 << 10);
        let mut halted = self.halted.subscribe();
        tokio::spawn(async move {
            let stays = tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut guests, &mut between) => false,
                halted = async { halted.wait_for(|halted| *halted).await.is_ok() } => halted,
            };
            while stays && halted.changed().await.is_ok() {}
        });
        shims
    }

    fn babble(listener: UnixListener, words: &'static [u8]) -> FakeGuest {
        listener.set_nonblocking(true).unwrap();
        FakeGuest::serving(async move {
            let listener = tokio::net::UnixListener::from_std(listener).unwrap();
            let (mut shim, _) = listener.accept().await.unwrap();
            // Until the shim has had enough.
            while shim.write_all(&words.repeat(1000)).await.is_ok() {}
        })
    }
}

impl Drop for FakeGuest {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Disconnect(Option<Server>);

impl Drop for Disconnect {
    fn drop(&mut self) {
        if let (Some(mut server), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { server.shutdown().await });
        }
    }
}

/// Container and exec.
type Key = (String, String);
pub type Programs = BTreeMap<Key, Program>;

struct Inner {
    world: Arc<World>,
    streams: Mutex<BTreeMap<u32, DuplexStream>>,
}

#[derive(Debug)]
pub struct Program {
    /// Create is not done with it.
    making: bool,
    started: bool,
    paused: bool,
    exit: watch::Sender<Option<u32>>,
    stdin: Option<DuplexStream>,
    stdout: Option<DuplexStream>,
}

impl Program {
    /// The first end counts.
    pub fn ends(&self, status: u32) {
        self.exit.send_if_modified(|exit| exit.is_none() && exit.replace(status).is_none());
    }
}

impl Inner {
    fn add(&self, key: Key, stdin: &str, stdout: &str) {
        let take = |name: &str| {
            let id = name.parse::<vgpu_agent_api::stream::StreamName>().ok()?.0.get();
            self.streams.lock().unwrap().remove(&id)
        };
        let program = Program {
            making: false,
            started: false,
            paused: false,
            exit: watch::Sender::new(None),
            stdin: take(stdin),
            stdout: take(stdout),
        };
        self.programs().insert(key, program);
    }

    fn programs(&self) -> MutexGuard<'_, Programs> {
        self.world.programs.lock().unwrap()
    }

    async fn freeze(&self, id: &str, paused: bool) -> ttrpc::Result<api::Empty> {
        let refused = !paused && !self.programs()[&key(id, "")].paused;
        if id == SLOW && (paused || refused) {
            let turn = if refused { 1 } else { 2 };
            self.world.freezes.subscribe().wait_for(|now| *now >= turn).await.unwrap();
        }
        if refused {
            return Err(status(ttrpc::Code::FAILED_PRECONDITION, "it is not paused"));
        }
        if !self.world.habits.hangs && id != IGNORED {
            self.programs().get_mut(&key(id, "")).unwrap().paused = paused;
        }
        if self.world.habits.hangs || [LOST, IGNORED].contains(&id) {
            std::future::pending::<()>().await;
        }
        if id == FAILING {
            return Err(status(ttrpc::Code::INTERNAL, "cgroup.freeze cannot be written"));
        }
        Ok(api::Empty::default())
    }

    /// `exit<n>` ends at once with n, `echo` copies stdin to stdout and ends with 0, anything else runs until it is killed.
    fn run(&self, key: &Key) {
        let mut programs = self.programs();
        let program = programs.get_mut(key).unwrap();
        program.started = true;
        let name = if key.1.is_empty() { &key.0 } else { &key.1 };
        if let Some(code) = name.strip_prefix("exit") {
            program.exit.send_replace(Some(code.parse().unwrap()));
        } else if name == "echo" {
            let (mut stdin, mut stdout) = (program.stdin.take().unwrap(), program.stdout.take().unwrap());
            let exit = program.exit.clone();
            tokio::spawn(async move {
                tokio::io::copy(&mut stdin, &mut stdout).await.unwrap();
                exit.send_replace(Some(0));
            });
        }
    }
}

fn key(id: &str, exec: &str) -> Key {
    (id.to_owned(), exec.to_owned())
}

fn status(code: ttrpc::Code, text: &str) -> ttrpc::Error {
    ttrpc::Error::RpcStatus(ttrpc::get_status(code, text))
}

#[async_trait]
impl Task for Inner {
    async fn create(
        &self,
        _: &TtrpcContext,
        r: api::CreateTaskRequest,
    ) -> ttrpc::Result<api::CreateTaskResponse> {
        let share = self.world.dir.path().join("shared");
        let folder =
            std::fs::read_dir(share).unwrap().next().unwrap().unwrap().path().join("export").join(&r.id);
        assert!(
            folder.join("config.json").exists() && folder.join("rootfs").is_dir(),
            "the container is not in the share"
        );
        assert_eq!(r.bundle, format!("/run/vgpu/share/{}", r.id));
        if self.world.habits.command_missing {
            return Err(status(ttrpc::Code::INVALID_ARGUMENT, "exec: \"/no\": no such file"));
        }
        let key = key(&r.id, "");
        self.add(key.clone(), &r.stdin, &r.stdout);
        if r.id == SLOW {
            self.programs().get_mut(&key).unwrap().making = true;
            tokio::time::sleep(Duration::from_millis(300)).await;
            self.programs().get_mut(&key).unwrap().making = false;
        }
        Ok(api::CreateTaskResponse { pid: 2, ..Default::default() })
    }

    async fn start(&self, _: &TtrpcContext, r: api::StartRequest) -> ttrpc::Result<api::StartResponse> {
        if r.exec_id == "missing" {
            return Err(status(ttrpc::Code::INVALID_ARGUMENT, "exec: no such file"));
        }
        self.run(&key(&r.id, &r.exec_id));
        if r.id == MUTE || r.exec_id == STUCK {
            std::future::pending::<()>().await;
        }
        Ok(api::StartResponse { pid: 2, ..Default::default() })
    }

    /// More than a guest has to say.
    async fn stats(&self, _: &TtrpcContext, r: api::StatsRequest) -> ttrpc::Result<api::StatsResponse> {
        let mut metrics = Metrics::default();
        metrics.pids.mut_or_insert_default().current = 3;
        metrics.cpu.mut_or_insert_default().psi.mut_or_insert_default().some.mut_or_insert_default().avg10 =
            f64::NAN;
        metrics.memory.mut_or_insert_default().mut_unknown_fields().add_varint(1000, 1);
        metrics.io.mut_or_insert_default().usage = vec![IOEntry { major: 8, ..Default::default() }; 2];
        metrics.mut_unknown_fields().add_length_delimited(1000, vec![1; 1000]);
        let type_url =
            if r.id == STRANGE { "google.protobuf.Empty" } else { "io.containerd.cgroups.v2.Metrics" };
        let any =
            Any { type_url: type_url.into(), value: metrics.write_to_bytes().unwrap(), ..Default::default() };
        Ok(api::StatsResponse { stats: Some(any).into(), ..Default::default() })
    }

    /// Odd numbers of bytes and microseconds it refuses before it tries.
    async fn update(&self, _: &TtrpcContext, r: api::UpdateTaskRequest) -> ttrpc::Result<api::Empty> {
        let resources: serde_json::Value = serde_json::from_slice(&r.resources.value).unwrap();
        self.world.updates.lock().unwrap().push((r.id.clone(), resources.clone()));
        drop(self.world.slow_update.lock().await);
        if r.id == MUTE {
            std::future::pending::<()>().await;
        }
        if r.id == FAILING {
            return Err(status(ttrpc::Code::INTERNAL, "pids.max cannot be written"));
        }
        let limits = [&resources["memory"]["limit"], &resources["cpu"]["quota"]];
        if limits.iter().any(|limit| limit.as_u64().is_some_and(|number| number % 2 == 1)) {
            return Err(status(ttrpc::Code::INVALID_ARGUMENT, "it is odd"));
        }
        Ok(api::Empty::default())
    }

    async fn exec(&self, _: &TtrpcContext, r: api::ExecProcessRequest) -> ttrpc::Result<api::Empty> {
        self.add(key(&r.id, &r.exec_id), &r.stdin, &r.stdout);
        if r.exec_id == MUTE {
            std::future::pending::<()>().await;
        }
        Ok(api::Empty::default())
    }

    async fn wait(&self, _: &TtrpcContext, r: api::WaitRequest) -> ttrpc::Result<api::WaitResponse> {
        let exit = self.programs().get(&key(&r.id, &r.exec_id)).map(|program| program.exit.subscribe());
        let exit = exit.filter(|_| !self.world.habits.denies);
        let none = || status(ttrpc::Code::NOT_FOUND, "no such process");
        let mut exit = exit.ok_or_else(none)?;
        let ended = exit.wait_for(Option::is_some).await;
        let exit_status = ended.ok().and_then(|exit| *exit).ok_or_else(none)?;
        Ok(api::WaitResponse { exit_status, ..Default::default() })
    }

    async fn kill(&self, _: &TtrpcContext, r: api::KillRequest) -> ttrpc::Result<api::Empty> {
        if self.world.habits.hangs {
            std::future::pending::<()>().await;
        }
        // A pid namespace dies with its init.
        for (found, program) in self.programs().iter().filter(|_| !self.world.habits.lies) {
            if found.0 == r.id && (r.exec_id.is_empty() || found.1 == r.exec_id) {
                program.ends(128 + r.signal);
            }
        }
        Ok(api::Empty::default())
    }

    async fn pause(&self, _: &TtrpcContext, r: api::PauseRequest) -> ttrpc::Result<api::Empty> {
        self.freeze(&r.id, true).await
    }

    async fn resume(&self, _: &TtrpcContext, r: api::ResumeRequest) -> ttrpc::Result<api::Empty> {
        self.freeze(&r.id, false).await
    }

    async fn state(&self, _: &TtrpcContext, r: api::StateRequest) -> ttrpc::Result<api::StateResponse> {
        if self.world.habits.hangs {
            std::future::pending::<()>().await;
        }
        let paused = self.programs().get(&key(&r.id, "")).map(|program| program.paused);
        let paused = paused.ok_or_else(|| status(ttrpc::Code::NOT_FOUND, "no such container"))?;
        let status = if paused { api::Status::PAUSED } else { api::Status::RUNNING };
        Ok(api::StateResponse { status: status.into(), ..Default::default() })
    }

    async fn pids(&self, _: &TtrpcContext, r: api::PidsRequest) -> ttrpc::Result<api::PidsResponse> {
        let Habits { hangs, denies, .. } = self.world.habits;
        if hangs {
            std::future::pending::<()>().await;
        }
        if denies || !self.programs().contains_key(&key(&r.id, "")) {
            return Err(status(ttrpc::Code::NOT_FOUND, "no such container"));
        }
        let init = api::ProcessInfo { pid: 2, ..Default::default() };
        Ok(api::PidsResponse { processes: vec![init], ..Default::default() })
    }

    async fn delete(&self, _: &TtrpcContext, r: api::DeleteRequest) -> ttrpc::Result<api::DeleteResponse> {
        let mut programs = self.programs();
        let Some(program) = programs.get(&key(&r.id, &r.exec_id)) else {
            return Err(status(ttrpc::Code::NOT_FOUND, "no such process"));
        };
        if program.making || program.started && program.exit.borrow().is_none() {
            return Err(status(ttrpc::Code::FAILED_PRECONDITION, "it is being created, or runs"));
        }
        programs.remove(&key(&r.id, &r.exec_id));
        Ok(api::DeleteResponse::default())
    }
}
