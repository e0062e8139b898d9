//! `temporal-worker-operator build-id`: the Build ID that the operator would compute for a manifest.
//!
//! A pipeline knows the Build ID of a version before it applies it. With a WorkerDeployment the defaults of its CRD are
//! applied first, because the operator hashes what the API server stored; anything else is a pod template, hashed as
//! it is.

use std::io::{Read, Write};

use anyhow::{Context, Result, anyhow, bail, ensure};
use operator_core::build_id::{RuntimeInputs, compute, compute_runtime};
use operator_core::{defaults, names};
use serde::{Deserialize, Serialize};
use serde_json::Value;

const KIND: &str = "WorkerDeployment";

/// What `--json` prints.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    #[serde(rename = "buildID")]
    build_id: String,
    /// The child Deployment of the version; unknown without the name of the WorkerDeployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    deployment_name: Option<String>,
}

/// Prints the Build ID of the manifest in `file` (`-` for `stdin`), as text or as
/// `{"buildID": …, "deploymentName": …}`. The manifest is YAML or JSON.
///
/// # Errors
/// When the file can't be read, is neither, holds no fleet or more than one, or holds a value that a pod template
/// can't: the error names file, path, value and remedy.
pub fn run(file: &str, json: bool, stdin: impl Read, mut out: impl Write) -> Result<()> {
    let (source, text) = read(file, stdin)?;
    let answer = documents(&text).and_then(pick).and_then(answer).with_context(|| source.to_owned())?;
    if json {
        serde_json::to_writer(&mut out, &answer)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{}", answer.build_id)?;
    }
    Ok(())
}

/// A file's name for people, and its text.
///
/// # Errors
/// It can't be read.
pub(super) fn read(file: &str, stdin: impl Read) -> Result<(&str, String)> {
    let (source, text) = match file {
        "-" => ("stdin", std::io::read_to_string(stdin)),
        file => (file, std::fs::read_to_string(file)),
    };
    let text = text.with_context(|| format!("{source}: can't be read; name a file, or - for stdin"))?;
    Ok((source, text))
}

/// The documents of a YAML stream, or the one of a JSON file.
///
/// # Errors
/// It is neither.
pub(super) fn documents(text: &str) -> Result<Vec<Value>> {
    if let Ok(document) = serde_json::from_str(text) {
        return Ok(vec![document]);
    }
    let mut documents = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let mut yaml = serde_yaml::Value::deserialize(document).context("is neither YAML nor JSON")?;
        yaml.apply_merge().context("has a merge key (<<) that names no mapping")?;
        let document = serde_json::to_value(yaml).context("has a value that JSON can't hold")?;
        if !document.is_null() {
            documents.push(document);
        }
    }
    Ok(documents)
}

/// The one fleet among the documents, else the only document.
fn pick(mut documents: Vec<Value>) -> Result<Value> {
    let all = documents.len();
    let is_fleet = |document: &Value| document["kind"] == KIND;
    if documents.iter().any(is_fleet) {
        documents.retain(is_fleet);
    }
    let found = documents.len();
    match (documents.pop(), found) {
        (Some(document), 1) => Ok(document),
        (None, _) => bail!("is empty; give a {KIND} or a pod template"),
        (Some(document), _) if is_fleet(&document) => bail!("holds {found} {KIND}s; give one at a time"),
        _ => bail!("holds {all} documents and no {KIND}; give a {KIND} or one pod template"),
    }
}

fn answer(document: Value) -> Result<Answer> {
    match document["kind"].as_str() {
        Some(KIND) => fleet(document),
        Some(kind) if document.pointer("/spec/containers").is_none() => {
            bail!("kind: {kind:?} has no Build ID; give a {KIND}, or a pod template (metadata and spec) alone")
        }
        _ => Ok(Answer { build_id: compute(&document, None)?, deployment_name: None }),
    }
}

