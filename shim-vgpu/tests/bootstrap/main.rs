//! The real program, called as each containerd calls it. No Xen is needed; root is.

mod containerd;
mod deletes;

use std::{
    fs,
    time::{Duration, Instant},
};

use containerd::{Bundle, Containerd, TASK_V2, TASK_V3};
use containerd_shim_protos::{
    api::{
        ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse, DeleteResponse, Empty,
        ShutdownRequest,
    },
    bootstrap_api::{BootstrapParams, BootstrapResult, Extension},
    sandbox_api::{
        CreateSandboxRequest, CreateSandboxResponse, ShutdownSandboxRequest, ShutdownSandboxResponse,
    },
};
use protobuf::Message;
use serde_json::json;

const SANDBOX: &str = "containerd.runtime.sandbox.v1.Sandbox";

/// What containerd 2.3 pipes to `start`.
fn bootstrap(id: &str, containerd: &Containerd) -> Vec<u8> {
    let params = BootstrapParams {
        instance_id: id.into(),
        namespace: "default".into(),
        containerd_grpc_address: containerd.address(),
        socket_dir: Some(containerd.dir.path().join("s").to_string_lossy().into_owned()),
        ..BootstrapParams::default()
    };
    params.write_to_bytes().unwrap()
}

#[tokio::test]
async fn old_containerds_get_a_plain_address_that_serves_both_names() {
    let containerd = Containerd::new();
    let bundle = containerd.bundle("a", json!({}));
    let started = containerd.start(&bundle, b"");
    let address = started.address();
    assert!(address.starts_with("unix:///run/containerd/s/"), "{address}");
    assert_eq!(fs::read_to_string(bundle.path.join("address")).unwrap(), address);
    for service in [TASK_V2, TASK_V3] {
        let connected: ConnectResponse =
            started.call(service, "Connect", &ConnectRequest::default()).await.unwrap();
        assert!(connected.shim_pid > 0 && connected.task_pid == 0);
    }
    started.shut_down().await;
    assert!(!started.socket().exists(), "the socket is left");
}

#[tokio::test]
async fn new_containerds_get_a_message_of_version_3() {
    let containerd = Containerd::new();
    let bundle = containerd.bundle("a", json!({}));
    let started = containerd.start(&bundle, &bootstrap("a", &containerd));
    let reply = BootstrapResult::parse_from_bytes(&started.stdout).unwrap();
    assert_eq!((reply.version, reply.protocol.as_str()), (3, "ttrpc"));
    let started = started.at(reply.address);
    assert!(started.socket().starts_with(containerd.dir.path().join("s")));
    started.shut_down().await;
    // Another shim's message is no message for this one.
    let started = containerd.start(&bundle, &bootstrap("b", &containerd));
    assert!(started.address().starts_with("unix://"));
    started.shut_down().await;
}

/// containerd's Sandbox API writes no config.json, and tells the runtime options to `start` alone.
#[tokio::test]
async fn a_sandbox_without_a_spec_has_the_configuration_that_start_was_told() {
    let containerd = Containerd::new();
    fs::write(containerd.dir.path().join("config.toml"), "version = 1\nnonsense = 1\n").unwrap();
    let extension = Extension { value: containerd.options(), ..Extension::default() };
    let mut params = BootstrapParams::parse_from_bytes(&bootstrap("pod", &containerd)).unwrap();
    params.extensions.push(extension);
    for stdin in [containerd.options().write_to_bytes().unwrap(), params.write_to_bytes().unwrap()] {
        let bundle = containerd.bundle("pod", json!({}));
        fs::remove_file(bundle.path.join("config.json")).unwrap();
        let mut started = containerd.start(&bundle, &stdin);
        if let Ok(reply) = BootstrapResult::parse_from_bytes(&started.stdout)
            && reply.version == 3
        {
            started = started.at(reply.address);
        }
        let pid = started.shim_pid().await;
        let request = CreateSandboxRequest {
            sandbox_id: "pod".into(),
            bundle_path: bundle.path.to_string_lossy().into(),
            ..CreateSandboxRequest::default()
        };
        let refused = started.call::<_, CreateSandboxResponse>(SANDBOX, "CreateSandbox", &request).await;
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("nonsense"), "{text}");
        // As containerd does then.
        let request =
            ShutdownSandboxRequest { sandbox_id: "pod".into(), ..ShutdownSandboxRequest::default() };
        let _: ShutdownSandboxResponse = started.call(SANDBOX, "ShutdownSandbox", &request).await.unwrap();
        started.gone(pid).await;
        assert!(!started.socket().exists(), "the socket is left");
        let bundle_path = bundle.path.to_string_lossy().into_owned();
        let output = containerd.run(&bundle, &["-bundle", &bundle_path, "delete"], b"");
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}

#[tokio::test]
async fn the_longest_names_work() {
    let containerd = Containerd::new();
    let bundle = Bundle { namespace: "n".repeat(76), ..containerd.bundle(&"i".repeat(64), json!({})) };
    let started = containerd.start(&bundle, b"");
    started.shut_down().await;
}

