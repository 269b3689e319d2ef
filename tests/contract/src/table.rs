//! Each case on two runtimes, and where they differ.

use futures_util::{StreamExt, stream};

use crate::{
    cases::Case,
    compare::{Difference, differences},
    mock::{Flavour, Runtime},
    play::play,
};

/// The cases in their order, `beside` each other: on who is taken for right, and on ours.
///
/// # Panics
/// A runtime does not do what no case asks about, or what is taken for right never says what a case waits for.
pub async fn on_both(
    cases: impl Iterator<Item = &'static Case>,
    [right, ours]: [(&Runtime, Flavour); 2],
    beside: usize,
) -> Vec<(&'static Case, Vec<Difference>)> {
    let of = |case, (runtime, flavour): (&Runtime, Flavour)| play(case, runtime.clone(), flavour);
    let both = |case: &'static Case| async move {
        println!("{}", case.name);
        let (right, ours) = tokio::join!(of(case, right), of(case, ours));
        let never =
            right.iter().find(|(_, outcome)| outcome.get("comes").is_some_and(|comes| comes == false));
        assert!(never.is_none(), "{}: of runc's container it never comes: {never:?}", case.name);
        (case, differences(case.name, &right, &ours))
    };
    stream::iter(cases).map(both).buffered(beside).collect().await
}
