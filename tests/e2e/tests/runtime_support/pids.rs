//! Processes of handlers, by what they write of themselves.

use std::path::PathBuf;

use anyhow::Result;
use tempfile::TempDir;

use super::{SOON, wait_for};

/// Whether a process runs.
pub fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state comes after the program's name in parentheses; Z is a process that ended.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// A file that handlers write the ids of their processes into.
pub struct Pids {
    folder: TempDir,
}

impl Pids {
    /// A file of no ids.
    pub fn new() -> Result<Self> {
        Ok(Self { folder: tempfile::tempdir()? })
    }

    /// Its path.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("pids")
    }

    /// The ids, once there are as many.
    pub async fn all(&self, count: usize) -> Vec<i32> {
        wait_for("the processes to be noted", SOON, async || {
            let text = std::fs::read_to_string(self.path()).ok()?;
            let pids: Vec<i32> = text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
            (pids.len() >= count).then_some(pids)
        })
        .await
    }

    /// Waits until they are there, and then until none runs any more.
    pub async fn gone(&self, count: usize) {
        let pids = self.all(count).await;
        wait_for("the processes to be gone", SOON, async || (!pids.iter().any(|pid| runs(*pid))).then_some(())).await;
    }
}
