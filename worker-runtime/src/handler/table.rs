//! The table of handlers: which one runs an activity type. Checked as a whole at start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use operator_core::contract::{ExecConfig, HandlerKind, RuntimeConfig, RuntimeLimits};
use temporalio_client::Url;
use temporalio_common::protos::temporal::api::common::v1::Payload;

use super::{Call, HandlerError, exec, http};

/// A handler that can run.
#[derive(Clone, Debug)]
pub struct Handler {
    name: String,
    timeout: Option<Duration>,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Exec(ExecConfig),
    Http(Url, reqwest::Client),
}

/// Activity types and their handlers.
#[derive(Clone, Debug)]
pub struct HandlerTable {
    activities: BTreeMap<String, Arc<Handler>>,
}

/// Everything that is wrong with a configuration, one line each.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration can't run:\n{}", .0.join("\n"))]
pub struct TableError(pub Vec<String>);

impl HandlerTable {
    /// The table that a configuration states.
    ///
    /// # Errors
    /// All violations of the contract: fields, values and remedies.
    pub fn new(config: &RuntimeConfig, limits: &RuntimeLimits) -> Result<Self, TableError> {
        let mut problems = problems(config);
        let client = http::client().map_err(|error| TableError(vec![error]))?;
        let mut handlers = BTreeMap::new();
        for handler in &config.handlers {
            let kind = match &handler.kind {
                HandlerKind::Exec(exec) => Kind::Exec(exec.clone()),
                HandlerKind::Http(http) => match http::local_url(&http.url) {
                    Ok(url) => Kind::Http(url, client.clone()),
                    Err(problem) => {
                        problems.push(format!("handlers[{}].http.url: {problem}", handler.name));
                        continue;
                    }
                },
            };
            let timeout = limits.handler_timeout_ms.get(&handler.name).map(|ms| Duration::from_millis(*ms));
            handlers.insert(&handler.name, Arc::new(Handler { name: handler.name.clone(), timeout, kind }));
        }
        if !problems.is_empty() {
            return Err(TableError(problems));
        }
        let activities = config
            .activities
            .iter()
            .filter_map(|activity| {
                handlers.get(&activity.handler).map(|handler| (activity.activity_type.clone(), handler.clone()))
            })
            .collect();
        Ok(Self { activities })
    }

    /// The handler of an activity type.
    pub fn get(&self, activity_type: &str) -> Option<Arc<Handler>> {
        self.activities.get(activity_type).cloned()
    }

    /// The activity types that have a handler, in order.
    pub fn activity_types(&self) -> impl Iterator<Item = &str> {
        self.activities.keys().map(String::as_str)
    }
}

fn problems(config: &RuntimeConfig) -> Vec<String> {
    let mut problems: Vec<String> = config.violations().iter().map(ToString::to_string).collect();
    if config.activities.is_empty() {
        problems.push("activities: is empty; name at least one activity type and its handler".to_owned());
    }
    let names = config.handlers.iter().map(|handler| handler.name.as_str());
    let types = config.activities.iter().map(|activity| activity.activity_type.as_str());
    let queues = config.task_queues.iter().map(String::as_str);
    twice("handlers", names, &mut problems);
    twice("activities", types, &mut problems);
    twice("taskQueues", queues, &mut problems);
    problems
}

fn twice<'a>(field: &str, names: impl Iterator<Item = &'a str>, problems: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            problems.push(format!("{field}: {name:?} is there twice; keep one"));
        }
    }
}

impl Handler {
    /// Runs one task, within the handler's timeout. Dropping the future stops the handler.
    ///
    /// # Errors
    /// Why there is no result.
    pub async fn run(&self, call: &Call) -> Result<Payload, HandlerError> {
        let run = async {
            match &self.kind {
                Kind::Exec(exec) => exec::run(&self.name, exec, call).await,
                Kind::Http(url, client) => http::run(&self.name, url, client, call).await,
            }
        };
        let Some(timeout) = self.timeout else { return run.await };
        tokio::time::timeout(timeout, run)
            .await
            .unwrap_or_else(|_| Err(HandlerError::TimedOut { handler: self.name.clone(), timeout }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(config: &str) -> Result<HandlerTable, TableError> {
        HandlerTable::new(&serde_json::from_str(config).unwrap(), &RuntimeLimits::default())
    }

    #[test]
    fn activity_types_find_their_handler() {
        let table = table(
            r#"{"version":1,"taskQueues":["q"],
                "handlers":[{"name":"cat","exec":{"command":["cat"]}},{"name":"web","http":{"url":"http://127.0.0.1:9000/"}}],
                "activities":[{"type":"B","handler":"cat"},{"type":"A","handler":"web"}]}"#,
        )
        .unwrap();
        assert_eq!(table.activity_types().collect::<Vec<_>>(), ["A", "B"]);
        assert!(table.get("A").is_some() && table.get("C").is_none());
    }

    #[test]
    fn every_violation_is_said_at_once() {
        let problems = table(
            r#"{"version":1,"taskQueues":["q","q"],
                "handlers":[{"name":"web","http":{"url":"http://10.0.0.1/"}},{"name":"x","exec":{"command":[]}}],
                "activities":[{"type":"A","handler":"nobody"},{"type":"A","handler":"web"}]}"#,
        )
        .unwrap_err()
        .to_string();
        for part in [
            "handlers[web].http.url",
            "10.0.0.1",
            "handlers[x].exec.command",
            "\"nobody\"",
            "\"q\" is there twice",
            "\"A\" is there twice",
        ] {
            assert!(problems.contains(part), "{part} in {problems}");
        }
    }
}
