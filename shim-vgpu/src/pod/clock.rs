//! The guest's clock. Its kernel counts on from the hello; Dom0's clock is kept right by NTP, and set by people.

use std::{fs::File, io, sync::Arc, time::Duration};

use rustix::{
    io::Errno,
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec},
};
use tokio::{io::AsyncReadExt as _, net::unix::pipe};

use super::Pod;

/// In this time NTP moves a clock by 30 ms (500 ppm).
const EVERY: Duration = Duration::from_secs(60);
/// After a word that was late, which may have made a right clock wrong, or was not answered, and may yet.
const AGAIN: Duration = Duration::from_secs(1);

impl Pod {
    /// Keeps it, while there is a guest.
    pub(super) async fn keep_clock(self: Arc<Self>) {
        let mut steps = Steps::watch().inspect_err(|error| {
            log::warn!("a step of the clock reaches the guest within {} s only: {error}", EVERY.as_secs());
        });
        let mut pause = EVERY;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.clock.notified() => {}
                () = stepped(steps.as_mut().ok()) => {}
            }
            if self.guest().is_err() {
                return;
            }
            pause = if self.set_clock().await { EVERY } else { AGAIN };
        }
    }

    /// Sets it, if the guest finds it wrong. False: it may be wrong now.
    async fn set_clock(&self) -> bool {
        let Ok(guest) = self.guest() else { return true };
        guest.set_clock().await.unwrap_or_else(|error| {
            log::debug!("the guest's clock: {error}");
            false
        })
    }
}

/// Resolves when the node's clock is stepped; never, where nobody tells.
async fn stepped(steps: Option<&mut Steps>) {
    if let Some(steps) = steps
        && steps.next().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// A timer that never comes, and which the kernel cancels when the clock is stepped. Source: `timerfd_create(2)`, TFD_TIMER_CANCEL_ON_SET.
/// It is read as a pipe is: what tokio has for any descriptor is unsafe code.
struct Steps(pipe::Receiver);

impl Steps {
    fn watch() -> io::Result<Steps> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Realtime, flags)?;
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        let never = Itimerspec { it_interval: none, it_value: Timespec { tv_sec: i64::MAX, ..none } };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        rustix::time::timerfd_settime(&timer, flags, &never)?;
        pipe::Receiver::from_file_unchecked(File::from(timer)).map(Steps)
    }

    /// Waits for the next one. The timer goes on.
    async fn next(&mut self) -> io::Result<()> {
        match self.0.read(&mut [0; 8]).await {
            Err(error) if error.raw_os_error() == Some(Errno::CANCELED.raw_os_error()) => Ok(()),
            read => read.map(drop),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use rustix::{
        fs::{FlockOperation, flock},
        time::{ClockId, clock_gettime, clock_settime},
    };

    use super::*;

    /// Every shim of the machine hears that its clock is set: who sets it is alone, and who counts shares.
    pub fn turn(operation: FlockOperation) -> File {
        let file = File::create(std::env::temp_dir().join("vgpu-test-clock")).unwrap();
        flock(&file, operation).unwrap();
        file
    }

    /// Sets the clock to what it is: that is a step, too.
    #[tokio::test]
    async fn each_step_of_the_clock_is_told() {
        let _alone = turn(FlockOperation::LockExclusive);
        let mut steps = Steps::watch().unwrap();
        let mut told = async || tokio::time::timeout(Duration::from_millis(200), steps.next()).await;
        assert!(told().await.is_err(), "nobody has set it");
        for _ in 0..2 {
            if let Err(error) = clock_settime(ClockId::Realtime, clock_gettime(ClockId::Realtime)) {
                eprintln!("NOT TRIED: {}: the clock cannot be set here: {error}", file!());
                return;
            }
            told().await.expect("it was set").unwrap();
        }
    }
}
