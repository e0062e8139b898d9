//! `exec` handlers: a program for each task, in a process group of its own that is killed as a whole.

use std::collections::VecDeque;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use operator_core::contract::ExecConfig;
use temporalio_common::protos::temporal::api::common::v1::Payload;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::{Call, HandlerError, MAX_DETAIL, MAX_OUTPUT, begin};
use crate::payload;

/// Variables of the runtime's own environment that a program gets. Nothing of the connection to Temporal is among them.
const PASSED_ON: [&str; 5] = ["PATH", "HOME", "LANG", "TZ", "TMPDIR"];

pub(super) async fn run(name: &str, exec: &ExecConfig, call: &Call) -> Result<Payload, HandlerError> {
    let system = |what: &str, error: std::io::Error| HandlerError::System {
        handler: name.to_owned(),
        cause: format!("{what}: {error}"),
    };
    let mut child = start(name, exec, call)?;
    let group = Group(AtomicI32::new(child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or(0)));
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A program need not read its arguments: a closed pipe is no error.
            let _ = stdin.write_all(&call.arguments).await;
            let _ = stdin.shutdown().await;
        }
    };
    let end = async {
        let status = child.wait().await;
        // Whatever the program left behind would hold its pipes open, and outlive its task.
        group.kill();
        status
    };
    let output = async {
        let output = read_limited(stdout).await.map_err(|error| system("cannot read its standard output", error))?;
        output.ok_or(HandlerError::TooLarge { handler: name.to_owned(), limit: MAX_OUTPUT })
    };
    let work = async {
        let ((), status, stderr) = tokio::join!(feed, end, read_tail(name, call, stderr));
        Ok((status.map_err(|error| system("cannot wait for its end", error))?, stderr))
    };
    // The first error returns, which drops the group, which kills the program.
    let (output, (status, stderr)) = tokio::try_join!(output, work)?;
    if !status.success() {
        return Err(HandlerError::Exited { handler: name.to_owned(), end: describe(status), stderr });
    }
    payload::result(&output).map_err(|problem| HandlerError::NotJson {
        handler: name.to_owned(),
        problem,
        begin: begin(&output),
    })
}

fn start(name: &str, exec: &ExecConfig, call: &Call) -> Result<Child, HandlerError> {
    let not_started = |field, value: &str, cause: String| HandlerError::NotStarted {
        handler: name.to_owned(),
        field,
        value: value.to_owned(),
        cause,
    };
    if let Some(dir) = &exec.working_dir
        && !std::path::Path::new(dir).is_dir()
    {
        return Err(not_started("workingDir", dir, "it is not a folder".to_owned()));
    }
    let program = exec.command.first().map_or("", String::as_str);
    let mut command = Command::new(program);
    command
        .args(exec.command.iter().skip(1))
        .env_clear()
        .envs(PASSED_ON.iter().filter_map(|name| std::env::var_os(name).map(|value| (name, value))))
        .envs(&exec.env)
        .envs(call.info().map(|(key, value)| (format!("TEMPORAL_{key}"), value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(dir) = &exec.working_dir {
        command.current_dir(dir);
    }
    command.spawn().map_err(|error| not_started("command[0]", program, error.to_string()))
}

/// The process group of a running program, killed when dropped at the latest. 0 once it is killed: the system may give
/// the number to somebody else.
struct Group(AtomicI32);

impl Group {
    fn kill(&self) {
        let group = Pid::from_raw(self.0.swap(0, Ordering::Relaxed));
        if group.as_raw() == 0 {
            return;
        }
        match killpg(group, Signal::SIGKILL) {
            // As process 1 of a container the runtime inherits what the program left behind, and has to collect it.
            Ok(()) if std::process::id() == 1 => {
                tokio::spawn(reap(group));
            }
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => tracing::warn!(%group, %error, "cannot kill the processes of a handler"),
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Collects killed processes of a group. Bounded: a process that can't die now is left as it is.
async fn reap(group: Pid) {
    const TRIES: u32 = 50;
    for _ in 0..TRIES {
        match waitpid(Pid::from_raw(-group.as_raw()), Some(WaitPidFlag::WNOHANG)) {
            Ok(nix::sys::wait::WaitStatus::StillAlive) => tokio::time::sleep(Duration::from_millis(20)).await,
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// All that `pipe` gives, or nothing when it is more than [`MAX_OUTPUT`].
async fn read_limited(pipe: Option<impl AsyncRead + Unpin>) -> std::io::Result<Option<Vec<u8>>> {
    let mut output = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(MAX_OUTPUT as u64 + 1).read_to_end(&mut output).await?;
    }
    Ok((output.len() <= MAX_OUTPUT).then_some(output))
}

/// The last [`MAX_DETAIL`] bytes of `pipe`; every line goes to the log at level debug.
async fn read_tail(name: &str, call: &Call, pipe: Option<impl AsyncRead + Unpin>) -> String {
    let mut tail = VecDeque::new();
    let mut line = Vec::new();
    let log = |line: &mut Vec<u8>| {
        if !line.is_empty() {
            let text = String::from_utf8_lossy(line);
            tracing::debug!(handler = name, activity_id = call.activity_id, workflow_id = call.workflow_id, "{text}");
            line.clear();
        }
    };
    if let Some(mut pipe) = pipe {
        let mut chunk = [0; 4096];
        while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
            for byte in &chunk[..read] {
                if *byte == b'\n' || line.len() == MAX_DETAIL {
                    log(&mut line);
                }
                if *byte != b'\n' {
                    line.push(*byte);
                }
            }
            tail.extend(&chunk[..read]);
            tail.drain(..tail.len().saturating_sub(MAX_DETAIL));
        }
    }
    log(&mut line);
    String::from_utf8_lossy(tail.make_contiguous()).into_owned()
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(9)) => "was killed by signal 9, perhaps for want of memory".to_owned(),
        (None, signal) => format!("was ended by signal {}", signal.unwrap_or_default()),
    }
}
