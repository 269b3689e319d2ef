//! A case on one runtime: a containerd of its own, each step, and what came of it.

use containerd_shim_protos::{
    api::{self, Empty},
    events::task as events,
};
use protobuf::{Message, MessageFull};
use serde_json::{Value, json};

use crate::{
    cases::Case,
    mock::{Containerd, Event, Flavour, Runtime, Shim, until},
    outcome::{self, Names, Outcome},
    step::{Of, SECOND, Step, TASK},
};

/// What a case gave: a name of each step and of each event, in order, with its fields.
pub type Played = Vec<(String, Outcome)>;

/// Plays it, ends what is left of its containers, and lets the shim go.
pub async fn play(case: &Case, runtime: Runtime, flavour: Flavour) -> Played {
    let containerd = Containerd::of(runtime, flavour).await;
    let stage = Stage { names: Names::of(&containerd.told(containerd.dir.path().to_path_buf())), containerd };
    stage.make_bundle(case);
    let shim = stage.containerd.start(TASK.id).await;
    let mut played = Played::new();
    for (number, step) in case.steps.iter().enumerate() {
        if let Some(outcome) = stage.take(&shim, step).await {
            played.push((format!("{number} {}", step.name()), outcome));
        }
    }
    // Its events come when they like: what was created has an end to be waited for.
    let creates = |name: &str| name.contains(" Create") || name.contains(" Second");
    let created =
        played.iter().filter(|(name, outcome)| creates(name) && !outcome.contains_key("error")).count();
    stage.end(&shim, created).await;
    played.extend(stage.events());
    played
}

struct Stage {
    containerd: Containerd,
    /// The directory as the shim has it.
    names: Names,
}

impl Stage {
    /// None of a step that calls nobody.
    async fn take(&self, shim: &Shim, step: &Step) -> Option<Outcome> {
        let call = Call { shim, names: &self.names };
        Some(match *step {
            Step::Create(_) | Step::CreateOf(..) | Step::CreateAgain => self.create(&call, TASK.id).await,
            Step::Second(script, change) => self.create_second(&call, script, change).await,
            Step::Exec(of, script) => self.exec(&call, of, script, |_| {}).await,
            Step::ExecOf(of, script, change) => self.exec(&call, of, script, change).await,
            Step::Start(Of { id, exec }) => {
                let request = api::StartRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
                call.gives::<_, api::StartResponse>("Start", request).await
            }
            Step::Kill(of, signal) => call.kill(of, signal, false).await,
            Step::KillAll(of, signal) => call.kill(of, signal, true).await,
            Step::Wait(Of { id, exec }) => {
                let request = api::WaitRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
                call.gives::<_, api::WaitResponse>("Wait", request).await
            }
            Step::State(Of { id, exec }) => {
                let request = api::StateRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
                call.gives::<_, api::StateResponse>("State", request).await
            }
            Step::Pids(Of { id, .. }) => {
                let request = api::PidsRequest { id: id.into(), ..Default::default() };
                call.gives::<_, api::PidsResponse>("Pids", request).await
            }
            Step::Pause(Of { id, .. }) => {
                let request = api::PauseRequest { id: id.into(), ..Default::default() };
                call.gives::<_, Empty>("Pause", request).await
            }
            Step::Resume(Of { id, .. }) => {
                let request = api::ResumeRequest { id: id.into(), ..Default::default() };
                call.gives::<_, Empty>("Resume", request).await
            }
            Step::CloseStdin(Of { id, exec }) => {
                let (id, exec_id) = (id.into(), exec.into());
                let request = api::CloseIORequest { id, exec_id, stdin: true, ..Default::default() };
                call.gives::<_, Empty>("CloseIO", request).await
            }
            Step::Checkpoint(Of { id, .. }) => {
                let request = api::CheckpointTaskRequest { id: id.into(), ..Default::default() };
                call.gives::<_, Empty>("Checkpoint", request).await
            }
            Step::Connect(Of { id, .. }) => {
                let request = api::ConnectRequest { id: id.into(), ..Default::default() };
                call.gives::<_, api::ConnectResponse>("Connect", request).await
            }
            Step::Delete(Of { id, exec }) => {
                let request =
                    api::DeleteRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
                call.gives::<_, api::DeleteResponse>("Delete", request).await
            }
            Step::Shutdown => call.gives::<_, Empty>("Shutdown", api::ShutdownRequest::default()).await,
            Step::Until(Of { id, exec }, words) => {
                let output = || self.containerd.written(id, exec);
                until("it has written", || output().contains(words), output).await;
                return None;
            }
            Step::Output(Of { id, exec }) => {
                Outcome::from([("text".into(), json!(self.containerd.written(id, exec)))])
            }
        })
    }

    /// What the case's only Create wants: the shim is started in it.
    fn make_bundle(&self, case: &Case) {
        let asked = case.steps.iter().find_map(|step| match *step {
            Step::Create(script) => Some((script, (|_| {}) as fn(&mut Value))),
            Step::CreateOf(script, change) => Some((script, change)),
            _ => None,
        });
        let (script, change) = asked.expect("a case creates its container");
        self.containerd.bundle(TASK.id, script, |spec| {
            spec["linux"]["cgroupsPath"] = self.cgroup(TASK.id);
            change(spec);
        });
    }

