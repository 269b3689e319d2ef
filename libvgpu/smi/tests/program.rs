//! The program as a script runs it: what it prints, how it exits.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use idm::connect::{greet, peer_of, refuse, tell};
use idm::hello::Hello;
use vgpu_zone_api::guest::facts::{self, DeviceFacts, Facts, ProcessFacts};

/// Runs it at a door that gives one answer: facts, or the number of a code.
fn run(answer: Result<Facts, u16>, arguments: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gpu.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let peer = peer_of(&socket).unwrap();
        assert_eq!(greet(&socket, peer, Duration::from_secs(10)).unwrap().application, facts::APPLICATION);
        let ours = Hello::new(64 << 10, facts::APPLICATION);
        match answer {
            Ok(facts) => tell(&socket, peer, &ours, &facts.encode()).unwrap(),
            Err(code) => refuse(&socket, peer, &ours, code).unwrap(),
        }
    });
    run_at(&path, arguments)
}

fn run_at(socket: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nvidia-smi"));
    command.env("VGPU_SOCKET", socket).args(arguments).output().unwrap()
}

fn said(output: &Output) -> (Option<i32>, String) {
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code(), String::from_utf8(output.stdout.clone()).unwrap())
}

fn facts() -> Facts {
    let device = DeviceFacts { name: "a device".into(), total_bytes: 8 << 30, ..DeviceFacts::default() };
    let process = ProcessFacts { device: 0, pid: std::process::id(), used_bytes: 3 << 20 };
    Facts { devices: vec![device], processes: vec![process], ..Facts::default() }
}

#[test]
fn a_script_gets_its_fields_and_the_name_of_a_process() {
    let gpus = run(Ok(facts()), &["--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]);
    assert_eq!(said(&gpus), (Some(0), "a device, 8192\n".into()));
    let apps = run(Ok(facts()), &["--query-compute-apps=process_name,used_memory", "--format=csv,noheader"]);
    let own = std::env::args().next().unwrap();
    assert_eq!(said(&apps), (Some(0), format!("{own}, 3 MiB\n")));
    let (code, table) = said(&run(Ok(facts()), &[]));
    assert!(code == Some(0) && table.contains("  a device "), "{table}");
}

#[test]
fn failures_have_the_exit_codes_that_scripts_know() {
    let nobody = tempfile::tempdir().unwrap().path().join("gpu.sock");
    let (code, text) = said(&run_at(&nobody, &[]));
    assert!(code == Some(9) && text.contains("gpu.sock"), "{code:?} {text}");
    let (code, text) = said(&run(Err(403), &[]));
    assert!(code == Some(9) && text.contains("VGPU-403"), "{code:?} {text}");
    assert_eq!(said(&run(Ok(Facts::default()), &[])), (Some(6), "No devices were found\n".into()));
    // No question is asked for these.
    for (arguments, expected) in
        [(["-pl", "200"], 4), (["--query-gpu=name", "--format=xml"], 2), (["-h", ""], 0)]
    {
        assert_eq!(said(&run_at(&nobody, &arguments)).0, Some(expected), "{arguments:?}");
    }
}
