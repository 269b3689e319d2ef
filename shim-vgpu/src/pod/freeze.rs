//! Pause and Resume.

use std::{sync::Arc, time::Duration};

use containerd_shim_protos::api::{Empty, PauseRequest, ResumeRequest, StateRequest, StateResponse, Status};
use ttrpc::Code as Rpc;

use super::Pod;
use crate::{
    container::life::Event,
    error::{Error, Result},
};

/// For the guest to do it: its kernel has 3 s for that.
const LIMIT: Duration = Duration::from_secs(10);
/// For it to say what it did, where that is not known: as long as a freeze takes, which may be under way, and a little more.
const SAY_LIMIT: Duration = Duration::from_secs(4);
/// Until it is asked again, while it freezes.
const AGAIN: Duration = Duration::from_millis(50);

impl Pod {
    /// Pauses or resumes a container.
    ///
    /// # Errors
    /// `WrongState`, or the guest's.
    pub async fn freeze(self: Arc<Self>, id: String, pause: bool) -> Result<Empty> {
        let container = self.container(&id)?;
        container.on(if pause { Event::PauseAsked } else { Event::ResumeAsked })?;
        let (frozen, result) = match self.ask_freeze(&id, pause).await {
            Ok(answer) => (Some(pause), Ok(answer)),
            // It refused, and changed nothing.
            Err(error @ Error::Guest { rpc: Rpc::FAILED_PRECONDITION | Rpc::NOT_FOUND, .. }) => {
                (Some(!pause), Err(error))
            }
            // It failed, or there is no answer: it may be done, or done later.
            Err(error) => {
                let frozen = self.is_frozen(&id).await;
                (frozen, if frozen == Some(pause) { Ok(Empty::default()) } else { Err(error) })
            }
        };
        match frozen {
            Some(true) if pause => container.tell(Event::Paused),
            // A Resume that changed nothing knows nothing of a Pause that came after it.
            Some(true) => {}
            Some(false) if pause => container.tell(Event::PauseFailed),
            Some(false) => {
                container.tell(Event::Resumed);
                // A program that stood still looks at it first.
                self.clock.notify_one();
            }
            None => {
                log::warn!("container {id}: its guest is destroyed: nobody can say whether it is paused");
                self.guest_died().await;
            }
        }
        result
    }

    async fn ask_freeze(&self, id: &str, pause: bool) -> Result<Empty> {
        let (guest, id) = (self.guest()?, id.to_owned());
        if pause {
            guest.task("Pause", &PauseRequest { id, ..PauseRequest::default() }, Some(LIMIT)).await
        } else {
            guest.task("Resume", &ResumeRequest { id, ..ResumeRequest::default() }, Some(LIMIT)).await
        }
    }

    /// What the guest says of it. None: nothing that can be relied on.
    async fn is_frozen(&self, id: &str) -> Option<bool> {
        let request = StateRequest { id: id.to_owned(), ..StateRequest::default() };
        let said = async {
            loop {
                let state: StateResponse = match self.guest().ok()?.task("State", &request, None).await {
                    Ok(state) => state,
                    // It ended, and was deleted meanwhile.
                    Err(Error::Guest { rpc: ttrpc::Code::NOT_FOUND, .. }) => return Some(false),
                    Err(_) => return None,
                };
                match state.status.enum_value_or_default() {
                    // Its request came before ours, so guest-init says this from then on.
                    Status::PAUSING => tokio::time::sleep(AGAIN).await,
                    status => return Some(status == Status::PAUSED),
                }
            }
        };
        tokio::time::timeout(SAY_LIMIT, said).await.ok().flatten()
    }
}
