//! Each verb of the program, as a container's init would be asked for it.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

fn inside(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inside"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn ended(args: &[&str]) -> Output {
    inside(args).output().unwrap()
}

/// What one that succeeds says.
fn said(args: &[&str]) -> String {
    let ended = ended(args);
    assert!(ended.status.success() && ended.stderr.is_empty(), "{args:?}: {ended:?}");
    String::from_utf8(ended.stdout).unwrap()
}

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_document_has_what_was_asked_for() {
    let own = std::process::id().to_string();
    let pid = format!("pid={own}");
    let text = said(&["look", &pid, "path=/dev/null", "path=/none", "sysctl=kernel.ostype", "features"]);
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["same_namespaces"][&own]["mnt"], true, "{}", document["same_namespaces"]);
    assert_eq!(document["paths"]["/dev/null"]["kind"], "char");
    assert_eq!(document["paths"]["/none"]["error"], "ENOENT");
    assert_eq!(document["sysctls"]["kernel.ostype"], "Linux");
    assert_eq!(document["features"]["memfd"], "ok");
    assert_eq!(document["process"]["args"][1], "look");
    assert_eq!(document["process"]["parent"], std::process::id());
    assert!(document["mounts"].as_array().unwrap().iter().any(|mount| mount["destination"] == "/"));
}

/// The features are tried elsewhere: whoever looks stays as it was.
#[test]
fn who_looks_at_features_keeps_its_namespaces() {
    let text = said(&["look", "pid=1", "features"]);
    let document: Value = serde_json::from_str(&text).unwrap();
    for (kind, name) in document["namespaces"].as_object().unwrap() {
        let own = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_eq!(name.as_str(), own.to_str(), "{kind}");
    }
}

#[test]
fn who_dials_is_answered_with_its_address_and_its_words() {
    let mut server = Running(inside(&["serve", "0"]).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port = line.trim().strip_prefix("serving ").unwrap().to_owned();
    for address in ["127.0.0.1", "[::1]"] {
        let said = said(&["dial", &format!("{address}:{port}")]);
        let (peer, words) = said.split_once('\n').unwrap();
        assert!(peer.starts_with(&format!("{address}:")), "{said}");
        assert_eq!(words, "what goes in comes out\n");
    }
    drop(server);
    let refused = ended(&["dial", &format!("127.0.0.1:{port}")]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).ends_with(": ECONNREFUSED\n"), "{refused:?}");
}

#[test]
fn what_is_eaten_is_resident_until_the_input_ends() {
    let mut eater = Running(inside(&["eat", "64"]).stdin(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(eater.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ate 64 MiB\n");
    let status = fs::read_to_string(format!("/proc/{}/status", eater.0.id())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib >= 64 << 10, "{kib} KiB");
    drop(eater.0.stdin.take());
    assert!(eater.0.wait().unwrap().success());
}

#[test]
fn a_child_that_is_left_holds_the_output() {
    let begun = Instant::now();
    let mut parent = inside(&["fork-hold-stdout", "1"]).spawn().unwrap();
    let mut stdout = parent.stdout.take().unwrap();
    assert!(parent.wait().unwrap().success());
    let exited = begun.elapsed();
    let mut said = String::new();
    stdout.read_to_string(&mut said).unwrap();
    assert_eq!(said, "left a child\n");
    let ended = begun.elapsed();
    assert!(ended >= Duration::from_secs(1) && exited < ended, "{exited:?}, {ended:?}");
}

#[test]
fn fifos_sockets_and_shared_mappings_carry_what_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    assert_eq!(said(&["fifo", path]), "fifo and socket\n");
    assert_eq!(fs::read_dir(path).unwrap().count(), 0, "both are gone again");
    let file = format!("{path}/file");
    assert_eq!(said(&["mmap-shared", &file]), "mapped, written and read\n");
    assert_eq!(fs::read_to_string(&file).unwrap(), "what goes in comes out\n");
    let refused = ended(&["mmap-shared", "/proc/self/comm"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
}

#[test]
fn what_is_no_verb_is_answered_with_those_that_are() {
    for args in [&["x"][..], &[], &["look", "pid=x"], &["try", "x"], &["eat", "-1"]] {
        let ended = ended(args);
        assert_eq!(ended.status.code(), Some(2), "{args:?}");
        assert!(String::from_utf8_lossy(&ended.stderr).starts_with("inside look"), "{ended:?}");
    }
}

#[test]
fn who_watches_says_what_happens_until_nothing_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut watcher = Running(inside(&["watch", dir.path().to_str().unwrap()]).spawn().unwrap());
    let mut lines = BufReader::new(watcher.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().as_deref(), Some("watching"));
    fs::create_dir(dir.path().join("a")).unwrap();
    fs::rename(dir.path().join("a"), dir.path().join("b")).unwrap();
    let said: Vec<_> = lines.collect();
    assert_eq!(said, ["1 CREATE ISDIR a", "1 ISDIR MOVED_FROM a", "1 ISDIR MOVED_TO b"]);
    assert!(watcher.0.wait().unwrap().success());
}
