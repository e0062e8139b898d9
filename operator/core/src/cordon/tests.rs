use super::*;

const POD: &str = "3f0c-a";

fn key(byte: u8) -> OrderKey {
    OrderKey::from_seed(&[byte; SEED_LENGTH]).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

/// What pod [`POD`] says to a cordon order at second `now`, if it obeys the first key.
fn says(signed: &SignedOrder, now: i64) -> Result<Duration, Refusal> {
    let keys = [key(1).public()];
    Receiver { pod_uid: POD, keys: &keys, last: None, now: at(now) }.check(Verb::Cordon, signed)
}

fn order() -> Order {
    Order::new(Verb::Cordon, POD, at(0))
}

#[test]
fn the_canonical_text_and_its_signature_never_change() {
    let signed = key(1).sign(order());
    insta::assert_snapshot!(format!("{}{}\n{}", signed.order.text(), key(1).public(), signed.signature));
}

#[test]
fn an_order_reads_back_as_it_was_written() {
    let signed = key(1).sign(order());
    let json = serde_json::to_string(&signed).unwrap();
    assert!(json.starts_with(r#"{"verb":"cordon","podUid":"3f0c-a","issuedAt":"2023-11-14T22:13:20Z""#), "{json}");
    assert_eq!(serde_json::from_str::<SignedOrder>(&json).unwrap(), signed);
}

#[test]
fn a_signed_order_holds_until_it_expires() {
    assert_eq!(says(&key(1).sign(order()), 0), Ok(LONGEST_LIFETIME));
    assert_eq!(says(&key(1).sign(order()), 20), Ok(Duration::from_secs(40)));
}

#[test]
fn a_key_that_the_pod_does_not_know_orders_nothing() {
    assert_eq!(says(&key(2).sign(order()), 0), Err(Refusal::NotSigned));
    let nobody = Receiver { pod_uid: POD, keys: &[], last: None, now: at(0) };
    assert_eq!(nobody.check(Verb::Cordon, &key(1).sign(order())), Err(Refusal::NoKey));
    // While keys change, orders of both count.
    let keys = [key(1).public(), key(2).public()];
    let both = Receiver { keys: &keys, ..nobody };
    assert!(both.check(Verb::Cordon, &key(2).sign(order())).is_ok());
}

#[test]
fn whatever_is_changed_after_signing_breaks_the_signature() {
    let signed = key(1).sign(order());
    let changes: [fn(&mut SignedOrder); 4] = [
        |signed| signed.order.issued_at = at(1),
        |signed| signed.order.expires_at = at(30),
        |signed| signed.signature.replace_range(0..1, if signed.signature.starts_with('0') { "1" } else { "0" }),
        |signed| signed.signature.truncate(126),
    ];
    for change in changes {
        let mut changed = signed.clone();
        change(&mut changed);
        assert_eq!(says(&changed, 0), Err(Refusal::NotSigned), "{changed:?}");
    }
    assert!(says(&signed, 0).is_ok());
}

#[test]
fn an_order_for_another_pod_or_another_path_is_refused() {
    let foreign = key(1).sign(Order::new(Verb::Cordon, "other", at(0)));
    assert_eq!(says(&foreign, 0), Err(Refusal::Foreign("other".into())));
    let other = key(1).sign(Order::new(Verb::Uncordon, POD, at(0)));
    assert_eq!(says(&other, 0), Err(Refusal::OtherVerb(Verb::Uncordon)));
}

#[test]
fn clocks_may_be_half_a_minute_apart() {
    let signed = key(1).sign(order());
    for (now, holds) in [(-31, None), (-30, Some(60)), (30, Some(30)), (31, None), (60, None)] {
        let said = says(&signed, now);
        assert_eq!(said.clone().ok(), holds.map(Duration::from_secs), "at {now}: {said:?}");
        assert_eq!(matches!(said, Err(Refusal::OutOfTime { .. })), holds.is_none(), "at {now}: {said:?}");
    }
    // At the limit, the next renewal still comes in time.
    assert!(LONGEST_LIFETIME - CLOCK_SKEW > RENEWAL);
}

#[test]
fn an_expired_order_is_refused_however_young_it_is() {
    let short = key(1).sign(Order { expires_at: at(2), ..order() });
    assert_eq!(says(&short, 1), Ok(Duration::from_secs(1)));
    assert!(matches!(says(&short, 2), Err(Refusal::OutOfTime { .. })));
}

#[test]
fn no_order_holds_longer_than_a_minute_or_not_at_all() {
    for (expires, accepted) in [(-1, false), (0, false), (60, true), (61, false)] {
        let said = says(&key(1).sign(Order { expires_at: at(expires), ..order() }), 0);
        assert_eq!(said.is_ok(), accepted, "{expires}: {said:?}");
        assert!(accepted || said == Err(Refusal::Lifetime), "{expires}: {said:?}");
    }
}

#[test]
fn an_order_serves_once_and_never_after_a_later_one() {
    let keys = [key(1).public()];
    let signed = key(1).sign(order());
    for (last, replayed) in [(None, false), (Some(at(-1)), false), (Some(at(0)), true), (Some(at(1)), true)] {
        let said = Receiver { pod_uid: POD, keys: &keys, last, now: at(2) }.check(Verb::Cordon, &signed);
        assert_eq!(said == Err(Refusal::Replayed(at(0))), replayed, "{last:?}: {said:?}");
        assert_eq!(said.is_ok(), !replayed);
    }
}

#[test]
fn a_seed_has_its_length() {
    assert!(OrderKey::from_seed(&[0; 31]).is_none() && OrderKey::from_seed(&[0; 33]).is_none());
}
