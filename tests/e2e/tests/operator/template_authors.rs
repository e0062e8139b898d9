//! Who may make a WorkerResourceTemplate, and of what: the chart's policy on a real API server.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use e2e::{Ground, HostBed, eventually};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use operator_core::api::WorkerResourceTemplate;
use serde_json::{Value, json};

use super::templates::{World, hpa, template};

/// A client with the rights of a user.
async fn user(world: &World, name: &str) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(world.control_plane.kubeconfig_path())?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.auth_info.impersonate = Some(name.to_owned());
    Ok(Client::try_from(config)?)
}

/// Gives users rights in the ground's namespace.
async fn allow(ground: &Ground, role: &str, rule: Value, users: &[&str]) -> Result<()> {
    let api_version = "rbac.authorization.k8s.io/v1";
    let subjects: Vec<_> = users
        .iter()
        .map(|name| json!({"kind": "User", "name": name, "apiGroup": "rbac.authorization.k8s.io"}))
        .collect();
    ground
        .apply(&json!({"apiVersion": api_version, "kind": "Role", "metadata": {"name": role}, "rules": [rule]}))
        .await?;
    let reference = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role});
    let binding = json!({"apiVersion": api_version, "kind": "RoleBinding", "metadata": {"name": role},
        "roleRef": reference, "subjects": subjects});
    ground.apply(&binding).await.map(drop)
}

pub async fn an_author_can_do_no_more_by_a_template_than_without(bed: Arc<HostBed>) -> Result<()> {
    let world = World::without_operator(&bed, "authors").await?;
    let ground = &world.ground;
    let templates = json!({"apiGroups": ["temporal.io"], "resources": ["workerresourcetemplates"], "verbs": ["*"]});
    let verbs = ["create", "update"];
    let scalers = json!({"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": verbs});
    allow(ground, "templates", templates, &["author", "stranger"]).await?;
    allow(ground, "scalers", scalers, &["author"]).await?;
    let of = async |name: &str| {
        anyhow::Ok(Api::<WorkerResourceTemplate>::namespaced(user(&world, name).await?, &ground.namespace))
    };
    let (author, stranger) = (of("author").await?, of("stranger").await?);
    let parse = |manifest: Value| serde_json::from_value::<WorkerResourceTemplate>(manifest);
    let new = PostParams::default();
    let refused = |answer: kube::Result<WorkerResourceTemplate>, right: &str| match answer {
        Err(kube::Error::Api(status)) if status.message.contains(right) => Ok(()),
        other => Err(anyhow::anyhow!("not refused for {right:?}: {other:?}")),
    };
    // Rights that were just given take a moment.
    eventually("the author makes a template", async || {
        author.create(&new, &parse(template("a", hpa()))?).await.map(drop).map_err(Into::into)
    })
    .await?;
    eventually("the stranger is refused by the policy", async || {
        refused(stranger.create(&new, &parse(template("b", hpa()))?).await, "may not create horizontalpodautoscalers")
    })
    .await?;
    let change = Patch::Merge(json!({"spec": {"template": {"spec": {"maxReplicas": 9}}}}));
    let plain = PatchParams::default();
    refused(stranger.patch("a", &plain, &change).await, "may not create horizontalpodautoscalers")?;
    author.patch("a", &plain, &change).await?;
    let label = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
    stranger.patch("a", &plain, &label).await?;
    let kind = Patch::Merge(json!({"spec": {"template": {"apiVersion": "v1", "kind": "ConfigMap", "spec": null}}}));
    refused(author.patch("a", &plain, &kind).await, "may not")?;
    for user in [&author, &stranger] {
        let deleted = user.delete("a", &DeleteParams::default()).await.map_err(|error| error.to_string());
        ensure!(deleted.as_ref().is_err_and(|error| error.contains("may not delete")), "{deleted:?}");
    }
    are_refused_for_what_they_are(ground).await?;
    let moved = Patch::Merge(json!({"spec": {"workerDeploymentRef": {"name": "other"}}}));
    let all = ground.api::<WorkerResourceTemplate>();
    refused(all.patch("a", &plain, &moved).await, "can't be changed")?;
    all.delete("a", &DeleteParams::default()).await?;
    world.stop()
}

async fn are_refused_for_what_they_are(ground: &Ground) -> Result<()> {
    let wrong: [(&str, Value, &str); 7] = [
        ("/kind", json!("Secret"), "not allowed"),
        ("/metadata", json!({"name": "mine"}), "no name"),
        ("/spec/minReplicas", json!(0), "minReplicas"),
        ("/spec/scaleTargetRef", json!({"kind": "Deployment", "name": "other"}), "scaleTargetRef"),
        ("/spec/selector", json!({"matchLabels": {"app": "other"}}), "matchLabels"),
        (
            "/spec/metrics/0/external/metric/selector/matchLabels",
            json!({"temporal_namespace": "other"}),
            "temporal_namespace",
        ),
        ("/spec/triggers", json!([{"type": "temporal", "metadata": {"namespace": "other"}}]), "triggers"),
    ];
    ground.apply(&template("control", hpa())).await?;
    for (pointer, value, part) in wrong {
        let mut object = hpa();
        let (parent, key) = pointer.rsplit_once('/').context("a pointer")?;
        object.pointer_mut(parent).context("a parent")?[key] = value;
        let refused = ground.apply(&template("wrong", object)).await;
        ensure!(refused.as_ref().is_err_and(|error| format!("{error:#}").contains(part)), "{pointer}: {refused:?}");
    }
    Ok(())
}
