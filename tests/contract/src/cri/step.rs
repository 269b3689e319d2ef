//! What a case asks of containerd: one call each, but for those that wait or look.

use std::path::Path;

use crate::cri_api::{ContainerConfig, LinuxContainerResources, PodSandboxConfig};

/// One container of the case's pod, by its name; its youngest, where it was made again.
pub type Of = &'static str;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// RunPodSandbox.
    RunPod(fn(&mut PodSandboxConfig)),
    /// The same on a network of [`super::networks`]. From then on scripts of `ExecSync` and `OnNode` have the pod's addresses as
    /// $POD and $POD6. A mapping from port 0 of the node is from one of the pod's own, $PORT.
    RunPodOn(&'static str, fn(&mut PodSandboxConfig)),
    /// A second pod on that network, of the runtime of that name, with a container that runs a script. Its addresses are $OTHER and $OTHER6.
    RunOther(&'static str, &'static str),
    /// No call: a script on the node, in its network.
    OnNode(&'static str),
    /// StopPodSandbox.
    StopPod,
    /// RemovePodSandbox.
    RemovePod,
    /// PodSandboxStatus.
    PodStatus,
    /// CreateContainer of a script. All containers of a pod have one folder as /vol.
    Create(Of, &'static str),
    /// The same with a change.
    CreateOf(Of, &'static str, fn(&mut ContainerConfig)),
    /// StartContainer.
    Start(Of),
    /// StopContainer with a grace in seconds.
    Stop(Of, i64),
    /// RemoveContainer.
    Remove(Of),
    /// ContainerStatus.
    Status(Of),
    /// ExecSync of a script.
    ExecSync(Of, &'static str),
    /// The same with a limit in seconds.
    ExecSyncFor(Of, &'static str, i64),
    /// Exec of a script, and what its streams give.
    Exec(Of, &'static str),
    /// Attach, what is typed, and what the streams give until the container ends.
    Attach(Of, &'static str),
    /// PortForward to ports of the pod at once, how many lines are sent to each, and what comes back.
    PortForward(&'static [u16], usize),
    /// ListPodSandbox of the pod.
    ListPods,
    /// ListContainers of the pod with this label; empty: whichever it has.
    List(&'static str),
    /// No call: a change of the folder that all containers of the pod have as /vol, on the node.
    Volume(fn(&Path)),
    /// Exec of a script with a terminal, what is typed, and what it gives.
    ExecTty(Of, &'static str, &'static str),
    /// UpdateContainerResources.
    Update(Of, fn(&mut LinuxContainerResources)),
    /// ContainerStats: what there is, not how much.
    Stats(Of),
    /// ListContainerStats of the pod.
    ListStats,
    /// The log's file is put aside, and ReopenContainerLog.
    ReopenLog(Of),
    /// A signal to the pause container, past CRI.
    KillPause(u32),
    /// No call: the lines of all logs of one.
    Log(Of),
    /// No call: until one has logged this.
    Until(Of, &'static str),
    /// Until one has ended.
    UntilExit(Of),
    /// Until containerd has heard of the end of the pause container.
    UntilPodEnds,
}

impl Step {
    /// "Status app" of Status of the container app.
    pub fn name(&self) -> String {
        match self {
            Step::PortForward(ports, _) => {
                let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
                return format!("PortForward {}", ports.join(" "));
            }
            Step::List(_) => return "List".to_owned(),
            Step::OnNode(_) => return "OnNode".to_owned(),
            Step::RunOther(runtime, _) => return format!("RunOther {runtime}"),
            _ => {}
        }
        let text = format!("{self:?}");
        let name = text.split(['(', ' ']).next().unwrap_or_default();
        match text.split('"').nth(1) {
            Some(of) => format!("{name} {of}"),
            None => name.to_owned(),
        }
    }
}
