//! Looks for managers that hold the Lease of another namespace, before this replica competes for its own.

use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::{Api, Client};
use operator_core::lease::others::{AGAIN, OtherLease, Others, Verdict, look};
use operator_core::names::LEASE_NAME;
use tokio::time::sleep;

use super::client::{CallError, bounded};
use super::lease::record;

/// Waits until no other manager serves fleets that this one is to serve, and names those that do. They are looked for where the
/// fleets are: in `namespaces`, or everywhere when that names none.
pub async fn wait(client: &Client, own: &str, namespaces: &[String]) {
    let start = Instant::now();
    let (mut others, mut told) = (Others::default(), Vec::new());
    loop {
        let leases = match leases(client, namespaces).await {
            Ok(leases) => leases,
            Err(error) if error.is_forbidden() => {
                tracing::warn!(%error, "Leases {LEASE_NAME} of other namespaces can't be read; managers there go unnoticed");
                return;
            }
            // Who can't read these can't get its own either.
            Err(error) => {
                tracing::warn!(%error, "Leases {LEASE_NAME} of other namespaces could not be read; they are read again");
                sleep(AGAIN).await;
                continue;
            }
        };
        let (verdict, next) = look(&leases, own, &others, start.elapsed(), Timestamp::now());
        others = next;
        match verdict {
            Verdict::Alone => return,
            Verdict::Beside(managers) => {
                tracing::error!(?managers, "other managers serve the same fleets; the operator goes on beside them");
                return;
            }
            Verdict::Wait(managers) => {
                if told != managers {
                    tracing::warn!(
                        ?managers,
                        "other managers serve the same fleets, and nothing is written yet; scale them to zero, or have each serve \
                         its own namespaces"
                    );
                    told = managers;
                }
                sleep(AGAIN).await;
            }
        }
    }
}

async fn leases(client: &Client, namespaces: &[String]) -> Result<Vec<OtherLease>, CallError> {
    if namespaces.is_empty() {
        // Only with the name as a selector may this be asked with rights to that name alone.
        let named = ListParams::default().fields(&format!("metadata.name={LEASE_NAME}"));
        let found = bounded(Api::<Lease>::all(client.clone()).list(&named)).await?;
        return Ok(found.items.iter().map(other).collect());
    }
    let mut found = Vec::new();
    for namespace in namespaces {
        let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
        found.extend(bounded(api.get_opt(LEASE_NAME)).await?.as_ref().map(other));
    }
    Ok(found)
}

fn other(lease: &Lease) -> OtherLease {
    OtherLease { namespace: lease.metadata.namespace.clone().unwrap_or_default(), record: record(lease) }
}
