//! The fleets of `deploy/polyglot`: Workers of all languages, each in a Kubernetes namespace of its own, and the Workflow that uses them
//! all.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use temporalio_protos::temporal::api::history::v1::HistoryEvent;
use temporalio_protos::temporal::api::history::v1::history_event::Attributes;

use crate::programs::source_root;
use crate::workflows::{NewWorkflow, Workflows};

/// The languages, which are the names of the manifests, the fleets and the Task Queues.
pub const LANGUAGES: [&str; 6] = ["go", "java", "php", "python", "rust", "typescript"];
/// Those that have a Worker of their own behind a sidecar, with Workflows too.
pub const WITH_SIDECAR: [&str; 4] = ["go", "java", "python", "typescript"];
/// The Secret in each namespace that holds the key of payloads, and the key's id and name in it.
pub const KEY_SECRET: (&str, &str) = ("payload-keys", "k1");

/// Kubernetes namespace of a language's team.
#[must_use]
pub fn namespace(language: &str) -> String {
    format!("team-{language}")
}

/// The objects of a language's manifest.
///
/// # Errors
/// The file is missing or no YAML.
pub fn manifest(language: &str) -> Result<Vec<Value>> {
    let file = source_root().join("deploy/polyglot").join(language).with_extension("yaml");
    let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let documents = serde_yaml::Deserializer::from_str(&text).map(<Value as serde::Deserialize>::deserialize);
    documents.collect::<Result<_, _>>().with_context(|| format!("read {}", file.display()))
}

/// The Secret with the key, for a language's namespace.
#[must_use]
pub fn key_secret(language: &str, key: &str) -> Value {
    let (name, id) = KEY_SECRET;
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace(language)},
        "stringData": {id: key}})
}

/// Starts the Workflow `GreetEverywhere` of the Worker in Rust: the Worker of each language greets a name, and a Workflow of each
/// language that has some is signalled with it.
///
/// # Errors
/// The server refuses.
pub async fn start(workflows: &Workflows, id: &str, name: &str) -> Result<()> {
    let input = json!({"name": name, "greeters": LANGUAGES, "listeners": WITH_SIDECAR});
    let workflow = NewWorkflow { id, workflow_type: "GreetEverywhere", task_queue: "rust", input: &input };
    workflows.start(&workflow).await.map(drop)
}

/// Waits for the end of that Workflow, shows each event to `seen`, and gives back its answer.
///
/// # Errors
/// It did not complete.
pub async fn answer(workflows: &Workflows, id: &str, mut seen: impl FnMut(&HistoryEvent)) -> Result<Value> {
    let mut last = None;
    workflows
        .follow(id, |event| {
            seen(event);
            last = event.attributes.clone();
        })
        .await?;
    let Some(Attributes::WorkflowExecutionCompletedEventAttributes(end)) = last else {
        anyhow::bail!("the Workflow {id} did not complete: {last:?}");
    };
    let payload = end.result.and_then(|result| result.payloads.into_iter().next()).context("it gave nothing")?;
    serde_json::from_slice(&payload.data).context("its answer is no JSON")
}

/// Fails unless an answer is the right one.
///
/// # Errors
/// It is not.
pub fn check(answer: &Value, name: &str) -> Result<()> {
    let said = |verb: &str, languages: &[&str]| -> Vec<_> {
        languages.iter().map(|language| format!("{language} {verb} {name}")).collect()
    };
    let right = json!({"greetings": said("greets", &LANGUAGES), "heard": said("heard", &WITH_SIDECAR)});
    ensure!(*answer == right, "the answer is {answer}, and should be {right}");
    Ok(())
}

/// Fails when what the server stores of a Workflow and its children holds one of the words. Gives the number of Workflows.
///
/// # Errors
/// It does, or the server does not answer.
pub async fn check_hidden(raw: &Workflows, id: &str, words: &[&str]) -> Result<usize> {
    let mut open = vec![id.to_owned()];
    let mut read = 0;
    while let Some(id) = open.pop() {
        let mut leaks = Vec::new();
        raw.follow(&id, |event| {
            // Debug shows bytes as numbers.
            let bytes = prost::Message::encode_to_vec(event);
            let has = |word: &&&str| bytes.windows(word.len()).any(|window| window == word.as_bytes());
            leaks.extend(words.iter().find(has).map(|word| format!("event {} of {id} holds {word:?}", event.event_id)));
            if let Some(Attributes::ChildWorkflowExecutionStartedEventAttributes(child)) = &event.attributes {
                open.extend(child.workflow_execution.iter().map(|execution| execution.workflow_id.clone()));
            }
        })
        .await?;
        ensure!(leaks.is_empty(), "{leaks:?}");
        read += 1;
    }
    Ok(read)
}
