//! A node whose parts are played: a shim, a guest, a gpu-proxy, and what containerd hears.

use std::{path::PathBuf, sync::Mutex};

use async_trait::async_trait;
use containerd_shim_protos::{
    shim::{event::Envelope, events::ForwardRequest},
    shim_async::{Events, create_events},
};
use tokio::sync::mpsc;
use ttrpc::r#async::{Server, transport::Listener};

use super::{
    world::{Source, World},
    *,
};
use crate::{
    cleanup,
    error::Result,
    events::Outbox,
    pod::{
        Pod,
        steps::{Cut, Step},
    },
};

/// A containerd that only listens.
pub struct Heard(Mutex<Vec<Envelope>>);

#[async_trait]
impl Events for Heard {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<api::Empty> {
        self.0.lock().unwrap().push(request.envelope.unwrap());
        Ok(api::Empty::default())
    }
}

/// One node with one shim.
pub struct Node {
    pub world: Arc<World>,
    pub pod: Arc<Pod>,
    pub outbox: Outbox,
    pub heard: Arc<Heard>,
    pub _containerd: Server,
}

impl Node {
    pub async fn new(habits: Habits) -> Node {
        Node::with_cut(habits, Cut::default()).await
    }

    pub async fn with_cut(habits: Habits, cut: Cut) -> Node {
        Node::of(World::new(habits), cut).await
    }

    pub async fn of(world: Arc<World>, cut: Cut) -> Node {
        let socket = world.dir.path().join("containerd.sock");
        let heard = Arc::new(Heard(Mutex::default()));
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let mut containerd = Server::new()
            .add_listener(Listener::try_from(listener).unwrap())
            .register_service(create_events(heard.clone()));
        containerd.start().await.unwrap();
        let outbox = Outbox::new("default", &socket.to_string_lossy());
        let pod = Pod::new(Arc::new(Source(world.clone())), "default", outbox.clone(), cut);
        Node { world, pod, outbox, heard, _containerd: containerd }
    }

    /// One whose shim is killed when its Create of what is asked for has come so far, and the bundle of that.
    pub async fn killed_after(
        last: Step,
        asked: impl FnOnce(&Node) -> api::CreateTaskRequest,
    ) -> (Node, String) {
        let (reached, mut cut_at) = mpsc::unbounded_channel();
        let cut = Cut::new(move |step| step == last && reached.send(()).is_ok());
        let node = Node::with_cut(Habits::default(), cut).await;
        let request = asked(&node);
        let bundle = request.bundle.clone();
        let creating = tokio::spawn(node.pod.clone().create(request));
        let cut = tokio::time::timeout(Duration::from_secs(10), cut_at.recv()).await;
        cut.unwrap_or_else(|_| panic!("{last:?} is not reached")).unwrap();
        creating.abort();
        let _ = creating.await;
        (node, bundle)
    }

    /// Cleans up as `delete` does, from disk alone.
    pub async fn clean(&self, bundle: &str) -> Result<()> {
        let (platform, bundle) = (self.world.platform(), PathBuf::from(bundle));
        let cleaning = move || {
            let Some(store) = Store::pointed_from(&bundle) else { return Ok(()) };
            store.load()?.map_or(Ok(()), |record| cleanup::sandbox(&platform, &store, &record))
        };
        tokio::task::spawn_blocking(cleaning).await.unwrap()
    }

    pub fn request(&self, id: &str, annotations: serde_json::Value) -> api::CreateTaskRequest {
        let bundle = self.world.bundle(id, annotations).to_string_lossy().into_owned();
        api::CreateTaskRequest { id: id.into(), bundle, ..Default::default() }
    }

    pub async fn create(&self, id: &str) -> Result<api::CreateTaskResponse> {
        self.pod.clone().create(self.request(id, json!({}))).await
    }

