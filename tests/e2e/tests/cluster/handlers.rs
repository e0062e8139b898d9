//! Every kind of handler, and what its container is given.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::bed::{HANDLERS_IMAGE, TOOL_IMAGE};
use e2e::ground::runtime_fleet;
use e2e::tasks::Order;
use e2e::{ClusterBed, Tasks, eventually};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use operator_core::contract::{ENV_DEVICE_INDEX, RUNTIME_CONTAINER};
use serde_json::{Value, json};

const ONCE: &str = r#"echo '"once"'"#;
const POOL: &str = r#"while read -r task; do
    [[ $task =~ \"id\":\ *([0-9]+) ]] && echo "{\"id\": ${BASH_REMATCH[1]}, \"result\": \"pool\"}"
done"#;
/// A service on port 9000 of the loopback address, of Perl without any module.
const SERVICE: &str = r#"
    socket(S, 2, 1, 6) && bind(S, pack("S n a4 x8", 2, 9000, "\x7f\0\0\1")) && listen(S, 16) or die;
    while (accept(C, S)) {
        my $request = "";
        while (sysread(C, my $part, 65536)) {
            $request .= $part;
            my ($head, $body) = split(/\r\n\r\n/, $request, 2);
            next unless defined $body;
            my ($length) = $head =~ /content-length:\s*(\d+)/i;
            last if length($body) >= ($length || 0);
        }
        syswrite(C, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\n\"service\"");
        close C;
    }
"#;

/// A fleet with five Task Queues, and a handler of each kind.
fn fleet(name: &str) -> Value {
    let mut fleet = runtime_fleet(name, "every-0", 2);
    let spec = &mut fleet["spec"];
    spec["scaling"] = json!({"minReplicas": 1, "maxReplicas": 1});
    let runtime = &mut spec["runtime"];
    runtime["taskQueues"] = (0..5).map(|number| json!({"name": format!("every-{number}")})).collect();
    let handlers = [
        ("once", json!({"exec": {"command": ["bash", "-c", ONCE]}})),
        ("pool", json!({"exec": {"command": ["bash", "-c", POOL], "mode": "Pool"}})),
        ("service", json!({"http": {"url": "http://127.0.0.1:9000/run"}})),
        ("image", json!({"image": TOOL_IMAGE, "exec": {"command": ["/handlers/image/bin/echo", "\"image\""]}})),
    ];
    for (name, handler) in handlers {
        let mut named = json!({"name": name});
        named.as_object_mut().expect("an object").extend(handler.as_object().cloned().unwrap_or_default());
        runtime["handlers"].as_array_mut().expect("a list").push(named);
        runtime["activities"].as_array_mut().expect("a list").push(json!({"type": name, "handler": name}));
    }
    let service = json!({"name": "service", "image": HANDLERS_IMAGE, "command": ["perl", "-e", SERVICE]});
    spec["template"] = json!({"spec": {"containers": [service]}});
    fleet
}

/// The results of tasks of a type.
async fn results(tasks: &Tasks, (queue, activity_type): (&str, &str), inputs: Vec<Value>) -> Result<Vec<Value>> {
    let order = Order { activity_type: activity_type.into(), inputs, ..Order::work(queue, 0, 0.0) };
    let burst = tasks.start(&order).await?;
    let activities = tasks.finish(&burst, Duration::from_secs(60)).await?;
    let result = |activity: e2e::history::Activity| {
        ensure!(activity.attempt == 1, "{activity_type}: {activity:?}");
        activity.result.with_context(|| format!("{activity_type} failed: {:?}", activity.failure))
    };
    activities.into_values().map(result).collect()
}

pub async fn one_pod_runs_five_task_queues_and_every_kind_of_handler(bed: Arc<ClusterBed>) -> Result<()> {
    const FLEET: &str = "every";
    let ground = bed.ground("one_pod_runs_five_task_queues").await?;
    ground.apply(&fleet(FLEET)).await?;
    ground.is_current(FLEET).await?;
    let tasks = bed.tasks()?;
    for (queue, kind) in [("every-0", "once"), ("every-1", "pool"), ("every-2", "service"), ("every-3", "image")] {
        let said = results(&tasks, (queue, kind), vec![json!(1), json!(2)]).await?;
        ensure!(said == [json!(kind), json!(kind)], "{kind} said {said:?}");
    }
    let said = results(&tasks, ("every-4", "Work"), vec![json!(0.1)]).await?;
    ensure!(said == [json!(0.1)], "{said:?}");
    ensure!(ground.pods(FLEET).await?.len() == 1, "more than one pod");
    Ok(())
}

pub async fn each_task_has_a_device_of_its_pod(bed: Arc<ClusterBed>) -> Result<()> {
    const FLEET: &str = "devices";
    const DEVICE: &str = "nvidia.com/gpu";
    let ground = bed.ground("each_task_has_a_device_of_its_pod").await?;
    let nodes = Api::<Node>::all(bed.client.clone());
    let node = nodes.list(&Default::default()).await?.items.pop().and_then(|node| node.metadata.name);
    let capacity = Patch::Merge(json!({"status": {"capacity": {DEVICE: "2"}}}));
    nodes.patch_status(&node.context("no node")?, &PatchParams::default(), &capacity).await?;

    let mut fleet = runtime_fleet(FLEET, FLEET, 1);
    let spec = &mut fleet["spec"];
    spec["scaling"] = json!({"minReplicas": 1, "maxReplicas": 1});
    spec["runtime"]["taskQueues"][0]["slotsPer"] = json!(DEVICE);
    let print = format!("sleep 5; echo \"${{{ENV_DEVICE_INDEX}:-null}}\"");
    spec["runtime"]["handlers"][0]["exec"]["command"] = json!(["bash", "-c", print]);
    let limits = json!({"limits": {DEVICE: "2"}});
    spec["template"] = json!({"spec": {"containers": [{"name": RUNTIME_CONTAINER, "resources": limits}]}});
    ground.apply(&fleet).await?;
    ground.is_current(FLEET).await?;

    let scheduled = eventually("the pod has the devices", async || {
        let pod = ground.pods(FLEET).await?.pop().context("no pod")?;
        ensure!(pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()).is_some(), "it was not scheduled");
        Ok(pod)
    })
    .await?;
    let containers = scheduled.spec.unwrap_or_default().containers;
    let requests = containers.iter().filter_map(|one| one.resources.as_ref()?.requests.as_ref()?.get(DEVICE));
    ensure!(requests.map(|units| units.0.as_str()).eq(["2"]), "{containers:?}");
    // Two tasks at a time, so that they have a device each.
    let said = results(&bed.tasks()?, (FLEET, "Work"), vec![json!(0), json!(0)]).await?;
    let devices: BTreeSet<_> = said.iter().filter_map(Value::as_u64).collect();
    ensure!(devices == BTreeSet::from([0, 1]), "the tasks had {said:?}");
    Ok(())
}
