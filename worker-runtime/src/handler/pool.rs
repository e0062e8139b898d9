//! `exec` handlers that stay: processes that run one task after another, and speak the [line protocol](super::line).
//!
//! A process is started when a task finds none that is free. One that breaks the protocol, ends within a task, or does not
//! stop when it is asked to, is killed with all that it started; the next task gets a new one.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};

use super::line::{self, Word};
use super::lines::{LineError, Lines};
use super::program::{self, Program, Tail, describe};
use super::tree::Tree;
use super::{Call, End, HandlerError, Reason, begin};

/// Time that a process gets to stop its task when it is asked to.
const STOP_TIME: Duration = Duration::from_secs(5);
/// Time within which the end of a process is seen that has closed its output.
const END_TIME: Duration = Duration::from_secs(1);

/// The processes of one handler.
#[derive(Debug)]
pub(super) struct Pool {
    program: Program,
    idle: Mutex<Vec<Process>>,
    permits: Semaphore,
}

impl Pool {
    /// A pool of at most `processes`, none of which runs yet.
    pub(super) fn new(program: Program, processes: Option<u32>) -> Self {
        let most = processes.and_then(|most| usize::try_from(most).ok()).unwrap_or(Semaphore::MAX_PERMITS);
        let permits = Semaphore::new(most.min(Semaphore::MAX_PERMITS));
        Self { program, idle: Mutex::default(), permits }
    }

    /// Runs one task on a process. When it is asked to stop, the process gets some seconds to do so itself. Dropping the
    /// future kills the process.
    pub(super) async fn run(&self, call: &Call) -> End {
        let permit = tokio::select! {
            permit = self.permits.acquire() => permit,
            reason = call.stop.asked() => return End::Stopped(reason),
        };
        let mut process = match self.free().map_or_else(|| Process::start(&self.program), Ok) {
            Ok(process) => process,
            Err(error) => return End::Failed(error),
        };
        let end = process.task(&self.program.name, call).await;
        if let Ok(end) = end {
            self.idle.lock().push(process);
            drop(permit);
            return end;
        }
        end.unwrap_or_else(|broken| broken)
    }

    /// A process that waits for a task, and has not ended meanwhile.
    fn free(&self) -> Option<Process> {
        let mut idle = self.idle.lock();
        std::iter::from_fn(|| idle.pop()).find_map(|mut process| process.lives().then_some(process))
    }
}

/// A running process, killed with all that it started when dropped.
#[derive(Debug)]
struct Process {
    child: Child,
    tree: Tree,
    stdin: ChildStdin,
    lines: Lines<ChildStdout>,
    tail: Arc<Mutex<Tail>>,
    /// Number of its last task.
    id: u64,
}

impl Process {
    fn start(program: &Program) -> Result<Self, HandlerError> {
        let (mut child, tree) = program.start(Vec::new())?;
        let (Some(stdin), Some(stdout), stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take()) else {
            let cause = "its pipes are missing".to_owned();
            return Err(HandlerError::System { handler: program.name.clone(), cause });
        };
        let tail = Arc::<Mutex<Tail>>::default();
        let (heard, handler) = (tail.clone(), program.name.clone());
        tokio::spawn(async move {
            program::read_stderr(stderr, &heard, |line| tracing::debug!(handler, "{line}")).await;
        });
        Ok(Self { child, tree, stdin, lines: Lines::new(stdout), tail, id: 0 })
    }

    /// Whether it goes on, within its limits. One that was found to have ended is collected: its id may be somebody else's
    /// from then on.
    fn lives(&mut self) -> bool {
        match self.child.try_wait() {
            Ok(None) => return self.tree.watch().look().is_none(),
            Ok(Some(_)) => self.tree.ended(),
            Err(_) => {}
        }
        false
    }

