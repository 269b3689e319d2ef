//! A case on one runtime of a node: a pod of its own, each step, and what came of it.

mod network;

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use containerd_shim_protos::api::{self, Empty};
use protobuf::{EnumOrUnknown, Message, MessageDyn, MessageField, MessageFull};
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::{
    Node,
    cases::Case,
    configs, events, logs,
    step::{Of, Step},
    streams::{self, Channels},
};
use crate::{
    cri_api::{self as cri, NamespaceMode, PodSandboxConfig},
    outcome::{self, Names, Outcome},
    play::Played,
};

/// Its name among its containers.
const POD: Of = "SANDBOX";
/// For what takes milliseconds, on a busy machine.
const SOON: Duration = Duration::from_secs(100);

/// Plays it with the runtime of that name, and takes away what is left of its pod.
pub async fn play(case: &Case, node: &Node, handler: &str) -> Played {
    let mut stage = Stage::new(case.name, node, handler);
    let mut played = Played::new();
    for (number, step) in case.steps.iter().enumerate() {
        if let Some(mut outcome) = stage.take(step).await {
            outcome.retain(|field, _| !field.ends_with("runtime_handler"));
            if let Some(text) = outcome.get_mut("status.message").filter(|text| **text != "") {
                *text = json!("a text");
            }
            played.push((format!("{number} {}", step.name()), outcome));
        }
    }
    stage.end().await;
    if let Some(other) = &stage.other {
        other.end().await;
    }
    for (of, id) in stage.all() {
        // runc's shim may be gone before it has told the end of the pod's own task.
        let last = if of == POD { "exit" } else { "delete" };
        events::wait(node, &id, last).await;
        let events = events::events(node, &id, &of, &stage.names, last);
        played.extend(events);
    }
    played
}

/// Looks at the play of who is taken for right.
///
/// # Panics
/// It never says what the case waits for, or a script of a case on a network does not go to its end: both would be alike for ours.
pub fn assert_right(case: &Case, right: &Played) {
    let never = right.iter().find(|(_, outcome)| outcome.contains_key("comes"));
    assert!(never.is_none(), "{}: of runc's container it never comes: {never:?}", case.name);
    if case.steps.iter().any(|step| matches!(step, Step::RunPodOn(..))) {
        assert_eq!(network::failed(right), None, "{}", case.name);
    }
}

/// A pod that is played step by step.
#[derive(Debug)]
pub struct Stage<'a> {
    node: &'a Node,
    handler: &'a str,
    /// Of [`super::networks`]; none: the node's usual one.
    network: Option<&'static str>,
    /// What scripts know of the pod's network, by name.
    known: Vec<(String, String)>,
    /// The second pod.
    other: Option<Box<Stage<'a>>>,
    /// Of the pod and of its folders.
    uid: String,
    config: PodSandboxConfig,
    pod: String,
    /// By name, the oldest first.
    containers: BTreeMap<Of, Vec<String>>,
    names: Names,
}

impl<'a> Stage<'a> {
    /// One of that name, of which there is nothing yet.
    pub fn new(name: &str, node: &'a Node, handler: &'a str) -> Self {
        let uid = format!("{name}-by-{handler}");
        let mut names = Names::of("/test");
        names.add(&uid, "POD");
        fs::create_dir(node.dir().join("volumes").join(&uid)).expect("a folder");
        let config = configs::pod(&uid, &node.cgroup());
        Stage {
            node,
            handler,
            network: None,
            known: Vec::new(),
            other: None,
            uid,
            config,
            pod: String::new(),
            containers: BTreeMap::new(),
            names,
        }
    }

