//! A guest that changes the state of its network devices without end.
//!
//! Each time that a device is closed and connected again, netback maps the guest's rings and binds its ports anew, starts and ends two
//! threads a queue, and reads some twenty nodes of xenstore, all of it by the one thread with which Dom0's kernel serves the devices of all
//! guests; a state that there is none of is a line of its log. No script runs, since ours is none, and our own nodes stay. A driver connects
//! once, and a kernel of a guest closes its devices at its end. Source: Linux, `drivers/net/xen-netback/xenbus.c`.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::Pod;

/// A guest with all the vifs that it may have makes some 30 at its boot.
const CHANGES_MAX: u64 = 100;
const SPAN: Duration = Duration::from_secs(60);

impl Pod {
    /// Ends a guest that changes the state of its vifs more than 100 times in a minute.
    pub(super) async fn watch_vifs(self: Arc<Self>, mut changes: watch::Receiver<u64>) {
        loop {
            let before = *changes.borrow_and_update();
            let many = changes.wait_for(|count| count.saturating_sub(before) > CHANGES_MAX);
            match tokio::time::timeout(SPAN, many).await {
                Err(_) => {}
                // Nobody counts.
                Ok(Err(_)) => return,
                Ok(Ok(_)) => {
                    log::warn!(
                        "the guest has changed the state of its vifs more than {CHANGES_MAX} times within {} s: \
                         the pod is ended",
                        SPAN.as_secs()
                    );
                    // In a task of its own: ending the sandbox aborts this one.
                    tokio::spawn(self.guest_died());
                    return;
                }
            }
        }
    }
}
