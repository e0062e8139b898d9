//! Helm and kubectl on the files of the project.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use harness::tools::{Tool, Tools};
use serde::Deserialize as _;
use serde_json::Value;

pub const OPERATOR: &str = "charts/temporal-worker-operator";
pub const CRDS: &str = "charts/temporal-worker-operator-crds";
pub const RELEASE: &str = "temporal-worker-operator";

pub static HELM: LazyLock<PathBuf> = LazyLock::new(|| match std::env::var_os("HELM") {
    Some(helm) => helm.into(),
    None => Tools::ensure(&[Tool::Helm]).expect("helm").program("helm").expect("helm").to_owned(),
});

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub fn run(program: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.current_dir(root()).args(arguments).env("HELM", &*HELM);
    command.output().unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

pub fn succeed(program: &Path, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {arguments:?}: {errors}", program.display());
    String::from_utf8(output.stdout).unwrap()
}

pub fn template(chart: &str, values: &Value) -> Output {
    let mut file = tempfile::NamedTempFile::with_suffix(".json").unwrap();
    serde_json::to_writer(&mut file, values).unwrap();
    run(&HELM, &["template", RELEASE, chart, "--namespace", RELEASE, "--values", file.path().to_str().unwrap()])
}

pub fn documents(yaml: &str) -> Vec<Value> {
    let documents = serde_yaml::Deserializer::from_str(yaml).map(|document| Value::deserialize(document).unwrap());
    documents.filter(|document| !document.is_null()).collect()
}

pub fn render(chart: &str, values: &Value) -> Vec<Value> {
    let output = template(chart, values);
    assert!(output.status.success(), "{values}: {}", String::from_utf8_lossy(&output.stderr));
    documents(&String::from_utf8(output.stdout).unwrap())
}

/// The error that the chart answers with, which must be one.
pub fn refusal(chart: &str, values: &Value) -> String {
    let output = template(chart, values);
    assert!(!output.status.success(), "accepted: {values}");
    String::from_utf8(output.stderr).unwrap()
}

pub fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}
