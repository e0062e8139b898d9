//! One Workflow that uses Workers of all languages, each in a Kubernetes namespace of its own and from zero pods, with everything encrypted.

use std::cell::{Cell, RefCell};
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::fleets::Fleet;
use super::outcome::save_histories;
use super::stage::Stage;
use super::summary::{Replicas, WorkTimes};
use super::table::Table;
use super::{NAMESPACE, all, rest, step, watch};
use crate::client_sidecar::ClientSidecar;
use crate::polyglot::{self, KEY_SECRET, LANGUAGES, WITH_SIDECAR};
use crate::programs::source_root;
use crate::workflows::Workflows;

/// ID of the Workflow.
const WORKFLOW_ID: &str = "greet-everywhere";
/// Who is greeted; nowhere at the server.
const NAME: &str = "Ada Lovelace";
/// Time for starting, greeting and going to zero.
const LIMIT: Duration = Duration::from_secs(300);

/// Plays it.
///
/// # Errors
/// A part can't be started, the answer is wrong, the server holds a plain word, or a fleet did not go from zero and back.
pub async fn play(stage: &Stage, watched: bool) -> Result<()> {
    stage.install().await?;
    // A key as `openssl rand -hex 32` makes one.
    let key: String = (0..32).map(|_| format!("{:02x}", rand::random::<u8>())).collect();
    apply(stage, &key).await?;
    rest(stage, &LANGUAGES, watched).await?;

    step(
        6,
        "Work",
        "a Workflow in Rust that calls an Activity in each language, and signals a Workflow in each that has some",
    );
    let begun = Timestamp::now();
    let sidecar = ClientSidecar::start(
        stage.programs.program("worker-runtime")?,
        (&stage.server.host_port(), NAMESPACE),
        (KEY_SECRET.1, key.as_bytes()),
    )
    .await?;
    println!("      It is started through a sidecar on this machine, so that its argument is encrypted too.");
    let clear = Workflows::connect(sidecar.address(), NAMESPACE).await?;
    polyglot::start(&clear, WORKFLOW_ID, NAME).await?;
    let (answer, closed) = (RefCell::new(Value::Null), Cell::new(None));
    let follow = async {
        *answer.borrow_mut() = polyglot::answer(&clear, WORKFLOW_ID, |_| {}).await?;
        closed.set(Some(Timestamp::now()));
        anyhow::Ok(())
    };
    let note = || match closed.get() {
        None => "the Workflow runs".to_owned(),
        Some(_) => "the Workflow is done; the fleets go to zero when nothing came for a while".to_owned(),
    };
    let is_gone = all(Fleet::is_gone);
    let mut table = Table::new(watched);
    let watching =
        watch((stage, &LANGUAGES), &mut table, LIMIT, note, |fleets| closed.get().is_some() && is_gone(fleets));
    let (fleets, ()) = tokio::try_join!(watching, follow).context("the Workflow did not come to its end")?;
    report(stage, &fleets, &answer.into_inner(), (begun, closed.get())).await
}

async fn apply(stage: &Stage, key: &str) -> Result<()> {
    step(5, "Fleets", "kubectl apply -f deploy/polyglot: six WorkerDeployments, each in a namespace of its team");
    println!("      go, java, python, typescript   a Worker on that language's SDK, behind a sidecar that encrypts");
    println!("      php                            a script, which the shared worker runtime keeps processes of");
    println!("      rust                           a Worker on the runtime's library, with the Workflow");
    let secrets = tempfile::tempdir()?;
    for language in LANGUAGES {
        stage.create_namespace(&polyglot::namespace(language)).await?;
        let file = secrets.path().join(format!("{language}.json"));
        fs::write(&file, polyglot::key_secret(language, key).to_string())?;
    }
    let folder = secrets.path().to_string_lossy().into_owned();
    stage.run("kubectl", &["apply", "-f", &folder]).await?;
    stage.run("kubectl", &["apply", "-f", "deploy/polyglot"]).await.map(drop)
}

/// Saves, shows and judges what came of it.
async fn report(
    stage: &Stage,
    fleets: &[Fleet],
    answer: &Value,
    (begun, closed): (Timestamp, Option<Timestamp>),
) -> Result<()> {
    let folder = source_root().join("target/demo");
    save_histories(stage, &folder, WORKFLOW_ID)?;
    let events = stage.cluster.audit_events()?;
    let work = WorkTimes { accepted: begun, first_completed: closed, last_completed: closed };
    let (mut ways, mut problems) = (Vec::new(), Vec::new());
    for fleet in fleets {
        let replicas = Replicas::of(&events, &polyglot::namespace(&fleet.name), &fleet.children);
        problems.extend(replicas.problems(&fleet.name, &work, 1));
        ways.push(replicas.summary(&fleet.name, &work));
    }
    let raw = Workflows::connect(&stage.server.host_port(), NAMESPACE).await?;
    let hidden = polyglot::check_hidden(&raw, WORKFLOW_ID, &[NAME, "greets", "heard"]).await;
    let took = closed.map(|closed| closed.duration_since(begun).as_secs_f64());
    let summary = json!({"seconds": took, "answer": answer, "workflows": hidden.as_ref().ok(), "fleets": ways});
    fs::write(folder.join("summary.json"), serde_json::to_vec_pretty(&summary)?).context("write summary.json")?;

    println!("\nSummary");
    for said in ["greetings", "heard"].iter().flat_map(|list| answer[*list].as_array().into_iter().flatten()) {
        println!("  {}", said.as_str().unwrap_or_default());
    }
    problems.extend(polyglot::check(answer, NAME).err().map(|error| error.to_string()));
    let read = hidden?;
    let workflows = 1 + WITH_SIDECAR.len();
    ensure!(read == workflows, "{read} Workflows were run, not {workflows}");
    ensure!(problems.is_empty(), "not everything went as it should:\n  {}", problems.join("\n  "));
    println!(
        "  From zero pods to the answer in {:.1} s. In the histories of the {read} Workflows no word of it is plain.",
        took.unwrap_or_default()
    );
    println!("  Written to target/demo: summary.json, and histories/ as the Temporal server returns them.");
    Ok(())
}
