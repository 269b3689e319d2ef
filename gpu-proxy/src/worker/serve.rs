//! The worker's loop: a record, its call, its answer. One thread; the ring's order is the program's.

use std::time::Duration;

use idm::record::{Consumer, ErrorWord, Replies};
use idm::{ChannelError, Peer};
use vgpu_api::wire::REPLY_BYTES_MAX;
use vgpu_api::{Call, ContextId, CuError, PRINTED, dispatch};

use super::Session;

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest process or the supervisor is gone. Ordinary.
    Gone,
    /// The guest broke the protocol. It is told by the channel's end.
    Broken,
}

/// When calls that were put aside are looked at again, and after how many looks that found none of them done twice as late; not later than
/// [`LOOK_MAX`].
const LOOK: Duration = Duration::from_micros(100);
const LOOKS: u32 = 16;
const LOOK_MAX: Duration = Duration::from_micros(1600);

/// Who asked for what.
#[derive(Clone, Copy, Debug)]
struct Asked {
    op: u16,
    call: Call,
    lane: Option<u16>,
    seq: u32,
}

/// A call that would hold up the loop while the guest is about to run a function. No more of them than lanes.
#[derive(Debug)]
struct Aside {
    asked: Asked,
    payload: Vec<u8>,
}

/// What answers.
struct Answers {
    session: Session,
    replies: Replies,
    peer: Peer,
    /// For one reply at a time.
    reply: [u8; REPLY_BYTES_MAX],
}

/// Serves until the channel ends.
pub fn serve(mut consumer: Consumer, session: Session) -> End {
    let (mut aside, mut looks) = (Vec::new(), 0);
    let (replies, peer) = (consumer.replies().clone(), consumer.peer());
    let mut answers = Answers { session, replies, peer, reply: [0; REPLY_BYTES_MAX] };
    let end = loop {
        match drain(&mut consumer, &mut answers, &mut aside) {
            Ok(Looked::Idle) => looks += 1,
            Ok(Looked::Answered) => looks = 0,
            Err(end) => break end,
        }
        // Also while calls wait: what is done is no longer counted as used then.
        let rest = answers.session.rest();
        let limit = if aside.is_empty() { rest } else { Some(look_after(looks)) };
        match consumer.wait(limit) {
            Ok(_) => {}
            Err(error) => break judged(&error),
        }
    };
    answers.session.say_cost();
    // Marks the channel as ended, so that nobody waits for an answer.
    drop(consumer);
    end
}

/// What came of a look.
enum Looked {
    Answered,
    /// Nothing has come, and what was put aside still is.
    Idle,
}

fn look_after(looks: u32) -> Duration {
    LOOK.saturating_mul(1 << (looks / LOOKS).min(4)).min(LOOK_MAX)
}

/// Takes every record there is, and looks again at what was put aside.
fn drain(consumer: &mut Consumer, answers: &mut Answers, aside: &mut Vec<Aside>) -> Result<Looked, End> {
    let mut looked = Looked::Idle;
    for Aside { asked, payload } in std::mem::take(aside) {
        if answers.answer(asked, &payload)? {
            looked = Looked::Answered;
        } else {
            aside.push(Aside { asked, payload });
        }
    }
    while let Some(record) = consumer.next().map_err(|error| judged(&error))? {
        looked = Looked::Answered;
        let call = Call { context: ContextId(record.ctx), sync: record.lane.is_some() };
        let asked = Asked { op: record.op, call, lane: record.lane, seq: record.seq };
        if !answers.answer(asked, record.payload)? {
            aside.push(Aside { asked, payload: record.payload.to_vec() });
        }
    }
    Ok(looked)
}

impl Answers {
    /// Runs a call and answers it; `false` when it is to be tried again later.
    fn answer(&mut self, asked: Asked, payload: &[u8]) -> Result<bool, End> {
        let Self { session, replies, peer, reply } = self;
        let Asked { op, call, lane, seq } = asked;
        let was_sticky = session.sticky(call.context);
        let answer = match dispatch(session, op, call, payload, reply) {
            Ok(answer) => answer,
            Err(error) => {
                log::warn!("{peer} broke the protocol: {error}");
                return Err(End::Broken);
            }
        };
        if session.take_put_aside() && lane.is_some() {
            return Ok(false);
        }
        let failed = CuError::check(answer.code).err();
        let newly_sticky = failed.filter(|error| error.is_sticky() && was_sticky.is_none());
        // What nobody waits for, and what ends a context, every thread of the program learns from the error word.
        if let Some(error) = failed.filter(|_| lane.is_none()).or(newly_sticky) {
            let sticky = error.is_sticky();
            replies.set_error(ErrorWord { seq, code: error.code(), sticky, ctx: call.context.0 });
        }
        if let Some(lane) = lane {
            let bytes = &reply[..answer.reply_bytes];
            let printed = if session.has_printed() { PRINTED } else { 0 };
            replies.reply(lane, seq, answer.code | printed, bytes).map_err(|error| judged(&error))?;
        }
        Ok(true)
    }
}

