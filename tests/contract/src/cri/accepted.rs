//! Where ours differs from runc below containerd and may.

use crate::compare::Accepted;

const NO_MKNOD: &str = "no container has CAP_MKNOD: a guest has no filter of devices yet";

const HOST: &str =
    "refused with the field's name: it would tie the pod to the node, whose kernel it does not run on";

const EXACT: &str = "runc's shim has UNKNOWN for it; ours has the code that says what is wrong";

/// One that differs no more, with any containerd, is to be taken out.
pub const ACCEPTED: &[Accepted] = &[
    Accepted { case: "", field: " error", values: "Unknown → InvalidArgument", why: EXACT },
    // The lines of CapPrm, CapEff and CapBnd.
    Accepted { case: "cri_privileged", field: " Log app log stdout 1", values: "", why: NO_MKNOD },
    Accepted { case: "cri_privileged", field: " Log app log stdout 2", values: "", why: NO_MKNOD },
    Accepted { case: "cri_privileged", field: " Log app log stdout 3", values: "", why: NO_MKNOD },
    // That of CapBnd.
    Accepted { case: "cri_user", field: " Log app log stdout 6", values: "", why: NO_MKNOD },
];

/// The same of those that [`MORE`](super::cases::MORE) has.
pub const ACCEPTED_OF_MORE: &[Accepted] = &[
    Accepted { case: "cri_host_", field: " RunPod error", values: "none → InvalidArgument", why: HOST },
    Accepted {
        case: "cri_volume_with_a_pipe", field: " error", values: "none → InvalidArgument", why: HOST
    },
];

/// The same of pods by the Sandbox API alone.
pub const ACCEPTED_BY_SANDBOX: &[Accepted] = &[Accepted {
    case: "cri_share_pid",
    field: " Log two log stdout 0",
    values: "[\"F\",\"2\"] → [\"F\",\"1\"]",
    why: "runc's pause container runs a sleep, too, which is counted",
}];

/// The same of guests with a kernel of their own alone.
pub const ACCEPTED_ON_XEN: &[Accepted] = &[Accepted {
    case: "",
    field: ".memory.major_page_faults.value",
    values: "none → some",
    why: "a guest reads its image's files for the first time; the node has them in its memory",
}];
