//! What temporal-worker-controller reads of a fleet when it comes back, and whether it would go on with what is there.
//!
//! | it reads | and without that |
//! |---|---|
//! | the label `temporal.io/deployment-name` of Deployments, by which it caches them | it sees none |
//! | their controlling owner's version, kind and name, and the label `temporal.io/build-id` | they belong to no fleet |
//! | the Build ID of the manifest's template, which has to be a Deployment's | it rolls out anew |
//! | the hash of the Connection on the pods | it replaces them |
//! | the hash of the template on the pods, beside a Build ID of the user's own | it replaces them |
//! | `spec.replicas` of the manifest, and whether the target has any | it scales |
//! | the manager's identity on the server | it can't route |
//! | the finalizer of its own, and no other one | it adds it; others keep what is deleted for ever |

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::ListParams;
use operator_core::api::Connection;
use operator_core::build_id;
use operator_core::names::{
    BUILD_ID_LABEL, CONNECTION_SPEC_HASH_ANNOTATION, DELETE_PROTECTION_FINALIZER, DEPLOYMENT_NAME_LABEL,
    POD_TEMPLATE_SPEC_HASH_ANNOTATION,
};
use serde_json::{Value, json};

use super::FLEET;
use crate::ground::{CONNECTION, Ground};

/// A fleet, and all that is read beside it.
#[derive(Clone, Debug)]
pub struct Sight {
    /// The WorkerDeployment.
    pub fleet: Value,
    /// Its Connection.
    pub connection: Value,
    /// The Deployments of its namespace.
    pub deployments: Vec<Value>,
    /// The manager of its Worker Deployment on the server; empty without one.
    pub manager: String,
}

