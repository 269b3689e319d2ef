//! Bad input: each gives an error with a code and what to do, and leaves nothing behind.

use crate::Story;
use crate::command::{Ended, must, until};
use crate::configuration::Changed;
use crate::node::{Node, kill_9};
use crate::plays::vgpu;
use crate::pod::{Pod, Runtime, START};

/// The stories.
pub fn stories() -> Vec<Story> {
    vec![
        vgpu("config_with_an_unknown_key_names_it", 300, |_| {
            let changed = Changed::text(|text| text.replace("[guest]\n", "[guest]\nmemory_mb = 64\n"));
            refused_with(&changed, &["VGPU-103", "memory_mb", "did you mean `guest.memory_mib`"]);
        }),
        vgpu("config_with_too_little_memory_says_how_much_is_needed", 300, |_| {
            refused_with(&Changed::key("memory_mib", "16"), &["VGPU-103", "16", "96", "Correct the line"]);
        }),
        vgpu("config_with_a_missing_kernel_names_the_file", 300, |_| {
            refused_with(
                &Changed::key("kernel", "\"/no/such/vmlinux\""),
                &["VGPU-102", "/no/such/vmlinux", "guest.kernel"],
            );
        }),
        vgpu("pod_with_a_gpu_but_no_gpu_proxy_says_so", 400, pod_with_a_gpu_but_no_gpu_proxy_says_so),
        vgpu("unknown_vgpu_annotation_is_refused", 300, |_| {
            let pod = Pod::busybox(Runtime::Vgpu, &["true"]).option("--annotation").option("vgpu.dev/gqu=1");
            let ended = pod.run();
            assert_ne!(ended.code, Some(0));
            says(&ended, &["VGPU-203", "vgpu.dev/gqu", "Correct the annotation"]);
        }),
    ]
}

/// A pod under this configuration must be refused with all these words.
fn refused_with(_changed: &Changed, words: &[&str]) {
    let ended = Pod::busybox(Runtime::Vgpu, &["true"]).run();

    assert_ne!(ended.code, Some(0), "the pod ran");
    says(&ended, words);
}

fn says(ended: &Ended, words: &[&str]) {
    for word in words {
        assert!(ended.complaint().contains(word), "'{word}' is not in: {}", ended.complaint());
    }
}

fn pod_with_a_gpu_but_no_gpu_proxy_says_so(node: &Node) {
    for process in node.processes_of("gpu-proxy") {
        kill_9(process.pid);
    }
    until(START, || node.processes_of("gpu-proxy").is_empty().then_some(())).expect("kill -9 works");

    let ended = Pod::cuda(&["/vector_add"]).run();

    must(&["sh", "/ctl/vgpu-up.sh"]);
    assert_ne!(ended.code, Some(0), "a pod ran on a GPU that nobody serves");
    says(&ended, &["VGPU-401", "systemctl start gpu-proxy"]);
}
