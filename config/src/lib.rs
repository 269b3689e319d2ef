//! The one parser of `/etc/vgpu/config.toml`, for the shim, gpu-proxy and vgpuctl. The guest never reads it.
//!
//! Start at [`Config::load`]. The file that a node gets is `config/config.toml`: every key with its default and a comment; a test
//! holds it against [`Config::default`]. Unknown keys are refused, with the nearest known one: a misspelt limit must not be no limit.
#![forbid(unsafe_code)]

mod nearest;

use std::{
    fs, io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use vgpu_codes::Code;

/// 16 TiB. No sum of sizes in bytes comes near to overflowing.
pub const MIB_MAX: u64 = 1 << 24;
/// `vgpu_zone_api::guest::facts::DEVICES_MAX`: what a container can be told of.
pub const DEVICES_MAX: u64 = 16;
/// `idm::arena::BYTES_MAX` in MiB.
const ARENA_MIB_MAX: u64 = 64 << 10;
/// No limit of ours.
const ANY: u64 = u64::MAX;
/// The last user id: the one after it means none. Source: `setresuid(2)`.
const UID_MAX: u64 = u32::MAX as u64 - 1;

/// Where the file is unless containerd's `ConfigPath` or `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/vgpu/config.toml";

/// Why a configuration cannot be used. Its code is [`Code::ConfigInvalid`].
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read. A missing file at the default path is no error: the defaults hold.
    #[error("cannot read {}: give the right path or install the file", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not TOML, or a value of the wrong type. The text has the line.
    #[error("{}: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the TOML parser said, with line and column.
        message: String,
    },
    /// A key that does not exist.
    #[error("{}: unknown key `{key}`{}", path.display(), nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key, with its table: `guest.memory_mb`.
        key: String,
        /// The nearest key that exists, if one is near.
        nearest: Option<String>,
    },
    /// A value outside of what it may be.
    #[error("{}: {key} = {value}: {rule}", path.display())]
    Range {
        /// The file.
        path: PathBuf,
        /// The key, with its table.
        key: &'static str,
        /// The value that stands there.
        value: String,
        /// What it must be.
        rule: String,
    },
}

impl ConfigError {
    /// The stable code of every configuration error.
    pub fn code(&self) -> Code {
        Code::ConfigInvalid
    }
}

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The version of this format: 1.
    pub version: u32,
    /// The domain of a pod.
    pub guest: Guest,
    /// The shim.
    pub shim: Shim,
    /// gpu-proxy.
    pub proxy: Proxy,
}

/// What a pod's domain is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Guest {
    /// The kernel, an uncompressed ELF file.
    pub kernel: PathBuf,
    /// The initramfs, with guest-init and libvgpu.
    pub initramfs: PathBuf,
    /// How the domain runs.
    pub kind: GuestKind,
    /// Memory of a domain in MiB, where the pod has no memory limits.
    pub memory_mib: u64,
    /// Least memory of a domain in MiB; less is refused.
    pub memory_min_mib: u64,
    /// What the guest kernel and guest-init need, in MiB: added to the containers' limits.
    pub memory_overhead_mib: u64,
    /// Virtual CPUs, where the pod has no CPU limits.
    pub vcpus: u32,
    /// Physical CPUs for the domains in xl's notation; empty: any.
    pub cpus: String,
    /// Added to the kernel's command line.
    pub command_line: String,
    /// Grant frames of a domain: 512 grants, 2 MiB of shared pages, each.
    pub grant_frames_max: u32,
}

/// How a domain runs. Source: Xen, `xl.cfg`, `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestKind {
    /// Hardware page tables, no device model. The rule.
    Pvh,
    /// Needs no virtualisation hardware.
    Pv,
}

/// The shim's own settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shim {
    /// Where the share of each sandbox is put together.
    pub shared_dir: PathBuf,
    /// What cleaning up needs, one folder a sandbox.
    pub state_dir: PathBuf,
    /// The program that serves the 9p share.
    pub share_server: PathBuf,
    /// Seconds from the creation of the domain to guest-init's hello.
    pub boot_timeout_s: u64,
    /// Seconds from a SIGKILL to the exit of a program whatever its guest does: the guest has 40 % of it to answer, 70 % to be done, xl the rest to
    /// halt its domain. Where xl takes longer, the exit is told when the domain is destroyed.
    pub kill_timeout_s: u64,
}