    /// None of a step that calls nobody and only waits.
    pub async fn take(&mut self, step: &Step) -> Option<Outcome> {
        Some(match *step {
            Step::RunPod(change) => self.run_pod(change).await,
            Step::RunPodOn(network, change) => self.run_pod_on(network, change, "POD").await,
            Step::RunOther(handler, script) => self.run_other(handler, script).await,
            Step::OnNode(script) => self.on_node(script),
            Step::StopPod => self.of_pod::<Empty>("StopPodSandbox").await,
            Step::RemovePod => self.of_pod::<Empty>("RemovePodSandbox").await,
            Step::PodStatus => self.of_pod::<cri::PodSandboxStatusResponse>("PodSandboxStatus").await,
            Step::Create(of, script) => self.create(of, script, |_| {}).await,
            Step::CreateOf(of, script, change) => self.create(of, script, change).await,
            Step::Start(of) => self.of_container::<Empty>("StartContainer", of).await,
            Step::Stop(of, timeout) => {
                let request =
                    cri::StopContainerRequest { container_id: self.id(of), timeout, ..Default::default() };
                self.gives::<_, Empty>("StopContainer", request).await
            }
            Step::Remove(of) => self.of_container::<Empty>("RemoveContainer", of).await,
            Step::Status(of) => {
                self.of_container::<cri::ContainerStatusResponse>("ContainerStatus", of).await
            }
            Step::ExecSync(of, script) => self.exec_sync(of, script, 0).await,
            Step::ExecSyncFor(of, script, limit_s) => self.exec_sync(of, script, limit_s).await,
            Step::Exec(of, script) => {
                let request = cri::ExecRequest { stdout: true, stderr: true, ..self.exec(of, script) };
                self.process("Exec", request, "").await
            }
            Step::ExecTty(of, script, typed) => {
                let request =
                    cri::ExecRequest { stdin: true, stdout: true, tty: true, ..self.exec(of, script) };
                self.process("Exec", request, typed).await
            }
            Step::Attach(of, typed) => {
                let request = cri::AttachRequest {
                    container_id: self.id(of),
                    stdin: true,
                    stdout: true,
                    stderr: true,
                    ..Default::default()
                };
                self.process("Attach", request, typed).await
            }
            Step::PortForward(ports, lines) => self.forward(ports, lines).await,
            Step::Update(of, change) => {
                let mut linux = cri::LinuxContainerResources::default();
                change(&mut linux);
                let request = cri::UpdateContainerResourcesRequest {
                    container_id: self.id(of),
                    linux: MessageField::some(linux),
                    ..Default::default()
                };
                self.gives::<_, Empty>("UpdateContainerResources", request).await
            }
            Step::Stats(of) => {
                some(self.of_container::<cri::ContainerStatsResponse>("ContainerStats", of).await)
            }
            Step::ListStats => {
                let filter =
                    cri::ContainerStatsFilter { pod_sandbox_id: self.pod.clone(), ..Default::default() };
                let request = cri::ListContainerStatsRequest {
                    filter: MessageField::some(filter),
                    ..Default::default()
                };
                some(self.gives::<_, cri::ListContainerStatsResponse>("ListContainerStats", request).await)
            }
            Step::ListPods => {
                let filter =
                    MessageField::some(cri::PodSandboxFilter { id: self.pod.clone(), ..Default::default() });
                let request = cri::ListPodSandboxRequest { filter, ..Default::default() };
                self.gives::<_, cri::ListPodSandboxResponse>("ListPodSandbox", request).await
            }
            Step::List(label) => self.list(label).await,
            Step::Volume(change) => {
                change(&self.node.dir().join("volumes").join(&self.uid));
                return None;
            }
            Step::ReopenLog(of) => {
                let log = self.log(of);
                // A container that could not be made has none.
                let _ = fs::rename(&log, log.with_extension("old"));
                self.of_container::<Empty>("ReopenContainerLog", of).await
            }
            Step::KillPause(signal) => self.kill_pause(signal).await,
            Step::Log(of) => logs::lines(&self.log(of), &self.names),
            Step::Until(of, _) | Step::UntilExit(of) => return self.until(step, of).await,
            Step::UntilPodEnds => return self.until(step, POD).await,
        })
    }

