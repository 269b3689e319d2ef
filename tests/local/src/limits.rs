//! A machine whose controllers are those of cgroup version 1 has none for its guests. Kubernetes' containerd gives every container a share of
//! the CPU all the same: who says `VGPU_LOCAL_LIMITS=none` has containers without.

use std::{env, fs, io, path::Path};

use serde_json::Value;

/// Says in containerd's environment that no container is limited.
const LIMITS: &str = "VGPU_LOCAL_LIMITS";
/// In `linux.resources`. Devices stay: a guest takes them from nobody. Source: OCI runtime specification, `config-linux.md`.
const DROPPED: [&str; 6] = ["blockIO", "cpu", "hugepageLimits", "memory", "pids", "unified"];

/// Takes the limits out of the spec that guest-init's helper is about to make a container of, by the helper's arguments, where that is wanted.
///
/// # Errors
/// The spec cannot be read or written.
pub fn drop_for(helper: &[&str]) -> io::Result<()> {
    let wanted = env::var_os(LIMITS).is_some_and(|limits| limits == "none");
    let ["oci", request, _] = helper else { return Ok(()) };
    let request: Value = serde_json::from_str(request)?;
    let Some(bundle) = request.pointer("/Create/bundle").and_then(Value::as_str).filter(|_| wanted) else {
        return Ok(());
    };
    let file = Path::new(bundle).join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&file)?)?;
    drop_in(&mut spec);
    fs::write(file, spec.to_string())
}

fn drop_in(spec: &mut Value) {
    if let Some(resources) = spec.pointer_mut("/linux/resources").and_then(Value::as_object_mut) {
        resources.retain(|name, _| !DROPPED.contains(&name.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn limits_go_and_devices_stay() {
        let mut spec =
            json!({"linux": {"resources": {"cpu": {"shares": 2}, "memory": {"limit": 9}, "devices": [1]}}});
        drop_in(&mut spec);
        assert_eq!(spec, json!({"linux": {"resources": {"devices": [1]}}}));
    }
}
