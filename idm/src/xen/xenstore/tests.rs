//! The client against a small xenstored at the other end of a socket pair, honest and not.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, Signal, kill_process};

use super::super::XenError;
use super::super::device::{Backend, Device};
use super::*;
use crate::life::Liveness;
use crate::stream::StreamSpec;

const SOON: Duration = Duration::from_secs(10);

/// Reads one request: type, number, transaction, payload.
fn next_request(socket: &mut UnixStream) -> Option<(u32, u32, u32, Vec<u8>)> {
    let mut header = [0; 16];
    socket.read_exact(&mut header).ok()?;
    let word = |n: usize| u32::from_le_bytes(header[n..n + 4].try_into().unwrap());
    let mut payload = vec![0; word(12) as usize];
    socket.read_exact(&mut payload).ok()?;
    Some((word(0), word(4), word(8), payload))
}

fn message(kind: u32, number: u32, transaction: u32, payload: &[u8]) -> Vec<u8> {
    let words = [kind, number, transaction, u32::try_from(payload.len()).unwrap()];
    words.iter().flat_map(|word| word.to_le_bytes()).chain(payload.iter().copied()).collect()
}

/// A xenstored with one tree, without permissions. The first `conflicts` commits fail with EAGAIN.
fn xenstored(mut conflicts: u32) -> (Client, JoinHandle<BTreeMap<String, Vec<u8>>>) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let server = thread::spawn(move || {
        let mut tree: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut view: Option<BTreeMap<String, Vec<u8>>> = None;
        let mut watches: Vec<(String, String)> = Vec::new();
        while let Some((kind, number, transaction, payload)) = next_request(&mut theirs) {
            let nul = payload.iter().position(|&byte| byte == 0).unwrap_or(payload.len());
            let path = String::from_utf8(payload[..nul].to_vec()).unwrap();
            let rest = payload.get(nul + 1..).unwrap_or_default().to_vec();
            let nodes = if transaction == 0 { &mut tree } else { view.as_mut().unwrap() };
            let mut fired = Vec::new();
            let answer: Result<Vec<u8>, &[u8]> = match kind {
                1 => {
                    let below = format!("{path}/");
                    let names = nodes
                        .keys()
                        .filter_map(|node| node.strip_prefix(&below))
                        .flat_map(|name| [name.as_bytes(), b"\0"].concat());
                    Ok(names.collect())
                }
                2 => nodes.get(&path).cloned().ok_or(b"ENOENT\0"),
                4 => {
                    let token = String::from_utf8(rest.strip_suffix(b"\0").unwrap().to_vec()).unwrap();
                    fired.push((path.clone(), token.clone()));
                    watches.push((path.clone(), token));
                    Ok(b"OK\0".to_vec())
                }
                5 => Ok(b"OK\0".to_vec()),
                6 => {
                    view = Some(tree.clone());
                    Ok(b"77\0".to_vec())
                }
                7 if path == "T" && conflicts > 0 => {
                    conflicts -= 1;
                    Err(b"EAGAIN\0")
                }
                7 => {
                    if path == "T" {
                        tree = view.take().unwrap();
                    }
                    Ok(b"OK\0".to_vec())
                }
                11 => {
                    nodes.insert(path.clone(), rest);
                    fired.extend(
                        watches.iter().filter(|(watched, _)| path.starts_with(watched.as_str())).cloned(),
                    );
                    Ok(b"OK\0".to_vec())
                }
                13 => nodes.remove(&path).map(|_| b"OK\0".to_vec()).ok_or(b"ENOENT\0"),
                17 => Ok(if path == "5" { b"T\0".to_vec() } else { b"F\0".to_vec() }),
                _ => Err(b"ENOSYS\0"),
            };
            let (kind, payload) = match answer {
                Ok(payload) => (kind, payload),
                Err(name) => (16, name.to_vec()),
            };
            theirs.write_all(&message(kind, number, transaction, &payload)).unwrap();
            for (path, token) in fired {
                theirs.write_all(&message(15, 0, 0, format!("{path}\0{token}\0").as_bytes())).unwrap();
            }
        }
        tree
    });
    (Client::over_socket(ours).unwrap(), server)
}

