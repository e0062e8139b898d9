//! Pods that don't start, and handlers that don't work: the cause is named, and nobody else is harmed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::bed::HANDLERS_IMAGE;
use e2e::ground::{Ground, runtime_fleet};
use e2e::tasks::Order;
use e2e::{ClusterBed, eventually};
use serde_json::{Value, json};

fn says(message: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(message.contains(part), "{part:?} is not in: {message}");
    }
    Ok(())
}

/// A fleet whose template has a container that does not start.
fn with_container(name: &str, container: Value) -> Value {
    let mut fleet = runtime_fleet(name, name, 1);
    let mut whole = json!({"name": "service"});
    whole.as_object_mut().expect("an object").extend(container.as_object().cloned().unwrap_or_default());
    fleet["spec"]["template"] = json!({"spec": {"terminationGracePeriodSeconds": 0, "containers": [whole]}});
    fleet
}

async fn fails_with(ground: &Ground, fleet: &str, reason: &str) -> Result<String> {
    eventually(&format!("{fleet} says {reason}"), async || {
        let message = ground.has_condition(fleet, ("Ready", "False", reason)).await?;
        ground.has_condition(fleet, ("Stalled", "True", reason)).await?;
        Ok(message)
    })
    .await
}

pub async fn a_pod_that_does_not_start_is_named_with_cause_and_remedy(bed: Arc<ClusterBed>) -> Result<()> {
    let ground = bed.ground("a_pod_that_does_not_start_is_named_with_cause_and_remedy").await?;
    let images = [
        ("never", json!({"image": "not-loaded:1", "imagePullPolicy": "Never"}), "not-loaded:1", "ErrImageNeverPull"),
        ("pull", json!({"image": "registry.invalid/none:1"}), "registry.invalid/none:1", "ImagePull"),
        ("invalid", json!({"image": "NOT/Valid"}), "NOT/Valid", "InvalidImageName"),
    ];
    for (name, container, ..) in &images {
        ground.apply(&with_container(name, container.clone())).await?;
    }
    let crashing = json!({"image": HANDLERS_IMAGE, "command": ["bash", "-c", "exit 3"]});
    ground.apply(&with_container("crash", crashing)).await?;
    // The control: a fleet beside them.
    ground.apply(&runtime_fleet("good", "good", 1)).await?;

    for (name, _, image, word) in &images {
        let message = fails_with(&ground, name, "PodStartFailed").await?;
        // A pull fails by one word, and waits for the next by another.
        says(&message, &[&format!("Pod {name}-"), "container service", image, "correct the image"])?;
        ensure!(message.contains(word) || (*word == "ImagePull" && message.contains("ErrImagePull")), "{message}");
        eventually("an event says it", async || {
            let events = ground.events(name).await?;
            ensure!(
                events.iter().any(|(reason, note)| reason == "PodStartFailed" && note.contains(image)),
                "{events:?}"
            );
            Ok(())
        })
        .await?;
    }
    let message = fails_with(&ground, "crash", "PodCrashLooping").await?;
    says(&message, &["Pod crash-", "container service", HANDLERS_IMAGE, "kubectl logs"])?;
    eventually("the good fleet is current", async || {
        ground.has_condition("good", ("Ready", "True", "RolloutComplete")).await
    })
    .await?;
    let tasks = bed.tasks()?;
    let burst = tasks.start(&Order::work("good", 2, 0.1)).await?;
    tasks.finish_once_each(&burst, Duration::from_secs(90)).await
}

pub async fn a_handler_that_does_not_work_fails_its_tasks_with_the_cause(bed: Arc<ClusterBed>) -> Result<()> {
    const FLEET: &str = "handlers";
    let ground = bed.ground("a_handler_that_does_not_work_fails_its_tasks_with_the_cause").await?;
    let mut fleet = runtime_fleet(FLEET, FLEET, 4);
    let shell = |script: &str| json!({"command": ["bash", "-c", script]});
    let handlers = [
        ("prose", shell("echo all went well")),
        ("failing", shell("echo the disk is full >&2; exit 7")),
        ("endless", shell("while true; do echo 123456789012345678901234567890; done")),
    ];
    for (name, exec) in &handlers {
        let runtime = &mut fleet["spec"]["runtime"];
        runtime["handlers"].as_array_mut().context("no list")?.push(json!({"name": name, "exec": exec}));
        runtime["activities"].as_array_mut().context("no list")?.push(json!({"type": name, "handler": name}));
    }
    ground.apply(&fleet).await?;
    let expected: [(&str, &[&str]); 3] = [
        ("prose", &["\"prose\"", "not one JSON value", "all went well", "print the result alone"]),
        ("failing", &["\"failing\"", "7", "the disk is full"]),
        ("endless", &["\"endless\"", "2097152", "keep the result in a store"]),
    ];
    let tasks = bed.tasks()?;
    for (activity_type, parts) in expected {
        let mut order = Order::work(FLEET, 1, 0.0);
        order.activity_type = activity_type.to_owned();
        order.attempts = 1;
        let burst = tasks.start(&order).await?;
        let activities = tasks.finish(&burst, Duration::from_secs(120)).await?;
        let activity = activities.into_values().next().context("no activity")?;
        says(&activity.failure.with_context(|| format!("{activity_type} did not fail"))?, parts)?;
    }
    let burst = tasks.start(&Order::work(FLEET, 1, 0.1)).await?;
    tasks.finish_once_each(&burst, Duration::from_secs(60)).await
}