/// gpu-proxy's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Proxy {
    /// The socket on which shims and vgpuctl speak to it.
    pub socket: PathBuf,
    /// The id of the domain that gpu-proxy runs in: the driver domain. 0 until there can be another one.
    pub domain: u16,
    /// The device: auto, cuda, soft or null. auto is cuda where NVIDIA's driver is, else soft.
    pub device: DeviceKind,
    /// Memory of each soft device in MiB.
    pub soft_memory_mib: u64,
    /// How many devices `soft` and `null` are.
    pub soft_devices: u32,
    /// The worker programs, one a wire hash.
    pub workers_dir: PathBuf,
    /// The first of the user ids that workers run under, one a zone.
    pub worker_uid_first: u32,
    /// How many user ids there are: the most zones at once.
    pub worker_uid_count: u32,
    /// CUDA processes at once in a zone.
    pub workers_per_zone_max: u32,
    /// Pages of a guest that are mapped at once, in MiB, for a zone.
    pub mapped_per_zone_max_mib: u64,
    /// The same for all zones together, in MiB.
    pub mapped_max_mib: u64,
    /// Host memory of a worker in MiB, beside what the soft device counts as GPU memory.
    pub worker_memory_max_mib: u64,
    /// What NVIDIA's driver has compiled of a container's kernels, kept for its next processes, in MiB; 0: nothing.
    pub code_cache_max_mib: u64,
    /// Pinned host memory of a CUDA process that devices reach without copies, in MiB; 0: none.
    pub arena_max_mib: u64,
    /// Whether the start looks that the GPU's memory is clean when one process has it after another.
    pub scrub_canary: bool,
    /// Whether a worker waits for a container's next first process.
    pub workers_ahead: WorkersAhead,
}

/// Whether workers are started ahead of the processes that they will serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkersAhead {
    /// `on` with the device `cuda`, whose contexts take long to make, else `off`.
    Auto,
    /// One for each container that has a grant and no process.
    On,
    /// None.
    Off,
}

/// Which device gpu-proxy drives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// `cuda` where NVIDIA's driver is, else `soft`.
    Auto,
    /// NVIDIA's driver.
    Cuda,
    /// PTX on the CPU.
    Soft,
    /// Accepts everything, computes nothing. For tracing and load.
    Null,
}

impl Default for Config {
    fn default() -> Self {
        Config { version: 1, guest: Guest::default(), shim: Shim::default(), proxy: Proxy::default() }
    }
}

impl Default for Guest {
    fn default() -> Self {
        Guest {
            kernel: "/usr/lib/vgpu/vmlinux".into(),
            initramfs: "/usr/lib/vgpu/initramfs.cpio".into(),
            kind: GuestKind::Pvh,
            memory_mib: 2048,
            memory_min_mib: 96,
            memory_overhead_mib: 64,
            vcpus: 4,
            cpus: String::new(),
            command_line: String::new(),
            grant_frames_max: 256,
        }
    }
}

impl Default for Shim {
    fn default() -> Self {
        Shim {
            shared_dir: "/run/vgpu/shared".into(),
            state_dir: "/run/vgpu/sandboxes".into(),
            share_server: "/usr/lib/vgpu/share-server".into(),
            boot_timeout_s: 60,
            kill_timeout_s: 5,
        }
    }
}

impl Default for Proxy {
    fn default() -> Self {
        Proxy {
            socket: "/run/vgpu/gpu-proxy.sock".into(),
            domain: 0,
            device: DeviceKind::Auto,
            soft_memory_mib: 1024,
            soft_devices: 1,
            workers_dir: "/usr/lib/vgpu/workers".into(),
            worker_uid_first: 790_000,
            worker_uid_count: 1000,
            workers_per_zone_max: 12,
            mapped_per_zone_max_mib: 128,
            mapped_max_mib: 384,
            worker_memory_max_mib: 4096,
            code_cache_max_mib: 256,
            arena_max_mib: 16384,
            scrub_canary: true,
            workers_ahead: WorkersAhead::Auto,
        }
    }
}

impl Config {
    /// Reads `path`, or [`DEFAULT_PATH`] for `None`, where a missing file means the defaults.
    ///
    /// # Errors
    /// Every [`ConfigError`]: the file can't be read or parsed, has an unknown key, or a value out of range.
    pub fn load(path: Option<&Path>) -> Result<Config, ConfigError> {
        Config::read(path.unwrap_or(Path::new(DEFAULT_PATH)), path.is_some())
    }

