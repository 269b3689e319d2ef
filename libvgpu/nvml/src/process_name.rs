//! A process's name as NVML gives it: the first word of its command line.

/// `None`: there is no such process, or it cannot be seen from here.
pub fn process_name(pid: u32) -> Option<Vec<u8>> {
    let mut line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let end = line.iter().position(|byte| *byte == 0).unwrap_or(line.len());
    line.truncate(end);
    Some(line)
}
