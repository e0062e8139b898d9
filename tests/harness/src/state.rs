//! Folders that hold all files of a cluster, and what must be ended before such a folder may go.
//!
//! A lock beside the folder is held while its owner lives. A folder whose lock is free, and whose cluster was not
//! released to live on by itself, was left by a run that crashed: it is cleaned away by the next start.

use std::env;
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::Uid;
use serde::{Deserialize, Serialize};

use crate::cluster::cgroup;
use crate::cluster::network::Network;
use crate::pki::write_private;
use crate::process::ProcessId;

const RECORD: &str = "cluster.json";
/// Unix sockets below the folder have paths of at most 107 bytes; the longest is 40 bytes longer than the folder's.
const PATH_LIMIT: usize = 65;
const END_LIMIT: Duration = Duration::from_secs(20);

/// What a run made outside its folder, so that a later run can end it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Record {
    /// Process 1 of the cluster's namespaces.
    pub init: Option<ProcessId>,
    /// Processes outside any namespace.
    pub processes: Vec<ProcessId>,
    /// Link to the cluster's network namespace.
    pub network: Option<Network>,
    /// Control group of the cluster, a path such as `/temporal-worker-dev/name`.
    pub cgroup: Option<String>,
    /// Whether the cluster lives on when its starter has ended.
    pub released: bool,
}

impl Record {
    fn is_running(&self) -> bool {
        self.init.as_ref().is_some_and(ProcessId::is_alive)
    }

    /// Ends what is recorded. What is gone already is no error.
    fn end(&self) -> Result<()> {
        for process in self.init.iter().chain(&self.processes) {
            ensure!(process.kill(END_LIMIT), "process {} does not end", process.pid);
        }
        if let Some(network) = &self.network {
            network.remove()?;
        }
        if let Some(cgroup) = &self.cgroup {
            cgroup::remove(cgroup)?;
        }
        Ok(())
    }
}

/// The folder of one cluster, owned by this process.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    lock_path: PathBuf,
    _lock: File,
}

/// Folder of all clusters: `$XDG_STATE_HOME/temporal-worker-operator`, else `/var/tmp/temporal-worker-operator-<uid>`.
#[must_use]
pub fn default_root() -> PathBuf {
    match env::var_os("XDG_STATE_HOME").filter(|value| !value.is_empty()) {
        Some(state) => PathBuf::from(state).join("temporal-worker-operator"),
        None => PathBuf::from(format!("/var/tmp/temporal-worker-operator-{}", Uid::effective())),
    }
}

impl StateDir {
    /// Makes the folder of a new cluster; first cleans away what crashed runs left below the same root.
    ///
    /// # Errors
    /// A cluster of that name runs, or the folder can't be made.
    pub fn create(root: &Path, name: &str) -> Result<Self> {
        prepare_root(root)?;
        sweep(root)?;
        let state = Self::own(root, name)?
            .with_context(|| format!("another run is starting or stopping the cluster {name}: wait for it"))?;
        if state.path.exists() {
            bail!("the cluster {name} runs already: use it, or end it by `dev-cluster down --name {name}`");
        }
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&state.path)
            .with_context(|| format!("create {}", state.path.display()))?;
        Ok(state)
    }

    /// Takes over the folder of a cluster that lives by itself. `None` when there is none.
    ///
    /// # Errors
    /// Somebody else owns it at this moment.
    pub fn adopt(root: &Path, name: &str) -> Result<Option<Self>> {
        if !root.join(name).exists() {
            return Ok(None);
        }
        let state = Self::own(root, name)?;
        Ok(Some(
            state.with_context(|| format!("the cluster {name} belongs to a run that is still going: end that run"))?,
        ))
    }

    /// `None` when another process owns it.
    fn own(root: &Path, name: &str) -> Result<Option<Self>> {
        ensure!(
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'),
            "the cluster's name {name:?} may hold only lower-case letters, digits and '-'"
        );
        let path = root.join(name);
        let length = path.as_os_str().len();
        ensure!(
            length <= PATH_LIMIT,
            "{} has {length} characters, more than the {PATH_LIMIT} that leave room for Unix sockets below it: give a shorter --state",
            path.display()
        );
        let lock_path = root.join(format!("{name}.lock"));
        let lock = try_lock(&lock_path)?;
        Ok(lock.map(|lock| Self { path, lock_path, _lock: lock }))
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A folder below it, made when it is not there.
    ///
    /// # Errors
    /// It can't be made.
    pub fn subdirectory(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(path)
    }

    /// Writes down what must be ended before the folder may go.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write(&self, record: &Record) -> Result<()> {
        let partial = self.path.join("cluster.json.partial");
        write_private(&partial, &serde_json::to_vec_pretty(record)?)?;
        fs::rename(&partial, self.path.join(RECORD)).context("write the cluster's record")
    }

    /// Ends whatever of the cluster still runs and removes its folder.
    ///
    /// # Errors
    /// Something can't be ended or removed; the folder then stays, for the next attempt.
    pub fn remove(self) -> Result<()> {
        read_record(&self.path)?.end()?;
        if self.path.exists() {
            fs::remove_dir_all(&self.path).with_context(|| format!("remove {}", self.path.display()))?;
        }
        fs::remove_file(&self.lock_path).ok();
        Ok(())
    }
}

