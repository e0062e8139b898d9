//! What happened to activities, by the server's own record, beside what the operator read meanwhile.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod heartbeats;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use harness::tools::Tools;
use operator_core::observed::{LaneKey, Observation, SlotUse, TaskType};
use prometheus::Registry;
use serde_json::json;
use temporal_worker_operator::changes::Changes;
use temporal_worker_operator::workers::{Metrics, Scraper, Seen, Settings, Target};
use tokio::time::Instant;

use crate::runtime_support::{Activity, NAMESPACE, Server, json_payload};

/// Task Queue of a Worker that is alone.
pub const QUEUE: &str = "q";
/// Activities that run at a time.
pub const SLOTS: u64 = 10;
/// Deadline of what a Worker does.
pub const SOON: Duration = Duration::from_secs(60);
/// Time between two readings.
const INTERVAL: Duration = Duration::from_millis(100);
/// A part of a second in which the server, the Worker and the page tell the same; a busy machine takes so long.
const MOMENT: Duration = Duration::from_millis(100);

/// A lane of activities or other tasks.
pub fn lane(task_queue: &str, task_type: TaskType) -> LaneKey {
    LaneKey { task_queue: task_queue.into(), task_type }
}

/// The languages whose SDKs a Worker in `tests/workers` is written on, and their programs.
pub async fn sdk_workers() -> Result<Vec<(&'static str, PathBuf)>> {
    let tools = Tools::ensure_async(Tools::WORKERS).await?;
    let program = |language| Ok((language, tools.program(&format!("{language}-worker"))?.to_owned()));
    ["go", "java", "python", "typescript"].into_iter().map(program).collect()
}

/// A Worker process that knows nothing of the operator, killed with its value.
pub struct Plain(Child);

impl Plain {
    /// Starts a program that takes [`SLOTS`] activities of a Task Queue at a time.
    pub fn start(program: &Path, server: &Server, task_queue: &str, environment: &[(&str, &str)]) -> Result<Self> {
        let mut command = Command::new(program);
        command
            .env("TEMPORAL_ADDRESS", server.temporal.host_port())
            .env("TEMPORAL_NAMESPACE", NAMESPACE)
            .env("TASK_QUEUE", task_queue)
            .env("SLOTS", SLOTS.to_string())
            .envs(environment.iter().copied())
            .stdout(Stdio::null());
        Ok(Self(command.spawn().with_context(|| format!("start {}", program.display()))?))
    }

    /// How it ended, once it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().ok().flatten()
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
    /// Task Queue of the pod's Worker.
    pub task_queue: &'static str,
}

impl Reader {
    pub fn of(port: u16, task_queue: &'static str) -> Result<Self> {
        let target =
            Target { pod_uid: "pod".into(), url: format!("http://127.0.0.1:{port}/metrics"), cpu_limit: Some(2.0) };
        let settings = Settings { interval: INTERVAL, ..Settings::default() };
        let scraper = Scraper::new(settings, Changes::new(), Metrics::register(&Registry::new())?)?;
        scraper.set("fleet".into(), vec![target.clone()]);
        Ok(Self { scraper, target, task_queue })
    }

    pub fn seen(&self) -> Seen {
        self.scraper.snapshot("pod", Some(&self.target), Instant::now())
    }

