//! End-to-end stories: a binary that runs in Dom0 and plays against containerd, Xen and /proc as a user would.
//!
//! Start at [`Story`] and the lists in `plays/`. The fixture is [`node::Node`]: it sees to what must hold in every story, above
//! all that nothing is left afterwards. Each story has a limit, and a failed one is cleaned up after, so that the next starts
//! on a clean node.
//!
//! usage: vgpu-stories [--list] [NAME-OR-PART...]     one line a story: `ok`, `FAILED` or `skipped`, name, time or reason
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

mod command;
mod configuration;
mod node;
mod plays;
mod pod;
mod proxy;
mod shim;
mod traces;
mod wire;

use node::Node;
use traces::Traces;

/// What is told, and what it needs of the node.
pub(crate) struct Story {
    /// Says the behaviour, in words joined by `_`, after the name of its group.
    pub name: String,
    /// Why it cannot be played here, if so.
    pub skip: Option<String>,
    /// A story that takes longer has failed.
    pub limit: Duration,
    /// Panics when the node does not behave.
    pub play: Box<dyn Fn(&Node) + Send + Sync>,
}

enum Outcome {
    /// And what was there after it.
    Passed(Traces),
    Failed(String),
    Skipped(String),
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let list_only = words.iter().any(|word| word == "--list");
    let parts: Vec<&String> = words.iter().filter(|word| !word.starts_with("--")).collect();
    let stories = plays::all();
    let chosen: Vec<Story> = stories
        .into_iter()
        .filter(|s| parts.is_empty() || parts.iter().any(|part| s.name.contains(*part)))
        .collect();
    if list_only {
        chosen.iter().for_each(|story| println!("{}", story.name));
        return ExitCode::SUCCESS;
    }
    // A failed story is reported in one place, with its message; the default hook would print it a second time.
    std::panic::set_hook(Box::new(|_| {}));
    let mut failed = 0;
    let mut known = None;
    for story in chosen {
        let name = story.name.clone();
        let started = Instant::now();
        match play(story, known.take()) {
            Outcome::Passed(after) => {
                known = Some(after);
                println!("ok {name} {:.1}s", started.elapsed().as_secs_f64());
            }
            Outcome::Skipped(reason) => println!("skipped {name} {reason}"),
            Outcome::Failed(why) => {
                failed += 1;
                // What a peer of the story said is not a line of ours: those are counted.
                println!("FAILED {name} {}", why.replace('\n', "\n    "));
            }
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `known`: what is on the node, where the story before has just looked. A look takes seconds of emulation.
fn play(story: Story, known: Option<Traces>) -> Outcome {
    if let Some(reason) = story.skip {
        return Outcome::Skipped(reason);
    }
    let before = known.unwrap_or_else(Traces::now);
    let node = Node::with(before.clone());
    let (told, wait) = channel();
    let limit = story.limit;
    std::thread::spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(|| {
            (story.play)(&node);
            node.assert_nothing_left()
        }));
        // Nobody listens any more when the limit has passed.
        let _ = told.send(result.map_err(|panic| message_of(&*panic)));
    });
    let why = match wait.recv_timeout(limit) {
        Ok(Ok(after)) => return Outcome::Passed(after),
        Ok(Err(why)) => why,
        Err(RecvTimeoutError::Timeout) => format!("is not over after {} s", limit.as_secs()),
        Err(RecvTimeoutError::Disconnected) => "ended without a result".into(),
    };
    let logs = node::recent_logs();
    node::clean_up(&before);
    Outcome::Failed(format!("{why}\n{logs}"))
}

fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panicked").to_string()
}
