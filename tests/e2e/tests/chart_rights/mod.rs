//! What the chart grants the operator's account, beside the reviewed list.

use e2e::rights::chart::granted;
use e2e::rights::golden::{self, Condition, Installation};
use e2e::rights::{Right, Scope, needless};
use serde_json::{Value, json};

use crate::chart_support::{OPERATOR, read, render};

/// Every way to install the chart that rights depend on.
fn installations() -> Vec<Installation> {
    let mut all = Vec::new();
    for namespaces in [vec![], vec!["team-a".to_owned(), "team-b".to_owned()]] {
        for chosen in 0..1 << Installation::EXTRAS.len() {
            let extras = Installation::EXTRAS.into_iter().enumerate();
            let with = extras.filter(|(bit, _)| (chosen >> bit) & 1 == 1).map(|(_, extra)| extra).collect();
            all.push(Installation { namespaces: namespaces.clone(), with });
        }
    }
    all
}

/// Rights that an installation of these values gives and the reviewed list does not, and the other way round.
fn unreviewed(installation: &Installation, values: &Value) -> [Vec<Right>; 2] {
    let granted = granted(&render(OPERATOR, values), &installation.namespaces);
    let granted = granted.unwrap_or_else(|error| panic!("{installation:?}: {error:#}"));
    let reviewed = installation.rights().unwrap();
    [granted.difference(&reviewed).cloned().collect(), reviewed.difference(&granted).cloned().collect()]
}

#[test]
fn the_account_gets_the_reviewed_rights_however_the_chart_is_installed() {
    for installation in installations() {
        let [more, less] = unreviewed(&installation, &installation.values());
        let place = "tests/e2e/data/rights.yaml";
        assert!(more.is_empty() && less.is_empty(), "{installation:?}: not in {place}: {more:?}; only there: {less:?}");
        // One right, one rule.
        let rights = installation.rights().unwrap();
        assert!(needless(&rights).is_empty(), "{installation:?}: {:?}", needless(&rights));
    }
}

#[test]
fn a_right_that_nobody_reviewed_is_named_and_one_that_is_missing_too() {
    let installation = Installation { with: vec![Condition::Templates], ..Installation::default() };
    let mut values = installation.values();
    values["workerResourceTemplate"]["allowedResources"] =
        json!([{ "kinds": ["ScaledObject"], "apiGroups": ["keda.sh"], "resources": ["scaledobjects"] }]);
    let [more, less] = unreviewed(&installation, &values)
        .map(|rights| rights.into_iter().map(|right| format!("{} {}", right.verb, right.resource)).collect::<Vec<_>>());
    let all = |resource: &str| ["create", "delete", "get", "patch"].map(|verb| format!("{verb} {resource}"));
    assert_eq!((more, less), (all("scaledobjects").into(), all("horizontalpodautoscalers").into()));
}

#[test]
fn secrets_are_only_got_by_name_and_made_in_the_operators_own_namespace() {
    for installation in installations() {
        let rights = granted(&render(OPERATOR, &installation.values()), &installation.namespaces).unwrap();
        let secrets: Vec<_> =
            rights.iter().filter(|right| right.resource.split('/').next() == Some("secrets")).collect();
        assert!(secrets.iter().all(|right| ["create", "get"].contains(&right.verb.as_str())), "{secrets:?}");
        let made: Vec<_> = secrets.iter().filter(|right| right.verb == "create").collect();
        assert!(made.len() == 1 && made[0].scope == Scope::Own, "{made:?}");
    }
}

#[test]
fn the_install_guide_has_the_reviewed_rights() {
    let table = golden::table().unwrap();
    assert!(read("docs/install.md").contains(&table), "docs/install.md is to have, under Permissions:\n\n{table}");
}
