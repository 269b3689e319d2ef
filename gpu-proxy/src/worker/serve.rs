//! The worker's loop: a record, its call, its answer. One thread; the ring's order is the program's.

use idm::ChannelError;
use idm::record::{Consumer, ErrorWord};
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

/// Serves until the channel ends.
pub fn serve(mut consumer: Consumer, mut session: Session) -> End {
    let end = loop {
        if let Err(end) = drain(&mut consumer, &mut session) {
            break end;
        }
        match consumer.wait(None) {
            Ok(_) => {}
            Err(error) => break judged(&error),
        }
    };
    // Marks the channel as ended, so that nobody waits for an answer.
    drop(consumer);
    end
}

/// Takes every record there is.
fn drain(consumer: &mut Consumer, session: &mut Session) -> Result<(), End> {
    let mut reply = [0; REPLY_BYTES_MAX];
    let replies = consumer.replies().clone();
    while let Some(record) = consumer.next().map_err(|error| judged(&error))? {
        let context = ContextId(record.ctx);
        let call = Call { context, sync: record.lane.is_some() };
        let was_sticky = session.sticky(context);
        let answer = match dispatch(session, record.op, call, record.payload, &mut reply) {
            Ok(answer) => answer,
            Err(error) => {
                log::warn!("{} broke the protocol: {error}", consumer.peer());
                return Err(End::Broken);
            }
        };
        let (seq, lane) = (record.seq, record.lane);
        let failed = CuError::check(answer.code).err();
        let newly_sticky = failed.filter(|error| error.is_sticky() && was_sticky.is_none());
        // What nobody waits for, and what ends a context, every thread of the program learns from the error word.
        if let Some(error) = failed.filter(|_| lane.is_none()).or(newly_sticky) {
            let sticky = error.is_sticky();
            replies.set_error(ErrorWord { seq, code: error.code(), sticky, ctx: context.0 });
        }
        if let Some(lane) = lane {
            let bytes = &reply[..answer.reply_bytes];
            let printed = if session.has_printed() { PRINTED } else { 0 };
            replies.reply(lane, seq, answer.code | printed, bytes).map_err(|error| judged(&error))?;
        }
    }
    Ok(())
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
    use std::time::Duration;

    use idm::record::{RegionSpec, pair};
    use vgpu_api::Op;

    use super::*;
    use crate::device::Null;
    use crate::shared_page::SharedPage;
    use crate::worker::quota::{Grant, Quota};

    fn session(consumer: &Consumer) -> Session {
        let page = SharedPage::create().unwrap();
        let quota = Quota::new(SharedPage::map(page.fd()).unwrap(), 0).unwrap();
        let _grant = Grant::new(Arc::new(page), 1 << 20);
        Session::new(Box::new(Null::default()), quota, Box::new(consumer.staging().clone()))
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
}
