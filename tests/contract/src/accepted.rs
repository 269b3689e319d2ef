//! Where ours differs from runc's shim and may.

use crate::compare::Accepted;

const EXACT: &str = "runc's shim has UNKNOWN for it; ours has the code that says what is wrong";
const INSIDE: &str = "runc's shim has UNKNOWN for it; ours has INTERNAL where the node or the container's library fails, with its words";
const HOST: &str =
    "refused with the field's name: it would tie the container to the node, whose kernel it does not run on";
const GUARDS: &str = "it guards a kernel that other containers use, too; that of a domain is its pod's own";
const NOT_EXECUTED: &str = "ours ends as a shell does where a program cannot be executed, and says so in its errors; runc's init ends with 1";
const NEVER_EMPTY: &str =
    "a containerd that starts again takes a shim whose list is empty for a leaked one and ends it";
const UNSTARTED: &str = "runc's shim has let go of it when it tells the exit; ours says when it was";
const AT_THE_START: &str = "runc of Debian 13 (1.1) runs it at Create, before there is a program; the specification, and ours, when the program runs";
/// One that only runc refuses.
const REFUSED: &str = "UNKNOWN → none";
/// One that only ours refuses.
const REFUSES: &str = "none → INVALID_ARGUMENT";

/// One that differs no more is to be taken out.
pub const ACCEPTED: &[Accepted] = &[
    Accepted { case: "", field: " error", values: "UNKNOWN → FAILED_PRECONDITION", why: EXACT },
    Accepted { case: "", field: " error", values: "UNKNOWN → INVALID_ARGUMENT", why: EXACT },
    Accepted { case: "", field: " error", values: "UNKNOWN → ALREADY_EXISTS", why: EXACT },
    Accepted { case: "calls_of_", field: " CloseStdin error", values: "UNKNOWN → NOT_FOUND", why: EXACT },
    Accepted { case: "", field: " error", values: "UNKNOWN → INTERNAL", why: INSIDE },
    Accepted {
        case: "stdio_errors_alone",
        field: " error",
        values: REFUSED,
        why: "runc's shim opens an output without a name; for ours it is none",
    },
    Accepted {
        case: "exec_start_in_paused",
        field: " State status",
        values: "PAUSED → CREATED",
        why: "an exec that does not run is not paused",
    },
    Accepted {
        case: "exec_start_in_created",
        field: " Start error",
        values: "none → FAILED_PRECONDITION",
        why: "not yet: an exec is started in a container that runs, and in no created one",
    },
    Accepted {
        case: "tty_sizes",
        field: " Resize error",
        values: "none → FAILED_PRECONDITION",
        why: "what has ended has no terminal: runc's shim says so of an exec alone",
    },
    Accepted {
        case: "stdio_exec_none",
        field: " exit_status",
        values: "1 → 7",
        why: "an exec of runc's shim without streams has a /dev/null that it can only read",
    },
    Accepted {
        case: "calls_of_a_stopped_one",
        field: " Pids processes.count",
        values: "0 → 1",
        why: NEVER_EMPTY,
    },
    Accepted { case: "calls_of_a_stopped_one", field: " Pids processes.0.pid", values: "", why: NEVER_EMPTY },
    Accepted {
        case: "calls_of_a_stopped_one",
        field: " KillAll error",
        values: "none → NOT_FOUND",
        why: "what has ended cannot be killed, one or all: containerd takes that for success",
    },
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
        why: UNSTARTED,
    },
];

/// The same of what becomes of specs.
pub const ACCEPTED_OF_SPECS: &[Accepted] = &[
    Accepted { case: "", field: " error", values: "UNKNOWN → INVALID_ARGUMENT", why: EXACT },
    Accepted { case: "", field: " error", values: "UNKNOWN → INTERNAL", why: INSIDE },
    Accepted { case: "mounts_a_folder_as_a_slave", field: " error", values: REFUSES, why: HOST },
    Accepted { case: "mounts_a_folder_shared", field: " error", values: REFUSES, why: HOST },
    Accepted { case: "root_propagation_shared", field: " error", values: REFUSES, why: HOST },
    Accepted { case: "devices_of_the_node", field: " error", values: REFUSES, why: HOST },
    Accepted { case: "namespace_of_users", field: " error", values: REFUSES, why: HOST },
    Accepted { case: "namespace_of_the_hosts_", field: " error", values: REFUSES, why: HOST },
    Accepted {
        case: "hooks_of_create_container",
        field: " error",
        values: REFUSES,
        why: "a program of the node in the namespaces of a container: those are in the guest, where the node's programs are not",
    },
    Accepted {
        case: "hooks_after_the_start",
        field: " Node text",
        values: "poststart created\\n → poststart running\\n",
        why: AT_THE_START,
    },
    Accepted {
        case: "hooks_after_the_start_that_fail",
        field: " CreateOf error",
        values: REFUSED,
        why: AT_THE_START,
    },
    Accepted {
        case: "hooks_at_the_end_that_fail",
        field: " Node text",
        values: "poststop\\n → poststop\\nsecond stopped\\n",
        why: "a failure is logged and the others follow, as the specification has it; runc ends with the first",
    },
    Accepted {
        case: "hooks_of_start_container_that_fail",
        field: " exit_status",
        values: "1 → 255",
        why: "the status of the library's init, which ends of it; runc's has another",
    },
    Accepted {
        case: "hooks_of_a_relative_path",
        field: " error",
        values: REFUSES,
        why: "a hook's path is absolute by the specification: it would be another program with each working directory",
    },
    Accepted {
        case: "hooks_of_one_that_is_deleted_unstarted",
        field: "event exit exited_at",
        values: "none → a time",
        why: UNSTARTED,
    },
    Accepted { case: "mounts_at_proc", field: " error", values: REFUSED, why: GUARDS },
    Accepted { case: "mounts_in_proc", field: " error", values: REFUSED, why: GUARDS },
    Accepted { case: "process_selinux_label", field: " error", values: REFUSED, why: GUARDS },
    Accepted { case: "mount_label", field: " error", values: REFUSED, why: GUARDS },
    Accepted {
        case: "intel_rdt",
        field: " error",
        values: REFUSED,
        why: "left out: the node's caches are not the guest's to divide; runc refuses it where the processor has none of it",
    },
    Accepted {
        case: "mounts_proc_alone",
        field: " error",
        values: "none → INTERNAL",
        why: "a root that comes by a share has no device nodes: /dev has to be a mount, as containerd's clients have it",
    },
    Accepted {
        case: "mounts_tmpfs_with_a_copy",
        field: " error",
        values: "none → INTERNAL",
        why: "tmpcopyup is runc's own word, which no client of containerd's says",
    },
    Accepted {
        case: "process_program_of_no_interpreter",
        field: " exit_status",
        values: "1 → 127",
        why: NOT_EXECUTED,
    },
    Accepted {
        case: "process_program_of_no_interpreter",
        field: " Output text",
        values: "",
        why: NOT_EXECUTED,
    },
    Accepted {
        case: "process_program_without_a_format",
        field: " exit_status",
        values: "1 → 126",
        why: NOT_EXECUTED,
    },
    Accepted {
        case: "process_program_without_a_format",
        field: " Output text",
        values: "",
        why: NOT_EXECUTED,
    },
];
