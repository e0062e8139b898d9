//! Reads what is to be replaced.

use anyhow::{Result, anyhow};
use kube::Client;
use operator_core::migrate::{Kind, Listed, Query, Scaler, Scope, Source, Wish, replace};
use serde_json::Value;

use super::{ReplaceArguments, api, list, plain};
use crate::kube::client::bounded;

const AUTHENTICATIONS: Query = Query {
    group: "keda.sh",
    version: "v1alpha1",
    kind: "TriggerAuthentication",
    plural: "triggerauthentications",
    scope: Scope::Asked,
    labels: "",
    name: "",
};

/// The replacement of what the arguments name.
pub(super) async fn yaml(client: &Client, arguments: &ReplaceArguments) -> Result<String> {
    let namespace = arguments.namespace.as_deref().unwrap_or(client.default_namespace());
    let source = source(client, namespace, arguments).await?;
    let wish = Wish {
        name: arguments.name.clone(),
        task_queues: arguments.task_queues.clone(),
        temporal_namespace: arguments.temporal_namespace.clone(),
        address: arguments.address.clone(),
        connection: arguments.connection.clone(),
    };
    Ok(replace(&source, &wish)?.yaml()?)
}

async fn source(client: &Client, namespace: &str, arguments: &ReplaceArguments) -> Result<Source> {
    let scaled_objects = Kind::ScaledObject.query();
    let (deployment, scaler) = match (&arguments.from_keda, &arguments.from_deployment) {
        (Some(named), _) => {
            let scaled = one(client, &scaled_objects, namespace, named).await?;
            let target = scaled["spec"]["scaleTargetRef"]["name"].as_str().unwrap_or_default().to_owned();
            (target, Scaler::ScaledObject(scaled))
        }
        (None, Some(named)) => (named.clone(), scaler_of(client, namespace, named).await?),
        (None, None) => return Err(anyhow!("name what to replace with --from-keda or --from-deployment")),
    };
    Ok(Source {
        deployment: one(client, &deployments(), namespace, &deployment).await?,
        authentications: some(client, &AUTHENTICATIONS, namespace).await?,
        connections: some(client, &Kind::Connection.query(), namespace).await?,
        scaler,
    })
}

/// Any Deployment, not only those with the labels of a controller or a version.
fn deployments() -> Query {
    Query { labels: "", ..Kind::Child.query() }
}

/// Who scales a Deployment: KEDA before an autoscaler, which may be KEDA's own.
async fn scaler_of(client: &Client, namespace: &str, deployment: &str) -> Result<Scaler> {
    let targets = |object: &Value| {
        let target = &object["spec"]["scaleTargetRef"];
        target["name"] == deployment && target["kind"].as_str().is_none_or(|kind| kind == "Deployment")
    };
    let scaled = some(client, &Kind::ScaledObject.query(), namespace).await?;
    if let Some(scaled) = scaled.into_iter().find(&targets) {
        return Ok(Scaler::ScaledObject(scaled));
    }
    let autoscalers = some(client, &Kind::Autoscaler.query(), namespace).await?;
    Ok(autoscalers.into_iter().find(targets).map_or(Scaler::Nobody, Scaler::Autoscaler))
}

async fn one(client: &Client, query: &Query, namespace: &str, named: &str) -> Result<Value> {
    let title = query.title();
    let found = bounded(api(client, query, Some(namespace)).get_opt(named)).await;
    let found = found.map_err(|error| anyhow!("{title} {namespace}/{named} can't be read: {error}"))?;
    found.map(plain).ok_or_else(|| {
        anyhow!(
            "{title} {namespace}/{named} does not exist; `kubectl -n {namespace} get {}` lists those that do",
            query.plural
        )
    })
}

/// All of a kind; none where the cluster does not have it.
async fn some(client: &Client, query: &Query, namespace: &str) -> Result<Vec<Value>> {
    match list(client, query, Some(namespace)).await {
        Ok(Listed::Objects(objects)) => Ok(objects),
        Ok(_) => Ok(Vec::new()),
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(anyhow!("{}: can't be listed in namespace {namespace}: {error}", query.title())),
    }
}
