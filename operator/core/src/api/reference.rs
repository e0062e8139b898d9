//! The reference of the kinds, as Markdown.

use std::fmt::Write;

use serde_json::Value;

use super::crds::crds;

/// Every field of every kind with type, default, limits and description, printed from the CRDs. Fields of a pod template,
/// of object references and of conditions are Kubernetes' own and left out.
#[must_use]
pub fn reference_markdown() -> String {
    let mut text = String::from(
        "# Reference of the kinds\n\n\
         Generated from the types. Group `temporal.io`, version `v1alpha1`. A field is optional unless it is \
         marked *required*. A duration is numbers with units: `90s`, `1h30m`, `1.5h`.\n",
    );
    for crd in crds() {
        section(&crd, &mut text);
    }
    text
}

fn section(crd: &Value, text: &mut String) {
    let names = &crd["spec"]["names"];
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let _ = write!(text, "\n## {}\n\n{}", word(&names["kind"]), word(&schema["description"]));
    if let Some(short) = names["shortNames"].as_array() {
        let short: Vec<String> = short.iter().map(|name| format!("`{}`", word(name))).collect();
        let _ = write!(text, " Short names: {}.", short.join(", "));
    }
    for part in ["spec", "status"] {
        let node = &schema["properties"][part];
        if node["properties"].is_object() {
            let _ = write!(text, "\n\n### {}.{part}\n\n", word(&names["kind"]));
            text.push_str("| field | type | default | description |\n| --- | --- | --- | --- |\n");
            rows(part, node, text);
        }
    }
    let mut rules = Vec::new();
    collect_rules("", schema, &mut rules);
    if !rules.is_empty() {
        text.push_str("\n\n### Rules\n\nAn object that breaks one of these is refused by the API server.\n\n");
        for (path, message) in rules {
            let _ = writeln!(text, "- `{path}`: {message}");
        }
    }
}

fn rows(path: &str, node: &Value, text: &mut String) {
    let required: Vec<&str> = node["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, child) in node["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let mark = if required.contains(&name.as_str()) { " *required*" } else { "" };
        let default = child.get("default").map(|value| format!("`{value}`")).unwrap_or_default();
        let description = word(&child["description"]).replace('|', "\\|").replace('\n', " ");
        let _ = writeln!(text, "| `{path}`{mark} | {} | {default} | {description} |", type_of(child));
        if is_ours(&path, child) {
            rows(&path, child, text);
            rows(&format!("{path}[]"), &child["items"], text);
        }
    }
}

/// Whether the fields below a node are described here, and not by Kubernetes.
fn is_ours(path: &str, node: &Value) -> bool {
    path != "spec.template" && path != "status.conditions" && node["properties"].get("fieldPath").is_none()
}

fn type_of(node: &Value) -> String {
    if let Some(values) = node["enum"].as_array() {
        let values: Vec<String> = values.iter().map(|value| format!("`{}`", word(value))).collect();
        return values.join(", ");
    }
    let base = match node["type"].as_str() {
        Some("array") => format!("list of {}", type_of(&node["items"])),
        Some("object") if node["additionalProperties"].is_object() => "map of text".to_owned(),
        Some("string") if node["format"] == "date-time" => "time".to_owned(),
        Some("string") if node["pattern"] == super::schema::DURATION => return "duration".to_owned(),
        Some("string") if node["pattern"] == super::schema::DURATION_OR_AUTO => return "duration or `Auto`".to_owned(),
        Some("string") => "text".to_owned(),
        Some(other) => other.to_owned(),
        None if node["x-kubernetes-int-or-string"] == true => "integer or text".to_owned(),
        None => "any JSON".to_owned(),
    };
    let limits = limits(node);
    if limits.is_empty() { base } else { format!("{base} ({})", limits.join(", ")) }
}

fn limits(node: &Value) -> Vec<String> {
    let words = [
        ("minimum", "at least"),
        ("maximum", "at most"),
        ("minLength", "length at least"),
        ("maxLength", "length at most"),
        ("minItems", "entries at least"),
        ("maxItems", "entries at most"),
        ("maxProperties", "entries at most"),
    ];
    words.iter().filter_map(|(key, word)| node.get(key).map(|limit| format!("{word} {limit}"))).collect()
}

fn collect_rules(path: &str, node: &Value, rules: &mut Vec<(String, String)>) {
    for rule in node["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let at = if path.is_empty() { "object" } else { path.trim_start_matches('.') };
        rules.push((at.to_owned(), word(&rule["message"]).to_owned()));
    }
    for (name, child) in node["properties"].as_object().into_iter().flatten() {
        collect_rules(&format!("{path}.{name}"), child, rules);
        collect_rules(&format!("{path}.{name}[]"), &child["items"], rules);
    }
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
