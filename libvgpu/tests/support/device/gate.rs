//! A gate before launches.

use std::sync::{Condvar, Mutex};

/// Holds the worker at its next launch, so that nothing that waits for it can return.
pub struct Gate {
    state: Mutex<GateState>,
    moved: Condvar,
}

struct GateState {
    closed: bool,
    waiting: bool,
}

impl Gate {
    pub fn close(&self) {
        self.state.lock().unwrap().closed = true;
    }

    pub fn open(&self) {
        self.state.lock().unwrap().closed = false;
        self.moved.notify_all();
    }

    /// Until the worker stands before it.
    pub fn until_reached(&self) {
        drop(self.moved.wait_while(self.state.lock().unwrap(), |state| !state.waiting).unwrap());
    }

    pub(super) fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        if state.closed {
            state.waiting = true;
            self.moved.notify_all();
            state = self.moved.wait_while(state, |state| state.closed).unwrap();
        }
        state.waiting = false;
    }
}

/// The gate of the one worker of a test program.
pub static GATE: Gate =
    Gate { state: Mutex::new(GateState { closed: false, waiting: false }), moved: Condvar::new() };
