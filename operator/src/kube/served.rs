//! Waits until the API server has this operator's fields, and notices when it has them no more: what is written in between would
//! lose them.

use std::time::Duration;

use kube::Client;
use operator_core::served::missing_fields;

use super::client::{CallError, bounded};

/// Where the API server publishes the schemas of the group. Every account may read it.
const DOCUMENT: &str = "/openapi/v3/apis/temporal.io/v1alpha1";
/// First and longest time between two looks while fields are missing.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// Time between two looks once they are there.
const EVERY: Duration = Duration::from_secs(300);
/// Time after which a field is looked for once more: an API server that has just started publishes late.
const AGAIN: Duration = Duration::from_secs(15);

/// Ends once nothing is missing.
pub async fn wait(client: Client) {
    let (mut pause, mut said) = (FIRST, String::new());
    loop {
        let trouble = match look(&client).await {
            Look::Complete => return,
            Look::Hidden(why) => {
                tracing::warn!(
                    "the served schemas can't be compared with this operator's, and are taken for it: {why}"
                );
                return;
            }
            Look::Lacks(fields) => format!(
                "the API server lacks fields of this operator's kinds ({}). Nothing is written until it has them: install the chart \
                 of the kinds, temporal-worker-operator-crds, of this version",
                fields.join(", ")
            ),
            Look::Failed(error) => format!("the kinds' schemas can't be read: {error}"),
        };
        if trouble != said {
            tracing::warn!("{trouble}");
            said = trouble;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST);
    }
}

/// Ends with the fields that went missing, once some did.
pub async fn lost(client: Client) -> Vec<String> {
    loop {
        tokio::time::sleep(EVERY).await;
        if !matches!(look(&client).await, Look::Lacks(_)) {
            continue;
        }
        tokio::time::sleep(AGAIN).await;
        if let Look::Lacks(fields) = look(&client).await {
            return fields;
        }
    }
}

enum Look {
    Complete,
    Lacks(Vec<String>),
    /// This account may not see them.
    Hidden(String),
    Failed(String),
}

async fn look(client: &Client) -> Look {
    let request = http::Request::get(DOCUMENT).header(http::header::ACCEPT, "application/json").body(Vec::new());
    let request = match request {
        Ok(request) => request,
        Err(error) => return Look::Failed(error.to_string()),
    };
    match bounded(client.request_text(request)).await {
        Ok(document) => match missing_fields(&document) {
            Ok(missing) if missing.is_empty() => Look::Complete,
            Ok(missing) => Look::Lacks(missing),
            Err(error) => Look::Hidden(format!("{DOCUMENT} is no OpenAPI document: {error}")),
        },
        Err(error) => refused(error),
    }
}

fn refused(error: CallError) -> Look {
    match error {
        error if error.is_forbidden() => Look::Hidden(error.to_string()),
        error if error.is_not_found() => Look::Failed("the kinds of group temporal.io are not installed".into()),
        error => Look::Failed(error.to_string()),
    }
}
