//! One line a check.

use std::fmt::Debug;
use std::process::ExitCode;
use std::time::{Duration, Instant};

pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Long: emulation on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub struct Checks {
    failed: u32,
    passed: u32,
}

impl Checks {
    pub fn run<T>(&mut self, name: &str, check: impl FnOnce() -> Outcome<T>) -> Option<T> {
        let started = Instant::now();
        match check() {
            Ok(value) => {
                println!("ok {name} {:.2}s", started.elapsed().as_secs_f64());
                self.passed += 1;
                Some(value)
            }
            Err(error) => {
                self.fail(name, &chain(&*error));
                None
            }
        }
    }

    pub fn fail(&mut self, name: &str, why: &str) {
        println!("FAILED {name}: {why}");
        self.failed += 1;
    }

    pub fn exit_code(&self) -> ExitCode {
        println!("{} passed, {} failed", self.passed, self.failed);
        if self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

pub fn same<T: PartialEq + Debug>(what: &str, found: T, expected: T) -> Outcome {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?}, not {expected:?}").into()) }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Bytes that no mistake of position leaves unnoticed.
pub fn pattern(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[1]
        })
        .collect()
}
