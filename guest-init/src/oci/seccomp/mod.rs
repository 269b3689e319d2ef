//! The seccomp section of a spec as BPF filters (OCI runtime spec, config-linux.md, "Seccomp").
//!
//! `seccompiler` makes filters of one action each, so a profile becomes several, and the kernel takes the strictest answer of all
//! (seccomp(2)): the first lets through what any rule names and gives the profile's default action for the rest; then one for each action
//! gives that action for what its rules name and lets the rest through. Names that this architecture does not have mean nothing, as for runc.
//! A call that is newer than all that the profile names gets ENOSYS where it would be refused, as for runc: programs then fall back to an
//! older call, which they do not after EPERM.
//! Not here: SCMP_ACT_NOTIFY, whose listener would be a socket of the node.

mod names;

use std::{collections::BTreeMap, io};

use libcontainer::oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
    LinuxSyscall,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use crate::sys;

/// Where `struct seccomp_data` has the call's number and its architecture (Linux, `include/uapi/linux/seccomp.h`).
const DATA_NUMBER: u32 = 0;
const DATA_ARCH: u32 = 4;
/// Linux, `include/uapi/linux/audit.h`.
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
/// In the number of a call of the x32 kind (Linux, `arch/x86/include/uapi/asm/unistd.h`).
const X32_BIT: u32 = 0x4000_0000;

/// Conditions by the number of the call; none: whatever its arguments are.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Makes the filters, in the order in which they have to be installed.
/// # Errors
/// What of the profile cannot be done.
pub fn compile(profile: &LinuxSeccomp) -> Result<Vec<BpfProgram>, String> {
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let mut named = Rules::new();
    let mut groups: Vec<(SeccompAction, Rules)> = Vec::new();
    for syscall in profile.syscalls().iter().flatten() {
        let action = action(syscall.action(), syscall.errno_ret())?;
        add(&mut named, syscall)?;
        match groups.iter_mut().find(|(known, _)| *known == action) {
            Some((_, rules)) => add(rules, syscall)?,
            None => {
                let mut rules = Rules::new();
                add(&mut rules, syscall)?;
                groups.push((action, rules));
            }
        }
    }
    let mut filters = Vec::new();
    if default != SeccompAction::Allow {
        let takes_seccomp = !named.contains_key(&libc::SYS_seccomp);
        let newest = named.last_key_value().map(|(number, _)| *number).filter(|_| refuses(&default));
        let mut program = newest.map(unknown_to_profile).transpose()?.unwrap_or_default();
        program.extend(filter(named, default, SeccompAction::Allow)?);
        filters.push((takes_seccomp, program));
    }
    for (action, rules) in groups.into_iter().filter(|(action, _)| *action != SeccompAction::Allow) {
        let takes_seccomp = rules.contains_key(&libc::SYS_seccomp);
        filters.push((takes_seccomp, filter(rules, SeccompAction::Allow, action)?));
    }
    // Behind a filter that takes the call seccomp away no other could be installed.
    filters.sort_by_key(|(takes_seccomp, _)| *takes_seccomp);
    Ok(filters.into_iter().map(|(_, filter)| filter).collect())
}

/// Installs the profile for this thread and what it executes. It needs no_new_privs or CAP_SYS_ADMIN.
/// # Errors
/// The profile cannot be done, or the kernel refuses it.
pub fn apply(profile: &LinuxSeccomp) -> io::Result<()> {
    let flags = profile.flags().iter().flatten().map(|flag| match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
        // One thread has no others to synchronise with, and nothing waits for notifications.
        _ => 0,
    });
    let flags = flags.fold(0, |all, flag| all | flag);
    for filter in compile(profile).map_err(io::Error::other)? {
        sys::add_seccomp_filter(&filter, flags)?;
    }
    Ok(())
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<SeccompAction, String> {
    use LinuxSeccompAction as A;
    Ok(match action {
        A::ScmpActKill | A::ScmpActKillThread => SeccompAction::KillThread,
        A::ScmpActKillProcess => SeccompAction::KillProcess,
        A::ScmpActTrap => SeccompAction::Trap,
        A::ScmpActErrno => SeccompAction::Errno(errno.unwrap_or(libc::EPERM.cast_unsigned())),
        A::ScmpActTrace => SeccompAction::Trace(errno.unwrap_or(libc::EPERM.cast_unsigned())),
        A::ScmpActLog => SeccompAction::Log,
        A::ScmpActAllow => SeccompAction::Allow,
        A::ScmpActNotify => return Err("SCMP_ACT_NOTIFY is not supported".into()),
    })
}

/// Whether the call is not done. A tracer decides by itself.
fn refuses(action: &SeccompAction) -> bool {
    !matches!(action, SeccompAction::Allow | SeccompAction::Log | SeccompAction::Trace(_))
}

