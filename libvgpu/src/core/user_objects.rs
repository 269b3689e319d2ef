//! User objects: who owns one, and the function of the program that runs when nobody does. All in the guest.
//!
//! The program owns some of the references itself; graphs, their copies and what was instantiated of them own others. Those of what can
//! be launched last until its launches are over. A destructor for which a graph's reference was the last runs in a thread of this library,
//! since graphs end under locks of this library.

use std::collections::{HashMap, VecDeque};
use std::iter;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use vgpu_api::handle::{Handle, kind};
use vgpu_api::{ContextId, CuError, CuResult};

use super::graph_memory::Mark;
use super::host_functions::{HostFunction, run_here};
use super::process::Process;
use super::slab::{Slab, lock};
use super::threads;

/// References of one owner at most.
const COUNT_MAX: u32 = i32::MAX.unsigned_abs();

type ObjectHandle = Handle<kind::UserObject>;

#[derive(Debug, Clone, Copy)]
struct Object {
    /// References of the program's own.
    own: u32,
    /// Those of graphs.
    of_graphs: u64,
    destroy: HostFunction,
}

static OBJECTS: Slab<Object> = Slab::new();
/// Held while a count changes, never while code of the program runs.
static COUNTING: Mutex<()> = Mutex::new(());

/// # Errors
/// 1 for none, and for more than there may be.
fn check_count(count: u32) -> CuResult<()> {
    if (1..=COUNT_MAX).contains(&count) { Ok(()) } else { Err(CuError::INVALID_VALUE) }
}

/// A new object with so many references of the program's.
/// # Errors
/// 1.
pub fn create(own: u32, destroy: HostFunction) -> CuResult<u64> {
    check_count(own)?;
    let handle: ObjectHandle = OBJECTS.insert(Object { own, of_graphs: 0, destroy });
    Ok(handle.raw())
}

fn named(raw: u64, count: u32) -> CuResult<(ObjectHandle, Object)> {
    let handle = Handle::check(raw)?;
    check_count(count)?;
    Ok((handle, OBJECTS.get(handle)?))
}

/// More references of the program's.
/// # Errors
/// 1.
pub fn retain(raw: u64, count: u32) -> CuResult<()> {
    let _counting = lock(&COUNTING);
    let (handle, object) = named(raw, count)?;
    let own = object.own.checked_add(count).filter(|own| *own <= COUNT_MAX);
    OBJECTS.set(handle, Object { own: own.ok_or(CuError::INVALID_VALUE)?, ..object })
}

/// Fewer; the last one runs the destructor before this returns.
/// # Errors
/// 1 for more than there are.
pub fn release(raw: u64, count: u32) -> CuResult<()> {
    let counting = lock(&COUNTING);
    let (handle, object) = named(raw, count)?;
    let own = object.own.checked_sub(count).ok_or(CuError::INVALID_VALUE)?;
    let due = put(handle, Object { own, ..object })?;
    drop(counting);
    due.into_iter().for_each(run_here);
    Ok(())
}

/// Keeps new counts; the destructor, if nobody has a reference any more.
fn put(handle: ObjectHandle, object: Object) -> CuResult<Option<HostFunction>> {
    if object.own > 0 || object.of_graphs > 0 {
        return OBJECTS.set(handle, object).map(|()| None);
    }
    OBJECTS.end(handle, |_| Some(object.destroy))
}

/// References that a graph has. A copy has as many of its own; what is dropped has given them back.
#[derive(Debug, Default)]
pub struct References(HashMap<ObjectHandle, u32>);

impl References {
    /// `moved`: they are the program's so far.
    /// # Errors
    /// 1 for none, for more than the program has to give, and for more than there may be.
    pub fn retain(&mut self, raw: u64, count: u32, moved: bool) -> CuResult<()> {
        let _counting = lock(&COUNTING);
        let (handle, object) = named(raw, count)?;
        let has = self.0.get(&handle).copied().unwrap_or(0);
        let has = has.checked_add(count).filter(|has| *has <= COUNT_MAX).ok_or(CuError::INVALID_VALUE)?;
        let given = if moved { count } else { 0 };
        let own = object.own.checked_sub(given).ok_or(CuError::INVALID_VALUE)?;
        OBJECTS.set(handle, Object { own, of_graphs: object.of_graphs + u64::from(count), ..object })?;
        self.0.insert(handle, has);
        Ok(())
    }

