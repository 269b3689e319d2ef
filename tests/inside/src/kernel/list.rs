//! What a pod may expect of the guest's kernel: the one list. `docs/guest-kernel.md` is made from it, the kernel that is built and a pod
//! that runs are held against it.

use std::io;

use rustix::{
    fs::{MemfdFlags, inotify, memfd_create},
    mount::{FsOpenFlags, fsopen},
    net::{AddressFamily, SocketType},
    process::{PidfdFlags, getpid, pidfd_open},
    thread::UnshareFlags,
};

use super::{Attempt, Feature, Group, files, network, nft, open, says, socket, xt};
use crate::raw;

/// Kinds of programs. Source: `linux/bpf.h`.
const SOCKET_FILTER: u32 = 1;
const CGROUP_DEVICE: u32 = 15;
/// Source: `linux/seccomp.h`, SECCOMP_FILTER_FLAG_NEW_LISTENER.
const NEW_LISTENER: usize = 8;

/// Source: `linux/socket.h`, AF_ALG.
const ALG: AddressFamily = AddressFamily::from_raw(38);

const NET_ADMIN: &str = "wants CAP_NET_ADMIN";
const SYS_ADMIN: &str = "wants CAP_SYS_ADMIN";

/// For every container.
const fn all(
    name: &'static str,
    what: &'static str,
    options: &'static [&'static str],
    attempt: Attempt,
) -> Feature {
    Feature { name, what, options, plain: "ok", admin: "ok", why: "", attempt }
}

impl Feature {
    /// For who has a capability that containers do not have unasked.
    const fn wants(mut self, why: &'static str) -> Self {
        (self.plain, self.why) = ("EPERM", why);
        self
    }

    /// For who has a device that containers do not have unasked.
    const fn wants_device(mut self, why: &'static str) -> Self {
        (self.plain, self.why) = ("ENOENT", why);
        self
    }

    /// For nobody.
    const fn never(mut self, error: &'static str, why: &'static str) -> Self {
        (self.plain, self.admin, self.why) = (error, error, why);
        self
    }

    /// Not even for who has the capability.
    const fn nor_then(mut self, error: &'static str, why: &'static str) -> Self {
        (self.admin, self.why) = (error, why);
        self
    }
}

/// By subject.
pub const LIST: &[Group] = &[
    Group { title: "Network", features: NETWORK },
    Group { title: "Netfilter", features: NETFILTER },
    Group { title: "File systems", features: FILES },
    Group { title: "Namespaces", features: NAMESPACES },
    Group { title: "BPF, sandboxes, keys", features: SANDBOXES },
    Group { title: "Calls, and what is seen of the machine", features: CALLS },
    Group { title: "Not there", features: NOT_THERE },
];

const NETWORK: &[Feature] = &[
    all("socket_ipv6", "IPv6 beside IPv4", &["IPV6"], || socket(AddressFamily::INET6, SocketType::STREAM)),
    all("socket_raw", "ping, traceroute", &["INET"], || socket(AddressFamily::INET, SocketType::RAW)),
    all("socket_packet", "tcpdump, DHCP, ARP", &["PACKET"], || {
        socket(AddressFamily::PACKET, SocketType::RAW)
    }),
    all(
        "sockets_inet",
        "`ss` lists TCP's and UDP's sockets",
        &["INET_TCP_DIAG", "INET_UDP_DIAG"],
        network::inet_sockets,
    ),
    all("sockets_unix", "`ss -x`", &["UNIX_DIAG"], network::unix_sockets),
    all("veth", "pairs of links: containers in the pod, networks under test", &["VETH"], network::veth)
        .wants(NET_ADMIN),
    all("bridge", "a switch for those links", &["BRIDGE"], network::bridge).wants(NET_ADMIN),
    all("vlan", "802.1Q links", &["VLAN_8021Q"], network::vlan).wants(NET_ADMIN),
    all(
        "routing_rules",
        "`ip rule`: routes by a packet's mark, for TPROXY and VPNs",
        &["IP_MULTIPLE_TABLES", "IPV6_MULTIPLE_TABLES"],
        network::rules,
    )
    .wants(NET_ADMIN),
    all("tun", "VPNs: interfaces that are a program", &["TUN"], network::tun)
        .wants_device("`/dev/net/tun` is there where the spec asks for it; an interface wants CAP_NET_ADMIN"),
];

