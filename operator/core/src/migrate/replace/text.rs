//! The replacement as one file: comments, then manifests.

use std::fmt::Write as _;

use serde_json::Value;

use super::{Replacement, Step};

impl Replacement {
    /// YAML that `kubectl apply` takes as it is, with the way over as comments in front.
    ///
    /// # Errors
    /// A manifest has no form in YAML.
    pub fn yaml(&self) -> Result<String, serde_yaml::Error> {
        let mut text = String::from("# Nothing was written to the cluster.\n");
        if !self.notes.is_empty() {
            text.push_str("#\n# Not taken over, or otherwise than before:\n");
            for note in &self.notes {
                let _ = writeln!(text, "#  - {note}");
            }
        }
        text.push_str("#\n# The way over:\n");
        for (number, step) in self.steps.iter().enumerate() {
            put(&format!("{:>2}. ", number + 1), step, &mut text);
        }
        put(" ", &self.back, &mut text);
        for manifest in self.manifests() {
            text.push_str("---\n");
            text.push_str(&serde_yaml::to_string(manifest)?);
        }
        Ok(text)
    }

    /// The objects to create, in this order.
    pub fn manifests(&self) -> impl Iterator<Item = &Value> {
        self.connection.iter().chain([&self.fleet])
    }
}

fn put(lead: &str, step: &Step, text: &mut String) {
    let _ = writeln!(text, "# {lead}{}", step.what);
    for command in &step.commands {
        let _ = writeln!(text, "#       {command}");
    }
}
