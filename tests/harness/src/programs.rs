//! The project's own programs, always built from the tree, and the images that are made of them.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::images::{self, ImageSpec};

/// Image of the operator, with the entry point `/temporal-worker-operator`.
pub const OPERATOR_IMAGE: &str = "temporal-worker-operator:dev";
/// Environment that the operator's image sets.
pub const OPERATOR_ENVIRONMENT: (&str, &str) = ("MALLOC_ARENA_MAX", "1");
/// Image of the shared worker runtime, with the entry point `/worker-runtime`.
pub const RUNTIME_IMAGE: &str = "temporal-worker-runtime:dev";
/// The runtime's image with a team's program on top: `/thumbnail`, and the pictures that it reads.
pub const HANDLERS_IMAGE: &str = "pictures-handlers:dev";
/// Image of the example Worker in Rust, a Workflow and its check.
pub const WORKER_IMAGE: &str = "pictures-worker:dev";
/// Folder of the pictures in [`HANDLERS_IMAGE`].
pub const PICTURES_FOLDER: &str = "/pictures";
/// How many pictures there are.
pub const PICTURES: u32 = 12;

/// Program of the preStop hook of Workers behind a sidecar, in the runtime's image.
const HOOK_PROGRAM: &str = "await-drain";

/// How programs are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// Quick to build, slow to run.
    Dev,
    /// As users get them.
    Release,
}

impl Profile {
    /// The profile that this very program was built in: its programs and dependencies are there already.
    #[must_use]
    pub const fn own() -> Self {
        if cfg!(debug_assertions) { Self::Dev } else { Self::Release }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Release => "release",
        }
    }
}

/// Programs that are built and ready to run.
#[derive(Clone, Debug)]
pub struct Programs {
    executables: BTreeMap<String, PathBuf>,
}

/// The folder of the sources.
#[must_use]
pub fn source_root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap_or(root)
}

impl Programs {
    /// Builds the operator, the worker runtime and the example Workers, with one run of cargo that shows its progress
    /// on standard error. Takes minutes the first time. Cargo is ended when the future is dropped.
    ///
    /// # Errors
    /// Cargo can't be started or fails.
    pub async fn build(profile: Profile) -> Result<Self> {
        // The whole workspace: another choice of packages means other features, and building everything again.
        let everything = ["--workspace", "--bins", "--examples", "--profile", profile.name()];
        let mut executables = cargo_build(&everything, |_| {}).await?;
        // This one runs in whatever image a Worker has.
        let target = source_root().join("target/static");
        let hook = ["--package", "enter-group", "--bin", HOOK_PROGRAM, "--profile", profile.name()];
        let linked = cargo_build(&hook, |command| {
            command.env("RUSTFLAGS", "-C target-feature=+crt-static").env("CARGO_TARGET_DIR", target);
        });
        executables.extend(linked.await?);
        Ok(Self { executables })
    }

    /// Builds the operator whose borders between tenants can be taken down, in a folder of its own: nothing else has its feature.
    ///
    /// # Errors
    /// As [`Programs::build`].
    pub async fn build_breach() -> Result<Self> {
        let feature = ["--features", "breach", "--profile", Profile::Dev.name()];
        let arguments = [&["--package", "temporal-worker-operator", "--bins"][..], &feature].concat();
        let target = source_root().join("target/breach");
        let built = cargo_build(&arguments, |command| {
            command.env("CARGO_TARGET_DIR", target);
        });
        Ok(Self { executables: built.await? })
    }

    /// A program that was built in the profile that images have it in, beside the program that runs now.
    ///
    /// # Errors
    /// It is not there.
    pub fn of_image(name: &str, profile: &str) -> Result<Self> {
        let own = env::current_exe()?;
        let program =
            own.ancestors().nth(2).context("this program lies in no folder of cargo's")?.join(profile).join(name);
        ensure!(program.is_file(), "{} is not there; build it in profile {profile}", program.display());
        Ok(Self { executables: [(name.to_owned(), program)].into() })
    }

    /// Path of a program: `temporal-worker-operator`, `worker-runtime`, `pictures` or `thumbnail`.
    ///
    /// # Errors
    /// There is no such program.
    pub fn program(&self, name: &str) -> Result<&Path> {
        self.executables.get(name).map(PathBuf::as_path).with_context(|| format!("cargo built no program {name}"))
    }

