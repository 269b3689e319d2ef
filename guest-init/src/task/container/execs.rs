//! The execs of a container, by id.

use std::{
    collections::HashMap,
    sync::{Arc, MutexGuard, PoisonError},
};

use super::Container;
use crate::{
    error::{GuestError, Result},
    task::{exec::Exec, phase::Operation, process::Process},
};

impl Container {
    /// The exec of this id.
    /// # Errors
    /// `NotFound`.
    pub fn exec(&self, id: &str) -> Result<Arc<Exec>> {
        self.execs().get(id).cloned().ok_or_else(|| GuestError::NotFound(format!("exec {id} of {}", self.id)))
    }

    /// Init for an empty id, else the exec's process.
    /// # Errors
    /// `NotFound`.
    pub fn process(&self, exec_id: &str) -> Result<Arc<Process>> {
        if exec_id.is_empty() {
            return Ok(Arc::clone(&self.init));
        }
        self.exec(exec_id).map(|exec| Arc::clone(&exec.process))
    }

    /// Registers an exec.
    /// # Errors
    /// Its id is taken, or the container has ended or is paused.
    pub fn add_exec(&self, id: &str, exec: Exec) -> Result<()> {
        self.init.phase().allow(Operation::Exec)?;
        if self.is_ending() {
            return Err(GuestError::WrongState { operation: "exec in", state: "stopped" });
        }
        let mut execs = self.execs();
        if execs.contains_key(id) {
            return Err(GuestError::Taken(format!("exec {id} of {}", self.id)));
        }
        execs.insert(id.to_owned(), Arc::new(exec));
        Ok(())
    }

    /// Forgets an exec that never ran or has ended.
    /// # Errors
    /// It is running, or unknown.
    pub async fn delete_exec(&self, id: &str) -> Result<Arc<Process>> {
        let process = self.process(id)?;
        process.phase().allow(Operation::Delete)?;
        process.release().await;
        self.execs().remove(id);
        Ok(process)
    }

    /// The exec that `pid` started as, for Pids.
    pub fn exec_of_pid(&self, pid: u32) -> Option<String> {
        self.execs().iter().find(|(_, exec)| exec.process.pid() == pid).map(|(id, _)| id.clone())
    }

    pub(super) fn execs(&self) -> MutexGuard<'_, HashMap<String, Arc<Exec>>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
