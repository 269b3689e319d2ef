use super::*;

fn small() -> (Stream, Stream) {
    Stream::pair(StreamSpec { to_taker_bytes: 4096, to_maker_bytes: 8192 }).unwrap()
}

const LONG: Option<Duration> = Some(Duration::from_secs(20));
const SHORT: Option<Duration> = Some(Duration::from_millis(20));

#[test]
fn a_direction_ends_after_its_last_byte_and_the_other_goes_on() {
    let (a, b) = small();
    a.write_all(b"hello", LONG).unwrap();
    a.finish().unwrap();
    let mut to = [0; 64];
    assert_eq!(b.read(&mut to, LONG), Ok(5));
    assert_eq!(b.read(&mut to, LONG), Ok(0));
    assert_eq!(b.read(&mut to, LONG), Ok(0));
    b.write_all(b"still here", LONG).unwrap();
    assert_eq!(a.read(&mut to, LONG), Ok(10));
    assert_eq!(a.write(b"x", LONG), Err(ChannelError::Finished));
}

#[test]
fn a_peer_that_goes_without_an_end_is_gone_after_its_last_byte() {
    let (a, b) = small();
    a.write_all(b"last words", LONG).unwrap();
    drop(a);
    let mut to = [0; 64];
    assert_eq!(b.read(&mut to, LONG), Ok(10));
    assert!(matches!(b.read(&mut to, LONG), Err(ChannelError::PeerGone(_))));
    assert!(matches!(b.write(b"x", LONG), Err(ChannelError::PeerGone(_))));
}

#[test]
fn a_sleeper_wakes_when_the_peer_goes() {
    let (a, b) = small();
    let reader = std::thread::spawn(move || b.read(&mut [0; 8], LONG));
    std::thread::sleep(Duration::from_millis(20));
    drop(a);
    assert!(matches!(reader.join().unwrap(), Err(ChannelError::PeerGone(_))));
}

#[test]
fn a_limit_runs_out_and_the_stream_lives_on() {
    let (a, b) = small();
    assert!(matches!(b.read(&mut [0; 8], SHORT), Err(ChannelError::TimedOut { .. })));
    let sent = a.write(&[1; 10000], SHORT).unwrap();
    assert_eq!(sent, 4096);
    assert!(matches!(a.write(&[1], SHORT), Err(ChannelError::TimedOut { .. })));
    assert_eq!(b.read(&mut [0; 10000], SHORT), Ok(4096));
    a.write_all(&[2; 10], SHORT).unwrap();
}

#[test]
fn both_directions_sleep_on_one_bell_without_missing_a_ring() {
    let (a, b) = small();
    let bytes = 1 << 20;
    let pump = |s: Stream| {
        let writer = s.clone();
        let send = std::thread::spawn(move || {
            for chunk in vec![7u8; bytes].chunks(1000) {
                writer.write_all(chunk, LONG).unwrap();
            }
            writer.finish().unwrap();
        });
        let receive = std::thread::spawn(move || {
            let (mut to, mut sum) = (vec![0; 777], 0);
            loop {
                match s.read(&mut to, LONG).unwrap() {
                    0 => return sum,
                    count => sum += count,
                }
            }
        });
        (send, receive)
    };
    let (one, two) = (pump(a), pump(b));
    for (send, receive) in [one, two] {
        send.join().unwrap();
        assert_eq!(receive.join().unwrap(), bytes);
    }
}

#[test]
fn pages_that_are_no_stream_are_refused() {
    let spec = StreamSpec::default();
    let memory = sealed_memory("test", spec.region_bytes()).unwrap();
    let (bell, ear) = crate::doorbell::eventfd_pair().unwrap();
    let parts = StreamParts {
        region: Arc::new(Region::map(&memory, spec.region_bytes()).unwrap()),
        spec,
        side: Side::Taker,
        peer: Peer::Domain(9),
        waiter: Waiter::EventFd(ear),
        doorbell: Doorbell::EventFd(bell),
        liveness: None,
    };
    assert_eq!(Stream::new(parts).unwrap_err().to_string(), "domain 9 handed over pages that are no stream");
}

#[test]
fn a_bad_index_breaks_the_stream_for_both() {
    let (a, b) = small();
    a.core.region.word(320).store(1 << 30, Relaxed);
    let first = b.read(&mut [0; 8], LONG).unwrap_err();
    assert!(matches!(first, ChannelError::PeerIndex { .. }));
    assert_eq!(b.write(b"x", LONG).unwrap_err(), first);
    assert!(matches!(a.read(&mut [0; 8], LONG), Err(ChannelError::PeerGone(_))));
}
