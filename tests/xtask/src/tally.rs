//! What a test run has seen: passed, failed, skipped with reasons.

use crate::error::Result;

/// The counts of a run, and what to say about them.
#[derive(Debug, Default)]
pub struct Tally {
    pub passed: u32,
    pub failed: u32,
    /// One line each: what, and why not.
    pub skipped: Vec<String>,
    /// One line each.
    pub failures: Vec<String>,
}

impl Tally {
    /// Counts one check that either holds or not; a failure is shown at once.
    pub fn check(&mut self, name: &str, outcome: Result<()>) {
        match outcome {
            Ok(()) => self.passed += 1,
            Err(failure) => {
                eprintln!("FAILED {name}: {failure}");
                self.fail(name);
            }
        }
    }

    /// Counts a failure that was shown already.
    pub fn fail(&mut self, name: &str) {
        self.failed += 1;
        self.failures.push(name.to_string());
    }

    /// Counts one that could not be run.
    pub fn skip(&mut self, name: &str, reason: &str) {
        self.skipped.push(format!("{name}: {reason}"));
    }

    /// Takes over what another run has seen.
    pub fn merge(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped.extend(other.skipped);
        self.failures.extend(other.failures);
    }

    /// Takes the counts out of what a test runner wrote: nextest's summary, or cargo test's one result a binary.
    /// Returns whether there was any.
    pub fn add_runner(&mut self, name: &str, text: &str) -> bool {
        let mut seen = false;
        for line in text.lines() {
            let summary = line.trim_start().starts_with("Summary [") || line.starts_with("test result:");
            if summary {
                seen = true;
                self.passed += number_before(line, "passed");
                let failed = number_before(line, "failed") + number_before(line, "timed out");
                self.failed += failed;
                if failed > 0 {
                    self.failures.push(format!("{name}: {failed} tests"));
                }
            }
        }
        seen
    }

    /// Counts what the stories' program wrote.
    pub fn add_stories(&mut self, place: &str, text: &str) {
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("ok", _)) => self.passed += 1,
                Some(("FAILED", rest)) => {
                    self.fail(&format!("{place}: {}", rest.split(' ').next().unwrap_or(rest)))
                }
                Some(("skipped", rest)) => {
                    let (name, reason) = rest.split_once(' ').unwrap_or((rest, "no reason given"));
                    self.skip(&format!("{place}: {name}"), reason);
                }
                _ => {}
            }
        }
    }

    /// The failures, the skips with their reasons, and the last line of every run.
    pub fn report(&self) -> String {
        let mut report = String::new();
        for failure in &self.failures {
            report.push_str(&format!("failed: {failure}\n"));
        }
        for skip in &self.skipped {
            report.push_str(&format!("skipped: {skip}\n"));
        }
        report + &format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped.len())
    }
}

/// The number in front of a word: "3 failed", "3 failed;", "3 failed,".
fn number_before(line: &str, word: &str) -> u32 {
    let before = line.find(word).map(|at| line[..at].trim_end());
    before.and_then(|text| text.rsplit([' ', '(']).next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_runners_are_understood() {
        let mut tally = Tally::default();
        assert!(tally.add_runner(
            "a",
            "     Summary [   0.1s] 12 tests run: 10 passed (1 slow), 2 failed, 3 skipped\n"
        ));
        assert!(tally.add_runner("b", "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured\n"));
        assert!(!tally.add_runner("c", "error: could not compile\n"));
        assert_eq!((tally.passed, tally.failed), (15, 2));
        assert_eq!(tally.failures, ["a: 2 tests"]);
    }

    #[test]
    fn stories_are_counted_and_their_skips_keep_the_reason() {
        let mut tally = Tally::default();
        tally.add_stories(
            "PV Dom0",
            "ok one 1.0s\nFAILED two because\n    of this\nskipped three no GPU here\n",
        );
        assert_eq!(
            tally.report(),
            "failed: PV Dom0: two\nskipped: PV Dom0: three: no GPU here\n1 passed, 1 failed, 1 skipped"
        );
    }
}