/// A peer that answers the first request with `bytes` made from its number, and then keeps quiet.
fn liar(bytes: impl FnOnce(u32) -> Vec<u8> + Send + 'static) -> Client {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    thread::spawn(move || {
        let (_, number, _, _) = next_request(&mut theirs).unwrap();
        theirs.write_all(&bytes(number)).unwrap();
        while next_request(&mut theirs).is_some() {}
    });
    Client::over_socket(ours).unwrap()
}

#[test]
fn what_is_written_is_read_back_and_a_missing_node_is_told_apart() {
    let (client, server) = xenstored(0);
    client.write("/a/b", "42").unwrap();
    assert_eq!(client.read("/a/b").unwrap(), b"42");
    assert_eq!(client.read_decimal("/a/b", 42).unwrap(), 42);
    assert!(matches!(client.read_decimal("/a/b", 41), Err(XsError::Value { .. })));
    assert!(client.read("/a/c").unwrap_err().is_missing());
    assert_eq!(client.read_if_there("/a/c").unwrap(), None);
    assert_eq!(client.list("/a").unwrap(), ["b"]);
    client.remove("/a/b").unwrap();
    client.remove("/a/b").unwrap();
    assert!(client.is_introduced(DomId::new(5).unwrap()).unwrap());
    assert!(!client.is_introduced(DomId::new(6).unwrap()).unwrap());
    assert!(!client.has_ended());
    drop(client);
    assert!(server.join().unwrap().is_empty());
}

#[test]
fn a_transaction_that_meets_conflicts_is_tried_again_but_not_for_ever() {
    let (client, server) = xenstored(3);
    client
        .transaction(|tx| {
            tx.write("/x", "1")?;
            tx.write("/y", "2")
        })
        .unwrap();
    drop(client);
    assert_eq!(server.join().unwrap().len(), 2);

    let (client, _server) = xenstored(u32::MAX);
    let error = client.transaction(|tx| tx.write("/x", "1")).unwrap_err();
    assert!(matches!(error, XsError::Conflicts(12)), "{error}");
}

/// A xenstored that lets this domain have one transaction open, and refuses the first ones by `refusals`. Returns the name of each refusal.
fn quota_of_one(refusals: &'static [&'static str]) -> (Client, JoinHandle<Vec<&'static str>>) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let server = thread::spawn(move || {
        let (mut first, mut open, mut refused) = (refusals.iter(), 0, Vec::new());
        while let Some((kind, number, transaction, _)) = next_request(&mut theirs) {
            let refusal = match kind {
                6 => first.next().copied().or((open > 0).then_some("EQUOTA")),
                _ => None,
            };
            refused.extend(refusal);
            let answer = match (kind, refusal) {
                (_, Some(name)) => message(16, number, transaction, format!("{name}\0").as_bytes()),
                (6, None) => {
                    open += 1;
                    message(kind, number, transaction, b"77\0")
                }
                (_, None) => {
                    open -= i32::from(kind == 7);
                    message(kind, number, transaction, b"OK\0")
                }
            };
            theirs.write_all(&answer).unwrap();
        }
        refused
    });
    (Client::over_socket(ours).unwrap(), server)
}

/// A driver domain has one connection for all its guests, and may have ten transactions open.
#[test]
fn a_connection_has_one_transaction_open_however_many_threads_want_one() {
    let (client, server) = quota_of_one(&[]);
    thread::scope(|scope| {
        for _ in 0..20 {
            let client = client.clone();
            scope.spawn(move || {
                let changes = |tx: &Transaction<'_>| {
                    // Long enough for the others to come meanwhile.
                    thread::sleep(Duration::from_millis(5));
                    tx.write("/x", "1")
                };
                client.transaction(changes).unwrap();
            });
        }
    });
    drop(client);
    assert_eq!(server.join().unwrap(), [""; 0]);
}

#[test]
fn a_transaction_waits_for_another_ones_end_no_longer_than_for_an_answer() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let client = Client::impatient(ours, Duration::from_millis(50));
    let turn = client.transaction_turn().unwrap();
    assert!(matches!(client.transaction(|tx| tx.write("/x", "1")), Err(XsError::Late { .. })));
    drop(turn);
    drop(client.transaction_turn().unwrap());
    theirs.set_nonblocking(true).unwrap();
    let silent = theirs.read(&mut [0]).unwrap_err();
    assert_eq!(silent.kind(), io::ErrorKind::WouldBlock, "it began all the same");
}

