//! What is found before a migration, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::json;

/// How much a finding stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// It has to be changed before this operator can take over.
    Blocking,
    /// It can stay, and somebody should know what that means.
    Warning,
    /// Nothing is to be done.
    Fine,
}

/// What will happen to one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// How much it stands in the way.
    pub severity: Severity,
    /// Kind of the object.
    pub kind: &'static str,
    /// Its namespace; none for one of the cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What is so, and what will happen to it.
    pub fate: String,
    /// What to change first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<String>,
    /// The command for it, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

impl Finding {
    /// An object to which nothing happens that somebody has to care for.
    pub(super) fn fine(kind: &'static str, object: &Value, fate: impl Into<String>) -> Self {
        Self {
            severity: Severity::Fine,
            kind,
            namespace: json::namespace(object).to_owned(),
            name: json::name(object).to_owned(),
            fate: fate.into(),
            change: None,
            command: None,
        }
    }

    /// The same with something that should be known or changed.
    pub(super) fn warning(self, change: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, change: Some(change.into()), ..self }
    }

    /// The same with something that has to be changed first.
    pub(super) fn blocking(self, change: impl Into<String>) -> Self {
        Self { severity: Severity::Blocking, change: Some(change.into()), ..self }
    }

    /// The same with the command for the change.
    pub(super) fn by(self, command: impl Into<String>) -> Self {
        Self { command: Some(command.into()), ..self }
    }

    /// Kind, namespace and name.
    #[must_use]
    pub fn object(&self) -> String {
        let separator = if self.namespace.is_empty() { "" } else { "/" };
        format!("{} {}{separator}{}", self.kind, self.namespace, self.name)
    }
}

/// A kind of which nothing is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unread {
    /// The kind.
    pub kind: String,
    /// Whether the API server does not have it, so that there are none.
    pub not_served: bool,
    /// Why not.
    pub reason: String,
}

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether something has to be changed first.
    pub blocked: bool,
    /// By severity, what is worst first.
    pub findings: Vec<Finding>,
    /// What could not be read.
    pub unread: Vec<Unread>,
}

impl Report {
    /// Of findings in any order.
    #[must_use]
    pub fn new(mut findings: Vec<Finding>, unread: Vec<Unread>) -> Self {
        findings.sort_by_key(|finding| finding.severity);
        Self { blocked: findings.iter().any(|finding| finding.severity == Severity::Blocking), findings, unread }
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (severity, title) in [
            (Severity::Blocking, "BLOCKING: to be changed before the operator can take over"),
            (Severity::Warning, "WARNING: to be known"),
            (Severity::Fine, "FINE"),
        ] {
            self.section(severity, title, &mut text);
        }
        if !self.unread.is_empty() {
            text.push_str("NOT READ\n");
            for unread in &self.unread {
                let _ = writeln!(text, "  {}: {}", unread.kind, unread.reason);
            }
            text.push('\n');
        }
        let count = |severity| self.findings.iter().filter(|finding| finding.severity == severity).count();
        let _ = writeln!(
            text,
            "{} blocking, {} warnings, {} fine. Nothing was written.",
            count(Severity::Blocking),
            count(Severity::Warning),
            count(Severity::Fine)
        );
        text
    }

    fn section(&self, severity: Severity, title: &str, text: &mut String) {
        let mut own = self.findings.iter().filter(|finding| finding.severity == severity).peekable();
        if own.peek().is_none() {
            return;
        }
        let _ = writeln!(text, "{title}");
        for finding in own {
            let _ = writeln!(text, "  {}: {}", finding.object(), finding.fate);
            for line in finding.change.iter() {
                let _ = writeln!(text, "    → {line}");
            }
            for line in finding.command.iter() {
                let _ = writeln!(text, "      {line}");
            }
        }
        text.push('\n');
    }
}
