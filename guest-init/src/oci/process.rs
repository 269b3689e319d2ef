//! What `process` of a spec may say: read as runc reads it, and refused by name where the kernel or the library would take it for something else.

use std::path::Path;

use libcontainer::oci_spec::runtime::{Capability, Process};
use serde_json::Value;

use crate::error::{GuestError, Result};

/// The number that system calls take for "leave it as it is": who asks for it would run as root.
const NOBODY: u32 = u32::MAX;

/// Takes out capabilities that nobody here knows, as runc does: a node's kernel may be newer than this program, and a privileged pod has all that
/// the node's knows.
pub fn forget_unknown(process: &mut Value) {
    let sets = process.get_mut("capabilities").and_then(Value::as_object_mut);
    for set in sets.into_iter().flat_map(|sets| sets.values_mut()).filter_map(Value::as_array_mut) {
        set.retain(is_known);
    }
}

/// Their names are upper case alone, as in the kernel's header.
fn is_known(name: &Value) -> bool {
    let upper = |name: &str| name.starts_with("CAP_") && !name.contains(|c: char| c.is_ascii_lowercase());
    name.as_str().is_none_or(upper) && serde_json::from_value::<Capability>(name.clone()).is_ok()
}

/// # Errors
/// A working directory that is no absolute path, a user or group that is none.
pub fn check(process: &Process) -> Result<()> {
    if !process.cwd().is_absolute() {
        let why = format!("{:?} is no absolute path", Path::new(process.cwd()));
        return Err(GuestError::Invalid { field: "process.cwd", why });
    }
    let user = process.user();
    let mut ids =
        [user.uid(), user.gid()].into_iter().chain(user.additional_gids().iter().flatten().copied());
    if ids.any(|id| id == NOBODY) {
        let why = format!("{NOBODY} is no user and no group");
        return Err(GuestError::Invalid { field: "process.user", why });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn process(change: impl FnOnce(&mut Value)) -> Value {
        let mut process = json!({"cwd": "/", "args": ["/a"], "user": {"uid": 0, "gid": 0}});
        change(&mut process);
        process
    }

    #[test]
    fn capabilities_of_a_later_kernel_are_left_out() {
        let mut asked = process(|process| {
            process["capabilities"] =
                json!({"bounding": ["CAP_KILL", "CAP_OF_LATER", "KILL", "cap_chown"], "ambient": []});
        });
        forget_unknown(&mut asked);
        assert_eq!(asked["capabilities"], json!({"bounding": ["CAP_KILL"], "ambient": []}));
        let mut none = process(|_| {});
        forget_unknown(&mut none);
        assert_eq!(none, process(|_| {}));
    }

    #[test]
    fn what_would_be_something_else_is_refused_by_its_field() {
        let refused = |change: &dyn Fn(&mut Value)| {
            let process: Process = serde_json::from_value(process(change)).unwrap();
            check(&process).map_err(|error| error.to_string().split(": ").next().map(str::to_owned))
        };
        assert_eq!(refused(&|_| {}), Ok(()));
        assert_eq!(refused(&|process| process["user"] = json!({"uid": 4_294_967_294_u32, "gid": 1})), Ok(()));
        for user in [
            json!({"uid": NOBODY, "gid": 0}),
            json!({"uid": 0, "gid": NOBODY}),
            json!({"uid": 0, "gid": 0, "additionalGids": [1, NOBODY]}),
        ] {
            let found = refused(&|process| process["user"] = user.clone());
            assert_eq!(found, Err(Some("process.user".into())), "{user}");
        }
        for cwd in ["", "tmp", "./tmp"] {
            assert_eq!(
                refused(&|process| process["cwd"] = cwd.into()),
                Err(Some("process.cwd".into())),
                "{cwd}"
            );
        }
    }
}
