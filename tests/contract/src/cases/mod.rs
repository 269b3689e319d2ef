//! The cases: steps and no asserts. What is right, the other runtime says.

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

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Case> {
    task::CASES.iter()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_case_has_a_name_of_its_own_and_steps() {
        let names: BTreeSet<_> = all().map(|case| case.name).collect();
        assert_eq!(names.len(), all().count());
        assert!(all().all(|case| !case.steps.is_empty() && case.name.starts_with("task_")));
    }
}
