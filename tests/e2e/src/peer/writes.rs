//! The writes of a take-over, held to those that docs/migration.md names.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use harness::AuditEvent;
use harness::programs::source_root;

use super::Left;

/// Where they are named.
const DOCUMENT: &str = "docs/migration.md";
const SECTION: &str = "### Writes";
/// Most writes to an object, whatever the document says.
const MOST: usize = 3;
const TARGET: &str = "Deployment of the target";
const UNWANTED: &str = "Deployment of a version that nobody wants, and that never had traffic";
const FLEET: &str = "`WorkerDeployment`";
const CONNECTION: &str = "`Connection`";

/// How many writes each object gets at most, by the document.
#[derive(Debug, PartialEq, Eq)]
pub struct Told(BTreeMap<String, usize>);

impl Told {
    /// Reads the document.
    ///
    /// # Errors
    /// It does not say.
    pub fn read() -> Result<Self> {
        let text = std::fs::read_to_string(source_root().join(DOCUMENT)).context(DOCUMENT)?;
        Self::parse(&text).context(DOCUMENT)
    }

    fn parse(text: &str) -> Result<Self> {
        let (_, section) = text.split_once(SECTION).with_context(|| format!("no section {SECTION:?}"))?;
        let rows = section.lines().skip_while(|line| !line.starts_with("|--")).skip(1);
        let rows = rows.take_while(|line| line.starts_with('|'));
        let read = |line: &str| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let number = cells.get(2).and_then(|cell| cell.split(' ').next()?.parse().ok());
            Some(((*cells.get(1)?).to_owned(), number?))
        };
        let told: Option<BTreeMap<String, usize>> = rows.map(read).collect();
        let told = told.context("a row without a number of writes")?;
        for object in [TARGET, UNWANTED, FLEET, CONNECTION] {
            ensure!(told.contains_key(object), "no row {object:?}");
        }
        ensure!(told.values().all(|most| *most <= MOST), "more than {MOST} writes to an object: {told:?}");
        Ok(Self(told))
    }

    /// Fails unless the writes in a fleet's namespace are among those that are named.
    ///
    /// # Errors
    /// One is not named, or there are more of it; or there is none at all, and nothing was counted.
    pub fn holds(&self, left: &Left, events: &[AuditEvent]) -> Result<()> {
        let writes = writes(events, left.release.namespace);
        ensure!(writes.keys().any(|(resource, _)| resource == "workerdeployments"), "nothing was counted: {writes:?}");
        for ((resource, name), count) in &writes {
            let row = row(left, resource, name).with_context(|| format!("{resource} {name} is named nowhere"))?;
            ensure!(*count <= self.0[row], "{count} writes to {resource} {name}; {DOCUMENT} says {}", self.0[row]);
        }
        Ok(())
    }
}

/// The row for an object.
fn row(left: &Left, resource: &str, name: &str) -> Option<&'static str> {
    match resource {
        "workerdeployments" => Some(FLEET),
        "connections" => Some(CONNECTION),
        "deployments" if name == left.target() => Some(TARGET),
        "deployments" if name == left.old() => Some(UNWANTED),
        _ => None,
    }
}

/// How often each object was written, by resource without its subresource, and name. Events are no objects of the fleet's.
fn writes(events: &[AuditEvent], namespace: &str) -> BTreeMap<(String, String), usize> {
    let mut writes = BTreeMap::new();
    let told = |event: &&AuditEvent| {
        let is_write = matches!(event.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection");
        is_write && event.code < 300 && event.resource != "events" && event.namespace == namespace
    };
    for event in events.iter().filter(told) {
        let resource = event.resource.split('/').next().unwrap_or_default();
        *writes.entry((resource.to_owned(), event.name.clone())).or_default() += 1;
    }
    writes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &str) -> Result<Told> {
        Told::parse(&format!("{SECTION}\n| object | writes | what |\n|---|---|---|\n{rows}\n\nAnd so on: | a | 9 |"))
    }

    #[test]
    fn the_document_names_a_number_for_each_object() {
        Told::read().unwrap();
        let rows = [TARGET, UNWANTED, FLEET, CONNECTION].map(|object| format!("| {object} | 2 at most | this |"));
        let told = table(&rows.join("\n")).unwrap();
        assert_eq!((told.0.len(), told.0[TARGET]), (4, 2));
        table(&rows[1..].join("\n")).unwrap_err();
        table(&rows.join("\n").replace("2 at most", "some")).unwrap_err();
        table(&rows.join("\n").replace("2 at most", "4")).unwrap_err();
    }

    #[test]
    fn writes_are_counted_by_object_whatever_the_subresource() {
        let event = |verb: &str, resource: &str, code| AuditEvent {
            verb: verb.into(),
            resource: resource.into(),
            namespace: "n".into(),
            name: "orders".into(),
            code,
            ..AuditEvent::default()
        };
        let events = [
            event("patch", "workerdeployments", 200),
            event("patch", "workerdeployments/status", 200),
            event("patch", "workerdeployments/status", 409),
            event("create", "events", 201),
            event("get", "secrets", 200),
        ];
        let fleet = ("workerdeployments".to_owned(), "orders".to_owned());
        assert_eq!(writes(&events, "n"), [(fleet, 2)].into());
        assert_eq!(writes(&events, "other"), BTreeMap::new());
    }
}
