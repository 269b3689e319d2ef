//! The outbox: one queue and one sender, so that containerd gets the events in order, also over its own restart.
//!
//! The head of the queue stays until it is accepted. The queue is bounded in number and each event in time: containerd asks for State
//! again when it comes back, so what is lost then is late news.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use containerd_shim_protos::{
    protobuf::{MessageField, MessageFull, well_known_types::any::Any},
    shim::event::Envelope,
    shim_async::EventsClient,
};
use protobuf::well_known_types::timestamp::Timestamp;
use tokio::{
    sync::{Mutex, Notify, watch},
    time::Instant,
};

use crate::ask;

/// Events that wait. The oldest one goes when there are more.
const EVENTS_MAX: usize = 1024;
/// One attempt.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Between attempts, while containerd is away.
const PAUSE: Duration = Duration::from_millis(500);
/// How long one event is tried: longer than a restart of containerd takes.
const GIVE_UP: Duration = Duration::from_secs(300);

/// Where events are left. Clones share one queue.
#[derive(Clone, Debug)]
pub struct Outbox {
    namespace: Arc<str>,
    queue: Arc<std::sync::Mutex<VecDeque<Envelope>>>,
    filled: Arc<Notify>,
    /// How many events were accepted or given up.
    settled: watch::Receiver<u64>,
}

impl Outbox {
    /// An outbox that sends to containerd's ttrpc socket at `address`; with an empty one events are only logged (CRI-O).
    pub fn new(namespace: &str, address: &str) -> Outbox {
        let (count, settled) = watch::channel(0);
        let outbox =
            Outbox { namespace: namespace.into(), queue: Arc::default(), filled: Arc::default(), settled };
        tokio::spawn(send_all(outbox.clone(), address.to_owned(), count));
        outbox
    }

    /// Leaves an event. Never waits; the order of calls is the order of arrival.
    pub fn publish<M: MessageFull>(&self, topic: &str, event: &M) {
        let Ok(value) = event.write_to_bytes() else { return };
        // containerd's typeurl writes the bare name of the message.
        let event = Any { type_url: M::descriptor().full_name().to_owned(), value, ..Any::default() };
        let envelope = Envelope {
            timestamp: MessageField::some(Timestamp::now()),
            namespace: self.namespace.to_string(),
            topic: topic.to_owned(),
            event: MessageField::some(event),
            ..Envelope::default()
        };
        log::debug!("event {topic}");
        let mut queue = self.queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if queue.len() == EVENTS_MAX {
            log::warn!("containerd takes no events: the oldest is lost");
            queue.pop_front();
        }
        queue.push_back(envelope);
        self.filled.notify_one();
    }

    /// Waits until everything is sent, for `limit` at most.
    pub async fn drain(&self, limit: Duration) {
        let mut settled = self.settled.clone();
        let empty = async {
            while !self.queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).is_empty() {
                if settled.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(limit, empty).await.is_err() {
            log::warn!("events are left that containerd did not take");
        }
    }

    fn head(&self) -> Option<Envelope> {
        self.queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).front().cloned()
    }

    /// Removes the head that was sent, unless a full queue dropped it meanwhile.
    fn settle(&self, sent: &Envelope) {
        let mut queue = self.queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if queue.front() == Some(sent) {
            queue.pop_front();
        }
    }
}

/// The one sender. It ends with the process.
async fn send_all(outbox: Outbox, address: String, settled: watch::Sender<u64>) {
    let connection = Mutex::new(None);
    loop {
        let Some(head) = outbox.head() else {
            outbox.filled.notified().await;
            continue;
        };
        let deadline = Instant::now() + GIVE_UP;
        while !address.is_empty() && !send(&connection, &address, &head).await {
            if Instant::now() >= deadline {
                log::warn!("containerd did not take the event {} within {} s", head.topic, GIVE_UP.as_secs());
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        outbox.settle(&head);
        settled.send_modify(|count| *count += 1);
    }
}

/// One attempt; a connection that failed is not used again.
async fn send(connection: &Mutex<Option<EventsClient>>, address: &str, envelope: &Envelope) -> bool {
    let mut connection = connection.lock().await;
    if connection.is_none() {
        match ask::connect(address.trim_start_matches("unix://").as_ref()).await {
            Ok(client) => *connection = Some(EventsClient::new(client)),
            Err(error) => {
                log::debug!("no connection to containerd: {error}");
                return false;
            }
        }
    }
    let Some(client) = connection.as_ref() else { return false };
    let mut request = containerd_shim_protos::shim::events::ForwardRequest::new();
    request.envelope = MessageField::some(envelope.clone());
    let forward = client.forward(ttrpc::context::Context::default(), &request);
    match tokio::time::timeout(ATTEMPT, forward).await {
        Ok(Ok::<containerd_shim_protos::api::Empty, _>(_)) => true,
        Ok(Err(ttrpc::Error::RpcStatus(status))) => {
            // containerd read it and does not want it: sending it again changes nothing.
            log::warn!("containerd refused the event {}: {}", envelope.topic, status.message);
            true
        }
        _ => {
            *connection = None;
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, path::Path, sync::Mutex as StdMutex};

    use async_trait::async_trait;
    use containerd_shim_protos::{
        api::Empty,
        events::task::TaskOOM,
        shim::events::ForwardRequest,
        shim_async::{Events, create_events},
    };
    use ttrpc::r#async::{Server, TtrpcContext, transport::Listener};

    use super::*;

    #[derive(Default)]
    struct Heard(StdMutex<Vec<String>>);

    #[async_trait]
    impl Events for Heard {
        async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
            assert_eq!(request.envelope.event.type_url, "containerd.events.TaskOOM");
            self.0.lock().unwrap().push(request.envelope.topic.clone());
            Ok(Empty::default())
        }
    }

    async fn containerd(socket: &Path, heard: &Arc<Heard>) -> Server {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        let mut server = Server::new()
            .add_listener(Listener::try_from(listener).unwrap())
            .register_service(create_events(heard.clone()));
        server.start().await.unwrap();
        server
    }

    #[tokio::test]
    async fn the_order_is_kept_over_a_restart_of_containerd() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, heard) = (dir.path().join("c.sock"), Arc::new(Heard::default()));
        let outbox = Outbox::new("default", &socket.to_string_lossy());
        let publish = |topics: std::ops::Range<u32>| {
            topics.for_each(|n| outbox.publish(&n.to_string(), &TaskOOM::default()))
        };
        // Nobody is there yet; then containerd comes, goes, and comes again.
        publish(0..3);
        let mut first = containerd(&socket, &heard).await;
        outbox.drain(Duration::from_secs(10)).await;
        first.disconnect().await;
        drop(first);
        std::fs::remove_file(&socket).unwrap();
        publish(3..6);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let _second = containerd(&socket, &heard).await;
        publish(6..9);
        outbox.drain(Duration::from_secs(10)).await;
        let expected: Vec<String> = (0..9).map(|n: u32| n.to_string()).collect();
        assert_eq!(*heard.0.lock().unwrap(), expected);
    }

    #[tokio::test]
    async fn a_queue_that_nobody_empties_is_bounded_and_keeps_the_newest() {
        let outbox = Outbox::new("default", "/nonexistent/c.sock");
        (0..EVENTS_MAX + 10).for_each(|n| outbox.publish(&n.to_string(), &TaskOOM::default()));
        let queue = outbox.queue.lock().unwrap();
        assert_eq!((queue.len(), queue.back().unwrap().topic.as_str()), (EVENTS_MAX, "1033"));
    }
}
