//! The door between two streams.

use rustix::io::Errno;
use tokio::time::Instant;

use super::*;

/// What becomes of one stream after the other, and whom it tells.
struct Turns(Vec<Result<bool, String>>, watch::Sender<bool>);

impl Streams for Turns {
    async fn serve(&mut self) -> Result<bool, String> {
        let turn = self.0.remove(0);
        if self.0.is_empty() {
            self.1.send_replace(true);
        }
        turn
    }
}

fn short_of_memory() -> Result<bool, String> {
    Err("short of memory".to_owned())
}

#[tokio::test(start_paused = true)]
async fn what_goes_wrong_with_a_stream_does_not_end_the_door() {
    let log = ZoneLog::new(ZoneId(uuid::Uuid::from_u128(1)));
    let (_zone, stop) = watch::channel(false);
    let turns = vec![short_of_memory(), Ok(true), short_of_memory(), Ok(false)];
    let mut turns = Turns(turns, watch::Sender::new(false));
    let began = Instant::now();
    serve_streams(&mut turns, &log, stop).await;
    assert_eq!(turns.0, [], "it gave up early");
    assert_eq!(began.elapsed(), 3 * STREAM_PAUSE);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_zone_ends_its_door_between_two_streams() {
    let log = ZoneLog::new(ZoneId(uuid::Uuid::from_u128(1)));
    let (zone, stop) = watch::channel(false);
    let began = Instant::now();
    serve_streams(&mut Turns(vec![short_of_memory()], zone), &log, stop).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[test]
fn a_xenstored_that_does_not_answer_is_not_taken_for_no_xen() {
    let told = |errno: Errno| unreached(XsError::Connect(errno.into())).code;
    assert_eq!(told(Errno::NOENT), Code::NoXen);
    assert_eq!(told(Errno::AGAIN), Code::HostFailure);
}