fn fleet(mut object: Value) -> Result<Answer> {
    defaults::apply(&schema()?, &mut object);
    let spec = &object["spec"];
    ensure!(
        spec["versioning"] != "Disabled",
        "spec.versioning: \"Disabled\" has no Build ID; leave it out for a fleet that uses Worker Versioning"
    );
    let custom = spec["workerOptions"]["unsafeCustomBuildID"].as_str();
    let template = spec.get("template");
    let build_id = match (spec.get("runtime"), template) {
        (Some(runtime), template) => {
            compute_runtime(RuntimeInputs { runtime, template, unsafe_custom_build_id: custom })
        }
        (None, Some(template)) => compute(template, custom),
        (None, None) => bail!("spec.template: is missing; add the pod template, or spec.runtime"),
    };
    let build_id = build_id.map_err(|error| error.within("spec.template"))?;
    let name = object["metadata"]["name"].as_str();
    let deployment_name = name.map(|name| names::child_deployment_name(name, &build_id));
    Ok(Answer { build_id, deployment_name })
}

/// The schema of the kind's CRD, with its defaults.
fn schema() -> Result<Value> {
    let crd = operator_core::api::crds().into_iter().find(|crd| crd["spec"]["names"]["kind"] == KIND);
    crd.as_ref()
        .and_then(|crd| crd.pointer("/spec/versions/0/schema/openAPIV3Schema"))
        .cloned()
        .ok_or_else(|| anyhow!("this program holds no schema of {KIND}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = "
metadata:
  labels: {app: worker}
spec:
  containers:
  - name: worker
    image: ghcr.io/acme/worker:v1.2.3
    env:
    - {name: TEMPORAL_TASK_QUEUE, value: orders}
    resources:
      requests: {cpu: 100m, memory: 128Mi}
      limits: {memory: 256Mi}
";

    const FLEET: &str = "
apiVersion: temporal.io/v1alpha1
kind: WorkerDeployment
metadata: {name: orders}
spec:
  rollout: {strategy: AllAtOnce}
  sunset: {}
  workerOptions:
    connectionRef: {name: local}
    temporalNamespace: default
  template:
    metadata:
      creationTimestamp: null
      labels: {app: worker}
    spec:
      containers:
      - name: worker
        image: ghcr.io/acme/worker:v1.2.3
        env:
        - {name: TEMPORAL_TASK_QUEUE, value: orders}
        resources:
          requests: {cpu: 100m, memory: 128Mi}
          limits: {memory: 256Mi}
";

    const RUNTIME: &str = "
kind: WorkerDeployment
metadata: {name: mail}
spec:
  runtime:
    taskQueues: [{name: mail}]
    handlers: [{name: send, exec: {command: [send]}}]
    activities: [{type: Send, handler: send}]
";

    fn printed(input: &str, json: bool) -> Result<String> {
        let mut out = Vec::new();
        run("-", json, input.as_bytes(), &mut out)?;
        Ok(String::from_utf8(out)?)
    }

    fn refused(input: &str) -> String {
        format!("{:#}", printed(input, false).unwrap_err())
    }

    #[test]
    fn a_pod_template_is_hashed_as_it_is() {
        assert_eq!(printed(TEMPLATE, false).unwrap(), "v1.2.3-45d8\n");
        assert_eq!(printed(TEMPLATE, true).unwrap(), "{\"buildID\":\"v1.2.3-45d8\"}\n");
    }

    #[test]
    fn a_fleet_tells_its_child_too() {
        assert_eq!(printed(FLEET, false).unwrap(), "v1.2.3-45d8\n");
        let json = "{\"buildID\":\"v1.2.3-45d8\",\"deploymentName\":\"orders-v1-2-3-45d8\"}\n";
        assert_eq!(printed(FLEET, true).unwrap(), json);
    }

    #[test]
    fn json_is_read_too() {
        let yaml: Value = serde_yaml::from_str(FLEET).unwrap();
        let json = serde_json::to_string_pretty(&yaml).unwrap().replace("  ", "\t");
        assert_eq!(printed(&json, false).unwrap(), "v1.2.3-45d8\n");
    }

    #[test]
    fn defaults_of_the_crd_count_in_a_fleet_and_not_in_a_template() {
        let ports = |protocol: &str| FLEET.to_owned() + "        ports: [{containerPort: 8080" + protocol + "}]\n";
        assert_eq!(printed(&ports(""), false).unwrap(), printed(&ports(", protocol: TCP"), false).unwrap());
        let ports = |protocol: &str| TEMPLATE.to_owned() + "    ports: [{containerPort: 8080" + protocol + "}]\n";
        assert_ne!(printed(&ports(""), false).unwrap(), printed(&ports(", protocol: TCP"), false).unwrap());
    }

    #[test]
    fn a_runtime_fleet_needs_no_template() {
        let build_id = printed(RUNTIME, false).unwrap();
        assert!(build_id.starts_with("runtime-"), "{build_id}");
        let slots = RUNTIME.replace("{name: mail}]", "{name: mail, maxConcurrentActivities: 99}]");
        assert_eq!(printed(&slots, false).unwrap(), build_id);
        let command = RUNTIME.replace("[send]", "[send, --fast]");
        assert_ne!(printed(&command, false).unwrap(), build_id);
    }

    #[test]
    fn the_operator_computes_the_same() {
        for manifest in [FLEET, RUNTIME] {
            let mut object: Value = serde_yaml::from_str(manifest).unwrap();
            object["apiVersion"] = "temporal.io/v1alpha1".into();
            object["spec"]["workerOptions"]["connectionRef"]["name"] = "local".into();
            object["spec"]["workerOptions"]["temporalNamespace"] = "default".into();
            defaults::apply(&schema().unwrap(), &mut object);
            let object: operator_core::api::WorkerDeployment = serde_json::from_value(object).unwrap();
            let template = object.spec.template.as_ref().map(|template| template.value()).unwrap_or_default();
            let computed = operator_core::fleet::build_id_of(&object, &template).unwrap();
            assert_eq!(printed(manifest, false).unwrap().trim(), computed);
        }
    }

    #[test]
    fn a_custom_build_id_wins() {
        let custom =
            FLEET.replace("temporalNamespace: default", "temporalNamespace: default\n    unsafeCustomBuildID: v9");
        assert_eq!(printed(&custom, true).unwrap(), "{\"buildID\":\"v9\",\"deploymentName\":\"orders-v9\"}\n");
    }

    #[test]
    fn the_fleet_is_found_among_other_documents() {
        let connection = "kind: Connection\nspec: {hostPort: 'temporal:7233'}\n";
        let stream = format!("{connection}---\n{FLEET}---\n# nothing\n");
        assert_eq!(printed(&stream, false).unwrap(), "v1.2.3-45d8\n");
        assert_eq!(refused(&format!("{FLEET}---\n{FLEET}")), "stdin: holds 2 WorkerDeployments; give one at a time");
        assert!(
            refused(&format!("{connection}---\n{connection}")).contains("holds 2 documents and no WorkerDeployment")
        );
    }

    #[test]
    fn yaml_as_kubectl_reads_it() {
        let volumes =
            |mode: &str| format!("{TEMPLATE}  volumes: [{{name: v, configMap: {{name: c, defaultMode: {mode}}}}}]\n");
        assert_eq!(printed(&volumes("0644"), false).unwrap(), printed(&volumes("420"), false).unwrap());
        let merged = TEMPLATE.replace("metadata:", "x-labels: &labels {app: worker}\nmetadata:");
        let merged = merged.replace("labels: {app: worker}\nspec", "labels: {<<: *labels}\nspec");
        assert_eq!(printed(&merged, false).unwrap(), "v1.2.3-45d8\n");
    }

    #[test]
    fn errors_name_file_path_value_and_remedy() {
        assert_eq!(
            refused(&FLEET.replace("256Mi", "abc")),
            "stdin: spec.template.spec.containers[0].resources.limits.memory: \"abc\" is not a quantity; write a number \
             with an optional unit, such as 500m, 2 or 1Gi"
        );
        assert_eq!(
            refused(&TEMPLATE.replace("value: orders", "value: 1")),
            "stdin: spec.containers[0].env[0].value: 1 is not a string; put it in quotes"
        );
        let missing = format!("{:#}", run("/nonexistent/fleet.yaml", false, &b""[..], Vec::new()).unwrap_err());
        assert!(
            missing.starts_with("/nonexistent/fleet.yaml: can't be read; name a file, or - for stdin"),
            "{missing}"
        );
    }

    #[test]
    fn what_has_no_build_id_is_refused() {
        assert_eq!(refused(""), "stdin: is empty; give a WorkerDeployment or a pod template");
        assert!(refused("a: [").starts_with("stdin: is neither YAML nor JSON"));
        assert!(refused("kind: Deployment\nspec: {template: {}}").contains("kind: \"Deployment\" has no Build ID"));
        assert!(refused("kind: WorkerDeployment\nspec: {}").contains("spec.template: is missing"));
        assert!(refused("kind: WorkerDeployment\nspec: {versioning: Disabled}").contains("leave it out"));
    }
}
