//! What happened to activities, by the server's own record, beside what the operator read meanwhile.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use operator_core::observed::{LaneKey, Observation, SlotUse, TaskType};
use prometheus::Registry;
use serde_json::json;
use temporal_worker_operator::changes::Changes;
use temporal_worker_operator::workers::{Metrics, Scraper, Seen, Settings, Target};
use tokio::time::Instant;

use crate::runtime_support::{Activity, NAMESPACE, Server, json_payload};

/// Task Queue of the activities.
pub const QUEUE: &str = "q";
/// Activities that run at a time.
pub const SLOTS: u64 = 10;

/// A lane of [`QUEUE`].
pub fn lane(task_type: TaskType) -> LaneKey {
    LaneKey { task_queue: QUEUE.into(), task_type }
}

/// A Worker process that knows nothing of the operator, killed with its value.
pub struct Plain(Child);

impl Plain {
    /// Starts a program that takes [`SLOTS`] activities of [`QUEUE`] at a time.
    pub fn start(program: PathBuf, server: &Server, environment: &[(&str, &str)]) -> Result<Self> {
        let mut command = Command::new(&program);
        command
            .env("TEMPORAL_ADDRESS", server.temporal.host_port())
            .env("TEMPORAL_NAMESPACE", NAMESPACE)
            .env("TASK_QUEUE", QUEUE)
            .env("SLOTS", SLOTS.to_string())
            .envs(environment.iter().copied())
            .stdout(Stdio::null());
        Ok(Self(command.spawn().with_context(|| format!("start {}", program.display()))?))
    }

    /// Kills it: nobody is told.
    pub fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// A free port of the loopback address.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Reads one pod as the operator does.
pub struct Reader {
    scraper: Arc<Scraper>,
    target: Target,
}

impl Reader {
    pub fn of(port: u16) -> Result<Self> {
        let target =
            Target { pod_uid: "pod".into(), url: format!("http://127.0.0.1:{port}/metrics"), cpu_limit: Some(2.0) };
        let settings = Settings { interval: Duration::from_millis(200), ..Settings::default() };
        let scraper = Scraper::new(settings, Changes::new(), Metrics::register(&Registry::new())?)?;
        scraper.set("fleet".into(), vec![target.clone()]);
        Ok(Self { scraper, target })
    }

    pub fn seen(&self) -> Seen {
        self.scraper.snapshot("pod", Some(&self.target), Instant::now())
    }

    /// The last fresh reading of a lane, and when it was asked for.
    pub fn slots(&self, task_type: TaskType) -> Option<(SlotUse, SystemTime)> {
        let Observation::Known { value, age } = self.seen().load else { return None };
        Some((value.lanes.get(&lane(task_type))?.clone(), SystemTime::now() - age))
    }
}

/// When an activity could start, did, and ended.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    scheduled: SystemTime,
    started: SystemTime,
    closed: SystemTime,
}

/// Starts activities that take so many milliseconds each, one every `gap`.
pub async fn start_activities(server: &Server, milliseconds: &[u64], gap: Duration) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    let mut pace = tokio::time::interval(gap.max(Duration::from_millis(1)));
    for time in milliseconds {
        pace.tick().await;
        let input = vec![json_payload(&json!(time))];
        ids.push(server.start_activity(Activity { task_queue: QUEUE, input, ..Activity::default() }).await?);
    }
    Ok(ids)
}

/// What the server recorded of activities that have ended.
pub async fn records(server: &Server, ids: &[String]) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for id in ids {
        let info = server.describe(id).await?;
        let time = |time: Option<_>| -> Result<SystemTime> { Ok(SystemTime::try_from(time.context("a time")?)?) };
        records.push(Record {
            scheduled: time(info.schedule_time)?,
            started: time(info.last_started_time)?,
            closed: time(info.close_time)?,
        });
    }
    Ok(records)
}

/// A reading while tasks ran.
#[derive(Clone, Debug)]
pub struct Sample {
    pub slots: SlotUse,
    pub asked: SystemTime,
}

/// Checks that a reading told what was so at some moment of the `lag` before it, within one task or a tenth.
pub fn check_in_motion(sample: &Sample, records: &[Record], lag: Duration) {
    let near = |told: u64, least: usize, most: usize| {
        let slack = |count: usize| 1.0_f64.max(count as f64 * 0.1);
        told as f64 >= least as f64 - slack(least) && told as f64 <= most as f64 + slack(most)
    };
    let started = |at: SystemTime| records.iter().filter(|record| record.started <= at).count();
    let (from, until) = (sample.asked - lag, sample.asked + Duration::from_millis(100));
    let (least, most) = (started(from), started(until));
    assert!(near(sample.slots.started, least, most), "started {least}..={most}: {sample:?}");
    let running = |at: SystemTime| records.iter().filter(|it| it.started <= at && it.closed > at).count();
    let steps = (0..=20).map(|step| from + (lag + Duration::from_millis(100)) * step / 20);
    let counts: Vec<usize> = steps.map(running).collect();
    let (least, most) = (counts.iter().min().copied().unwrap_or(0), counts.iter().max().copied().unwrap_or(0));
    assert!(near(sample.slots.used, least, most), "running {least}..={most}: {sample:?}");
}

/// Checks what is read once nothing runs any more: all within one task.
pub fn check_still(slots: &SlotUse, records: &[Record]) {
    assert_eq!((slots.used, slots.available), (0, SLOTS), "{slots:?}");
    let close = |told: u64, truth: usize| (told as i64 - truth as i64).abs() <= 1;
    assert!(close(slots.started, records.len()), "{} started: {slots:?}", records.len());
    assert!(slots.waits.0.len() > 3, "{slots:?}");
    for (edge, told) in &slots.waits.0 {
        let waited = |slack: i64| {
            let limit = if slack < 0 { edge.mul_f64(0.95) } else { edge.saturating_add(*edge / 20) };
            records.iter().filter(|it| it.started.duration_since(it.scheduled).unwrap_or_default() <= limit).count()
        };
        // The Worker's clock starts a task a moment after the server's.
        let (least, most) = (waited(-1), waited(1));
        assert!(
            close(*told, (*told as usize).clamp(least, most)),
            "{edge:?}: {least}..={most} waited so long: {slots:?}"
        );
    }
}
