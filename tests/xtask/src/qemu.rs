//! The machine that runs the testbed: QEMU with software emulation, which boots real Xen anywhere.
//!
//! The CPU is what Xen 4.20 boots on under emulation: SVM and nested paging for PVH guests, up to x86-64-v2 for programs.
//! `-cpu max` crashes Dom0, AVX hangs Xen.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::error::{Context, Result};

const CPU: &str = "qemu64,+svm,+npt,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+lahf_lm";
/// One for Dom0 and one for each of two guests. Guests that take turns on one emulated CPU make it forget its translations of
/// addresses at each turn: two pods at once then took 100 s instead of 45 s.
const CPUS: &str = "3";
/// Dom0's memory. q35 has 2 GiB below the PCI hole: with more, Dom0's kernel spends 3 s remapping the rest.
const DOM0_MIB: u32 = 2048;

/// The kind of Dom0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Paravirtualised: starts faster under emulation.
    Pv,
    /// With the hardware's nested paging; needs an IOMMU, which QEMU emulates.
    Pvh,
}

impl Kind {
    /// As the user writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pv => "pv",
            Self::Pvh => "pvh",
        }
    }
}

/// Dom0's kernel and initramfs, in the machine's directory.
pub const KERNEL: &str = "dom0.elf";
pub const INITRAMFS: &str = "dom0.cpio";

/// A directory of this machine that Dom0 mounts by `tag`.
pub struct Share {
    pub tag: &'static str,
    pub dir: PathBuf,
    pub read_only: bool,
}

/// One machine to start.
pub struct Machine<'a> {
    /// QEMU's working directory, with [`KERNEL`] and [`INITRAMFS`] in it.
    pub dir: &'a Path,
    /// Xen as a multiboot ELF.
    pub xen: PathBuf,
    /// Dom0's disk, of which the machine sees a snapshot.
    pub disk: PathBuf,
    pub kind: Kind,
    /// Of the whole machine, in MiB; Dom0 has 2 GiB of it.
    pub memory_mib: u32,
    pub shares: Vec<Share>,
    /// Where the serial line goes; none is the terminal, both ways.
    pub console: Option<&'a Path>,
}

impl Machine<'_> {
    /// Starts QEMU. It dies with the thread that called this.
    pub fn start(&self) -> Result<Child> {
        let mut qemu = self.command();
        if let Some(path) = self.console {
            let errors = path.with_extension("qemu");
            let errors = File::create(&errors).context(|| format!("cannot create {}", errors.display()))?;
            qemu.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        }
        qemu.spawn().context(|| "cannot start qemu-system-x86_64".into())
    }

    fn command(&self) -> Command {
        let mut qemu = Command::new("setpriv");
        qemu.current_dir(self.dir);
        qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
        qemu.args(["-M", "q35", "-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", CPUS]);
        qemu.args(["-m", &self.memory_mib.to_string(), "-display", "none", "-nic", "none", "-no-reboot"]);
        qemu.arg("-kernel").arg(&self.xen).args(["-append", &self.xen_line()]);
        // In this list a comma parts the modules and a space ends a name, so no path of this machine may be in it.
        qemu.args(["-initrd", &format!("{KERNEL} console=hvc0 quiet rodata=off,{INITRAMFS}")]);
        let flags = match self.kind {
            Kind::Pv => "",
            // Else the devices' DMA bypasses the IOMMU, reaches wrong frames, and Dom0 dies silently.
            Kind::Pvh => {
                qemu.args(["-device", "amd-iommu"]);
                ",disable-legacy=on,iommu_platform=on"
            }
        };
        qemu.args([
            "-drive",
            &format!("if=none,id=disk,format=raw,snapshot=on,file={}", escaped(&self.disk)),
        ]);
        qemu.args(["-device", &format!("virtio-blk-pci,drive=disk{flags}")]);
        for Share { tag, dir, read_only } in &self.shares {
            let access = if *read_only { ",readonly=on" } else { "" };
            let fsdev =
                format!("local,id={tag},path={},security_model=none,multidevs=remap{access}", escaped(dir));
            qemu.args(["-fsdev", &fsdev]);
            qemu.args(["-device", &format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}{flags}")]);
        }
        match self.console {
            Some(path) => qemu.args(["-monitor", "none", "-serial", &format!("file:{}", path.display())]),
            None => qemu.args(["-serial", "mon:stdio"]),
        };
        qemu
    }

    fn xen_line(&self) -> String {
        let dom0 = if self.kind == Kind::Pvh { " dom0=pvh" } else { "" };
        // One CPU for Dom0: a guest that shares its core with Dom0 takes 1.7 times as long to boot.
        format!(
            "dom0_mem={DOM0_MIB}M,max:{DOM0_MIB}M dom0_max_vcpus=1 dom0_vcpus_pin bootscrub=0 \
             console=com1 com1=115200{dom0}"
        )
    }
}

fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

/// Memory for the machine: 8 GiB, or three quarters of what this machine has.
pub fn default_memory_mib() -> u32 {
    (own_memory_mib() / 4 * 3).min(8192)
}

/// The memory of this machine; 8 GiB where it doesn't say.
pub fn own_memory_mib() -> u32 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total_kib =
        info.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok());
    total_kib.map_or(8192, |kib: u64| u32::try_from(kib / 1024).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_and_commas_of_this_machines_paths_stay_out_of_the_list_of_modules() {
        let dir = Path::new("/home/a b, c/target/xtask");
        let machine = Machine {
            dir,
            xen: "/cache of, me/xen".into(),
            disk: "/cache of, me/disk.img".into(),
            kind: Kind::Pv,
            memory_mib: 8192,
            shares: vec![Share { tag: "ctl", dir: dir.join("ctl"), read_only: false }],
            console: None,
        };
        let command = machine.command();
        assert_eq!(command.get_current_dir(), Some(dir));
        let words: Vec<&str> = command.get_args().filter_map(|word| word.to_str()).collect();
        let after = |name: &str| words.iter().skip_while(|word| **word != name).nth(1).copied();
        assert_eq!(after("-initrd"), Some("dom0.elf console=hvc0 quiet rodata=off,dom0.cpio"));
        assert_eq!(after("-kernel"), Some("/cache of, me/xen"));
        let drive = after("-drive").expect("a disk");
        assert!(drive.ends_with("file=/cache of,, me/disk.img"), "{drive}");
        let share = after("-fsdev").expect("a share");
        assert!(share.contains("path=/home/a b,, c/target/xtask/ctl,security_model"), "{share}");
    }
}