    /// Reads `file`, which must be there if somebody `named` it.
    fn read(file: &Path, named: bool) -> Result<Config, ConfigError> {
        match fs::read_to_string(file) {
            Ok(text) => Config::parse(&text, file),
            Err(missing) if !named && missing.kind() == io::ErrorKind::NotFound => Ok(Config::default()),
            Err(source) => Err(ConfigError::Read { path: file.into(), source }),
        }
    }

    /// Parses `text`; `path` is for the messages.
    ///
    /// # Errors
    /// As [`Config::load`], but for reading.
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        let parse_error =
            |error: toml::de::Error| ConfigError::Parse { path: path.into(), message: error.to_string() };
        let table: toml::Table = toml::from_str(text).map_err(parse_error)?;
        if let Some((key, nearest)) = nearest::unknown_key(&table) {
            return Err(ConfigError::UnknownKey { path: path.into(), key, nearest });
        }
        let config: Config = toml::from_str(text).map_err(parse_error)?;
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let refused = |key, value, rule| ConfigError::Range { path: path.into(), key, value, rule };
        for (key, value) in self.paths() {
            // The programs that read it have different working directories.
            if !value.is_absolute() {
                return Err(refused(key, value.display().to_string(), "must be an absolute path".into()));
            }
        }
        let outside = self.numbers().into_iter().find(|number| !number.range.contains(&number.value));
        outside.map_or(Ok(()), |number| Err(refused(number.key, number.value.to_string(), number.rule())))
    }

    fn paths(&self) -> [(&'static str, &Path); 7] {
        let (guest, shim, proxy) = (&self.guest, &self.shim, &self.proxy);
        [
            ("guest.kernel", &guest.kernel),
            ("guest.initramfs", &guest.initramfs),
            ("shim.shared_dir", &shim.shared_dir),
            ("shim.state_dir", &shim.state_dir),
            ("shim.share_server", &shim.share_server),
            ("proxy.socket", &proxy.socket),
            ("proxy.workers_dir", &proxy.workers_dir),
        ]
    }

    fn numbers(&self) -> [Number; 19] {
        let (guest, shim, proxy) = (&self.guest, &self.shim, &self.proxy);
        let uids = u64::from(u32::MAX - proxy.worker_uid_first);
        let least = guest.memory_min_mib;
        [
            number("version", self.version, 1..=1, "the only version there is"),
            number("guest.memory_min_mib", least, 64..=MIB_MAX, "no guest starts with less"),
            number(
                "guest.memory_mib",
                guest.memory_mib,
                least..=MIB_MAX,
                "guest.memory_min_mib is the least",
            ),
            number("guest.memory_overhead_mib", guest.memory_overhead_mib, 0..=MIB_MAX, ""),
            number("guest.vcpus", guest.vcpus, 1..=64, ""),
            number("guest.grant_frames_max", guest.grant_frames_max, 64..=4096, ""),
            number("shim.boot_timeout_s", shim.boot_timeout_s, 1..=3600, ""),
            number(
                "shim.kill_timeout_s",
                shim.kill_timeout_s,
                4..=60,
                "a guest that obeys takes 2 s at most",
            ),
            number("proxy.domain", proxy.domain, 0..=0, "a driver domain beside Dom0 is not built yet"),
            number("proxy.soft_memory_mib", proxy.soft_memory_mib, 1..=MIB_MAX, ""),
            number("proxy.soft_devices", proxy.soft_devices, 1..=DEVICES_MAX, ""),
            number("proxy.worker_uid_first", proxy.worker_uid_first, 1000..=UID_MAX, "no user of the system"),
            number("proxy.worker_uid_count", proxy.worker_uid_count, 1..=uids, "user ids end at 4294967294"),
            number("proxy.workers_per_zone_max", proxy.workers_per_zone_max, 1..=ANY, ""),
            number(
                "proxy.mapped_per_zone_max_mib",
                proxy.mapped_per_zone_max_mib,
                64..=MIB_MAX,
                "one channel's region may have 64 MiB",
            ),
            number(
                "proxy.mapped_max_mib",
                proxy.mapped_max_mib,
                64..=MIB_MAX,
                "one channel's region may have 64 MiB",
            ),
            number("proxy.worker_memory_max_mib", proxy.worker_memory_max_mib, 64..=MIB_MAX, "its own needs"),
            number("proxy.code_cache_max_mib", proxy.code_cache_max_mib, 0..=MIB_MAX, ""),
            number(
                "proxy.arena_max_mib",
                proxy.arena_max_mib,
                0..=ARENA_MIB_MAX,
                "the window of addresses has 64 GiB",
            ),
        ]
    }
}

