//! Steps that are one call of a shim, and nothing else.

use containerd_shim_protos::api::{self, Empty};
use protobuf::{Message, MessageField, MessageFull, well_known_types::any::Any};
use serde_json::{Value, json};

use crate::{
    mock::Shim,
    outcome::{self, Names, Outcome},
    step::{Of, Step},
};

/// Calls a shim, and has its answers in one form.
pub(crate) struct Call<'a> {
    pub shim: &'a Shim,
    pub names: &'a Names,
}

impl Call<'_> {
    /// None of another step.
    pub async fn plain(&self, step: &Step) -> Option<Outcome> {
        Some(match *step {
            Step::Start(Of { id, exec }) => {
                let request = api::StartRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
                self.gives::<_, api::StartResponse>("Start", request).await
            }
            Step::Kill(of, signal) => self.kill(of, signal, false).await,
            Step::KillAll(of, signal) => self.kill(of, signal, true).await,
            Step::Wait(Of { id, exec }) => {
                let request = api::WaitRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
                self.gives::<_, api::WaitResponse>("Wait", request).await
            }
            Step::State(Of { id, exec }) => {
                let request = api::StateRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
                self.gives::<_, api::StateResponse>("State", request).await
            }
            Step::Pids(Of { id, .. }) => {
                let request = api::PidsRequest { id: id.into(), ..Default::default() };
                self.gives::<_, api::PidsResponse>("Pids", request).await
            }
            Step::Pause(Of { id, .. }) => {
                let request = api::PauseRequest { id: id.into(), ..Default::default() };
                self.gives::<_, Empty>("Pause", request).await
            }
            Step::Resume(Of { id, .. }) => {
                let request = api::ResumeRequest { id: id.into(), ..Default::default() };
                self.gives::<_, Empty>("Resume", request).await
            }
            Step::CloseStdin(Of { id, exec }) => {
                let (id, exec_id) = (id.into(), exec.into());
                let request = api::CloseIORequest { id, exec_id, stdin: true, ..Default::default() };
                self.gives::<_, Empty>("CloseIO", request).await
            }
            Step::Resize(Of { id, exec }, width, height) => {
                let (id, exec_id) = (id.into(), exec.into());
                let request = api::ResizePtyRequest { id, exec_id, width, height, ..Default::default() };
                self.gives::<_, Empty>("ResizePty", request).await
            }
            Step::Update(of, resources) => self.update(of, &resources()).await,
            Step::Stats(of) => self.stats(of).await,
            Step::Checkpoint(Of { id, .. }) => {
                let request = api::CheckpointTaskRequest { id: id.into(), ..Default::default() };
                self.gives::<_, Empty>("Checkpoint", request).await
            }
            Step::Connect(Of { id, .. }) => {
                let request = api::ConnectRequest { id: id.into(), ..Default::default() };
                self.gives::<_, api::ConnectResponse>("Connect", request).await
            }
            Step::Delete(Of { id, exec }) => {
                let request =
                    api::DeleteRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
                self.gives::<_, api::DeleteResponse>("Delete", request).await
            }
            Step::Shutdown => self.gives::<_, Empty>("Shutdown", api::ShutdownRequest::default()).await,
            _ => return None,
        })
    }

    pub async fn gives<Q: Message, A: MessageFull>(&self, method: &str, request: Q) -> Outcome {
        outcome::of(&self.shim.call::<Q, A>(method, &request).await, self.names)
    }

    async fn kill(&self, Of { id, exec }: Of, signal: u32, all: bool) -> Outcome {
        let (id, exec_id) = (id.into(), exec.into());
        self.gives::<_, Empty>("Kill", api::KillRequest { id, exec_id, signal, all, ..Default::default() })
            .await
    }

    async fn update(&self, Of { id, .. }: Of, resources: &Value) -> Outcome {
        let resources = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".into(),
            value: resources.to_string().into_bytes(),
            ..Any::default()
        };
        let resources = MessageField::some(resources);
        self.gives::<_, Empty>(
            "Update",
            api::UpdateTaskRequest { id: id.into(), resources, ..Default::default() },
        )
        .await
    }

    /// Figures are of the moment.
    async fn stats(&self, Of { id, .. }: Of) -> Outcome {
        let request = api::StatsRequest { id: id.into(), ..Default::default() };
        let answer = self.shim.call::<_, api::StatsResponse>("Stats", &request).await;
        let kind = answer.as_ref().ok().map(|answer| json!(answer.stats.type_url));
        let mut outcome = outcome::of(&answer, self.names);
        outcome.retain(|field, _| field == "error");
        outcome.extend(kind.map(|kind| ("kind".into(), kind)));
        outcome
    }
}
