//! Lives told by hand, and a thousand random ones with a death at any step.

use std::{collections::BTreeSet, time::UNIX_EPOCH};

use super::*;

const T: SystemTime = UNIX_EPOCH;

fn exit(status: u32) -> Exit {
    Exit { status, at: T }
}

fn exec(id: &str) -> Who {
    Who::Exec(id.into())
}

/// Plays events that must be accepted, and returns what clients are told.
fn told(life: &mut Life, events: impl IntoIterator<Item = Event>) -> Vec<Notice> {
    let actions = events
        .into_iter()
        .flat_map(|event| life.on(event.clone()).unwrap_or_else(|e| panic!("{event:?}: {e}")));
    actions
        .filter_map(|action| match action {
            Action::Publish(notice) => Some(notice),
            Action::Wake(..) => None,
        })
        .collect()
}

fn running() -> Life {
    let mut life = Life::default();
    told(&mut life, [Event::StartAsked(Who::Init), Event::Started(Who::Init)]);
    life
}

fn with_exec(id: &str) -> Life {
    let mut life = running();
    told(&mut life, [Event::ExecAsked(id.into()), Event::ExecAdded(id.into())]);
    life
}

#[test]
fn a_process_that_ends_at_once_is_started_before_it_exits() {
    let mut life = Life::default();
    let events = [Event::StartAsked(Who::Init), Event::Exited(Who::Init, exit(7)), Event::Started(Who::Init)];
    assert_eq!(told(&mut life, events), [Notice::Start, Notice::Exit(Who::Init, exit(7))]);
}

#[test]
fn inits_exit_waits_for_execs_that_run_or_start() {
    let mut life = with_exec("a");
    assert_eq!(told(&mut life, [Event::StartAsked(exec("a")), Event::Exited(Who::Init, exit(0))]), []);
    assert_eq!(life.on(Event::KillAsked(Who::Init)).unwrap(), [], "State says that it runs");
    assert_eq!(life.on(Event::ExecAsked("b".into())).unwrap_err().code(), Some(Code::WrongState));
    let rest = told(&mut life, [Event::Started(exec("a")), Event::Exited(exec("a"), exit(1))]);
    assert_eq!(
        rest,
        [Notice::ExecStarted("a".into()), Notice::Exit(exec("a"), exit(1)), Notice::Exit(Who::Init, exit(0))]
    );
}

#[test]
fn an_exec_that_cannot_start_ends_its_waiters_and_tells_nobody() {
    let mut life = with_exec("a");
    life.on(Event::StartAsked(exec("a"))).unwrap();
    let actions = life.on(Event::StartFailed(exec("a"), T)).unwrap();
    assert_eq!(actions, [Action::Wake(exec("a"), exit(Exit::NOT_STARTED))]);
    assert_eq!(told(&mut life, [Event::Exited(Who::Init, exit(3))]), [Notice::Exit(Who::Init, exit(3))]);
}

/// As with runc's shim, whose init ends then.
#[test]
fn a_container_that_cannot_start_has_an_end() {
    let mut life = Life::default();
    life.on(Event::StartAsked(Who::Init)).unwrap();
    let last = told(&mut life, [Event::StartFailed(Who::Init, T), Event::Exited(Who::Init, exit(1))]);
    assert_eq!(last, [Notice::Exit(Who::Init, exit(Exit::NOT_STARTED))]);
}

#[test]
fn a_dead_guest_ends_everything_once_with_137_and_init_last() {
    let mut life = with_exec("a");
    told(&mut life, [Event::StartAsked(exec("a")), Event::Started(exec("a"))]);
    let last = told(&mut life, [Event::GuestDied(T), Event::GuestDied(T), Event::Exited(Who::Init, exit(0))]);
    assert_eq!(last, [Notice::Exit(exec("a"), exit(137)), Notice::Exit(Who::Init, exit(137))]);
    // Init had ended before.
    let mut life = with_exec("a");
    told(&mut life, [Event::StartAsked(exec("a")), Event::Started(exec("a"))]);
    let last = told(&mut life, [Event::Exited(Who::Init, exit(7)), Event::GuestDied(T)]);
    assert_eq!(last, [Notice::Exit(exec("a"), exit(137)), Notice::Exit(Who::Init, exit(7))]);
}

