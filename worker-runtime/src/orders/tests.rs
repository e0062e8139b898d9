use std::time::Duration;

use operator_core::cordon::{LONGEST_LIFETIME, Order, OrderKey, SEED_LENGTH};

use super::*;

/// A pod that obeys `key`.
struct Pod {
    orders: Orders,
    cordon: Cordon,
    metrics: Metrics,
    key: OrderKey,
    folder: tempfile::TempDir,
}

const UID: &str = "uid-1";

impl Pod {
    fn new(uid: Option<&str>) -> Self {
        let (folder, key) = (tempfile::tempdir().unwrap(), OrderKey::from_seed(&[7; SEED_LENGTH]).unwrap());
        let (cordon, metrics) = (Cordon::default(), Metrics::new(None).unwrap());
        let file = folder.path().join("limits.json");
        let orders = Orders::new(uid.map(Into::into), Some(file), cordon.clone(), &metrics).unwrap();
        let pod = Self { orders, cordon, metrics, key, folder };
        pod.obeys(&pod.key);
        pod
    }

    /// Writes the limits file, as the kubelet does.
    fn obeys(&self, key: &OrderKey) {
        let limits = RuntimeLimits { order_keys: vec![key.public()], ..RuntimeLimits::default() };
        let text = serde_json::to_vec(&limits).unwrap();
        std::fs::write(self.folder.path().join("limits.json"), text).unwrap();
    }

    async fn post(&self, verb: Verb, body: &[u8]) -> u16 {
        obey(State(self.orders.0.clone()), verb, Bytes::copy_from_slice(body)).await.status().as_u16()
    }

    async fn order(&self, order: Order) -> u16 {
        let verb = order.verb;
        self.post(verb, &serde_json::to_vec(&self.key.sign(order)).unwrap()).await
    }

    fn counted(&self, verb: &str, outcome: &str) -> bool {
        let line = format!("temporal_worker_runtime_orders_total{{outcome=\"{outcome}\",verb=\"{verb}\"}} 1");
        self.metrics.render().contains(&line)
    }
}

fn cordon() -> Order {
    Order::new(Verb::Cordon, UID, Timestamp::now())
}

#[tokio::test]
async fn an_order_of_the_operator_is_obeyed_and_shown() {
    let pod = Pod::new(Some(UID));
    assert!(pod.metrics.render().contains("temporal_worker_runtime_cordoned 0"));
    assert_eq!(pod.order(cordon()).await, 200);
    assert!(pod.cordon.is_on() && pod.counted("cordon", "accepted"));
    assert!(pod.metrics.render().contains("temporal_worker_runtime_cordoned 1"));
    let left = pod.cordon.status().until.unwrap().duration_since(Timestamp::now());
    assert!(left.as_secs() > 50 && left.as_secs() <= 60, "{left:?}");
    assert_eq!(pod.order(Order::new(Verb::Uncordon, UID, Timestamp::now())).await, 200);
    assert!(!pod.cordon.is_on());
}

#[tokio::test]
async fn every_other_order_is_refused_counted_and_changes_nothing() {
    let stranger = OrderKey::from_seed(&[8; SEED_LENGTH]).unwrap();
    let long_ago = Timestamp::now() - Duration::from_secs(45);
    let ahead = Timestamp::now() + Duration::from_secs(45);
    let key = OrderKey::from_seed(&[7; SEED_LENGTH]).unwrap();
    let long = Order { expires_at: Timestamp::now() + 2 * LONGEST_LIFETIME, ..cordon() };
    let cases = [
        (403, "foreign", key.sign(Order::new(Verb::Cordon, "uid-2", Timestamp::now()))),
        (401, "not_signed", stranger.sign(cordon())),
        (410, "out_of_time", key.sign(Order::new(Verb::Cordon, UID, long_ago))),
        (410, "out_of_time", key.sign(Order::new(Verb::Cordon, UID, ahead))),
        (400, "lifetime", key.sign(long)),
        (400, "other_verb", key.sign(Order::new(Verb::Uncordon, UID, Timestamp::now()))),
    ];
    for (status, outcome, signed) in cases {
        let pod = Pod::new(Some(UID));
        assert_eq!(pod.post(Verb::Cordon, &serde_json::to_vec(&signed).unwrap()).await, status, "{signed:?}");
        assert!(!pod.cordon.is_on() && pod.counted("cordon", outcome), "{outcome}: {}", pod.metrics.render());
    }
    let pod = Pod::new(Some(UID));
    assert_eq!(pod.post(Verb::Cordon, b"cordon!").await, 400);
    assert!(pod.counted("cordon", "malformed"));
}

#[tokio::test]
async fn an_order_that_was_overheard_does_not_cordon_again() {
    let pod = Pod::new(Some(UID));
    let overheard = serde_json::to_vec(&pod.key.sign(cordon())).unwrap();
    assert_eq!(pod.post(Verb::Cordon, &overheard).await, 200);
    assert_eq!(pod.post(Verb::Cordon, &overheard).await, 409);
    assert_eq!(pod.order(Order::new(Verb::Uncordon, UID, Timestamp::now())).await, 200);
    assert_eq!(pod.post(Verb::Cordon, &overheard).await, 409);
    assert!(!pod.cordon.is_on() && pod.metrics.render().contains("outcome=\"replayed\",verb=\"cordon\"} 2"));
}

#[tokio::test]
async fn a_new_key_counts_without_a_restart() {
    let mut pod = Pod::new(Some(UID));
    pod.key = OrderKey::from_seed(&[9; SEED_LENGTH]).unwrap();
    assert_eq!(pod.order(cordon()).await, 401, "the pod does not know it yet");
    pod.obeys(&pod.key);
    assert_eq!(pod.order(cordon()).await, 200);
    std::fs::remove_file(pod.folder.path().join("limits.json")).unwrap();
    assert_eq!(pod.order(cordon()).await, 401, "without a file nobody's orders count");
    assert!(pod.counted("cordon", "no_key"));
}

#[tokio::test]
async fn a_pod_that_does_not_know_itself_takes_no_orders_and_says_so() {
    let pod = Pod::new(None);
    assert_eq!(pod.order(cordon()).await, 503);
    assert!(!pod.cordon.is_on() && !pod.metrics.render().contains("cordoned"));
}
