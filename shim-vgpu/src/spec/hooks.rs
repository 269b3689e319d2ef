//! The hooks of a spec: programs of the node, which who writes specs for it has it run at points of a container's life.
//!
//! Read here, run by [`crate::hooks`]. Those of `startContainer` are programs of the container and guest-init's. Source: OCI runtime
//! specification, `config.md`, POSIX-platform Hooks; `runtime.md`, Lifecycle.

use std::{collections::BTreeMap, num::NonZeroU64, path::PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use vgpu_codes::Code;

use super::{Spec, refuse::refused};
use crate::error::{Error, OrFail, Result};

/// Those that guest-init has run, in the container.
pub const OF_THE_CONTAINER: &str = "startContainer";

/// When the node runs a hook, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// At Create, when the container's namespaces are there.
    Prestart,
    /// The same; this one's name is of runtimes after 1.0.2 of the specification.
    CreateRuntime,
    /// At Start, when the program runs.
    Poststart,
    /// When nothing is left of the container.
    Poststop,
}

impl Kind {
    /// Those that a Create runs.
    pub const OF_CREATE: [Kind; 2] = [Kind::Prestart, Kind::CreateRuntime];
    /// Each.
    pub const ALL: [Kind; 4] = [Kind::Prestart, Kind::CreateRuntime, Kind::Poststart, Kind::Poststop];

    /// Its name in a spec.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Prestart => "prestart",
            Kind::CreateRuntime => "createRuntime",
            Kind::Poststart => "poststart",
            Kind::Poststop => "poststop",
        }
    }

    /// What is said of the container then. Source: OCI runtime specification, `runtime.md`, State.
    pub fn status(self) -> &'static str {
        match self {
            Kind::Prestart | Kind::CreateRuntime => "creating",
            Kind::Poststart => "running",
            Kind::Poststop => "stopped",
        }
    }
}

/// A program of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Absolute.
    pub path: PathBuf,
    /// With its own name as the first; empty: the path alone.
    #[serde(default)]
    pub args: Vec<String>,
    /// `NAME=value`; none: as the shim's.
    pub env: Option<Vec<String>>,
    /// In seconds.
    pub timeout: Option<NonZeroU64>,
}

/// A container's hooks, and what they are told of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// The container's state, without what differs between them.
    pub state: Map<String, Value>,
    lists: BTreeMap<Kind, Vec<Hook>>,
}

impl Hooks {
    /// Those of a kind, in their order.
    pub fn of(&self, kind: Kind) -> &[Hook] {
        self.lists.get(&kind).map_or(&[], Vec::as_slice)
    }

    /// Whether there are none of any kind.
    pub fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }
}

impl Spec {
    /// The hooks that the node runs for the container `id`.
    ///
    /// # Errors
    /// [`Code::SpecInvalid`] for what is no hook; [`Code::SpecRefused`] for hooks that would run in the container, but be programs of the
    /// node; each with the field.
    pub fn hooks(&self, id: &str, bundle: &str) -> Result<Hooks> {
        let mut lists = BTreeMap::new();
        for (name, list) in self.0.get("hooks").and_then(Value::as_object).into_iter().flatten() {
            let list = list.as_array().map_or(&[][..], Vec::as_slice);
            let field = format!("hooks.{name}");
            match Kind::ALL.into_iter().find(|kind| kind.name() == name) {
                _ if list.is_empty() => {}
                Some(kind) => {
                    let hooks = list
                        .iter()
                        .enumerate()
                        .map(|(number, hook)| read(hook, &format!("{field}[{number}]")));
                    lists.insert(kind, hooks.collect::<Result<_>>()?);
                }
                // Its path is resolved on the node, and it is run in the container's namespaces, which are another domain's.
                None if name == "createContainer" => {
                    return refused(
                        &field,
                        "a program of the node in the namespaces of a container, which are in the guest: \
                        make it a createRuntime hook, which runs on the node, or a startContainer hook, which is the container's",
                    );
                }
                // guest-init's, or a field that nobody knows.
                None => {}
            }
        }
        let state = [
            ("ociVersion", self.text("/ociVersion").into()),
            ("id", id.into()),
            ("bundle", bundle.into()),
            ("annotations", self.0.get("annotations").cloned().unwrap_or_else(|| Map::new().into())),
        ];
        Ok(Hooks {
            state: state.map(|(key, value): (_, Value)| (key.to_owned(), value)).into_iter().collect(),
            lists,
        })
    }
}

fn read(hook: &Value, field: &str) -> Result<Hook> {
    let hook = Hook::deserialize(hook).or_fail(Code::SpecInvalid, || format!("{field} is no hook"))?;
    if hook.path.is_absolute() {
        return Ok(hook);
    }
    Err(Error::new(Code::SpecInvalid, format!("{field}.path is {:?}, no absolute path", hook.path)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::spec::tests::spec;

    fn hooks(value: Value) -> Result<Hooks> {
        spec(|s| s["hooks"] = value).hooks("a", "/bundle")
    }

    #[test]
    fn hooks_are_read_with_what_they_are_told() {
        let read = spec(|s| {
            s["annotations"] = json!({"of.mine/key": "value"});
            s["hooks"] = json!({
                "prestart": [{"path": "/a"}, {"path": "/b", "args": ["b", "-x"], "env": ["K=v"], "timeout": 3}],
                "poststop": [{"path": "/c"}],
                "startContainer": [{"path": "in the container"}],
                "createContainer": [], "poststart": null, "ofLater": [{"path": "who knows"}]
            });
        });
        let hooks = read.hooks("a", "/bundle").unwrap();
        let [plain, full] = hooks.of(Kind::Prestart) else { panic!("two: {hooks:?}") };
        assert_eq!(*plain, Hook { path: "/a".into(), args: vec![], env: None, timeout: None });
        let args = ["b", "-x"].map(String::from).to_vec();
        let whole =
            Hook { path: "/b".into(), args, env: Some(vec!["K=v".into()]), timeout: NonZeroU64::new(3) };
        assert_eq!(*full, whole);
        let state = json!({"ociVersion": "1.1.0", "id": "a", "bundle": "/bundle", "annotations": {"of.mine/key": "value"}});
        assert_eq!(Value::from(hooks.state.clone()), state);
        assert_eq!(
            (hooks.of(Kind::Poststop)[0].path.as_path(), hooks.of(Kind::Poststart)),
            (Path::new("/c"), &[][..])
        );
        assert!(!hooks.is_empty() && spec(|_| ()).hooks("a", "/bundle").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_hook_or_would_run_elsewhere_is_refused_by_its_field() {
        let invalid = [
            (json!({"prestart": [{"path": "/a"}, {"path": "b"}]}), "hooks.prestart[1].path is \"b\""),
            (json!({"poststop": [{}]}), "hooks.poststop[0] is no hook"),
            (json!({"poststart": [{"path": "/a", "timeout": 0}]}), "hooks.poststart[0] is no hook"),
            (json!({"createRuntime": [{"path": "/a", "timeout": -1}]}), "hooks.createRuntime[0] is no hook"),
            (json!({"createRuntime": [7]}), "hooks.createRuntime[0] is no hook"),
        ];
        for (value, words) in invalid {
            let error = hooks(value).unwrap_err();
            assert!(
                error.code() == Some(Code::SpecInvalid) && error.to_string().starts_with(words),
                "{error}"
            );
        }
        let error = hooks(json!({"createContainer": [{"path": "/a"}]})).unwrap_err();
        assert_eq!(error.code(), Some(Code::SpecRefused));
        assert!(error.to_string().starts_with("hooks.createContainer asks for "), "{error}");
    }
}
