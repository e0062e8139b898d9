//! Starts the programs of a cluster, on the machine itself or inside the cluster's namespaces.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::logs;
use crate::process::{self, ProcessId, wait_until};

/// How long a started program may take to appear in the process list.
const APPEAR_LIMIT: Duration = Duration::from_secs(5);
const END_LIMIT: Duration = Duration::from_secs(20);
/// Runs a command with ten steps more of priority.
const BEFORE_OTHERS: &[&str] = &["nice", "-n", "-10"];

/// A program to start, and where its output goes.
pub struct Launch<'a> {
    /// Name in messages and of the log.
    pub name: &'a str,
    /// Path of the program.
    pub program: &'a Path,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Variables added to the environment.
    pub environment: Vec<(&'a str, OsString)>,
    /// Folder for `<name>.log`.
    pub logs: &'a Path,
    /// Whether it goes before others where the processor is short; inside namespaces alone, which are root's.
    pub goes_first: bool,
}

/// A running program.
pub struct Running {
    name: String,
    log: PathBuf,
    id: ProcessId,
    /// The guard that started the program and ends when it ends; none inside namespaces.
    guard: Option<Child>,
}

/// Where programs run.
pub enum Place<'a> {
    /// On the machine, ended by the kernel when this process ends. `mark` names the cluster in the process list.
    Guarded {
        /// The guard program.
        pause: &'a Path,
        /// Text that names the owner, such as the cluster's state folder.
        mark: &'a str,
    },
    /// Inside a cluster's namespaces, ended with them.
    Inside(&'a Namespace),
}

impl Place<'_> {
    /// Starts a program.
    ///
    /// # Errors
    /// It can't be started, or ends at once.
    pub fn launch(&self, launch: Launch<'_>) -> Result<Running> {
        let log = launch.logs.join(format!("{}.log", launch.name));
        let started = match self {
            Self::Guarded { pause, mark } => launch_guarded(&launch, pause, mark, &log),
            Self::Inside(namespace) => launch_inside(&launch, namespace, &log).map(|id| (id, None)),
        };
        let (id, guard) = started.with_context(|| format!("{} did not start\n{}", launch.name, logs::tail(&log)))?;
        Ok(Running { name: launch.name.to_owned(), log, id, guard })
    }
}

fn launch_guarded(launch: &Launch<'_>, pause: &Path, mark: &str, log: &Path) -> Result<(ProcessId, Option<Child>)> {
    let output = open_log(log)?;
    // Own process group: a Ctrl-C is for us, who then end the programs in order.
    let mut guard = Command::new(pause)
        .args(["-guard", mark, "--"])
        .arg(launch.program)
        .args(&launch.arguments)
        .envs(launch.environment.iter().cloned())
        .stdin(Stdio::piped())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0)
        .spawn()?;
    // Go's runtime starts a child first that ends at once, to see what the kernel can do: it is the guard still.
    let program = launch.program.display().to_string();
    let id = wait_for_child(&mut guard, &program, |pid| process::program(pid).is_some_and(|path| path == program));
    Ok((id?, Some(guard)))
}

