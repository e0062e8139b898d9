//! The charts and the kustomize base: what they render, and that they refuse values they don't know.
//!
//! No cluster is needed, only `helm` (that of the environment variable `HELM`, else the harness's) and `kubectl`.

mod chart_rights;
mod chart_support;

use std::collections::{BTreeMap, BTreeSet};

use chart_support::{CRDS, HELM, OPERATOR, RELEASE, documents, of_kind, read, refusal, render, root, succeed};
use harness::tools::{Tool, Tools};
use serde_json::{Value, json};

fn schema() -> Value {
    serde_json::from_str(&read(&format!("{OPERATOR}/values.schema.json"))).unwrap()
}

/// Where a key may stand: the keys that lead there, `None` for an entry of a list.
type Level = Vec<Option<String>>;

/// Calls `visit` with every object schema, following references.
fn walk(root: &Value, node: &Value, level: &Level, visit: &mut dyn FnMut(&Level, &Value)) {
    if let Some(reference) = node["$ref"].as_str() {
        let target = root.pointer(reference.trim_start_matches('#')).expect(reference);
        return walk(root, target, level, visit);
    }
    if node["type"] == "object" {
        visit(level, node);
    }
    if node["items"].is_object() {
        walk(root, &node["items"], &[level.as_slice(), &[None]].concat(), visit);
    }
    for (key, child) in node["properties"].as_object().into_iter().flatten() {
        walk(root, child, &[level.as_slice(), &[Some(key.clone())]].concat(), visit);
    }
}

/// `value` wrapped in what leads to `level`.
fn nest(level: &Level, value: Value) -> Value {
    level.iter().rev().fold(value, |inner, step| match step {
        Some(key) => json!({ key: inner }),
        None => json!([inner]),
    })
}

fn pointer(level: &Level) -> String {
    level.iter().map(|step| format!("/{}", step.as_deref().unwrap_or("0"))).collect()
}

#[test]
fn helm_lint_finds_nothing() {
    for chart in [OPERATOR, CRDS] {
        succeed(&HELM, &["lint", "--strict", chart]);
    }
}

#[test]
fn every_object_of_the_schema_says_which_keys_it_has_or_is_a_map_of_scalars() {
    let schema = schema();
    let mut levels = 0;
    walk(&schema, &schema, &Level::new(), &mut |level, node| {
        levels += 1;
        let at = pointer(level);
        assert!(node["description"].is_string(), "{at} has no description");
        match &node["additionalProperties"] {
            Value::Bool(false) => assert!(node["properties"].is_object(), "{at} has no keys"),
            Value::Object(scalar) => assert_ne!(scalar["type"], "object", "{at}"),
            // Helm hands the parent chart's globals to every part; they are not this chart's to judge.
            other => assert!(at == "/global" && other.is_null(), "{at} takes any key: {other}"),
        }
    });
    assert!(levels > 40, "only {levels} levels were visited");
}

#[test]
fn a_key_that_is_not_known_is_refused_at_every_level() {
    let schema = schema();
    let (mut closed, mut maps) = (Vec::new(), Vec::new());
    walk(&schema, &schema, &Level::new(), &mut |level, node| match &node["additionalProperties"] {
        Value::Bool(false) => closed.push(level.clone()),
        Value::Object(_) => maps.push(level.clone()),
        _ => {}
    });
    for level in &closed {
        let refused = refusal(OPERATOR, &nest(level, json!({ "mistyped": 1 })));
        let expected = format!("at '{}': additional properties 'mistyped' not allowed", pointer(level));
        assert!(refused.contains(&expected), "{expected}, in: {refused}");
    }
    for level in &maps {
        let refused = refusal(OPERATOR, &nest(level, json!({ "misplaced": { "replicas": 3 } })));
        assert!(refused.contains(&format!("at '{}/misplaced': got object", pointer(level))), "{refused}");
    }
    let refused = refusal(CRDS, &json!({ "mistyped": 1 }));
    assert!(refused.contains("additional properties 'mistyped' not allowed"), "{refused}");
}