#[test]
fn a_container_killed_before_its_start_is_told_and_one_deleted_before_it_ends_its_waiters() {
    assert_eq!(
        told(&mut Life::default(), [Event::Exited(Who::Init, exit(137))]),
        [Notice::Exit(Who::Init, exit(137))]
    );
    let (deleted, ended) = (Action::Publish(Notice::Delete(None)), Notice::Exit(Who::Init, exit(137)));
    let actions = [deleted, Action::Publish(ended.clone()), Action::Wake(Who::Init, exit(137))];
    let mut silent = Life::default();
    silent.on(Event::DeleteAsked(Who::Init)).unwrap();
    assert_eq!(silent.on(Event::Deleted(Who::Init, T)).unwrap(), actions);
    // The guest ends it for the Delete, and says so first.
    let mut life = Life::default();
    let before = [Event::DeleteAsked(Who::Init), Event::Exited(Who::Init, exit(137)), Event::GuestDied(T)];
    assert_eq!(told(&mut life, before), []);
    let mut failed = life.clone();
    assert_eq!(life.on(Event::Deleted(Who::Init, T)).unwrap(), actions);
    assert_eq!(told(&mut failed, [Event::DeleteFailed(Who::Init)]), [ended]);
    assert_eq!(told(&mut failed, [Event::Deleted(Who::Init, T)]), [Notice::Delete(Some(exit(137)))]);
}

#[test]
fn an_exec_deleted_before_its_start_ends_its_waiters_and_leaves_inits_end_alone() {
    let mut life = with_exec("a");
    let others = [Event::ExecAsked("b".into()), Event::ExecAdded("b".into()), Event::StartAsked(exec("b"))];
    told(&mut life, others);
    let meanwhile = [Event::DeleteAsked(exec("a")), Event::Exited(Who::Init, exit(3))];
    assert_eq!(told(&mut life, meanwhile), []);
    let actions = life.on(Event::Deleted(exec("a"), T)).unwrap();
    assert_eq!(actions, [Action::Wake(exec("a"), exit(137))]);
    assert_eq!(life.stage(&exec("a")), None);
    let rest = told(&mut life, [Event::StartFailed(exec("b"), T)]);
    assert_eq!(rest, [Notice::Exit(Who::Init, exit(3))]);
}

#[test]
fn what_has_run_is_known_of_what_has_ended() {
    let has_run = |life: &Life| life.stage(&exec("a")).unwrap().has_run();
    let mut life = with_exec("a");
    assert!(!has_run(&life));
    told(&mut life, [Event::StartAsked(exec("a"))]);
    let (mut failed, mut dead) = (life.clone(), life.clone());
    told(&mut failed, [Event::StartFailed(exec("a"), T)]);
    told(&mut dead, [Event::GuestDied(T), Event::StartFailed(exec("a"), T)]);
    assert!(!has_run(&life) && !has_run(&failed) && !has_run(&dead));
    told(&mut life, [Event::Started(exec("a"))]);
    assert!(has_run(&life));
    told(&mut life, [Event::Exited(exec("a"), exit(0))]);
    assert!(has_run(&life));
}

#[test]
fn a_pause_that_fails_leaves_it_running_and_tells_nobody() {
    let mut life = running();
    assert_eq!(told(&mut life, [Event::PauseAsked, Event::PauseFailed]), []);
    assert_eq!(life, running());
    assert_eq!(told(&mut life, [Event::PauseAsked, Event::Paused]), [Notice::Paused]);
    assert_eq!(told(&mut life, [Event::PauseFailed, Event::Paused]), [], "late news");
    assert_eq!(told(&mut life, [Event::ResumeAsked, Event::Resumed]), [Notice::Resumed]);
    let ended = [Event::PauseAsked, Event::Exited(Who::Init, exit(3)), Event::Paused];
    assert_eq!(told(&mut life, ended), [Notice::Exit(Who::Init, exit(3))]);
}

/// As runc's shim: what is refused in which stage, and with which code.
#[test]
fn what_does_not_fit_the_stage_is_refused_with_its_code() {
    use Code::{IdTaken, NoSuchTask, WrongState};
    let stopped = || {
        let mut life = running();
        told(&mut life, [Event::Exited(Who::Init, exit(0))]);
        life
    };
    let check = |mut life: Life, event: Event, code: Code| {
        let before = life.clone();
        assert_eq!(life.on(event.clone()).unwrap_err().code(), Some(code), "{event:?}");
        assert_eq!(life, before, "a refusal changes nothing");
    };
    check(running(), Event::StartAsked(Who::Init), WrongState);
    check(running(), Event::DeleteAsked(Who::Init), WrongState);
    check(running(), Event::ResumeAsked, WrongState);
    check(running(), Event::KillAsked(exec("no")), NoSuchTask);
    check(stopped(), Event::StartAsked(Who::Init), WrongState);
    check(stopped(), Event::KillAsked(Who::Init), NoSuchTask);
    check(stopped(), Event::ExecAsked("a".into()), WrongState);
    check(stopped(), Event::PauseAsked, WrongState);
    check(Life::default(), Event::PauseAsked, WrongState);
    check(with_exec("a"), Event::ExecAsked("a".into()), IdTaken);
    check(with_exec("a"), Event::KillAsked(exec("a")), WrongState);
    let mut pausing = with_exec("a");
    told(&mut pausing, [Event::PauseAsked]);
    check(pausing.clone(), Event::PauseAsked, WrongState);
    check(pausing.clone(), Event::ResumeAsked, WrongState);
    check(pausing.clone(), Event::StartAsked(exec("a")), WrongState);
    check(pausing, Event::DeleteAsked(Who::Init), WrongState);
    let mut paused = with_exec("a");
    told(&mut paused, [Event::PauseAsked, Event::Paused]);
    check(paused.clone(), Event::StartAsked(exec("a")), WrongState);
    check(paused.clone(), Event::DeleteAsked(Who::Init), WrongState);
    check(paused, Event::ExecAsked("b".into()), WrongState);
}