#[test]
fn a_transaction_that_may_not_begin_yet_is_tried_again_but_not_for_ever() {
    const PASSING: &[&str] = &["EQUOTA", "ENOSPC", "EBUSY", "EAGAIN"];
    let (client, server) = quota_of_one(PASSING);
    client.transaction(|tx| tx.write("/x", "1")).unwrap();
    drop(client);
    assert_eq!(server.join().unwrap(), PASSING);

    let (client, server) = quota_of_one(&["EQUOTA"; 100]);
    let error = client.transaction(|tx| tx.write("/x", "1")).unwrap_err();
    assert!(matches!(error, XsError::Refused { op: Op::TransactionStart, .. }), "{error}");
    drop(client);
    assert_eq!(server.join().unwrap().len(), 12);

    let (client, server) = quota_of_one(&["EACCES"]);
    assert!(
        client.transaction(|tx| tx.write("/x", "1")).is_err(),
        "one that will never begin is tried again"
    );
    drop(client);
    assert_eq!(server.join().unwrap().len(), 1);
}

#[test]
fn a_transaction_that_fails_changes_nothing() {
    let (client, server) = xenstored(0);
    let result = client.transaction(|tx| {
        tx.write("/x", "1")?;
        tx.read("/missing")
    });
    assert!(result.unwrap_err().is_missing());
    drop(client);
    assert!(server.join().unwrap().is_empty());
}

#[test]
fn a_watch_fires_at_once_and_for_each_change_below_it() {
    let (client, _server) = xenstored(0);
    let watch = client.watch("/a").unwrap();
    assert!(watch.wait(SOON).unwrap());
    assert!(!watch.wait(Duration::from_millis(20)).unwrap());
    client.write("/b", "no").unwrap();
    assert!(!watch.wait(Duration::from_millis(20)).unwrap());
    client.write("/a/state", "3").unwrap();
    assert!(watch.wait(SOON).unwrap());
    for state in ["4", "5", "6"] {
        client.write("/a/state", state).unwrap();
    }
    let begun = Instant::now();
    let mut fired = 0;
    while fired < 3 && begun.elapsed() < SOON {
        fired += watch.take().unwrap();
    }
    assert_eq!((fired, watch.take().unwrap()), (3, 0), "each is counted");
}

#[test]
fn many_threads_share_a_connection() {
    let (client, _server) = xenstored(0);
    thread::scope(|scope| {
        for n in 0..40 {
            let client = client.clone();
            scope.spawn(move || {
                for value in 0..20 {
                    client.write(&format!("/n/{n}"), value.to_string()).unwrap();
                    assert_eq!(client.read_decimal(&format!("/n/{n}"), 20).unwrap(), value);
                }
            });
        }
    });
}

#[test]
fn answers_in_another_order_find_their_askers() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let client = Client::over_socket(ours).unwrap();
    thread::spawn(move || {
        let first = next_request(&mut theirs).unwrap();
        let second = next_request(&mut theirs).unwrap();
        for (_, number, _, payload) in [second, first] {
            theirs.write_all(&message(2, number, 0, &payload)).unwrap();
        }
        while next_request(&mut theirs).is_some() {}
    });
    thread::scope(|scope| {
        for path in ["/one", "/two"] {
            let client = &client;
            scope.spawn(move || assert_eq!(client.read(path).unwrap(), format!("{path}\0").as_bytes()));
        }
    });
}

#[test]
fn an_answer_that_makes_no_sense_ends_the_connection_for_everybody() {
    type Lie = fn(u32) -> Vec<u8>;
    let lies: [(&str, Lie); 6] = [
        ("another type", |number| message(13, number, 0, b"OK\0")),
        ("another transaction", |number| message(2, number, 9, b"x")),
        ("another number", |number| message(2, number + 1, 0, b"x")),
        ("a length past the limit", |number| [&message(2, number, 0, b"")[..12], &[0xff; 4]].concat()),
        ("an unknown type", |number| message(200, number, 0, b"")),
        ("an event without a token", |_| message(15, 0, 0, b"/a\0")),
    ];
    for (name, lie) in lies {
        let client = liar(lie);
        let started = Instant::now();
        assert!(matches!(client.read("/a"), Err(XsError::Gone(_))), "{name}");
        assert!(matches!(client.read("/b"), Err(XsError::Gone(_))), "{name}");
        assert!(matches!(client.watch("/c"), Err(XsError::Gone(_))), "{name}");
        assert!(client.has_ended(), "{name}");
        assert!(started.elapsed() < SOON, "{name}");
    }
}

