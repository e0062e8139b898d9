//! The two files that say what the process does: read at start, and looked at again and again while it runs.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use operator_core::contract::{RuntimeConfig, RuntimeLimits};
use prometheus::{IntGauge, Opts};
use serde::de::DeserializeOwned;

use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;

/// Time between two looks at the files: a change counts within it.
const LOOK: Duration = Duration::from_secs(2);

/// What the files say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// The configuration file, when there is one.
    pub config: Option<RuntimeConfig>,
    /// The limits file, or the defaults.
    pub limits: RuntimeLimits,
}

/// Where the files are.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    /// Of the configuration.
    pub config: Option<PathBuf>,
    /// Of the limits.
    pub limits: Option<PathBuf>,
}

impl Paths {
    /// Reads both.
    ///
    /// # Errors
    /// A file can't be read; names it, the line and the field.
    pub fn read(&self) -> anyhow::Result<Told> {
        let config = self.config.as_ref().map(read).transpose()?;
        let limits = self.limits.as_ref().filter(|path| path.exists()).map(read).transpose()?.unwrap_or_default();
        Ok(Told { config, limits })
    }
}

fn read<T: DeserializeOwned>(path: &PathBuf) -> anyhow::Result<T> {
    let text = std::fs::read(path).with_context(|| format!("file {} can't be read", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("file {} does not follow its format", path.display()))
}

/// Watches the files. What can't be used changes nothing, and is said in the log, in a metric and by the readiness probe.
#[derive(Debug)]
pub struct Files {
    paths: Paths,
    used: Told,
    had_limits: bool,
    said: Option<String>,
    stale: IntGauge,
    lifecycle: Lifecycle,
}

impl Files {
    /// Watches `paths`, of which `used` was read.
    ///
    /// # Errors
    /// Two metrics share a name; a bug.
    pub fn new(paths: Paths, used: Told, metrics: &Metrics, lifecycle: Lifecycle) -> Result<Self, prometheus::Error> {
        let stale = IntGauge::with_opts(Opts::new(
            "temporal_worker_runtime_configuration_stale",
            "1 while the configuration or the limits in the files can't be used, and older ones are.",
        ))?;
        metrics.register(Box::new(stale.clone()))?;
        let had_limits = paths.limits.as_ref().is_some_and(|path| path.exists());
        Ok(Self { paths, used, had_limits, said: None, stale, lifecycle })
    }

    /// Waits until the files say something else than what is used. May be dropped at any time.
    pub async fn changed(&mut self) -> Told {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Some(told) = self.look() {
                return told;
            }
        }
    }

    fn look(&mut self) -> Option<Told> {
        match self.read() {
            Ok(told) if told == self.used => self.say(None),
            Ok(told) => return Some(told),
            Err(problem) => self.say(Some(format!("{problem:#}"))),
        }
        None
    }

    /// What the files say now. A file that was there is not to be missing, and a Task Queue that a newer version no longer has,
    /// so that the limits of the fleet leave it out, keeps those that it had.
    fn read(&self) -> anyhow::Result<Told> {
        let gone = self.paths.limits.as_ref().filter(|path| self.had_limits && !path.exists());
        if let Some(path) = gone {
            anyhow::bail!("file {} is gone; bring it back", path.display());
        }
        let mut told = self.paths.read()?;
        let RuntimeLimits { max_concurrent_activities, task_queues, .. } = &self.used.limits;
        for (queue, slots) in max_concurrent_activities {
            if !told.limits.max_concurrent_activities.contains_key(queue) {
                told.limits.max_concurrent_activities.insert(queue.clone(), *slots);
                told.limits.task_queues.extend(task_queues.get(queue).map(|limits| (queue.clone(), limits.clone())));
            }
        }
        Ok(told)
    }

    /// Notes that a change was taken over.
    pub fn accept(&mut self, told: Told) {
        tracing::info!("what the files say changed, and was taken over");
        self.used = told;
        self.say(None);
    }

    /// Notes that a change can't be used, and why. It is given again at the next look: what is missing may come.
    pub fn refuse(&mut self, problem: String) {
        self.say(Some(problem));
    }

    fn say(&mut self, problem: Option<String>) {
        if problem == self.said {
            return;
        }
        match &problem {
            Some(problem) => tracing::error!("the process goes on with what the files said before: {problem}"),
            None => tracing::info!("the files can be used"),
        }
        self.stale.set(problem.is_some().into());
        self.lifecycle
            .note(problem.as_ref().map(|problem| format!("goes on with what the files said before: {problem}")));
        self.said = problem;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder {
        folder: tempfile::TempDir,
        metrics: Metrics,
        files: Files,
    }

    impl Folder {
        fn new(limits: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("limits.json");
            std::fs::write(&path, limits).unwrap();
            let paths = Paths { config: None, limits: Some(path) };
            let (metrics, used) = (Metrics::new(None).unwrap(), paths.read().unwrap());
            let files = Files::new(paths, used, &metrics, Lifecycle::default()).unwrap();
            Self { folder, metrics, files }
        }

        fn write(&self, limits: &str) {
            std::fs::write(self.folder.path().join("limits.json"), limits).unwrap();
        }

        fn stale(&self) -> (bool, Option<String>) {
            let line = "\ntemporal_worker_runtime_configuration_stale 1\n";
            let metric = self.metrics.render().contains(line);
            (metric, self.files.lifecycle.noted())
        }
    }

    #[test]
    fn a_change_is_given_until_it_is_taken_over() {
        let mut folder = Folder::new(r#"{"drainTimeoutMs": 1}"#);
        folder.write(r#"{"drainTimeoutMs": 2}"#);
        let told = folder.files.look().unwrap();
        assert_eq!(told.limits.drain_timeout_ms, Some(2));
        folder.files.refuse("it can't be used".to_owned());
        assert!(folder.stale().0 && folder.stale().1.unwrap().contains("it can't be used"));
        assert_eq!(folder.files.look().as_ref(), Some(&told));
        folder.files.accept(told);
        assert_eq!(folder.stale(), (false, None));
        assert_eq!(folder.files.look(), None);
    }

    #[test]
    fn a_task_queue_that_the_limits_no_longer_name_keeps_what_it_had() {
        let mut folder = Folder::new(
            r#"{"maxConcurrentActivities": {"q": 2, "r": 3}, "taskQueues": {"q": {"maxActivitiesPerSecond": 1.5}}}"#,
        );
        folder.write(r#"{"maxConcurrentActivities": {"r": 4}}"#);
        let limits = folder.files.look().unwrap().limits;
        assert_eq!((limits.slots("q"), limits.slots("r")), (2, 4));
        assert_eq!(limits.task_queues["q"].max_activities_per_second, Some(1.5));
        folder.write(r#"{"maxConcurrentActivities": {"q": 5, "r": 4}}"#);
        let limits = folder.files.look().unwrap().limits;
        assert_eq!(
            (limits.slots("q"), limits.task_queues.is_empty()),
            (5, true),
            "one that is named has what is said of it"
        );
    }

    #[test]
    fn limits_that_are_gone_change_nothing_and_are_said() {
        let mut folder = Folder::new(r#"{"drainTimeoutMs": 1}"#);
        std::fs::remove_file(folder.folder.path().join("limits.json")).unwrap();
        assert_eq!(folder.files.look(), None);
        assert!(folder.stale().0 && folder.stale().1.unwrap().contains("limits.json is gone"));
    }

    #[test]
    fn a_file_that_can_not_be_read_changes_nothing_and_is_said() {
        let mut folder = Folder::new("{}");
        folder.write("{");
        assert_eq!(folder.files.look(), None);
        let (metric, note) = folder.stale();
        assert!(metric && note.unwrap().contains("limits.json does not follow its format"));
        folder.write("{}");
        assert_eq!(folder.files.look(), None);
        assert_eq!(folder.stale(), (false, None));
    }
}
