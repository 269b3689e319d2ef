//! What is refused, and with which code.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use vgpu_zone_api::shim::WorkerInfo;

use super::*;

#[test]
fn connections_that_say_nothing_cost_a_bounded_number_of_descriptors_and_pass() {
    let proxy = Proxy::start("null");
    proxy.list();
    let before = proxy.open_files();
    let silent: Vec<_> = (0..300).map(|_| UnixStream::connect(proxy.socket()).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(300));
    let taken = proxy.open_files() - before;
    assert!(taken <= 64 + 4, "{taken} descriptors for who says nothing");
    drop(silent);
    // Its turn comes when theirs are over.
    let guest = proxy.guest();
    ask::cuCtxSynchronize(&guest, C).unwrap();
    proxy.stop();
}

#[test]
fn a_program_of_another_wire_is_refused_with_its_code() {
    let proxy = Proxy::start("null");
    let error = proxy.guest_of_hash(1).map(drop).unwrap_err();
    assert!(matches!(error, idm::ChannelError::Refused { code: 501, .. }), "{error}");
    assert!(proxy.workers().is_empty());
    proxy.stop();
}

/// As after an upgrade: the program that is started is the one installed for that wire, and no other.
#[test]
fn a_program_of_an_earlier_wire_gets_the_worker_that_is_installed_for_it() {
    let installed = tempfile::tempdir().unwrap();
    let folder = installed.path().canonicalize().unwrap();
    let worker = folder.join(format!("{:016x}", 0x1234));
    fs::copy(env!("CARGO_BIN_EXE_gpu-proxy"), &worker).unwrap();
    let config = folder.join("config.toml");
    fs::write(&config, format!("[proxy]\nworkers_dir = \"{}\"\n", folder.display())).unwrap();
    let proxy = Proxy::start_with("null", &["--config", config.to_str().unwrap()]);
    let program_of = |worker: &WorkerInfo| fs::read_link(format!("/proc/{}/exe", worker.pid)).unwrap();

    let earlier = proxy.guest_of_hash(0x1234).unwrap();
    ask::cuDevicePrimaryCtxRetain(&earlier, ContextId::NONE, 0, 0).unwrap();
    ask::cuCtxSynchronize(&earlier, C).unwrap();
    assert_eq!(proxy.workers().iter().map(program_of).collect::<Vec<_>>(), [worker.as_path()]);

    let _own = proxy.guest();
    let all: Vec<_> = proxy.workers().iter().map(program_of).collect();
    assert_eq!(all.len(), 2);
    assert_ne!(all[1], worker, "this release's own program");
    assert!(matches!(proxy.guest_of_hash(0x1235), Err(idm::ChannelError::Refused { code: 501, .. })));
    proxy.stop();
}

#[test]
fn a_guest_that_breaks_the_protocol_ends_its_own_worker_only() {
    let proxy = Proxy::start("null");
    let (bad, good) = (proxy.guest(), proxy.guest());
    bad.channel.submit_bytes(u16::MAX, 0, &[]).unwrap();
    assert_eq!(ask::cuCtxSynchronize(&bad, C), Err(CuError::DEVICE_UNAVAILABLE));
    until("it is gone", || proxy.workers().len() == 1);
    ask::cuCtxSynchronize(&good, C).unwrap();
    proxy.stop();
}

#[test]
fn what_is_wrong_is_said_with_its_code() {
    let proxy = Proxy::start("null");
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_gpu-proxy")).args(arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let used = proxy.socket();
    let used = used.to_str().unwrap();
    assert!(run(&["--local", used, "--device", "null"]).contains("VGPU-407"));
    assert!(run(&["--local", "/tmp/x", "--device", "gtx"]).contains("VGPU-402"));
    if !Path::new("/proc/driver/nvidia/version").exists() {
        assert!(run(&["--local", "/tmp/x", "--device", "cuda"]).contains("VGPU-402"));
    }
    let unreadable = run(&["--config", "/nonexistent.toml"]);
    assert!(unreadable.contains("VGPU-103") && unreadable.contains("No such file"), "{unreadable}");
    proxy.stop();
}

#[test]
fn without_xen_guests_are_not_waited_for_and_the_message_says_what_goes() {
    if ["/run/xenstored/socket", "/dev/xen/xenbus"].iter().any(|path| Path::new(path).exists()) {
        eprintln!("NOT TRIED: {}: this machine runs Xen", file!());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("zones.sock");
    let mut proxy = Command::new(env!("CARGO_BIN_EXE_gpu-proxy"));
    let output = proxy.args(["--device", "null", "--socket"]).arg(&socket).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("VGPU-101") && said.contains("--local"), "{said}");
    assert!(!socket.exists(), "it serves");
}