const NETFILTER: &[Feature] = &[
    all("nf_tables", "`nft` and `iptables-nft`", &["NF_TABLES", "NF_TABLES_INET"], nft::generation)
        .wants(NET_ADMIN),
    all("nft_redirect", "connections to a port of the pod's own proxy", &["NFT_REDIR", "NFT_NAT"], nft::redirect)
    .wants(NET_ADMIN),
    all("nft_masquerade", "the pod as a router for what is behind it", &["NFT_MASQ"], nft::masquerade)
        .wants(NET_ADMIN),
    all("nft_tproxy", "a proxy that sees where a connection was meant to go", &["NFT_TPROXY"], nft::tproxy)
        .wants(NET_ADMIN),
    all("nft_owner", "by the user who sends", &["NF_TABLES_IPV4", "NF_TABLES_IPV6"], nft::owner)
        .wants(NET_ADMIN),
    all("nft_mark", "marks on packets", &["NF_TABLES_IPV4"], nft::mark).wants(NET_ADMIN),
    all(
        "nft_conntrack",
        "by the state, mark and zone of a packet's connection",
        &["NFT_CT", "NF_CONNTRACK_MARK", "NF_CONNTRACK_ZONES"],
        nft::connection_state,
    )
    .wants(NET_ADMIN),
    all("nft_socket", "by the socket that waits for a packet", &["NFT_SOCKET"], nft::socket).wants(NET_ADMIN),
    all("nft_reject", "an answer to what is not let in", &["NFT_REJECT"], nft::reject).wants(NET_ADMIN),
    all(
        "nft_log_group",
        "packets to a program that listens (NFLOG)",
        &["NFT_LOG", "NETFILTER_NETLINK_LOG"],
        nft::log_to_group,
    )
    .wants(NET_ADMIN),
    all("nft_log", "packets into the kernel's log (LOG)", &["!NF_LOG_SYSLOG"], nft::log_to_kernel)
        .wants(NET_ADMIN)
        .nor_then("ENOENT", "the kernel's log is the domain's console, which is a file of the node: log to a group"),
    all("iptables_nft", "matches and targets of iptables in tables of nft", &["NFT_COMPAT"], nft::compat)
        .wants(NET_ADMIN),
    all(
        "iptables_tables",
        "`iptables-legacy`, `ip6tables-legacy`: filter, mangle, nat, raw",
        &[
            "IP_NF_FILTER", "IP_NF_MANGLE", "IP_NF_NAT", "IP_NF_RAW", "IP6_NF_FILTER", "IP6_NF_MANGLE",
            "IP6_NF_NAT", "IP6_NF_RAW",
        ],
        xt::tables,
    )
    .wants(NET_ADMIN),
    all(
        "iptables_matches",
        "addrtype, comment, connmark, conntrack, iprange, limit, mark, multiport, owner, recent, socket, state, statistic, tcp, udp",
        &[
            "NETFILTER_XT_MATCH_ADDRTYPE", "NETFILTER_XT_MATCH_COMMENT", "NETFILTER_XT_MATCH_CONNTRACK",
            "NETFILTER_XT_MATCH_IPRANGE", "NETFILTER_XT_MATCH_LIMIT", "NETFILTER_XT_MATCH_MULTIPORT",
            "NETFILTER_XT_MATCH_OWNER", "NETFILTER_XT_MATCH_RECENT", "NETFILTER_XT_MATCH_SOCKET",
            "NETFILTER_XT_MATCH_STATE", "NETFILTER_XT_MATCH_STATISTIC",
        ],
        xt::matches,
    )
    .wants(NET_ADMIN),
    all(
        "iptables_targets",
        "CONNMARK, CT, DNAT, MARK, MASQUERADE, NFLOG, REDIRECT, REJECT, SNAT, TCPMSS, TPROXY",
        &[
            "NETFILTER_XT_MARK", "NETFILTER_XT_CONNMARK", "NETFILTER_XT_NAT", "NETFILTER_XT_TARGET_CT",
            "NETFILTER_XT_TARGET_MASQUERADE", "NETFILTER_XT_TARGET_NFLOG", "NETFILTER_XT_TARGET_REDIRECT",
            "NETFILTER_XT_TARGET_TCPMSS", "NETFILTER_XT_TARGET_TPROXY", "IP_NF_TARGET_REJECT",
            "IP6_NF_TARGET_REJECT",
        ],
        xt::targets,
    )
    .wants(NET_ADMIN),
    all("conntrack", "`conntrack -L`, `-E`", &["NF_CT_NETLINK", "NF_CONNTRACK_EVENTS"], nft::tracked)
        .wants(NET_ADMIN),
];

