//! The canary at the start: before a guest comes, two workers of nobody, one after the other, try whether the second finds what the first
//! left in the GPU's memory (`worker/canary.rs`). That it finds nothing is what guests rely on: device memory is given from one to the
//! next as it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vgpu_codes::Code;

use super::refusal::Refusal;
use super::{Supervisor, nobody};
use crate::device::DeviceKind;
use crate::worker::assignment::{Question, Report};
use crate::worker::canary::Found;

/// For all of it: a driver that hangs must not keep the start for ever.
const LIMIT: Duration = Duration::from_secs(30);
/// Where the driver says what it was loaded with. Source: NVIDIA's README, "The /proc/driver/nvidia directory".
const DRIVER_PARAMS: &str = "/proc/driver/nvidia/params";
/// The registry key that switches scrubbing off. Source: open-gpu-kernel-modules, `nvrm_registry.h`.
const SCRUB_OFF: &str = "RMDisableScrubOnFree";

impl Supervisor {
    /// Sees that memory which one process gives back reaches no other. What is not clean, or could not be looked at, is a gap: said
    /// locally, refused over Xen.
    ///
    /// # Errors
    /// [`Code::MemoryNotClean`], over Xen.
    pub async fn canary(self: &Arc<Self>, wanted: bool) -> Result<(), Refusal> {
        if self.device == DeviceKind::Null {
            log::info!("no canary: the null device has no memory");
            return Ok(());
        }
        if !wanted {
            self.warn(
                ["proxy.scrub_canary is off: nobody sees whether the GPU's memory is clean".to_owned()],
            );
            return Ok(());
        }
        // In a task of its own, so that its workers are seen to their end if it takes too long.
        let supervisor = Arc::clone(self);
        let sent = tokio::time::timeout(LIMIT, tokio::spawn(async move { supervisor.send_canary().await }));
        let why = match sent.await {
            Ok(Ok(Ok(bytes))) => {
                log::info!("the canary lives: {} KiB of the GPU's memory are clean", bytes >> 10);
                return Ok(());
            }
            Ok(Ok(Err(why))) => why,
            Ok(Err(lost)) => format!("the canary was lost: {lost}"),
            Err(_) => format!("the canary is not back within {} s", LIMIT.as_secs()),
        };
        self.judge([why], Code::MemoryNotClean)
    }

    /// How many bytes were found clean, or why nobody knows that they are.
    async fn send_canary(&self) -> Result<u64, String> {
        let since = Instant::now();
        if self.device == DeviceKind::Cuda
            && scrub_is_off(&std::fs::read_to_string(DRIVER_PARAMS).unwrap_or_default())
        {
            return Err(format!("NVIDIA's driver does not scrub memory: it was loaded with {SCRUB_OFF}"));
        }
        let failed = |refusal: Refusal| format!("the canary could not be sent: {refusal}");
        let filled = match self.ask_nobody(Question::Fill, LIMIT).await.map_err(failed)? {
            Report::Filled { bytes } => bytes,
            other => return Err(failed(nobody::astray(&other))),
        };
        let left = LIMIT.saturating_sub(since.elapsed());
        match self.ask_nobody(Question::Search, left).await.map_err(failed)? {
            Report::Searched(found) if found.len() == filled.len() => {
                let looked_at = filled.iter().zip(&found);
                looked_at.map(|(filled, found)| verdict(*filled, found).map(|()| found.bytes)).sum()
            }
            other => Err(failed(nobody::astray(&other))),
        }
    }
}

/// What was found, where `filled` bytes had been marked.
fn verdict(filled: u64, found: &Found) -> Result<(), String> {
    let Found { bytes, words, marked, control_words, control_marked } = *found;
    if words > 0 {
        return Err(format!(
            "the GPU's memory is not clean: of {} words that a new process was given {words} are not zero, and {marked} hold what an ended process wrote",
            bytes / 8
        ));
    }
    if control_words == 0 || control_marked != control_words {
        return Err(format!(
            "the canary proves nothing: its search found {control_marked} of the {control_words} words that it had marked itself"
        ));
    }
    // Else it may have been given other memory than what was marked.
    if bytes < filled / 4 * 3 {
        return Err(format!(
            "the canary proves nothing: {filled} bytes were marked, and only {bytes} searched"
        ));
    }
    Ok(())
}

