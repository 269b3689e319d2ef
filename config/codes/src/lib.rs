//! The stable error codes `VGPU-nnn`: what users, operators and tests recognise an error by.
//!
//! One row of [`codes!`] is the whole truth about a code: who is at fault, what containerd is told, what a CUDA program is told,
//! what to do. The pages under `docs/errors/` are made from it (`cargo run -p vgpu-codes --example pages`), and a test holds
//! them against it. A number is never used again and never changes its meaning.
//!
//! Ranges: 1xx the node, 2xx requests and specs, 3xx the guest and its domain, 4xx gpu-proxy and grants, 5xx channels between
//! peers.
#![forbid(unsafe_code)]

use std::{error::Error, fmt, iter};

/// Who has to act: the three reactions that every crate knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The node, its configuration or vgpu itself.
    Ours,
    /// The peer or the caller did something that is not allowed.
    Peer,
    /// The peer ended. Ordinary.
    Gone,
}

/// The codes of gRPC that ttrpc and containerd use. Source: containerd `errdefs`, gRPC `status.proto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
#[expect(missing_docs, reason = "the names are gRPC's own")]
pub enum Rpc {
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

macro_rules! codes {
    ($( $number:literal $name:ident $fault:ident $rpc:ident cu $cu:literal : $title:literal, $meaning:literal, $remedy:literal; )*) => {
        /// A stable error code. Prints as `VGPU-nnn`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Code {
            $( #[doc = $title] $name = $number, )*
        }

        impl Code {
            /// Every code, in the order of the numbers.
            pub const ALL: &[Code] = &[$( Code::$name, )*];

            /// The code with this number. Used where a number came over a wire.
            pub const fn from_number(number: u16) -> Option<Code> {
                match number { $( $number => Some(Code::$name), )* _ => None }
            }
            /// Who has to act.
            pub const fn fault(self) -> Fault {
                match self { $( Code::$name => Fault::$fault, )* }
            }
            /// What containerd is told.
            pub const fn rpc(self) -> Rpc {
                match self { $( Code::$name => Rpc::$rpc, )* }
            }
            /// The CUresult that a program is told, where the error reaches one. Source: `cuda.h`, `CUresult`.
            pub const fn cu_result(self) -> u32 {
                match self { $( Code::$name => $cu, )* }
            }
            /// One line, without a full stop.
            pub const fn title(self) -> &'static str {
                match self { $( Code::$name => $title, )* }
            }
            /// How it comes about.
            pub const fn meaning(self) -> &'static str {
                match self { $( Code::$name => $meaning, )* }
            }
            /// What to do.
            pub const fn remedy(self) -> &'static str {
                match self { $( Code::$name => $remedy, )* }
            }
        }
    };
}

