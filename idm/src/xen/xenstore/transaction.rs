//! Several changes that others see together or not at all.

use std::cell::Cell;
use std::thread;
use std::time::Duration;

use super::super::metrics::COUNTERS;
use super::client::{Client, Turn};
use super::wire::{Op, Refusal};
use super::{Store, XsError, decimal};

/// How often a transaction is tried. Conflicts come from others who change the same nodes, refusals to begin one from others of this
/// domain who have too many open; both pass.
const TRIES_MAX: u32 = 12;

/// An open transaction; its nodes are this transaction's own view.
#[derive(Debug)]
pub struct Transaction<'a> {
    client: &'a Client,
    id: u32,
    open: Cell<bool>,
    /// A domain may have ten transactions open, of all its connections: this connection has one, and its other callers wait.
    _turn: Turn<'a>,
}

impl Client {
    /// Runs `changes` in a transaction and commits; again, if others changed the same nodes meanwhile. Keep it short, and let it
    /// change nothing but the tree: the other transactions of this connection wait for its end, so one inside of it would for ever.
    ///
    /// # Errors
    /// The error of `changes` (nothing is then changed); after 12 tries [`XsError::Conflicts`], or xenstored's refusal to begin.
    pub fn transaction<T>(
        &self,
        changes: impl Fn(&Transaction<'_>) -> Result<T, XsError>,
    ) -> Result<T, XsError> {
        let mut last = XsError::Conflicts(TRIES_MAX);
        for tried in 0..TRIES_MAX {
            match self.try_once(&changes)? {
                Ok(result) => return Ok(result),
                Err(passing) => last = passing,
            }
            COUNTERS.xenstore_conflicts.add(1);
            // Spread out those who collide: 1 ms, then twice as long each time, up to 64.
            thread::sleep(Duration::from_millis(1 << tried.min(6)));
        }
        Err(last)
    }

    /// One try. `Ok(Err(why))`: nothing is changed, and the next one may do.
    fn try_once<T>(
        &self,
        changes: impl Fn(&Transaction<'_>) -> Result<T, XsError>,
    ) -> Result<Result<T, XsError>, XsError> {
        let transaction = match self.begin() {
            Ok(transaction) => transaction,
            Err(XsError::Refused { op, path, refusal }) if passes(refusal) => {
                return Ok(Err(XsError::Refused { op, path, refusal }));
            }
            Err(error) => return Err(error),
        };
        let result = changes(&transaction)?; // an error aborts it, on drop
        match transaction.end(true) {
            Ok(()) => Ok(Ok(result)),
            Err(XsError::Refused { refusal: Refusal::Again, .. }) => Ok(Err(XsError::Conflicts(TRIES_MAX))),
            Err(error) => Err(error),
        }
    }

    fn begin(&self) -> Result<Transaction<'_>, XsError> {
        let turn = self.transaction_turn()?;
        let answer = self.request(Op::TransactionStart, 0, "/", &[b"\0"])?;
        let id = decimal(answer.strip_suffix(b"\0").unwrap_or(&answer), u32::MAX);
        let id =
            id.filter(|&id| id != 0).ok_or_else(|| XsError::value("/", &answer, "a transaction's id"))?;
        Ok(Transaction { client: self, id, open: Cell::new(true), _turn: turn })
    }
}

/// Whether a transaction that may not begin now may later: the domain has as many open as it may. oxenstored says EQUOTA, C xenstored
/// ENOSPC. Source: Xen 4.20, `tools/ocaml/xenstored/process.ml`, `tools/xenstored/transaction.c`.
fn passes(refusal: Refusal) -> bool {
    matches!(refusal, Refusal::Quota | Refusal::Space | Refusal::Busy | Refusal::Again)
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