    /// Runs one task.
    ///
    /// # Errors
    /// The end of a task after which the process is of no use.
    async fn task(&mut self, name: &str, call: &Call) -> Result<End, End> {
        self.id += 1;
        // A process that does not read is one that does not answer; its end is seen when its output closes.
        let mut unwritten = line::start(self.id, call);
        let mut stopping: Option<(Reason, Instant)> = None;
        let watch = self.tree.watch();
        let mut exceeded = pin!(watch.exceeded());
        loop {
            let written = write(&mut self.stdin, &mut unwritten);
            tokio::select! {
                biased;
                line = self.lines.next() => {
                    let line = match line {
                        Ok(line) => line,
                        Err(error) => return Err(self.broken(name, error, stopping).await),
                    };
                    if let Some(end) = self.hear(name, line, call, stopping)? {
                        return Ok(end);
                    }
                }
                () = written => {}
                limit = &mut exceeded => {
                    return Err(End::Failed(HandlerError::LimitExceeded { handler: name.to_owned(), limit }));
                }
                reason = call.stop.asked(), if stopping.is_none() => {
                    stopping = Some((reason, Instant::now() + STOP_TIME));
                    unwritten.extend(line::cancel(self.id, reason));
                }
                () = over(stopping), if stopping.is_some() => {
                    tracing::info!(handler = name, activity_id = call.activity_id,
                        "a handler's process did not stop its task when asked to, and is killed");
                    return Err(stopping.map_or(End::Stopped(Reason::Cancelled), |(reason, _)| End::Stopped(reason)));
                }
            }
        }
    }

    /// Understands a line: the end of the task, or nothing yet.
    fn hear(
        &self,
        name: &str,
        line: Vec<u8>,
        call: &Call,
        stopping: Option<(Reason, Instant)>,
    ) -> Result<Option<End>, End> {
        let invalid = |problem: String| {
            let begin = begin(&line);
            End::Failed(HandlerError::NotProtocol { handler: name.to_owned(), problem, begin })
        };
        Ok(match line::read(&line, Some(self.id)).map_err(invalid)? {
            None => None,
            Some(Word::Heartbeat(details)) => {
                call.progress.send_replace(Some(details));
                None
            }
            Some(Word::Result(payload)) => Some(End::Result(payload)),
            Some(Word::Failure(chosen)) => Some(End::Failed(HandlerError::Chosen(chosen))),
            Some(Word::Cancelled) => match stopping {
                Some((reason, _)) => Some(End::Stopped(reason)),
                None => return Err(invalid("it says that it was cancelled, and nobody asked for it".to_owned())),
            },
        })
    }

    /// What became of a task whose process says nothing more.
    async fn broken(&mut self, name: &str, error: LineError, stopping: Option<(Reason, Instant)>) -> End {
        if let Some((reason, _)) = stopping {
            return End::Stopped(reason);
        }
        let handler = name.to_owned();
        End::Failed(match error {
            LineError::TooLong { limit } => HandlerError::TooLarge { handler, limit },
            LineError::Closed => {
                let end = match tokio::time::timeout(END_TIME, self.child.wait()).await {
                    Ok(Ok(status)) => {
                        let held = self.tree.watch().held();
                        self.tree.ended();
                        if let Some(limit) = held {
                            return End::Failed(HandlerError::LimitExceeded { handler, limit });
                        }
                        describe(status)
                    }
                    _ => "closed its standard output within a task, and goes on".to_owned(),
                };
                HandlerError::Exited { handler, end, stderr: self.tail.lock().text() }
            }
            LineError::Read(error) => {
                HandlerError::System { handler, cause: format!("cannot read its standard output: {error}") }
            }
        })
    }
}

/// Writes what is left to be written; never ends when that is nothing, or can't be written. What was written is taken away,
/// so that it may be dropped at any time.
async fn write(stdin: &mut ChildStdin, unwritten: &mut Vec<u8>) {
    while !unwritten.is_empty() {
        match stdin.write(unwritten).await {
            Ok(written @ 1..) => drop(unwritten.drain(..written)),
            _ => break,
        }
    }
    std::future::pending().await
}

async fn over(stopping: Option<(Reason, Instant)>) {
    match stopping {
        Some((_, at)) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