#[test]
fn the_end_of_xenstored_wakes_who_waits_for_an_answer_or_an_event() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let client = Client::over_socket(ours).unwrap();
    let (watching, is_watching) = mpsc::channel();
    let waiter = thread::spawn({
        let client = client.clone();
        move || {
            let watch = client.watch("/a").unwrap();
            watching.send(()).unwrap();
            watch.wait(SOON)
        }
    });
    let (_, number, _, _) = next_request(&mut theirs).unwrap();
    theirs.write_all(&message(4, number, 0, b"OK\0")).unwrap();
    is_watching.recv().unwrap();
    let reader = thread::spawn(move || client.read("/b"));
    next_request(&mut theirs).unwrap();

    drop(theirs);

    assert!(matches!(reader.join().unwrap(), Err(XsError::Gone(_))));
    assert!(matches!(waiter.join().unwrap(), Err(XsError::Gone(_))));
}

#[test]
fn an_answer_that_comes_too_late_is_nobody_elses() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let client = Client::impatient(ours, Duration::from_millis(50));
    assert!(matches!(client.read("/slow"), Err(XsError::Late { .. })));
    let server = thread::spawn(move || {
        let (_, slow, _, _) = next_request(&mut theirs).unwrap();
        let (_, quick, _, _) = next_request(&mut theirs).unwrap();
        theirs.write_all(&message(2, slow, 0, b"late")).unwrap();
        theirs.write_all(&message(2, quick, 0, b"in time")).unwrap();
        theirs
    });
    assert_eq!(client.read("/quick").unwrap(), b"in time");
    drop(server.join().unwrap());
}

#[test]
fn requests_past_xenstoreds_quota_wait_their_turn() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let client = Client::impatient(ours, Duration::from_millis(300));
    let askers: Vec<_> = (0..20)
        .map(|_| {
            let client = client.clone();
            thread::spawn(move || client.read("/x").is_ok())
        })
        .collect();
    theirs.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let seen = std::iter::from_fn(|| next_request(&mut theirs)).count();
    assert_eq!(seen, 16);
    drop(theirs);
    assert!(askers.into_iter().all(|asker| !asker.join().unwrap()));
}

#[test]
fn mistakes_of_ours_do_not_reach_the_wire() {
    let (client, server) = xenstored(0);
    assert!(matches!(client.read("/a b"), Err(XsError::BadPath(_))));
    assert!(matches!(client.write("/a", vec![b'x'; 4096]), Err(XsError::TooLong(Op::Write))));
    client.write("/a", "still works").unwrap();
    drop(client);
    assert_eq!(server.join().unwrap().len(), 1);
}

#[test]
fn a_guest_that_writes_its_nodes_without_end_does_not_stretch_the_limit() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let client = Client::over_socket(ours).unwrap();
    thread::spawn(move || {
        let mut token = Vec::new();
        while let Some((kind, number, transaction, payload)) = next_request(&mut theirs) {
            let answer: &[u8] = match kind {
                2 => b"2",
                6 => b"1\0", // a transaction's id
                _ => b"OK\0",
            };
            if kind == 4 {
                token = payload.split(|&byte| byte == 0).nth(1).unwrap().to_vec();
            }
            let event = message(15, 0, 0, &[b"/x\0", &token[..], b"\0"].concat());
            // The event first: it is there whenever the client has its answer.
            if theirs.write_all(&[event, message(kind, number, transaction, answer)].concat()).is_err() {
                return;
            }
        }
    });
    let device = Device { guest: DomId::new(5).unwrap(), number: 1, backend: DomId::DOM0 };
    let (liveness, _mark) = Liveness::pair().unwrap();
    let (ended, end) = mpsc::channel();
    thread::spawn(move || {
        let limit = Duration::from_millis(100);
        ended.send(Backend::new(&client, device).accept(StreamSpec::default(), limit, liveness))
    });
    let end = end.recv_timeout(SOON).expect("the guest decides how long it waits");
    assert!(matches!(end, Err(XenError::Late { .. })), "{end:?}");
}

