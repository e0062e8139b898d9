//! The push endpoint over real connections: who is let in, what a hint does, and how a standby relays it.

mod push_support;

use std::sync::Arc;
use std::time::Duration;

use operator_core::names::PUSH_TOKEN_SERIAL_ANNOTATION;
use operator_core::push_token::{Grant, Invalid};
use push_support::{Bed, FLEET, Operator, certificate, key};
use temporal_worker_operator::push::Leader;

#[tokio::test]
async fn a_write_with_the_fleets_token_is_a_hint_and_is_answered_with_its_scale() {
    let bed = Bed::plain(Operator::leading()).await;
    let answer = bed.put(&bed.token(), r#"{"kind":"Scale","spec":{"replicas":1}}"#).await;
    assert_eq!((answer.code, answer.body["kind"].as_str()), (200, Some("Scale")), "{answer:?}");
    assert_eq!(answer.body["metadata"]["name"], "orders");
    assert_eq!(bed.operator.hints(), [FLEET.to_owned()]);
}

#[tokio::test]
async fn a_look_at_the_deployment_or_its_scale_is_answered_and_is_no_hint() {
    let bed = Bed::plain(Operator::leading()).await;
    for (path, kind) in [("", "Deployment"), ("/scale", "Scale")] {
        let answer = bed.call("GET", &format!("{}{path}", bed.path("prod", "orders")), Some(&bed.token()), "").await;
        assert_eq!((answer.code, answer.body["kind"].as_str()), (200, Some(kind)), "{answer:?}");
        assert_eq!(answer.body["spec"]["replicas"], 3);
    }
    assert!(bed.operator.hints().is_empty());
}

#[tokio::test]
async fn what_a_write_says_is_not_read() {
    let bed = Bed::plain(Operator::leading()).await;
    let bodies = [r#"{"spec":{"replicas":1000000}}"#, r#"{"spec":{"replicas":-1}}"#, "k8s\0\u{1}binary", ""];
    for body in bodies {
        let answer = bed.put(&bed.token(), body).await;
        assert_eq!((answer.code, &answer.body["spec"]["replicas"]), (200, &3.into()), "{body:?}: {answer:?}");
    }
    assert_eq!(bed.operator.hints().len(), bodies.len());
}

#[tokio::test]
async fn a_caller_without_a_good_token_is_refused() {
    let bed = Bed::plain(Operator::leading()).await;
    let grant = |uid: &str, serial| Grant { fleet_uid: uid.into(), serial };
    let cases = [
        ("another installation's", key(9).issue(&grant(FLEET, 2)), 401),
        ("another fleet's", key(1).issue(&grant("other", 2)), 403),
        ("a revoked one", key(1).issue(&grant(FLEET, 1)), 403),
        ("one of another kind", "eyJh.eyJz.c2ln".to_owned(), 401),
    ];
    let path = format!("{}/scale", bed.path("prod", "orders"));
    for (what, token, code) in cases {
        let answer = bed.put(&token, "{}").await;
        assert_eq!(answer.code, code, "{what}: {answer:?}");
        assert!(!answer.text.contains(&token) && answer.text.contains("connection: close"), "{what}: {answer:?}");
    }
    assert_eq!(bed.call("PUT", &path, None, "{}").await.code, 401);
    assert!(bed.operator.hints().is_empty());
    assert_eq!(bed.put(&bed.token(), "{}").await.code, 200, "the control: the fleet's own token");
}

#[tokio::test]
async fn a_token_tells_nothing_of_other_fleets() {
    let bed = Bed::plain(Operator::leading()).await;
    let other = bed.call("GET", &bed.path("prod", "payments"), Some(&bed.token()), "").await;
    let nobody = bed.call("GET", &bed.path("prod", "nobody"), Some(&bed.token()), "").await;
    assert_eq!((other.code, &other.body), (403, &nobody.body));
    assert_eq!(nobody.code, 403);
}

#[tokio::test]
async fn a_serial_number_that_is_none_lets_nobody_in_and_says_so() {
    let bed = Bed::plain(Operator::asking_for(Err(Invalid::Serial("two".into())))).await;
    let answer = bed.put(&bed.token(), "{}").await;
    assert_eq!(answer.code, 403);
    assert!(answer.text.contains(PUSH_TOKEN_SERIAL_ANNOTATION), "{answer:?}");
}

#[tokio::test]
async fn a_standby_relays_a_hint_to_the_leader_over_tls() {
    let (_files, certificate) = certificate();
    let leader = Bed::tls(Operator::leading(), certificate.clone()).await;
    let standby = Bed::tls(Operator::leading().with(Leader::At(leader.address)), certificate).await;
    let answer = standby.put(&standby.token(), "{}").await;
    assert_eq!((answer.code, answer.body["kind"].as_str()), (200, Some("Scale")), "{answer:?}");
    assert_eq!(leader.operator.hints(), [FLEET.to_owned()]);
    assert!(standby.operator.hints().is_empty(), "a standby acts on nothing itself");
}

#[tokio::test]
async fn a_standby_does_not_show_a_token_to_somebody_with_another_certificate() {
    let (_files, ours) = certificate();
    let (_others, other) = certificate();
    let stranger = Bed::tls(Operator::leading(), other).await;
    let standby = Bed::tls(Operator::leading().with(Leader::At(stranger.address)), ours).await;
    let answer = standby.put(&standby.token(), "{}").await;
    assert_eq!(answer.code, 503, "{answer:?}");
    assert!(stranger.operator.hints().is_empty());
}

#[tokio::test]
async fn the_leader_has_the_last_word_on_a_relayed_token() {
    let leader = Bed::plain(Operator::asking_for(Ok(3))).await;
    let standby = Bed::plain(Operator::leading().with(Leader::At(leader.address))).await;
    let answer = standby.put(&standby.token(), "{}").await;
    assert_eq!((answer.code, answer.body["reason"].as_str()), (403, Some("Forbidden")), "{answer:?}");
    assert!(leader.operator.hints().is_empty());
}

#[tokio::test]
async fn without_a_leader_the_caller_is_asked_to_come_again() {
    let nobody = Bed::plain(Operator::leading().with(Leader::Nobody)).await;
    let gone = Bed::plain(Operator::leading().with(Leader::At("127.0.0.1:1".parse().unwrap()))).await;
    // Each takes the other for the leader.
    let (first, second) = (Operator::leading(), Operator::leading());
    let (first, second) = (Bed::plain(first).await, Bed::plain(second).await);
    first.operator.set(Leader::At(second.address));
    second.operator.set(Leader::At(first.address));
    for bed in [&nobody, &gone, &first] {
        let answer = bed.put(&bed.token(), "{}").await;
        assert_eq!(answer.code, 503, "{answer:?}");
        assert!(answer.text.contains("retry-after: 1"), "{answer:?}");
        assert!(bed.operator.hints().is_empty());
    }
}

#[tokio::test]
async fn a_fleet_that_calls_too_often_is_told_to_wait_and_nobody_else_is() {
    let bed = Bed::plain(Operator::leading()).await;
    let mut codes = Vec::new();
    while codes.last() != Some(&429) && codes.len() < 2000 {
        let answer = bed.put(&bed.token(), "{}").await;
        if answer.code == 429 {
            assert!(answer.text.contains("retry-after: 1"), "{answer:?}");
        }
        codes.push(answer.code);
    }
    assert_eq!(codes.last(), Some(&429), "never limited in {} calls", codes.len());
    let token = key(1).issue(&Grant { fleet_uid: "payments-uid".into(), serial: 2 });
    let other = bed.call("GET", &bed.path("prod", "payments"), Some(&token), "").await;
    assert_eq!(other.code, 200, "{other:?}");
}

#[tokio::test]
async fn other_paths_verbs_and_large_bodies_are_refused_with_a_status() {
    let bed = Bed::plain(Operator::leading()).await;
    let (deployment, large) = (bed.path("prod", "orders"), "x".repeat(70_000));
    let cases = [
        ("GET", "/api/v1/namespaces/prod/secrets".to_owned(), "", 404),
        ("GET", "/".to_owned(), "", 404),
        ("GET", format!("{deployment}/scale/more"), "", 404),
        ("DELETE", deployment.clone(), "", 405),
        ("PUT", deployment.clone(), "{}", 405),
        ("PUT", format!("{deployment}/scale"), &large, 413),
    ];
    for (method, path, body, code) in cases {
        let answer = bed.call(method, &path, Some(&bed.token()), body).await;
        assert_eq!((answer.code, answer.body["kind"].as_str()), (code, Some("Status")), "{method} {path}: {answer:?}");
    }
    assert!(bed.operator.hints().is_empty());
}

#[tokio::test]
async fn the_token_is_in_no_log() {
    let logs = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(push_support::Sink(logs.clone()))
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let leader = Bed::plain(Operator::leading()).await;
    let standby = Bed::plain(Operator::leading().with(Leader::At(leader.address))).await;
    let token = standby.token();
    assert_eq!(standby.put(&token, "{}").await.code, 200);
    assert_eq!(standby.put(&token.replace(".2.", ".1."), "{}").await.code, 401);
    standby.operator.set(Leader::At("127.0.0.1:1".parse().unwrap()));
    assert_eq!(standby.put(&token, "{}").await.code, 503);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let text = String::from_utf8_lossy(&logs.lock()).into_owned();
    assert!(text.contains("push call"), "nothing was logged: {text}");
    let mac = token.rsplit('.').next().unwrap();
    assert!(!text.contains(mac), "{text}");
}