/// Starts the program as a child of the namespaces' process 1, so that no process outside waits for it.
fn launch_inside(launch: &Launch<'_>, namespace: &Namespace, log: &Path) -> Result<ProcessId> {
    let output = namespace
        .command(Path::new("sh"))
        .args(["-c", r#"log=$1; shift; "$@" >>"$log" 2>&1 </dev/null & echo $!"#, "sh"])
        .arg(log)
        .args(if launch.goes_first { BEFORE_OTHERS } else { &[] })
        .arg(launch.program)
        .args(&launch.arguments)
        .envs(launch.environment.iter().cloned())
        .process_group(0)
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    let inner: i32 = String::from_utf8_lossy(&output.stdout).trim().parse().context("the shell gave no process id")?;
    let init = namespace.init.pid;
    let mut found = None;
    wait_until(APPEAR_LIMIT, || {
        found = process::children(init).into_iter().find(|pid| process::innermost_id(*pid) == Some(inner));
        found.is_some() || !namespace.init.is_alive()
    });
    let pid = found.context("it ended at once")?;
    Ok(ProcessId::of(pid, &launch.program.display().to_string())?)
}

fn open_log(log: &Path) -> Result<File> {
    File::options().create(true).append(true).open(log).with_context(|| format!("open {}", log.display()))
}

/// The child of a process that we started. Kills the process when there is none.
fn wait_for_child(parent: &mut Child, mark: &str, is_meant: impl Fn(i32) -> bool) -> Result<ProcessId> {
    let mut found = None;
    wait_until(APPEAR_LIMIT, || {
        let child = process::children(parent.id().cast_signed()).into_iter().find(|pid| is_meant(*pid));
        found = child.and_then(|pid| ProcessId::of(pid, mark).ok());
        found.as_ref().is_some_and(ProcessId::is_alive) || !matches!(parent.try_wait(), Ok(None))
    });
    if let Some(id) = found {
        return Ok(id);
    }
    parent.kill().ok();
    bail!("it ended at once: {}", parent.wait()?)
}

impl Running {
    /// Name that it was launched by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The program's own process.
    #[must_use]
    pub fn id(&self) -> &ProcessId {
        &self.id
    }

    /// Path of its log.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Fails, with the end of its log, when the program has ended.
    ///
    /// # Errors
    /// It has ended.
    pub fn check(&self) -> Result<()> {
        ensure!(self.id.is_alive(), "{} ended\n{}", self.name, logs::tail(&self.log));
        Ok(())
    }

    /// Stops the program's execution (SIGSTOP), or lets it go on.
    ///
    /// # Errors
    /// It has ended.
    pub fn set_paused(&self, paused: bool) -> Result<()> {
        let signal = if paused { Signal::SIGSTOP } else { Signal::SIGCONT };
        ensure!(self.id.signal(signal), "{} is not running: can't send {signal}", self.name);
        Ok(())
    }

    /// Asks the program to end (SIGTERM), waits at most `grace`, then kills it.
    ///
    /// # Errors
    /// It can't be ended.
    pub fn stop(&mut self, grace: Duration) -> Result<()> {
        self.id.signal(Signal::SIGCONT);
        self.id.signal(Signal::SIGTERM);
        wait_until(grace, || !self.id.is_alive());
        self.kill()
    }

    /// Kills the program (SIGKILL) and waits for its end.
    ///
    /// # Errors
    /// It can't be ended.
    pub fn kill(&mut self) -> Result<()> {
        ensure!(self.id.kill(END_LIMIT), "{} (process {}) does not end", self.name, self.id.pid);
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            guard.wait()?;
        }
        Ok(())
    }
}

impl Drop for Running {
    /// A guarded program ends with this value.
    fn drop(&mut self) {
        if self.guard.is_some() {
            self.kill().ok();
        }
    }
}

/// Mount, network and process namespaces of one cluster.
///
/// Whatever runs, is mounted, or is set up in the network inside them ends with their process 1: the kernel sees to it,
/// so nothing can be left behind and nothing outside is touched.
pub struct Namespace {
    init: ProcessId,
    wrapper: Option<Child>,
    guard: Option<ChildStdin>,
}

impl Namespace {
    /// Makes new namespaces. They end with this process, until [`Namespace::release`].
    ///
    /// # Errors
    /// The kernel or the container that we are in does not allow it.
    pub fn create(pause: &Path, mark: &str, log: &Path) -> Result<Self> {
        let output = open_log(log)?;
        let mut wrapper = Command::new("unshare")
            .args(["--mount", "--net", "--pid", "--fork", "--mount-proc", "--propagation", "private", "--"])
            .arg(pause)
            .args(["-guard", mark])
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .context("start unshare (package util-linux)")?;
        let init = wait_for_child(&mut wrapper, mark, |_| true).with_context(|| {
            format!("could not make namespaces: in a container, start it with --privileged\n{}", logs::tail(log))
        })?;
        let guard = wrapper.stdin.take();
        Ok(Self { init, wrapper: Some(wrapper), guard })
    }

    /// The namespaces of a running process 1.
    #[must_use]
    pub fn attach(init: ProcessId) -> Self {
        Self { init, wrapper: None, guard: None }
    }

    /// Process 1 of the namespaces.
    #[must_use]
    pub fn init(&self) -> &ProcessId {
        &self.init
    }

    /// The process that waits for process 1 to end, when this process started it.
    ///
    /// # Errors
    /// It has ended.
    pub fn starter(&self) -> Result<Option<ProcessId>> {
        let id = self.wrapper.as_ref().map(|wrapper| ProcessId::of(wrapper.id().cast_signed(), "unshare"));
        Ok(id.transpose()?)
    }

    /// Lets the namespaces live on after this process.
    ///
    /// # Errors
    /// Process 1 has ended.
    pub fn release(&mut self) -> Result<()> {
        if let Some(mut guard) = self.guard.take() {
            std::io::Write::write_all(&mut guard, b"d").context("the cluster's process 1 has ended")?;
            self.wrapper = None;
        }
        Ok(())
    }

    /// A command that runs inside the namespaces.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.pid.to_string(), "--mount", "--net", "--pid", "--"]).arg(program);
        command
    }

    /// Runs a shell script inside the namespaces to its end; returns what it printed. Its first failing command ends it.
    ///
    /// # Errors
    /// A command of it failed: the message holds its standard error.
    pub fn run_script(&self, script: &str) -> Result<String> {
        let output = self.command(Path::new("sh")).args(["-euc", script]).output()?;
        if !output.status.success() {
            bail!("{}\nin the script:\n{script}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Kills process 1, and with it everything inside, and waits for the end.
    ///
    /// # Errors
    /// It does not end.
    pub fn end(&mut self) -> Result<()> {
        if !self.init.kill(END_LIMIT) {
            bail!("process {} (1 of the cluster's namespaces) does not end", self.init.pid);
        }
        self.guard = None;
        if let Some(mut wrapper) = self.wrapper.take() {
            wrapper.wait()?;
        }
        Ok(())
    }
}

impl Drop for Namespace {
    /// Namespaces of this process's own end with this value.
    fn drop(&mut self) {
        if self.guard.is_some()
            && let Err(error) = self.end()
        {
            eprintln!("{error:#}");
        }
    }
}