#[test]
fn a_value_of_the_wrong_kind_is_refused_with_its_place() {
    let cases = [
        ("/replicas", json!({ "replicas": "two" })),
        ("/replicas", json!({ "replicas": -1 })),
        ("/image/pullPolicy", json!({ "image": { "pullPolicy": "Sometimes" } })),
        ("/image/digest", json!({ "image": { "digest": "md5:0" } })),
        ("/image/repository", json!({ "image": { "repository": "name:tag" } })),
        ("/metrics/port", json!({ "metrics": { "port": 8081 } })),
        ("/formerIdentities/0", json!({ "formerIdentities": ["one,two"] })),
        ("/logFormat", json!({ "logFormat": "xml" })),
        ("/temporalCallsPerSecond", json!({ "temporalCallsPerSecond": 0 })),
        ("/rbac/restrictWatchNamespaces", json!({ "rbac": { "restrictWatchNamespaces": ["a", "a"] } })),
        ("/rbac/restrictWatchNamespaces/0", json!({ "rbac": { "restrictWatchNamespaces": ["Not_A_Name"] } })),
        (
            "/workerResourceTemplate/allowedResources/0/resources/0",
            json!({ "workerResourceTemplate": { "allowedResources": [
                { "kinds": ["Any"], "apiGroups": ["a"], "resources": ["*"] }] } }),
        ),
        ("/resources/limits/memory", json!({ "resources": { "limits": { "memory": "256Mx" } } })),
    ];
    for (at, values) in cases {
        let refused = refusal(OPERATOR, &values);
        assert!(refused.contains(&format!("at '{at}': ")), "{at}, in: {refused}");
    }
    let refused = refusal(OPERATOR, &json!({ "serviceAccount": { "create": false } }));
    assert!(refused.contains("serviceAccount.name: is empty"), "{refused}");
}

#[test]
fn values_reach_the_pods() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let objects = render(
        OPERATOR,
        &json!({
            "replicas": 3,
            "image": { "repository": "localhost:5000/team/operator", "tag": "v9", "pullSecrets": [{ "name": "key" }] },
            "runtimeImage": { "repository": "localhost:5000/team/runtime", "digest": digest },
            "temporalCallsPerSecond": 60,
            "formerIdentities": ["old/ns/u-1", "older"],
            "logFormat": "text",
            "logLevel": "debug",
            "recordDecisions": true,
            "metrics": { "port": 9090 },
            "podLabels": { "team": "a" },
            "podSecurityContext": { "runAsUser": null },
            "nodeSelector": { "pool": "system" },
            "tolerations": [{ "key": "system", "operator": "Exists" }],
            "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
                { "topologyKey": "zone", "labelSelector": { "matchLabels": { "a": "b" } } }] } },
            "priorityClassName": "system-cluster-critical",
        }),
    );
    let spec = &of_kind(&objects, "Deployment")[0]["spec"];
    let pod = &spec["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(spec["replicas"], 3);
    assert_eq!(spec["template"]["metadata"]["labels"]["team"], "a");
    assert_eq!(container["image"], "localhost:5000/team/operator:v9");
    assert_eq!(pod["imagePullSecrets"][0]["name"], "key");
    assert_eq!(pod["securityContext"].get("runAsUser"), None);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["nodeSelector"]["pool"], "system");
    assert_eq!(pod["tolerations"][0]["key"], "system");
    let anti_affinity = pod["affinity"]["podAntiAffinity"].as_object().unwrap();
    assert_eq!(anti_affinity.keys().collect::<Vec<_>>(), ["requiredDuringSchedulingIgnoredDuringExecution"]);
    assert_eq!(pod["priorityClassName"], "system-cluster-critical");
    let variables: BTreeMap<&str, &Value> = container["env"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["name"].as_str().unwrap(), &entry["value"]))
        .collect();
    assert_eq!(*variables["RUNTIME_IMAGE"], format!("localhost:5000/team/runtime@{digest}"));
    assert_eq!(variables["TEMPORAL_CALLS_PER_SECOND"], "60");
    assert_eq!(variables["FORMER_IDENTITIES"], "old/ns/u-1,older");
    assert_eq!(variables["LOG_FORMAT"], "text");
    assert_eq!(variables["LOG_LEVEL"], "debug");
    assert_eq!(variables["RECORD_DECISIONS"], "/recordings/decisions.jsonl");
    let recordings = |list: &Value| list[0]["name"] == "recordings";
    assert!(recordings(&container["volumeMounts"]) && recordings(&pod["volumes"]), "{pod}");
    assert!(!variables.contains_key("WATCH_NAMESPACES"), "all namespaces are watched");
    assert!(container["args"].as_array().unwrap().contains(&json!("--metrics-bind-address=:9090")));
    assert_eq!(of_kind(&objects, "Service")[0]["spec"]["ports"][0]["port"], 9090);
}

