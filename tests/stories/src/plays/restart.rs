//! containerd dies and comes back while pods write, are called and end: it is on no stream's way, and hears what it has missed.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crate::Story;
use crate::command::{SOON, lines_of, must, run, until};
use crate::node::{Node, start_containerd};
use crate::plays::vgpu;
use crate::pod::{BUSYBOX, Runtime, START};

/// The story.
pub fn stories() -> Vec<Story> {
    vec![vgpu("death_of_containerd_under_load", 1500, death_of_containerd_under_load)]
}

/// Where the pods' outputs are, and what a pod has as /story.
const PLACE: &str = "/run/story-restart";
/// How often it dies.
const DEATHS: u32 = 3;
/// Waits until all are there, since who is emulated beside writers takes minutes to begin. Then lines with numbers, until it is told to end; then
/// how many there were.
const WRITES: &str = "i=0; trap 'end=1' TERM; until test -e /story/go; do sleep 1; done
    until test \"$end\" -o -e /story/$0; do for n in 1 2 3 4 5 6 7 8 9 10; do i=$((i+1)); echo $i; done; sleep 0.3; done
    echo of $i; exit $1";

fn death_of_containerd_under_load(node: &Node) {
    let _ = fs::remove_dir_all(PLACE);
    fs::create_dir(PLACE).expect("/run is writable");
    let pods = [Writer::start("first", 7), Writer::start("second", 8), Writer::start("third", 9)];
    fs::write(format!("{PLACE}/go"), "").expect("/run is writable");
    pods.iter().for_each(Writer::assert_writes);
    let life = Arc::new(AtomicU32::new(0));
    let execs = Execs::begin(&pods[0], &life);

    for death in 1..=DEATHS {
        execs.until_one_of(life.load(Ordering::SeqCst));
        life.fetch_add(1, Ordering::SeqCst);
        node.kill_containerd();
        pods.iter().filter(|pod| !pod.has_ended()).for_each(Writer::assert_writes);
        if death == 2 {
            // While nobody can be told.
            fs::write(format!("{PLACE}/{}", pods[2].name), "").expect("/run is writable");
            pods[2].until_ended();
        }
        start_containerd();
        life.fetch_add(1, Ordering::SeqCst);
        let states = [pods[0].state(), pods[1].state(), pods[2].state()];
        let third = if death < 2 { "RUNNING" } else { "STOPPED" };
        assert_eq!(states, ["RUNNING", "RUNNING", third], "after death {death}");
        pods[..2].iter().for_each(Writer::assert_writes);
    }

    execs.until_one_of(life.load(Ordering::SeqCst));
    let mut ctr = Command::new("ctr").arg("events").stdout(Stdio::piped()).spawn().expect("ctr runs");
    let (events, reader) = lines_of(ctr.stdout.take().expect("piped"));
    // That of an exec says that events are heard.
    until(START, || events.lock().ok()?.contains("exec-added").then_some(())).expect("an exec is made");
    execs.end();
    for pod in &pods[..2] {
        must(&["ctr", "task", "kill", "-s", "SIGTERM", &pod.name]);
        let exit = || events.lock().ok()?.lines().any(|line| pod.is_exit(line)).then_some(());
        assert!(until(SOON, exit).is_some(), "{} has no exit of {}: {events:?}", pod.code, pod.name);
        assert_eq!(pod.state(), "STOPPED");
    }
    ctr.kill().and_then(|()| ctr.wait()).expect("it is ours");
    reader.join().expect("no reader panics");
    pods.iter().for_each(Writer::delete);
    fs::remove_dir_all(PLACE).expect("nothing holds it");
}

/// A pod whose output goes to a file: whoever has made it may end.
struct Writer {
    name: String,
    code: i32,
}

impl Writer {
    fn start(name: &str, code: i32) -> Self {
        let writer = Writer { name: format!("story-{name}"), code };
        let log = format!("file://{}", writer.output().display());
        let mount = format!("type=bind,src={PLACE},dst=/story,options=rbind:ro");
        let (name, code) = (&writer.name, code.to_string());
        let line = ["ctr", "run", "--detach", "--runtime", Runtime::Vgpu.name(), "--log-uri", &log];
        let line = [&line[..], &["--mount", &mount, BUSYBOX, name, "sh", "-c", WRITES, name, &code]].concat();
        let started = run(&line, START);
        assert_eq!(started.code, Some(0), "{}", started.complaint());
        writer
    }

