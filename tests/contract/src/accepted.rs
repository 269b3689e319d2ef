//! Where ours differs from runc's shim and may.

use crate::compare::Accepted;

const EXACT: &str = "runc's shim has UNKNOWN for it; ours has the code that says what is wrong";

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
    Accepted {
        case: "task_delete_created",
        field: "event exit exited_at",
        values: "none → a time",
        why: "runc's shim has let go of it when it tells the exit; ours says when it was",
    },
];
