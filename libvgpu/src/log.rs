//! Lines on stderr, only when `VGPU_LOG` is set: the process isn't ours.

use std::sync::OnceLock;
use std::time::Duration;

use idm::record::{Awaited, LongWait};
use vgpu_api::Op;

/// A wait of this length is told of.
pub const LONG_WAIT: Duration = Duration::from_secs(10);

/// How much the user asked for: nothing, lines, or also one for each call that waits for the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Nothing,
    Lines,
    Waits,
}

fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| match std::env::var_os("VGPU_LOG") {
        Some(value) if value == "2" => Level::Waits,
        Some(value) if !value.is_empty() && value != "0" => Level::Lines,
        _ => Level::Nothing,
    })
}

/// Whether the user asked for lines.
pub fn wanted() -> bool {
    level() >= Level::Lines
}

/// Whether each call that waits is to be named.
pub fn waits_wanted() -> bool {
    level() == Level::Waits
}

/// One line. The text is only made when it is wanted.
macro_rules! say {
    ($($arg:tt)*) => {
        if $crate::log::wanted() {
            eprintln!("vgpu: {}", format_args!($($arg)*));
        }
    };
}
pub(crate) use say;

/// Tells of a wait that lasts, and of the channel meanwhile.
pub fn say_of_wait(wait: &LongWait) {
    let called = match wait.awaited {
        Awaited::Reply { op, .. } => Op::ALL.get(usize::from(op)).map_or("a call", |op| op.name()),
        Awaited::Room(_) | Awaited::Word => "a thread",
    };
    say!("{called} {wait}");
}
