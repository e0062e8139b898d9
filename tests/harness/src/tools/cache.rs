//! The cache of third-party programs: each is built once, by one process at a time, and appears complete or not at all.

use std::env;
use std::fs::{self, File, TryLockError};
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::logs;

/// A build that hangs is ended after this time. The longest takes six minutes on two cores.
const BUILD_LIMIT: Duration = Duration::from_secs(45 * 60);

/// Folder of the cache: `$XDG_CACHE_HOME/temporal-worker-operator`, else below `~/.cache`.
///
/// # Errors
/// Neither `XDG_CACHE_HOME` nor `HOME` is set.
pub fn directory() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?).join(".cache"),
    };
    Ok(base.join("temporal-worker-operator"))
}

/// A key over everything that a build depends on.
#[must_use]
pub fn key(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts.iter().chain(&[env::consts::ARCH]) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize()[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One build: it gets an empty folder to fill, and runs its commands by [`Build::run`].
pub struct Build<'a> {
    /// Folder that becomes the cache entry.
    pub directory: &'a Path,
    title: &'a str,
    log: &'a Path,
    start: Instant,
}

/// Returns the cache's folder `<name>-<key>`, filled by `build` when it is not there yet.
///
/// # Errors
/// The build failed: the message holds the end of its output and the path of the log.
pub fn entry(name: &str, key: &str, title: &str, build: impl FnOnce(&Build<'_>) -> Result<()>) -> Result<PathBuf> {
    let cache = directory()?;
    let finished = cache.join(format!("{name}-{key}"));
    if finished.is_dir() {
        return Ok(finished);
    }
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    let _lock = lock(&cache.join(format!("{name}-{key}.lock")), title)?;
    if finished.is_dir() {
        return Ok(finished);
    }
    let partial = cache.join(format!("{name}-{key}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("remove {}", partial.display()))?;
    }
    fs::create_dir_all(&partial)?;
    let log = cache.join(format!("{name}-{key}.log"));
    File::create(&log)?;
    let build_run = Build { directory: &partial, title, log: &log, start: Instant::now() };
    build(&build_run).with_context(|| format!("could not build {title}"))?;
    build_run.report_done();
    fs::rename(&partial, &finished)?;
    Ok(finished)
}

fn lock(path: &Path, title: &str) -> Result<File> {
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            eprintln!("waiting for another run that builds {title}");
            file.lock()?;
        }
        Err(TryLockError::Error(error)) => return Err(error).context(format!("lock {}", path.display())),
    }
    Ok(file)
}

impl Build<'_> {
    /// Runs a command, with its output in the log and its progress shown.
    ///
    /// # Errors
    /// It fails, or takes longer than the limit of a build.
    pub fn run(&self, command: &mut Command) -> Result<()> {
        let log = File::options().append(true).open(self.log)?;
        let shown = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {shown}"))?;
        let mut next_report = Duration::ZERO;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            let elapsed = self.start.elapsed();
            if elapsed > BUILD_LIMIT {
                child.kill()?;
                child.wait()?;
                bail!("{shown} took longer than {} minutes", BUILD_LIMIT.as_secs() / 60);
            }
            if elapsed >= next_report {
                next_report = elapsed + self.report_running();
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        if !status.success() {
            self.end_line();
            bail!("{shown}: {status}\n{}", logs::tail(self.log));
        }
        Ok(())
    }

    /// Reports that the build goes on; returns after what time to report again.
    fn report_running(&self) -> Duration {
        let seconds = self.start.elapsed().as_secs();
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[Kbuilding {} … {seconds} s", self.title);
            std::io::stderr().flush().ok();
            Duration::from_secs(1)
        } else {
            eprintln!("building {} … {seconds} s", self.title);
            Duration::from_secs(20)
        }
    }

    fn report_done(&self) {
        self.end_line();
        eprintln!("built {} in {} s", self.title, self.start.elapsed().as_secs());
    }

    fn end_line(&self) {
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_changes_with_every_part_and_with_where_a_part_ends() {
        assert_eq!(key(&["a", "b"]), key(&["a", "b"]));
        assert_ne!(key(&["a", "b"]), key(&["a", "c"]));
        assert_ne!(key(&["ab", ""]), key(&["a", "b"]));
    }
}
