//! What the kernel and the runtime's walls let a process do, by doing it: each in a process of its own, since some of it cannot be undone
//! and a seccomp filter may kill who tries.
//!
//! Start at [`LIST`]: what a pod may expect of its kernel, a line a feature. [`judge`] holds what was seen against it, [`document`] is
//! `docs/guest-kernel.md`. The rule: nothing that is tried stays, and nothing of it is seen by another process.

mod document;
mod files;
mod list;
mod network;
mod nft;
mod xt;

use std::{
    collections::BTreeMap,
    env,
    fs::{self, OpenOptions},
    io,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
};

use rustix::{
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
    thread::UnshareFlags,
};
use serde_json::{Map, Value, json};

use crate::{errors, raw};

pub use document::document;
pub use list::LIST;

type Attempt = fn() -> io::Result<()>;

/// Features of one subject.
#[derive(Debug)]
pub struct Group {
    /// What they are about.
    pub title: &'static str,
    /// Each a line.
    pub features: &'static [Feature],
}

/// One line of the list.
#[derive(Debug)]
pub struct Feature {
    /// Of it alone.
    pub name: &'static str,
    /// What a pod may do with it.
    pub what: &'static str,
    /// Names of the kernel's configuration, without `CONFIG_`: built in, or off where a `!` stands before.
    pub options: &'static [&'static str],
    /// "ok", or the name of the error, in a [`Container::Plain`].
    pub plain: &'static str,
    /// The same in a [`Container::Admin`].
    pub admin: &'static str,
    /// Why not, where it is not for both.
    pub why: &'static str,
    attempt: Attempt,
}

/// Who tries. Neither has a seccomp profile, whose list is its spec's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// Root with the capabilities that containerd gives unasked.
    Plain,
    /// As that, with CAP_NET_ADMIN, CAP_SYS_ADMIN, and `/dev/fuse` and `/dev/net/tun` in its spec.
    Admin,
}

impl Feature {
    fn expected(&self, container: Container) -> &'static str {
        match container {
            Container::Plain => self.plain,
            Container::Admin => self.admin,
        }
    }
}

fn features() -> impl Iterator<Item = &'static Feature> {
    LIST.iter().flat_map(|group| group.features)
}

/// Each by its name: "ok", an error's name, or the signal that ended who tried.
pub fn seen() -> Value {
    tried().map(|(name, outcome)| (name.to_owned(), json!(outcome))).collect::<Map<_, _>>().into()
}

/// A line each: `name: yes`, `name: refused (EPERM)`, `name: no (ENOSYS)`.
pub fn lines() -> String {
    tried().map(|(name, outcome)| format!("{name}: {}\n", answer(&outcome))).collect()
}

/// Tries one of them in this process.
pub fn attempt(name: &str) -> Option<String> {
    let feature = features().find(|feature| feature.name == name)?;
    Some(errors::outcome((feature.attempt)()))
}

/// Where [`lines`] and the list differ: a sentence each.
pub fn judge(lines: &str, container: Container) -> Vec<String> {
    let mut seen: BTreeMap<&str, &str> = lines.lines().filter_map(|line| line.split_once(": ")).collect();
    let mut wrong = Vec::new();
    for feature in features() {
        let expected = answer(feature.expected(container));
        match seen.remove(feature.name) {
            Some(found) if found == expected => {}
            Some(found) => wrong.push(format!("{}: {found}, and the list says {expected}", feature.name)),
            None => wrong.push(format!("{}: not tried", feature.name)),
        }
    }
    wrong.extend(seen.into_keys().map(|name| format!("{name}: not in the list")));
    wrong
}

/// Where the kernel's configuration and the list differ: an option that is off, or on against the list.
pub fn judge_config(config: &str) -> Vec<String> {
    let is_on = |option: &str| config.lines().any(|line| line == format!("CONFIG_{option}=y"));
    let options =
        features().flat_map(|feature| feature.options.iter().map(move |option| (feature.name, *option)));
    let wrong = options.filter(|(_, option)| match option.strip_prefix('!') {
        Some(off) => is_on(off),
        None => !is_on(option),
    });
    wrong.map(|(name, option)| format!("{name}: {option}")).collect()
}

fn tried() -> impl Iterator<Item = (&'static str, String)> {
    let program = env::current_exe();
    features().map(move |feature| {
        let outcome = match &program {
            Ok(program) => tried_by(program, feature.name),
            Err(error) => format!("no program: {}", errors::name(error)),
        };
        (feature.name, outcome)
    })
}

