//! Rights that an API server asks for beside a request, where it checks who sets owners: the log shows no use of them, so that each is
//! taken away here.

use std::sync::Arc;

use anyhow::{Result, ensure};
use e2e::rights::golden::Installation;
use e2e::{HostBed, eventually};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use super::rights::{World, apply};
use super::templates::{hpa, template};

/// A write of the operator's, and what it takes.
struct Case {
    /// Resource and verb of the right.
    right: (&'static str, &'static str),
    /// The object, whole or in part.
    object: Value,
    patch: fn(&Value) -> Patch<&Value>,
    /// What the API server says without the right.
    refusal: &'static str,
}

fn owners(kind: &str) -> Value {
    json!([{"apiVersion": "temporal.io/v1alpha1", "kind": kind, "name": "owner", "uid": "of-nobody", "controller": true,
        "blockOwnerDeletion": true}])
}

fn cases() -> [Case; 3] {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "probe", "ownerReferences": owners("WorkerDeployment")}});
    let mut scaler = hpa();
    scaler["metadata"] = json!({"name": "probe", "ownerReferences": owners("WorkerResourceTemplate")});
    scaler["spec"]["scaleTargetRef"] = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "probe"});
    let given = json!({"apiVersion": "temporal.io/v1alpha1", "kind": "WorkerResourceTemplate",
        "metadata": {"name": "probe", "ownerReferences": owners("WorkerDeployment")}});
    let blocking = "cannot set blockOwnerDeletion";
    [
        Case {
            right: ("workerdeployments/finalizers", "update"),
            object: map,
            patch: |object| Patch::Apply(object),
            refusal: blocking,
        },
        Case {
            right: ("workerresourcetemplates/finalizers", "update"),
            object: scaler,
            patch: |object| Patch::Apply(object),
            refusal: blocking,
        },
        Case {
            right: ("workerresourcetemplates", "delete"),
            object: given,
            patch: |object| Patch::Merge(object),
            refusal: "cannot set an ownerRef on a resource you can't delete",
        },
    ]
}

/// The same object without a right in its rules, if it has it.
fn without(role: &Value, (resource, verb): (&str, &str)) -> Option<Value> {
    let mut role = role.clone();
    let rules = role["rules"].as_array_mut()?;
    let rule = rules.iter_mut().find(|rule| rule["resources"] == json!([resource]))?;
    rule["verbs"].as_array_mut()?.retain(|one| one != verb);
    rules.retain(|rule| rule["verbs"] != json!([]));
    Some(role)
}

impl Case {
    /// Writes as `client` may, and stores nothing.
    async fn attempt(&self, client: &Client, namespace: &str) -> kube::Result<()> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (version, kind) = (text(&self.object["apiVersion"]), text(&self.object["kind"]));
        let (group, version) = version.split_once('/').unwrap_or(("", &version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        let patch = (self.patch)(&self.object);
        let field_manager = matches!(patch, Patch::Apply(_)).then(|| "probe".to_owned());
        let params = PatchParams { dry_run: true, field_manager, ..PatchParams::default() };
        api.patch("probe", &params, &patch).await.map(drop)
    }
}

pub async fn an_api_server_that_checks_owners_asks_for_each_right_that_is_granted_for_it(
    _bed: Arc<HostBed>,
) -> Result<()> {
    let world = World::new(Installation { with: Installation::EXTRAS.into(), ..Installation::default() }).await?;
    world.ground.apply(&template("probe", hpa())).await?;
    let kubeconfig = Kubeconfig::read_from(world.kubeconfig())?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let account = Client::try_from(config)?;
    for case in cases() {
        let (resource, verb) = case.right;
        eventually(&format!("with {verb} {resource} it is done"), async || {
            Ok(case.attempt(&account, &world.ground.namespace).await?)
        })
        .await?;
        let less: Vec<_> = world.objects.iter().filter_map(|object| without(object, case.right)).collect();
        ensure!(less.len() == 1, "{} roles have {verb} {resource}", less.len());
        apply(&world.ground.client, &less[0]).await?;
        eventually(&format!("without {verb} {resource} it is refused"), async || {
            match case.attempt(&account, &world.ground.namespace).await {
                Err(kube::Error::Api(status)) if status.message.contains(case.refusal) => Ok(()),
                other => Err(anyhow::anyhow!("{other:?}")),
            }
        })
        .await?;
    }
    world.stop()
}
