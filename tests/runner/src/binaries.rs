//! Builds the tests of the workspace, and lists what was built.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

/// It stands below `tests/`, and starts nothing.
const SIMULATOR: &str = "scale-sim";
/// It holds what is read of Workers beside the server's record, to the second: nothing else may keep the cores.
const MEASURES: &str = "temporal_signals";
/// Tests that wait most of their time and run at a time.
const WAITING: usize = 3;

/// What the tests of a binary take of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Its cores: they compute.
    Cores,
    /// Little: they have a Temporal server of their own, and wait for its start and for time limits.
    Time,
    /// A part of it: they have control planes without pods, or a cluster of their own for one story, and wait for much of their time.
    Part,
    /// All of it: they start many pods or clusters, or measure.
    Machine,
}

impl Takes {
    /// How many tests run at a time; `None` for as many as there are cores.
    pub const fn at_a_time(self) -> Option<usize> {
        match self {
            Self::Cores => None,
            Self::Time => Some(WAITING),
            Self::Part | Self::Machine => Some(1),
        }
    }
}

/// One test binary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Package that it belongs to.
    pub package: String,
    /// Name of the library, program, or file below `tests/`.
    pub name: String,
    /// Folder of the package.
    pub directory: PathBuf,
    /// A file below the package's `tests/`, not the unit tests of a library or program.
    pub integration: bool,
    /// The library of its package.
    pub library: bool,
    /// The built file.
    pub executable: PathBuf,
}

impl Target {
    /// Whether it is one of the tests of the whole, below `tests/`.
    pub fn needs_machine(&self) -> bool {
        self.integration && self.directory.parent().is_some_and(|parent| parent.ends_with("tests"))
    }

    /// What its tests take of the machine.
    pub fn takes(&self) -> Takes {
        let is_one_of = |prefixes: [&str; 2]| prefixes.iter().any(|prefix| self.name.starts_with(prefix));
        if !self.needs_machine() || self.package == SIMULATOR {
            Takes::Cores
        } else if is_one_of(["runtime_", "temporal_"]) && self.name != MEASURES {
            Takes::Time
        } else if self.package == "harness" || is_one_of(["api_", "e2e_takeover"]) {
            Takes::Part
        } else {
            Takes::Machine
        }
    }

    /// What the names of its tests begin with, such as `operator-core::scaling`.
    pub fn title(&self) -> String {
        if self.library { self.package.clone() } else { format!("{}::{}", self.package, self.name) }
    }
}

/// `cargo test` of the whole workspace in the profile of the programs, so that no dependency is compiled twice and the
/// programs under test are those that are shipped.
pub fn cargo_test(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).args(["test", "--locked", "--release", "--workspace"]);
    command
}

/// Builds every test of the workspace.
///
/// # Errors
/// Something does not compile; the compiler has said what on standard error.
pub fn build(root: &Path) -> Result<Vec<Target>> {
    let output = cargo_test(root)
        .args(["--no-run", "--message-format=json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()
        .context("start cargo: install Rust from https://rustup.rs")?;
    ensure!(output.status.success(), "the tests do not compile");
    let mut targets = parse(&String::from_utf8(output.stdout)?)?;
    if targets.is_empty() {
        bail!("cargo built no test");
    }
    targets.sort_by_key(|target| (target.needs_machine(), target.title()));
    Ok(targets)
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    package_id: Option<String>,
    manifest_path: Option<PathBuf>,
    executable: Option<PathBuf>,
    target: Option<Built>,
    profile: Option<Profile>,
}

#[derive(Deserialize)]
struct Built {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

fn parse(messages: &str) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for line in messages.lines() {
        let message: Message = serde_json::from_str(line).with_context(|| format!("cargo printed {line:?}"))?;
        let Message {
            package_id: Some(id),
            manifest_path: Some(manifest),
            executable: Some(executable),
            target: Some(built),
            profile: Some(Profile { test: true }),
            ..
        } = message
        else {
            ensure!(message.reason != "build-finished" || !line.contains("false"), "the tests do not compile");
            continue;
        };
        let has = |kind: &str| built.kind.iter().any(|own| own == kind);
        targets.push(Target {
            package: package_name(&id, &manifest),
            integration: has("test"),
            library: has("lib"),
            name: built.name,
            directory: manifest.parent().unwrap_or(Path::new("/")).to_owned(),
            executable,
        });
    }
    Ok(targets)
}

/// `path+file:///r/tests/e2e#0.1.0` and `path+file:///r/operator/core#operator-core@0.1.0`: cargo leaves the name out
/// when the folder is called the same.
fn package_name(id: &str, manifest: &Path) -> String {
    let named = id.rsplit_once('#').and_then(|(_, end)| end.split_once('@')).map(|(name, _)| name.to_owned());
    let folder = || manifest.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    named.unwrap_or_else(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_binaries_are_found_among_the_messages_of_cargo() {
        let messages = [
            r#"{"reason":"compiler-artifact","package_id":"registry+x#serde@1.0.1","manifest_path":"/c/Cargo.toml","executable":null,"target":{"name":"serde","kind":["lib"]},"profile":{"test":false}}"#,
            r#"{"reason":"compiler-artifact","package_id":"path+file:///r/tests/harness#0.1.0","manifest_path":"/r/tests/harness/Cargo.toml","executable":"/t/dev-cluster","target":{"name":"dev-cluster","kind":["bin"]},"profile":{"test":false}}"#,
            r#"{"reason":"compiler-artifact","package_id":"path+file:///r/tests/harness#0.1.0","manifest_path":"/r/tests/harness/Cargo.toml","executable":"/t/a","target":{"name":"control_plane","kind":["test"]},"profile":{"test":true}}"#,
            r#"{"reason":"compiler-artifact","package_id":"path+file:///r/operator/core#operator-core@0.1.0","manifest_path":"/r/operator/core/Cargo.toml","executable":"/t/b","target":{"name":"operator_core","kind":["lib"]},"profile":{"test":true}}"#,
            r#"{"reason":"build-finished","success":true}"#,
        ];
        let targets = parse(&messages.join("\n")).unwrap();
        let titles: Vec<_> = targets.iter().map(Target::title).collect();
        assert_eq!(titles, ["harness::control_plane", "operator-core"]);
        assert_eq!(targets.iter().map(Target::needs_machine).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn clusters_take_the_machine_api_servers_a_part_and_tests_with_a_server_of_their_own_little_of_it() {
        let takes = |package: &str, name: &str, directory: &str| {
            let (package, name, directory) = (package.into(), name.into(), directory.into());
            Target { package, name, directory, integration: true, ..Target::default() }.takes()
        };
        assert_eq!(takes("harness", "cluster", "/r/tests/harness"), Takes::Part);
        assert_eq!(takes("e2e", "e2e_cluster", "/r/tests/e2e"), Takes::Machine);
        assert_eq!(takes("e2e", "api_kinds", "/r/tests/e2e"), Takes::Part);
        assert_eq!(takes("e2e", "e2e_takeover", "/r/tests/e2e"), Takes::Part);
        assert_eq!(takes("e2e", "runtime_tls", "/r/tests/e2e"), Takes::Time);
        assert_eq!(takes("e2e", "temporal_poller", "/r/tests/e2e"), Takes::Time);
        assert_eq!(takes("e2e", "temporal_signals", "/r/tests/e2e"), Takes::Machine);
        assert_eq!(takes("scale-sim", "marks", "/r/tests/simulator"), Takes::Cores);
        assert_eq!(takes("temporal-worker-operator", "temporal_doubles", "/r/operator"), Takes::Cores);
    }
}