    /// Those that the graph gives back.
    /// # Errors
    /// 1 for more than it has. It is none of a graph that has none: NVIDIA's driver says so (`tests/gpu/faults.table`).
    pub fn take(&mut self, raw: u64, count: u32) -> CuResult<Self> {
        let (handle, _) = named(raw, count)?;
        let Some(has) = self.0.get(&handle).copied() else { return Ok(Self::default()) };
        let left = has.checked_sub(count).ok_or(CuError::INVALID_VALUE)?;
        if left > 0 {
            self.0.insert(handle, left)
        } else {
            self.0.remove(&handle)
        };
        Ok(Self(HashMap::from([(handle, count)])))
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// With another's.
    pub fn join(&mut self, mut other: Self) {
        for (handle, count) in other.0.drain() {
            let has = self.0.entry(handle).or_default();
            *has = has.saturating_add(count);
        }
    }
}

impl Clone for References {
    fn clone(&self) -> Self {
        let _counting = lock(&COUNTING);
        for (handle, count) in &self.0 {
            if let Ok(object) = OBJECTS.get(*handle) {
                let of_graphs = object.of_graphs + u64::from(*count);
                let _ = OBJECTS.set(*handle, Object { of_graphs, ..object });
            }
        }
        Self(self.0.clone())
    }
}

impl Drop for References {
    fn drop(&mut self) {
        if self.is_empty() {
            return;
        }
        let counting = lock(&COUNTING);
        let one = |(handle, count): (ObjectHandle, u32)| {
            let object = OBJECTS.get(handle).ok()?;
            let of_graphs = object.of_graphs.saturating_sub(count.into());
            put(handle, Object { of_graphs, ..object }).ok()?
        };
        let due: Vec<HostFunction> = self.0.drain().filter_map(one).collect();
        drop(counting);
        if !due.is_empty() {
            apart(move || due.iter().copied().for_each(run_here));
        }
    }
}

type Task = Box<dyn FnOnce() + Send>;

struct Tasks {
    queued: VecDeque<Task>,
    /// The thread is there, and looks once more before it ends.
    is_running: bool,
}

static TASKS: Mutex<Tasks> = Mutex::new(Tasks { queued: VecDeque::new(), is_running: false });

/// Runs behind what was given here before, in the one thread for all, which ends when nothing is queued. Where the system has none for us
/// it stays queued until there is more: never here, under the locks of who calls.
fn apart(run: impl FnOnce() + Send + 'static) {
    let mut tasks = lock(&TASKS);
    tasks.queued.push_back(Box::new(run));
    if !tasks.is_running {
        tasks.is_running = threads::start("vgpu-objects", || all_tasks().for_each(|task| task())).is_ok();
    }
}

fn all_tasks() -> impl Iterator<Item = Task> {
    iter::from_fn(|| {
        let mut tasks = lock(&TASKS);
        let task = tasks.queued.pop_front();
        tasks.is_running = task.is_some();
        task
    })
}

/// References of what can be launched.
#[derive(Debug)]
pub struct Lent {
    process: &'static Process,
    /// Whether there may be any: a launch without them looks at no more.
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// 0: of the graph that it was made of, or last updated to. Else what a child graph's node was given since.
    by_node: HashMap<u64, References>,
    /// Where it was launched while it had any.
    launched: Vec<ContextId>,
}

impl Lent {
    pub fn new(process: &'static Process, references: References) -> Self {
        let any = AtomicBool::new(!references.is_empty());
        let state = State { by_node: HashMap::from([(0, references)]), launched: Vec::new() };
        Self { process, any, state: Mutex::new(state) }
    }

    /// A launch follows, in the context that `of` tells.
    /// # Errors
    /// Those of `of`.
    #[inline]
    pub fn launch(&self, of: impl FnOnce() -> CuResult<ContextId>) -> CuResult<()> {
        if self.any.load(Ordering::Acquire) {
            let (context, mut state) = (of()?, lock(&self.state));
            if !state.launched.contains(&context) {
                state.launched.push(context);
            }
        }
        Ok(())
    }

    /// Others for all of it; those of before last until the launches so far are over.
    pub fn replace(&self, references: References) {
        let mut state = lock(&self.state);
        self.any.fetch_or(!references.is_empty(), Ordering::Release);
        let before = std::mem::replace(&mut state.by_node, HashMap::from([(0, references)]));
        end(self.process, &state.launched, before.into_values());
    }

    /// Others for a child graph's node.
    pub fn replace_child(&self, node: u64, references: References) {
        let mut state = lock(&self.state);
        self.any.fetch_or(!references.is_empty(), Ordering::Release);
        let before = state.by_node.insert(node, references);
        end(self.process, &state.launched, before.into_iter());
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        let all = std::mem::take(&mut state.by_node);
        end(self.process, &state.launched, all.into_values());
    }
}

/// Gives references back once all that the contexts have to do is over.
fn end(process: &'static Process, launched: &[ContextId], references: impl Iterator<Item = References>) {
    let references: Vec<_> = references.filter(|references| !references.is_empty()).collect();
    if references.is_empty() {
        return;
    }
    let marks: Vec<Mark> = launched.iter().filter_map(|context| Mark::behind(process, *context)).collect();
    if marks.iter().all(Mark::is_reached) {
        return;
    }
    apart(move || {
        marks.iter().for_each(Mark::wait);
        drop(references);
    });
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    #[test]
    fn one_thread_does_all_in_its_order() {
        let ((go, wait), (tell, told)) = (channel(), channel());
        let (first, second) = (tell.clone(), tell);
        apart(move || {
            wait.recv().unwrap();
            first.send((1, thread::current().id())).unwrap();
        });
        apart(move || second.send((2, thread::current().id())).unwrap());
        go.send(()).unwrap();
        let [one, two] = [told.recv().unwrap(), told.recv().unwrap()];
        assert_eq!([one.0, two.0], [1, 2]);
        assert_eq!(one.1, two.1);
    }
}
