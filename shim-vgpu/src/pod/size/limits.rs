//! What the containers of a pod may use, now and at first, and what that asks of its domain. Pure.

use std::collections::HashMap;

use serde_json::Value;

use crate::spec::{Role, Spec, size::CpuLimit};

/// What a container may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of memory, in bytes. 0 if it has no limit: then it has what there is.
    pub memory: u64,
    /// Of huge pages, beside its memory, in bytes.
    pub huge: u64,
    /// Of CPUs' time.
    pub cpu: CpuLimit,
}

impl Limits {
    fn of(spec: &Spec) -> Limits {
        let memory = spec.memory_limit().unwrap_or(0);
        Limits { memory, huge: spec.huge_bytes(), cpu: spec.cpu_limit() }
    }

    /// What they are after an Update by these resources. Where it takes the memory's off, the domain stays as it is.
    pub fn changed(self, resources: &Value) -> Limits {
        let memory = resources.pointer("/memory/limit").and_then(Value::as_u64).filter(|&bytes| bytes > 0);
        Limits { memory: memory.unwrap_or(self.memory), cpu: self.cpu.changed(resources), ..self }
    }

    /// Of each the larger one.
    pub fn or_more(self, other: Limits) -> Limits {
        let more = |cpu: CpuLimit| cpu.percent().unwrap_or(u64::MAX);
        Limits {
            memory: self.memory.max(other.memory),
            huge: self.huge.max(other.huge),
            cpu: if more(other.cpu) > more(self.cpu) { other.cpu } else { self.cpu },
        }
    }
}

/// By Kubernetes' name of the container, which it keeps when it is restarted, or by its id.
#[derive(Debug, Default)]
pub struct Containers(HashMap<String, Container>);

#[derive(Debug)]
struct Container {
    id: String,
    first: Limits,
    /// None: it is gone, and may come again.
    now: Option<Limits>,
    /// A pod's sandbox container runs nothing, and Kubernetes gives it no limits.
    is_sandbox: bool,
}

impl Containers {
    /// This one is to be.
    pub fn comes(&mut self, id: &str, spec: &Spec) {
        let now = Limits::of(spec);
        let known = self.0.get(spec.container_name().unwrap_or(id));
        let one = Container {
            id: id.to_owned(),
            first: known.map_or(now, |known| known.first),
            now: Some(now),
            is_sandbox: matches!(spec.role(), Ok(Role::Sandbox)),
        };
        self.0.insert(spec.container_name().unwrap_or(id).to_owned(), one);
    }

    /// False if it was not there.
    pub fn goes(&mut self, id: &str) -> bool {
        self.living(id).is_some_and(|one| one.now.take().is_some())
    }

    /// None: there is no such container.
    pub fn get(&mut self, id: &str) -> Option<Limits> {
        self.living(id)?.now
    }

    /// Has them be others (none: it is gone), unless it is gone already.
    pub fn set(&mut self, id: &str, limits: Option<Limits>) {
        if let Some(one) = self.living(id) {
            one.now = limits;
        }
    }

    fn living(&mut self, id: &str) -> Option<&mut Container> {
        self.0.values_mut().find(|one| one.id == id && one.now.is_some())
    }

    /// In bytes.
    pub fn memory(&self, pod: Option<u64>) -> u64 {
        self.asked(pod, |limits| limits.memory)
    }

    /// In bytes.
    pub fn huge(&self) -> u64 {
        self.asked(None, |limits| limits.huge)
    }

    /// In hundredths of one CPU. One without a limit counts nothing.
    pub fn cpu(&self, pod: Option<u64>) -> u64 {
        self.asked(pod, |limits| limits.cpu.percent().unwrap_or(0))
    }

    /// Whether one may use all CPUs that there are.
    pub fn has_all_cpus(&self) -> bool {
        let all = |one: &Container| one.now.is_some_and(|now| now.cpu.percent().is_none());
        self.0.values().any(|one| all(one) && !one.is_sandbox)
    }

    /// What limits ask for: where the pod as a whole had one at first, that and what each container has come to have more, since kubelet gives the
    /// pod's to each; else their sum.
    fn asked(&self, pod: Option<u64>, of: impl Fn(&Limits) -> u64) -> u64 {
        let asked = |one: &Container| {
            let now = one.now.as_ref().map_or(0, &of);
            if pod.is_some() { now.saturating_sub(of(&one.first)) } else { now }
        };
        self.0.values().map(asked).fold(pod.unwrap_or(0), u64::saturating_add)
    }
}