fn tried_by(program: &Path, name: &str) -> String {
    match Command::new(program).args(["try", name]).stdin(Stdio::null()).output() {
        Ok(child) => child.status.signal().map_or_else(
            || String::from_utf8_lossy(&child.stdout).trim_end().to_owned(),
            |signal| format!("signal {signal}"),
        ),
        Err(error) => format!("no process: {}", errors::name(&error)),
    }
}

/// An error that says who asks may not, or one that says there is no such thing.
fn answer(outcome: &str) -> String {
    match outcome {
        "ok" => "yes".to_owned(),
        "EPERM" | "EACCES" => format!("refused ({outcome})"),
        other => format!("no ({other})"),
    }
}

/// What follows is tried in a network of this process's own, where it may have one: so nothing of the pod's network is touched.
/// Who may not make one tries it in the pod's.
fn network_apart() {
    let _ = raw::unshare(UnshareFlags::NEWNET);
}

fn open(path: &str) -> io::Result<()> {
    OpenOptions::new().read(true).write(true).open(path).map(drop)
}

/// A raw IPv4 socket wants a protocol: ICMP's number is 1.
fn socket(family: AddressFamily, kind: SocketType) -> io::Result<()> {
    let icmp = family == AddressFamily::INET && kind == SocketType::RAW;
    let protocol = icmp.then_some(rustix::net::ipproto::ICMP);
    socket_with(family, kind, SocketFlags::CLOEXEC, protocol)?;
    Ok(())
}

/// Whether a file's first word is one of these.
fn says(path: &str, words: &[&str]) -> io::Result<()> {
    let text = fs::read_to_string(path)?;
    let word = text.split_whitespace().next().unwrap_or_default();
    if words.contains(&word) { Ok(()) } else { Err(io::Error::other(word.to_owned())) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What a kernel that keeps to the list answers.
    fn right(container: Container) -> String {
        features().map(|f| format!("{}: {}\n", f.name, answer(f.expected(container)))).collect()
    }

    #[test]
    fn each_has_a_name_of_its_own_and_a_reason_where_it_is_not_for_all() {
        let mut names = BTreeSet::new();
        for feature in features() {
            assert!(names.insert(feature.name), "{}: twice", feature.name);
            assert!(!feature.what.is_empty(), "{}", feature.name);
            let for_all = feature.plain == "ok" && feature.admin == "ok";
            assert_eq!(for_all, feature.why.is_empty(), "{}: {}", feature.name, feature.why);
        }
        assert!(names.len() > 50);
    }

    #[test]
    fn what_every_process_may_do_is_done_and_what_is_unknown_is_not() {
        assert_eq!(attempt("memfd").as_deref(), Some("ok"));
        assert_eq!(attempt("pidfd").as_deref(), Some("ok"));
        assert_eq!(attempt("random").as_deref(), Some("ok"));
        assert_eq!(attempt("sockets_inet").as_deref(), Some("ok"));
        assert_eq!(attempt("nothing"), None);
    }

    #[test]
    fn whatever_differs_from_the_list_is_told() {
        for container in [Container::Plain, Container::Admin] {
            let right = right(container);
            assert_eq!(judge(&right, container), [""; 0]);
            for feature in features() {
                let line = format!("{}: {}", feature.name, answer(feature.expected(container)));
                let without: String =
                    right.lines().filter(|one| *one != line).map(|one| format!("{one}\n")).collect();
                let other = if feature.expected(container) == "ok" { "no (ENOSYS)" } else { "yes" };
                let changed = format!("{without}{}: {other}\n", feature.name);
                assert_eq!(judge(&changed, container).len(), 1, "{}", feature.name);
                assert_eq!(judge(&without, container), [format!("{}: not tried", feature.name)]);
            }
            assert_eq!(judge(&format!("{right}more: yes\n"), container), ["more: not in the list"]);
        }
        assert!(judge("", Container::Plain).len() > 50);
    }

    #[test]
    fn an_option_that_is_not_as_the_list_says_is_told() {
        let options: BTreeSet<&str> = features().flat_map(|feature| feature.options).copied().collect();
        let on = options.iter().filter(|option| !option.starts_with('!'));
        let config: String = on.map(|option| format!("CONFIG_{option}=y\n")).collect();
        assert_eq!(judge_config(&config), [""; 0]);
        for option in options {
            let changed = match option.strip_prefix('!') {
                Some(off) => format!("{config}CONFIG_{off}=y\n"),
                None => config
                    .replace(&format!("CONFIG_{option}=y\n"), &format!("# CONFIG_{option} is not set\n")),
            };
            assert!(judge_config(&changed).iter().any(|wrong| wrong.ends_with(option)), "{option}");
        }
    }
}