#[tokio::test]
async fn the_second_container_of_a_pod_gets_the_living_shim() {
    let containerd = Containerd::new();
    let pod =
        |kind: &str| json!({"io.kubernetes.cri.container-type": kind, "io.kubernetes.cri.sandbox-id": "pod"});
    let orphan = containerd.bundle("early", pod("container"));
    let failed = containerd.run(&orphan, &["start"], b"");
    assert!(!failed.status.success() && failed.stdout.is_empty());
    let text = String::from_utf8(failed.stderr).unwrap();
    assert!(text.contains("VGPU-205") && text.lines().count() == 1, "{text}");

    let first = containerd.start(&containerd.bundle("pod", pod("sandbox")), b"");
    let bundle = containerd.bundle("app", pod("container"));
    let second = containerd.start(&bundle, b"");
    assert_eq!(first.address(), second.address());
    assert_eq!(fs::read_to_string(bundle.path.join("address")).unwrap(), first.address());
    // And so does a second start of the sandbox.
    let again = containerd.start(&containerd.bundle("pod", pod("sandbox")), b"");
    assert_eq!(first.shim_pid().await, again.shim_pid().await);
    first.shut_down().await;
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let containerd = Containerd::new();
    let bundle = containerd.bundle("a", json!({}));
    let first = containerd.start(&bundle, b"");
    let pid = first.shim_pid().await;
    first.kill(pid).await;
    assert!(first.socket().exists());
    let second = containerd.start(&bundle, b"");
    assert_eq!(first.address(), second.address());
    assert_ne!(second.shim_pid().await, pid);
    second.shut_down().await;
}

/// Of an id that comes back at once.
#[tokio::test]
async fn a_start_right_after_a_shutdown_is_not_sent_to_the_dying_shim() {
    let containerd = Containerd::new();
    let bundle = containerd.bundle("a", json!({}));
    let first = containerd.start(&bundle, b"");
    let pid = first.shim_pid().await;
    let _: Empty = first.call(TASK_V2, "Shutdown", &ShutdownRequest::default()).await.unwrap();
    assert!(!first.socket().exists(), "it is answered before its socket is gone");
    let second = containerd.start(&bundle, b"");
    assert_ne!(second.shim_pid().await, pid);
    first.gone(pid).await;
    second.shut_down().await;
}

#[tokio::test]
async fn the_server_is_a_good_process() {
    let containerd = Containerd::new();
    let bundle = containerd.bundle("a", json!({}));
    let started = containerd.start(&bundle, b"");
    let pid = started.shim_pid().await;
    let score = |pid: &str| {
        fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().parse::<i32>().unwrap()
    };
    assert_eq!(score(&pid.to_string()), (score("self") + 1).min(1000));
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let group = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(2).unwrap().to_owned();
    assert_eq!(group, pid.to_string(), "not a process group of its own");
    started.shut_down().await;
}

#[tokio::test]
async fn without_xen_create_says_what_to_do_and_leaves_nothing() {
    let containerd = Containerd::new();
    let bundle = containerd.bundle("a", json!({}));
    let started = containerd.start(&bundle, b"");
    let request = CreateTaskRequest {
        id: "a".into(),
        bundle: bundle.path.to_string_lossy().into_owned(),
        options: containerd.options(),
        ..CreateTaskRequest::default()
    };
    let error = started.call::<_, CreateTaskResponse>(TASK_V2, "Create", &request).await.unwrap_err();
    let ttrpc::Error::RpcStatus(status) = error else { panic!("{error:?}") };
    assert_eq!(status.code(), ttrpc::Code::FAILED_PRECONDITION);
    assert!(
        status.message.contains("VGPU-101") && status.message.contains("xen-hypervisor"),
        "{}",
        status.message
    );
    assert!(
        !containerd.dir.path().join("sandboxes").exists() && !containerd.dir.path().join("shared").exists()
    );
    started.shut_down().await;
}

#[tokio::test]
async fn a_wrong_configuration_key_is_named_to_the_user() {
    let containerd = Containerd::new();
    fs::write(containerd.dir.path().join("config.toml"), "version = 1\n[guest]\nmemory_mb = 5\n").unwrap();
    let bundle = containerd.bundle("a", json!({}));
    let started = containerd.start(&bundle, b"");
    let path = bundle.path.to_string_lossy().into_owned();
    let request = CreateTaskRequest {
        id: "a".into(),
        bundle: path,
        options: containerd.options(),
        ..CreateTaskRequest::default()
    };
    let error =
        started.call::<_, CreateTaskResponse>(TASK_V2, "Create", &request).await.unwrap_err().to_string();
    assert!(error.contains("VGPU-103") && error.contains("memory_mib"), "{error}");
    started.shut_down().await;
}

#[test]
fn delete_with_nothing_to_do_is_quick_and_silent() {
    let containerd = Containerd::new();
    let bundle = containerd.bundle("a", json!({}));
    let begun = Instant::now();
    let output = containerd.run(&bundle, &["-bundle", &bundle.path.to_string_lossy(), "delete"], b"");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert_eq!(DeleteResponse::parse_from_bytes(&output.stdout).unwrap().exit_status, 137);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[test]
fn version_and_info_answer() {
    use containerd_shim_protos::types::introspection::RuntimeInfo;
    let containerd = Containerd::new();
    let bundle = containerd.bundle("a", json!({}));
    let version = containerd.run(&bundle, &["-v"], b"");
    assert!(String::from_utf8(version.stdout).unwrap().starts_with("containerd-shim-vgpu-v1 "));
    let info = containerd.run(&bundle, &["-info"], b"");
    let info = RuntimeInfo::parse_from_bytes(&info.stdout).unwrap();
    assert_eq!(info.name, "io.containerd.vgpu.v1");
    let features: serde_json::Value = serde_json::from_slice(&info.features.value).unwrap();
    assert_eq!(features["linux"]["cgroup"]["v2"], true);
    let wrong = containerd.run(&bundle, &["-no-such-flag"], b"");
    assert!(!wrong.status.success() && !wrong.stderr.is_empty());
}