fn judged(error: &ChannelError) -> End {
    match error.fault() {
        idm::Fault::Gone => End::Gone,
        idm::Fault::Peer => {
            log::warn!("{error}");
            End::Broken
        }
        idm::Fault::Ours => {
            log::error!("{error}");
            End::Broken
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use idm::record::{RegionSpec, pair};
    use vgpu_api::host_function::{DONE, MAILBOX_BYTES, POSTED};
    use vgpu_api::{Op, Stream, Wire, wire};

    use super::*;
    use crate::device::Null;
    use crate::shared_page::SharedPage;
    use crate::worker::quota::{Grant, Quota};

    fn session(consumer: &Consumer) -> Session {
        session_with(consumer, Null::default())
    }

    fn session_with(consumer: &Consumer, device: Null) -> Session {
        let page = SharedPage::create().unwrap();
        let quota = Quota::new(SharedPage::map(page.fd()).unwrap(), 0).unwrap();
        let _grant = Grant::new(Arc::new(page), 1 << 20);
        Session::new(Box::new(device), quota, Box::new(consumer.staging().clone()))
    }

    /// What a hostile guest may send ends its own channel: never a panic, never a hang.
    #[test]
    fn records_that_no_libvgpu_sends_end_the_channel() {
        let ops = u16::try_from(Op::ALL.len()).unwrap();
        for (op, payload) in [(ops, vec![]), (u16::MAX, vec![]), (Op::cuMemAlloc_v2 as u16, vec![0; 3])] {
            let (submitter, consumer) = pair(RegionSpec::default()).unwrap();
            let session = session(&consumer);
            let worker = thread::spawn(move || serve(consumer, session));
            let _ = submitter.submit_bytes(op, 0, &payload);
            assert_eq!(worker.join().unwrap(), End::Broken, "op {op}");
        }
    }

    #[test]
    fn a_worker_ends_when_its_peer_does() {
        let (submitter, consumer) = pair(RegionSpec::default()).unwrap();
        let session = session(&consumer);
        let worker = thread::spawn(move || serve(consumer, session));
        thread::sleep(Duration::from_millis(10));
        drop(submitter);
        assert_eq!(worker.join().unwrap(), End::Gone);
    }

    #[test]
    fn what_waits_long_is_looked_at_less_often_and_never_more_than_a_little_late() {
        assert_eq!(
            [0, 15, 16, 63, 64, u32::MAX].map(look_after),
            [1, 1, 2, 8, 16, 16].map(|times| LOOK * times)
        );
    }

    /// One thread waits for a stream that waits for a function; the function may wait for another thread, whose call has to come through.
    #[test]
    fn a_wait_for_a_function_of_the_guest_holds_up_no_other_call() {
        let (submitter, consumer) = pair(RegionSpec::default()).unwrap();
        let session = session_with(&consumer, Null::default().calling_from_a_thread());
        let worker = thread::spawn(move || serve(consumer, session));
        let limit = Some(Duration::from_secs(20));
        let mailbox = submitter.stage(MAILBOX_BYTES, limit).unwrap();
        mailbox.write(0, &[0; MAILBOX_BYTES]);
        let call = |op: Op, payload: &[u8]| {
            submitter.call(op as u16, 1, payload, &mut [0; 64], limit).map(|reply| reply.status)
        };
        let word = |at| {
            let mut bytes = [0; 8];
            mailbox.read(at, &mut bytes);
            u64::from_le_bytes(bytes)
        };
        assert_eq!(call(Op::cuDevicePrimaryCtxRetain, &[0; 8]), Ok(0));
        let place = [u64::from(mailbox.offset()), MAILBOX_BYTES as u64].map(u64::to_le_bytes).concat();
        assert_eq!(call(Op::vgpuHostFunctions, &place), Ok(0));
        let legacy = wire::to_vec(&Stream::Legacy);
        assert_eq!(legacy.len(), Stream::Legacy.size());
        submitter
            .submit_bytes(Op::cuLaunchHostFunc as u16, 1, &[legacy.clone(), vec![5; 8]].concat())
            .unwrap();
        thread::scope(|scope| {
            let waits = [
                scope.spawn(|| call(Op::cuStreamSynchronize, &legacy)),
                scope.spawn(|| call(Op::cuCtxSynchronize, &[])),
            ];
            submitter.wait_until(|| word(POSTED) == 1).unwrap();
            thread::sleep(Duration::from_millis(20));
            assert_eq!(call(Op::cuMemAlloc_v2, &64_u64.to_le_bytes()), Ok(0));
            assert!(waits.iter().all(|wait| !wait.is_finished()), "the function has not run");
            mailbox.write(DONE, &1_u64.to_le_bytes());
            for wait in waits {
                assert_eq!(wait.join().unwrap(), Ok(0));
            }
        });
        drop(mailbox);
        drop(submitter);
        assert_eq!(worker.join().unwrap(), End::Gone);
    }
}