/// Reads the record of a cluster's folder. A run that crashed early has none: then it had made nothing.
///
/// # Errors
/// The file is there and is not a record.
pub fn read_record(directory: &Path) -> Result<Record> {
    let path = directory.join(RECORD);
    match fs::read(&path) {
        Ok(raw) => serde_json::from_slice(&raw).with_context(|| format!("read {}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Record::default()),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

fn prepare_root(root: &Path) -> Result<()> {
    if !root.exists() {
        fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(root)
            .with_context(|| format!("create {}", root.display()))?;
    }
    // The default root lies in a folder that everybody may write to.
    let owner = fs::metadata(root)?.uid();
    ensure!(
        owner == Uid::effective().as_raw(),
        "{} belongs to user {owner}: remove it or give another --state",
        root.display()
    );
    Ok(())
}

/// Removes the folders of runs that crashed.
fn sweep(root: &Path) -> Result<()> {
    for entry in fs::read_dir(root)?.flatten() {
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        if !entry.path().is_dir() {
            continue;
        }
        let Some(state) = StateDir::own(root, &name)? else { continue };
        let record = read_record(state.path())?;
        if record.released && record.is_running() {
            continue;
        }
        eprintln!("removing what an earlier run left in {}", state.path().display());
        state.remove()?;
    }
    Ok(())
}

/// `None` when another process holds the lock.
fn try_lock(path: &Path) -> Result<Option<File>> {
    loop {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .with_context(|| format!("open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("lock {}", path.display())),
        }
        // The holder before us may have removed the file: then this lock is on nothing that others will open.
        if fs::metadata(path).is_ok_and(|now| file.metadata().is_ok_and(|ours| ours.ino() == now.ino())) {
            return Ok(Some(file));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_owned_by_one_and_free_again_when_removed() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::create(root.path(), "one").unwrap();
        assert!(StateDir::own(root.path(), "one").unwrap().is_none());
        let path = state.path().to_owned();
        state.remove().unwrap();
        assert!(!path.exists());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "nothing is left");
    }

    #[test]
    fn what_a_crashed_run_left_is_removed_by_the_next_start() {
        let root = tempfile::tempdir().unwrap();
        let mut orphan = std::process::Command::new("sleep").arg("600.25").spawn().unwrap();
        let process = ProcessId::of(orphan.id().cast_signed(), "600.25").unwrap();
        let crashed = StateDir::create(root.path(), "crashed").unwrap();
        crashed.write(&Record { processes: vec![process.clone()], ..Record::default() }).unwrap();
        drop(crashed);
        let next = StateDir::create(root.path(), "next").unwrap();
        assert!(!root.path().join("crashed").exists());
        assert!(!process.is_alive());
        orphan.wait().unwrap();
        next.remove().unwrap();
    }

    #[test]
    fn names_that_are_no_plain_words_are_refused() {
        let root = tempfile::tempdir().unwrap();
        for name in ["", "../x", "A", "a/b", "a b"] {
            assert!(StateDir::create(root.path(), name).is_err(), "{name:?}");
        }
    }
}
