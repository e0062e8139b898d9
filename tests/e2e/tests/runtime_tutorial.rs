//! The tutorial, as it is written: its files are written, its commands run, and they print what it says.

mod runtime_support;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use runtime_support::{SOON, Server, program, project, wait_for};

/// Address of the server in the tutorial.
const ADDRESS: &str = "127.0.0.1:7233";

/// A block of code: what stands behind its fence, and its lines.
struct Block {
    info: String,
    text: String,
}

fn blocks(document: &str) -> Vec<Block> {
    let mut parts = document.split("```").map(str::to_owned);
    let mut blocks = Vec::new();
    while let (Some(_), Some(block)) = (parts.next(), parts.next()) {
        let (info, text) = block.split_once('\n').expect("a fence ends its line");
        blocks.push(Block { info: info.to_owned(), text: text.to_owned() });
    }
    blocks
}

/// A folder, and how commands run in it.
struct Shell<'a> {
    folder: &'a Path,
    server: &'a Server,
}

impl Shell<'_> {
    fn command(&self, script: &str) -> Result<Command> {
        let programs = [program("worker-runtime"), self.server.temporal.cli()?.get_program().into()];
        let folders = programs.iter().filter_map(|program| program.parent().map(Path::to_owned));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(folders.chain(std::env::split_paths(&path)))?;
        let mut command = Command::new("bash");
        command
            .args(["-ec", &script.replace(ADDRESS, &self.server.temporal.host_port())])
            .current_dir(self.folder)
            .env("PATH", path)
            .env("WORKER_RUNTIME_METRICS_BIND_ADDRESS", "127.0.0.1:0")
            .env("WORKER_RUNTIME_HEALTH_PROBE_BIND_ADDRESS", "127.0.0.1:0");
        Ok(command)
    }

    fn run(&self, script: &str) -> Result<(bool, String)> {
        let Output { status, stdout, stderr } = self.command(script)?.output()?;
        Ok((status.success(), String::from_utf8([stdout, stderr].concat())?))
    }
}

/// Processes in the background; killed with the test.
struct Background(Vec<Child>);

impl Drop for Background {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[tokio::test]
async fn it_works_as_it_is_written() -> Result<()> {
    let (server, folder) = (Server::start().await?, tempfile::tempdir()?);
    let shell = Shell { folder: folder.path(), server: &server };
    let document = std::fs::read_to_string(project().join("docs/tutorial.md"))?;
    let (mut background, mut expected) = (Background(Vec::new()), 0);
    let blocks = blocks(&document);
    for (number, Block { info, text }) in blocks.iter().enumerate() {
        let output = blocks.get(number + 1).filter(|next| next.info == "text").map_or("", |next| next.text.trim());
        match info.split_once(' ').unwrap_or((info, "")) {
            // The test has a server of its own.
            ("sh", "&") if text.contains("server start-dev") => {}
            ("sh", "&") => {
                let script = text.replace("worker-runtime run", "exec worker-runtime run");
                background.0.push(shell.command(&script)?.stderr(Stdio::null()).spawn()?);
            }
            ("sh", how) => {
                let matches = async || {
                    let (worked, printed) = shell.run(text).expect("bash");
                    let right = worked == (how != "fails") && printed.contains(output);
                    assert!(right || how == "until", "{text}{printed}");
                    right.then_some(())
                };
                wait_for(text, SOON.max(Duration::from_secs(60)), matches).await;
                ensure!(!output.is_empty(), "the tutorial does not say what this prints: {text}");
                expected += 1;
            }
            ("text", _) => {}
            (_, name) => {
                ensure!(!name.is_empty(), "a block has no file name: {text}");
                std::fs::write(folder.path().join(name), text).context(name.to_owned())?;
            }
        }
    }
    ensure!(expected == 4 && background.0.len() == 1, "the tutorial has other commands than this test knows");
    Ok(())
}
