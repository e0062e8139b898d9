//! What the system says of a process: memory, descriptors, CPU time.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::time::ClockId;
use nix::unistd::{Pid, SysconfVar, sysconf};

/// Resident memory, in KiB.
///
/// # Errors
/// The process is gone.
pub fn resident_kib(pid: u32) -> Result<u64> {
    status_kib(pid, "VmRSS:")
}

/// Most resident memory that it has had, in KiB.
///
/// # Errors
/// The process is gone.
pub fn most_resident_kib(pid: u32) -> Result<u64> {
    status_kib(pid, "VmHWM:")
}

fn status_kib(pid: u32, field: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("no {field}"))?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// Open file descriptors.
///
/// # Errors
/// The process is gone, or somebody else's.
pub fn descriptors(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd")).with_context(|| format!("descriptors of process {pid}"))?.count())
}

/// Its children, the dead that nobody collected too.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    harness::process::children(pid.cast_signed()).into_iter().map(i32::cast_unsigned).collect()
}

/// CPU time that a process and its children have used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    /// The process itself, with all its threads.
    pub own: Duration,
    /// Children that have ended and were collected, to a clock tick.
    pub ended: Duration,
    /// Children that run.
    pub running: Duration,
}

impl Cpu {
    /// What it has used until now.
    ///
    /// # Errors
    /// The process is gone.
    pub fn of(pid: u32) -> Result<Self> {
        let running = children(pid).into_iter().filter_map(|child| clock(child).ok()).sum();
        Ok(Self { own: clock(pid)?, ended: ended(pid)?, running })
    }

    /// What was used since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            own: self.own.saturating_sub(before.own),
            ended: self.ended.saturating_sub(before.ended),
            running: self.running.saturating_sub(before.running),
        }
    }
}

fn clock(pid: u32) -> Result<Duration> {
    let clock =
        ClockId::pid_cpu_clock_id(Pid::from_raw(pid.cast_signed())).with_context(|| format!("process {pid}"))?;
    Ok(clock.now()?.into())
}

/// Fields 16 and 17 of `stat`; the name before them may hold spaces and parentheses.
fn ended(pid: u32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
    let fields = text.rsplit_once(')').context("no name")?.1.split_ascii_whitespace();
    let ticks: u64 = fields.skip(13).take(2).map(|field| field.parse().unwrap_or(0_u64)).sum();
    let per_second = sysconf(SysconfVar::CLK_TCK)?.and_then(|ticks| u64::try_from(ticks).ok()).context("no ticks")?;
    Ok(Duration::from_nanos(ticks * 1_000_000_000 / per_second))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_s_own_time_and_that_of_its_children_are_told_apart() {
        let burn = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        // The outer shell waits for the inner one, and then for its input.
        let script = format!("sh -c '{burn}'; echo done; read -r line");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut output = String::new();
        let stdout = child.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut output).unwrap();
        let cpu = Cpu::of(child.id()).unwrap();
        assert!(cpu.ended >= Duration::from_millis(30) && cpu.own < cpu.ended, "{cpu:?}");
        assert!(resident_kib(child.id()).unwrap() > 100 && descriptors(child.id()).unwrap() >= 3);
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