#[test]
fn the_pods_meet_the_restricted_pod_security_standard() {
    let objects = render(OPERATOR, &json!({}));
    let pod = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let context = &pod["containers"][0]["securityContext"];
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["readOnlyRootFilesystem"], true);
    assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }));
    for forbidden in ["hostNetwork", "hostPID", "hostIPC", "volumes"] {
        assert_eq!(pod.get(forbidden), None, "{forbidden}");
    }
}

/// `verb group/resource` of everything that a set of roles allows.
fn allowed(roles: &[&Value]) -> BTreeSet<String> {
    let list = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|entry| entry.as_str().unwrap().to_owned()).collect()
    };
    let mut allowed = BTreeSet::new();
    for rule in roles.iter().flat_map(|role| role["rules"].as_array().unwrap()) {
        for group in list(&rule["apiGroups"]) {
            for resource in list(&rule["resources"]) {
                allowed.extend(list(&rule["verbs"]).iter().map(|verb| format!("{verb} {group}/{resource}")));
            }
        }
    }
    allowed
}

#[test]
fn restricted_to_namespaces_nothing_is_cluster_wide() {
    let objects = render(OPERATOR, &json!({ "rbac": { "restrictWatchNamespaces": ["team-a", "team-b"] } }));
    assert!(objects.iter().all(|object| !object["kind"].as_str().unwrap().starts_with("Cluster")));
    let variables = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["env"];
    assert!(variables.as_array().unwrap().contains(&json!({ "name": "WATCH_NAMESPACES", "value": "team-a,team-b" })));
}

#[test]
fn templates_are_on_with_their_policy_and_the_operator_has_their_rights_only_then() {
    let entry = json!({ "kinds": ["ScaledObject"], "apiGroups": ["keda.sh"], "resources": ["scaledobjects"] });
    let rendered = |restricted: Value, create: bool| {
        let rbac = json!({ "restrictWatchNamespaces": restricted, "resourceTemplates": true });
        let templates = json!({ "allowedResources": [entry], "policy": { "create": create } });
        render(OPERATOR, &json!({ "rbac": rbac, "workerResourceTemplate": templates }))
    };
    let of = |objects: &[Value]| allowed(&[of_kind(objects, "ClusterRole"), of_kind(objects, "Role")].concat());
    let variables = |objects: &[Value]| of_kind(objects, "Deployment")[0]["spec"].to_string();
    for restricted in [json!([]), json!(["team-a"])] {
        let objects = rendered(restricted.clone(), true);
        let (policies, bindings) =
            (of_kind(&objects, "ValidatingAdmissionPolicy"), of_kind(&objects, "ValidatingAdmissionPolicyBinding"));
        assert_eq!(policies[0]["spec"]["failurePolicy"], "Fail");
        assert_eq!(bindings[0]["spec"]["policyName"], policies[0]["metadata"]["name"]);
        assert_eq!(bindings[0]["spec"]["validationActions"], json!(["Deny"]));
        let namespaces = &bindings[0]["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"][0]["values"];
        assert_eq!(*namespaces, if restricted == json!([]) { Value::Null } else { restricted.clone() });
        let verbs = ["create", "delete", "get", "patch"].map(|verb| format!("{verb} keda.sh/scaledobjects"));
        let rules = of(&objects);
        assert_eq!(rules.iter().filter(|rule| rule.contains("keda.sh")).cloned().collect::<Vec<_>>(), verbs);
        assert!(!rules.iter().any(|rule| rule.contains("autoscaling")), "the default is replaced: {rules:?}");
        let role = of_kind(&objects, "ClusterRole")
            .into_iter()
            .find(|role| role["metadata"]["name"] == policies[0]["metadata"]["name"]);
        assert_eq!(role.unwrap()["rules"][0]["resourceNames"][0], policies[0]["metadata"]["name"]);
        let name = policies[0]["metadata"]["name"].as_str().unwrap();
        assert!(variables(&objects).contains(name) && variables(&objects).contains("ALLOWED_KINDS"));
        let without = rendered(restricted, false);
        assert!(of_kind(&without, "ValidatingAdmissionPolicy").is_empty());
        assert!(
            !of(&without).iter().any(|rule| rule.contains("keda.sh")) && !variables(&without).contains("ALLOWED_KINDS")
        );
    }
}