/// A small generator with a good enough spread. Source: SplitMix64, public domain.
struct Seed(u64);

impl Seed {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

fn any_event(seed: &mut Seed) -> Event {
    let id = ["a", "b", "c"][usize::try_from(seed.below(3)).unwrap()].to_owned();
    let who = if seed.below(2) == 0 { Who::Init } else { Who::Exec(id.clone()) };
    match seed.below(16) {
        0 => Event::StartAsked(who),
        1 | 2 => Event::Started(who),
        3 => Event::StartFailed(who, T),
        4 => Event::ExecAsked(id),
        5 => Event::ExecAdded(id),
        6 => Event::ExecRefused(id),
        7 => Event::Exited(who, exit(1)),
        8 => Event::PauseAsked,
        9 => Event::Paused,
        10 => Event::ResumeAsked,
        11 => Event::Resumed,
        12 => Event::KillAsked(who),
        13 => Event::DeleteAsked(who),
        14 => Event::PauseFailed,
        _ => Event::DeleteFailed(who),
    }
}

/// What must hold in every life, watched from outside.
#[derive(Default)]
struct Watcher {
    started: BTreeSet<Who>,
    exited: BTreeSet<Who>,
    woken: BTreeSet<Who>,
}

impl Watcher {
    fn see(&mut self, seed: u64, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Publish(Notice::Start) => {
                    assert!(
                        !self.exited.contains(&Who::Init) && self.started.insert(Who::Init),
                        "seed {seed}"
                    );
                }
                Action::Publish(Notice::ExecAdded(id)) => {
                    // The id may have been used by an exec that was refused or deleted before.
                    for set in [&mut self.started, &mut self.exited, &mut self.woken] {
                        set.remove(&Who::Exec(id.clone()));
                    }
                }
                Action::Publish(Notice::ExecStarted(id)) => {
                    assert!(self.started.insert(Who::Exec(id)), "seed {seed}")
                }
                Action::Publish(Notice::Exit(who, _)) => {
                    assert!(!self.exited.contains(&Who::Init), "seed {seed}: after init's exit {who:?}");
                    assert!(
                        who == Who::Init || self.started.contains(&who),
                        "seed {seed}: {who:?} never started"
                    );
                    assert!(self.exited.insert(who), "seed {seed}: a second exit");
                }
                Action::Wake(who, _) => {
                    assert!(self.woken.insert(who.clone()), "seed {seed}: {who:?} woken twice")
                }
                Action::Publish(_) => {}
            }
        }
    }
}

#[test]
fn a_thousand_random_lives_keep_the_rules_with_a_death_at_any_step() {
    for number in 0..1000 {
        let (mut seed, mut life, mut watcher) = (Seed(number), Life::default(), Watcher::default());
        for _ in 0..seed.below(60) {
            let event = any_event(&mut seed);
            let asked = matches!(
                event,
                Event::StartAsked(_)
                    | Event::ExecAsked(_)
                    | Event::PauseAsked
                    | Event::ResumeAsked
                    | Event::KillAsked(_)
                    | Event::DeleteAsked(_)
            );
            match life.on(event.clone()) {
                Ok(actions) => watcher.see(number, actions),
                Err(_) => assert!(asked, "seed {number}: news was refused: {event:?}"),
            }
        }
        watcher.see(number, life.on(Event::GuestDied(T)).unwrap());
        // The calls that were under way are answered by the lost connection.
        for who in [exec("a"), exec("b"), exec("c"), Who::Init] {
            watcher.see(number, life.on(Event::StartFailed(who.clone(), T)).unwrap());
            watcher.see(number, life.on(Event::DeleteFailed(who)).unwrap());
        }
        assert!(watcher.woken.contains(&Who::Init), "seed {number}: who waits for init waits for ever");
        let missing: Vec<_> = watcher.started.iter().filter(|who| !watcher.exited.contains(who)).collect();
        assert!(missing.is_empty(), "seed {number}: no exit of {missing:?}");
    }
}
