//! The sample manifests against a real API server with the generated kinds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::ControlPlane;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, ValidationDirective};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use kube::{Client, ResourceExt as _};
use serde::Deserialize as _;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The YAML files of a folder, by name.
fn manifests(directory: &str) -> Vec<(String, Vec<Value>)> {
    let files = std::fs::read_dir(root().join(directory)).unwrap().map(|file| file.unwrap().path());
    let yaml = files.filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let documents = serde_yaml::Deserializer::from_str(&text).map(|document| Value::deserialize(document).unwrap());
        (path.file_name().unwrap().to_string_lossy().into_owned(), documents.collect())
    };
    yaml.map(read).collect()
}

/// Server-side apply that refuses what the schema does not have, instead of dropping it.
fn strictly() -> PatchParams {
    PatchParams { field_validation: Some(ValidationDirective::Strict), ..PatchParams::apply("samples").force() }
}

async fn install_kinds(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for (file, crds) in manifests("crds") {
        for crd in crds {
            let name = crd["metadata"]["name"].as_str().unwrap().to_owned();
            api.patch(&name, &strictly(), &Patch::Apply(&crd)).await.unwrap_or_else(|error| panic!("{file}: {error}"));
            let established = await_condition(api.clone(), &name, is_crd_established());
            tokio::time::timeout(Duration::from_secs(30), established).await.expect(&name).expect(&name);
        }
    }
}

fn api_of(client: &Client, manifest: &Value) -> Api<DynamicObject> {
    let (group, version) = manifest["apiVersion"].as_str().unwrap().split_once('/').unwrap();
    let kind = GroupVersionKind::gvk(group, version, manifest["kind"].as_str().unwrap());
    Api::namespaced_with(client.clone(), "default", &ApiResource::from_gvk(&kind))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_is_accepted_and_nothing_of_it_is_dropped() {
    let control_plane = ControlPlane::start().await.unwrap();
    let client = control_plane.client();
    install_kinds(&client).await;

    let samples = manifests("deploy/samples");
    let connections: BTreeSet<&str> = samples
        .iter()
        .flat_map(|(_, documents)| documents)
        .filter(|document| document["kind"] == "Connection")
        .map(|document| document["metadata"]["name"].as_str().unwrap())
        .collect();
    let mut accepted = 0;
    for (file, documents) in &samples {
        for document in documents {
            let name = document["metadata"]["name"].as_str().unwrap();
            let applied = api_of(&client, document).patch(name, &strictly(), &Patch::Apply(document)).await;
            let applied = applied.unwrap_or_else(|error| panic!("{file}: {name}: {error}"));
            assert_eq!(applied.name_any(), name);
            assert_within(&document["spec"], &applied.data["spec"], &format!("{file}: {name}: spec"));
            if document["kind"] == "WorkerDeployment" {
                let connection = document["spec"]["workerOptions"]["connectionRef"]["name"].as_str().unwrap();
                assert!(connections.contains(connection), "{file}: no sample is the Connection {connection}");
            }
            accepted += 1;
        }
    }
    assert!(accepted >= 9, "only {accepted} samples");
    control_plane.stop().unwrap();
}

/// Everything that the manifest says is stored as it was said; the server adds defaults.
fn assert_within(said: &Value, stored: &Value, at: &str) {
    match (said, stored) {
        (Value::Object(said), Value::Object(stored)) => {
            for (key, value) in said {
                let stored = stored.get(key).unwrap_or_else(|| panic!("{at}.{key} was dropped"));
                assert_within(value, stored, &format!("{at}.{key}"));
            }
        }
        (Value::Array(said), Value::Array(stored)) => {
            assert_eq!(said.len(), stored.len(), "{at}");
            for (index, (said, stored)) in said.iter().zip(stored).enumerate() {
                assert_within(said, stored, &format!("{at}[{index}]"));
            }
        }
        _ => assert_eq!(said, stored, "{at}"),
    }
}