/// Names what differs; the whole of it would fill pages.
fn assert_same(left: &BTreeMap<String, Value>, right: &BTreeMap<String, Value>) {
    assert_eq!(left.keys().collect::<Vec<_>>(), right.keys().collect::<Vec<_>>());
    let differing: Vec<_> =
        left.iter().filter(|(name, object)| right[*name] != **object).map(|(name, _)| name).collect();
    assert!(differing.is_empty(), "{differing:?} differ; run charts/sync-crds.sh and deploy/kustomize/render.sh");
}

#[test]
fn the_chart_of_the_kinds_adds_to_them_only_that_an_uninstall_keeps_them() {
    let mut rendered = BTreeMap::new();
    for mut crd in render(CRDS, &json!({})) {
        let annotations = crd["metadata"]["annotations"].as_object_mut().unwrap();
        assert_eq!(annotations.remove("helm.sh/resource-policy"), Some(json!("keep")));
        if annotations.is_empty() {
            crd["metadata"].as_object_mut().unwrap().remove("annotations");
        }
        rendered.insert(crd["metadata"]["name"].as_str().unwrap().to_owned(), crd);
    }
    let files = std::fs::read_dir(root().join("crds")).unwrap().map(|file| file.unwrap().path());
    let generated: BTreeMap<_, _> = files
        .flat_map(|file| documents(&std::fs::read_to_string(file).unwrap()))
        .map(|crd| (crd["metadata"]["name"].as_str().unwrap().to_owned(), crd))
        .collect();
    let kinds = [
        "clusterconnections",
        "connections",
        "temporalconnections",
        "temporalworkerdeployments",
        "workerdeployments",
        "workerresourcetemplates",
    ];
    let kinds = kinds.map(|kind| format!("{kind}.temporal.io"));
    assert_eq!(generated.keys().cloned().collect::<Vec<_>>(), kinds);
    assert_same(&rendered, &generated);
}

#[test]
fn the_push_endpoint_is_off_and_needs_tls_or_a_word() {
    let port = |objects: &[Value]| of_kind(objects, "Service").iter().any(|it| it["spec"]["ports"][0]["port"] == 8443);
    assert!(!port(&render(OPERATOR, &json!({}))));
    for push in [json!({"enabled": true}), json!({"enabled": true, "tlsSecret": "tls", "plainHTTP": true})] {
        assert!(refusal(OPERATOR, &json!({ "push": push })).contains("push.tlsSecret"));
    }
    for (push, variable) in
        [(json!({"tlsSecret": "tls"}), "PUSH_TLS_DIR"), (json!({"plainHTTP": true}), "PUSH_PLAIN_HTTP")]
    {
        let mut push = push;
        push["enabled"] = json!(true);
        let objects = render(OPERATOR, &json!({ "push": push }));
        let pod = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"];
        let variables = pod["containers"][0]["env"].to_string();
        assert!(port(&objects) && variables.contains(variable) && variables.contains("POD_IP"), "{variables}");
        assert_eq!(pod["volumes"][0]["secret"]["secretName"].as_str(), push["tlsSecret"].as_str());
    }
}

