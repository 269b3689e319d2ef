//! What the kernel asks at each new connection in the namespace: which socket is it for? Sources: Linux, `Documentation/bpf/prog_sk_lookup.rst`,
//! `Documentation/bpf/standardization/instruction-set.rst`, and for all numbers `include/uapi/linux/bpf.h`.

use std::{
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use vgpu_netlink::bpf::{Instruction, Map};

/// Where the fields of `struct bpf_sk_lookup` begin.
mod field {
    pub const FAMILY: i16 = 8;
    pub const PROTOCOL: i16 = 12;
    pub const REMOTE_PORT: i16 = 36;
    pub const LOCAL_IP4: i16 = 40;
    pub const LOCAL_IP6: i16 = 44;
    /// Since Linux 5.17.
    pub const INTERFACE: i16 = 64;
}

const TCP: i32 = 6;
const INET: i32 = 2;
const INET6: i32 = 10;
/// Of each namespace's loopback. Source: Linux, `include/net/net_namespace.h`, `LOOPBACK_IFINDEX`.
const LOOPBACK: i32 = 1;
/// `enum sk_action`: go on with the socket that was chosen, or look for a listener as ever.
const PASS: i32 = 1;
/// `enum bpf_func_id`.
const MAP_LOOKUP: i32 = 1;
const SK_RELEASE: i32 = 86;
const SK_ASSIGN: i32 = 124;

/// "If not equal", of 32 and of 64 bits, and "if equal", of 64.
const JUMPS: [u8; 3] = [UNLIKE, ANY, NONE];
const UNLIKE: u8 = 0x56;
const ANY: u8 = 0x55;
const NONE: u8 = 0x15;

/// The top of the stack, and the place of a key below it.
const STACK: u8 = 10;
const KEY: i16 = -4;

/// TCP connections to `ip`, from the loopback, whose port at the other end is not in `past`, are for the socket in `listener`.
pub fn chooses(ip: IpAddr, listener: &Map, past: &Map) -> Vec<Instruction> {
    // A call leaves 6 and above alone; 0 has what it gives.
    let mut program = vec![copy(6, 1)];
    for (field, value) in asked(ip) {
        program.extend([load(0x61, 0, field), jump(UNLIKE, value)]);
    }
    program.extend([load(0x69, 0, field::REMOTE_PORT), instruction(0x63, STACK, 0, KEY, 0)]);
    program.extend(look_up(past.as_fd()));
    program.extend([jump(ANY, 0), instruction(0x62, STACK, 0, KEY, 0)]);
    program.extend(look_up(listener.as_fd()));
    program.extend([jump(NONE, 0), copy(7, 0)]);
    program.extend([copy(1, 6), copy(2, 7), set(3, 0), call(SK_ASSIGN)]);
    program.extend([copy(1, 7), call(SK_RELEASE)]);
    let end = program.len();
    program.extend([set(0, PASS), instruction(0x95, 0, 0, 0, 0)]);
    for (at, jump) in program.iter_mut().enumerate().filter(|(_, one)| JUMPS.contains(&one.code)) {
        // A few dozen.
        jump.offset = i16::try_from(end - at - 1).unwrap_or(i16::MAX);
    }
    program
}

/// What each field has to be.
fn asked(ip: IpAddr) -> Vec<(i16, i32)> {
    let word = |bytes: &[u8]| i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let (family, first, address) = match ip {
        IpAddr::V4(ip) => (INET, field::LOCAL_IP4, ip.octets().to_vec()),
        IpAddr::V6(ip) => (INET6, field::LOCAL_IP6, ip.octets().to_vec()),
    };
    let words = (first..).step_by(4).zip(address.chunks_exact(4).map(word));
    [(field::PROTOCOL, TCP), (field::INTERFACE, LOOPBACK), (field::FAMILY, family)]
        .into_iter()
        .chain(words)
        .collect()
}

const fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: from << 4 | to, offset, immediate }
}

/// A field of the context; `code` says of how many bits.
const fn load(code: u8, to: u8, field: i16) -> Instruction {
    instruction(code, to, 6, field, 0)
}

const fn copy(to: u8, from: u8) -> Instruction {
    instruction(0xbf, to, from, 0, 0)
}

const fn set(to: u8, value: i32) -> Instruction {
    instruction(0xb7, to, 0, 0, value)
}

/// To the end, by what is in 0.
const fn jump(code: u8, value: i32) -> Instruction {
    instruction(code, 0, 0, 0, value)
}

const fn call(function: i32) -> Instruction {
    instruction(0x85, 0, 0, 0, function)
}

/// What `map` has by the key on the stack.
fn look_up(map: BorrowedFd<'_>) -> [Instruction; 5] {
    [
        // The map by its descriptor (`BPF_PSEUDO_MAP_FD`), 64 bits in two.
        instruction(0x18, 1, 1, 0, map.as_raw_fd()),
        instruction(0, 0, 0, 0, 0),
        copy(2, STACK),
        instruction(0x07, 2, 0, 0, KEY as i32),
        call(MAP_LOOKUP),
    ]
}
