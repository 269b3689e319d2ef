//! The sysctls that a pod may set: those of the namespaces that are a pod's with any runtime, its network, ipc and uts.
//!
//! The guest's kernel is the pod's own, so others would do no harm to anybody else. But they would reach past a container's walls inside the guest:
//! `kernel.core_pattern` names a program that runs as root outside all of them, and what kubelet's list of allowed ones means on a node would
//! mean something else here. So the list is runc's, which its clients know. Source: runc, `libcontainer/configs/validate/validator.go`, `sysctl`.

use std::fmt;

const NETWORK: &str = "net.";
const QUEUES: &str = "fs.mqueue.";
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];
const DOMAIN_NAME: &str = "kernel.domainname";
const HOSTNAME: &str = "kernel.hostname";

/// A sysctl that a pod may set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sysctl {
    /// Of names with points between them, in which a slash is a point of a name: `net.ipv4.conf.eth0/1.forwarding`.
    name: String,
}

/// Why a pod may not set it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadSysctl {
    /// Its file would be elsewhere, or a folder.
    NoName(String),
    /// It is the pod's hostname, which a spec has a field for.
    Hostname,
    /// It is the kernel's, in no namespace of a pod.
    Kernels(String),
}

impl Sysctl {
    /// The one of this name, whose parts are divided by points or by slashes, whichever comes first. Source: `sysctl(8)`.
    ///
    /// # Errors
    /// See [`BadSysctl`].
    pub fn parse(name: &str) -> Result<Sysctl, BadSysctl> {
        let by_slashes = name.find(['.', '/']).is_some_and(|first| name[first..].starts_with('/'));
        let swap = |letter| match letter {
            '.' => '/',
            '/' => '.',
            other => other,
        };
        let asked = name;
        let name: String = if by_slashes { asked.chars().map(swap).collect() } else { asked.to_owned() };
        let is_part = |part: &str| !matches!(part, "" | "/" | "//") && !part.contains('\0');
        if !name.split('.').all(is_part) {
            return Err(BadSysctl::NoName(asked.to_owned()));
        }
        let is_pods = name.starts_with(NETWORK) || name.starts_with(QUEUES) || IPC.contains(&&*name);
        match &*name {
            HOSTNAME => Err(BadSysctl::Hostname),
            DOMAIN_NAME => Ok(Sysctl { name }),
            _ if is_pods => Ok(Sysctl { name }),
            _ => Err(BadSysctl::Kernels(name)),
        }
    }

    /// Its file below `/proc/sys`.
    #[must_use]
    pub fn file(&self) -> String {
        let parts: Vec<_> = self.name.split('.').map(|part| part.replace('/', ".")).collect();
        parts.join("/")
    }

    /// It is of the network namespace, which a pod has one of.
    #[must_use]
    pub fn is_network(&self) -> bool {
        self.name.starts_with(NETWORK)
    }
}

impl fmt::Display for BadSysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadSysctl::NoName(name) => write!(f, "{name:?} is no name of a sysctl"),
            BadSysctl::Hostname => write!(f, "{HOSTNAME} is set by the field hostname"),
            BadSysctl::Kernels(name) => write!(f, "{name} is the kernel's, in no namespace of a pod"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_sets_what_is_of_its_namespaces_by_either_form_of_a_name() {
        for (name, file, network) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward", true),
            ("net/ipv4/ip_forward", "net/ipv4/ip_forward", true),
            ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding", true),
            ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding", true),
            ("net.ipv4.conf.a//b.forwarding", "net/ipv4/conf/a..b/forwarding", true),
            ("kernel.shm_rmid_forced", "kernel/shm_rmid_forced", false),
            ("kernel/sem", "kernel/sem", false),
            ("fs.mqueue.msg_max", "fs/mqueue/msg_max", false),
            ("kernel.domainname", "kernel/domainname", false),
        ] {
            let sysctl = Sysctl::parse(name).unwrap();
            assert_eq!((&*sysctl.file(), sysctl.is_network()), (file, network), "{name}");
        }
    }

    #[test]
    fn no_other_is_a_pods() {
        for name in [
            "kernel.core_pattern",
            "kernel.shm",
            "vm.swappiness",
            "fs.file-max",
            "user.max_user_namespaces",
            "net",
        ] {
            assert_eq!(Sysctl::parse(name), Err(BadSysctl::Kernels(name.into())));
        }
        assert_eq!(Sysctl::parse("kernel/hostname"), Err(BadSysctl::Hostname));
    }

    #[test]
    fn no_name_leads_out_of_its_tree() {
        for name in [
            "",
            ".",
            "..",
            "net.",
            "net..x",
            "net/",
            "net//x",
            "/etc/passwd",
            "net/../x",
            "net/./x",
            "net/x/..",
            "net.//.x",
            "net./.x",
            "net/../../kernel/core_pattern",
            "fs/mqueue/../file-max",
            "net.x\0",
        ] {
            let refused = Sysctl::parse(name).unwrap_err();
            assert!(matches!(refused, BadSysctl::NoName(_) | BadSysctl::Kernels(_)), "{name:?}: {refused}");
        }
        assert!(matches!(Sysctl::parse("net/../x"), Err(BadSysctl::NoName(_))));
    }
}
