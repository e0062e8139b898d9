//! `exec` handlers that run once: a program for each task.

use parking_lot::Mutex;
use temporalio_common::protos::temporal::api::common::v1::Payload;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::program::{self, Program, describe};
use super::{Call, HandlerError, MAX_OUTPUT, begin, failure};
use crate::payload;

pub(super) async fn run(program: &Program, call: &Call) -> Result<Payload, HandlerError> {
    let name = program.name.as_str();
    let system = |what: &str, error: std::io::Error| HandlerError::System {
        handler: name.to_owned(),
        cause: format!("{what}: {error}"),
    };
    let exceeded = |limit| HandlerError::LimitExceeded { handler: name.to_owned(), limit };
    let (mut child, mut tree) = program.start(call.environment())?;
    let watch = tree.watch();
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
        let held = watch.held();
        // Whatever the program left behind would hold its pipes open, and outlive its task.
        tree.ended();
        status.map(|status| (status, held))
    };
    let output = async {
        let output = read_limited(stdout).await.map_err(|error| system("cannot read its standard output", error))?;
        output.ok_or(HandlerError::TooLarge { handler: name.to_owned(), limit: MAX_OUTPUT })
    };
    let tail = Mutex::default();
    let log = |line: &str| {
        tracing::debug!(handler = name, activity_id = call.activity_id, workflow_id = call.workflow_id, "{line}");
    };
    let work = async {
        let ((), status, ()) = tokio::join!(feed, end, program::read_stderr(stderr, &tail, log));
        status.map_err(|error| system("cannot wait for its end", error))
    };
    // The first error returns, which drops the tree, which kills the program.
    let (output, (status, held)) = tokio::select! {
        ended = async { tokio::try_join!(output, work) } => ended?,
        limit = watch.exceeded() => return Err(exceeded(limit)),
    };
    if let Some(limit) = held {
        return Err(exceeded(limit));
    }
    if !status.success() {
        return Err(failed(name, &output, describe(status), tail.lock().text()));
    }
    payload::result(&output).map_err(|problem| HandlerError::NotJson {
        handler: name.to_owned(),
        problem,
        begin: begin(&output),
    })
}

/// The failure that a program chose, or that of its end.
fn failed(name: &str, output: &[u8], end: String, stderr: String) -> HandlerError {
    let exited = |end| HandlerError::Exited { handler: name.to_owned(), end, stderr };
    match failure::in_output(output) {
        Some(Ok(chosen)) => HandlerError::Chosen(chosen),
        Some(Err(problem)) => {
            exited(format!("{end}, and its standard output holds a failure that can't be read ({problem})"))
        }
        None => exited(end),
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