const FILES: &[Feature] = &[
    all("fuse", "file systems that are a program: object stores, archives", &["FUSE_FS"], files::fuse)
        .wants_device("`/dev/fuse` is there where the spec asks for it; a mount wants CAP_SYS_ADMIN, or a user namespace"),
    all("fs_overlay", "layers over each other", &["OVERLAY_FS"], || new_file_system("overlay")).wants(SYS_ADMIN),
    all("fs_tmpfs", "files in memory", &["TMPFS", "TMPFS_XATTR"], || new_file_system("tmpfs")).wants(SYS_ADMIN),
    all(
        "overlay_of_a_user",
        "both in a user namespace: images built and unpacked without root",
        &["OVERLAY_FS", "USER_NS"],
        files::overlay_of_a_user,
    ),
    all("binfmt_misc", "programs of other machines by an emulator, for a user namespace", &["BINFMT_MISC"], files::binfmt_misc),
    all("inotify", "changes of files; of volumes that the node writes, those of kubelet's that it changes as a whole (ConfigMaps, Secrets, projected ones, the downward API's)", &["INOTIFY_USER"], || {
        inotify::init(inotify::CreateFlags::CLOEXEC).map(drop).map_err(Into::into)
    }),
    all(
        "fanotify",
        "the same by file systems, told afterwards: no program holds up another one's opens",
        &["FANOTIFY", "!FANOTIFY_ACCESS_PERMISSIONS"],
        raw::fanotify,
    ),
    all("memfd", "files without a name", &["MEMFD_CREATE"], || {
        memfd_create("inside", MemfdFlags::CLOEXEC).map(drop).map_err(Into::into)
    }),
];

const NAMESPACES: &[Feature] = &[
    all("unshare_user", "root in a namespace of one's own", &["USER_NS"], || {
        raw::unshare(UnshareFlags::NEWUSER)
    }),
    all("unshare_cgroup", "a cgroup as the root", &["CGROUPS"], || raw::unshare(UnshareFlags::NEWCGROUP))
        .wants(SYS_ADMIN),
    all("unshare_ipc", "shared memory and queues", &["IPC_NS"], || raw::unshare(UnshareFlags::NEWIPC))
        .wants(SYS_ADMIN),
    all("unshare_mount", "mounts", &["NAMESPACES"], || raw::unshare(UnshareFlags::NEWNS)).wants(SYS_ADMIN),
    all("unshare_network", "networks", &["NET_NS"], || raw::unshare(UnshareFlags::NEWNET)).wants(SYS_ADMIN),
    all("unshare_pid", "processes", &["PID_NS"], || raw::unshare(UnshareFlags::NEWPID)).wants(SYS_ADMIN),
    all("unshare_time", "clocks", &["TIME_NS"], || raw::unshare(UnshareFlags::NEWTIME)).wants(SYS_ADMIN),
    all("unshare_uts", "names", &["UTS_NS"], || raw::unshare(UnshareFlags::NEWUTS)).wants(SYS_ADMIN),
];

