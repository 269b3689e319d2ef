//! PID 1 of the guest, and its own helper: `guest-init oci REQUEST ANSWER_FILE`.

use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "oci", request, answer] => guest_init::oci::helper::main(request, Path::new(answer)).into(),
        _ => {
            eprintln!("guest-init is PID 1 of a vgpu guest; there is nothing to run here");
            ExitCode::from(2)
        }
    }
}
