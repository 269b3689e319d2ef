//! The messages of one stream, and the lives of its channels.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use vgpu_codes::Code;
use vgpu_zone_api::guest::facts::Facts;
use vgpu_zone_api::guest::{ChannelId, Connect, ContainerId, Frames, Message, ToGuest, ToProxy};

use super::arena::{Granted, GuestArena};
use super::is_set;
use crate::supervisor::channel_pages;
use crate::supervisor::pace::Pace;
use crate::supervisor::refusal::Refusal;
use crate::supervisor::zone_log::ZoneLog;

/// Bytes read at once.
const READ_BYTES: usize = 16 << 10;
/// Answers that wait for room in the stream. A guest that does not read stops being read.
const ANSWERS_MAX: usize = 64;
/// Channels of one stream beyond which a `Connect` is not even tried: those being set up and taken down are among them.
const CHANNELS_MAX: usize = 256;
/// What the guest said of a channel's chunks and nobody has looked at yet: one is waited for at a time.
const GRANTS_MAX: usize = 4;
/// Questions of one stream that wait for their turn, beyond which one is refused.
const QUESTIONS_MAX: usize = 32;

/// What makes workers for a stream's channels and answers its questions. Over a trait so that the stream is tested without Xen.
pub(super) trait Channels: Send + Sync + 'static {
    type Worker: Worker;
    /// A worker, and the arena that it may have.
    fn start(
        &self,
        connect: Connect,
    ) -> impl Future<Output = Result<(Self::Worker, Option<GuestArena>), Refusal>> + Send;
    fn facts(&self, container: ContainerId) -> impl Future<Output = Result<Facts, Refusal>> + Send;
}

/// A worker, as a stream sees it.
pub(super) trait Worker: Send + 'static {
    fn kill(&self);
    fn ended(&mut self) -> impl Future<Output = ()> + Send;
}

/// Serves the messages of one stream. Its workers are reaped when it returns.
///
/// `Ok`: the guest ended the stream. `Err`: it broke the protocol.
pub(super) async fn messages<C: Channels>(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    channels: Arc<C>,
    bounds: Arc<Bounds>,
) -> Result<(), String> {
    let (mut read, write) = tokio::io::split(stream);
    let (answers, queue) = mpsc::channel::<ToGuest>(ANSWERS_MAX);
    let mut lives = JoinSet::new();
    let mut questions = JoinSet::new();
    let mut open: HashMap<ChannelId, Open> = HashMap::new();
    let mut frames = Frames::<ToProxy>::default();
    let mut bytes = vec![0; READ_BYTES];
    let reading = async {
        loop {
            let count = tokio::select! {
                count = read.read(&mut bytes) => count,
                Some(over) = lives.join_next() => {
                    if let Ok(channel) = over {
                        open.remove(&channel);
                    }
                    continue;
                }
                Some(_) = questions.join_next() => continue,
            };
            match count {
                Ok(0) | Err(_) => break Ok(()),
                Ok(count) => frames.push(&bytes[..count]),
            }
            let taken =
                take(&mut frames, &bounds, &mut open, &mut lives, &mut questions, &channels, &answers).await;
            if let Err(why) = taken {
                break Err(why);
            }
        }
    };
    // Side by side and not in tasks: who gives up the stream has let go of its pages.
    let ended = tokio::select! {
        ended = reading => ended,
        never = write_all(write, queue) => match never {},
    };
    open.values().for_each(Open::close);
    drop((answers, questions));
    while lives.join_next().await.is_some() {}
    ended
}

/// Writes answers as long as the guest takes them. One that is gone is noticed by the reading side, so this never returns.
async fn write_all(write: impl AsyncWrite, queue: mpsc::Receiver<ToGuest>) -> Infallible {
    write_until_gone(write, queue).await;
    std::future::pending().await
}

