//! What a guest can make a session keep of one kind, in all.

use std::sync::{Arc, Mutex, PoisonError};

/// A number of bytes, or of things.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<Mutex<usize>>);

impl Budget {
    pub(crate) fn new(count: usize) -> Self {
        Budget(Arc::new(Mutex::new(count)))
    }

    /// `None`: so much is not left.
    pub(crate) fn take(&self, count: usize) -> Option<Room> {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *left = left.checked_sub(count)?;
        Some(Room { count, of: self.clone() })
    }
}

/// A part of a budget, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    count: usize,
    of: Budget,
}

impl Room {
    /// The same again, of the same budget.
    pub(crate) fn another(&self) -> Option<Room> {
        self.of.take(self.count)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        *self.of.0.lock().unwrap_or_else(PoisonError::into_inner) += self.count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_shared_and_comes_back() {
        let budget = Budget::new(100);
        let first = budget.take(40).unwrap();
        assert!(budget.take(61).is_none());
        let second = first.another().unwrap();
        assert!(second.another().is_none());
        drop((first, second));
        budget.take(100).unwrap();
    }
}
