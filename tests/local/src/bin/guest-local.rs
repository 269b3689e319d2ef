//! A domain of this machine: its "kernel", its PID 1, and, as in a guest, PID 1's own helper.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use vgpu_local::{
    Node,
    guest::{self, AnyError},
};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let args: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    if let Err(error) = vgpu_local::limits::drop_for(&args) {
        eprintln!("guest-local: {error}");
        return ExitCode::FAILURE;
    }
    if let Some(code) = guest_init::oci::serve(&args) {
        return code.into();
    }
    let error = match args[..] {
        ["start", dir, domid] => with_domid(domid, |domid| guest::start(&Node::at(dir), domid)),
        ["init", dir, domid] => with_domid(domid, |domid| guest::init(&Node::at(dir), domid)),
        _ => "guest-local is started by containerd-shim-vgpulocal-v1".into(),
    };
    eprintln!("guest-local: {error}");
    ExitCode::FAILURE
}

fn with_domid(text: &str, live: impl FnOnce(u16) -> AnyError) -> AnyError {
    text.parse().map_or_else(AnyError::from, live)
}
