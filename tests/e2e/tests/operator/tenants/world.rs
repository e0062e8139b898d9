//! Two tenants, the ways to their Temporal server, and an operator that serves both.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use e2e::host::{Operator, install_kinds};
use e2e::shortening::Shortening;
use e2e::witness::{Call, Witness};
use e2e::{Ground, eventually};
use harness::ControlPlane;
use harness::control_plane::free_ports;
use harness::programs::Programs;
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use operator_core::api::{ClusterConnection, WorkerDeployment};
use operator_core::names::PUSH_KEY_SECRET;
use operator_core::push_token::PushKey;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use super::super::old_kinds::install_old_kinds;
use super::super::orders;

/// The tenant whose things are wanted, and the one that wants them: Kubernetes and Temporal namespaces.
pub const A: &str = "tenant-a";
pub const B: &str = "tenant-b";
/// Addresses of the server: of each tenant, and of what both use.
pub const OF_A: &str = "a";
pub const OF_B: &str = "b";
pub const OF_BOTH: &str = "both";
/// Fleets of the same name in both namespaces, in one Temporal namespace.
pub const COMMON: [&str; 5] = ["common-0", "common-1", "common-2", "common-3", "common-4"];
/// What the argument of a gate of A holds.
pub const ARGUMENT: &str = "argument-of-a-7b1e";
const POLICY: &str = "tenants";
const KINDS: &str = "ConfigMap,PodDisruptionBudget,HorizontalPodAutoscaler";

/// API keys.
pub struct Keys {
    /// Those of tenant A: the first is replaced by the second.
    pub of_a: [String; 4],
    /// That of tenant B.
    pub of_b: String,
}

/// Where a pod of B would be read: whoever connects is counted.
pub struct Visits {
    pub port: u16,
    count: Arc<AtomicUsize>,
    accepting: AbortHandle,
}

impl Drop for Visits {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Visits {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (port, count) = (listener.local_addr()?.port(), Arc::new(AtomicUsize::new(0)));
        let counted = count.clone();
        let accepting = tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        Ok(Self { port, count, accepting: accepting.abort_handle() })
    }

    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

/// All of it.
pub struct World {
    pub control_plane: ControlPlane,
    pub client: Client,
    pub a: Ground,
    pub b: Ground,
    pub keys: Keys,
    pub witness: Witness,
    pub visits: Visits,
    pub operator: Operator,
    pub push_port: u16,
    /// `host:port` of the server itself.
    pub server: String,
    _short: Shortening,
}

impl World {
    /// Starts it before the server at `server`, which has a namespace for each tenant, and waits until A's fleets are served.
    pub async fn start(programs: &Programs, server: &str, environment: &[(&str, &str)]) -> Result<Self> {
        let control_plane = ControlPlane::start().await?;
        let client = control_plane.client();
        install_kinds(&client).await?;
        install_old_kinds(&client).await?;
        install_policy(&client).await?;
        let short = Shortening::start(client.clone()).await?;
        let [push_port] = free_ports()?;
        let operator = operator(programs, short.kubeconfig(), push_port, environment).await?;
        let key = |of: &str| format!("{of}-{:032x}", rand::random::<u128>());
        let keys = Keys { of_a: ["a-one", "a-two", "a-second", "a-only"].map(key), of_b: key("b") };
        let world = Self {
            a: Ground::bare(client.clone(), A).await?,
            b: Ground::bare(client.clone(), B).await?,
            witness: Witness::start(server, &[OF_A, OF_B, OF_BOTH]).await?,
            visits: Visits::start().await?,
            control_plane,
            client,
            keys,
            operator,
            push_port,
            server: server.to_owned(),
            _short: short,
        };
        world.furnish_a().await.with_context(|| world.operator.log().unwrap_or_default())?;
        world.furnish_b().await?;
        Ok(world)
    }