const SANDBOXES: &[Feature] = &[
    all(
        "bpf",
        "programs, compiled to machine code; maps",
        &["BPF_SYSCALL", "BPF_JIT_ALWAYS_ON", "BPF_UNPRIV_DEFAULT_OFF"],
        || raw::bpf_program(SOCKET_FILTER),
    )
    .wants("wants CAP_BPF or CAP_SYS_ADMIN: this kernel has no mitigations that the check of a user's program relies on"),
    all("bpf_cgroup", "programs for the devices and sockets of a cgroup", &["CGROUP_BPF"], || {
        raw::bpf_program(CGROUP_DEVICE)
    })
    .wants("as bpf"),
    all(
        "bpf_jit",
        "no interpreter, which is what speculates; seccomp's filters are compiled, too",
        &["BPF_JIT", "BPF_JIT_ALWAYS_ON"],
        || says("/proc/sys/net/core/bpf_jit_enable", &["1"]),
    ),
    all("seccomp", "filters of system calls", &["SECCOMP_FILTER"], || raw::seccomp_filter(0)),
    all("seccomp_listener", "calls that another process decides", &["SECCOMP_FILTER"], || {
        raw::seccomp_filter(NEW_LISTENER)
    }),
    all("landlock", "sandboxes that a program makes for itself", &["SECURITY_LANDLOCK"], raw::landlock),
    all("keyring", "keys of a process, session and user (a user's are those of its pod's other containers)", &["KEYS"], raw::key),
];

const CALLS: &[Feature] = &[
    all(
        "io_uring",
        "input and output in rings, where the spec's seccomp profile lets it",
        &["IO_URING"],
        raw::io_uring,
    ),
    all("perf", "counters of one's own programs", &["PERF_EVENTS"], raw::perf_event),
    all("pidfd", "processes as descriptors", &[], || {
        pidfd_open(getpid(), PidfdFlags::empty()).map(drop).map_err(Into::into)
    }),
    all("random", "randomness from the first program on, without waiting", &[], raw::random),
    all("pressure", "`/proc/pressure` and cgroups' files: where time is lost", &["PSI"], || {
        says("/proc/pressure/cpu", &["some"])
    }),
    all(
        "clock",
        "time by Xen's clock, or the processor's where Xen says that it is safe: right after a pause",
        &["PARAVIRT_CLOCK"],
        || says("/sys/devices/system/clocksource/clocksource0/current_clocksource", &["xen", "tsc"]),
    ),
];

const NOT_THERE: &[Feature] = &[
    all("kvm", "machines in the pod", &["!KVM"], || open("/dev/kvm"))
        .never("ENOENT", "the pod's domain is no hypervisor's host"),
    all("modules", "modules", &["!MODULES"], raw::module)
        .never("ENOSYS", "what is on is built in; nothing is loaded into a kernel that runs"),
    all("socket_vsock", "sockets to a hypervisor's host", &["!VSOCKETS"], || {
        socket(AddressFamily::VSOCK, SocketType::STREAM)
    })
    .never("EAFNOSUPPORT", "the domain has no such host: shim and guest have rings of their own"),
    all(
        "socket_alg",
        "the kernel's ciphers by sockets",
        &["!CRYPTO_USER_API_HASH", "!CRYPTO_USER_API_SKCIPHER"],
        || socket(ALG, SocketType::SEQPACKET),
    )
    .never("EAFNOSUPPORT", "libraries have faster ones, and these are a way into the kernel"),
    all("userfaultfd", "page faults that a program serves", &["!USERFAULTFD"], raw::userfaultfd).never(
        "ENOSYS",
        "for moving processes between machines, and a favourite tool of who attacks a kernel",
    ),
];

fn new_file_system(kind: &str) -> io::Result<()> {
    fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map(drop).map_err(Into::into)
}
