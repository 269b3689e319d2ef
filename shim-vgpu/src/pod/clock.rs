//! The guest's clock. Its kernel counts on from the hello; Dom0's clock is kept right by NTP, and set by people.

use std::{sync::Arc, time::Duration};

use super::Pod;

/// In this time NTP moves a clock by 30 ms (500 ppm); a step of the node's comes to the guest as late as this. To watch a timer that the
/// kernel ends at a step needs unsafe code.
const EVERY: Duration = Duration::from_secs(60);

impl Pod {
    /// Keeps it, while there is a guest.
    pub(super) async fn keep_clock(self: Arc<Self>) {
        loop {
            tokio::time::sleep(EVERY).await;
            if self.guest().is_err() {
                return;
            }
            self.set_clock().await;
        }
    }

    /// Sets it, if the guest finds it wrong.
    pub(super) async fn set_clock(&self) {
        let Ok(guest) = self.guest() else { return };
        if let Err(error) = guest.set_clock().await {
            log::debug!("the guest's clock: {error}");
        }
    }
}