    fn output(&self) -> PathBuf {
        format!("{PLACE}/{}.out", self.name).into()
    }

    fn text(&self) -> String {
        fs::read_to_string(self.output()).unwrap_or_default()
    }

    /// More than was on its way already.
    fn assert_writes(&self) {
        let wanted = self.text().len() + 200;
        let more = until(SOON, || (self.text().len() >= wanted).then_some(()));
        assert!(more.is_some(), "{} does not write any more: {}", self.name, self.end_of_text());
    }

    fn has_ended(&self) -> bool {
        self.text().contains("of ")
    }

    fn until_ended(&self) {
        let ended = until(SOON, || self.has_ended().then_some(()));
        assert!(ended.is_some(), "{} does not end: {}", self.name, self.end_of_text());
    }

    fn end_of_text(&self) -> String {
        let text = self.text();
        text[text.len().saturating_sub(100)..].into()
    }

    /// As containerd has it of the shim.
    fn state(&self) -> String {
        let listed = must(&["ctr", "task", "ls"]);
        let line = listed.lines().find(|line| line.split_whitespace().next() == Some(&self.name));
        line.and_then(|line| line.split_whitespace().nth(2)).unwrap_or("none").into()
    }

    /// Whether a line of `ctr events` is of the exit of its program, with its code.
    fn is_exit(&self, line: &str) -> bool {
        let id = format!("\"id\":\"{}\"", self.name);
        line.contains("/tasks/exit")
            && line.contains(&id)
            && line.contains(&format!("\"exit_status\":{},", self.code))
    }

    /// The code is told, and every line has come, once and in order.
    fn delete(&self) {
        let deleted = run(&["ctr", "task", "rm", &self.name], START);
        // ctr only says it.
        let said = format!("exit code {}\"", self.code);
        assert!(deleted.code == Some(0) && deleted.complaint().contains(&said), "{}", deleted.complaint());
        must(&["ctr", "container", "rm", &self.name]);
        let text = self.text();
        let count = text.lines().count() - 1;
        let whole: String = (1..=count).map(|line| format!("{line}\n")).collect();
        assert!(
            text == format!("{whole}of {count}\n"),
            "{}: {} lines, the last: {}",
            self.name,
            count,
            self.end_of_text()
        );
    }
}

/// Execs in a row, each with an output and a code of its own. Those that containerd's death cuts off may fail, no others.
struct Execs {
    /// The lives of containerd that had a whole one.
    seen: Arc<Mutex<Vec<u32>>>,
    over: Arc<AtomicBool>,
    running: JoinHandle<()>,
}

impl Execs {
    /// `life` is odd while containerd is dead.
    fn begin(pod: &Writer, life: &Arc<AtomicU32>) -> Self {
        let (seen, over, name) =
            (Arc::<Mutex<Vec<u32>>>::default(), Arc::<AtomicBool>::default(), pod.name.clone());
        let (lives, is_over, life) = (Arc::clone(&seen), Arc::clone(&over), Arc::clone(life));
        let make = move || {
            for number in (1..).take_while(|_| !is_over.load(Ordering::SeqCst)) {
                let before = life.load(Ordering::SeqCst);
                let (id, code) = (format!("exec-{number}"), number % 100 + 1);
                let script = format!("seq {number} {}; exit {code}", number + 500);
                let ended =
                    run(&["ctr", "task", "exec", "--exec-id", &id, &name, "sh", "-c", &script], START);
                if before % 2 == 1 || life.load(Ordering::SeqCst) != before {
                    continue;
                }
                let right: String = (number..=number + 500).map(|line| format!("{line}\n")).collect();
                assert_eq!((ended.code, ended.text()), (Some(code), right), "{id}: {}", ended.complaint());
                lives.lock().expect("nobody panics with it").push(before);
            }
        };
        Execs { seen, over, running: thread::spawn(make) }
    }

    fn until_one_of(&self, life: u32) {
        let is_seen = || self.seen.lock().expect("nobody panics with it").contains(&life);
        let seen = until(START, || (is_seen() || self.running.is_finished()).then(is_seen));
        assert_eq!(seen, Some(true), "in life {life} of containerd no exec is made");
    }

    fn end(self) {
        self.over.store(true, Ordering::SeqCst);
        if let Err(panic) = self.running.join() {
            std::panic::resume_unwind(panic);
        }
    }
}
