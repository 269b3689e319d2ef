//! The networks that a case can have its pod on, by CNI's own plugins. Which one, a pod's runtime says: each has one a network.
//!
//! Addresses are all of one length, so that none is a part of another. Source: CNI specification 0.4.0; the plugins' own pages.

use std::{fmt::Write as _, fs, path::Path};

/// What pods are on that say nothing else: its loopback, and an address that nobody has, by `cni.sh`.
const DEFAULT: &str = r#"{"cniVersion":"0.4.0","name":"pods","plugins":[{"type":"pod"}]}"#;

/// A bridge of the node, both families, ports of the node.
const BRIDGE: &str = r#"{"cniVersion":"0.4.0","name":"bridge","plugins":[
    {"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":true,"hairpinMode":true,"mtu":1420,"ipam":{"type":"host-local",
     "ranges":[[{"subnet":"10.88.0.0/16","rangeStart":"10.88.0.100","rangeEnd":"10.88.0.199"}],
               [{"subnet":"fd00:88::/64","rangeStart":"fd00:88::1000","rangeEnd":"fd00:88::1fff"}]],
     "routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}},
    {"type":"portmap","capabilities":{"portMappings":true}}]}"#;

/// A link of its own between the node and each pod, whose packets the node routes and holds back, and sysctls of the pod's network.
const PTP: &str = r#"{"cniVersion":"0.4.0","name":"ptp","plugins":[
    {"type":"ptp","ipMasq":true,"mtu":1410,"ipam":{"type":"host-local",
     "ranges":[[{"subnet":"10.89.0.0/16","rangeStart":"10.89.0.100","rangeEnd":"10.89.0.199"}],
               [{"subnet":"fd00:89::/64","rangeStart":"fd00:89::1000","rangeEnd":"fd00:89::1fff"}]],
     "routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}},
    {"type":"portmap","capabilities":{"portMappings":true}},
    {"type":"tuning","sysctl":{"net.core.somaxconn":"3000","net.ipv4.conf.eth0.log_martians":"1"}},
    {"type":"bandwidth","ingressRate":1000000,"ingressBurst":100000,"egressRate":1000000,"egressBurst":100000}]}"#;

/// A second bridge, with a route by it.
const SECOND: &str = r#"{"cniVersion":"0.4.0","name":"second","plugins":[
    {"type":"bridge","bridge":"cni1","isGateway":true,"mtu":1300,"ipam":{"type":"host-local",
     "ranges":[[{"subnet":"10.90.0.0/16","rangeStart":"10.90.0.100","rangeEnd":"10.90.0.199"}]],
     "routes":[{"dst":"10.99.0.0/16","gw":"10.90.0.1"}]}}]}"#;

/// By what a runtime's name has more, the networks that a pod is on.
const NETWORKS: [(&str, &[&str]); 4] =
    [("", &[DEFAULT]), ("-bridge", &[BRIDGE]), ("-ptp", &[PTP]), ("-two", &[BRIDGE, SECOND])];

/// Writes them below `dir`, which the node has as /test, for runtimes of these names, types and further words. Returns those in the words of
/// containerd's configuration.
pub fn write(dir: &Path, runtimes: &[(&str, &str, &str)]) -> String {
    let mut config = String::new();
    for (more, lists) in NETWORKS {
        let folder = format!("cni{more}");
        fs::create_dir(dir.join(&folder)).expect("a folder");
        for (number, list) in lists.iter().enumerate() {
            fs::write(dir.join(format!("{folder}/{number}.conflist")), list).expect("written");
        }
        for (runtime, kind, words) in runtimes {
            let _ = write!(
                config,
                "\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.{runtime}{more}]\n\
                 runtime_type = \"{kind}\"\nprivileged_without_host_devices = true\n\
                 cni_conf_dir = \"/test/{folder}\"\ncni_max_conf_num = {}\n{words}",
                lists.len()
            );
        }
    }
    config
}
