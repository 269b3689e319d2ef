//! How many of the domain's CPUs the guest uses. A domain has more than its kernel starts (`maxcpus` on its command line): those that limits
//! may ask for later. What Xen gives of them is bounded by its cap, whatever a guest uses.
//!
//! Not by Xen's own way, `xl vcpu-set`: in a PVH guest Linux 6.12 registers such a CPU and never starts it, since it was not there at the boot
//! (`arch/x86/kernel/smpboot.c`, `native_kick_ap`).

use std::{
    fs,
    io::ErrorKind,
    path::Path,
    sync::{Mutex, PoisonError},
};

use crate::error::{During, Result};

/// Source: Linux `Documentation/admin-guide/cputopology.rst`, `Documentation/core-api/cpu_hotplug.rst`.
const CPUS: &str = "/sys/devices/system/cpu";

/// Held by who sets them: one that nobody waits for any more is over before the next one begins.
static SETTING: Mutex<()> = Mutex::new(());

/// Has the first `count` CPUs online and no others: CPU 0 always is, and there may be fewer. Blocks.
/// # Errors
/// The first one that does not come, or does not go; the rest was tried.
pub fn set_online(count: u32) -> Result<()> {
    set_online_at(Path::new(CPUS), count, &SETTING)
}

fn set_online_at(cpus: &Path, count: u32, setting: &Mutex<()>) -> Result<()> {
    let _turn = setting.lock().unwrap_or_else(PoisonError::into_inner);
    let mut first = Ok(());
    for number in 1.. {
        let file = cpus.join(format!("cpu{number}/online"));
        let (now, wanted) = (fs::read_to_string(&file), if number < count { "1" } else { "0" });
        match now {
            Err(error) if error.kind() == ErrorKind::NotFound => break,
            Ok(now) if now.trim_end() == wanted => {}
            _ => {
                let set = fs::write(&file, wanted);
                first = first.and(set.during(|| format!("set online = {wanted} of CPU {number}")));
            }
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _, sync::Arc, thread, time::Duration};

    use rustix::fs::{CWD, FileType, mknodat};
    use tempfile::TempDir;

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
            set_online_at(cpus.path(), count, &Mutex::default()).unwrap();
            let now = [1, 2, 3].map(|number| fs::read_to_string(file(number)).unwrap().trim_end().to_owned());
            assert_eq!(now.concat(), online, "{count}");
        }
        assert!(!file(0).exists());
    }

    #[test]
    fn one_who_is_at_it_is_over_before_the_next_one_begins() {
        let [first, second] = [(); 2].map(|()| {
            let cpus = tempfile::tempdir().unwrap();
            fs::create_dir(cpus.path().join("cpu1")).unwrap();
            cpus
        });
        let (slow, next) = (first.path().join("cpu1/online"), second.path().join("cpu1/online"));
        mknodat(CWD, &slow, FileType::Fifo, 0o600.into(), 0).unwrap();
        fs::write(&next, "0\n").unwrap();
        // Its own: a failure here leaves it held for ever, and other tests would wait for it.
        let turn = Arc::new(Mutex::default());
        let setting = |cpus: &TempDir| {
            let (cpus, turn) = (cpus.path().to_owned(), turn.clone());
            thread::spawn(move || set_online_at(&cpus, 2, &turn).unwrap())
        };
        let at_it = setting(&first);
        // It opens when the other end is opened, and is read to its end.
        let mut kernel = File::options().write(true).open(slow).unwrap();
        let waiting = setting(&second);
        // Time for one that does not wait.
        thread::sleep(Duration::from_millis(200));
        assert_eq!(fs::read_to_string(&next).unwrap(), "0\n");
        kernel.write_all(b"1\n").unwrap();
        drop(kernel);
        at_it.join().unwrap();
        waiting.join().unwrap();
        assert_eq!(fs::read_to_string(&next).unwrap(), "1");
    }

    #[test]
    fn one_that_does_not_come_is_named_and_keeps_no_other() {
        let cpus = tempfile::tempdir().unwrap();
        // A folder where the kernel has its file: it can be neither read nor written.
        for number in [1, 3] {
            fs::create_dir_all(cpus.path().join(format!("cpu{number}/online"))).unwrap();
        }
        let second = cpus.path().join("cpu2/online");
        fs::create_dir(cpus.path().join("cpu2")).unwrap();
        fs::write(&second, "0\n").unwrap();
        let error = set_online_at(cpus.path(), 4, &Mutex::default()).unwrap_err();
        assert!(error.to_string().contains("CPU 1"), "{error}");
        assert_eq!(fs::read_to_string(second).unwrap(), "1");
    }
}