    /// Waits until it is so of what was made. An outcome if it never is.
    async fn until(&self, step: &Step, of: Of) -> Option<Outcome> {
        let begun = Instant::now();
        while of == POD || self.containers.contains_key(of) {
            if self.is_so(step).await {
                return None;
            }
            if begun.elapsed() > SOON {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Some(Outcome::from([("comes".into(), json!(false))]))
    }

    async fn is_so(&self, step: &Step) -> bool {
        match *step {
            Step::Until(of, words) => fs::read_to_string(self.log(of)).is_ok_and(|log| log.contains(words)),
            Step::UntilExit(of) => {
                let answer = self.node.client.cri("ContainerStatus", self.container(of)).await;
                answer.is_ok_and(|answer: cri::ContainerStatusResponse| {
                    answer.status.state.enum_value() == Ok(cri::ContainerState::CONTAINER_EXITED)
                })
            }
            _ => {
                let answer = self.node.client.cri("PodSandboxStatus", self.sandbox()).await;
                answer.is_ok_and(|answer: cri::PodSandboxStatusResponse| {
                    answer.status.state.enum_value() == Ok(cri::PodSandboxState::SANDBOX_NOTREADY)
                })
            }
        }
    }

    async fn run_pod(&mut self, change: fn(&mut PodSandboxConfig)) -> Outcome {
        change(&mut self.config);
        let request = cri::RunPodSandboxRequest {
            config: MessageField::some(self.config.clone()),
            runtime_handler: self
                .network
                .map_or_else(|| self.handler.into(), |network| format!("{}-{network}", self.handler)),
            ..Default::default()
        };
        let answer: Result<cri::RunPodSandboxResponse, _> =
            self.node.client.cri("RunPodSandbox", request).await;
        if let Ok(answer) = &answer {
            self.pod.clone_from(&answer.pod_sandbox_id);
            self.names.add(&self.pod, POD);
            self.node.note_lives();
        }
        of(&answer, &self.names)
    }

    async fn create(&mut self, name: Of, script: &str, change: fn(&mut cri::ContainerConfig)) -> Outcome {
        let attempt = self.containers.get(name).map_or(0, Vec::len);
        let attempt = u32::try_from(attempt).expect("a few");
        let mut config = configs::container(&self.uid, name, attempt, script);
        change(&mut config);
        self.name_target(&mut config);
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: self.pod.clone(),
            config: MessageField::some(config),
            sandbox_config: MessageField::some(self.config.clone()),
            ..Default::default()
        };
        let answer: Result<cri::CreateContainerResponse, _> =
            self.node.client.cri("CreateContainer", request).await;
        if let Ok(answer) = &answer {
            self.names.add(&answer.container_id, format!("{name}.{attempt}"));
            self.containers.entry(name).or_default().push(answer.container_id.clone());
        }
        of(&answer, &self.names)
    }

    /// A case knows the target by its name.
    fn name_target(&self, config: &mut cri::ContainerConfig) {
        let options = &mut config
            .linux
            .mut_or_insert_default()
            .security_context
            .mut_or_insert_default()
            .namespace_options;
        if let Some(options) =
            options.as_mut().filter(|options| options.pid == EnumOrUnknown::new(NamespaceMode::TARGET))
        {
            options.target_id = self.id(&options.target_id);
        }
    }

    /// In the order of their names and attempts: containerd has none.
    async fn list(&self, label: &str) -> Outcome {
        let label_selector = label.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
        let filter = cri::ContainerFilter {
            pod_sandbox_id: self.pod.clone(),
            label_selector: label_selector.into_iter().collect(),
            ..Default::default()
        };
        let request = cri::ListContainersRequest { filter: MessageField::some(filter), ..Default::default() };
        let answer: Result<cri::ListContainersResponse, _> =
            self.node.client.cri("ListContainers", request).await;
        let sorted = answer.map(|mut answer| {
            answer.containers.sort_by_key(|one| (one.metadata.name.clone(), one.metadata.attempt));
            answer
        });
        of(&sorted, &self.names)
    }

    fn exec(&self, of: Of, script: &str) -> cri::ExecRequest {
        cri::ExecRequest { container_id: self.id(of), cmd: configs::sh(script), ..Default::default() }
    }

    async fn exec_sync(&self, name: Of, script: &str, timeout: i64) -> Outcome {
        let request = cri::ExecSyncRequest {
            container_id: self.id(name),
            cmd: configs::sh(&self.script(script)),
            timeout,
            ..Default::default()
        };
        let answer: Result<cri::ExecSyncResponse, _> = self.node.client.cri("ExecSync", request).await;
        let mut outcome = of(&answer, &self.names);
        if let Ok(answer) = answer {
            outcome.insert("stdout".into(), self.text(&answer.stdout));
            outcome.insert("stderr".into(), self.text(&answer.stderr));
        }
        outcome
    }

    /// What the streams of a process give to their end.
    async fn process(&self, method: &str, request: impl Message, sent: &str) -> Outcome {
        let sent = [(streams::STDIN, sent.as_bytes())];
        let heard = match self.channels(method, request, &sent, |_| false).await {
            Ok(heard) => heard,
            Err(outcome) => return outcome,
        };
        let of = |channel| heard.get(&channel).map_or(&[][..], Vec::as_slice);
        Outcome::from([
            ("stdout".into(), self.text(of(streams::STDOUT))),
            ("stderr".into(), self.text(of(streams::STDERR))),
            ("status".into(), end_of(of(streams::STATUS))),
        ])
    }

    async fn forward(&self, ports: &[u16], lines: usize) -> Outcome {
        let request = cri::PortForwardRequest {
            pod_sandbox_id: self.pod.clone(),
            port: ports.iter().copied().map(i32::from).collect(),
            ..Default::default()
        };
        let text = "word\n".repeat(lines);
        let channels = || (0..).zip(ports).map(|(at, port)| (streams::of_port(at), port));
        let sent: Vec<_> = channels().map(|((data, _), _)| (data, text.as_bytes())).collect();
        let enough = |heard: &Channels| {
            channels().all(|((data, failure), _)| {
                streams::bytes_of(heard, data).len() >= text.len()
                    || !streams::bytes_of(heard, failure).is_empty()
            })
        };
        let heard = match self.channels("PortForward", request, &sent, enough).await {
            Ok(heard) => heard,
            Err(outcome) => return outcome,
        };
        let of_port = |((data, failure), port): ((u8, u8), &u16)| {
            let bytes = streams::bytes_of(&heard, data);
            [
                (format!("{port} answers"), json!(!bytes.is_empty())),
                (format!("{port} echoes"), json!(bytes == text.as_bytes())),
                (format!("{port} fails"), json!(!streams::bytes_of(&heard, failure).is_empty())),
            ]
        };
        channels().flat_map(of_port).collect()
    }

    /// What comes by the address that a call gives; else why not.
    async fn channels(
        &self,
        method: &str,
        request: impl Message,
        sent: &[(u8, &[u8])],
        enough: impl Fn(&Channels) -> bool,
    ) -> Result<Channels, Outcome> {
        let answer: Result<cri::StreamResponse, _> = self.node.client.cri(method, request).await;
        let url = answer.map_err(|error| of::<Empty>(&Err(error), &self.names))?.url;
        let heard = streams::play(&url, self.node.pid(), sent, enough).await;
        heard.map_err(|error| Outcome::from([("streams".into(), json!(error.kind().to_string()))]))
    }

    /// By containerd's own Tasks service, whose messages have the Task API's numbers.
    async fn kill_pause(&self, signal: u32) -> Outcome {
        let request = api::KillRequest { id: self.pod.clone(), signal, ..Default::default() };
        of::<Empty>(
            &self.node.client.call("/containerd.services.tasks.v1.Tasks/Kill", request).await,
            &self.names,
        )
    }

    async fn of_pod<A: MessageFull>(&self, method: &str) -> Outcome {
        self.gives::<_, A>(method, self.sandbox()).await
    }

    async fn of_container<A: MessageFull>(&self, method: &str, name: Of) -> Outcome {
        self.gives::<_, A>(method, self.container(name)).await
    }

    fn sandbox(&self) -> cri::PodSandboxRequest {
        cri::PodSandboxRequest { pod_sandbox_id: self.pod.clone(), ..Default::default() }
    }

    fn container(&self, name: Of) -> cri::ContainerRequest {
        cri::ContainerRequest { container_id: self.id(name), ..Default::default() }
    }

    async fn gives<Q: Message, A: MessageFull>(&self, method: &str, request: Q) -> Outcome {
        of::<A>(&self.node.client.cri(method, request).await, &self.names)
    }

    /// Of the youngest of that name.
    fn id(&self, name: &str) -> String {
        self.containers.get(name).and_then(|all| all.last()).cloned().unwrap_or_else(|| format!("no-{name}"))
    }

    /// The names and ids of the pod and of each container.
    fn all(&self) -> Vec<(String, String)> {
        let mut all = vec![(POD.to_owned(), self.pod.clone())];
        for (name, ids) in &self.containers {
            all.extend(ids.iter().enumerate().map(|(at, id)| (format!("{name}.{at}"), id.clone())));
        }
        all
    }

    fn log(&self, name: Of) -> PathBuf {
        let attempt = self.containers.get(name).map_or(0, |all| all.len().saturating_sub(1));
        self.node.dir().join("logs").join(&self.uid).join(format!("{name}.{attempt}.log"))
    }

    fn text(&self, bytes: &[u8]) -> Value {
        logs::short(bytes, &self.names)
    }

    /// Whatever the case left, nothing stays. As kubelet, which asks again.
    async fn end(&self) {
        let begun = Instant::now();
        while !self.pod.is_empty() {
            let stopped: Result<Empty, Status> = self.node.client.cri("StopPodSandbox", self.sandbox()).await;
            let removed: Result<Empty, Status> =
                self.node.client.cri("RemovePodSandbox", self.sandbox()).await;
            if removed.as_ref().map_or_else(|error| error.code() == Code::NotFound, |_| true) {
                return;
            }
            assert!(begun.elapsed() < SOON, "{} stays: {stopped:?}, {removed:?}", self.uid);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// All fields of an answer, or the error's code. Texts are each runtime's own.
fn of<A: MessageFull>(answer: &Result<A, Status>, names: &Names) -> Outcome {
    match answer {
        Ok(message) => outcome::fields(message as &dyn MessageDyn, names),
        Err(status) => {
            // For who reads what differs.
            println!("    {:?}: {}", status.code(), status.message());
            Outcome::from([("error".into(), json!(format!("{:?}", status.code())))])
        }
    }
}

/// That there are numbers, not which.
fn some(mut outcome: Outcome) -> Outcome {
    // Of its layer containerd counts itself, every ten seconds: one that is younger has none.
    outcome.retain(|field, _| !field.contains("writable_layer."));
    for value in outcome.values_mut().filter(|value| value.as_u64().is_some_and(|number| number > 0)) {
        *value = json!("some");
    }
    outcome
}

/// What a Status of Kubernetes says of an exit.
fn end_of(status: &[u8]) -> Value {
    let status: Value = serde_json::from_slice(status).unwrap_or_default();
    json!([status["status"], status["reason"], status["details"]["causes"]])
}
