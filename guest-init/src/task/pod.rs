//! The containers of this pod, by id.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

use super::{
    container::{Container, Plan},
    host::Host,
    huge::{self, HugePages},
    process::Process,
    shared::Memories,
};
use crate::{
    error::{GuestError, Result},
    stdio::StdioNames,
};

/// How long a Delete waits for a Create that it takes back: the shim waits two seconds for a Delete.
const TAKE_BACK_LIMIT: Duration = Duration::from_millis(1500);

/// See the module.
#[derive(Debug)]
pub struct Pod {
    host: Arc<Host>,
    containers: Mutex<HashMap<String, Slot>>,
    memories: Arc<Memories>,
    huge_pages: Arc<HugePages>,
}

#[derive(Debug)]
enum Slot {
    /// Its Create is at work: the id is taken, nothing but a Delete is possible yet.
    Making(Making),
    Made(Arc<Container>),
}

#[derive(Debug)]
struct Making {
    /// A Delete came: what is made is to go.
    unwanted: bool,
    /// True, and then closed, when the Create has ended and nothing is left of the container.
    nothing_left: watch::Receiver<bool>,
}

impl Pod {
    /// Without containers.
    pub fn new(host: Arc<Host>) -> Arc<Self> {
        let memories = Arc::new(Memories::new(host.layout.memories()));
        let huge_pages = HugePages::new(huge::POOLS.into());
        Arc::new(Self { host, containers: Mutex::new(HashMap::new()), memories, huge_pages })
    }

    /// What the containers live on.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Makes a container, unless it is taken back meanwhile.
    /// # Errors
    /// As [`Container::create`]; the id is taken or no id; [`GuestError::TakenBack`].
    pub async fn create(&self, id: &str, bundle: String, stdio: StdioNames) -> Result<Arc<Container>> {
        if vgpu_zone_api::guest::ContainerId::new(id).is_none() {
            return Err(GuestError::Invalid { field: "id", why: format!("{id:?} is no container id") });
        }
        let (ended, nothing_left) = watch::channel(false);
        let inits = {
            let mut containers = self.lock();
            if containers.contains_key(id) {
                return Err(GuestError::Taken(format!("container {id}")));
            }
            containers.insert(id.to_owned(), Slot::Making(Making { unwanted: false, nothing_left }));
            inits(&containers)
        };
        let (memories, huge_pages) = (Arc::clone(&self.memories), Arc::clone(&self.huge_pages));
        let plan = Plan { id: id.to_owned(), bundle, stdio, inits, memories, huge_pages };
        let made = Container::create(Arc::clone(&self.host), plan).await;
        let container = match made {
            Ok(container) => container,
            Err(error) => {
                self.lock().remove(id);
                ended.send_replace(true);
                return Err(error);
            }
        };
        if self.keep(id, &container) {
            return Ok(container);
        }
        if let Err(error) = container.delete(&self.host).await {
            // What is left of it has to be in sight of the next Delete.
            self.lock().insert(id.to_owned(), Slot::Made(container));
            return Err(error);
        }
        self.lock().remove(id);
        ended.send_replace(true);
        Err(GuestError::TakenBack(format!("container {id}")))
    }

    /// Shows a container that was made to everybody. False: nobody wants it any more.
    fn keep(&self, id: &str, container: &Arc<Container>) -> bool {
        let mut containers = self.lock();
        let unwanted = matches!(containers.get(id), Some(Slot::Making(making)) if making.unwanted);
        if !unwanted {
            containers.insert(id.to_owned(), Slot::Made(Arc::clone(container)));
        }
        !unwanted
    }

    /// Has a Create of this id that is at work delete what it makes. True: that is done. False: no Create is at work, and what there is has
    /// to be deleted as usual.
    /// # Errors
    /// `WrongState`: it takes longer than a Delete may wait. It is done all the same.
    pub async fn take_back(&self, id: &str) -> Result<bool> {
        let mut nothing_left = match self.lock().get_mut(id) {
            Some(Slot::Making(making)) => {
                making.unwanted = true;
                making.nothing_left.clone()
            }
            _ => return Ok(false),
        };
        match timeout(TAKE_BACK_LIMIT, nothing_left.wait_for(|nothing_left| *nothing_left)).await {
            Ok(ended) => Ok(ended.is_ok()),
            Err(_) => Err(being_made("delete")),
        }
    }

    /// The container of this id.
    /// # Errors
    /// `NotFound`; `WrongState` while it is being made.
    pub fn get(&self, id: &str) -> Result<Arc<Container>> {
        match self.lock().get(id) {
            Some(Slot::Made(container)) => Ok(Arc::clone(container)),
            Some(Slot::Making(_)) => Err(being_made("use")),
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

fn being_made(operation: &'static str) -> GuestError {
    GuestError::WrongState { operation, state: "still being created" }
}

/// Init of each container that was made: a later one may share its namespaces.
fn inits(containers: &HashMap<String, Slot>) -> BTreeMap<String, Arc<Process>> {
    let made = containers.iter().filter_map(|(id, slot)| match slot {
        Slot::Made(container) => Some((id.clone(), Arc::clone(&container.init))),
        Slot::Making(_) => None,
    });
    made.collect()
}