async fn write_until_gone(write: impl AsyncWrite, mut queue: mpsc::Receiver<ToGuest>) {
    let mut write = std::pin::pin!(write);
    let mut bytes = Vec::new();
    while let Some(answer) = queue.recv().await {
        bytes.clear();
        answer.encode(&mut bytes);
        if write.write_all(&bytes).await.is_err() || write.flush().await.is_err() {
            return;
        }
    }
}

/// What a zone's streams share, one after the other: a guest that opens a new one begins nothing anew.
#[derive(Debug)]
pub(super) struct Bounds {
    births: Pace,
    answers: Pace,
    chunks: Pace,
    pub log: Arc<ZoneLog>,
}

impl Bounds {
    pub fn new(log: Arc<ZoneLog>) -> Self {
        Self { births: Pace::of_births(), answers: Pace::of_answers(), chunks: Pace::of_chunks(), log }
    }
}

/// Acts on every message that is complete.
async fn take<C: Channels>(
    frames: &mut Frames<ToProxy>,
    bounds: &Arc<Bounds>,
    open: &mut HashMap<ChannelId, Open>,
    lives: &mut JoinSet<ChannelId>,
    questions: &mut JoinSet<()>,
    channels: &Arc<C>,
    answers: &mpsc::Sender<ToGuest>,
) -> Result<(), String> {
    while let Some(message) = frames.next().map_err(|error| error.to_string())? {
        match message {
            // Looked at before it waits for its turn: what waits is kept.
            ToProxy::Connect(connect) if connect.refs.len() as u64 != channel_pages() => {
                let code = u32::from(Code::ProtocolBroken as u16);
                let (channel, pages) = (connect.channel, connect.refs.len());
                bounds.log.warn(format_args!(
                    "channel {channel}: refused: {pages} pages, a channel has {}",
                    channel_pages()
                ));
                // The writer ends only with the stream.
                let _ = answers.send(ToGuest::Refused { channel: connect.channel, code }).await;
            }
            ToProxy::Connect(connect) if open.contains_key(&connect.channel) => {
                // A channel that has just ended is taken out first: its number is the guest's again since `Unmapped`.
                while let Some(over) = lives.try_join_next() {
                    if let Ok(channel) = over {
                        open.remove(&channel);
                    }
                }
                if open.contains_key(&connect.channel) {
                    return Err(format!("the guest uses channel {} twice", connect.channel));
                }
                begin(connect, bounds, open, lives, channels, answers);
            }
            ToProxy::Connect(connect) if open.len() >= CHANNELS_MAX => {
                let code = u32::from(Code::LimitReached as u16);
                let channel = connect.channel;
                bounds.log.warn(format_args!("channel {channel}: refused: {CHANNELS_MAX} are open"));
                let _ = answers.send(ToGuest::Refused { channel: connect.channel, code }).await;
            }
            ToProxy::Connect(connect) => begin(connect, bounds, open, lives, channels, answers),
            // One that is not open crossed our own `Died` or `Refused`.
            ToProxy::Close { channel } => {
                if let Some(open) = open.get(&channel) {
                    open.close();
                }
            }
            ToProxy::Chunk { channel, chunk, refs } => granted(open, channel, chunk, Some(refs)),
            ToProxy::Lack { channel, chunk } => granted(open, channel, chunk, None),
            ToProxy::Ask { question, .. } if questions.len() >= QUESTIONS_MAX => {
                let code = u32::from(Code::LimitReached as u16);
                let _ = answers.send(ToGuest::Told { question, code, answer: Vec::new() }).await;
            }
            ToProxy::Ask { question, container } => {
                let (bounds, channels, answers) = (Arc::clone(bounds), Arc::clone(channels), answers.clone());
                questions.spawn(async move {
                    let told = tell(question, container, &bounds, channels.as_ref()).await;
                    let _ = answers.send(told).await;
                });
            }
        }
    }
    Ok(())
}

