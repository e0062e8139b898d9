//! The programs of handlers: whether they can be started, their start, and what they write to standard error.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use nix::unistd::{AccessFlags, access};
use operator_core::contract::ExecConfig;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use super::limits::Limits;
use super::tree::{MARK, Programs, Tree};
use super::{HandlerError, MAX_DETAIL};

/// Variables of the runtime's own environment that a program gets. Nothing of the connection to Temporal is among them.
const PASSED_ON: [&str; 5] = ["PATH", "HOME", "LANG", "TZ", "TMPDIR"];

/// The program of a handler.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// Where its runs are noted.
    pub(super) programs: Arc<Programs>,
    /// Name of the handler.
    pub(super) name: String,
    /// What is started.
    pub(super) exec: ExecConfig,
    /// What one run may use.
    pub(super) limits: Limits,
}

/// What keeps a handler's program from being started, as field and problem; nothing if it can be.
pub(super) fn problem(exec: &ExecConfig) -> Option<(&'static str, String)> {
    if let Some(dir) = exec.working_dir.as_deref().filter(|dir| !Path::new(dir).is_dir()) {
        return Some((
            "workingDir",
            format!("is {dir:?}, which is not a folder; create it in the handler's image, or correct it"),
        ));
    }
    let program = exec.command.first().filter(|program| !program.is_empty())?;
    let remedy = "put the program into the handler's image, with execute permission, or correct the field";
    let cause = executable(program, exec).err()?;
    Some(("command[0]", format!("is {program:?}, and {cause}; {remedy}")))
}

/// The file that is a program, or why it can't be started.
fn executable(program: &str, exec: &ExecConfig) -> Result<PathBuf, String> {
    match find(program, exec) {
        Some(path) if access(&path, AccessFlags::X_OK).is_ok() => Ok(path),
        Some(path) => Err(format!("{} can't be executed", path.display())),
        None => Err("it is not there".to_owned()),
    }
}

/// The file that is a program: a path, or a name that is looked up in the handler's `PATH`.
fn find(program: &str, exec: &ExecConfig) -> Option<PathBuf> {
    let is_file = |path: &PathBuf| path.is_file();
    if program.contains('/') {
        let folder = exec.working_dir.as_deref().unwrap_or(".");
        return Some(Path::new(folder).join(program)).filter(is_file);
    }
    let path = exec.env.get("PATH").map(OsString::from).or_else(|| std::env::var_os("PATH"))?;
    let files = || std::env::split_paths(&path).map(|folder| folder.join(program)).filter(is_file);
    files().find(|path| access(path, AccessFlags::X_OK).is_ok()).or_else(|| files().next())
}

impl Program {
    /// Starts it, as the leader of a process group of its own and with the variables of its task.
    pub(super) fn start(&self, task: Vec<(String, String)>) -> Result<(Child, Tree), HandlerError> {
        let Self { programs, exec, limits, .. } = self;
        if let Some(dir) = exec.working_dir.as_ref().filter(|dir| !Path::new(dir).is_dir()) {
            return Err(self.not_started("workingDir", dir, "it is not a folder".to_owned()));
        }
        let program = exec.command.first().map_or("", String::as_str);
        // What enters a group could tell it on standard error only.
        let file = executable(program, exec).map_err(|cause| self.not_started("command[0]", program, cause))?;
        let mark = programs.mark();
        let group = programs.group(&mark, *limits).map_err(|error| self.no_group(&error))?;
        let mut command = group.as_ref().map_or_else(|| direct(program, file), |group| group.command(program));
        command
            .args(exec.command.iter().skip(1))
            .env_clear()
            .envs(PASSED_ON.iter().filter_map(|name| std::env::var_os(name).map(|value| (name, value))))
            .envs(&exec.env)
            .env(MARK, &mark)
            .envs(task)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(dir) = &exec.working_dir {
            command.current_dir(dir);
        }
        let child = command.spawn().map_err(|error| self.not_started("command[0]", program, error.to_string()))?;
        let tree = programs.track(mark, child.id(), *limits, group);
        Ok((child, tree))
    }

    fn not_started(&self, field: &'static str, value: &str, cause: String) -> HandlerError {
        HandlerError::NotStarted { handler: self.name.clone(), field, value: value.to_owned(), cause }
    }