/// A number of the file, what it may be, and why where that is not plain.
struct Number {
    key: &'static str,
    value: u64,
    range: RangeInclusive<u64>,
    why: &'static str,
}

fn number(key: &'static str, value: impl Into<u64>, range: RangeInclusive<u64>, why: &'static str) -> Number {
    Number { key, value: value.into(), range, why }
}

impl Number {
    /// What it must be, in words.
    fn rule(&self) -> String {
        let range = match (self.range.start(), self.range.end()) {
            (least, most) if least == most => format!("must be {least}"),
            (least, &ANY) => format!("must be {least} or more"),
            (least, most) => format!("must be {least} to {most}"),
        };
        if self.why.is_empty() { range } else { format!("{range}: {}", self.why) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("t.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_shipped_file_states_the_defaults() {
        let shipped = include_str!("../config.toml");
        assert_eq!(check(shipped), Ok(Config::default()));
        // Every key is there, commented or not: a new key without its comment fails here.
        let known = toml::to_string(&Config::default()).unwrap();
        for key in known.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key) {
            assert!(
                shipped.lines().any(|line| line.starts_with(&format!("{key} = "))),
                "{key} is not in config.toml"
            );
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_one() {
        assert_eq!(
            check("[guest]\nmemory_mb = 1"),
            Err("t.toml: unknown key `guest.memory_mb`; did you mean `guest.memory_mib`?".into())
        );
        assert_eq!(
            check("[gest]\nvcpus = 1"),
            Err("t.toml: unknown key `gest`; did you mean `guest`?".into())
        );
        assert_eq!(check("zzzzzzzzzzzz = 1"), Err("t.toml: unknown key `zzzzzzzzzzzz`".into()));
    }

    #[test]
    fn a_value_out_of_range_says_the_rule() {
        assert_eq!(
            check("version = 2"),
            Err("t.toml: version = 2: must be 1: the only version there is".into())
        );
        assert_eq!(
            check("[guest]\nmemory_mib = 80"),
            Err("t.toml: guest.memory_mib = 80: must be 96 to 16777216: guest.memory_min_mib is the least"
                .into())
        );
        assert_eq!(
            check("[proxy]\nworkers_per_zone_max = 0"),
            Err("t.toml: proxy.workers_per_zone_max = 0: must be 1 or more".into())
        );
    }

    #[test]
    fn every_number_has_a_range() {
        let known = toml::Table::try_from(Config::default()).unwrap();
        let tables = known.iter().filter_map(|(name, value)| Some((name, value.as_table()?)));
        let numbers = tables.flat_map(|(name, table)| {
            table.iter().filter(|(_, value)| value.is_integer()).map(move |(key, _)| format!("{name}.{key}"))
        });
        let ranges = Config::default().numbers();
        for key in numbers {
            assert!(ranges.iter().any(|number| number.key == key), "{key} has no range");
        }
    }

    #[test]
    fn what_would_overflow_or_is_not_built_is_refused() {
        for (line, part) in [
            ("domain = 1", "proxy.domain = 1: must be 0: a driver domain beside Dom0 is not built yet"),
            ("worker_memory_max_mib = 0", "must be 64 to 16777216"),
            ("soft_memory_mib = 17592186044417", "must be 1 to 16777216"),
            ("worker_uid_first = 4294966296", "worker_uid_count = 1000: must be 1 to 999"),
        ] {
            let refused = check(&format!("[proxy]\n{line}")).unwrap_err();
            assert!(refused.contains(part), "{line}: {refused}");
        }
        assert!(check("[proxy]\nworker_uid_first = 4294966295").is_ok());
        assert!(check("[guest]\nmemory_overhead_mib = 17592186044416").is_err());
    }

    #[test]
    fn a_relative_path_is_refused() {
        assert_eq!(
            check("[shim]\nstate_dir = \"vgpu\""),
            Err("t.toml: shim.state_dir = vgpu: must be an absolute path".into())
        );
    }

    #[test]
    fn a_wrong_type_says_the_line() {
        let message = check("[guest]\nvcpus = \"four\"").unwrap_err();
        assert!(message.contains("line 2"), "{message}");
    }

    #[test]
    fn a_missing_file_is_an_error_only_where_it_was_named() {
        assert!(matches!(
            Config::load(Some(Path::new("/nonexistent/vgpu.toml"))),
            Err(ConfigError::Read { .. })
        ));
        assert_eq!(Config::read(Path::new("/nonexistent/vgpu.toml"), false).unwrap(), Config::default());
    }
}
