//! What a case asks of a shim: one call each, but for those that wait for what the container does.

use serde_json::Value;

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
    /// Create of the same id and bundle.
    CreateAgain,
    /// A bundle of [`SECOND`], with a change of the spec that may name the first one by its pid, and Create; a bundle of before is gone.
    Second(&'static str, fn(&mut Value, u32)),
    /// Exec of a script.
    Exec(Of, &'static str),
    /// The same with a change of the process.
    ExecOf(Of, &'static str, fn(&mut Value)),
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
    /// Checkpoint.
    Checkpoint(Of),
    /// Connect.
    Connect(Of),
    /// Delete.
    Delete(Of),
    /// Shutdown, which a shim with containers ignores.
    Shutdown,
    /// No call: until one has written this.
    Until(Of, &'static str),
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