    /// Of its own: cases are played beside each other.
    fn cgroup(&self, id: &str) -> Value {
        let folder = self.containerd.dir.path().file_name().unwrap_or_default().to_string_lossy();
        json!(format!("/vgpu-contract-{}-{id}", folder.trim_start_matches('.')))
    }

    async fn create_second(&self, call: &Call<'_>, script: &str, change: fn(&mut Value, u32)) -> Outcome {
        let request = api::StateRequest { id: TASK.id.into(), ..Default::default() };
        let first =
            call.shim.call::<_, api::StateResponse>("State", &request).await.expect("the first one is known");
        if self.containerd.bundle_of(SECOND.id).exists() {
            self.containerd.remove_bundle(SECOND.id);
        }
        self.containerd.bundle(SECOND.id, script, |spec| {
            spec["linux"]["cgroupsPath"] = self.cgroup(SECOND.id);
            spec["annotations"] = json!({
                "io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": TASK.id
            });
            change(spec, first.pid);
        });
        let shim = self.containerd.start(SECOND.id).await;
        assert_eq!(shim.pid, call.shim.pid, "a pod has one shim");
        self.create(call, SECOND.id).await
    }

    async fn create(&self, call: &Call<'_>, id: &str) -> Outcome {
        let request = self.containerd.asked(id);
        call.gives::<_, api::CreateTaskResponse>("Create", request).await
    }

    async fn exec(&self, call: &Call<'_>, of: Of, script: &str, change: fn(&mut Value)) -> Outcome {
        let request = self.containerd.asked_exec(of.id, of.exec, script, change);
        call.gives::<_, Empty>("Exec", request).await
    }

    /// Whatever the case left, nothing stays; only the events of it count.
    async fn end(&self, shim: &Shim, created: usize) {
        for of in [SECOND, TASK] {
            self.end_one(shim, of.id).await;
        }
        // In the order that is the shim's.
        let count = |end: &str| self.containerd.topics().iter().filter(|topic| *topic == end).count();
        let told = || ["exit", "delete"].iter().all(|end| count(end) >= created);
        until("the last event is told", told, || format!("{:?}", self.containerd.topics())).await;
        shim.end().await;
    }

    async fn end_one(&self, shim: &Shim, id: &str) {
        let of = api::StateRequest { id: id.into(), ..Default::default() };
        let state = shim.call::<_, api::StateResponse>("State", &of).await;
        assert!(matches!(state, Ok(_) | Err(ttrpc::Error::RpcStatus(_))), "the shim has died: {state:?}");
        if state.is_ok() {
            let kill = api::KillRequest { id: id.into(), signal: 9, all: true, ..Default::default() };
            let resume = api::ResumeRequest { id: id.into(), ..Default::default() };
            // One that is paused has to run to die; one that is over can be neither.
            let _ = shim.call::<_, Empty>("Resume", &resume).await;
            let _ = shim.call::<_, Empty>("Kill", &kill).await;
            shim.wait(id).await;
            shim.delete(id).await;
        }
    }

    /// Each by its topic and whose it is, and their order: so one that comes late is one difference.
    fn events(&self) -> Played {
        let (mut named, mut before) = (Played::new(), Vec::new());
        for event in self.containerd.events() {
            let fields = told(&event, &self.names);
            let of = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
            // An exec is named by either, init by its container's id or by nothing.
            let exec =
                [of("exec_id"), of("id")].into_iter().find(|name| !name.is_empty() && *name != TASK.id);
            let of = exec.map(|exec| format!(" of {exec}")).unwrap_or_default();
            let name = format!("event {}{of}", event.topic);
            let again = before.iter().filter(|other| **other == name).count();
            before.push(name.clone());
            named.push((if again > 0 { format!("{name} again {again}") } else { name }, fields));
        }
        let order: Vec<_> =
            named.iter().map(|(name, _)| name.trim_start_matches("event ").to_owned()).collect();
        named.push(("events".into(), Outcome::from([("order".into(), json!(order))])));
        named
    }
}

/// All fields of an event.
pub(crate) fn told(event: &Event, names: &Names) -> Outcome {
    match event.topic.as_str() {
        "create" => read::<events::TaskCreate>(event, names),
        "start" => read::<events::TaskStart>(event, names),
        "exec-added" => read::<events::TaskExecAdded>(event, names),
        "exec-started" => read::<events::TaskExecStarted>(event, names),
        "exit" => read::<events::TaskExit>(event, names),
        "oom" => read::<events::TaskOOM>(event, names),
        "paused" => read::<events::TaskPaused>(event, names),
        "resumed" => read::<events::TaskResumed>(event, names),
        "delete" => read::<events::TaskDelete>(event, names),
        topic => panic!("no form for {topic}"),
    }
}

fn read<M: MessageFull>(event: &Event, names: &Names) -> Outcome {
    outcome::fields(&M::parse_from_bytes(&event.message).expect("an event of its topic"), names)
}

struct Call<'a> {
    shim: &'a Shim,
    names: &'a Names,
}

impl Call<'_> {
    async fn gives<Q: Message, A: MessageFull>(&self, method: &str, request: Q) -> Outcome {
        outcome::of(&self.shim.call::<Q, A>(method, &request).await, self.names)
    }

    async fn kill(&self, Of { id, exec }: Of, signal: u32, all: bool) -> Outcome {
        let (id, exec_id) = (id.into(), exec.into());
        self.gives::<_, Empty>("Kill", api::KillRequest { id, exec_id, signal, all, ..Default::default() })
            .await
    }
}
