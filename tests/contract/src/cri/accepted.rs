//! Where ours differs from runc below containerd and may.

use crate::compare::Accepted;

const NO_MKNOD: &str = "no container has CAP_MKNOD: a guest has no filter of devices yet";

/// One that differs no more, with any containerd, is to be taken out.
pub const ACCEPTED: &[Accepted] = &[
    Accepted {
        case: "",
        field: " error",
        values: "Unknown → InvalidArgument",
        why: "runc's shim has UNKNOWN for it; ours has the code that says what is wrong",
    },
    // The lines of CapPrm, CapEff and CapBnd.
    Accepted { case: "cri_privileged", field: " Log app log stdout 1", values: "", why: NO_MKNOD },
    Accepted { case: "cri_privileged", field: " Log app log stdout 2", values: "", why: NO_MKNOD },
    Accepted { case: "cri_privileged", field: " Log app log stdout 3", values: "", why: NO_MKNOD },
    // That of CapBnd.
    Accepted { case: "cri_user", field: " Log app log stdout 6", values: "", why: NO_MKNOD },
];