/// The default values of temporal-worker-controller's chart 0.27.1, with what it switches on by default left out.
fn of_the_controllers_chart() -> Value {
    json!({
        "image": { "repository": "temporalio/temporal-worker-controller", "tag": "", "pullPolicy": "IfNotPresent", "pullSecrets": [] },
        "podAnnotations": {}, "podLabels": {}, "nodeSelector": {}, "tolerations": [], "affinity": {}, "replicas": 2,
        "resources": { "limits": { "cpu": "500m", "memory": "128Mi" }, "requests": { "cpu": "10m", "memory": "64Mi" } },
        "terminationGracePeriodSeconds": 10, "priorityClassName": "",
        "rbac": { "create": true, "restrictWatchNamespaces": [], "createEndUserRoles": true },
        "serviceAccount": { "create": true, "name": null },
        "securityContext": { "seccompProfile": { "enabled": false } },
        "podSecurityContext": {}, "containerSecurityContext": {},
        "metrics": { "enabled": true, "port": 8080 },
        "namespace": { "create": false },
        "authProxy": { "enabled": false },
        "webhook": { "enabled": false },
        "workerResourceTemplate": { "allowedResources": [
            { "kinds": ["HorizontalPodAutoscaler"], "apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"] }] },
        "certmanager": { "install": false, "enabled": false, "caBundle": "" },
        "prometheus": { "enabled": false },
    })
}

#[test]
fn values_of_the_controllers_chart_mean_the_same() {
    let objects = render(OPERATOR, &of_the_controllers_chart());
    let spec = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"];
    assert_eq!(spec["containers"][0]["resources"]["limits"]["cpu"], "500m");
    assert_eq!(spec.get("priority"), None);
    let objects = render(
        OPERATOR,
        &json!({
            "priority": 7,
            "securityContext": { "seccompProfile": { "enabled": true } },
            "podSecurityContext": { "seccompProfile": null },
            "metrics": { "disableAuth": true },
        }),
    );
    let spec = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"];
    assert_eq!(
        (&spec["priority"], &spec["securityContext"]["seccompProfile"]["type"]),
        (&json!(7), &json!("RuntimeDefault"))
    );
}

#[test]
fn values_of_the_controllers_chart_that_mean_nothing_are_refused_with_what_to_do() {
    let cases = [
        ("authProxy", json!({ "enabled": true }), "NetworkPolicy"),
        ("kubeRBACProxy", json!({ "image": { "tag": "v0.14.1" } }), "NetworkPolicy"),
        ("certmanager", json!({ "enabled": true }), "no certificate is needed"),
        ("webhook", json!({ "enabled": true }), "there is no webhook"),
        ("webhook", json!({ "port": 9443 }), "there is no webhook"),
        ("namespace", json!({ "create": true }), "--create-namespace"),
        ("prometheus", json!({ "enabled": true }), "scrape"),
        ("metrics", json!({ "disableAuth": false }), "metrics.disableAuth"),
    ];
    for (key, value, part) in cases {
        let refused = refusal(OPERATOR, &json!({ key: value }));
        assert!(refused.contains(key) && refused.contains(part), "{key}: {part:?} is not in: {refused}");
        assert!(!refused.contains("additional properties"), "{key}: {refused}");
    }
}

