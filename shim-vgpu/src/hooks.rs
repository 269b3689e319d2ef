//! Runs hooks: programs of the node, as root on it, with the container's state as JSON on their standard input.
//!
//! Who names them is who writes specs for this node (containerd's `base_runtime_spec`, NRI, CDI, nerdctl), never an image or a manifest.
//! Start at [`run_all`]. A hook has a time: its own, or 120 s, since nothing may keep containerd for ever; then it is killed, with what it has
//! started. One that runs is noted on disk: when its shim is killed, who cleans up ends it ([`end_orphan`]), but for one of the container's
//! end, which has its work to do ([`run_last`]). Which there are is `spec/hooks.rs`, what is on disk of them `persist/hooks.rs`.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::MemfdFlags,
    io::Errno,
    process::{Pid, PidfdFlags, Signal},
};
use serde_json::{Map, Value};
use vgpu_codes::Code;

use crate::{
    error::{Error, OrFail, Result},
    persist::{
        hooks::{HookNotes, Left, Running, Turn},
        random_uuid,
    },
    process,
    share::Process,
    spec::hooks::{Hook, Hooks, Kind},
};

/// For one that names no time, as long as a guest has to make a container. And for each of an earlier container's end while a Create of its id
/// waits, whatever time it names: containerd has given that Create up by then.
pub const LIMIT: Duration = Duration::from_secs(120);
/// No other limit than what each names.
pub const OWN_TIME: Duration = Duration::MAX;
/// For who else has the hooks of a container of the same id run that was there before: nobody should, the id was free.
pub const TURN_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks whether somebody has given up waiting for it.
const LOOK: Duration = Duration::from_millis(50);
/// At a time, so that one that speaks without end has one nevertheless.
const READS_MAX: u32 = 64;
/// Of what it has said, the end.
const WORDS_BYTES_MAX: usize = 1024;

/// Runs those of a kind, one after the other. `pid` is the task's, `given_up` is asked now and then. Blocks.
///
/// # Errors
/// [`Code::HookFailed`] of the first one that fails, has not ended in its time, or was given up.
pub fn run_all(
    notes: &HookNotes,
    hooks: &Hooks,
    kind: Kind,
    pid: u32,
    given_up: impl Fn() -> bool,
) -> Result<()> {
    if hooks.of(kind).is_empty() {
        return Ok(());
    }
    let gone = || Error::new(Code::HostFailure, "somebody has removed where the container's hooks are noted");
    let turn = notes.turn(TURN_LIMIT)?.ok_or_else(gone)?;
    let mut state = hooks.state.clone();
    state.insert("pid".into(), pid.into());
    hooks
        .of(kind)
        .iter()
        .try_for_each(|hook| run(&turn, hook, kind, state.clone(), limit_of(hook), &given_up))
}

/// Runs those of the end of a container of which nothing is left: there is no pid any more, and what one fails at is told
/// to the log. Each is begun once, whoever comes here and whatever becomes of us, and has its own time but no more than `hook_limit`, also one
/// that its shim has left. Whether there was anything to do; `given_up` is asked when its turn has come, and nothing is begun then. Blocks.
///
/// # Errors
/// One cannot be taken out, and so is not begun, or somebody else is at them for longer than `turn_limit`.
pub fn run_last(
    notes: &HookNotes,
    turn_limit: Duration,
    hook_limit: Duration,
    given_up: impl Fn() -> bool,
) -> Result<bool> {
    let Some(turn) = notes.turn(turn_limit)? else { return Ok(false) };
    if given_up() {
        return Ok(false);
    }
    if let Some((orphan, process)) = turn.running() {
        let what = || format!("cannot wait for the hook that runs as process {}", process.pid);
        let limit = orphan.time_left(&process).min(hook_limit);
        if !process.ends_within(limit).or_fail(Code::HostFailure, what)? {
            let (pid, limit_s) = (process.pid, orphan.limit_s.min(hook_limit.as_secs()));
            log::warn!("the hook that runs as process {pid} has not ended within {limit_s} s: it is killed");
            process.kill_group().or_fail(Code::HostFailure, what)?;
        }
    }
    while let Some(Left { hook, state }) = turn.take()? {
        let limit = limit_of(&hook).min(hook_limit);
        if let Err(error) = run(&turn, &hook, Kind::Poststop, state, limit, || false) {
            log::warn!("{}", error.report());
        }
    }
    turn.end()?;
    Ok(true)
}