impl Sight {
    /// Of a fleet in the cluster.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn of(ground: &Ground, manager: String) -> Result<Self> {
        let deployments = ground.api::<Deployment>().list(&ListParams::default()).await?.items;
        Ok(Self {
            fleet: serde_json::to_value(ground.fleet(FLEET).await?)?,
            connection: serde_json::to_value(ground.api::<Connection>().get(CONNECTION).await?)?,
            deployments: deployments.iter().map(serde_json::to_value).collect::<Result<_, _>>()?,
            manager,
        })
    }

    /// Fails unless a controller that computes `target` as the Build ID of the manifest, and that is known to the server by
    /// `identity`, would go on without a write to a Deployment. Gives back the names of the Deployments that it finds.
    ///
    /// # Errors
    /// What it would not find, or do.
    pub fn goes_on(&self, target: &str, identity: &str) -> Result<Vec<String>> {
        let found: Vec<_> = self.deployments.iter().filter(|child| self.owns(child)).collect();
        for child in &found {
            self.leaves(child).with_context(|| format!("Deployment {}", child["metadata"]["name"]))?;
        }
        let runs = |child: &&&Value| child["metadata"]["labels"][BUILD_ID_LABEL] == target;
        let child = found.iter().find(runs).with_context(|| format!("no Deployment of {target}: it rolls out anew"))?;
        self.keeps(child).with_context(|| format!("the target {target}"))?;
        self.says(target, child)?;
        for object in [&self.fleet, &self.connection] {
            let metadata = &object["metadata"];
            ensure!(metadata["deletionTimestamp"].is_null(), "it is being deleted: {metadata}");
            ensure!(metadata["finalizers"] == json!([DELETE_PROTECTION_FINALIZER]), "finalizers: {metadata}");
        }
        // As of 1.7 it takes over from its identity without the UID of its namespace.
        let before = identity.rsplitn(2, '/').last().filter(|before| before.contains('/'));
        let manages = self.manager.is_empty() || self.manager == identity || before == Some(self.manager.as_str());
        ensure!(manages, "{:?} is the manager, and not {identity:?}: it can't route", self.manager);
        Ok(found.iter().map(|child| text(&child["metadata"]["name"])).collect())
    }

    /// Whether it takes a Deployment for one of the fleet's versions.
    fn owns(&self, child: &Value) -> bool {
        let metadata = &child["metadata"];
        let is_cached = metadata["labels"][DEPLOYMENT_NAME_LABEL].is_string();
        let is_fleet = |owner: &&Value| {
            owner["controller"] == true
                && owner["apiVersion"] == "temporal.io/v1alpha1"
                && owner["kind"] == "WorkerDeployment"
                && owner["name"] == self.fleet["metadata"]["name"]
        };
        let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
        is_cached && metadata["labels"][BUILD_ID_LABEL].is_string() && owners.into_iter().any(|owner| is_fleet(&owner))
    }

    /// Fails if it would write to a version's Deployment, or Kubernetes would take that away.
    fn leaves(&self, child: &Value) -> Result<()> {
        let metadata = &child["metadata"];
        let [owner] = metadata["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default() else {
            anyhow::bail!("it has not one owner: {}", metadata["ownerReferences"]);
        };
        ensure!(owner["uid"] == self.fleet["metadata"]["uid"], "Kubernetes deletes what {owner} owns");
        ensure!(owner["blockOwnerDeletion"] == true, "{owner}");
        ensure!(metadata["deletionTimestamp"].is_null(), "it is being deleted");
        ensure!(metadata["finalizers"].is_null(), "nobody takes these off: {}", metadata["finalizers"]);
        let (labels, pods) = (&metadata["labels"], &child["spec"]["template"]["metadata"]);
        let selector =
            json!({DEPLOYMENT_NAME_LABEL: self.fleet["metadata"]["name"], BUILD_ID_LABEL: labels[BUILD_ID_LABEL]});
        ensure!(child["spec"]["selector"]["matchLabels"] == selector, "selector: {}", child["spec"]["selector"]);
        for label in [DEPLOYMENT_NAME_LABEL, BUILD_ID_LABEL] {
            let all = [&labels[label], &pods["labels"][label]];
            ensure!(all.into_iter().all(|value| *value == selector[label]), "label {label}: {all:?}");
        }
        let hash = &pods["annotations"][CONNECTION_SPEC_HASH_ANNOTATION];
        ensure!(*hash == self.connection_hash(), "its pods are of another Connection, and replaced: {hash}");
        Ok(())
    }

    fn connection_hash(&self) -> String {
        let spec = &self.connection["spec"];
        let name = |field: &str| spec[field]["name"].as_str();
        let secret = name("mutualTLSSecretRef").or_else(|| name("apiKeySecretRef"));
        let host_port = spec["hostPort"].as_str().unwrap_or_default();
        build_id::connection_spec_hash(host_port, spec["tls"]["serverName"].as_str(), secret)
    }

    /// Fails if it would scale the target, or replace its pods for another template.
    fn keeps(&self, child: &Value) -> Result<()> {
        let (wanted, has) = (&self.fleet["spec"]["replicas"], &child["spec"]["replicas"]);
        let stays = if wanted.is_null() { *has != json!(0) } else { has == wanted };
        ensure!(stays, "it is scaled: {has} replicas, and {wanted} in the manifest");
        if self.fleet["spec"]["workerOptions"]["unsafeCustomBuildID"].is_string() {
            let hash = build_id::template_hash(&build_id::go_json(&self.fleet["spec"]["template"])?);
            let own = &child["spec"]["template"]["metadata"]["annotations"][POD_TEMPLATE_SPEC_HASH_ANNOTATION];
            ensure!(*own == hash, "its pods are of another template, and replaced: {own}");
        }
        Ok(())
    }

    /// Fails unless the status has what people and programs read there until it writes its own.
    fn says(&self, target: &str, child: &Value) -> Result<()> {
        let status = &self.fleet["status"];
        for version in [&status["targetVersion"], &status["currentVersion"]] {
            ensure!(version["buildID"] == target && version["status"] == "Current", "{version}");
            let reference = &version["deployment"];
            for field in ["name", "uid", "namespace"] {
                ensure!(reference[field] == child["metadata"][field], "{field} of {reference}");
            }
        }
        let conditions = status["conditions"].as_array().into_iter().flatten();
        let is_ready =
            |one: &Value| one["type"] == "Ready" && one["status"] == "True" && one["reason"] == "RolloutComplete";
        ensure!(conditions.into_iter().any(is_ready), "{}", status["conditions"]);
        Ok(())
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: &str = "v1.2.3-45d8";
    const OWN: &str = "twc/temporal-system/u-1";

    /// A fleet whose target is current.
    fn sight() -> Sight {
        let labels = json!({"temporal.io/deployment-name": "orders", "temporal.io/build-id": TARGET});
        let hash = build_id::connection_spec_hash("temporal:7233", None, None);
        let child = json!({
            "metadata": {"name": "orders-v1-2-3-45d8", "namespace": "prod", "uid": "c", "labels": labels, "ownerReferences": [{
                "apiVersion": "temporal.io/v1alpha1", "kind": "WorkerDeployment", "name": "orders", "uid": "f",
                "controller": true, "blockOwnerDeletion": true}]},
            "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels,
                "annotations": {"temporal.io/connection-spec-hash": hash, "temporal.io/pod-template-spec-hash": "other"}}}},
        });
        let version = json!({"buildID": TARGET, "status": "Current",
            "deployment": {"name": "orders-v1-2-3-45d8", "namespace": "prod", "uid": "c"}});
        let finalizers = json!(["temporal.io/delete-protection"]);
        let ready = json!({"type": "Ready", "status": "True", "reason": "RolloutComplete"});
        Sight {
            fleet: json!({"metadata": {"name": "orders", "uid": "f", "finalizers": finalizers},
                "spec": {"template": {"spec": {"containers": []}}, "workerOptions": {}},
                "status": {"targetVersion": version, "currentVersion": version, "conditions": [ready]}}),
            connection: json!({"metadata": {"finalizers": finalizers}, "spec": {"hostPort": "temporal:7233"}}),
            deployments: vec![child],
            manager: OWN.into(),
        }
    }

    fn goes_on(change: impl FnOnce(&mut Sight)) -> Result<Vec<String>> {
        let mut sight = sight();
        change(&mut sight);
        sight.goes_on(TARGET, OWN)
    }

    #[test]
    fn it_goes_on_with_what_is_as_it_left_it() {
        assert_eq!(goes_on(|_| {}).unwrap(), ["orders-v1-2-3-45d8"]);
        for manager in ["", "twc/temporal-system"] {
            goes_on(|sight| sight.manager = manager.into()).unwrap();
        }
        goes_on(|sight| sight.fleet["spec"]["replicas"] = json!(2)).unwrap();
        let foreign = json!({"metadata": {"name": "another", "labels": {"app": "web"}}});
        assert_eq!(goes_on(|sight| sight.deployments.push(foreign)).unwrap().len(), 1);
    }

    #[test]
    fn it_does_not_without_any_of_what_it_goes_by() {
        let child = |path: &str, value: Value| {
            let set = |sight: &mut Sight| *sight.deployments[0].pointer_mut(path).unwrap() = value;
            goes_on(set).unwrap_err();
        };
        for label in ["deployment-name", "build-id"] {
            child(&format!("/metadata/labels/temporal.io~1{label}"), Value::Null);
            child(&format!("/metadata/labels/temporal.io~1{label}"), json!("other"));
            child(&format!("/spec/template/metadata/labels/temporal.io~1{label}"), Value::Null);
            child(&format!("/spec/selector/matchLabels/temporal.io~1{label}"), json!("other"));
        }
        for (field, value) in [
            ("apiVersion", json!("temporal.io/v1")),
            ("kind", json!("TemporalWorkerDeployment")),
            ("name", json!("other")),
            ("uid", json!("other")),
            ("controller", json!(false)),
            ("blockOwnerDeletion", json!(false)),
        ] {
            child(&format!("/metadata/ownerReferences/0/{field}"), value);
        }
        child("/metadata/ownerReferences", json!([]));
        child("/spec/template/metadata/annotations/temporal.io~1connection-spec-hash", json!("other"));
        child("/spec/replicas", json!(0));
        goes_on(|sight| sight.deployments[0]["metadata"]["finalizers"] = json!(["ours"])).unwrap_err();
    }

    #[test]
    fn neither_does_it_with_another_manifest_connection_manager_or_finalizer() {
        let refused = |change: &dyn Fn(&mut Sight)| goes_on(change).unwrap_err();
        refused(&|sight| sight.fleet["spec"]["replicas"] = json!(3));
        refused(&|sight| sight.fleet["spec"]["workerOptions"]["unsafeCustomBuildID"] = json!(TARGET));
        refused(&|sight| sight.fleet["status"]["targetVersion"]["buildID"] = json!("other"));
        refused(&|sight| sight.fleet["status"]["conditions"] = json!([]));
        refused(&|sight| sight.connection["spec"]["hostPort"] = json!("temporal:7234"));
        refused(&|sight| sight.manager = "somebody".into());
        for finalizers in [json!([]), json!(["temporal.io/delete-protection", "ours"])] {
            refused(&|sight| sight.fleet["metadata"]["finalizers"] = finalizers.clone());
            refused(&|sight| sight.connection["metadata"]["finalizers"] = finalizers.clone());
        }
        sight().goes_on("v1.2.4-6df8", OWN).unwrap_err();
        sight().goes_on(TARGET, "twc/temporal-system").unwrap_err();
    }
}
