//! A case on one runtime: a containerd of its own, each step, and what came of it.

use std::{future::Future, pin::Pin};

use containerd_shim_protos::api::{self, Empty};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    call::Call,
    cases::Case,
    events, fixture,
    mock::{Containerd, Flavour, Runtime, SOON, Shim, until},
    outcome::{Names, Outcome},
    step::{Of, SECOND, Step, TASK},
    streams::{Clients, Io},
};

/// What a case gave: a name of each step and of each event, in order, with its fields.
pub type Played = Vec<(String, Outcome)>;

const NO_CHANGE: fn(&mut Value) = |_| {};

/// Plays it, ends what is left of its containers, and lets the shim go.
pub async fn play(case: &Case, runtime: Runtime, flavour: Flavour) -> Played {
    let containerd = Containerd::of(runtime, flavour).await;
    let names = Names::of(&containerd.told(containerd.dir.path().to_path_buf()));
    let stage = Stage { names, containerd, clients: Clients::default() };
    stage.make_bundle(case);
    let shim = stage.containerd.start(TASK.id).await;
    let mut played = Played::new();
    for (number, step) in case.steps.iter().enumerate() {
        played.extend(stage.take(&shim, number.to_string(), step).await);
    }
    stage.end(&shim, case, &played).await;
    played.extend(events::played(&stage.containerd.events(), &stage.names, case));
    played
}

struct Stage {
    containerd: Containerd,
    /// The directory as the shim has it.
    names: Names,
    clients: Clients,
}