/// Ends a hook that its shim has left, with what it has started: it works on what is about to be taken away.
///
/// # Errors
/// [`Code::HostFailure`] if it runs on.
pub fn end_orphan(notes: &HookNotes) -> Result<()> {
    match notes.orphan()? {
        Some((orphan, process)) if orphan.kind != Kind::Poststop => {
            let what = || format!("cannot end the hook that runs as process {}", process.pid);
            process.kill_group().or_fail(Code::HostFailure, what)
        }
        _ => Ok(()),
    }
}

fn limit_of(hook: &Hook) -> Duration {
    hook.timeout.map_or(LIMIT, |seconds| Duration::from_secs(seconds.get()))
}

fn run(
    turn: &Turn<'_>,
    hook: &Hook,
    kind: Kind,
    mut state: Map<String, Value>,
    limit: Duration,
    given_up: impl Fn() -> bool,
) -> Result<()> {
    let what = || format!("the {} hook {} has failed", kind.name(), hook.path.display());
    state.insert("status".into(), kind.status().into());
    let bundle = state.get("bundle").and_then(Value::as_str).unwrap_or_default().to_owned();
    // For who comes after us, if we are killed: first by its input, since nobody knows its id before it runs.
    let mut running = Running { kind, process: None, input: random_uuid()?, limit_s: limit.as_secs() };
    turn.note(&running).or_fail(Code::HostFailure, what)?;
    let begun = begin(hook, Path::new(&bundle), input(&running.input_name(), &Value::from(state)));
    let (mut child, mut words) = begun.or_fail(Code::HookFailed, what)?;
    running.process = Some(process_of(&child));
    let failed = |why: String| Err(Error::caused(Code::HookFailed, what(), why));
    match turn.note(&running).and_then(|()| ends_within(&child, &mut words, limit, given_up)) {
        Ok(None) => {
            let status = child.wait().or_fail(Code::HookFailed, what)?;
            if status.success() { Ok(()) } else { failed(format!("{status}{}", words.said())) }
        }
        Ok(Some(why)) => {
            kill(child);
            failed(format!("{why}{}", words.said()))
        }
        Err(error) => {
            kill(child);
            Err(error).or_fail(Code::HookFailed, what)
        }
    }
}

/// One that has ended already is known by its id alone, which is nobody's.
fn process_of(child: &Child) -> Process {
    Process::of(child.id()).unwrap_or(Process { pid: child.id().cast_signed(), start_ticks: 0 })
}

fn begin(hook: &Hook, bundle: &Path, input: io::Result<Stdio>) -> io::Result<(Child, Words)> {
    let (reader, writer) = io::pipe()?;
    let words = Words::of(reader)?;
    let mut command = Command::new(&hook.path);
    if let Some((name, args)) = hook.args.split_first() {
        command.arg0(name).args(args);
    }
    if let Some(env) = &hook.env {
        // What has no value is no variable.
        command.env_clear().envs(env.iter().filter_map(|variable| variable.split_once('=')));
    }
    // containerd may have removed it: then this is after its end.
    command.current_dir(if bundle.is_dir() { bundle } else { Path::new("/") });
    command.stdin(input?).stdout(writer.try_clone()?).stderr(writer).process_group(0);
    // The command's own ends are closed with it.
    Ok((command.spawn()?, words))
}

/// A file, not a pipe: nobody has to wait for one that does not read it.
fn input(name: &str, state: &Value) -> io::Result<Stdio> {
    let mut file = File::from(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?);
    file.write_all(state.to_string().as_bytes())?;
    file.rewind()?;
    Ok(file.into())
}