    /// The operator's image.
    ///
    /// # Errors
    /// The program is missing.
    pub fn operator_image(&self) -> Result<ImageSpec> {
        let name = "temporal-worker-operator";
        let image = ImageSpec::new(OPERATOR_IMAGE, ["/temporal-worker-operator"]);
        let (variable, value) = OPERATOR_ENVIRONMENT;
        Ok(image.env(variable, value).program(self.program(name)?, "/temporal-worker-operator"))
    }

    /// The image of the shared worker runtime, under a name of its own when more is added to it.
    ///
    /// # Errors
    /// The program is missing.
    pub fn runtime_image(&self, name: &str) -> Result<ImageSpec> {
        let programs = ["worker-runtime", "enter-group", HOOK_PROGRAM];
        programs.into_iter().try_fold(ImageSpec::new(name, ["/worker-runtime"]), |image, program| {
            Ok(image.program(self.program(program)?, &format!("/{program}")))
        })
    }

    /// The image that a team makes from the runtime's: with its program, and pictures drawn into `folder`.
    ///
    /// # Errors
    /// A program is missing, or the pictures can't be drawn.
    pub fn handlers_image(&self, folder: &Path) -> Result<ImageSpec> {
        let thumbnail = self.program("thumbnail")?;
        let output = Command::new(thumbnail).arg("--make-pictures").arg(folder).arg(PICTURES.to_string()).output()?;
        ensure!(output.status.success(), "draw pictures: {}", String::from_utf8_lossy(&output.stderr).trim());
        let image = self.runtime_image(HANDLERS_IMAGE)?.program(thumbnail, "/thumbnail");
        Ok(image.tree(folder, PICTURES_FOLDER))
    }

    /// The image of the example Worker.
    ///
    /// # Errors
    /// The program is missing.
    pub fn worker_image(&self) -> Result<ImageSpec> {
        Ok(ImageSpec::new(WORKER_IMAGE, ["/pictures"]).program(self.program("pictures")?, "/pictures"))
    }
}

/// Builds images and loads them into the cluster's node.
///
/// # Errors
/// An image can't be built or loaded.
pub fn load(cluster: &Cluster, images: &[ImageSpec]) -> Result<()> {
    let scratch = tempfile::tempdir_in(cluster.state_path())?;
    for image in images {
        let archive = scratch.path().join("image.tar");
        images::build(image, &archive)?;
        cluster.load_image(&archive)?;
    }
    Ok(())
}

/// Whether cargo or the test runner sets a variable for a test. Dependencies whose build looks at such a one would be built
/// again, and everything that stands on them: minutes.
fn is_of_a_test(variable: &str) -> bool {
    variable == "RUSTC_BOOTSTRAP" || ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|start| variable.starts_with(start))
}

/// Builds with cargo, and gives back the programs by name.
async fn cargo_build(arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Result<BTreeMap<String, PathBuf>> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(source_root())
        .arg("build")
        .args(arguments)
        .args(["--message-format", "json-render-diagnostics"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    for variable in env::vars_os().map(|(name, _)| name).filter(|name| is_of_a_test(&name.to_string_lossy())) {
        command.env_remove(variable);
    }
    prepare(&mut command);
    let child = tokio::process::Command::from(command).kill_on_drop(true).spawn().context("start cargo")?;
    let output = child.wait_with_output().await?;
    ensure!(output.status.success(), "cargo could not build the programs: {}", output.status);
    Ok(executables(&String::from_utf8_lossy(&output.stdout)))
}

/// Paths of the programs in cargo's messages, by the names of their targets.
fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let programs = messages.filter_map(|message| {
        let path = message["executable"].as_str()?;
        Some((message["target"]["name"].as_str()?.to_owned(), path.into()))
    });
    programs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_cargos_messages_by_their_target() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"operator_core","kind":["lib"]},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"thumbnail","kind":["example"]},"executable":"/t/thumbnail"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(executables(messages), [("thumbnail".to_owned(), PathBuf::from("/t/thumbnail"))].into());
    }
}
