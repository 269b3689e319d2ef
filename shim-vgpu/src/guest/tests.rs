//! Calls to a guest whose stream is ours at both ends.

use async_trait::async_trait;
use tokio::io::{AsyncWriteExt as _, DuplexStream};
use uuid::Uuid;
use vgpu_netlink::Namespace;

use super::*;
use crate::network::Vif;

/// What a call by itself needs of Xen.
#[derive(Debug)]
struct Nothing;

#[async_trait]
impl Link for Nothing {
    fn make_devices(&self, _: u16, _: u16) -> Result<()> {
        unreachable!()
    }
    fn remove_devices(&self, _: u16, _: Uuid, _: u16) -> Result<()> {
        unreachable!()
    }
    fn make_vifs(&self, _: u16, _: &[Vif], _: &Namespace) -> Result<()> {
        unreachable!()
    }
    fn remove_vifs(&self, _: u16, _: Uuid, _: Option<&Namespace>) -> Result<()> {
        unreachable!()
    }
    fn vif_changes(&self, _: u16, _: usize) -> watch::Receiver<u64> {
        unreachable!()
    }
    async fn agent(&self, _: u16) -> Result<AnyStream> {
        unreachable!()
    }
    async fn accept(&self, _: u16, _: &StreamOffer) -> Result<AnyStream> {
        unreachable!()
    }
    fn endings(&self) -> watch::Receiver<u64> {
        unreachable!()
    }
}

fn guest() -> (Guest, DuplexStream) {
    let (theirs, ours) = tokio::io::duplex(4096);
    let stream = Bounded::new(ours);
    let (end, streams) = (stream.end(), AtomicU32::new(1));
    let client = Client::new(Socket::new(stream));
    let dead = watch::Sender::new(false);
    (
        Guest { client, end, link: Arc::new(Nothing), domid: 1, streams, dead, spoken: version::CURRENT },
        theirs,
    )
}

async fn code(guest: &Guest) -> Option<Code> {
    let asked: Result<Empty> = guest.task("Kill", &KillRequest::default(), None).await;
    asked.unwrap_err().code()
}

/// A call that waits when the stream ends, and one that comes later and is not even sent.
#[tokio::test]
async fn what_ended_the_stream_is_told_to_every_call() {
    let (gone, theirs) = guest();
    drop(theirs);
    assert_eq!([code(&gone).await, code(&gone).await], [Some(Code::GuestGone); 2]);
    for header in [b"\0\x04\0\x01\0\0\0\x01\x02\0", b"\0\0\0\x01\0\0\0\x01\x03\0"] {
        let (broken, mut theirs) = guest();
        theirs.write_all(header).await.unwrap();
        assert_eq!([code(&broken).await, code(&broken).await], [Some(Code::ProtocolBroken); 2]);
    }
}

/// One that waits and one that comes later; the stream is there.
#[tokio::test]
async fn no_call_waits_for_a_guest_that_died() {
    let (guest, _theirs) = guest();
    let later = async {
        tokio::task::yield_now().await;
        guest.died();
    };
    let both = async {
        let (waiting, ()) = tokio::join!(code(&guest), later);
        [waiting, code(&guest).await]
    };
    let told = tokio::time::timeout(Duration::from_secs(5), both).await.expect("it waits");
    assert_eq!(told, [Some(Code::GuestGone); 2]);
}

/// ttrpc leaves a stream that it gave up in the middle of a request.
#[tokio::test(start_paused = true)]
async fn a_guest_that_does_not_read_is_silent_and_then_gone() {
    let (guest, _theirs) = guest();
    let id = "x".repeat(8192);
    let kill = KillRequest { id, ..KillRequest::default() };
    let limit = Some(Duration::from_secs(1));
    let asked: Result<Empty> = guest.task("Kill", &kill, limit).await;
    assert_eq!(asked.unwrap_err().code(), Some(Code::GuestSilent));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(code(&guest).await, Some(Code::GuestGone));
}

/// So that it says itself which device it has waited for.
#[tokio::test(start_paused = true)]
async fn a_guest_has_longer_for_its_network_than_it_waits_for_its_devices() {
    let (guest, _theirs) = guest();
    let asked = tokio::time::Instant::now();
    let made = guest.set_network(&Network::default()).await.unwrap_err();
    assert_eq!(made.to_string(), "SetNetwork: no answer within 40 s");
    assert_eq!(made.code(), Some(Code::GuestSilent));
    assert_eq!((asked.elapsed().as_secs(), DEVICES_LIMIT.as_secs()), (40, 30));
}
