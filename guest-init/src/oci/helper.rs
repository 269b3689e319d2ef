//! The other side of [`super::run`]: one request to `libcontainer`, one answer, end.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use libcontainer::{
    container::{Container, builder::ContainerBuilder},
    error::LibcontainerError,
    syscall::syscall::SyscallType,
};

use super::{
    Answer, Request,
    command::{self, ContainerCommand},
    pid_file,
};

/// Serves `guest-init oci REQUEST ANSWER_FILE`. Gives the process's exit code.
pub fn main(request: &str, answer_file: &Path) -> u8 {
    let answer = match serde_json::from_str(request) {
        Ok(request) => serve(request, &pid_file(answer_file)),
        Err(error) => Answer::Failed(format!("bad request: {error}")),
    };
    let done = matches!(answer, Answer::Done);
    // Whole or not at all: a half-written answer is no answer for the reader.
    match serde_json::to_vec(&answer).map(|bytes| fs::write(answer_file, bytes)) {
        Ok(Ok(())) if done => 0,
        _ => 1,
    }
}

fn serve(request: Request, pid_file: &Path) -> Answer {
    let outcome = match request {
        Request::Create { id, bundle, state, console, seccomp } => {
            builder(id, &state, console, seccomp, pid_file).and_then(|builder| create(builder, &bundle))
        }
        Request::Start { id, state } => {
            Container::load(state.join(id)).and_then(|mut container| container.start())
        }
        Request::Exec { id, state, process, console, seccomp } => {
            builder(id, &state, console, seccomp, pid_file).and_then(|builder| exec(builder, &process))
        }
    };
    match outcome {
        Ok(()) => Answer::Done,
        Err(error) => refusal(&error),
    }
}

fn create(builder: ContainerBuilder, bundle: &Path) -> Result<(), LibcontainerError> {
    builder
        .as_init(bundle)
        .with_systemd(false)
        .with_detach(true)
        // The init process becomes PID 1's child at once, not only when this helper ends.
        .as_sibling(true)
        .build()
        .map(drop)
}

fn exec(builder: ContainerBuilder, process: &Path) -> Result<(), LibcontainerError> {
    builder.as_tenant().with_process(Some(process)).with_detach(true).as_sibling(true).build().map(drop)
}

fn builder(
    id: String,
    state: &Path,
    console: Option<PathBuf>,
    seccomp: Option<PathBuf>,
    pid_file: &Path,
) -> Result<ContainerBuilder, LibcontainerError> {
    let profile = |file: PathBuf| {
        let json = fs::read(&file).map_err(LibcontainerError::OtherIO)?;
        serde_json::from_slice(&json).map_err(|error| LibcontainerError::Other(error.to_string()))
    };
    ContainerBuilder::new(id, SyscallType::default())
        .with_executor(ContainerCommand { seccomp: seccomp.map(profile).transpose()? })
        .with_root_path(state)?
        .with_pid_file(Some(pid_file))?
        .with_console_socket(console)
        .validate_id()
}

/// The error with its causes, each once. The library passes errors between its processes as text, so our own executor marks its
/// refusals with a code.
fn refusal(error: &LibcontainerError) -> Answer {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let part = next.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = next.source();
    }
    let text = text.replace('\0', "");
    match text.split_once(command::MISSING) {
        Some((_, what)) => Answer::CommandMissing(what.trim_matches(|c| c == '"' || c == ' ').to_owned()),
        None => Answer::Failed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_is_missing_is_told_apart_by_its_mark() {
        let library =
            LibcontainerError::Other(format!("exec failed with {}no such file: /x", command::MISSING));
        assert!(matches!(refusal(&library), Answer::CommandMissing(text) if text == "no such file: /x"));
        let other = LibcontainerError::Other("no space".into());
        assert!(matches!(refusal(&other), Answer::Failed(text) if text == "no space"));
    }
}
