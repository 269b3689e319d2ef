//! A pod by containerd's Sandbox API. The node's containerd is of before that, so the shim is asked as a later one does.

use tokio::runtime::Runtime;
use vgpu_contract::cri_api::{NamespaceMode, PodSandboxConfig};
use vgpu_contract::mock::{self, Containerd, Flavour};

use crate::Story;
use crate::node::Node;
use crate::plays::{OURS, vgpu};

/// The story.
pub fn stories() -> Vec<Story> {
    vec![vgpu(
        "vgpu_sandbox_of_the_sandbox_api_is_a_domain",
        300,
        vgpu_sandbox_of_the_sandbox_api_is_a_domain,
    )]
}

/// Of the pod's containers.
const KINDS: [&str; 4] = ["network", "ipc", "uts", "pid"];

fn vgpu_sandbox_of_the_sandbox_api_is_a_domain(node: &Node) {
    Runtime::new().expect("a runtime").block_on(async {
        let ours = mock::Runtime::Node { program: OURS.into() };
        let containerd = Containerd::of(ours, Flavour::V1).await;
        containerd.bundle_of_sandbox("pod");
        let shim = containerd.start("pod").await;
        let mut config = PodSandboxConfig { hostname: "by-api".into(), ..PodSandboxConfig::default() };
        let linux = config.linux.mut_or_insert_default();
        linux.sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
        let options = &mut linux.security_context.mut_or_insert_default().namespace_options;
        options.mut_or_insert_default().pid = NamespaceMode::POD.into();
        shim.create_sandbox(&containerd, "pod", &config).await.expect("CreateSandbox");
        assert!(node.domains().is_empty(), "StartSandbox makes it");
        let pid = shim.start_sandbox("pod").await.expect("StartSandbox");
        assert_eq!(node.domains().len(), 1);
        assert_eq!(shim.sandbox_state("pod").await, ("SANDBOX_READY".into(), pid));

        let writes = "hostname; cat /etc/hostname /proc/sys/kernel/shm_rmid_forced; echo kept > /dev/shm/file; exec sleep 1000";
        containerd.bundle_in_sandbox("one", writes, "pod", pid, &KINDS);
        containerd.create(&shim, "one").await;
        let reads = "until grep -q kept /dev/shm/file; do sleep 0.2; done; ps | grep -c '[s]leep 1000'; test $$ = 1 || echo later";
        containerd.bundle_in_sandbox("two", reads, "pod", pid, &KINDS);
        containerd.create(&shim, "two").await;
        assert_eq!((shim.wait("two").await, shim.delete("two").await), (0, 0), "{}", containerd.output("two"));
        assert_eq!(containerd.output("one"), "by-api\nby-api\n1\n");
        assert_eq!(containerd.output("two"), "1\nlater\n");

        shim.stop_sandbox("pod").await.expect("StopSandbox");
        assert_eq!((shim.wait_sandbox("pod").await, shim.wait("one").await), (137, 137));
        assert!(node.domains().is_empty(), "StopSandbox has destroyed it");
        assert_eq!(shim.delete("one").await, 137);
        shim.shut_down_sandbox("pod").await;
        containerd.delete("pod");
    });
}
