//! The life of a process, and which operation fits which part of it, as runc's shim has it. Pure: no time, no I/O.

use crate::{
    error::{GuestError, Result},
    reaper::Exit,
};

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Made, its program not executed yet.
    Created,
    /// Executing.
    Running,
    /// It is being frozen.
    Pausing,
    /// Frozen.
    Paused,
    /// Ended.
    Stopped(Exit),
}

/// What a request wants to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Execute the program.
    Start,
    /// Freeze init.
    Pause,
    /// Thaw init.
    Resume,
    /// Add a process to init's container.
    Exec,
    /// Change init's limits.
    Update,
    /// Forget it.
    Delete,
}

impl Phase {
    /// Whether `operation` fits an init (or, for Start and Delete, an exec) in this phase.
    /// # Errors
    /// [`GuestError::WrongState`].
    pub fn allow(self, operation: Operation) -> Result<()> {
        use Operation as Op;
        let fits = match self {
            Self::Created => matches!(operation, Op::Start | Op::Exec | Op::Update | Op::Delete),
            Self::Running => matches!(operation, Op::Pause | Op::Exec | Op::Update),
            Self::Pausing => operation == Op::Update,
            Self::Paused => matches!(operation, Op::Resume | Op::Update),
            Self::Stopped(_) => operation == Op::Delete,
        };
        if fits { Ok(()) } else { Err(self.refuse(operation.name())) }
    }

    /// The refusal of `operation`.
    pub fn refuse(self, operation: &'static str) -> GuestError {
        GuestError::WrongState { operation, state: self.name() }
    }

    /// Whether it ended, and how.
    pub fn exit(self) -> Option<Exit> {
        match self {
            Self::Stopped(exit) => Some(exit),
            _ => None,
        }
    }

    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Stopped(_) => "stopped",
        }
    }
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Exec => "exec in",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::{Operation::*, Phase::*, *};

    /// What runc's shim allows, row by row.
    #[test]
    fn each_operation_fits_the_states_that_containerd_expects() {
        let stopped = Stopped(Exit { status: 0, at: SystemTime::UNIX_EPOCH });
        for (operation, phases) in [
            (Start, vec![Created]),
            (Pause, vec![Running]),
            (Resume, vec![Paused]),
            (Exec, vec![Created, Running]),
            (Update, vec![Created, Running, Pausing, Paused]),
            (Delete, vec![Created, stopped]),
        ] {
            for phase in [Created, Running, Pausing, Paused, stopped] {
                assert_eq!(
                    phase.allow(operation).is_ok(),
                    phases.contains(&phase),
                    "{operation:?} {phase:?}"
                );
            }
        }
        assert_eq!(Running.allow(Delete).unwrap_err().to_string(), "cannot delete a process that is running");
    }
}
