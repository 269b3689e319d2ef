//! The containers of this pod, by id.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    container::{Container, Host, Plan},
    phase::Phase,
};
use crate::{
    error::{GuestError, Result},
    stdio::StdioNames,
};

/// See the module.
#[derive(Debug)]
pub struct Pod {
    host: Arc<Host>,
    containers: Mutex<HashMap<String, Slot>>,
}

#[derive(Clone, Debug)]
enum Slot {
    /// Its Create is at work: the id is taken, nothing else is possible yet.
    Making,
    Made(Arc<Container>),
}

impl Pod {
    /// Without containers.
    pub fn new(host: Arc<Host>) -> Arc<Self> {
        Arc::new(Self { host, containers: Mutex::new(HashMap::new()) })
    }

    /// What the containers live on.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Makes a container.
    /// # Errors
    /// As [`Container::create`]; the id is taken or no id.
    pub async fn create(&self, id: &str, bundle: String, stdio: StdioNames) -> Result<Arc<Container>> {
        if vgpu_zone_api::guest::ContainerId::new(id).is_none() {
            return Err(GuestError::Invalid { field: "id", why: format!("{id:?} is no container id") });
        }
        let sandbox_pid = {
            let mut containers = self.lock();
            if containers.contains_key(id) {
                return Err(GuestError::Taken(format!("container {id}")));
            }
            containers.insert(id.to_owned(), Slot::Making);
            sandbox_pid(&containers)
        };
        let plan = Plan { id: id.to_owned(), bundle, stdio, sandbox_pid };
        let made = Container::create(Arc::clone(&self.host), plan).await;
        let mut containers = self.lock();
        match &made {
            Ok(container) => containers.insert(id.to_owned(), Slot::Made(Arc::clone(container))),
            Err(_) => containers.remove(id),
        };
        made
    }

    /// The container of this id.
    /// # Errors
    /// `NotFound`; `WrongState` while it is being made.
    pub fn get(&self, id: &str) -> Result<Arc<Container>> {
        match self.lock().get(id) {
            Some(Slot::Made(container)) => Ok(Arc::clone(container)),
            Some(Slot::Making) => {
                Err(GuestError::WrongState { operation: "use", state: "still being created" })
            }
            None => Err(GuestError::NotFound(format!("container {id}"))),
        }
    }

    /// Forgets a container that was deleted; a later one of its id stays.
    pub fn forget(&self, deleted: &Arc<Container>) {
        let mut containers = self.lock();
        let is_it =
            matches!(containers.get(&deleted.id), Some(Slot::Made(made)) if Arc::ptr_eq(made, deleted));
        if is_it {
            containers.remove(&deleted.id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A living sandbox container's init, whose namespaces the pod shares.
fn sandbox_pid(containers: &HashMap<String, Slot>) -> Option<i32> {
    containers.values().find_map(|slot| match slot {
        Slot::Made(container)
            if container.sandbox && !matches!(container.init.phase(), Phase::Stopped(_)) =>
        {
            i32::try_from(container.init.pid()).ok()
        }
        _ => None,
    })
}
