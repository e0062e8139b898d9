//! Workers on Temporal's SDKs of other languages, built from their sources by their own package managers.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::cache::{self, Build};
use crate::prerequisites::{ensure_packages, ensure_pip, find_program};
use crate::programs::source_root;

/// Libraries of the TypeScript SDK for other systems than this, which its package brings along.
const FOREIGN: [&str; 4] =
    ["aarch64-apple-darwin", "aarch64-unknown-linux-gnu", "x86_64-apple-darwin", "x86_64-pc-windows-msvc"];

/// Modules of Java that its Worker needs.
const JAVA_MODULES: &str = "java.logging,java.management,java.naming,java.net.http,java.security.jgss,java.sql,\
     jdk.crypto.ec,jdk.httpserver,jdk.management,jdk.unsupported";

/// A Worker in Python: its packages, its sources, and a program that starts it.
pub(super) fn python() -> Result<PathBuf> {
    worker("python", |build, source| {
        ensure_pip()?;
        let packages = build.directory.join("site");
        let install =
            ["-m", "pip", "install", "--require-hashes", "--no-deps", "--only-binary", ":all:", "--no-compile"];
        let mut command = Command::new("python3");
        build.run(
            command.current_dir(source).args(install).args(["-r", "requirements.txt", "--target"]).arg(&packages),
        )?;
        launcher(build, "python-worker", "PYTHONPATH=$here/site exec python3 $here/app/main.py")
    })
}

/// The same in TypeScript.
pub(super) fn typescript() -> Result<PathBuf> {
    worker("typescript", |build, source| {
        need("npm", "npm")?;
        let npm = |arguments: &[&str]| build.run(Command::new("npm").current_dir(source).args(arguments));
        npm(&["ci", "--no-audit", "--no-fund"])?;
        npm(&["run", "build"])?;
        npm(&["prune", "--omit=dev", "--no-audit", "--no-fund"])?;
        for folder in FOREIGN {
            // One that is not there need not go.
            _ = fs::remove_dir_all(source.join("node_modules/@temporalio/core-bridge/releases").join(folder));
        }
        launcher(build, "typescript-worker", "exec node $here/app/dist/main.js")
    })
}

/// The same in Java.
pub(super) fn java() -> Result<PathBuf> {
    worker("java", |build, source| {
        need("javac", "default-jdk-headless")?;
        need("mvn", "maven")?;
        build.run(Command::new("mvn").current_dir(source).args(["--batch-mode", "--quiet", "package"]))?;
        // A runtime of these modules alone, for images; it is a third of the whole.
        let mut command = Command::new("jlink");
        command.args(["--add-modules", JAVA_MODULES, "--strip-debug", "--no-header-files", "--no-man-pages"]);
        build.run(command.arg("--output").arg(build.directory.join("jre")))?;
        launcher(build, "java-worker", "exec $here/jre/bin/java -jar $here/app/target/worker.jar")
    })
}

/// Builds the Worker of a language in a copy of its sources.
fn worker(language: &str, make: impl FnOnce(&Build<'_>, &Path) -> Result<()>) -> Result<PathBuf> {
    let sources = source_root().join("tests/workers").join(language);
    let files = files(&sources)?;
    let mut texts = vec!["how".to_owned(), include_str!("workers.rs").to_owned()];
    for file in &files {
        texts.push(file.display().to_string());
        texts.push(fs::read_to_string(sources.join(file)).with_context(|| format!("read {}", file.display()))?);
    }
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    let title = format!("the Worker in {language}");
    cache::entry(&format!("{language}-worker"), &cache::key(&texts), &title, |build| {
        let copy = build.directory.join("app");
        for file in &files {
            let to = copy.join(file);
            fs::create_dir_all(to.parent().unwrap_or(&copy))?;
            fs::copy(sources.join(file), to)?;
        }
        make(build, &copy)
    })
}

/// Files below a folder, by their paths in it, without what a build by hand leaves.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut open) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(inner) = open.pop() {
        for entry in fs::read_dir(folder.join(&inner)).with_context(|| format!("read {}", folder.display()))? {
            let entry = entry?;
            let path = inner.join(entry.file_name());
            let left = ["node_modules", "dist", "target", "__pycache__"].iter().any(|name| entry.file_name() == *name);
            match entry.file_type()?.is_dir() {
                _ if left => {}
                true => open.push(path),
                false => found.push(path),
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A program that starts a Worker; `$here` is the folder of the build, which is moved once it is finished.
fn launcher(build: &Build<'_>, name: &str, line: &str) -> Result<()> {
    let program = build.directory.join("bin").join(name);
    fs::create_dir_all(build.directory.join("bin"))?;
    fs::write(&program, format!("#!/bin/sh\nhere=$(cd \"$(dirname \"$0\")/..\" && pwd)\n{line}\n"))?;
    Ok(fs::set_permissions(program, Permissions::from_mode(0o755))?)
}

fn need(program: &str, package: &'static str) -> Result<()> {
    if find_program(program).is_some() || (ensure_packages([package].into()).is_ok() && find_program(program).is_some())
    {
        return Ok(());
    }
    Err(MissingLanguage { program: program.to_owned(), package }.into())
}

/// A language is not installed on this machine, and can't be.
#[derive(Debug)]
pub(super) struct MissingLanguage {
    program: String,
    package: &'static str,
}

impl std::fmt::Display for MissingLanguage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { program, package } = self;
        write!(
            f,
            "{program} is missing, which builds a Worker of the tests: install it, on Debian or Ubuntu the package {package}"
        )
    }
}

impl std::error::Error for MissingLanguage {}