/// The begin of a filter: ENOSYS for what is newer than the call `newest`, and on to the next instruction for the rest, which are also
/// calls of other architectures and x32's.
fn unknown_to_profile(newest: i64) -> Result<BpfProgram, String> {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
    const AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let newest = u32::try_from(newest).map_err(|error| error.to_string())?;
    let enosys = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    Ok(vec![
        step(LOAD, 0, 0, DATA_ARCH),
        step(EQUAL, 0, 4, AUDIT_ARCH_X86_64),
        step(LOAD, 0, 0, DATA_NUMBER),
        step(AT_LEAST, 2, 0, X32_BIT),
        step(GREATER, 0, 1, newest),
        step(RETURN, 0, 0, enosys.into()),
    ])
}

fn filter(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> Result<BpfProgram, String> {
    SeccompFilter::new(rules, otherwise, matched, TargetArch::x86_64)
        .and_then(BpfProgram::try_from)
        .map_err(|error| error.to_string())
}

/// Adds a line of the profile. Without conditions it also swallows those of the same call.
fn add(rules: &mut Rules, syscall: &LinuxSyscall) -> Result<(), String> {
    let args = syscall.args().as_deref().unwrap_or_default();
    for number in syscall.names().iter().filter_map(|name| names::number(name)) {
        if args.is_empty() {
            rules.insert(number, Vec::new());
            continue;
        }
        match rules.get_mut(&number) {
            Some(unconditional) if unconditional.is_empty() => {}
            Some(conditional) => conditional.extend(alternatives(args)?),
            None => {
                rules.insert(number, alternatives(args)?);
            }
        }
    }
    Ok(())
}

/// All conditions of a line have to hold, except where an argument is named twice: then each of them is enough, as for runc.
fn alternatives(args: &[LinuxSeccompArg]) -> Result<Vec<SeccompRule>, String> {
    let twice = args
        .iter()
        .enumerate()
        .any(|(place, arg)| args[..place].iter().any(|earlier| earlier.index() == arg.index()));
    let rule = |args: &[LinuxSeccompArg]| {
        let conditions = args.iter().map(condition).collect::<Result<_, String>>()?;
        SeccompRule::new(conditions).map_err(|error| error.to_string())
    };
    if twice { args.chunks(1).map(rule).collect() } else { Ok(vec![rule(args)?]) }
}

fn condition(arg: &LinuxSeccompArg) -> Result<SeccompCondition, String> {
    use LinuxSeccompOperator as O;
    let (operator, value) = match arg.op() {
        O::ScmpCmpNe => (SeccompCmpOp::Ne, arg.value()),
        O::ScmpCmpLt => (SeccompCmpOp::Lt, arg.value()),
        O::ScmpCmpLe => (SeccompCmpOp::Le, arg.value()),
        O::ScmpCmpEq => (SeccompCmpOp::Eq, arg.value()),
        O::ScmpCmpGe => (SeccompCmpOp::Ge, arg.value()),
        O::ScmpCmpGt => (SeccompCmpOp::Gt, arg.value()),
        // The first value is the mask, the second what is left under it (seccomp_rule_add(3)).
        O::ScmpCmpMaskedEq => (SeccompCmpOp::MaskedEq(arg.value()), arg.value_two().unwrap_or(0)),
    };
    let index = u8::try_from(arg.index()).map_err(|_| format!("there is no argument {}", arg.index()))?;
    SeccompCondition::new(index, SeccompCmpArgLen::Qword, operator, value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn compiled(profile: Value) -> Result<Vec<BpfProgram>, String> {
        compile(&serde_json::from_value(profile).unwrap())
    }

    /// What the filter answers to a call (Linux, `Documentation/networking/filter.rst`: the few instructions that seccompiler uses).
    fn answer(filter: &BpfProgram, number: i64, args: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend_from_slice(&u32::try_from(number).unwrap().to_le_bytes());
        data.extend_from_slice(&AUDIT_ARCH_X86_64.to_le_bytes());
        data.extend_from_slice(&[0; 8]);
        args.iter().for_each(|arg| data.extend_from_slice(&arg.to_le_bytes()));
        let (mut at, mut register) = (0, 0_u32);
        loop {
            let step = &filter[at];
            at += 1;
            let jump = |taken: bool| usize::from(if taken { step.jt } else { step.jf });
            match step.code {
                0x20 => {
                    let place = step.k as usize;
                    register = u32::from_le_bytes(data[place..place + 4].try_into().unwrap());
                }
                0x54 => register &= step.k,
                0x05 => at += step.k as usize,
                0x15 => at += jump(register == step.k),
                0x25 => at += jump(register > step.k),
                0x35 => at += jump(register >= step.k),
                0x06 => return step.k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;

    /// The strictest of all filters (seccomp(2)): the lowest, as a signed number.
    fn strictest(filters: &[BpfProgram], number: i64, args: [u64; 6]) -> u32 {
        let answers = filters.iter().map(|filter| answer(filter, number, args));
        answers.min_by_key(|answer| answer.cast_signed()).unwrap()
    }

    fn verdict(filters: &[BpfProgram], name: &str, args: [u64; 6]) -> u32 {
        strictest(filters, names::number(name).unwrap(), args)
    }

    #[test]
    fn a_list_of_what_is_allowed_refuses_the_rest_and_has_exceptions() {
        let filters = compiled(json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "syscalls": [
                {"names": ["read", "seccomp", "chown32", "not_a_call"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
                {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
                {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 0xffff_ffff_u32, "op": "SCMP_CMP_EQ"}]},
                {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
                    "args": [{"index": 0, "value": 0x7e02_0000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
            ],
        }))
        .unwrap();
        let with = |first: u64| [first, 0, 0, 0, 0, 0];
        for (name, first, expected) in [
            ("read", 0, ALLOW),
            ("write", 0, ERRNO | 1),
            ("clone3", 0, ERRNO | 38),
            ("personality", 8, ALLOW),
            ("personality", 0xffff_ffff, ALLOW),
            ("personality", 1 << 40 | 8, ERRNO | 1),
            ("clone", 0x11, ALLOW),
            ("clone", 0x1000_0000, ERRNO | 1),
        ] {
            assert_eq!(verdict(&filters, name, with(first)), expected, "{name}({first:#x})");
        }
    }

    #[test]
    fn a_list_of_what_is_refused_allows_the_rest() {
        let filters = compiled(json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [
                {"names": ["mkdir", "seccomp"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
                {"names": ["kill"], "action": "SCMP_ACT_ERRNO",
                    "args": [{"index": 1, "value": 9, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 15, "op": "SCMP_CMP_EQ"}]},
                {"names": ["kill"], "action": "SCMP_ACT_ALLOW"},
            ],
        }))
        .unwrap();
        assert_eq!(verdict(&filters, "mkdir", [0; 6]), ERRNO | 13);
        assert_eq!(verdict(&filters, "rmdir", [0; 6]), ALLOW);
        let signal = |number: u64| [0, number, 0, 0, 0, 0];
        assert_eq!(verdict(&filters, "kill", signal(15)), ERRNO | 1, "either of an argument's two values");
        assert_eq!(verdict(&filters, "kill", signal(3)), ALLOW);
        let last = filters.last().unwrap();
        assert_eq!(answer(last, libc::SYS_seccomp, [0; 6]), ERRNO | 13, "it would keep the others out");
    }

    /// containerd's older profiles do not name fchmodat2, and glibc's fchmodat falls back after ENOSYS alone.
    #[test]
    fn what_is_newer_than_the_profile_is_not_there() {
        const ENOSYS: u32 = ERRNO | 38;
        const KILL_PROCESS: u32 = 0x8000_0000;
        for (default, refused, newer) in [
            ("SCMP_ACT_ERRNO", ERRNO | 1, ENOSYS),
            ("SCMP_ACT_KILL", 0, ENOSYS),
            ("SCMP_ACT_KILL_PROCESS", KILL_PROCESS, ENOSYS),
            ("SCMP_ACT_TRAP", 0x0003_0000, ENOSYS),
            ("SCMP_ACT_TRACE", 0x7ff0_0001, 0x7ff0_0001),
            ("SCMP_ACT_LOG", 0x7ffc_0000, 0x7ffc_0000),
            ("SCMP_ACT_ALLOW", ALLOW, ALLOW),
        ] {
            let filters = compiled(json!({
                "defaultAction": default,
                "syscalls": [
                    {"names": ["read", "seccomp", "faccessat2"], "action": "SCMP_ACT_ALLOW"},
                    {"names": ["futex_waitv"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
                ],
            }))
            .unwrap();
            for (name, expected) in [
                ("read", ALLOW),
                ("mount", refused),
                ("process_madvise", refused),
                // The newest that is named, by whatever line.
                ("futex_waitv", ERRNO | 13),
                ("set_mempolicy_home_node", newer),
                ("fchmodat2", newer),
            ] {
                assert_eq!(verdict(&filters, name, [0; 6]), expected, "{default}: {name}");
            }
            let x32 = i64::from(X32_BIT) + 452;
            assert_eq!(strictest(&filters, x32, [0; 6]), refused, "{default}: another kind of call");
        }
        let nothing = compiled(json!({"defaultAction": "SCMP_ACT_ERRNO"})).unwrap();
        assert_eq!(
            verdict(&nothing, "fchmodat2", [0; 6]),
            ERRNO | 1,
            "nothing is named that it could be newer than"
        );
    }

    #[test]
    fn what_libc_has_no_number_for_can_be_refused() {
        let filters = compiled(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["statmount", "lsm_set_self_attr", "map_shadow_stack"], "action": "SCMP_ACT_ERRNO"}]}))
        .unwrap();
        for (number, expected) in [(457, ERRNO | 1), (460, ERRNO | 1), (453, ERRNO | 1), (458, ALLOW)] {
            assert_eq!(answer(&filters[0], number, [0; 6]), expected, "{number}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_named() {
        let notify = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]});
        assert!(compiled(notify).unwrap_err().contains("NOTIFY"));
        let seventh = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]});
        assert!(compiled(seventh).is_err());
        assert!(compiled(json!({"defaultAction": "SCMP_ACT_ALLOW"})).unwrap().is_empty());
    }
}