/// Passes on what the guest says of a chunk. What nobody waits for is left lying once there is some of it.
fn granted(open: &HashMap<ChannelId, Open>, channel: ChannelId, chunk: u32, refs: Option<Vec<u32>>) {
    if let Some(open) = open.get(&channel) {
        let _ = open.granted.try_send(Granted { chunk, refs });
    }
}

/// Answers a question when it is its turn.
async fn tell<C: Channels>(
    question: ChannelId,
    container: ContainerId,
    bounds: &Bounds,
    channels: &C,
) -> ToGuest {
    bounds.answers.wait().await;
    match channels.facts(container).await {
        Ok(facts) => ToGuest::Told { question, code: 0, answer: facts.encode() },
        Err(refusal) => {
            bounds.log.warn(format_args!("question {question}: refused: {refusal}"));
            ToGuest::Told { question, code: u32::from(refusal.code as u16), answer: Vec::new() }
        }
    }
}

fn begin<C: Channels>(
    connect: Connect,
    bounds: &Arc<Bounds>,
    open: &mut HashMap<ChannelId, Open>,
    lives: &mut JoinSet<ChannelId>,
    channels: &Arc<C>,
    answers: &mpsc::Sender<ToGuest>,
) {
    let (close, closed) = watch::channel(false);
    let (granted, grants) = mpsc::channel(GRANTS_MAX);
    open.insert(connect.channel, Open { close, granted });
    lives.spawn(life(connect, Arc::clone(bounds), Arc::clone(channels), answers.clone(), (closed, grants)));
}

/// How the life of a channel is reached.
#[derive(Debug)]
struct Open {
    close: watch::Sender<bool>,
    granted: mpsc::Sender<Granted>,
}

impl Open {
    fn close(&self) {
        self.close.send_replace(true);
    }
}

/// The life of one channel, as drawn in `vgpu_zone_api::guest`.
async fn life<C: Channels>(
    connect: Connect,
    bounds: Arc<Bounds>,
    channels: Arc<C>,
    answers: mpsc::Sender<ToGuest>,
    (mut closed, mut granted): (watch::Receiver<bool>, mpsc::Receiver<Granted>),
) -> ChannelId {
    let channel = connect.channel;
    // Answers that cannot be sent have nobody to read them: the stream is over.
    tokio::select! {
        biased;
        () = is_set(&mut closed) => {
            let code = u32::from(Code::PeerGone as u16);
            let _ = answers.send(ToGuest::Refused { channel, code }).await;
            return channel;
        }
        () = bounds.births.wait() => {}
    }
    let (mut worker, arena) = match channels.start(connect).await {
        Ok(started) => started,
        Err(refusal) => {
            bounds.log.warn(format_args!("channel {channel}: refused: {refusal}"));
            let code = u32::from(refusal.code as u16);
            let _ = answers.send(ToGuest::Refused { channel, code }).await;
            return channel;
        }
    };
    let arena_mib = arena.as_ref().map_or(0, GuestArena::mib);
    let _ = answers.send(ToGuest::Accepted { channel, arena_mib }).await;
    let chunks = async {
        match &arena {
            Some(arena) => arena.serve(channel, &answers, &mut granted, &bounds.chunks).await,
            None => std::future::pending().await,
        }
    };
    let has_died = tokio::select! {
        () = worker.ended() => true,
        // The sender goes only with the stream: then as well.
        () = is_set(&mut closed) => {
            worker.kill();
            worker.ended().await;
            false
        }
        never = chunks => match never {},
    };
    // Before anything is said: its pages are counted no longer, and a guest that does not listen would keep them mapped.
    if let Some(arena) = arena {
        arena.end().await;
    }
    if has_died {
        let code = u32::from(Code::WorkerFailed as u16);
        let _ = answers.send(ToGuest::Died { channel, code }).await;
    }
    let _ = answers.send(ToGuest::Unmapped { channel }).await;
    channel
}

#[cfg(test)]
mod tests;
