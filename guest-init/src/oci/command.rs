//! Finds and executes a container's program, inside the container, as the container's user.
//!
//! The library's own way refuses a program that only its owner may execute, needs PATH for absolute names, leaves SIGPIPE ignored, and gives
//! the environment in no order.

use std::{
    collections::BTreeMap,
    env,
    ffi::{CString, OsStr, OsString},
    fs::File,
    io,
    os::{fd::BorrowedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    process,
};

use libcontainer::{
    oci_spec::runtime::{LinuxSeccomp, Spec},
    workload::{Executor, ExecutorError, ExecutorValidationError},
};
use rustix::{
    fs::{Access, OFlags, fcntl_getfl},
    stdio::{dup2_stderr, dup2_stdout, stderr, stdout},
};

use super::{pause, seccomp};
use crate::sys;

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
        if pause::is_asked(spec) {
            return Ok(());
        }
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
        if pause::is_asked(spec) {
            pause::run()
        }
        let args = args(spec);
        let Some(name) = args.first() else { return Err(ExecutorError::InvalidArg) };
        let error = match resolve(name, &search_path(spec)) {
            Ok(program) => {
                self.execute(&program, args, &in_order(variables(spec), with_home(env::vars_os().collect())))
            }
            Err(_) => io::Error::from_raw_os_error(libc::ENOENT),
        };
        eprintln!("exec {name}: {error}");
        process::exit(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE })
    }
}

impl ContainerCommand {
    /// Only returns if it cannot.
    fn execute(&self, program: &Path, args: &[String], environment: &[(OsString, OsString)]) -> io::Error {
        let text = |bytes: Vec<u8>| CString::new(bytes).map_err(io::Error::from);
        let variable = |(name, value): &(OsString, OsString)| [name.as_bytes(), value.as_bytes()].join(&b'=');
        let texts = || {
            let program = text(program.as_os_str().as_bytes().to_vec())?;
            let args: io::Result<Vec<_>> = args.iter().map(|arg| text(arg.clone().into_bytes())).collect();
            let environment: io::Result<Vec<_>> = environment.iter().map(|one| text(variable(one))).collect();
            Ok((program, args?, environment?))
        };
        let ready = open_outputs()
            .and_then(|()| texts())
            .and_then(|texts| self.seccomp.as_ref().map_or(Ok(()), seccomp::apply).map(|()| texts));
        match ready {
            Ok((program, args, environment)) => sys::execute(&program, &args, &environment),
            Err(error) => error,
        }
    }
}

/// A stream that leads nowhere is the container's own /dev/null, which the library has opened for reading alone: its program's first word would
/// be an error.
fn open_outputs() -> io::Result<()> {
    let shut =
        |stream: BorrowedFd| Ok::<_, io::Error>(fcntl_getfl(stream)? & OFlags::ACCMODE == OFlags::RDONLY);
    let null = || File::options().read(true).write(true).open("/dev/null");
    if shut(stdout())? {
        dup2_stdout(null()?)?;
    }
    if shut(stderr())? {
        dup2_stderr(null()?)?;
    }
    Ok(())
}

/// The library adds the home of a user that the image has. runc's answer for the others is the root.
fn with_home(mut set: BTreeMap<OsString, OsString>) -> BTreeMap<OsString, OsString> {
    let home = set.entry("HOME".into()).or_default();
    if home.is_empty() {
        *home = "/".into();
    }
    set
}

/// The variables that the library has set, in the spec's order. What it has added, HOME, comes last, as with runc.
fn in_order(spec: &[String], mut set: BTreeMap<OsString, OsString>) -> Vec<(OsString, OsString)> {
    let names = spec.iter().map(|entry| entry.split_once('=').map_or(entry.as_str(), |(name, _)| name));
    let mut ordered: Vec<_> = names.filter_map(|name| set.remove_entry(OsStr::new(name))).collect();
    ordered.extend(set);
    ordered
}

fn variables(spec: &Spec) -> &[String] {
    spec.process().as_ref().and_then(|process| process.env().as_deref()).unwrap_or_default()
}

fn args(spec: &Spec) -> &[String] {
    spec.process().as_ref().and_then(|process| process.args().as_deref()).unwrap_or_default()
}

fn search_path(spec: &Spec) -> String {
    // The last one counts, as in the environment that is made of them.
    let set = variables(spec).iter().rev().find_map(|entry| entry.strip_prefix("PATH="));
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
    fn variables_keep_the_specs_order_and_what_was_added_comes_last() {
        let spec = ["PATH=/bin", "Z=1", "A=first", "EMPTY=", "A=a=b", "NONE"].map(String::from);
        let set =
            [("A", "a=b"), ("EMPTY", ""), ("HOME", "/root"), ("NONE", ""), ("PATH", "/bin"), ("Z", "1")];
        let pair = |(name, value): (&str, &str)| (OsString::from(name), OsString::from(value));
        let ordered = in_order(&spec, set.map(pair).into());
        let names: Vec<_> = ordered.iter().map(|(name, _)| name.to_str().unwrap()).collect();
        assert_eq!(names, ["PATH", "Z", "A", "EMPTY", "NONE", "HOME"]);
        assert_eq!(ordered[2].1, "a=b", "its value is the last one's");
    }

    #[test]
    fn nobody_is_without_a_home() {
        let home = |set: &[(&str, &str)]| {
            let set = set.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
            with_home(set).remove(OsStr::new("HOME")).unwrap()
        };
        assert_eq!([home(&[]), home(&[("HOME", "")]), home(&[("HOME", "/x")])], ["/", "/", "/x"]);
    }

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
