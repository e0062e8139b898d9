use super::*;

fn gate(slots: u32, cordon: Cordon) -> Gate {
    Gate::new(Room::new(slots, None), cordon)
}

#[tokio::test]
async fn a_closed_gate_lets_nobody_in_and_waits_for_those_inside() {
    let gate = gate(2, Cordon::default());
    let (inside, poll) = (gate.enter(false).await, gate.try_enter(false).expect("room for two"));
    let waits = tokio::spawn({
        let gate = gate.clone();
        async move { gate.enter(false).await }
    });
    let closed = tokio::spawn({
        let gate = gate.clone();
        async move { gate.close(SETTLE_LIMIT).await }
    });
    while !gate.closed.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
    drop(poll);
    assert!(gate.try_enter(false).is_none());
    tokio::task::yield_now().await;
    assert!(!closed.is_finished(), "somebody is inside");
    drop(inside);
    closed.await.expect("no panic");
    assert!(!waits.is_finished() && gate.try_enter(false).is_none());
    waits.abort();
}

#[tokio::test]
async fn a_gate_waits_for_its_limit_at_most() {
    let gate = gate(1, Cordon::default());
    let _inside = gate.enter(false).await;
    gate.close(Duration::from_millis(50)).await;
    assert!(gate.try_enter(false).is_none());
}

#[tokio::test]
async fn a_cordoned_gate_holds_all_but_sticky_polls_until_it_is_lifted() {
    let cordon = Cordon::default();
    let gate = gate(3, cordon.clone());
    let inside = gate.enter(false).await;
    let until = crate::cordon::Until { instant: tokio::time::Instant::now(), wall: jiff::Timestamp::UNIX_EPOCH };
    cordon.set(Some(until));
    assert!(gate.try_enter(false).is_none());
    let waits = tokio::spawn({
        let gate = gate.clone();
        async move { gate.enter(false).await }
    });
    tokio::task::yield_now().await;
    assert!(!waits.is_finished());
    drop((gate.enter(true).await, gate.try_enter(true).expect("sticky polls go on")));
    assert_eq!((cordon.status().open_polls, gate.room.free()), (1, 2), "nobody else holds a slot");
    cordon.set(None);
    let entered = waits.await.expect("no panic");
    assert_eq!(cordon.status().open_polls, 2);
    drop((inside, entered));
    assert_eq!((cordon.status().open_polls, gate.room.free()), (0, 3));
}

#[tokio::test]
async fn a_lifted_cordon_does_not_open_a_gate_that_was_closed() {
    let gate = gate(1, Cordon::default());
    gate.close(SETTLE_LIMIT).await;
    gate.cordon.set(None);
    assert!(gate.try_enter(false).is_none());
    let waits = tokio::time::timeout(Duration::from_millis(50), gate.enter(false)).await;
    assert!(waits.is_err());
}

#[test]
fn polls_end_by_themselves_unless_the_drain_timeout_is_short() {
    assert!(settle_limit(Duration::from_secs(30)) > POLL_TIMEOUT);
    assert_eq!(settle_limit(Duration::from_secs(4)), Duration::from_secs(2));
}