codes! {
    101 NoXen Ours FailedPrecondition cu 46: "Xen is not running on this node",
        "There is no /proc/xen/capabilities with control_d in it, or the xl tool is missing: this kernel was not booted by Xen as its control domain.",
        "Install xen-hypervisor and xen-utils, boot the entry `with Xen hypervisor`, then look at `xl info`.";
    102 KernelMissing Ours FailedPrecondition cu 46: "the guest kernel image cannot be read",
        "The file named by guest.kernel or guest.initramfs in config.toml does not exist or is not readable.",
        "Install the guest image (it belongs to /usr/lib/vgpu) or correct guest.kernel and guest.initramfs.";
    103 ConfigInvalid Ours FailedPrecondition cu 46: "the configuration is not valid",
        "config.toml has an unknown key, a value of the wrong type or out of its range, or another version.",
        "Correct the line that the message names; it also names the nearest known key.";
    104 HostResource Ours ResourceExhausted cu 46: "the node has run out of a resource",
        "Memory for the domain, disk, descriptors or processes of the driver or control domain are used up.",
        "Look at `xl info` (free_memory) and `df /run`; end pods or give the node more.";
    105 HostFailure Ours Internal cu 46: "an operation on the node failed",
        "A system call or a tool of the node failed in a way that vgpu has no better name for. The message holds the cause.",
        "Read the cause in the message and the log of containerd. If it looks like a defect of vgpu, report it with both.";
    106 StateUnreadable Ours FailedPrecondition cu 46: "the state on disk cannot be used",
        "A state file is missing, damaged, or of a version that this program does not know.",
        "Install the version of vgpu that started the pod, and remove the pod again. If that cannot be: end its domain (`xl list` has it as vgpu-…, `xl destroy`), unmount all below its folder in /run/vgpu/shared, and only then remove that folder and the one in /run/vgpu/sandboxes.";
    107 HookFailed Ours Internal cu 46: "a hook of the container's specification has failed",
        "A program of the node that the specification names as a hook could not be run, failed, or did not end in its time. The message has what it said.",
        "Mend the hook that the message names, or take it out where it comes from: containerd's base_runtime_spec, an NRI plugin, CDI, or nerdctl.";

    201 SpecInvalid Peer InvalidArgument cu 1: "the container's specification cannot be used",
        "config.json cannot be parsed, or a field of it has a value that the OCI runtime specification does not allow.",
        "Correct the field that the message names.";
    202 SpecRefused Peer InvalidArgument cu 1: "the specification asks for something that a pod in a domain of its own cannot have",
        "For example the host's network, pid or ipc namespace, a host device, or a path-based socket of the host.",
        "Remove the field that the message names, or run this pod with runc.";
    203 AnnotationUnknown Peer InvalidArgument cu 1: "a vgpu.dev annotation is not known or has a bad value",
        "Only vgpu.dev/gpu, vgpu.dev/memory-mib and vgpu.dev/share exist, each with a number.",
        "Correct the annotation that the message names.";
    204 MemoryTooSmall Peer InvalidArgument cu 1: "the pod's memory is below what a domain needs",
        "The guest kernel and its init need a part of the pod's memory before the first container starts.",
        "Raise the pod's memory limit to the amount that the message names, or lower guest.memory_min_mib in config.toml.";
    205 WrongState Peer FailedPrecondition cu 1: "the call does not fit the state of the task",
        "For example start of a running task, or delete of one that still runs.",
        "Ask for the task's state first.";
    206 NoSuchTask Peer NotFound cu 1: "no such task, exec or process",
        "The id is not known, or the process has already ended.",
        "List what there is with `ctr tasks ls`.";
    207 IdTaken Peer AlreadyExists cu 1: "the id is already in use",
        "A container or exec of this id exists.",
        "Choose another id, or delete the other one first.";
    208 NotImplemented Peer Unimplemented cu 801: "this operation is not supported",
        "vgpu does not do this, for example checkpoints.",
        "Do without it, or run this pod with runc.";
    209 CommandMissing Peer InvalidArgument cu 1: "the container's command cannot be executed",
        "The first word of the command was not found in the image's PATH, or it is not executable.",
        "Correct the command or the image.";
    212 NetworkFailed Ours Internal cu 46: "the pod's network could not be given to its domain",
        "The pod's network namespace cannot be read or used, or its interfaces could not be joined with the domain's devices.",
        "Read the cause in the message, and see that the namespace that it names is there (`ip netns`). The node needs the kernel modules sch_ingress, cls_u32 and act_mirred, and xen-netback.";

    301 DomainCreate Ours Internal cu 46: "the domain could not be created",
        "xl refused or failed. The message holds what it said.",
        "Look at `xl dmesg` and at the message. Often it is memory: see VGPU-104.";
    302 GuestSilent Gone Unavailable cu 46: "the guest did not answer in time",
        "The guest did not come up or hangs. Its domain is destroyed, and its tasks end with status 137.",
        "Look at the guest's console under /var/log/xen/console. More memory or fewer processes may help.";
    303 GuestGone Gone Unavailable cu 46: "the guest is gone",
        "Its domain crashed, was destroyed or powered off. Its tasks end with status 137.",
        "Look at the guest's console under /var/log/xen/console.";
    304 GuestRefused Peer Internal cu 46: "guest-init could not do what was asked",
        "The message holds what guest-init said.",
        "Read the message; it names the step in the guest.";
    305 ShareFailed Ours Internal cu 46: "the 9p share could not be set up",
        "The server of the root file system did not start, or not in time.",
        "Read the message: it holds what the server said. See that `shim.share_server` is installed, and look at the log of containerd.";

    401 NoProxy Ours Unavailable cu 46: "gpu-proxy does not answer",
        "The pod asks for a GPU, and nobody serves the zone socket.",
        "Start it: `systemctl start gpu-proxy`; look at `journalctl -u gpu-proxy`.";
    402 NoDevice Ours FailedPrecondition cu 100: "there is no such GPU",
        "The device that was asked for does not exist on this node, or its driver is missing.",
        "`vgpuctl info` lists the devices. `--device soft` works without a GPU.";
    403 NotGranted Peer PermissionDenied cu 100: "no GPU was granted to this container",
        "A process asked for the GPU in a container that has no grant.",
        "Start the container with `ctr run --annotation vgpu.dev/gpu=1`. Pods of Kubernetes get a GPU when vgpu has a device plugin.";
    404 LimitReached Peer ResourceExhausted cu 46: "a limit is reached",
        "Workers, channels or mapped pages of the zone are used up, or what all zones share: users, mapped pages, the GPU's time (`vgpu.dev/share`).",
        "gpu-proxy's log names the limit. Run fewer CUDA processes in the pod or on the node, or raise it in config.toml. Shares of all containers are 1000 thousandths at most: `vgpuctl ps` shows who has them; a container without one takes what is left over.";
    405 ZoneConflict Peer AlreadyExists cu 46: "the zone is registered for another domain",
        "A zone was registered again with another domain or UUID.",
        "`vgpuctl ps` shows the domain that has it: end that pod. A zone whose domain and shim are gone is free after a minute: try again then.";
    406 WorkerFailed Ours Internal cu 46: "the worker could not start or has ended",
        "The process that serves a CUDA program ended unexpectedly. The program gets an error at its next call.",
        "Look at gpu-proxy's log; start the program again.";
    407 SocketInUse Ours AlreadyExists cu 46: "another gpu-proxy serves this socket",
        "The socket answers already.",
        "Stop the other gpu-proxy, or give this one another socket.";
    408 MemoryNotClean Ours FailedPrecondition cu 46: "the GPU's memory is not known to be clean",
        "At its start gpu-proxy lets one process fill the GPU's memory and another one look for it. It was found, or could not be looked for: one pod could read what another left.",
        "Read the cause in the message. Load NVIDIA's driver without RMDisableScrubOnFree, outside of vGPU host mode, and end other programs that use the GPU; then start gpu-proxy again. `proxy.scrub_canary = false` serves without looking.";

    501 ProtocolVersion Peer FailedPrecondition cu 46: "the two sides speak different versions",
        "The versions of the hello do not meet, or the hash of the CUDA calls differs.",
        "Install the same version of vgpu on both sides; living pods keep their worker in /usr/lib/vgpu/workers.";
    502 ProtocolBroken Peer Aborted cu 46: "the peer broke the protocol",
        "An index, a length, an id or a message was not one that a correct peer sends. The channel is closed.",
        "If nobody tampers with the guest, this is a defect of vgpu: report it with the log line.";
    503 PeerGone Gone Unavailable cu 46: "the peer is gone",
        "The process or the domain at the other end ended.",
        "None: this is an ordinary end.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VGPU-{}", *self as u16)
    }
}

