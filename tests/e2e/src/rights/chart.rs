//! What the chart grants, by the objects that it renders.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{RELEASE, Right, Scope};

/// The rights that the bindings among `objects` give to the operator's account; `watched` are the namespaces that are listed,
/// none for all.
///
/// # Errors
/// Something is bound to somebody else, a role is missing or bound to nobody, or the watched namespaces differ from each other.
pub fn granted(objects: &[Value], watched: &[String]) -> Result<BTreeSet<Right>> {
    let mut bound = BTreeSet::new();
    let mut rights = BTreeMap::<&str, BTreeSet<Right>>::new();
    for binding in objects.iter().filter(|object| kind(object).ends_with("RoleBinding")) {
        is_of_the_account(binding)?;
        let role = role_of(binding, objects)?;
        bound.insert(id(role));
        let namespace = text(&binding["metadata"]["namespace"]);
        let scope = Scope::of(namespace, watched);
        rights.entry(namespace).or_default().extend(rules(role, scope)?);
    }
    let is_unbound = |role: &&Value| ["Role", "ClusterRole"].contains(&kind(role)) && !bound.contains(&id(role));
    let unbound: Vec<_> = objects.iter().filter(is_unbound).map(id).collect();
    ensure!(unbound.is_empty(), "bound to nobody: {unbound:?}");
    if let Some((first, others)) = watched.split_first() {
        let of = |namespace: &String| rights.get(namespace.as_str());
        let odd: Vec<_> = others.iter().filter(|other| of(other) != of(first)).collect();
        ensure!(odd.is_empty(), "other rights in {odd:?} than in {first}");
    }
    Ok(rights.into_values().flatten().collect())
}

fn kind(object: &Value) -> &str {
    text(&object["kind"])
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn id(role: &Value) -> (&str, &str, &str) {
    (kind(role), text(&role["metadata"]["namespace"]), text(&role["metadata"]["name"]))
}

fn is_of_the_account(binding: &Value) -> Result<()> {
    let account = serde_json::json!([{"kind": "ServiceAccount", "name": RELEASE, "namespace": RELEASE}]);
    ensure!(binding["subjects"] == account, "{:?} is bound to {}", id(binding), binding["subjects"]);
    Ok(())
}

fn role_of<'a>(binding: &'a Value, objects: &'a [Value]) -> Result<&'a Value> {
    let reference = &binding["roleRef"];
    let namespace = if reference["kind"] == "Role" { text(&binding["metadata"]["namespace"]) } else { "" };
    let wanted = (text(&reference["kind"]), namespace, text(&reference["name"]));
    objects.iter().find(|object| id(object) == wanted).with_context(|| format!("no {wanted:?}"))
}

fn rules(role: &Value, scope: Scope) -> Result<Vec<Right>> {
    let mut rights = Vec::new();
    for rule in role["rules"].as_array().context("a role without rules")? {
        let list = |field: &str| words(&rule[field]).with_context(|| format!("{field} of {:?}", id(role)));
        let names: Vec<_> = match rule.get("resourceNames") {
            None => vec![None],
            Some(_) => list("resourceNames")?.into_iter().map(Some).collect(),
        };
        for group in list("apiGroups")? {
            for resource in list("resources")? {
                for name in &names {
                    let right = |verb| Right {
                        scope,
                        group: group.clone(),
                        resource: resource.clone(),
                        name: name.clone(),
                        verb,
                    };
                    rights.extend(list("verbs")?.into_iter().map(right));
                }
            }
        }
    }
    Ok(rights)
}

/// A list that holds something, and no wildcard.
fn words(value: &Value) -> Result<Vec<String>> {
    let words: Vec<_> = value.as_array().into_iter().flatten().map(|word| text(word).to_owned()).collect();
    if words.is_empty() || words.iter().any(|word| word.contains('*')) {
        bail!("{value}");
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn role(namespace: &str, rules: &Value) -> [Value; 2] {
        let metadata = json!({"name": "r", "namespace": namespace});
        let subject = json!({"kind": "ServiceAccount", "name": RELEASE, "namespace": RELEASE});
        let reference = json!({"kind": "Role", "name": "r"});
        [
            json!({"kind": "Role", "metadata": metadata, "rules": rules}),
            json!({"kind": "RoleBinding", "metadata": metadata, "roleRef": reference, "subjects": [subject]}),
        ]
    }

    #[test]
    fn rules_are_every_verb_on_every_resource_by_every_name() {
        let rules = json!([{"apiGroups": ["", "x"], "resources": ["a"], "resourceNames": ["n", "m"], "verbs": ["get", "list"]}]);
        let rights = granted(&role("one", &rules), &["one".to_owned()]).unwrap();
        assert_eq!(rights.len(), 8);
        assert!(rights.iter().all(|right| right.scope == Scope::Watched && right.name.is_some()));
    }

    #[test]
    fn what_is_no_list_of_the_accounts_own_rights_is_refused() {
        let rule = |verb: &str| json!([{"apiGroups": [""], "resources": ["a"], "verbs": [verb]}]);
        let watched = ["one".to_owned(), "two".to_owned()];
        let refused = |objects: &[Value]| format!("{:#}", granted(objects, &watched).unwrap_err());
        assert!(refused(&role("one", &rule("*"))).contains("verbs of"));
        let differ = [role("one", &rule("get")), role("two", &rule("list"))].concat();
        assert!(refused(&differ).contains("[\"two\"]"));
        let mut another = role("one", &rule("get"));
        another[1]["subjects"][0]["name"] = json!("default");
        assert!(refused(&another).contains("is bound to"));
        assert!(refused(&role("one", &rule("get"))[..1]).contains("bound to nobody"));
        assert!(granted(&[role("one", &rule("get")), role("two", &rule("get"))].concat(), &watched).is_ok());
    }
}
