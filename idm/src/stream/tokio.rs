//! Streams for tasks: `AsyncRead` and `AsyncWrite`.
//!
//! One task per stream waits for the doorbell and wakes whoever reads or writes, for both halves wait on the same descriptor.

use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::task::JoinHandle;
use tokio::task::coop::poll_proceed;

use super::{Core, Stream};
use crate::error::ChannelError;
use crate::sync::{Mutex, lock};

/// A [`Stream`] for tasks. `tokio::io::split` gives its halves; shutting the writing down is [`Stream::finish`].
#[derive(Debug)]
pub struct AsyncStream {
    core: Arc<Core>,
    wakers: Arc<Mutex<Wakers>>,
    bell_task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Wakers {
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Wakers {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

impl AsyncStream {
    /// Takes the stream over. The caller is in a tokio runtime with I/O.
    ///
    /// # Errors
    /// Those of `dup` and epoll.
    pub fn new(stream: Stream) -> io::Result<Self> {
        let core = stream.core;
        let (waiter, liveness) = core.hub.sources();
        let bell = watch(rustix::io::fcntl_dupfd_cloexec(waiter.fd(), 0)?)?;
        let death = liveness.map(|l| watch(rustix::io::fcntl_dupfd_cloexec(l.fd(), 0)?)).transpose()?;
        waiter.rearm()?;
        let wakers = Arc::new(Mutex::new(Wakers::default()));
        let bell_task = tokio::spawn(answer_bell(bell, death, core.clone(), wakers.clone()));
        Ok(Self { core, wakers, bell_task })
    }

    /// Tries; when there is nothing to do yet, leaves the waker and tries again, for the peer may have moved meanwhile.
    ///
    /// A peer that always has the next byte, or room for it, would keep its task on the thread for ever: each step takes of the task's
    /// budget.
    fn poll_step(
        &self,
        cx: &mut Context<'_>,
        waker: fn(&mut Wakers) -> &mut Option<Waker>,
        mut step: impl FnMut(&Core) -> Result<Option<usize>, ChannelError>,
    ) -> Poll<io::Result<usize>> {
        let budget = ready!(poll_proceed(cx));
        let mut done = step(&self.core).transpose();
        if done.is_none() {
            *waker(&mut lock(&self.wakers)) = Some(cx.waker().clone());
            self.core.hub.announce(self.core.region.word(self.core.mine.parked));
            done = step(&self.core).transpose();
        }
        let Some(done) = done else { return Poll::Pending };
        budget.made_progress();
        Poll::Ready(done.map_err(Into::into))
    }
}

impl AsyncRead for AsyncStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let to = buf.initialize_unfilled();
        let step = |core: &Core| core.step_read(&mut lock(&core.reader), to);
        let read = self.poll_step(cx, |wakers| &mut wakers.reader, step);
        read.map_ok(|count| buf.advance(count))
    }
}

impl AsyncWrite for AsyncStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let step = |core: &Core| core.step_write(&mut lock(&core.writer), from);
        self.poll_step(cx, |wakers| &mut wakers.writer, step)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.core.finish().map_err(Into::into))
    }
}

impl Drop for AsyncStream {
    fn drop(&mut self) {
        // The task holds the core: without this the peer would never hear of our end.
        self.bell_task.abort();
        self.core.leave();
    }
}

fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd answers with the same open descriptor as long as it lives, and `AsyncFd` owns it from here on.
    let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    Ok(watched?)
}

/// Wakes both halves at each ring, until the peer is gone.
async fn answer_bell(
    bell: AsyncFd<OwnedFd>,
    death: Option<AsyncFd<OwnedFd>>,
    core: Arc<Core>,
    wakers: Arc<Mutex<Wakers>>,
) {
    loop {
        let gone = poll_fn(|cx| {
            let died = death.as_ref().map_or(Poll::Pending, |d| d.poll_read_ready(cx).map(|_| ()));
            if died.is_ready() {
                return Poll::Ready(true);
            }
            // A failed descriptor cannot wake anyone again: as good as gone.
            bell.poll_read_ready(cx).map(|ready| ready.map(|mut guard| guard.clear_ready()).is_err())
        })
        .await;
        let (waiter, _) = core.hub.sources();
        let deaf = waiter.drain().is_err() || waiter.rearm().is_err();
        if gone || deaf {
            core.hub.set_gone();
        }
        lock(&wakers).wake();
        if gone || deaf {
            return;
        }
    }
}
