//! Rights inside the cluster that Kubernetes does not grant its parts by itself.

use anyhow::{Context as _, Result};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::control_plane::KUBELET_CLIENT;

/// User name of the DNS server.
pub(crate) const DNS_USER: &str = "test-cluster:dns";

/// Creates roles and bindings of a new cluster.
pub(crate) async fn create(client: &Client) -> Result<()> {
    let roles = Api::<ClusterRole>::all(client.clone());
    let dns_role = serde_json::from_value(json!({
        "metadata": {"name": DNS_USER},
        "rules": [
            {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ],
    }))?;
    roles.create(&PostParams::default(), &dns_role).await.context("create the role of the DNS server")?;
    let bindings = Api::<ClusterRoleBinding>::all(client.clone());
    for (role, user) in [(DNS_USER, DNS_USER), ("system:kubelet-api-admin", KUBELET_CLIENT.name)] {
        let binding = serde_json::from_value(binding(role, user))?;
        bindings.create(&PostParams::default(), &binding).await.with_context(|| format!("bind {user} to {role}"))?;
    }
    Ok(())
}

fn binding(role: &str, user: &str) -> Value {
    json!({
        "metadata": {"name": format!("test-cluster:{}", user.replace(':', "-"))},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    })
}
