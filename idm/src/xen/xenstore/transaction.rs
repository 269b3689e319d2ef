//! Several changes that others see together or not at all.

use std::cell::Cell;
use std::thread;
use std::time::Duration;

use super::super::metrics::COUNTERS;
use super::client::Client;
use super::wire::{Op, Refusal};
use super::{Store, XsError, decimal};

/// How often a transaction is tried. Conflicts come from others who change the same nodes, and pass.
const TRIES_MAX: u32 = 12;

/// An open transaction; its nodes are this transaction's own view.
#[derive(Debug)]
pub struct Transaction<'a> {
    client: &'a Client,
    id: u32,
    open: Cell<bool>,
}

impl Client {
    /// Runs `changes` in a transaction and commits; again, if others changed the same nodes meanwhile. Keep it short, and let it
    /// change nothing but the tree.
    ///
    /// # Errors
    /// The error of `changes` (nothing is then changed); [`XsError::Conflicts`] after 12 tries.
    pub fn transaction<T>(
        &self,
        changes: impl Fn(&Transaction<'_>) -> Result<T, XsError>,
    ) -> Result<T, XsError> {
        for tried in 0..TRIES_MAX {
            let transaction = self.begin()?;
            let result = changes(&transaction)?; // an error aborts it, on drop
            match transaction.end(true) {
                Ok(()) => return Ok(result),
                Err(XsError::Refused { refusal: Refusal::Again, .. }) => {
                    COUNTERS.xenstore_conflicts.add(1);
                    // Spread out those who collide: 1 ms, then twice as long each time, up to 64.
                    thread::sleep(Duration::from_millis(1 << tried.min(6)));
                }
                Err(error) => return Err(error),
            }
        }
        Err(XsError::Conflicts(TRIES_MAX))
    }

    fn begin(&self) -> Result<Transaction<'_>, XsError> {
        let answer = self.request(Op::TransactionStart, 0, "/", &[b"\0"])?;
        let id = decimal(answer.strip_suffix(b"\0").unwrap_or(&answer), u32::MAX);
        let id =
            id.filter(|&id| id != 0).ok_or_else(|| XsError::value("/", &answer, "a transaction's id"))?;
        Ok(Transaction { client: self, id, open: Cell::new(true) })
    }
}

impl Transaction<'_> {
    fn end(&self, commit: bool) -> Result<(), XsError> {
        self.open.set(false);
        let word: &[u8] = if commit { b"T\0" } else { b"F\0" };
        self.client.request(Op::TransactionEnd, self.id, "/", &[word]).map(drop)
    }
}

impl Store for Transaction<'_> {
    fn ask(&self, op: Op, path: &str, payload: &[&[u8]]) -> Result<Vec<u8>, XsError> {
        self.client.request(op, self.id, path, payload)
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.open.get() {
            // If even this fails the connection is gone, and the transaction with it.
            let _ = self.end(false);
        }
    }
}
