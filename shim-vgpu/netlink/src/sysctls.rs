//! Which sysctls somebody has set of a network namespace, as CNI's plugin `tuning` does: those whose value is not a new namespace's.
//!
//! A new one is made and read beside it, since what the kernel gives one depends on the node. An interface has its values from `default`
//! when it comes into a namespace, those of neighbours from the node's, which the new loopback has, too. Writing `all` or `default` may
//! write an interface's as well, so where one of these was set, the interface's own is told in any case.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::{fd::AsFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    thread,
};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// The thread's network namespace's. Source: Linux, `Documentation/admin-guide/sysctl/net.rst`.
const ROOT: &str = "/proc/sys/net";
/// The folders that have one for each interface, below that of a protocol, and whose values there a new interface has.
const OF_INTERFACES: [(&str, &str); 2] = [("conf", "default"), ("neigh", "lo")];
/// Of each interface, what is carried with it or settled by guest-init itself.
const SETTLED: [&str; 3] = ["accept_ra", "addr_gen_mode", "mtu"];

/// The values by their files below `/proc/sys`.
type Values = BTreeMap<PathBuf, String>;

/// Those of the thread's namespace, and of it and its loopback and `interfaces`, that were set; each by its file below `/proc/sys`.
///
/// # Errors
/// No thread or namespace is to be had, or the kernel does not say what there is.
pub(crate) fn set_here(interfaces: &[&str]) -> io::Result<BTreeMap<PathBuf, String>> {
    // First: what a module that is loaded meanwhile brings is in what is usual then, and nobody has set it.
    let values = read(interfaces)?;
    let usual = thread::scope(|scope| {
        let fresh = thread::Builder::new().name("fresh-netns".into()).spawn_scoped(scope, || {
            new_namespace()?;
            read(&[])
        })?;
        fresh.join().map_err(|_| io::Error::other("the thread in a new network namespace panicked"))?
    })?;
    Ok(set(values, &usual))
}

/// Of this thread's own, which must end soon. Made from the process's, and not from the one that is looked at: a node may have a new one begin with
/// what the one before it has set. Source: Linux, `Documentation/admin-guide/sysctl/net.rst`, `devconf_inherit_init_net`.
fn new_namespace() -> io::Result<()> {
    let ours = File::open("/proc/self/ns/net")?;
    move_into_link_name_space(ours.as_fd(), Some(LinkNameSpaceType::Network))?;
    #[expect(unsafe_code, reason = "rustix calls it so for its file descriptors: these stay the process's")]
    // SAFETY: the flag parts this thread from its network namespace alone, and not from the process's descriptors.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(Into::into)
}

fn read(interfaces: &[&str]) -> io::Result<Values> {
    let mut values = Values::new();
    let mut folders = vec![PathBuf::from(ROOT)];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            // Its interface went away, or its module.
            Err(gone) if gone.kind() == io::ErrorKind::NotFound && folder != Path::new(ROOT) => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            let below = below(&path);
            if kind.is_dir() {
                if Interfaces::of(&below).is_none_or(|of| of.is_told(interfaces)) {
                    folders.push(path);
                }
                continue;
            }
            // Of those that are not for writing nobody has set one; those that are not for reading are no values.
            let is_value = entry.metadata().is_ok_and(|file| file.permissions().mode() & 0o600 == 0o600);
            // Others were not set so far, as a secret; or they went away.
            if is_value && let Ok(value) = fs::read_to_string(&path) {
                values.insert(below, value.trim_end().to_owned());
            }
        }
    }
    Ok(values)
}

fn below(path: &Path) -> PathBuf {
    path.strip_prefix("/proc/sys").unwrap_or(path).to_owned()
}

/// Those of `values` that are not as usual.
fn set(values: Values, usual: &Values) -> Values {
    let is_usual = |file: &Path| values.get(file) == usual.get(file);
    let is_set = |file: &Path| {
        let Some(of) = Interfaces::of(file) else { return !is_usual(file) };
        if of.name == "all" || of.name == "default" {
            return !is_usual(file);
        }
        let [all, default] = ["all", "default"].map(|name| of.with(name));
        if of.name == "lo" {
            return !is_usual(file) || !is_usual(&all) || !is_usual(&default);
        }
        let is_settled = SETTLED.iter().any(|key| of.key == Path::new(key));
        // Some protocols have no `default`.
        let born = usual.get(&of.with(of.born_as)).or_else(|| usual.get(&of.with("lo")));
        let is_new = born.is_none() || values.get(file) == born;
        let is_as_born = is_new && is_usual(&all) && is_usual(&default);
        !is_settled && !is_as_born
    };
    let set: Vec<PathBuf> = values.keys().filter(|file| is_set(file)).cloned().collect();
    set.into_iter().filter_map(|file| Some((file.clone(), values.get(&file)?.clone()))).collect()
}

