//! Where ours differs from runc below containerd and may.

use crate::compare::Accepted;

const NOT_SHARED: &str = "not shared yet: a pod's containers have neither namespaces nor /dev/shm in common";
const NO_NETWORK: &str =
    "not yet: what comes to the loopback of the pod's network namespace on the node does not reach the guest";
const NO_MKNOD: &str = "no container has CAP_MKNOD: a guest has no filter of devices yet";

/// One that differs no more, with any containerd, is to be taken out.
pub const ACCEPTED: &[Accepted] = &[
    Accepted {
        case: "",
        field: " error",
        values: "Unknown → InvalidArgument",
        why: "runc's shim has UNKNOWN for it; ours has the code that says what is wrong",
    },
    not_shared("cri_hostname_shared", " ExecSync one stdout"),
    not_shared("cri_ipc_shared", " Log two log stderr 0"),
    not_shared("cri_ipc_shared", " Log two log stderr lines"),
    not_shared("cri_ipc_shared", " Log two log stdout 0"),
    not_shared("cri_ipc_shared", " Log two log stdout 1"),
    not_shared("cri_ipc_shared", " Log two log stdout lines"),
    not_shared("cri_ipc_shared", " of two.0 exit_status"),
    not_shared("cri_ipc_survives_restart", " Log app log stderr 0"),
    not_shared("cri_ipc_survives_restart", " Log app log stderr lines"),
    not_shared("cri_ipc_survives_restart", " Log app log stdout 0"),
    not_shared("cri_ipc_survives_restart", " Log app log stdout lines"),
    not_shared("cri_ipc_survives_restart", " of app.1 exit_status"),
    not_shared("cri_share_pid", " Log two log stdout 0"),
    not_shared("cri_share_pid", " Log two log stdout 1"),
    not_shared("cri_share_pid", " Log two log stdout lines"),
    not_shared("cri_share_pid", " of two.0 exit_status"),
    not_shared("cri_target_pid", " Log debug log stdout 0"),
    not_shared("cri_sysctls_of_pod", " Log app log stdout 0"),
    Accepted { case: "cri_port_forward", field: " data", values: "", why: NO_NETWORK },
    Accepted { case: "cri_port_forward", field: " fails", values: "false → true", why: NO_NETWORK },
    // The lines of CapPrm, CapEff and CapBnd.
    Accepted { case: "cri_privileged", field: " Log app log stdout 1", values: "", why: NO_MKNOD },
    Accepted { case: "cri_privileged", field: " Log app log stdout 2", values: "", why: NO_MKNOD },
    Accepted { case: "cri_privileged", field: " Log app log stdout 3", values: "", why: NO_MKNOD },
    // That of CapBnd.
    Accepted { case: "cri_user", field: " Log app log stdout 6", values: "", why: NO_MKNOD },
];

const fn not_shared(case: &'static str, field: &'static str) -> Accepted {
    Accepted { case, field, values: "", why: NOT_SHARED }
}
