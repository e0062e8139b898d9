//! For tests of the borders between tenants alone: reads that leave a fleet's namespace.

use kube::api::ListParams;
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use operator_core::border::{self, Border};
use serde::de::DeserializeOwned;

use super::client::bounded;

/// The namespace that an object is read in: its own; without the border, any that has it where its own has not.
pub async fn home<K>(client: &Client, border: Border, (namespace, name): (&str, &str)) -> String
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    if border::stands(border) {
        return namespace.to_owned();
    }
    let named = ListParams::default().fields(&format!("metadata.name={name}"));
    let found = bounded(Api::<K>::all(client.clone()).list_metadata(&named)).await;
    let homes = found.into_iter().flatten().filter_map(|object| object.metadata.namespace);
    let homes: Vec<_> = homes.collect();
    let other = homes.iter().find(|home| *home != namespace).filter(|_| !homes.iter().any(|home| home == namespace));
    other.cloned().unwrap_or_else(|| namespace.to_owned())
}