#[test]
fn an_uninstall_takes_the_fleets_only_when_it_is_said() {
    let jobs = |objects: &[Value]| of_kind(objects, "Job").len();
    assert_eq!(jobs(&render(OPERATOR, &json!({}))), 0);
    let objects = render(OPERATOR, &json!({ "uninstall": { "deleteFleets": true } }));
    let job = of_kind(&objects, "Job")[0];
    assert_eq!(job["metadata"]["annotations"]["helm.sh/hook"], "pre-delete");
    assert_eq!(job["spec"]["template"]["spec"]["containers"][0]["args"], json!(["delete-fleets"]));
    assert_eq!(job["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"], true);
    let hooked = |objects: &[Value], kind: &str| {
        let is_hook = |object: &&&Value| object["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete";
        allowed(&of_kind(objects, kind).iter().filter(is_hook).copied().collect::<Vec<_>>())
    };
    let expected: BTreeSet<_> = ["delete temporal.io/workerdeployments".to_owned()].into();
    assert_eq!(hooked(&objects, "ClusterRole"), expected);
    let rbac = json!({ "restrictWatchNamespaces": ["team-a", "team-b"] });
    let limited = render(OPERATOR, &json!({ "uninstall": { "deleteFleets": true }, "rbac": rbac }));
    assert!(limited.iter().all(|object| !object["kind"].as_str().unwrap().starts_with("Cluster")));
    assert_eq!(hooked(&limited, "Role"), expected);
    let env = &of_kind(&limited, "Job")[0]["spec"]["template"]["spec"]["containers"][0]["env"];
    assert_eq!(*env, json!([{ "name": "WATCH_NAMESPACES", "value": "team-a,team-b" }]));
}

#[test]
fn copies_are_what_their_sources_say() {
    succeed(&root().join("charts/sync-crds.sh"), &["--check"]);
    succeed(&root().join("deploy/kustomize/render.sh"), &["--check"]);
}

/// Objects by kind, namespace and name, without the labels that say who rendered them.
fn identified(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let identify = |mut object: Value| {
        let metadata = object["metadata"].as_object_mut().unwrap();
        for map in ["labels", "annotations"] {
            let Some(entries) = metadata.get_mut(map).and_then(Value::as_object_mut) else { continue };
            for key in ["app.kubernetes.io/managed-by", "helm.sh/chart", "helm.sh/resource-policy"] {
                entries.remove(key);
            }
        }
        metadata.retain(|_, value| *value != json!({}));
        let id = format!("{} {} {}", object["kind"], object["metadata"]["namespace"], object["metadata"]["name"]);
        (id, object)
    };
    objects.into_iter().map(identify).collect()
}

#[test]
fn kustomize_installs_the_objects_of_the_charts() {
    let tools = Tools::ensure(&[Tool::Kubectl]).unwrap();
    let kustomized = succeed(tools.program("kubectl").unwrap(), &["kustomize", "deploy/kustomize/base"]);
    let mut kustomized = identified(documents(&kustomized));
    let namespace = kustomized.remove(&format!("\"Namespace\" null \"{RELEASE}\"")).expect("the namespace");
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
    let charts = [render(OPERATOR, &json!({})), render(CRDS, &json!({}))].concat();
    assert_same(&kustomized, &identified(charts));
}

#[test]
fn the_install_guide_lists_every_value_with_its_default() {
    let guide = read("docs/install.md");
    let defaults: Value = serde_yaml::from_str(&read(&format!("{OPERATOR}/values.yaml"))).unwrap();
    for (key, default) in defaults.as_object().unwrap() {
        let free_form = key == "resources" || key.ends_with("SecurityContext");
        let nested = default.as_object().filter(|nested| !free_form && !nested.is_empty());
        let rows: Vec<_> = match nested {
            Some(nested) => nested.iter().map(|(inner, default)| (format!("{key}.{inner}"), default)).collect(),
            None => vec![(key.clone(), default)],
        };
        for (path, default) in rows {
            let row = guide.lines().find(|line| line.starts_with('|') && line.contains(&format!("`{path}`")));
            let row = row.unwrap_or_else(|| panic!("docs/install.md has no row for {path}"));
            let shown =
                default.as_str().filter(|text| !text.is_empty()).map_or_else(|| default.to_string(), str::to_owned);
            let stated = row.contains(&format!("| `{shown}` |")) || default.is_object() || default.is_array();
            assert!(stated, "docs/install.md says another default for {path} than {shown}: {row}");
        }
    }
}
