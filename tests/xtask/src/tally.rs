//! What a test run has seen: passed, failed, skipped with reasons.

use crate::error::Result;

/// Begins the line of a test that cannot be tried here, and so returns; its file and the reason follow.
const NOT_TRIED: &str = "NOT TRIED: ";

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

    /// Takes the counts out of what a test runner wrote: nextest's summary, or cargo test's one result a binary. A test that says
    /// [`NOT_TRIED`] has passed for the runner; here it is skipped. Returns how many tests ran, if there are counts at all.
    pub fn add_runner(&mut self, name: &str, text: &str) -> Option<u32> {
        let mut ran = None;
        let (mut passed, mut failed, mut not_tried) = (0, 0, 0);
        for line in text.lines() {
            if let Some(reason) = line.trim_start().strip_prefix(NOT_TRIED) {
                not_tried += 1;
                self.skipped.push(reason.to_string());
            }
            if !line.trim_start().starts_with("Summary [") && !line.starts_with("test result:") {
                continue;
            }
            passed += number_before(line, "passed");
            failed += number_before(line, "failed") + number_before(line, "timed out");
            ran = Some(passed + failed);
        }
        if failed > 0 {
            self.failures.push(format!("{name}: {failed} tests"));
        }
        self.failed += failed;
        self.passed += passed.saturating_sub(not_tried);
        ran
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
        let summary = "     Summary [   0.1s] 12 tests run: 10 passed (1 slow), 2 failed, 3 skipped\n";
        assert_eq!(tally.add_runner("a", summary), Some(12));
        let one = "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured\n";
        assert_eq!(tally.add_runner("b", &[one, one].concat()), Some(10));
        assert_eq!(tally.add_runner("c", "error: could not compile\n"), None);
        assert_eq!((tally.passed, tally.failed), (20, 2));
        assert_eq!(tally.failures, ["a: 2 tests"]);
    }

    #[test]
    fn a_runner_that_ran_nothing_says_so() {
        let none = "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out\n";
        assert_eq!(Tally::default().add_runner("a", none), Some(0));
    }

    #[test]
    fn a_test_that_was_not_tried_is_skipped_with_its_reason_by_either_runner() {
        let nextest = "        PASS [   0.1s] (1/2) gpu-proxy::mounts a\n  stderr ---\n    NOT TRIED: a.rs: no x here\n\n\
                       Summary [   0.1s] 2 tests run: 2 passed, 0 skipped\n";
        let cargo = "test a ... ok\n\nsuccesses:\n\n---- a stdout ----\nNOT TRIED: a.rs: no x here\n\n\
                     test result: ok. 2 passed; 0 failed; 0 ignored\n";
        for text in [nextest, cargo] {
            let mut tally = Tally::default();
            assert_eq!(tally.add_runner("Unit tests", text), Some(2));
            assert_eq!(tally.report(), "skipped: a.rs: no x here\n1 passed, 0 failed, 1 skipped");
        }
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
