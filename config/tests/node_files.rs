//! The files that a node gets beside config.toml say the same names as each other, and as the programs that they are for.

use std::collections::BTreeSet;
use std::path::Path;

use toml::{Table, Value};
use vgpu_config::DEFAULT_PATH;

/// `shim-vgpu` is installed as the program that containerd finds for it: containerd-shim-vgpu-v1.
const RUNTIME: &str = "io.containerd.vgpu.v1";

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What stands behind `key: ` in a manifest, once.
fn field<'a>(manifest: &'a str, key: &str) -> &'a str {
    let mut values = manifest.lines().filter_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": "));
    let value = values.next().unwrap_or_else(|| panic!("no {key}"));
    assert_eq!(values.next(), None, "{key} twice");
    value
}

/// The values of `key` in a unit, one a line.
fn unit_values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn both_versions_of_containerd_get_the_handler_that_the_runtime_class_names() {
    let class = file("kubernetes/runtimeclass.yaml");
    // containerd 1.x takes the list in the place of its own, where its default runtime must not be missed.
    for (name, version, plugin, beside) in [
        ("containerd/config-v2.toml", 2, "io.containerd.grpc.v1.cri", Some("runc")),
        ("containerd/config-v3.toml", 3, "io.containerd.cri.v1.runtime", None),
    ] {
        let config: Table = toml::from_str(&file(name)).unwrap();
        assert_eq!(config["version"], Value::Integer(version), "{name}");
        let runtimes = config["plugins"][plugin]["containerd"]["runtimes"].as_table().unwrap();
        let expected: BTreeSet<&str> = beside.into_iter().chain([field(&class, "handler")]).collect();
        assert_eq!(runtimes.keys().map(String::as_str).collect::<BTreeSet<_>>(), expected, "{name}");
        let handler = &runtimes["vgpu"];
        assert_eq!(handler["runtime_type"].as_str(), Some(RUNTIME), "{name}");
        assert_eq!(handler["options"]["ConfigPath"].as_str(), Some(DEFAULT_PATH), "{name}");
        assert_eq!(handler["privileged_without_host_devices"], Value::Boolean(true), "{name}");
        // What grants a GPU comes from kubelet. Annotations of a pod are its author's.
        let passed = handler["container_annotations"].as_array().unwrap();
        assert_eq!(passed, &[Value::from("vgpu.dev/*")], "{name}");
        assert_eq!(handler.get("pod_annotations"), None, "{name}");
    }
}

#[test]
fn the_sample_pod_is_what_users_have_and_one_line() {
    let (class, pod) = (file("kubernetes/runtimeclass.yaml"), file("kubernetes/sample-pod.yaml"));
    assert_eq!((field(&class, "kind"), field(&pod, "kind")), ("RuntimeClass", "Pod"));
    assert_eq!(field(&pod, "runtimeClassName"), "vgpu");
    assert!(class.contains("\nmetadata:\n  name: vgpu\n"), "{class}");
    assert!(pod.contains("        limits:\n          nvidia.com/gpu: 1\n"), "{pod}");
    assert!(!pod.contains("annotations"), "a pod's annotations grant nothing");
    assert!(!field(&pod, "image").ends_with(":latest") && field(&pod, "image").contains(':'));
}

#[test]
fn the_unit_starts_gpu_proxy_after_xenstore_before_containerd_and_never_gives_up() {
    let unit = file("systemd/gpu-proxy.service");
    assert_eq!(unit_values(&unit, "ExecStart"), ["/usr/bin/gpu-proxy"]);
    // Debian's name, and those of Xen's own units.
    let after = unit_values(&unit, "After").join(" ");
    for xen in ["xen.service", "xenstored.service", "xen-init-dom0.service"] {
        assert!(after.split(' ').any(|other| other == xen), "not after {xen}: {after}");
    }
    assert_eq!(unit_values(&unit, "Before"), ["containerd.service"]);
    assert_eq!(unit_values(&unit, "Restart"), ["always"]);
    assert_eq!(unit_values(&unit, "StartLimitIntervalSec"), ["0"]);
    let units_section = unit.split("[Service]").next().unwrap();
    assert!(units_section.contains("StartLimitIntervalSec"), "systemd looks for it in [Unit] alone");
    assert_eq!(unit_values(&unit, "Documentation"), Vec::<&str>::new(), "no document is installed");
}