/// Hears it until its end. Why it was not waited for any longer; none: it has ended.
fn ends_within(
    child: &Child,
    words: &mut Words,
    limit: Duration,
    given_up: impl Fn() -> bool,
) -> io::Result<Option<String>> {
    let begun = Instant::now();
    // Not reaped yet, so the id is its own.
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    let held = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    let look = Timespec::try_from(LOOK.min(limit)).map_err(io::Error::other)?;
    loop {
        if words.poll_with(&held, &look)? {
            return Ok(None);
        }
        if given_up() {
            return Ok(Some("the container was deleted or has ended meanwhile".into()));
        }
        if begun.elapsed() >= limit {
            return Ok(Some(format!("it has not ended within {} s", limit.as_secs())));
        }
    }
}

/// What it has started goes with it. It was not waited for yet, so the group is its own.
fn kill(child: Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // An error means that it is gone.
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
    process::kill_child("hook", child);
}

/// The end of what a hook says, read so that it never waits for a reader. What it leaves behind has none.
struct Words {
    pipe: Option<io::PipeReader>,
    last: VecDeque<u8>,
}

impl Words {
    fn of(pipe: io::PipeReader) -> io::Result<Words> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok(Words { pipe: Some(pipe), last: VecDeque::new() })
    }

    /// Waits for words or for the end of a process, and keeps the words. Whether it has ended.
    fn poll_with(&mut self, process: &OwnedFd, limit: &Timespec) -> io::Result<bool> {
        let mut polled = vec![PollFd::new(process, PollFlags::IN)];
        polled.extend(self.pipe.iter().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        match poll(&mut polled, Some(limit)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let has_ended = polled[0].revents().contains(PollFlags::IN);
        let mut bytes = [0; 4096];
        for _ in 0..READS_MAX {
            let Some(pipe) = &mut self.pipe else { break };
            match pipe.read(&mut bytes) {
                Ok(0) => self.pipe = None,
                Ok(count) => self.last.extend(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            let more = self.last.len().saturating_sub(WORDS_BYTES_MAX);
            self.last.drain(..more);
        }
        Ok(has_ended)
    }

    /// ": " and the words, on one line; nothing if there are none.
    fn said(self) -> String {
        let bytes: Vec<u8> = self.last.into();
        let text: String = String::from_utf8_lossy(&bytes)
            .trim()
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        if text.is_empty() { text } else { format!(": {text}") }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{persist::Store, spec::tests::spec};

    /// A shell's, in a bundle.
    fn hook(script: &str, timeout: u64) -> Hook {
        let args = ["sh", "-c", script].map(String::from).to_vec();
        serde_json::from_value(json!({"path": "/bin/sh", "args": args, "timeout": timeout})).unwrap()
    }

    /// Where those of a container `a` are noted, with one of the end that notes its run.
    fn notes(dir: &tempfile::TempDir) -> HookNotes {
        let notes = Store::at(dir.path().join("life")).hooks_of("a");
        let spec = spec(|spec| spec["hooks"] = json!({"poststop": [hook("echo hook >> ended", 60)]}));
        notes.make(&spec.hooks("a", dir.path().to_str().unwrap()).unwrap()).unwrap();
        notes
    }

    fn state(dir: &tempfile::TempDir) -> Map<String, Value> {
        Map::from_iter([("id".into(), "a".into()), ("bundle".into(), dir.path().to_str().unwrap().into())])
    }

    /// Whatever else this machine does.
    fn until(what: &str, is_so: impl Fn() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < Duration::from_secs(60), "it is not so after 60 s: {what}");
            std::thread::sleep(LOOK);
        }
    }

    #[test]
    fn a_hook_has_the_state_its_arguments_and_its_environment() {
        let dir = tempfile::tempdir().unwrap();
        let notes = notes(&dir);
        let turn = notes.turn(LIMIT).unwrap().unwrap();
        let run_in = |hook: &Hook| {
            run(&turn, hook, Kind::CreateRuntime, state(&dir), limit_of(hook), || false).unwrap();
        };
        let mut with = hook("cat > state; echo $0 $1 $WORD $HOME > words", 60);
        with.args.extend(["zero".into(), "one".into()]);
        with.env = Some(["WORD=a=b", "PATH=/usr/bin:/bin", "nothing"].map(String::from).to_vec());
        run_in(&with);
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let told: Value = serde_json::from_str(&read("state")).unwrap();
        assert_eq!(told, json!({"id": "a", "bundle": dir.path().to_str().unwrap(), "status": "creating"}));
        assert_eq!(read("words"), "zero one a=b\n");
        // More than a pipe holds, in and out, and neither is read.
        let mut much = state(&dir);
        much.insert("annotations".into(), json!({"of.mine/key": "x".repeat(1 << 20)}));
        run(&turn, &hook("head -c 1000000 /dev/zero", 60), Kind::Prestart, much, LIMIT, || false).unwrap();
        // What it leaves behind keeps nobody.
        let begun = Instant::now();
        run_in(&hook("sleep 120 &", 120));
        assert!(begun.elapsed() < Duration::from_secs(100));
    }

    #[test]
    fn one_that_fails_says_why_and_one_that_hangs_ends_with_what_it_has_started() {
        let dir = tempfile::tempdir().unwrap();
        let notes = notes(&dir);
        let turn = notes.turn(LIMIT).unwrap().unwrap();
        let fails = |hook: &Hook, given_up: bool| {
            let begun = Instant::now();
            let error =
                run(&turn, hook, Kind::Poststart, state(&dir), limit_of(hook), || given_up).unwrap_err();
            assert!(
                begun.elapsed() < Duration::from_secs(60) && error.code() == Some(Code::HookFailed),
                "{error}"
            );
            error.report()
        };
        let start = "VGPU-107: the poststart hook /bin/sh has failed: ";
        let said = fails(&hook("echo 'why\nnot' >&2; exit 3", 60), false);
        assert!(said.starts_with(&format!("{start}exit status: 3: why not. ")), "{said}");
        let said = fails(&hook("head -c 100000 /dev/zero | tr '\\0' x; exit 1", 60), false);
        assert!(said.len() < 2 * WORDS_BYTES_MAX, "{}", said.len());
        let missing = Hook { path: dir.path().join("none"), ..hook("true", 60) };
        assert!(fails(&missing, false).contains("No such file"));

        // Long enough to begin what it does, whatever else this machine does.
        let said = fails(&hook("sleep 1000 & echo $! > pid; echo waits; wait", 20), false);
        assert!(said.starts_with(&format!("{start}it has not ended within 20 s: waits. ")), "{said}");
        let pid: u32 = std::fs::read_to_string(dir.path().join("pid")).unwrap().trim().parse().unwrap();
        until("what it has started has ended", || Process::of(pid).is_none());
        let said = fails(&hook("sleep 1000", 1000), true);
        assert!(
            said.starts_with(&format!("{start}the container was deleted or has ended meanwhile")),
            "{said}"
        );
    }

    /// As its shim has left it that was killed: it is noted, by its process or not yet, and nobody has the turn.
    fn orphan(
        dir: &tempfile::TempDir,
        notes: &HookNotes,
        (kind, by_process): (Kind, bool),
        script: &str,
        limit_s: u64,
    ) -> Child {
        let mut running = Running { kind, process: None, input: random_uuid().unwrap(), limit_s };
        let (child, _) =
            begin(&hook(script, 1), dir.path(), input(&running.input_name(), &json!({}))).unwrap();
        let process = process_of(&child);
        running.process = by_process.then_some(process);
        let turn = notes.turn(LIMIT).unwrap().unwrap();
        turn.note(&running).unwrap();
        end_orphan(notes).unwrap();
        assert!(process.is_alive(), "while somebody has the turn it is no orphan");
        child
    }

    #[test]
    fn a_hook_that_has_lost_its_shim_is_ended_with_what_it_has_started() {
        for kind in [(Kind::Prestart, true), (Kind::CreateRuntime, false), (Kind::Poststart, true)] {
            let dir = tempfile::tempdir().unwrap();
            let notes = notes(&dir);
            let mut child = orphan(&dir, &notes, kind, "sleep 1000 & echo $! > pid; wait", 1000);
            let started = || std::fs::read_to_string(dir.path().join("pid")).ok()?.trim().parse::<u32>().ok();
            until("it has begun", || started().is_some());
            end_orphan(&notes).unwrap();
            assert_eq!(child.wait().unwrap().code(), None, "{kind:?}");
            until("what it has started has ended", || started().and_then(Process::of).is_none());
            end_orphan(&notes).unwrap();
            assert!(
                run_last(&notes, LIMIT, OWN_TIME, || false).unwrap()
                    && !run_last(&notes, LIMIT, OWN_TIME, || false).unwrap()
            );
        }
    }

    #[test]
    fn one_of_the_end_is_waited_for_but_not_for_longer_than_its_time() {
        let ended = |dir: &tempfile::TempDir| std::fs::read_to_string(dir.path().join("ended"));
        let dir = tempfile::tempdir().unwrap();
        let notes_of = notes(&dir);
        let script = "while [ ! -e go ]; do sleep 0.01; done; echo orphan >> ended";
        let mut child = orphan(&dir, &notes_of, (Kind::Poststop, true), script, u64::MAX);
        end_orphan(&notes_of).unwrap();
        let others = notes_of.clone();
        let running = std::thread::spawn(move || run_last(&others, LIMIT, OWN_TIME, || false).unwrap());
        std::thread::sleep(4 * LOOK);
        assert!(ended(&dir).is_err(), "the next one has run beside it");
        std::fs::write(dir.path().join("go"), "").unwrap();
        assert!(running.join().unwrap() && child.wait().unwrap().success());
        assert_eq!(ended(&dir).unwrap(), "orphan\nhook\n");

        let dir = tempfile::tempdir().unwrap();
        let notes = notes(&dir);
        let mut child = orphan(&dir, &notes, (Kind::Poststop, true), "exec sleep 1000", 1);
        assert!(run_last(&notes, LIMIT, OWN_TIME, || false).unwrap());
        assert_eq!((child.wait().unwrap().code(), ended(&dir).unwrap().as_str()), (None, "hook\n"));
    }

    /// The next container of its id may have its own there by then.
    #[test]
    fn who_has_given_up_when_its_turn_comes_begins_none() {
        let dir = tempfile::tempdir().unwrap();
        let notes = notes(&dir);
        assert!(!run_last(&notes, LIMIT, OWN_TIME, || true).unwrap());
        assert!(!dir.path().join("ended").exists());
        assert!(run_last(&notes, LIMIT, OWN_TIME, || false).unwrap());
        assert_eq!(std::fs::read_to_string(dir.path().join("ended")).unwrap(), "hook\n");
    }

    #[test]
    fn no_hook_of_an_end_keeps_the_next_container_of_its_id_for_the_time_that_it_names() {
        let dir = tempfile::tempdir().unwrap();
        let both = Store::at(dir.path().join("life")).hooks_of("a");
        let list = [hook("exec sleep 1000", 1000), hook("echo next >> ended", 1000)];
        let spec = spec(|spec| spec["hooks"] = json!({"poststop": list}));
        both.make(&spec.hooks("a", dir.path().to_str().unwrap()).unwrap()).unwrap();
        let begun = Instant::now();
        // Long enough for the other one, whatever else this machine does.
        assert!(run_last(&both, LIMIT, Duration::from_secs(20), || false).unwrap());
        assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
        assert_eq!(std::fs::read_to_string(dir.path().join("ended")).unwrap(), "next\n");

        let dir = tempfile::tempdir().unwrap();
        let notes = notes(&dir);
        let mut child = orphan(&dir, &notes, (Kind::Poststop, true), "exec sleep 1000", 1000);
        assert!(notes.turn(LIMIT).unwrap().unwrap().take().unwrap().is_some());
        assert!(run_last(&notes, LIMIT, Duration::from_secs(1), || false).unwrap());
        assert_eq!(child.wait().unwrap().code(), None, "it is killed");
    }
}
