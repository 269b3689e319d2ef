//! `docs/guest-kernel.md`.

use std::fmt::Write as _;

use super::{Feature, LIST, answer};

const HEAD: &str = "# What a pod may expect of its kernel

Made from `tests/inside/src/kernel/list.rs` (`UPDATE=1 cargo test -p vgpu-inside guest_kernel` writes it anew). A pod has a kernel of its own, the same
on every node. Each line is tried in a pod by story `guest_kernel_has_what_the_list_says`, in a container with the capabilities that containerd gives
unasked, and in one that has CAP_NET_ADMIN and CAP_SYS_ADMIN, and `/dev/fuse` and `/dev/net/tun` in its spec; each option is looked up in the kernel
that was built (`cargo xtask test installed`). A seccomp profile forbids what it forbids, as on any node: containerd's own leaves namespaces, mounts and
BPF to who has CAP_SYS_ADMIN. In a user namespace of its own a container is root over what it makes there, so networks, rules and mounts too.
";

/// All of it.
pub fn document() -> String {
    let mut out = HEAD.to_owned();
    for group in LIST {
        let _ = write!(
            out,
            "\n## {}\n\n| feature | what for | unasked | with capabilities and devices | why not | options |\n|---|---|---|---|---|---|\n",
            group.title
        );
        for feature in group.features {
            out.push_str(&line(feature));
        }
    }
    out
}

fn line(feature: &Feature) -> String {
    let options: Vec<String> = feature
        .options
        .iter()
        .map(|option| {
            option.strip_prefix('!').map_or_else(|| format!("`{option}`"), |off| format!("not `{off}`"))
        })
        .collect();
    let Feature { name, what, plain, admin, why, .. } = feature;
    format!("| `{name}` | {what} | {} | {} | {why} | {} |\n", answer(plain), answer(admin), options.join(" "))
}
