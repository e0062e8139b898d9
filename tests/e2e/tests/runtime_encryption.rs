//! Encrypted payloads, against a real Temporal server: nobody who reads the server finds what was planted, and a codec of
//! other make understands every payload.

mod runtime_support;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::codec::{self, KEYS};
use runtime_support::{Activity, NAMESPACE, SOON, Server, Worker, assert_says, config, json_payload, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;
use temporalio_protos::temporal::api::common::v1::Payload;
use temporalio_protos::temporal::api::workflowservice::v1::{
    DescribeActivityExecutionRequest, PollActivityExecutionRequest,
};

const CANARY: &str = "canary-7f3a9c51";

/// Keys `k1` and `k2` in files.
struct Keys(TempDir);

impl Keys {
    fn new() -> Result<Self> {
        let keys = Self(tempfile::tempdir()?);
        for (id, key) in KEYS {
            std::fs::write(keys.file(id), key)?;
        }
        Ok(keys)
    }

    fn file(&self, id: &str) -> PathBuf {
        self.0.path().join(id)
    }

    fn limits(&self, mode: &str, write: &str, read: &[&str]) -> Value {
        let key = |id: &str| json!({"id": id, "file": self.file(id)});
        let read: Vec<_> = read.iter().map(|id| key(id)).collect();
        json!({"encryption": {"mode": mode, "writeKey": key(write), "readKeys": read}})
    }
}

/// A handler that tells the canary in every way there is: as details of a heartbeat, then as a result, or as message, stack
/// trace and details of a failure, which it reads from its arguments.
fn teller() -> Value {
    const TELLER: &str = "import json, sys, time
for line in sys.stdin:
    task = json.loads(line)
    if 'cancel' in task: continue
    canary, fails = task['args'][0]['canary'], task['args'][0]['fails']
    say = lambda **word: print(json.dumps({'id': task['id'], **word}), flush=True)
    say(heartbeat={'seen': canary})
    time.sleep(1)
    if fails: say(failure={'message': canary, 'stackTrace': 'at ' + canary, 'details': [canary]})
    else: say(result={'found': canary})
";
    config(json!({"name": "worker", "exec": {"command": ["python3", "-c", TELLER], "mode": "Pool"}}))
}

fn arguments(fails: bool) -> Payload {
    json_payload(&json!({"canary": CANARY, "fails": fails}))
}

/// Everything that the server knows of an activity, in the words of Rust's debug output, and its payloads' data as text.
async fn all_of(server: &Server, activity_id: &str) -> Result<String> {
    let request = DescribeActivityExecutionRequest {
        namespace: NAMESPACE.to_owned(),
        activity_id: activity_id.to_owned(),
        include_input: true,
        include_outcome: true,
        include_last_failure: true,
        include_heartbeat_details: true,
        ..Default::default()
    };
    let described = server.client.clone().describe_activity_execution(request).await?.into_inner();
    Ok(prost_text(&described))
}

/// The message as bytes, with what is not text replaced: strings and data of payloads are in it as they are.
fn prost_text(message: &impl prost::Message) -> String {
    String::from_utf8_lossy(&message.encode_to_vec()).into_owned()
}

async fn outcome(server: &Server, activity_id: &str) -> Result<(Vec<Payload>, String)> {
    let request = PollActivityExecutionRequest {
        namespace: NAMESPACE.to_owned(),
        activity_id: activity_id.to_owned(),
        run_id: String::new(),
    };
    let answer = wait_for("the end of an activity", SOON, async || {
        let poll = server.client.clone().poll_activity_execution(request.clone()).await.ok()?.into_inner();
        poll.outcome.is_some().then_some(poll)
    })
    .await;
    let text = prost_text(&answer);
    use temporalio_protos::temporal::api::activity::v1::activity_execution_outcome::Value as Outcome;
    let payloads = match answer.outcome.and_then(|outcome| outcome.value) {
        Some(Outcome::Result(payloads)) => payloads.payloads,
        Some(Outcome::Failure(failure)) => failure.encoded_attributes.into_iter().collect(),
        None => Vec::new(),
    };
    Ok((payloads, text))
}

/// Runs the teller both ways, and gives all that the server knows then; the first value are payloads of the outcomes.
async fn told(server: &Server, encrypted: bool) -> Result<(Vec<Payload>, String)> {
    let (mut payloads, mut text) = (Vec::new(), String::new());
    for fails in [false, true] {
        let plain = [arguments(fails)];
        let input = if encrypted { codec::seal("k1", &plain)? } else { plain.into() };
        let heartbeat = Some(Duration::from_secs(30));
        let activity_id = server.start_activity(Activity { input, heartbeat, ..Activity::default() }).await?;
        wait_for("the details of a heartbeat", SOON, async || {
            server.describe(&activity_id).await.ok()?.heartbeat_details.map(drop)
        })
        .await;
        text += &all_of(server, &activity_id).await?;
        let (outcome, outcome_text) = outcome(server, &activity_id).await?;
        text += &outcome_text;
        text += &all_of(server, &activity_id).await?;
        payloads.extend(outcome);
    }
    Ok((payloads, text))
}

#[tokio::test]
async fn who_reads_the_server_finds_nothing_of_what_was_planted() -> Result<()> {
    let (server, keys) = (Server::start().await?, Keys::new()?);
    let worker = Worker::ready(&server, teller(), keys.limits("Require", "k1", &[])).await?;
    let (payloads, text) = told(&server, true).await?;
    assert!(!text.contains(CANARY), "{text}");
    assert!(!worker.log().contains(CANARY), "{}", worker.log());
    // A codec of other make finds it where it should be: in the result, and in the attributes of the failure.
    let opened = codec::open(&payloads)?;
    assert_eq!(opened.len(), 2);
    for payload in &opened {
        assert!(String::from_utf8_lossy(&payload.data).contains(CANARY), "{payload:?}");
    }
    drop(worker);

    // The control: without keys it is everywhere.
    let _worker = Worker::ready(&server, teller(), json!({})).await?;
    let (_, text) = told(&server, false).await?;
    for part in [format!("\"seen\": \"{CANARY}\""), format!("\"found\": \"{CANARY}\""), format!("at {CANARY}")] {
        assert!(text.contains(&part), "{part} is not in {text}");
    }
    Ok(())
}

#[tokio::test]
async fn plain_arguments_are_refused_unless_the_fleet_migrates() -> Result<()> {
    let (server, keys) = (Server::start().await?, Keys::new()?);
    let worker = Worker::ready(&server, runtime_support::exec(&["cat"]), keys.limits("Require", "k1", &[])).await?;
    let activity_id = server.start_activity(Activity::default()).await?;
    let (payloads, _) = outcome(&server, &activity_id).await?;
    let attributes = codec::open(&payloads)?;
    assert_says(&String::from_utf8_lossy(&attributes[0].data), &["not encrypted", "Require", "Migrate"]);
    worker.wait_metric("activity_failures_total", r#"reason="PayloadUnreadable",task_queue="q""#, 1.0).await;
    drop(worker);
    let _worker = Worker::ready(&server, runtime_support::exec(&["cat"]), keys.limits("Migrate", "k1", &[])).await?;
    let activity_id = server.start_activity(Activity::default()).await?;
    let (payloads, _) = outcome(&server, &activity_id).await?;
    let opened = codec::open(&payloads)?;
    assert_eq!(serde_json::from_slice::<Value>(&opened[0].data)?, json!([{"n": 1}]));
    Ok(())
}

#[tokio::test]
async fn an_unknown_key_is_retried_until_it_is_there() -> Result<()> {
    let (server, keys) = (Server::start().await?, Keys::new()?);
    let worker = Worker::ready(&server, runtime_support::exec(&["cat"]), keys.limits("Require", "k1", &[])).await?;
    let input = codec::seal("k2", &[json_payload(&json!(7))])?;
    let activity_id = server.start_activity(Activity { input, attempts: 0, ..Activity::default() }).await?;
    worker.wait_log("can't be decrypted").await;
    assert_says(&worker.log(), &["k2", "readKeys"]);
    worker.write_limits(&keys.limits("Require", "k1", &["k2"]))?;
    let (payloads, _) = outcome(&server, &activity_id).await?;
    let opened = codec::open(&payloads)?;
    assert_eq!(serde_json::from_slice::<Value>(&opened[0].data)?, json!([7]));
    Ok(())
}

/// Starts encrypted activities until it is told to stop.
async fn stream(server: Arc<Server>, stop: Arc<AtomicBool>) -> Result<Vec<String>> {
    let input = codec::seal("k1", &[json_payload(&json!(7))])?;
    let mut started = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let activity = Activity { input: input.clone(), attempts: 0, ..Activity::default() };
        started.push(server.start_activity(activity).await?);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(started)
}

#[tokio::test]
async fn keys_rotate_under_load_and_every_payload_can_be_read() -> Result<()> {
    let (server, keys) = (Arc::new(Server::start().await?), Keys::new()?);
    let worker = Worker::ready(&server, runtime_support::exec(&["cat"]), keys.limits("Require", "k1", &[])).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(stream(server.clone(), stop.clone()));
    let ended = r#"outcome="completed",task_queue="q",task_type="activity""#;
    worker.wait_metric_above("tasks_ended_total", ended, 20.0).await;
    worker.write_limits(&keys.limits("Require", "k2", &["k1"]))?;
    worker.wait_log("encryption keys changed").await;
    let at_change = worker.metric("tasks_ended_total", ended).await.unwrap_or_default();
    worker.wait_metric_above("tasks_ended_total", ended, at_change + 20.0).await;
    stop.store(true, Ordering::SeqCst);
    let mut results = Vec::new();
    for activity_id in load.await?? {
        assert_eq!(server.describe(&activity_id).await?.attempt, 1, "an attempt failed");
        results.extend(outcome(&server, &activity_id).await?.0);
    }
    let written: BTreeSet<_> = results.iter().filter_map(codec::key_of).collect();
    assert_eq!(written, BTreeSet::from(["k1".to_owned(), "k2".to_owned()]));
    for payload in codec::open(&results)? {
        assert_eq!(serde_json::from_slice::<Value>(&payload.data)?, json!([7]));
    }
    Ok(())
}

#[tokio::test]
async fn a_key_that_is_no_key_is_refused_at_start() -> Result<()> {
    let keys = Keys::new()?;
    std::fs::write(keys.file("k1"), "secret-but-short")?;
    let limits = keys.limits("Require", "k1", &[]);
    let mut worker = Worker::start("127.0.0.1:1", &runtime_support::exec(&["cat"]), &limits, &[])?;
    assert_eq!(worker.exit(SOON).await?.code(), Some(1));
    assert_says(&worker.log(), &["k1", "16 bytes", "openssl rand -base64 32"]);
    assert!(!worker.log().contains("secret-but-short"), "{}", worker.log());
    Ok(())
}

/// A codec server that is killed with its value.
struct CodecServer {
    child: std::process::Child,
    url: String,
}

impl Drop for CodecServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const UI: &str = "https://temporal.example.com";

impl CodecServer {
    async fn start(keys: &Keys) -> Result<Self> {
        let folder = keys.0.path();
        let (limits, tokens, log) = (folder.join("limits.json"), folder.join("tokens"), folder.join("codec.log"));
        std::fs::write(&limits, keys.limits("Require", "k1", &["k2"]).to_string())?;
        std::fs::write(&tokens, format!("{TOKEN}\n"))?;
        let child = Command::new(runtime_support::program("worker-runtime"))
            .args([
                "codec-server",
                "--namespace",
                NAMESPACE,
                "--bind-address",
                "127.0.0.1:0",
                "--origin",
                UI,
                "--limits",
            ])
            .arg(limits)
            .arg("--tokens")
            .arg(tokens)
            .stderr(std::fs::File::create(&log)?)
            .spawn()?;
        let mut server = Self { child, url: String::new() };
        server.url = wait_for("an open port", SOON, async || {
            let text = std::fs::read_to_string(&log).ok()?;
            let line: Value = text.lines().find_map(|line| serde_json::from_str(line).ok())?;
            Some(format!("http://{}", line["fields"]["address"].as_str()?))
        })
        .await;
        Ok(server)
    }

    async fn ask(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Result<reqwest::Response> {
        let mut request = reqwest::Client::builder().no_proxy().build()?.post(format!("{}{path}", self.url)).json(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Ok(request.send().await?)
    }
}

fn text_of(payloads: &[Payload]) -> Value {
    json!({"payloads": payloads.iter().map(codec::to_json).collect::<Vec<_>>()})
}

#[tokio::test]
async fn a_codec_server_shows_payloads_to_whom_it_knows_and_to_nobody_else() -> Result<()> {
    let keys = Keys::new()?;
    let server = CodecServer::start(&keys).await?;
    let plain = [json_payload(&json!(CANARY)), json_payload(&json!(7))];
    let sealed = [codec::seal("k1", &plain[..1])?, codec::seal("k2", &plain[1..])?].concat();
    let bearer = format!("Bearer {TOKEN}");
    let (known, browser) = (("authorization", bearer.as_str()), ("origin", UI));

    let answer = server.ask("/decode", &[known], &text_of(&sealed)).await?;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.json::<Value>().await?, text_of(&plain));
    let answer = server.ask("/decode", &[known, browser], &text_of(&plain)).await?;
    assert_eq!(answer.headers()["access-control-allow-origin"], UI);
    assert_eq!(answer.json::<Value>().await?, text_of(&plain), "what is plain stays so");

    let strangers: [(&[(&str, &str)], u16); 5] = [
        (&[], 401),
        (&[("authorization", "Bearer guess")], 401),
        (&[("authorization", TOKEN)], 401),
        (&[known, ("origin", "https://temporal.example.com.evil.example")], 403),
        (&[known, ("origin", "null")], 403),
    ];
    for (headers, status) in strangers {
        let answer = server.ask("/decode", headers, &text_of(&sealed)).await?;
        assert_eq!(answer.status(), status, "{headers:?}");
        assert!(!answer.headers().contains_key("access-control-allow-origin"), "{headers:?}");
        assert!(!answer.text().await?.contains(CANARY), "{headers:?}");
    }
    let answer = server.ask("/encode", &[known], &text_of(&plain[..1])).await?.json::<Value>().await?;
    assert!(answer["payloads"][0]["metadata"]["encryption-key-id"].is_string(), "{answer}");
    assert!(!answer.to_string().contains(&STANDARD.encode(format!("\"{CANARY}\""))));
    Ok(())
}

#[tokio::test]
async fn without_its_tokens_a_codec_server_says_so_to_everyone_and_once_in_its_log() -> Result<()> {
    let keys = Keys::new()?;
    let server = CodecServer::start(&keys).await?;
    let (tokens, bearer) = (keys.0.path().join("tokens"), format!("Bearer {TOKEN}"));
    let ask = async || server.ask("/decode", &[("authorization", &bearer)], &text_of(&[])).await;
    assert_eq!(ask().await?.status(), 200);
    std::fs::rename(&tokens, tokens.with_extension("away"))?;
    for _ in 0..3 {
        let answer = ask().await?;
        assert_eq!(answer.status(), 503);
        assert!(!answer.text().await?.contains(TOKEN));
    }
    assert_eq!(server.ask("/decode", &[], &text_of(&[])).await?.status(), 401, "no token was sent");
    std::fs::rename(tokens.with_extension("away"), &tokens)?;
    assert_eq!(ask().await?.status(), 200);
    let log = std::fs::read_to_string(keys.0.path().join("codec.log"))?;
    for (text, times) in [("every request is refused: token file", 1), ("the tokens can be read again", 1), (TOKEN, 0)]
    {
        assert_eq!(log.matches(text).count(), times, "{text} in {log}");
    }
    Ok(())
}

#[tokio::test]
async fn a_browser_is_told_which_requests_it_may_make() -> Result<()> {
    let keys = Keys::new()?;
    let server = CodecServer::start(&keys).await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let preflight = async |origin: &str| {
        let url = format!("{}/decode", server.url);
        client.request(reqwest::Method::OPTIONS, url).header("origin", origin).send().await
    };
    let allowed = preflight(UI).await?;
    assert_eq!((allowed.status().as_u16(), &allowed.headers()["access-control-allow-origin"]), (204, &UI.parse()?));
    assert!(allowed.headers()["access-control-allow-headers"].to_str()?.contains("authorization"));
    assert_eq!(preflight("http://temporal.example.com").await?.status(), 403, "another scheme is another origin");
    Ok(())
}
