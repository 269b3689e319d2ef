//! What the program sees in runc's containers is what their specs asked for: so the judge knows what a complete runtime gives.
//!
//! runc and its libraries are those of the testbed's Dom0, in a root of their own, so this machine's C library does not matter.

use std::{fs, path::Path};

use serde_json::Value;
use vgpu_inside::{
    judge::differences,
    look::{Wanted, document},
    part::{can_be_tried, given},
    rooted, specs,
};

/// The document of a container of runc.
fn seen_in(work: &Path, name: &str, spec: &Value) -> Value {
    specs::bundle(&work.join(name), &given("VGPU_INSIDE"), spec).expect("a bundle");
    let bundle = Path::new(rooted::WORK).join(name);
    let id = format!("vgpu-inside-{name}-{}", std::process::id());
    let mut runc = rooted::command(&given("VGPU_RUNC"), work, &bundle);
    let ended = runc.args(["/usr/sbin/runc", "run", &id]).output().expect("util-linux's unshare runs");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && said.is_empty(), "{name}: {}, {said}", ended.status);
    serde_json::from_slice(&ended.stdout).expect("a document")
}

/// Of all containers whose names are such.
fn assert_asked_is_seen(chosen: impl Fn(&str) -> bool) {
    let work = tempfile::tempdir().expect("a directory");
    let outside = document(&Wanted::default())["namespaces"].take();
    let specs: Vec<_> = specs::all().into_iter().filter(|(name, _)| chosen(name)).collect();
    assert!(!specs.is_empty());
    for (name, spec) in specs {
        let document = seen_in(work.path(), name, &spec);
        let found = differences(&spec, &document, &outside);
        assert!(found.is_empty(), "{name}: {found:#?} in {document:#}");
    }
}

#[test]
#[ignore = "played by part contract with VGPU_INSIDE, the program, and VGPU_RUNC, a root with runc"]
fn says_what_runc_gives() {
    if can_be_tried(file!()) {
        assert_asked_is_seen(|name| name != "limited");
    }
}

#[test]
#[ignore = "played by part contract with VGPU_INSIDE, the program, and VGPU_RUNC, a root with runc"]
fn says_which_limits_runc_gives() {
    let own = document(&Wanted::default());
    let has = |controller: &str| {
        let available = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
        own["cgroup"]["membership"][controller].is_string()
            || available.split_whitespace().any(|one| one == controller)
    };
    if !has("memory") || !has("pids") {
        eprintln!("NOT TRIED: {}: no cgroup here has the controllers of memory and pids", file!());
    } else if can_be_tried(file!()) {
        assert_asked_is_seen(|name| name == "limited");
    }
}
