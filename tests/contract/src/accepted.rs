//! Where ours differs from runc's shim and may.

use crate::compare::Accepted;

const EXACT: &str = "runc's shim has UNKNOWN for it; ours has the code that says what is wrong";
const UNSTARTED: &str = "ours ends init before it answers, so its exit is told first, with its code and time";
const NEVER_RAN: &str =
    "an exec of ours that never ran was killed, when it was deleted; runc's has the status 0 and no time";
const NAMED: &str = "ours names container and exec, runc's the exec as `id`; containerd reads neither";

/// One that differs no more is to be taken out.
pub const ACCEPTED: &[Accepted] = &[
    Accepted { case: "", field: " error", values: "UNKNOWN → FAILED_PRECONDITION", why: EXACT },
    Accepted { case: "", field: " error", values: "UNKNOWN → INVALID_ARGUMENT", why: EXACT },
    Accepted { case: "", field: " error", values: "UNKNOWN → ALREADY_EXISTS", why: EXACT },
    Accepted {
        case: "task_checkpoint",
        field: " error",
        values: "UNKNOWN → UNIMPLEMENTED",
        why: "runc would want CRIU; a domain has no checkpoint",
    },
    Accepted { case: "exec_", field: " id", values: "e → a", why: NAMED },
    Accepted { case: "exec_", field: " exec_id", values: "none → e", why: NAMED },
    Accepted {
        case: "exec_",
        field: " pid",
        values: "none → a pid",
        why: "each task of ours has the shim's pid, from its beginning",
    },
    Accepted {
        case: "exec_delete_unstarted",
        field: "Delete exit_status",
        values: "none → 137",
        why: NEVER_RAN,
    },
    Accepted {
        case: "exec_delete_unstarted",
        field: "Delete exited_at",
        values: "none → a time",
        why: NEVER_RAN,
    },
    Accepted { case: "task_delete_created", field: "events order", values: "", why: UNSTARTED },
    Accepted { case: "task_delete_created", field: " exit_status", values: "none → 137", why: UNSTARTED },
    Accepted { case: "task_delete_created", field: " exited_at", values: "none → a time", why: UNSTARTED },
];
