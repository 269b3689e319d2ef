//! All stories, by subject.

use std::path::Path;
use std::time::Duration;

use crate::Story;
use crate::node::Node;

mod canary;
mod churn;
mod config;
mod contract;
mod costs;
mod create;
mod ctr_network;
mod deaths;
mod demo;
mod figures;
mod gpu;
mod idm;
mod kernel;
mod network;
mod pods;
mod programs;
mod recovery;
mod restart;
mod sandbox;

/// The shims of this node.
const RUNC: &str = "/usr/bin/containerd-shim-runc-v2";
const OURS: &str = "/usr/bin/containerd-shim-vgpu-v1";

/// Every story, in the order in which they are played.
pub fn all() -> Vec<Story> {
    let mut stories = canary::stories();
    stories.extend(idm::stories());
    stories.extend(programs::stories());
    stories.extend(network::stories());
    stories.extend(ctr_network::stories());
    stories.extend(pods::stories());
    stories.extend(sandbox::stories());
    stories.extend(kernel::stories());
    stories.extend(gpu::stories());
    stories.extend(costs::stories());
    stories.extend(demo::stories());
    stories.extend(figures::stories());
    stories.extend(create::stories());
    stories.extend(deaths::stories());
    stories.extend(recovery::stories());
    stories.extend(restart::stories());
    stories.extend(config::stories());
    stories.extend(churn::stories());
    stories.extend(contract::stories());
    stories
}

/// A story that needs vgpu on the node.
fn vgpu(name: &str, limit_s: u64, play: impl Fn(&Node) + Send + Sync + 'static) -> Story {
    let installed = Path::new(OURS).exists();
    let skip = (!installed).then(|| "vgpu is not installed in this testbed (--bare)".to_string());
    Story { name: name.into(), skip, limit: Duration::from_secs(limit_s), play: Box::new(play) }
}