/// What a person is told of an error: it and its causes, each once.
pub fn with_causes(error: &dyn Error) -> String {
    let chain = iter::successors(Some(error), |&error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The page of `docs/errors/` about `code`, in Markdown.
pub fn page(code: Code) -> String {
    let fault = match code.fault() {
        Fault::Ours => "the node or vgpu",
        Fault::Peer => "the caller or the peer",
        Fault::Gone => "nobody: the peer ended",
    };
    format!(
        "# {code}: {title}\n\n{meaning}\n\n**What to do.** {remedy}\n\n| | |\n|---|---|\n| who has to act | {fault} |\n| containerd is told | {rpc:?} |\n| a CUDA program is told | CUresult {cu} |\n",
        title = code.title(),
        meaning = code.meaning(),
        remedy = code.remedy(),
        rpc = code.rpc(),
        cu = code.cu_result(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    #[test]
    fn numbers_are_unique_and_found_again() {
        for pair in Code::ALL.windows(2) {
            assert!((pair[0] as u16) < (pair[1] as u16), "{} before {}", pair[0], pair[1]);
        }
        for &code in Code::ALL {
            assert_eq!(Code::from_number(code as u16), Some(code));
        }
        assert_eq!(Code::from_number(999), None);
    }

    /// NOT_FOUND counts as success in containerd's stop paths, and UNIMPLEMENTED from Create makes it try another protocol.
    #[test]
    fn only_one_code_says_not_found_and_one_unimplemented() {
        let with = |rpc| Code::ALL.iter().filter(|code| code.rpc() == rpc).count();
        assert_eq!((with(Rpc::NotFound), with(Rpc::Unimplemented)), (1, 1));
    }

    #[test]
    fn every_code_has_its_page_and_every_page_its_code() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
        for &code in Code::ALL {
            let found = fs::read_to_string(folder.join(format!("{code}.md"))).unwrap_or_default();
            assert_eq!(found, page(code), "run: cargo run -p vgpu-codes --example pages");
        }
        assert_eq!(
            fs::read_dir(&folder).unwrap().count(),
            Code::ALL.len(),
            "a page without a code in {folder:?}"
        );
    }
}