impl Stage {
    /// Nothing of a step that calls nobody. A step may be several.
    fn take<'a>(
        &'a self,
        shim: &'a Shim,
        number: String,
        step: &'a Step,
    ) -> Pin<Box<dyn Future<Output = Played> + 'a>> {
        Box::pin(async move {
            if let Step::Beside(steps) = step {
                let taken = steps
                    .iter()
                    .enumerate()
                    .map(|(at, step)| self.take(shim, format!("{number}.{at}"), step));
                return join_all(taken).await.into_iter().flatten().collect();
            }
            let call = Call { shim, names: &self.names };
            let outcome = match call.plain(step).await {
                None => self.take_here(&call, step).await,
                given => given,
            };
            outcome.map(|outcome| (format!("{number} {}", step.name()), outcome)).into_iter().collect()
        })
    }

    /// One that needs more than the shim.
    async fn take_here(&self, call: &Call<'_>, step: &Step) -> Option<Outcome> {
        match *step {
            Step::Create(_) | Step::CreateOf(..) | Step::CreateAgain => {
                Some(self.create(call, TASK.id, None).await)
            }
            Step::CreateIo(_, io) => Some(self.create(call, TASK.id, Some(io)).await),
            Step::Second(script, change) => Some(self.create_beside(call, SECOND.id, script, change).await),
            Step::Another(of, script, change) => Some(self.create_beside(call, of.id, script, change).await),
            Step::Exec(of, script) => Some(self.exec(call, of, script, None, NO_CHANGE).await),
            Step::ExecOf(of, script, change) => Some(self.exec(call, of, script, None, change).await),
            Step::ExecIo(of, script, io) => Some(self.exec(call, of, script, Some(io), NO_CHANGE).await),
            _ => self.client(step).await,
        }
    }

    /// One of a client, or a look.
    async fn client(&self, step: &Step) -> Option<Outcome> {
        let stem = |Of { id, exec }: Of| self.containerd.stem(id, exec);
        match *step {
            Step::Listen(of) => self.clients.listen(&stem(of)),
            Step::Leave(of) => self.clients.leave(&stem(of)),
            Step::Type(of, text) => self.clients.write(&stem(of), text),
            Step::HangUp(of) => self.clients.hang_up(&stem(of)),
            Step::UntilEnded(of) => {
                let ended = self.clients.ended(&stem(of), SOON).await;
                return Some(Outcome::from([("comes".into(), json!(ended))]));
            }
            Step::Until(Of { id, exec }, words) => {
                let output = || self.containerd.written(id, exec);
                let but =
                    || format!("{:?} {}: {:?}", self.containerd, short(output()), self.containerd.topics());
                until("it has written", || output().contains(words), but).await;
            }
            Step::Output(of) => {
                self.clients.catch_up(&stem(of));
                let text = |name: &str| std::fs::read_to_string(stem(of) + name).ok().map(short);
                let mut outcome = Outcome::from([("text".into(), json!(text("out").unwrap_or_default()))]);
                outcome.extend(text("err").map(|errors| ("errors".into(), json!(errors))));
                return Some(outcome);
            }
            Step::Swap(files) => fixture::write_config_map(&self.containerd.bundle_of(TASK.id), "2", files),
            Step::Node(path) => {
                return Some(fixture::look(&self.containerd.bundle_of(TASK.id).join(path)));
            }
            _ => unreachable!("{step:?} is a call"),
        }
        None
    }

    /// What the case's only Create wants: the shim is started in it.
    fn make_bundle(&self, case: &Case) {
        let asked = case.steps.iter().find_map(|step| match *step {
            Step::Create(script) => Some((script, NO_CHANGE, false)),
            Step::CreateOf(script, change) => Some((script, change, false)),
            Step::CreateIo(script, io) => Some((script, NO_CHANGE, io.terminal)),
            _ => None,
        });
        let (script, change, terminal) = asked.expect("a case creates its container");
        self.containerd.bundle(TASK.id, script, |spec| {
            spec["linux"]["cgroupsPath"] = self.cgroup(TASK.id);
            spec["process"]["terminal"] = terminal.into();
            change(spec);
        });
        fixture::make(&self.containerd.bundle_of(TASK.id));
        if case.steps.iter().any(|step| matches!(step, Step::Swap(_))) {
            fixture::make_config_map(&self.containerd.bundle_of(TASK.id));
        }
    }

    /// Of its own: cases are played beside each other.
    fn cgroup(&self, id: &str) -> Value {
        let folder = self.containerd.dir.path().file_name().unwrap_or_default().to_string_lossy();
        json!(format!("/vgpu-contract-{}-{id}", folder.trim_start_matches('.')))
    }

    async fn create_beside(
        &self,
        call: &Call<'_>,
        id: &str,
        script: &str,
        change: fn(&mut Value, u32),
    ) -> Outcome {
        let request = api::StateRequest { id: TASK.id.into(), ..Default::default() };
        let first =
            call.shim.call::<_, api::StateResponse>("State", &request).await.expect("the first one is known");
        if self.containerd.bundle_of(id).exists() {
            self.containerd.remove_bundle(id);
        }
        self.containerd.bundle(id, script, |spec| {
            spec["linux"]["cgroupsPath"] = self.cgroup(id);
            spec["annotations"] = json!({
                "io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": TASK.id
            });
            change(spec, first.pid);
        });
        let shim = self.containerd.start(id).await;
        assert_eq!(shim.pid, call.shim.pid, "a pod has one shim");
        self.create(call, id, None).await
    }

    async fn create(&self, call: &Call<'_>, id: &str, io: Option<Io>) -> Outcome {
        let mut request = self.containerd.asked(id);
        if let Some(io) = io {
            io.make_fifos(&self.containerd.stem(id, ""));
            self.clients.made(&self.containerd.stem(id, ""), io);
            let stem = self.containerd.told_stem(id, "");
            [request.stdin, request.stdout, request.stderr] = io.words(&stem);
            request.terminal = io.terminal;
        }
        call.gives::<_, api::CreateTaskResponse>("Create", request).await
    }

    async fn exec(
        &self,
        call: &Call<'_>,
        of: Of,
        script: &str,
        io: Option<Io>,
        change: fn(&mut Value),
    ) -> Outcome {
        let terminal = io.is_some_and(|io| io.terminal);
        let mut request = self.containerd.asked_exec(of.id, of.exec, script, |process| {
            process["terminal"] = json!(terminal);
            change(process);
        });
        request.terminal = terminal;
        if let Some(io) = io {
            io.make_fifos(&self.containerd.stem(of.id, of.exec));
            self.clients.made(&self.containerd.stem(of.id, of.exec), io);
            let stem = self.containerd.told_stem(of.id, of.exec);
            [request.stdin, request.stdout, request.stderr] = io.words(&stem);
        }
        call.gives::<_, Empty>("Exec", request).await
    }

    /// Whatever the case left, nothing stays; only the events of it count.
    async fn end(&self, shim: &Shim, case: &Case, played: &Played) {
        for id in case.containers() {
            self.end_one(shim, id).await;
        }
        // Its events come when they like: what was created has an end to be waited for.
        let creates = |name: &str| [" Create", " Second", " Another"].iter().any(|call| name.contains(call));
        let created =
            played.iter().filter(|(name, outcome)| creates(name) && !outcome.contains_key("error")).count();
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
}

/// A short text whole, of a long one its length and its end.
fn short(text: String) -> String {
    const WHOLE: usize = 2000;
    match text.len() {
        0..=WHOLE => text,
        length => format!("{length} bytes, {:?} at last", text.lines().last().unwrap_or_default()),
    }
}
