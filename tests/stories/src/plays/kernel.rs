//! What a pod may expect of its kernel, tried in pods.

use std::fs;
use std::path::Path;

use vgpu_inside::kernel::{Container, judge};

use crate::Story;
use crate::command::must;
use crate::node::Node;
use crate::plays::vgpu;
use crate::pod::{Pod, Runtime};

/// Built by xtask from `tests/inside`.
pub const PROGRAM: &str = "/ctl/inside";
/// `ctr` looks at the host's node for its numbers; nobody opens it.
const DEVICES: [(&str, &str); 2] = [("/dev/fuse", "229"), ("/dev/net/tun", "200")];

/// The stories.
pub fn stories() -> Vec<Story> {
    vec![vgpu("guest_kernel_has_what_the_list_says", 600, guest_kernel_has_what_the_list_says)]
}

fn guest_kernel_has_what_the_list_says(_: &Node) {
    let plain = looked_at(|pod| pod);
    let made: Vec<Made> = DEVICES.iter().filter(|device| make(device)).map(|(path, _)| Made(path)).collect();
    let admin = looked_at(|pod| {
        let words = ["--cap-add", "CAP_NET_ADMIN", "--cap-add", "CAP_SYS_ADMIN"];
        let pod = words.into_iter().fold(pod, Pod::option);
        DEVICES.iter().fold(pod, |pod, (path, _)| pod.option("--device").option(path))
    });
    drop(made);

    let wrong = [judge(&plain, Container::Plain), judge(&admin, Container::Admin)];
    assert!(wrong.iter().all(Vec::is_empty), "unasked: {:#?}, with capabilities: {:#?}", wrong[0], wrong[1]);
}

/// A node that was not there before.
struct Made(&'static str);

impl Drop for Made {
    fn drop(&mut self) {
        fs::remove_file(self.0).expect("it was made here");
    }
}

/// What the program says in a pod.
fn looked_at(changed: impl Fn(Pod) -> Pod) -> String {
    let program = format!("type=bind,src={PROGRAM},dst=/inside,options=rbind:ro");
    let pod = Pod::busybox(Runtime::Vgpu, &["/inside", "kernel"]).option("--mount").option(&program);
    let ended = changed(pod).run();
    assert_eq!(ended.code, Some(0), "{}", ended.complaint());
    ended.text()
}

/// Whether it was not there.
fn make((path, minor): &(&str, &str)) -> bool {
    let there = Path::new(path).exists();
    if !there {
        must(&["mkdir", "-p", "/dev/net"]);
        must(&["mknod", path, "c", "10", minor]);
    }
    !there
}
