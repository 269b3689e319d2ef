//! Finds and executes a container's program, inside the container, as the container's user.
//!
//! The library's own way refuses a program that only its owner may execute, needs PATH for absolute names, and leaves SIGPIPE ignored.

use std::{
    env, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{self, Command},
};

use libcontainer::{
    oci_spec::runtime::{LinuxSeccomp, Spec},
    workload::{Executor, ExecutorError, ExecutorValidationError},
};
use rustix::fs::Access;

use super::seccomp;

/// Marks our refusal in the library's error texts.
pub const MISSING: &str = "VGPU-209: ";

/// What a program without PATH is looked up in: runc's and containerd's default.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The exit statuses of a shell: found but not executable, not found.
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// Executes `process.args`.
#[derive(Clone, Debug)]
pub struct ContainerCommand {
    /// What the program, and what it executes, may ask the kernel for.
    pub seccomp: Option<LinuxSeccomp>,
}

impl Executor for ContainerCommand {
    /// Runs in the container's namespaces before `create` answers: this is where a missing command is found.
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let path = search_path(spec);
        match args(spec).first() {
            Some(name) => resolve(name, &path)
                .map(drop)
                .map_err(|why| ExecutorValidationError::ArgValidationError(format!("{MISSING}{why}"))),
            None => {
                Err(ExecutorValidationError::ArgValidationError(format!("{MISSING}process.args is empty")))
            }
        }
    }

    /// Only returns by ending the process: `create` has answered, nobody but the container's own stderr hears of a failure now.
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let args = args(spec);
        let Some((name, rest)) = args.split_first() else { return Err(ExecutorError::InvalidArg) };
        let error = match resolve(name, &search_path(spec)) {
            Ok(program) => {
                let mut command = Command::new(program);
                command.arg0(name).args(rest);
                match self.seccomp.as_ref().map_or(Ok(()), seccomp::apply) {
                    // std resets the signal mask and SIGPIPE, which our runtime ignores.
                    Ok(()) => command.exec(),
                    Err(error) => error,
                }
            }
            Err(_) => io::Error::from_raw_os_error(libc::ENOENT),
        };
        eprintln!("exec {name}: {error}");
        process::exit(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE })
    }
}

fn args(spec: &Spec) -> &[String] {
    spec.process().as_ref().and_then(|process| process.args().as_deref()).unwrap_or_default()
}

fn search_path(spec: &Spec) -> String {
    let entries = spec.process().as_ref().and_then(|process| process.env().as_deref()).unwrap_or_default();
    // The last one counts, as in the environment that is made of them.
    let set = entries.iter().rev().find_map(|entry| entry.strip_prefix("PATH="));
    set.unwrap_or(DEFAULT_PATH).to_owned()
}

/// The file that `name` means: itself if it has a slash, else the first executable one in `search_path` (POSIX, execvp).
fn resolve(name: &str, search_path: &str) -> Result<PathBuf, String> {
    if name.contains('/') {
        let path = PathBuf::from(name);
        return executable(&path).map(|()| path).map_err(|error| format!("exec: \"{name}\": {error}"));
    }
    let mut refused = None;
    for directory in env::split_paths(search_path) {
        let path = directory.join(name);
        match executable(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => refused = Some(error),
            Err(_) => {}
        }
    }
    Err(match refused {
        Some(error) => format!("exec: \"{name}\": {error}"),
        None => format!("exec: \"{name}\": executable file not found in $PATH"),
    })
}

/// Whether this process may execute the file.
fn executable(path: &Path) -> io::Result<()> {
    if path.metadata()?.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    Ok(rustix::fs::access(path, Access::EXEC_OK)?)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_name_is_found_as_a_shell_finds_it() {
        let root = tempfile::tempdir().unwrap();
        let (first, second) = (root.path().join("a"), root.path().join("b"));
        for (directory, mode) in [(&first, 0o644), (&second, 0o700)] {
            fs::create_dir(directory).unwrap();
            fs::write(directory.join("tool"), "#!/bin/sh").unwrap();
            fs::set_permissions(directory.join("tool"), fs::Permissions::from_mode(mode)).unwrap();
        }
        let path = format!("{}:{}", first.display(), second.display());

        assert_eq!(
            resolve("tool", &path).unwrap(),
            second.join("tool"),
            "only its owner may execute it: root is"
        );
        assert!(resolve("tool", &first.to_string_lossy()).unwrap_err().contains("ermission denied"));
        assert!(resolve("nothing", &path).unwrap_err().contains("not found in $PATH"));
        assert!(resolve("/no/such/tool", &path).unwrap_err().contains("No such file"));
        assert!(resolve(&root.path().to_string_lossy(), &path).unwrap_err().contains("directory"));
    }
}
