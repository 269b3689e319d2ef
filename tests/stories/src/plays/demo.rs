//! The demonstration of the README, as `cargo xtask demo` plays it.

use std::time::Duration;

use crate::Story;
use crate::command::run;
use crate::plays::vgpu;

/// Put there by xtask.
const SCRIPT: &str = "/ctl/demo.sh";

/// The stories.
pub fn stories() -> Vec<Story> {
    vec![vgpu("demo_shows_what_the_readme_says", 600, |_| {
        let ended = run(&["sh", SCRIPT], Duration::from_secs(500));
        let said = ended.text();
        assert_eq!(ended.code, Some(0), "{said}{}", ended.complaint());
        for line in [
            "=== what pod red says",
            "=== what pod blue says",
            "vector_add: ok, 65536 sums as the CPU's",
            "exit code of ctr run for red: 137",
            "exit code of ctr run for blue: 7",
            "none",
        ] {
            assert!(said.lines().any(|said| said == line), "no line '{line}' in: {said}");
        }
        let inside =
            |line: &&str| line.starts_with("hypervisor: xen, kernel: ") && line.ends_with("-vgpu, pid 1: sh");
        assert_eq!(said.lines().filter(inside).count(), 2, "a line a pod, of its kernel and PID 1: {said}");
    })]
}
