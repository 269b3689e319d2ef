//! The page of turns, from both sides.

use std::cell::Cell;
use std::thread;

use super::*;

fn both() -> (Ruled, Turn) {
    let page = SharedPage::create().unwrap();
    let theirs = SharedPage::map(page.fd()).unwrap();
    (Ruled::new(Arc::new(page)), Turn::new(theirs))
}

fn said(ruled: &Ruled) -> (u64, bool) {
    let Said { used, has_work } = ruled.said(false, 0);
    (used, has_work)
}

#[test]
fn who_is_free_asks_and_tells_nobody() {
    let (ruled, turn) = both();
    assert!(turn.begin(|| unreachable!("nobody is to be told")) && turn.is_free());
    turn.count(5);
    assert_eq!(said(&ruled), (5, true));
    turn.rest();
    assert_eq!(said(&ruled), (5, false));
}

#[test]
fn who_is_watched_tells_once_and_goes_on() {
    let (ruled, turn) = both();
    assert!(!ruled.tell(Order::Watched), "it rests");
    assert!(!ruled.said(true, 0).has_work);
    let told = Cell::new(0);
    for _ in 0..2 {
        assert!(turn.begin(|| told.set(told.get() + 1)));
        turn.rest();
    }
    assert_eq!(told.get(), 1);
    // It is over already, and was seen all the same.
    assert!(ruled.said(true, 0).has_work && !ruled.said(false, 0).has_work);
    turn.begin(|| ());
    assert!(ruled.tell(Order::Watched), "it works, and will not say that it begins");
}

#[test]
fn who_has_used_what_it_may_sleeps_until_it_may_more() {
    let (ruled, turn) = both();
    ruled.tell(Order::Until(10));
    assert!(!turn.begin(|| ()));
    turn.count(9);
    let turn = Arc::new(turn);
    let waits = thread::spawn({
        let turn = Arc::clone(&turn);
        move || turn.count(1)
    });
    while ruled.page.load(SLEEPERS) == 0 {
        thread::yield_now();
    }
    assert_eq!(said(&ruled), (10, true));
    // Not enough: it goes on sleeping.
    ruled.tell(Order::Until(10));
    thread::sleep(Duration::from_millis(20));
    assert!(!waits.is_finished());
    ruled.tell(Order::Until(11));
    waits.join().unwrap();
    assert!(turn.is_over(11) && !turn.is_over(10));
}

#[test]
fn time_that_runs_is_counted_and_a_limit_ends_a_sleep() {
    let (ruled, turn) = both();
    turn.say(7, Some(100));
    assert_eq!(ruled.said(false, 150).used, 57);
    assert_eq!(ruled.said(false, 50).used, 7, "the future is not believed");
    turn.say(7, None);
    assert_eq!(ruled.said(false, 150).used, 7);
    ruled.tell(Order::Until(7));
    assert!(turn.sleep_if_over(7, Some(Duration::from_millis(1))));
    assert!(!turn.sleep_if_over(6, None));
}

/// No order but the two is read as one of them.
#[test]
fn a_count_never_sets_a_worker_free() {
    let (ruled, turn) = both();
    for used in [u64::MAX, u64::MAX - 1, u64::MAX - 2] {
        ruled.tell(Order::Until(used));
        assert!(!turn.is_free());
    }
    ruled.page.store(USED, u64::MAX);
    ruled.page.store(SINCE, 1);
    assert_eq!(ruled.said(false, u64::MAX).used, u64::MAX);
}

#[test]
fn what_xen_was_asked_for_is_said_as_it_is_and_nothing_where_nothing_was() {
    let (ruled, turn) = both();
    let page = &ruled.page;
    turn.begin(|| {});
    turn.count(5);
    assert_eq!(cost_said(page), None);
    let cost = ChannelCost { events_sent: 1, events_taken: 2, maps: 3, pages_mapped: 4 };
    turn.say_cost(cost);
    assert_eq!(cost_said(page), Some(cost));
    turn.rest();
    assert_eq!(cost_said(page), Some(cost), "no other word of the page is one of it");
}
