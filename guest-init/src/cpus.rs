//! How many of the domain's CPUs the guest uses. A domain has more than its kernel starts (`maxcpus` on its command line): those that limits
//! may ask for later. What Xen gives of them is bounded by its cap, whatever a guest uses.
//!
//! Not by Xen's own way, `xl vcpu-set`: in a PVH guest Linux 6.12 registers such a CPU and never starts it, since it was not there at the boot
//! (`arch/x86/kernel/smpboot.c`, `native_kick_ap`).

use std::{fs, io::ErrorKind, path::Path};

use crate::error::{During, Result};

/// Source: Linux `Documentation/admin-guide/cputopology.rst`, `Documentation/core-api/cpu_hotplug.rst`.
const CPUS: &str = "/sys/devices/system/cpu";

/// Has the first `count` CPUs online and no others: CPU 0 always is, and there may be fewer.
/// # Errors
/// One does not come, or does not go.
pub fn set_online(count: u32) -> Result<()> {
    set_online_at(Path::new(CPUS), count)
}

fn set_online_at(cpus: &Path, count: u32) -> Result<()> {
    for number in 1.. {
        let file = cpus.join(format!("cpu{number}/online"));
        let (now, wanted) = (fs::read_to_string(&file), if number < count { "1" } else { "0" });
        match now {
            Err(error) if error.kind() == ErrorKind::NotFound => break,
            Ok(now) if now.trim_end() == wanted => {}
            _ => fs::write(&file, wanted).during(|| format!("set online = {wanted} of CPU {number}"))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with CPUs 0 to 3, of which all but the first can be switched.
    #[test]
    fn the_first_cpus_are_online_and_no_others() {
        let cpus = tempfile::tempdir().unwrap();
        let file = |number: u32| cpus.path().join(format!("cpu{number}/online"));
        for number in 0..4 {
            fs::create_dir(cpus.path().join(format!("cpu{number}"))).unwrap();
        }
        for number in 1..4 {
            fs::write(file(number), "0\n").unwrap();
        }
        for (count, online) in [(1, "000"), (3, "110"), (2, "100"), (64, "111"), (0, "000")] {
            set_online_at(cpus.path(), count).unwrap();
            let now = [1, 2, 3].map(|number| fs::read_to_string(file(number)).unwrap().trim_end().to_owned());
            assert_eq!(now.concat(), online, "{count}");
        }
        assert!(!file(0).exists());
    }

    #[test]
    fn one_that_does_not_come_is_named() {
        let cpus = tempfile::tempdir().unwrap();
        // A folder where the kernel has its file: it can be neither read nor written.
        fs::create_dir_all(cpus.path().join("cpu1/online")).unwrap();
        let error = set_online_at(cpus.path(), 2).unwrap_err();
        assert!(error.to_string().contains("CPU 1"), "{error}");
    }
}
