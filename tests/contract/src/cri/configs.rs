//! What a pod and a container are where a case says nothing else.

use protobuf::MessageField;

use crate::cri_api::{
    ContainerConfig, ContainerMetadata, ImageSpec, LinuxContainerConfig, LinuxContainerSecurityContext,
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, Mount, NamespaceMode, NamespaceOption,
    PodSandboxConfig, PodSandboxMetadata,
};

const IMAGE: &str = "docker.io/library/busybox:1";

/// A pod of that name, whose cgroups are below `cgroup`.
pub fn pod(uid: &str, cgroup: &str) -> PodSandboxConfig {
    let metadata = PodSandboxMetadata {
        name: uid.into(),
        uid: uid.into(),
        namespace: "default".into(),
        ..Default::default()
    };
    let linux = LinuxPodSandboxConfig {
        cgroup_parent: format!("/{cgroup}"),
        security_context: MessageField::some(LinuxSandboxSecurityContext {
            namespace_options: own_pids(),
            ..Default::default()
        }),
        ..Default::default()
    };
    PodSandboxConfig {
        metadata: MessageField::some(metadata),
        hostname: "pod-of-a-case".into(),
        log_directory: format!("/test/logs/{uid}"),
        linux: MessageField::some(linux),
        ..Default::default()
    }
}

/// The n-th container of that name in the pod, with the pod's folder as /vol.
pub fn container(uid: &str, name: &str, attempt: u32, script: &str) -> ContainerConfig {
    let volume = Mount {
        container_path: "/vol".into(),
        host_path: format!("/test/volumes/{uid}"),
        ..Default::default()
    };
    let linux = LinuxContainerConfig {
        resources: MessageField::some(Default::default()),
        security_context: MessageField::some(LinuxContainerSecurityContext {
            namespace_options: own_pids(),
            ..Default::default()
        }),
        ..Default::default()
    };
    ContainerConfig {
        metadata: MessageField::some(ContainerMetadata { name: name.into(), attempt, ..Default::default() }),
        image: MessageField::some(ImageSpec { image: IMAGE.into(), ..Default::default() }),
        command: sh(script),
        mounts: vec![volume],
        log_path: format!("{name}.{attempt}.log"),
        linux: MessageField::some(linux),
        ..Default::default()
    }
}

/// As kubelet has it unless a pod asks for something else.
fn own_pids() -> MessageField<NamespaceOption> {
    MessageField::some(NamespaceOption { pid: NamespaceMode::CONTAINER.into(), ..Default::default() })
}

/// The command that is a script.
pub fn sh(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(String::from).into()
}
