//! Waits until the API server has this operator's fields, and notices when it has them no more: what is written in between would
//! lose them.

use std::time::Duration;

use kube::Client;
use operator_core::served;

use super::client::{CallError, bounded};

/// Where the API server lists the documents of all groups. Every account may read it.
const INDEX: &str = "/openapi/v3";
/// Where the API server publishes the schemas of the group. Every account may read it.
const DOCUMENT: &str = "/openapi/v3/apis/temporal.io/v1alpha1";
/// First and longest time between two looks while fields are missing.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// Time between two looks once they are there.
const EVERY: Duration = Duration::from_secs(300);
/// Time after which a field is looked for once more: an API server that has just started publishes late.
const AGAIN: Duration = Duration::from_secs(15);

/// Ends once nothing is missing. Gives back the version of what was seen then, where it has one.
pub async fn wait(client: Client) -> Option<String> {
    let (mut pause, mut said) = (FIRST, String::new());
    loop {
        let version = version(&client).await;
        let trouble = match look(&client).await {
            Look::Complete => return version,
            Look::Hidden(why) => {
                tracing::warn!(
                    "the served schemas can't be compared with this operator's, and are taken for it: {why}"
                );
                return None;
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

/// Ends with the fields that went missing, once some did. What has the version `seen` has all of them, and is not read again: it
/// is large.
pub async fn lost(client: Client, mut seen: Option<String>) -> Vec<String> {
    loop {
        tokio::time::sleep(EVERY).await;
        let version = version(&client).await;
        if version.is_some() && version == seen {
            continue;
        }
        match look(&client).await {
            Look::Lacks(_) => {}
            Look::Complete => {
                seen = version;
                continue;
            }
            Look::Hidden(_) | Look::Failed(_) => continue,
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

/// What changes with the document; none where that can't be told.
async fn version(client: &Client) -> Option<String> {
    served::version(&read(client, INDEX).await.ok()?)
}

async fn read(client: &Client, path: &'static str) -> Result<String, CallError> {
    let mut request = http::Request::new(Vec::new());
    *request.uri_mut() = http::Uri::from_static(path);
    request.headers_mut().insert(http::header::ACCEPT, http::HeaderValue::from_static("application/json"));
    bounded(client.request_text(request)).await
}

async fn look(client: &Client) -> Look {
    match read(client, DOCUMENT).await {
        Ok(document) => match served::missing_fields(&document) {
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