    fn no_group(&self, error: &std::io::Error) -> HandlerError {
        let cause = format!("cannot make a control group for its program: {error}");
        HandlerError::System { handler: self.name.clone(), cause }
    }
}

/// Starts a program itself. A file that is looked up here already can be spawned without a copy of this process's memory
/// map (`posix_spawn(3)`), which the standard library makes to look a name up in the program's own `PATH`.
fn direct(program: &str, file: PathBuf) -> Command {
    if program.contains('/') {
        // As it is given: from the folder that the program starts in.
        return Command::new(program);
    }
    let mut command = Command::new(file);
    command.arg0(program);
    command
}

/// The end of a handler's standard error.
#[derive(Debug, Default)]
pub(super) struct Tail(VecDeque<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        self.0.drain(..self.0.len().saturating_sub(MAX_DETAIL));
    }

    /// Its last [`MAX_DETAIL`] bytes.
    pub(super) fn text(&mut self) -> String {
        String::from_utf8_lossy(self.0.make_contiguous()).into_owned()
    }
}

/// Reads `pipe` to its end into `tail`; every line is given to `log`.
pub(super) async fn read_stderr(pipe: Option<impl AsyncRead + Unpin>, tail: &Mutex<Tail>, log: impl Fn(&str)) {
    let mut line = Vec::new();
    let end_line = |line: &mut Vec<u8>| {
        if !line.is_empty() {
            log(&String::from_utf8_lossy(line));
            line.clear();
        }
    };
    if let Some(mut pipe) = pipe {
        let mut chunk = [0; 4096];
        while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
            for byte in &chunk[..read] {
                if *byte == b'\n' || line.len() == MAX_DETAIL {
                    end_line(&mut line);
                }
                if *byte != b'\n' {
                    line.push(*byte);
                }
            }
            tail.lock().push(&chunk[..read]);
        }
    }
    end_line(&mut line);
}

/// How a program ended, in words.
pub(super) fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(9)) => "was killed by signal 9, perhaps for want of memory".to_owned(),
        (None, signal) => format!("was ended by signal {}", signal.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use operator_core::contract::ExecMode;

    use super::*;

    fn exec(command: &str, working_dir: Option<&str>, path: Option<&Path>) -> ExecConfig {
        let env = path.map(|path| ("PATH".to_owned(), path.display().to_string())).into_iter().collect();
        let working_dir = working_dir.map(str::to_owned);
        ExecConfig { command: vec![command.to_owned()], mode: ExecMode::Once, working_dir, env }
    }

    #[test]
    fn a_program_that_can_not_be_started_is_named_with_field_value_and_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("plain");
        std::fs::write(&plain, "text").unwrap();
        let problem = |exec: ExecConfig| problem(&exec).map(|(field, problem)| format!("{field} {problem}"));
        assert_eq!(problem(exec("sh", None, None)), None);
        assert_eq!(problem(exec("/bin/sh", Some("/"), None)), None);
        assert_eq!(problem(exec("bin/sh", Some("/"), None)), None, "from the folder that it starts in");
        for (exec, parts) in [
            (exec("no-such-program", None, None), ["command[0] is \"no-such-program\"", "not there", "image"]),
            (exec("/nowhere/sh", None, None), ["command[0] is \"/nowhere/sh\"", "not there", "image"]),
            (exec("sh", None, Some(folder.path())), ["command[0] is \"sh\"", "not there", "image"]),
            (exec("plain", None, Some(folder.path())), ["command[0] is \"plain\"", "can't be executed", "permission"]),
            (exec("sh", Some("/nowhere"), None), ["workingDir is \"/nowhere\"", "not a folder", "create it"]),
        ] {
            let problem = problem(exec).unwrap();
            assert!(parts.iter().all(|part| problem.contains(part)), "{problem}");
        }
        std::fs::set_permissions(&plain, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(problem(exec("plain", None, Some(folder.path()))), None);
    }

    #[tokio::test]
    async fn a_program_that_was_looked_up_is_called_by_the_name_that_it_was_given() {
        let file = executable("sh", &exec("sh", None, None)).unwrap();
        assert!(file.is_absolute(), "{}", file.display());
        let output = direct("sh", file).args(["-c", "echo $0"]).output().await.unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "sh\n");
    }
}
