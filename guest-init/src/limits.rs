//! Changes a living container's limits (Task.Update), with the code that set them when it was made.

use std::path::{Path, PathBuf};

use libcgroups::{
    common::{CgroupManager, ControllerOpt},
    v2::manager::Manager,
};
use libcontainer::oci_spec::runtime::LinuxResources;

use crate::{
    cgroup,
    error::{GuestError, Result},
    oci::resources,
    task::huge::POOLS,
};

/// Applies what `resources` names; what it leaves out stays. Blocks for as long as the kernel does.
/// # Errors
/// A value that the kernel refuses.
pub fn apply(container: &str, mut resources: LinuxResources) -> Result<()> {
    resources::adapt(&mut resources, Path::new(POOLS));
    let refused = |error: String| GuestError::Oci { operation: "update the limits", text: error };
    let manager = Manager::new(PathBuf::from(cgroup::MOUNT), cgroup::of_container(container))
        .map_err(|error| refused(error.to_string()))?;
    let options = ControllerOpt {
        resources: &resources,
        disable_oom_killer: false,
        oom_score_adj: None,
        freezer_state: None,
    };
    manager.apply(&options).map_err(|error| refused(error.to_string()))
}
