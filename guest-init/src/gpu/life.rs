//! The life of one channel, as a function: an event in, the next stage and what to do out.
//!
//! ```text
//!   Offered ──Accepted──► Open ──process gone──► Closing ──Unmapped──► Over
//!      │                   └──────Died──────► Dying ──────Unmapped──────┘
//!      ├──Refused──► Over
//!      └──process gone──► Closing                    proxy gone: from every stage to Orphaned
//! ```
//! Chunks of the arena are granted while the channel is Open, each until it is Over; else nobody is left who would use one.

use vgpu_zone_api::guest::ToGuest;

/// Where a channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The proxy was asked.
    Offered,
    /// The process has it.
    Open,
    /// The process is gone; the proxy was told.
    Closing,
    /// The worker is gone; the process was told. The proxy will say when it has let go.
    Dying,
    /// Nothing is mapped: the pages may go.
    Over,
    /// The proxy is gone without having let go. Its kernel does that for it, some time.
    Orphaned,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The proxy spoke.
    Proxy(ToGuest),
    /// The process closed its socket, or died.
    ProcessGone,
    /// The GPU stream ended.
    ProxyGone,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// Give the process its memory and doorbells, and an arena of so many MiB.
    HandOver(u32),
    /// Grant a chunk of the arena, and tell the proxy.
    Grant(u32),
    /// Tell the process the number of the code.
    Refuse(u32),
    /// Tell the proxy.
    SendClose,
    /// End the process's socket and wake it.
    EndProcess,
}

/// The next stage, and what to do. An event that does not fit changes nothing: messages cross on their way.
pub fn step(stage: Stage, event: Event) -> (Stage, Action) {
    use Stage as S;
    match (stage, event) {
        (S::Over | S::Orphaned, _) => (stage, Action::None),
        (S::Offered | S::Open | S::Dying | S::Closing, Event::ProxyGone) => (S::Orphaned, Action::EndProcess),
        (S::Offered | S::Open, Event::ProcessGone) => (S::Closing, Action::SendClose),
        (S::Offered, Event::Proxy(ToGuest::Accepted { arena_mib, .. })) => {
            (S::Open, Action::HandOver(arena_mib))
        }
        (S::Open, Event::Proxy(ToGuest::Want { chunk, .. })) => (S::Open, Action::Grant(chunk)),
        (S::Offered, Event::Proxy(ToGuest::Refused { code, .. })) => (S::Over, Action::Refuse(code)),
        (S::Closing, Event::Proxy(ToGuest::Refused { .. })) => (S::Over, Action::None),
        (S::Offered | S::Open, Event::Proxy(ToGuest::Died { .. })) => (S::Dying, Action::EndProcess),
        (S::Offered | S::Open, Event::Proxy(ToGuest::Unmapped { .. })) => (S::Over, Action::EndProcess),
        (S::Closing | S::Dying, Event::Proxy(ToGuest::Unmapped { .. })) => (S::Over, Action::None),
        _ => (stage, Action::None),
    }
}

#[cfg(test)]
mod tests {
    use vgpu_zone_api::guest::ChannelId;

    use super::*;

    fn events() -> Vec<Event> {
        let channel = ChannelId::new(1).unwrap();
        vec![
            Event::Proxy(ToGuest::Accepted { channel, arena_mib: 4 }),
            Event::Proxy(ToGuest::Refused { channel, code: 404 }),
            Event::Proxy(ToGuest::Died { channel, code: 406 }),
            Event::Proxy(ToGuest::Unmapped { channel }),
            Event::ProcessGone,
            Event::ProxyGone,
            // The answer to a question is nothing to a channel.
            Event::Proxy(ToGuest::Told { question: channel, code: 0, answer: Vec::new() }),
            Event::Proxy(ToGuest::Want { channel, chunk: 1 }),
        ]
    }

    fn live(events: &[Event]) -> (Stage, Vec<Action>) {
        events.iter().fold((Stage::Offered, vec![]), |(stage, mut actions), event| {
            let (next, action) = step(stage, event.clone());
            actions.push(action);
            (next, actions)
        })
    }

    #[test]
    fn a_channel_that_lives_well_is_handed_over_closed_and_let_go() {
        let [accepted, _, _, unmapped, process_gone, _, _, want] = <[Event; 8]>::try_from(events()).unwrap();
        let (stage, actions) = live(&[want.clone(), accepted, want.clone(), process_gone, want, unmapped]);
        assert_eq!(stage, Stage::Over);
        let open = [Action::None, Action::HandOver(4), Action::Grant(1)];
        assert_eq!(actions, [open, [Action::SendClose, Action::None, Action::None]].concat());
    }

    /// Every sequence of five events: what must hold in each.
    #[test]
    fn pages_are_free_only_when_nothing_maps_them_and_the_process_is_told_once() {
        let all = events();
        for number in 0..all.len().pow(5) {
            let sequence: Vec<Event> =
                (0..5).map(|place| all[number / all.len().pow(place) % all.len()].clone()).collect();
            let mut stage = Stage::Offered;
            let (mut ends, mut hand_overs, mut closes) = (0, 0, 0);
            for event in &sequence {
                let (next, action) = step(stage, event.clone());
                if next == Stage::Over && stage != Stage::Over {
                    let said =
                        matches!(event, Event::Proxy(ToGuest::Unmapped { .. } | ToGuest::Refused { .. }));
                    assert!(said, "freed by {event:?} in {sequence:?}");
                }
                hand_overs += u32::from(action == Action::HandOver(4));
                closes += u32::from(action == Action::SendClose);
                let is_granted = matches!(action, Action::Grant(_));
                assert!(!is_granted || hand_overs == 1 && closes + ends == 0, "granted in {sequence:?}");
                ends += u32::from(matches!(action, Action::EndProcess | Action::Refuse(_)));
                stage = next;
            }
            assert!(hand_overs <= 1 && closes <= 1 && ends <= 2, "{sequence:?}");
        }
    }
}