/// xenstored tells of a death once. A look that fails has taken the event, and must not be the last one.
#[test]
fn a_look_for_the_dead_that_fails_is_repeated() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let client = Client::over_socket(ours).unwrap();
    let server = thread::spawn(move || {
        let mut looks = 0;
        while let Some((kind, number, transaction, payload)) = next_request(&mut theirs) {
            let answer = match kind {
                2 => {
                    looks += 1;
                    // The thread's start, the peer that is added and the watch that is set ask for three looks at most.
                    if looks <= 3 {
                        message(16, number, transaction, b"ENOMEM\0")
                    } else {
                        message(kind, number, transaction, b"6")
                    }
                }
                _ => message(kind, number, transaction, b"OK\0"),
            };
            theirs.write_all(&answer).unwrap();
            if kind == 4 {
                let token = payload.split(|&byte| byte == 0).nth(1).unwrap();
                let event = [b"/backend/state\0", token, b"\0"].concat();
                theirs.write_all(&message(15, 0, 0, &event)).unwrap();
            }
        }
        looks
    });
    let deaths = super::super::death::Deaths::of_device(&client, "/backend/state").unwrap();
    let liveness = deaths.device().unwrap();
    let begun = Instant::now();
    while !liveness.is_gone() {
        assert!(begun.elapsed() < SOON, "its end is not noticed");
        thread::sleep(Duration::from_millis(10));
    }
    drop((deaths, client));
    assert_eq!(server.join().unwrap(), 4);
}

#[test]
fn only_a_machine_without_a_door_has_no_xen() {
    let of = |errno: Errno| XsError::Connect(errno.into()).is_no_xen();
    assert!([Errno::NOENT, Errno::NODEV, Errno::NXIO].into_iter().all(of));
    assert!(![Errno::AGAIN, Errno::CONNREFUSED, Errno::ACCESS, Errno::MFILE].into_iter().any(of));
    assert!(!XsError::Gone("x".into()).is_no_xen());
}

/// With room for two callers before it. std's has room for `net.core.somaxconn` of them, 4096: more than a user has descriptors.
fn door(path: &Path) -> UnixListener {
    let door = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .unwrap();
    rustix::net::bind(&door, &SocketAddrUnix::new(path).unwrap()).unwrap();
    rustix::net::listen(&door, 1).unwrap();
    door.into()
}

#[test]
fn who_finds_others_before_xenstoreds_door_waits_his_turn_but_not_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    assert_eq!(client::knock(&path, SOON).unwrap_err(), Errno::NOENT);
    let door = door(&path);
    let short = Duration::from_millis(50);
    let _before = [(); 2].map(|()| client::knock(&path, SOON).unwrap());
    assert_eq!(client::knock(&path, short).unwrap_err(), Errno::AGAIN);
    thread::scope(|scope| {
        let waits = scope.spawn(|| client::knock(&path, SOON).map(drop));
        thread::sleep(short);
        door.accept().unwrap();
        waits.join().unwrap().unwrap();
    });
    drop(door);
    assert_eq!(client::knock(&path, SOON).unwrap_err(), Errno::CONNREFUSED);
}

/// A stop and a continuation interrupt a system call that has a limit, without a handler. Source: `signal(7)`.
#[test]
fn a_signal_does_not_send_away_who_waits_before_xenstoreds_door() {
    /// Set in the child process: the door.
    const CHILD: &str = "IDM_TEST_KNOCKS_AT";
    const NAME: &str = "xen::xenstore::tests::a_signal_does_not_send_away_who_waits_before_xenstoreds_door";
    if let Some(path) = std::env::var_os(CHILD) {
        return drop(client::knock(Path::new(&path), SOON).unwrap());
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let door = door(&path);
    let _before = [(); 2].map(|()| client::knock(&path, SOON).unwrap());
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", NAME]).env(CHILD, &path).stdout(Stdio::null());
    let mut child = child.spawn().unwrap();
    let pid = Pid::from_child(&child);
    // The first ones while it starts, the others while it waits.
    for _ in 0..25 {
        assert!(child.try_wait().unwrap().is_none(), "it did not wait: see its message above");
        kill_process(pid, Signal::STOP).unwrap();
        kill_process(pid, Signal::CONT).unwrap();
        thread::sleep(Duration::from_millis(20));
    }
    door.accept().unwrap();
    assert!(child.wait().unwrap().success(), "see its message above");
}