    pub async fn start(&self, id: &str, exec: &str) -> Result<api::StartResponse> {
        self.pod
            .clone()
            .start(api::StartRequest { id: id.into(), exec_id: exec.into(), ..Default::default() })
            .await
    }

    pub async fn kill(&self, id: &str, signal: u32) -> Result<api::Empty> {
        self.pod.clone().kill(api::KillRequest { id: id.into(), signal, ..Default::default() }).await
    }

    pub async fn exec(&self, id: &str, exec: &str) -> Result<api::ExecProcessResponse> {
        let request = api::ExecProcessRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
        self.pod.clone().exec(request).await
    }

    pub async fn stats(&self, id: &str) -> Result<api::StatsResponse> {
        self.pod.clone().stats(api::StatsRequest { id: id.into(), ..Default::default() }).await
    }

    pub async fn delete(&self, id: &str) -> Result<u32> {
        let request = api::DeleteRequest { id: id.into(), ..Default::default() };
        self.pod.clone().delete(request).await.map(|reply| reply.exit_status)
    }

    /// Whether it is said to be the container's process of this host, its status, and how it ended.
    pub fn state(&self, id: &str, exec: &str) -> (bool, api::Status, Option<u32>) {
        let container = self.pod.container(id).unwrap();
        let state = container.state(&Who::of(exec)).unwrap();
        assert_eq!(
            (state.id.as_str(), state.exec_id.as_str()),
            (if exec.is_empty() { id } else { exec }, "")
        );
        assert!(state.pid == container.task_pid() || state.pid == 0);
        assert!(state.exit_status == 0 || state.exited_at.is_some());
        let exit = state.exited_at.as_ref().map(|_| state.exit_status);
        (state.pid > 0, state.status.unwrap(), exit)
    }

    pub async fn pids(&self, id: &str) -> Result<Vec<u32>> {
        let request = api::PidsRequest { id: id.into(), ..Default::default() };
        let answer = self.pod.clone().pids(request);
        // containerd gives all calls on all pods together 5 s when it starts.
        let answer = tokio::time::timeout(Duration::from_secs(2), answer).await.expect("Pids is late");
        answer.map(|pids| pids.processes.iter().map(|process| process.pid).collect())
    }

    pub async fn wait(&self, id: &str, exec: &str) -> u32 {
        let container = self.pod.container(id).unwrap();
        let who = Who::of(exec);
        let exit = container.wait(&who);
        tokio::time::timeout(Duration::from_secs(10), exit)
            .await
            .expect("nobody tells of the exit")
            .unwrap()
            .status
    }

    /// Waits until containerd has heard so many events.
    pub async fn hears(&self, count: usize) {
        until(&format!("containerd hears {count} events"), || self.heard.0.lock().unwrap().len() >= count)
            .await;
    }

    /// Waits until there is no domain.
    pub async fn domain_goes(&self) {
        until("the domain goes", || self.world.left.lock().unwrap().domains.is_empty()).await;
    }

    /// What the first event of a topic says.
    pub async fn event<E: Message>(&self, topic: &str) -> E {
        self.outbox.drain(Duration::from_secs(5)).await;
        let heard = self.heard.0.lock().unwrap();
        let event = heard.iter().find(|event| event.topic == topic).expect("containerd has heard it");
        E::parse_from_bytes(&event.event.value).unwrap()
    }

    /// The events so far, without their folder.
    pub async fn events(&self) -> Vec<String> {
        self.outbox.drain(Duration::from_secs(5)).await;
        self.heard
            .0
            .lock()
            .unwrap()
            .iter()
            .map(|event| event.topic.trim_start_matches("/tasks/").to_owned())
            .collect()
    }
}

/// For what comes by itself, however much else this machine does.
const UNTIL_LIMIT: Duration = Duration::from_secs(60);

/// Waits until it is so: for what stays as it is then.
pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < UNTIL_LIMIT, "it is not so after {} s: {what}", UNTIL_LIMIT.as_secs());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
