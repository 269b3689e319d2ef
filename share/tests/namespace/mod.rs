//! Stories with mounts of their own.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

const INSIDE: &str = "VGPU_SHARE_MOUNTS";
const UNSHARE: [&str; 3] = ["--mount", "--propagation", "private"];

/// Plays `story` in a namespace: this program again, with this test alone.
pub fn play(test: &str, story: fn()) {
    if env::var_os(INSIDE).is_some() {
        return story();
    }
    if !Command::new("unshare").args(UNSHARE).arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("NOT TRIED: {test}: no mount namespace can be made here");
        return;
    }
    let mut again = Command::new("unshare");
    again.args(UNSHARE).arg(env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]);
    let ended = again.env(INSIDE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(
        ended.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&ended.stderr)
    );
}

pub fn mount(arguments: &[&str], place: &Path) {
    fs::create_dir_all(place).unwrap();
    assert!(Command::new("mount").args(arguments).arg(place).status().unwrap().success());
}