    /// What A has. Its fleets work before there is anything of B.
    async fn furnish_a(&self) -> Result<()> {
        let labels = Patch::Merge(json!({"metadata": {"labels": {"team": "a"}}}));
        Api::<Namespace>::all(self.client.clone()).patch(A, &PatchParams::default(), &labels).await?;
        let [first, _, second, only] = &self.keys.of_a;
        for (name, key) in [("credentials", first), ("second", second), ("only-a", only)] {
            self.a.apply(&secret(name, "key", key)).await?;
        }
        self.witness.look_for(ARGUMENT);
        let argument = json!({"password": ARGUMENT}).to_string();
        self.a.apply(&secret("argument", "key", &argument)).await?;
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "argument"}, "data": {"key": argument}});
        self.a.apply(&map).await?;
        self.a.apply(&secret("ca", "ca.crt", &self.witness.authority)).await?;
        for (name, key) in [("temporal", "credentials"), ("second", "second"), ("private", "credentials")] {
            self.a.apply(&self.connection(name, OF_A, key)).await?;
        }
        for spare in ["spare-0", "spare-1", "spare-2"] {
            self.a.apply(&self.connection(spare, OF_A, "credentials")).await?;
        }
        self.share("both", OF_BOTH, &json!(null)).await?;
        self.share("by-label", OF_A, &json!({"selector": {"matchLabels": {"team": "a"}}})).await?;
        let own = |name: &str| json!({"name": name});
        let shared = |name: &str| json!({"kind": "ClusterConnection", "name": name});
        let mut fleets = vec![
            fleet("payments", A, &own("temporal")),
            fleet("ledger", A, &own("second")),
            fleet("billing", A, &shared("both")),
            fleet("invoices", A, &shared("by-label")),
        ];
        fleets.extend(COMMON.iter().map(|name| fleet(name, "default", &own("temporal"))));
        for fleet in &mut fleets {
            fleet["spec"]["replicas"] = json!(1);
            self.a.apply(fleet).await?;
        }
        for fleet in ["payments", "ledger", "billing", "invoices"] {
            self.works(&self.a, fleet).await?;
        }
        Ok(())
    }

    /// What B has by right.
    async fn furnish_b(&self) -> Result<()> {
        self.b.apply(&secret("credentials", "key", &self.keys.of_b)).await?;
        self.b.apply(&secret("ca", "ca.crt", &self.witness.authority)).await?;
        self.b.apply(&self.connection("temporal", OF_B, "credentials")).await?;
        self.b.apply(&fleet("orders", B, &json!({"name": "temporal"}))).await.map(drop)
    }

    /// Waits until a fleet's server answers.
    pub async fn works(&self, ground: &Ground, fleet: &str) -> Result<()> {
        eventually(&format!("the server of {}/{fleet} answers", ground.namespace), async || {
            ground.has_condition(fleet, ("ConnectionHealthy", "True", "ConnectionHealthy")).await.map(drop)
        })
        .await
    }

    /// A Connection to an address, by an API key.
    pub fn connection(&self, name: &str, address: &str, secret: &str) -> Value {
        json!({"apiVersion": "temporal.io/v1alpha1", "kind": "Connection", "metadata": {"name": name},
            "spec": self.connection_spec(address, secret)})
    }

    pub fn connection_spec(&self, address: &str, secret: &str) -> Value {
        json!({"hostPort": self.witness.host_port(address), "apiKeySecretRef": {"name": secret, "key": "key"},
            "tls": {"caCertSecretRef": {"name": "ca"}}})
    }

    /// A ClusterConnection as an administrator makes it.
    pub fn cluster_connection(&self, name: &str, address: &str, secret: &str, allowed: &Value) -> Value {
        let mut spec = self.connection_spec(address, secret);
        if !allowed.is_null() {
            spec["allowedNamespaces"] = allowed.clone();
        }
        json!({"apiVersion": "temporal.io/v1alpha1", "kind": "ClusterConnection", "metadata": {"name": name}, "spec": spec})
    }

    async fn share(&self, name: &str, address: &str, allowed: &Value) -> Result<()> {
        apply_to_cluster(&self.client, &self.cluster_connection(name, address, "credentials", allowed)).await
    }

    /// UID of a fleet.
    pub async fn uid(&self, ground: &Ground, fleet: &str) -> Result<String> {
        ground.fleet(fleet).await?.metadata.uid.context("no uid")
    }

    /// The key that the operator signs push tokens with.
    pub async fn push_key(&self) -> Result<PushKey> {
        let path = format!("http://127.0.0.1:{}/apis/apps/v1/namespaces/{B}/deployments/orders", self.push_port);
        eventually("there is a key of push tokens", async || {
            // Whoever calls has it made, should it not be there.
            reqwest::Client::new().get(&path).bearer_auth("none").send().await?;
            let secrets: Api<Secret> = Api::namespaced(self.client.clone(), "default");
            let data = secrets.get(PUSH_KEY_SECRET).await?.data.unwrap_or_default();
            Ok(PushKey::new(&data.get("key").context("no key in it")?.0)?)
        })
        .await
    }

    /// Calls so far that showed a key of A, or that of B.
    pub fn calls_of(&self, is_a: bool) -> Vec<Call> {
        let keys = if is_a { &self.keys.of_a[..] } else { std::slice::from_ref(&self.keys.of_b) };
        self.witness.seen().into_iter().filter(|call| keys.contains(&call.key)).collect()
    }

    /// Gives A another key; the old one is not taken any more. Waits until the new one is in use wherever A is.
    pub async fn rotate(&self) -> Result<()> {
        let [old, new, ..] = &self.keys.of_a;
        self.a.apply(&secret("credentials", "key", new)).await?;
        self.witness.retire(old);
        eventually("A's new key is in use", async || {
            let seen = self.witness.seen();
            for address in [OF_A, OF_BOTH] {
                ensure!(seen.iter().any(|call| call.address == address && call.key == *new), "not at {address}");
            }
            Ok(())
        })
        .await
    }

    /// Has the operator look at A's fleet `payments` anew.
    pub async fn nudge(&self) -> Result<()> {
        let patch = json!({"metadata": {"annotations": {"nudged": format!("{:016x}", rand::random::<u64>())}}});
        let fleets = self.a.api::<WorkerDeployment>();
        fleets.patch("payments", &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    pub fn stop(self) -> Result<()> {
        let Self { control_plane, operator, a, b, client, .. } = self;
        drop((a, b, client));
        operator.kill()?;
        control_plane.stop()
    }
}

async fn operator(
    programs: &Programs,
    kubeconfig: PathBuf,
    push_port: u16,
    environment: &[(&str, &str)],
) -> Result<Operator> {
    let push = format!("--push-bind-address=127.0.0.1:{push_port}");
    let (kinds, policy) = (format!("--allowed-kinds={KINDS}"), format!("--resource-template-policy={POLICY}"));
    let flags = [push.as_str(), "--push-plain-http", &kinds, &policy];
    Operator::start_with(programs, &kubeconfig, &flags, environment).await
}

/// A policy that refuses nothing of what is tried here, so that it is the operator that does.
async fn install_policy(client: &Client) -> Result<()> {
    let version = "admissionregistration.k8s.io/v1";
    let rule = json!({"apiGroups": ["temporal.io"], "apiVersions": ["*"], "operations": ["CREATE"],
        "resources": ["workerresourcetemplates"]});
    let policy = json!({"apiVersion": version, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": POLICY},
        "spec": {"failurePolicy": "Fail", "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": "true"}]}});
    let binding = json!({"apiVersion": version, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": POLICY},
        "spec": {"policyName": POLICY, "validationActions": ["Deny"]}});
    let admin = PatchParams::apply("admin").force();
    let policies = Api::<ValidatingAdmissionPolicy>::all(client.clone());
    policies.patch(POLICY, &admin, &Patch::Apply(policy)).await?;
    let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(client.clone());
    bindings.patch(POLICY, &admin, &Patch::Apply(binding)).await?;
    Ok(())
}

/// Applies a ClusterConnection.
pub async fn apply_to_cluster(client: &Client, object: &Value) -> Result<()> {
    let name = object["metadata"]["name"].as_str().context("no name")?;
    let api: Api<ClusterConnection> = Api::all(client.clone());
    let applied = api.patch(name, &PatchParams::apply("admin").force(), &Patch::Apply(object)).await;
    applied.map(drop).with_context(|| format!("apply ClusterConnection {name}"))
}

pub fn secret(name: &str, key: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {key: value}})
}

/// A fleet in a Temporal namespace, by a `connectionRef`.
pub fn fleet(name: &str, temporal_namespace: &str, connection: &Value) -> Value {
    let mut fleet = orders();
    fleet["metadata"]["name"] = json!(name);
    fleet["spec"]["workerOptions"] = json!({"connectionRef": connection, "temporalNamespace": temporal_namespace});
    fleet
}