/// Whether the driver's parameters switch scrubbing off: `RegistryDwords: "RMDisableScrubOnFree=0x1;…"`.
fn scrub_is_off(params: &str) -> bool {
    let values = params.split(['"', ';', '\n']).filter_map(|pair| pair.trim().split_once('='));
    values.filter(|(key, _)| key.trim().eq_ignore_ascii_case(SCRUB_OFF)).any(|(_, value)| {
        let digits = value.trim().trim_start_matches("0x");
        !digits.chars().all(|digit| digit == '0')
    })
}

#[cfg(test)]
mod tests {
    use vgpu_config::Config;

    use super::*;
    use crate::supervisor::Mode;
    use crate::supervisor::cgroup::Cgroups;

    const CLEAN: Found = Found { bytes: 1 << 20, words: 0, marked: 0, control_words: 64, control_marked: 64 };

    #[test]
    fn clean_memory_is_served_and_all_else_has_its_own_text() {
        verdict(1 << 20, &CLEAN).unwrap();
        let why = |filled, found| verdict(filled, &found).unwrap_err();
        let dirty = why(1 << 20, Found { words: 7, marked: 5, ..CLEAN });
        assert!(
            dirty.contains("not clean")
                && dirty.contains("131072 words")
                && dirty.contains(" 7 are not zero")
        );
        assert!(dirty.contains("5 hold"), "{dirty}");
        assert!(
            why(1 << 20, Found { words: 1, ..CLEAN }).contains("not clean"),
            "another's data, not the mark"
        );
        for control_marked in [0, 63] {
            let blind = why(1 << 20, Found { control_marked, ..CLEAN });
            assert!(blind.contains("proves nothing") && blind.contains("of the 64 words"), "{blind}");
        }
        assert!(
            why(1 << 20, Found { control_words: 0, control_marked: 0, ..CLEAN }).contains("proves nothing")
        );
        assert!(why(2 << 20, CLEAN).contains("only 1048576 searched"));
    }

    #[test]
    fn a_driver_that_was_told_not_to_scrub_is_noticed() {
        for off in ["RMDisableScrubOnFree=1", "rmdisablescrubonfree=0x01", "A=0;RMDisableScrubOnFree=0x1;B=2"]
        {
            assert!(scrub_is_off(&format!("Mobile: 4\nRegistryDwords: \"{off}\"\n")), "{off}");
        }
        for on in ["", "RMDisableScrubOnFree=0x0", "RMDisableScrubOnFreeX=1", "A=1;RMDisableScrubOnFree=0"] {
            assert!(!scrub_is_off(&format!("RegistryDwords: \"{on}\"\n")), "{on}");
        }
    }

    /// No worker is born into a folder that is no cgroup: so no canary comes back.
    #[tokio::test]
    async fn what_nobody_looked_at_is_said_locally_and_refused_over_xen() {
        let base = tempfile::tempdir().unwrap();
        let supervisor = |mode| {
            let mut made = Supervisor::new(&Config::default(), DeviceKind::Soft, Mode::Local).unwrap();
            let own = Arc::get_mut(&mut made).unwrap();
            (own.mode, own.cgroups) = (mode, Some(Cgroups::without_controllers(base.path())));
            made
        };
        let local = supervisor(Mode::Local);
        local.canary(true).await.unwrap();
        let gaps = local.listing().node.sandbox_gaps;
        assert!(gaps.iter().any(|gap| gap.contains("canary could not be sent")), "{gaps:?}");
        let xen = supervisor(Mode::Xen);
        let refusal = xen.canary(true).await.unwrap_err();
        assert_eq!(refusal.code, Code::MemoryNotClean);
        xen.canary(false).await.unwrap();
        assert_eq!(xen.listing().node.warnings.len(), 1);
        for supervisor in [local, xen] {
            supervisor.release_all(LIMIT).await;
        }
    }
}
