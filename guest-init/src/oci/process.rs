//! What `process` of a spec may say: read as runc reads it, refused by name where the kernel or the library would take it for something else, and made
//! to fit the guest.

use std::path::Path;

use libcontainer::oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, Process};
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

/// Takes out what the guest's kernel does not have. Also for the process of an exec.
pub fn adapt(process: &mut Process) {
    process.set_apparmor_profile(None).set_selinux_label(None);
    let asked = with_all_sets(process.capabilities().as_ref());
    let may_gain = process.no_new_privileges() != Some(true);
    let capabilities = without_mknod(asked);
    process.set_capabilities(Some(if may_gain { with_sys_admin(capabilities) } else { capabilities }));
}

/// Without no_new_privs a seccomp filter needs CAP_SYS_ADMIN. The program does not get it: execve(2) takes what is permitted from the bounding
/// and the ambient set, which stay as they are.
fn with_sys_admin(mut capabilities: LinuxCapabilities) -> LinuxCapabilities {
    let with = |set: &Option<Capabilities>| {
        let mut set = set.clone().unwrap_or_default();
        set.insert(Capability::SysAdmin);
        Some(set)
    };
    let (effective, permitted) = (with(capabilities.effective()), with(capabilities.permitted()));
    capabilities.set_effective(effective).set_permitted(permitted);
    capabilities
}

/// A set that a spec does not name is empty, as for runc; the library would leave it as it is in PID 1, full.
fn with_all_sets(asked: Option<&LinuxCapabilities>) -> LinuxCapabilities {
    let named = |set: fn(&LinuxCapabilities) -> &Option<Capabilities>| {
        Some(asked.and_then(|asked| set(asked).clone()).unwrap_or_default())
    };
    // Its own default is what others give a container.
    let mut all = LinuxCapabilities::default();
    all.set_bounding(named(LinuxCapabilities::bounding)).set_effective(named(LinuxCapabilities::effective));
    all.set_inheritable(named(LinuxCapabilities::inheritable));
    all.set_permitted(named(LinuxCapabilities::permitted)).set_ambient(named(LinuxCapabilities::ambient));
    all
}

/// On a node the device cgroup holds what a container makes with CAP_MKNOD. This kernel has none, and the guest's devices lead to Xen:
/// grants, event channels, the xenstore.
fn without_mknod(mut capabilities: LinuxCapabilities) -> LinuxCapabilities {
    let without = |set: &Option<Capabilities>| {
        set.clone().map(|mut set| {
            set.remove(&Capability::Mknod);
            set
        })
    };
    let (bounding, effective) = (without(capabilities.bounding()), without(capabilities.effective()));
    let (inheritable, permitted) = (without(capabilities.inheritable()), without(capabilities.permitted()));
    let ambient = without(capabilities.ambient());
    capabilities.set_bounding(bounding).set_effective(effective).set_inheritable(inheritable);
    capabilities.set_permitted(permitted).set_ambient(ambient);
    capabilities
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

    #[test]
    fn no_container_makes_devices_and_one_that_asks_for_nothing_has_nothing() {
        let mut process: Process = serde_json::from_value(json!({
            "cwd": "/", "args": ["/a"], "user": {"uid": 0, "gid": 0},
            "capabilities": {"bounding": ["CAP_MKNOD", "CAP_KILL"], "effective": ["CAP_MKNOD"], "ambient": ["CAP_CHOWN"]},
        }))
        .unwrap();
        adapt(&mut process);
        let text = serde_json::to_string(process.capabilities()).unwrap();
        assert!(!text.contains("MKNOD") && text.contains("CAP_KILL") && text.contains("CAP_CHOWN"), "{text}");

        process.set_capabilities(None);
        adapt(&mut process);
        let asked = process.capabilities().clone().unwrap();
        assert_eq!(asked.bounding(), &Some(Capabilities::new()));
        assert_eq!(
            asked.effective(),
            &Some(Capabilities::from([Capability::SysAdmin])),
            "for the filter alone"
        );
        process.set_capabilities(None).set_no_new_privileges(Some(true));
        adapt(&mut process);
        let text = serde_json::to_string(process.capabilities()).unwrap();
        assert!(!text.contains("CAP_") && text.contains("bounding"), "{text}");
    }

    #[test]
    fn a_set_that_is_not_named_is_empty() {
        let mut process: Process = serde_json::from_value(json!({
            "cwd": "/", "args": ["/a"], "user": {"uid": 0, "gid": 0}, "noNewPrivileges": true,
            "capabilities": {"bounding": ["CAP_KILL"]},
        }))
        .unwrap();
        adapt(&mut process);
        let asked = process.capabilities().clone().unwrap();
        assert_eq!(asked.bounding(), &Some(Capabilities::from([Capability::Kill])));
        for set in [asked.effective(), asked.permitted(), asked.inheritable(), asked.ambient()] {
            assert_eq!(set, &Some(Capabilities::new()));
        }
    }
}
