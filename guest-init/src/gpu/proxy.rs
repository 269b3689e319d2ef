//! The guest's side of the GPU stream: messages of all channels over one byte stream (`vgpu-zone-api`, `guest`).

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::timeout,
};
use vgpu_zone_api::guest::{ChannelId, Frames, Message, ToGuest, ToProxy, wire};

use super::life::Event;

/// Bytes read at once. Messages from the proxy are 16 bytes, but for answers to questions.
const READ_BYTES: usize = 4096;
/// Messages to the proxy that wait for room in the stream.
const QUEUE_MAX: usize = 64;

/// Channels of this guest that the proxy was asked for and has not judged. Their pages belong to no container's memory, and only the proxy
/// knows how many a pod may have: so containers together hold no more than these beyond what it accepted.
const ASKED_MAX: usize = 4;

/// Reaches the proxy while its stream lives. Shared by all sessions.
#[derive(Debug)]
pub struct Proxy {
    link: Mutex<Link>,
    up: watch::Sender<bool>,
    turns: Arc<Semaphore>,
}

/// The right to have pages that the proxy has not judged yet, as long as it is held.
pub type Turn = OwnedSemaphorePermit;

#[derive(Debug, Default)]
struct Link {
    /// None: no stream.
    messages: Option<mpsc::Sender<ToProxy>>,
    /// What the stream's both ends know: `wire::MINOR`.
    minor: u16,
    channels: HashMap<ChannelId, mpsc::UnboundedSender<Event>>,
    last_number: u32,
}

/// A channel's number, and what the proxy says about it. Dropped, the number is free.
#[derive(Debug)]
pub struct Registered {
    proxy: Arc<Proxy>,
    /// Its number.
    pub channel: ChannelId,
    /// Its events, from the proxy's side.
    pub events: mpsc::UnboundedReceiver<Event>,
    /// Whether the proxy answers questions.
    pub answers: bool,
    messages: mpsc::Sender<ToProxy>,
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            link: Mutex::default(),
            up: watch::Sender::default(),
            turns: Arc::new(Semaphore::new(ASKED_MAX)),
        }
    }
}

impl Proxy {
    /// Waits until another channel may be made. None only without the semaphore, which nobody closes.
    pub async fn turn(&self) -> Option<Turn> {
        Arc::clone(&self.turns).acquire_owned().await.ok()
    }

    /// A number for a new channel. None: there is no proxy.
    pub fn register(self: &Arc<Self>) -> Option<Registered> {
        let mut link = self.lock();
        let messages = link.messages.clone()?;
        let channel = link.free_number();
        let (sender, events) = mpsc::unbounded_channel();
        link.channels.insert(channel, sender);
        let answers = link.minor >= wire::MINOR_ASK;
        Some(Registered { proxy: Arc::clone(self), channel, events, answers, messages })
    }

    /// As [`Proxy::register`], waiting for a stream for at most `limit`.
    pub async fn register_soon(self: &Arc<Self>, limit: Duration) -> Option<Registered> {
        let mut up = self.up.subscribe();
        // Past the limit, or when the stream went at once: there is none.
        let _ = timeout(limit, up.wait_for(|up| *up)).await;
        self.register()
    }

    /// Carries messages until the stream ends, then tells every channel. `minor` is the lower one of both hellos. The proxy's bytes are
    /// checked: what is no message ends the stream.
    /// # Errors
    /// Why it ended.
    pub async fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
        minor: u16,
    ) -> io::Result<()> {
        let (mut read, mut write) = tokio::io::split(stream);
        let (sender, mut messages) = mpsc::channel::<ToProxy>(QUEUE_MAX);
        {
            let mut link = self.lock();
            (link.messages, link.minor) = (Some(sender), minor);
        }
        self.up.send_replace(true);
        let sending = async {
            let mut bytes = Vec::new();
            while let Some(message) = messages.recv().await {
                bytes.clear();
                message.encode(&mut bytes);
                write.write_all(&bytes).await?;
                write.flush().await?;
            }
            io::Result::Ok(())
        };
        let ended = tokio::select! {
            ended = sending => ended,
            ended = self.receive(&mut read) => ended,
        };
        self.up.send_replace(false);
        let mut link = self.lock();
        link.messages = None;
        for events in link.channels.values() {
            // A session that is over hears nothing any more: fine.
            let _ = events.send(Event::ProxyGone);
        }
        ended
    }

    async fn receive(&self, read: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        let mut frames = Frames::<ToGuest>::default();
        let mut bytes = [0; READ_BYTES];
        loop {
            let count = read.read(&mut bytes).await?;
            if count == 0 {
                return Ok(());
            }
            frames.push(&bytes[..count]);
            let malformed = |error| io::Error::new(io::ErrorKind::InvalidData, error);
            while let Some(message) = frames.next().map_err(malformed)? {
                self.deliver(message);
            }
        }
    }

    /// A message about a number that is not known crossed our own: nothing to do.
    fn deliver(&self, message: ToGuest) {
        let channel = match message {
            ToGuest::Accepted { channel, .. }
            | ToGuest::Want { channel, .. }
            | ToGuest::Refused { channel, .. }
            | ToGuest::Unmapped { channel }
            | ToGuest::Died { channel, .. }
            | ToGuest::Told { question: channel, .. } => channel,
        };
        if let Some(events) = self.lock().channels.get(&channel) {
            let _ = events.send(Event::Proxy(message));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// Counts up, so that a number is used again as late as possible.
    fn free_number(&mut self) -> ChannelId {
        loop {
            self.last_number = self.last_number.wrapping_add(1);
            if let Some(channel) = ChannelId::new(self.last_number)
                && !self.channels.contains_key(&channel)
            {
                return channel;
            }
        }
    }
}

impl Registered {
    /// Sends a message. A stream that has ended is told by [`Event::ProxyGone`], not here.
    pub async fn send(&self, message: ToProxy) {
        let _ = self.messages.send(message).await;
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.proxy.lock().channels.remove(&self.channel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn channels_hear_of_themselves_and_of_the_proxys_end() {
        let proxy = Arc::new(Proxy::default());
        assert!(proxy.register().is_none(), "no stream yet");
        let (near, mut far) = tokio::io::duplex(1000);
        let serving = Arc::clone(&proxy);
        let served = tokio::spawn(async move { serving.serve(near, wire::MINOR).await });
        tokio::task::yield_now().await;
        let (mut one, mut two) = (proxy.register().unwrap(), proxy.register().unwrap());

        one.send(ToProxy::Close { channel: one.channel }).await;
        let mut frame = [0; 16];
        far.read_exact(&mut frame).await.unwrap();
        assert_eq!(frame[0], 2);

        let accepted = ToGuest::Accepted { channel: two.channel, arena_mib: 0 };
        let mut bytes = Vec::new();
        accepted.encode(&mut bytes);
        far.write_all(&bytes).await.unwrap();
        assert_eq!(two.events.recv().await, Some(Event::Proxy(accepted)));

        far.write_all(&[0xff; 16]).await.unwrap();
        assert!(served.await.unwrap().is_err(), "bytes that are no message end the stream");
        assert_eq!(one.events.recv().await, Some(Event::ProxyGone));
        assert!(proxy.register().is_none());
    }
}