/// A file or folder below that of an interface, or of `all` or `default`: `net/<protocol>/<conf or neigh>/<name>/<key>`.
struct Interfaces<'a> {
    folder: &'a Path,
    born_as: &'static str,
    name: &'a str,
    /// Empty for the folder.
    key: PathBuf,
}

impl<'a> Interfaces<'a> {
    fn of(below: &'a Path) -> Option<Self> {
        let parts: Vec<&str> = below.iter().filter_map(|part| part.to_str()).collect();
        let [_, _, kind, name, key @ ..] = &parts[..] else { return None };
        let folder = below.ancestors().nth(1 + key.len())?;
        let (_, born_as) = OF_INTERFACES.into_iter().find(|(folder, _)| folder == kind)?;
        Some(Interfaces { folder, born_as, name, key: key.iter().collect() })
    }

    fn is_told(&self, interfaces: &[&str]) -> bool {
        matches!(self.name, "all" | "default" | "lo") || interfaces.contains(&self.name)
    }

    fn with(&self, name: &str) -> PathBuf {
        self.folder.join(name).join(&self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rtnetlink, scratch::Scratch};

    fn write(file: &str, value: &str) {
        fs::write(Path::new("/proc/sys").join(file), value).unwrap_or_else(|error| panic!("{file}: {error}"));
    }

    fn told(interfaces: &[&str]) -> Vec<(String, String)> {
        let set = set_here(interfaces).unwrap();
        set.into_iter().map(|(file, value)| (file.display().to_string(), value)).collect()
    }

    fn pair(file: &str, value: &str) -> (String, String) {
        (file.into(), value.into())
    }

    #[test]
    fn of_a_new_namespace_none_is_set() {
        let scratch = Scratch::new().unwrap();
        scratch.enter(|| {
            assert_eq!(told(&[]), []);
            Rtnetlink::open().unwrap().add_veth("eth0", "far").unwrap();
            assert_eq!(told(&["eth0", "far"]), []);
        });
    }

    #[test]
    fn what_was_set_is_told_of_the_interfaces_that_are_carried() {
        let scratch = Scratch::new().unwrap();
        scratch.enter(|| {
            Rtnetlink::open().unwrap().add_veth("eth0.7", "far").unwrap();
            write("net/core/somaxconn", "3000");
            write("net/ipv4/tcp_rmem", "4096 65536 1048576");
            write("net/ipv4/conf/eth0.7/rp_filter", "2");
            write("net/ipv4/conf/far/rp_filter", "2");
            write("net/ipv6/conf/eth0.7/accept_ra", "2");
            let all = [
                pair("net/core/somaxconn", "3000"),
                pair("net/ipv4/conf/eth0.7/rp_filter", "2"),
                pair("net/ipv4/tcp_rmem", "4096\t65536\t1048576"),
            ];
            assert_eq!(told(&["eth0.7"]), all);
        });
    }

    /// As with `mpls_router` loaded, which this machine need not have.
    #[test]
    fn what_has_no_default_begins_as_the_loopbacks() {
        let values = |all: &[(&str, &str)]| -> Values {
            all.iter().map(|(file, value)| (file.into(), (*value).into())).collect()
        };
        let usual = values(&[("net/mpls/conf/lo/input", "0")]);
        let here = |input, odd| {
            let all = [
                ("net/mpls/conf/lo/input", "0"),
                ("net/mpls/conf/eth0/input", input),
                ("net/odd/conf/eth0/key", odd),
            ];
            set(values(&all), &usual)
        };
        assert_eq!(here("0", "7"), Values::new());
        assert_eq!(here("1", "7"), values(&[("net/mpls/conf/eth0/input", "1")]));
    }

    #[test]
    fn where_all_was_set_an_interfaces_own_is_told() {
        let scratch = Scratch::new().unwrap();
        scratch.enter(|| {
            Rtnetlink::open().unwrap().add_veth("eth0", "far").unwrap();
            write("net/ipv6/conf/all/disable_ipv6", "1");
            write("net/ipv6/conf/eth0/disable_ipv6", "0");
            let all = [
                pair("net/ipv6/conf/all/disable_ipv6", "1"),
                pair("net/ipv6/conf/default/disable_ipv6", "1"),
                pair("net/ipv6/conf/eth0/disable_ipv6", "0"),
                pair("net/ipv6/conf/lo/disable_ipv6", "1"),
            ];
            assert_eq!(told(&["eth0"]), all);
        });
    }
}