    /// The last fresh reading of a lane, and when it was asked for.
    pub fn slots(&self, task_type: TaskType) -> Option<(SlotUse, SystemTime)> {
        let Observation::Known { value, age } = self.seen().load else { return None };
        Some((value.lanes.get(&lane(self.task_queue, task_type))?.clone(), SystemTime::now() - age))
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
pub async fn start_activities(
    server: &Server,
    task_queue: &str,
    milliseconds: &[u64],
    gap: Duration,
) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    let mut pace = tokio::time::interval(gap.max(Duration::from_millis(1)));
    for time in milliseconds {
        pace.tick().await;
        let input = vec![json_payload(&json!(time))];
        ids.push(server.start_activity(Activity { task_queue, input, ..Activity::default() }).await?);
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

impl Sample {
    /// Tasks that had ended.
    fn ended(&self) -> u64 {
        self.slots.runs.0.last().map_or(0, |(_, count)| *count)
    }
}

/// Checks that a reading told what was so at some moment of the `lag` before it, within one task or a tenth.
pub fn check_in_motion(sample: &Sample, records: &[Record], lag: Duration) -> Result<()> {
    let near = |told: u64, least: usize, most: usize| {
        let slack = |count: usize| 1.0_f64.max(count as f64 * 0.1);
        told as f64 >= least as f64 - slack(least) && told as f64 <= most as f64 + slack(most)
    };
    let started = |at: SystemTime| records.iter().filter(|record| record.started <= at).count();
    let (from, until) = (sample.asked - lag, sample.asked + MOMENT);
    let (least, most) = (started(from), started(until));
    ensure!(near(sample.slots.started, least, most), "started {least}..={most}: {sample:?}");
    let running = |at: SystemTime| records.iter().filter(|it| it.started <= at && it.closed > at).count();
    let changes = records.iter().flat_map(|it| [it.started, it.closed]).filter(|at| (from..=until).contains(at));
    let counts: Vec<usize> = changes.chain([from]).map(running).collect();
    let (least, most) = (counts.iter().min().copied().unwrap_or(0), counts.iter().max().copied().unwrap_or(0));
    ensure!(near(sample.slots.used, least, most), "running {least}..={most}: {sample:?}");
    Ok(())
}

/// Checks that as many tasks were counted between two readings in mid-stream as started and ended between them by the
/// server's record, within a tenth.
pub fn check_between(samples: &[Sample], records: &[Record]) -> Result<()> {
    // What differs from the reading before is no older than that one.
    let renewed = samples.windows(2).filter(|pair| pair[0].slots.started != pair[1].slots.started);
    let in_stream = |it: &&Sample| it.slots.started > SLOTS && it.slots.started < records.len() as u64;
    let moving: Vec<&Sample> = renewed.map(|pair| &pair[1]).filter(in_stream).collect();
    let [first, .., last] = moving[..] else { bail!("nothing moved: {samples:?}") };
    let started = last.slots.started - first.slots.started;
    let ended = last.ended().saturating_sub(first.ended());
    for (what, told, time) in
        [("started", started, (|it| it.started) as fn(&Record) -> SystemTime), ("ended", ended, |it| it.closed)]
    {
        let count = |from: SystemTime, until: SystemTime| {
            records.iter().map(time).filter(|at| *at > from && *at <= until).count() as f64
        };
        let lag = INTERVAL + MOMENT;
        let (least, most) = (count(first.asked, last.asked - lag), count(first.asked - lag, last.asked));
        ensure!(least >= 30.0, "too short a stream for a tenth: {least}");
        ensure!((least * 0.9..=most * 1.1).contains(&(told as f64)), "{told} {what}, not {least}..={most}");
    }
    Ok(())
}

/// Checks what is read once nothing runs any more: all within one task.
pub fn check_still(slots: &SlotUse, records: &[Record]) -> Result<()> {
    ensure!((slots.used, slots.available) == (0, SLOTS), "{slots:?}");
    let close = |told: u64, truth: usize| (told as i64 - truth as i64).abs() <= 1;
    ensure!(close(slots.started, records.len()), "{} started: {slots:?}", records.len());
    let ended = slots.runs.0.last().map_or(0, |(_, count)| *count);
    ensure!(close(ended, records.len()), "{} ended: {slots:?}", records.len());
    ensure!(slots.waits.0.len() > 3, "{slots:?}");
    for (edge, told) in &slots.waits.0 {
        let waited = |slack: i64| {
            let limit = if slack < 0 { edge.mul_f64(0.95) } else { edge.saturating_add(*edge / 20) };
            records.iter().filter(|it| it.started.duration_since(it.scheduled).unwrap_or_default() <= limit).count()
        };
        // The Worker's clock starts a task a moment after the server's.
        let (least, most) = (waited(-1), waited(1));
        ensure!(
            close(*told, (*told as usize).clamp(least, most)),
            "{edge:?}: {least}..={most} waited so long: {slots:?}"
        );
    }
    Ok(())
}
