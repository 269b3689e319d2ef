//! Tells the shim when the kernel killed a process because its container's memory limit was reached.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::fs::inotify;
use tokio::{sync::Notify, time::timeout};

use crate::{cgroup::Cgroup, sys};

/// Containers with a new OOM kill, in order; each waits here until the shim asks.
#[derive(Debug, Default)]
pub struct OomQueue {
    containers: Mutex<VecDeque<String>>,
    arrived: Notify,
}

/// Events that nobody fetched. A pod that reaches this is killed over and over: one more tells nothing new.
const QUEUE_MAX: usize = 256;

impl OomQueue {
    fn push(&self, container: &str) {
        let mut queue = self.containers.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() < QUEUE_MAX {
            queue.push_back(container.to_owned());
        }
        drop(queue);
        self.arrived.notify_one();
    }

    /// The next container, or `None` after `limit`.
    pub async fn next(&self, limit: Duration) -> Option<String> {
        let wait = async {
            loop {
                if let Some(container) =
                    self.containers.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
                {
                    return container;
                }
                self.arrived.notified().await;
            }
        };
        timeout(limit, wait).await.ok()
    }
}

/// Compares the kernel's counter with what was queued already.
#[derive(Debug)]
pub struct OomWatch {
    container: String,
    cgroup: Cgroup,
    queue: Arc<OomQueue>,
    told: Mutex<u64>,
}

impl OomWatch {
    /// For one container.
    pub fn new(container: String, cgroup: Cgroup, queue: Arc<OomQueue>) -> Self {
        Self { container, cgroup, queue, told: Mutex::new(0) }
    }

    /// Checks at each change that the kernel announces, until the cgroup is gone or the task is ended.
    /// # Errors
    /// The file cannot be watched. The check at an exit is left.
    pub async fn follow(self: Arc<Self>) -> io::Result<()> {
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&inotify, self.cgroup.memory_events_file(), inotify::WatchFlags::MODIFY)?;
        let changes = sys::watch(File::from(inotify))?;
        let mut events = [0; 1024];
        loop {
            let mut ready = changes.readable().await?;
            match ready.try_io(|file| file.get_ref().read(&mut events)) {
                Ok(Ok(_)) => self.check(),
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }

    /// Queues an event if there is a new kill. Also called before an exit is told, for a shim that does not ask.
    pub fn check(&self) {
        self.kills();
    }

    /// How many there were so far. Also after the cgroup is gone; none without the memory controller.
    pub fn kills(&self) -> u64 {
        let kills = self.cgroup.oom_kills().unwrap_or(0);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if kills > *told {
            *told = kills;
            // Also where it is the shim that asks: the answer may not reach it.
            self.queue.push(&self.container);
        }
        *told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_wait_for_the_shim_in_order() {
        let queue = OomQueue::default();
        queue.push("a");
        queue.push("b");
        assert_eq!(queue.next(Duration::from_secs(1)).await.as_deref(), Some("a"));
        assert_eq!(queue.next(Duration::from_secs(1)).await.as_deref(), Some("b"));
        assert_eq!(queue.next(Duration::from_millis(10)).await, None);
    }
}
