//! vgpuctl against a gpu-proxy of the test's own, which speaks the shim's door and has one zone.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

use vgpu_zone_api::shim::{
    self, DomainRef, GrantInfo, HELLO_BYTES, Hello, Listing, NodeInfo, REPLY_BYTES_MAX, REQUEST_BYTES_MAX,
    Reply, Request, WorkerInfo, ZoneId, ZoneInfo, ZoneState,
};

fn listing() -> Listing {
    let zone = ZoneId::of_sandbox(None, "default", "a");
    let worker = WorkerInfo {
        pid: 812,
        container: "a".into(),
        guest_pid: 7,
        device_bytes: 64 << 20,
        ahead: false,
        uptime_seconds: 5,
        used: 0,
    };
    let grant = GrantInfo { container: "a".into(), device: "0".into(), bytes: Some(1 << 30), share: None };
    let zone = ZoneInfo {
        zone,
        pod_uid: zone.to_string(),
        domain: Some(DomainRef { domid: 3, uuid: zone.0 }),
        state: ZoneState::Connected,
        grants: vec![grant],
        workers: vec![worker],
        device_bytes: 64 << 20,
        mapped_pages: 4096,
    };
    let node = NodeInfo {
        version: "0.1.0".into(),
        mode: "xen".into(),
        device: "soft".into(),
        devices: 1,
        device_bytes: 1 << 30,
        wire_hash: "0123456789abcdef".into(),
        pid: 400,
        uptime_seconds: 60,
        sandbox_gaps: vec!["workers have no limit of memory".into()],
        warnings: Vec::new(),
    };
    Listing { node, zones: vec![zone] }
}

/// Answers one connection's one request.
fn serve(path: &Path) -> std::thread::JoinHandle<Request> {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut hello = [0; HELLO_BYTES];
        stream.read_exact(&mut hello).unwrap();
        stream.write_all(&Hello::ours().to_bytes()).unwrap();
        let mut word = [0; 4];
        stream.read_exact(&mut word).unwrap();
        let mut body = vec![0; shim::frame_len(word, REQUEST_BYTES_MAX).unwrap()];
        stream.read_exact(&mut body).unwrap();
        stream.write_all(&shim::encode(&Reply::Listing(listing()), REPLY_BYTES_MAX).unwrap()).unwrap();
        shim::decode(&body).unwrap()
    })
}

fn vgpuctl(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vgpuctl")).args(words).output().unwrap()
}

/// What it prints about the node above.
fn says(words: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("zones.sock");
    let served = serve(&path);
    let output = vgpuctl(&[words, &["--socket", path.to_str().unwrap()]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(served.join().unwrap(), Request::List);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn ps_shows_zones_grants_workers_and_memory() {
    let zone = ZoneId::of_sandbox(None, "default", "a").to_string();
    let text = says(&["ps"]);
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    // The stories read these columns: zone, domain, state, GPU memory.
    assert_eq!(lines[1], [&zone, "3", "connected", "64", "MiB", "16", "MiB"]);
    assert!(text.contains("grant   a: device 0, memory 1024 MiB, share fair"), "{text}");
    assert!(text.contains("worker  812 for process 7 of a: 64 MiB, 5 s"), "{text}");
    assert_eq!(lines.len(), 4);
}

#[test]
fn info_shows_the_proxy_and_what_its_sandbox_lacks() {
    let text = says(&["info"]);
    for part in ["0.1.0 (pid 400", "xen", "soft (1024 MiB)", "0123456789abcdef", "GAP: workers have no limit"]
    {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
}

#[test]
fn json_has_all_of_the_answers_fields() {
    let zones: Vec<ZoneInfo> = serde_json::from_str(&says(&["ps", "--json"])).unwrap();
    assert_eq!(zones, listing().zones);
    let node: NodeInfo = serde_json::from_str(&says(&["info", "--json"])).unwrap();
    assert_eq!(node, listing().node);
}

/// Its status, after it has said `part` on stderr.
fn fails(words: &[&str], part: &str) -> Option<i32> {
    let output = vgpuctl(words);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.stdout.is_empty() && said.contains(part), "{words:?}: {said}");
    output.status.code()
}

#[test]
fn help_is_no_failure() {
    let output = vgpuctl(&["--help"]);
    assert!(output.status.success() && output.stdout.starts_with(b"vgpuctl: looks at a node"));
}

#[test]
fn what_is_wrong_is_said_and_the_code_is_not_zero() {
    for (words, part) in [
        (&["sp"][..], "\"sp\""),
        (&["ps", "--socket"], "--socket wants a path"),
        (&["ps", "info"], "\"info\" is one question too many"),
        (&["--json"], "ps or info?"),
        (&[], "ps or info?"),
    ] {
        assert_eq!(fails(words, part), Some(2), "{words:?}");
    }
    // What is wrong, and why.
    for (words, parts) in [
        (["ps", "--socket", "/nonexistent/zones.sock"], ["is gpu-proxy.service running?", "No such file"]),
        (["ps", "--config", "/nonexistent.toml"], ["/nonexistent.toml", "No such file"]),
    ] {
        for part in parts {
            assert_eq!(fails(&words, part), Some(1), "{words:?}");
        }
    }
}
