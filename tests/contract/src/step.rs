//! What a case asks of a shim: one call each, but for those that wait for what the container does.

use serde_json::Value;

use crate::streams::Io;

/// Whom a call names.
#[derive(Debug, Clone, Copy)]
pub struct Of {
    /// The container.
    pub id: &'static str,
    /// Empty: its init.
    pub exec: &'static str,
}

/// The container of each case.
pub const TASK: Of = Of { id: "a", exec: "" };
/// Its exec.
pub const EXEC: Of = Of { id: "a", exec: "e" };
/// The other container of its pod.
pub const SECOND: Of = Of { id: "b", exec: "" };
/// One that never was.
pub const NOBODY: Of = Of { id: "nobody", exec: "" };
/// Its exec.
pub const EXEC_OF_NOBODY: Of = Of { id: "nobody", exec: "e" };
/// An exec of the container that never was.
pub const NO_EXEC: Of = Of { id: "a", exec: "none" };

/// See the module.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// A bundle whose init is the script, and Create.
    Create(&'static str),
    /// The same with a change of the spec.
    CreateOf(&'static str, fn(&mut Value)),
    /// The same with these streams, a terminal's among them, and no change.
    CreateIo(&'static str, Io),
    /// Create of the same id and bundle.
    CreateAgain,
    /// A bundle of [`SECOND`], with a change of the spec that may name the first one by its pid, and Create; a bundle of before is gone.
    Second(&'static str, fn(&mut Value, u32)),
    /// The same of another id.
    Another(Of, &'static str, fn(&mut Value, u32)),
    /// Exec of a script.
    Exec(Of, &'static str),
    /// The same with a change of the process.
    ExecOf(Of, &'static str, fn(&mut Value)),
    /// The same with these streams.
    ExecIo(Of, &'static str, Io),
    /// Start.
    Start(Of),
    /// Kill with a signal.
    Kill(Of, u32),
    /// Kill of all processes of the container.
    KillAll(Of, u32),
    /// Wait, whose answer is waited for.
    Wait(Of),
    /// State.
    State(Of),
    /// Pids.
    Pids(Of),
    /// Pause.
    Pause(Of),
    /// Resume.
    Resume(Of),
    /// CloseIO.
    CloseStdin(Of),
    /// ResizePty: columns and rows.
    Resize(Of, u32, u32),
    /// Update of resources.
    Update(Of, fn() -> Value),
    /// Stats: its kind alone.
    Stats(Of),
    /// Checkpoint.
    Checkpoint(Of),
    /// Connect.
    Connect(Of),
    /// Delete.
    Delete(Of),
    /// Shutdown, which a shim with containers ignores.
    Shutdown,
    /// These at the same time; each is answered before the next step.
    Beside(&'static [Step]),
    /// No call: a client opens the other ends of its output's fifos, which it makes if nobody has, and reads.
    Listen(Of),
    /// No call: it goes away.
    Leave(Of),
    /// No call: a client opens the fifo of its input, if it has not, and writes this.
    Type(Of, &'static str),
    /// No call: it closes the input.
    HangUp(Of),
    /// No call: until its outputs have ended, for who listens.
    UntilEnded(Of),
    /// No call: until one has written this.
    Until(Of, &'static str),
    /// No call: what a path of the container's bundle is, on the node.
    Node(&'static str),
    /// No call: kubelet writes these files in the place of those of a ConfigMap, `key` and `gone`, which a bundle has where a case has this step.
    /// Its image has the program `inside` then.
    Swap(&'static [(&'static str, &'static str)]),
    /// No call: all that one has written that was deleted. Before that its output may be on its way.
    Output(Of),
}

impl Step {
    /// "State" of State of whomever.
    pub fn name(&self) -> String {
        let text = format!("{self:?}");
        text.split(['(', ' ']).next().unwrap_or_default().to_owned()
    }
}
