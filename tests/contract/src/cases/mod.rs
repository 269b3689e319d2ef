//! The cases: steps and no asserts. What is right, the other runtime says.

mod exec;
mod pod;
mod task;

use crate::step::Step;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Of a group, which the name begins with.
    pub name: &'static str,
    /// In order; each is answered before the next.
    pub steps: &'static [Step],
}

/// A program that says so and stays.
const SLEEPS: &str = "echo there; exec sleep 1000";
const SIGTERM: u32 = 15;
const SIGKILL: u32 = 9;

/// A name and steps each.
macro_rules! cases {
    ($($name:ident: $($step:expr),+;)+) => {
        pub const CASES: &[Case] = &[$(Case { name: stringify!($name), steps: &[$($step),+] as &[Step] }),+];
    };
}
use cases;

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [task::CASES, exec::CASES, pod::CASES].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_case_has_a_name_of_its_own_and_begins_with_its_container() {
        let names: BTreeSet<_> = all().map(|case| case.name).collect();
        assert_eq!(names.len(), all().count());
        let creates = |case: &&Case| {
            let of = |step: &&Step| matches!(step, Step::Create(_) | Step::CreateOf(..));
            case.steps.iter().filter(of).count() == 1
        };
        assert_eq!(all().filter(creates).count(), names.len(), "the shim is started in its bundle");
    }
}
