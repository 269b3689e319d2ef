//! A guest that changes the state of its network devices without end.
//!
//! Each time that a device is closed and connected again, netback maps the guest's rings and binds its ports anew, starts and ends two
//! threads a queue, and reads some twenty nodes of xenstore, all of it by the one thread with which Dom0's kernel serves the devices of all
//! guests; a state that there is none of is a line of its log. No script runs, since ours is none, and our own nodes stay. A driver connects
//! once, and a kernel of a guest closes its devices at its end. Source: Linux, `drivers/net/xen-netback/xenbus.c`.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::Pod;
use crate::link::Link;

/// A guest with all the vifs that it may have makes some 30 at its boot, and the node some 30 when it makes them.
const CHANGES_MAX: u64 = 100;
const SPAN: Duration = Duration::from_secs(60);

/// What a guest does to its vifs, also while nobody looks yet.
#[derive(Debug)]
pub(super) struct Changes {
    count: watch::Receiver<u64>,
    before: u64,
}

impl Changes {
    /// Counts from now on. Blocks.
    pub(super) fn from_now(link: &dyn Link, domid: u16, vifs: usize) -> Self {
        let count = link.vif_changes(domid, vifs);
        let before = *count.borrow();
        Changes { count, before }
    }
}

impl Pod {
    /// Ends a guest that changes the state of its vifs more than 100 times in a minute.
    pub(super) async fn watch_vifs(self: Arc<Self>, changes: Changes) {
        let Changes { mut count, mut before } = changes;
        loop {
            let many = count.wait_for(|count| count.saturating_sub(before) > CHANGES_MAX);
            let waited = tokio::time::timeout(SPAN, many).await.map(|many| many.map(drop));
            match waited {
                Err(_) => before = *count.borrow(),
                // Nobody counts.
                Ok(Err(_)) => return,
                Ok(Ok(())) => {
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
