use super::*;
use crate::fields::Field;

/// Puts a word before each payload, and before the message of each failure.
struct Marks(Vec<Place>);

impl Visitor for Marks {
    type Error = std::convert::Infallible;

    fn payload(&mut self, payload: &[u8], place: Place) -> Result<Option<Vec<u8>>, Self::Error> {
        self.0.push(place);
        Ok((!payload.starts_with(b"!")).then(|| [b"!", payload].concat()))
    }

    fn failure(&mut self, text: &FailureText<'_>) -> Result<Option<FailureChange>, Self::Error> {
        let message = [b"!", text.message].concat();
        Ok((!text.message.is_empty()).then_some(FailureChange { message, ..FailureChange::default() }))
    }
}

fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut field = Vec::new();
    put_bytes(number, bytes, &mut field);
    field
}

fn marked(kind: &str, bytes: &[u8]) -> Option<Bytes> {
    rewrite(bytes, message(kind).unwrap(), &mut Marks(Vec::new())).unwrap()
}

const PAYLOADS: &str = "temporal.api.common.v1.Payloads";

#[test]
fn every_payload_is_changed_and_all_else_stays_as_it_is() {
    let unknown = field(99, b"unknown");
    let before = [&unknown[..], &field(1, b"a"), &[0x50, 1], &field(1, b"!b"), &field(1, b"c")].concat();
    let after = [&unknown[..], &field(1, b"!a"), &[0x50, 1], &field(1, b"!b"), &field(1, b"!c")].concat();
    assert_eq!(marked(PAYLOADS, &before).as_deref(), Some(&*after));
    assert_eq!(marked(PAYLOADS, &field(1, b"!b")), None);
}

#[test]
fn lengths_grow_all_the_way_up() {
    let long = vec![b'x'; 126];
    let request = |payload: &[u8]| [field(1, b"token"), field(2, &field(1, payload)), field(3, b"identity")].concat();
    let kind = "temporal.api.workflowservice.v1.RespondActivityTaskCompletedRequest";
    let after = marked(kind, &request(&long)).unwrap();
    assert_eq!(after, request(&[b"!", &long[..]].concat()));
}

#[test]
fn an_any_is_told_by_its_type_and_one_that_is_unknown_stays() {
    let any = |name: &str, payload: &[u8]| {
        let input = field(3, &field(1, payload));
        let request = field(2, &input);
        [field(1, format!("type.googleapis.com/{name}").as_bytes()), field(2, &request)].concat()
    };
    let envelope =
        |name: &str, payload: &[u8]| [field(1, b"id"), field(4, b"x"), field(5, &any(name, payload))].concat();
    let kind = "temporal.api.protocol.v1.Message";
    let request = "temporal.api.update.v1.Request";
    assert_eq!(marked(kind, &envelope(request, b"p")).unwrap(), envelope(request, b"!p"));
    assert_eq!(marked(kind, &envelope("temporal.api.update.v9.Request", b"p")), None);
}

#[test]
fn the_texts_of_a_failure_and_its_causes_are_changed() {
    let cause = |message: &[u8]| field(1, message);
    let failure = |outer: &[u8], inner: &[u8]| [field(2, b"GoSDK"), field(4, &cause(inner)), field(1, outer)].concat();
    let kind = failure::NAME;
    assert_eq!(marked(kind, &failure(b"out", b"in")).unwrap(), failure(b"!out", b"!in"));
    let both = [field(1, b"m"), field(3, b"at line 1"), field(2, b"s")].concat();
    assert_eq!(marked(kind, &both).unwrap(), [field(2, b"s"), field(1, b"!m")].concat());
}

#[test]
fn places_are_told_apart() {
    let entry = [field(1, b"key"), field(2, b"p")].concat();
    let mut marks = Marks(Vec::new());
    let header = message("temporal.api.common.v1.Header").unwrap();
    rewrite(&field(1, &entry), header, &mut marks).unwrap();
    let count = message("temporal.api.workflowservice.v1.CountWorkflowExecutionsResponse").unwrap();
    rewrite(&field(2, &field(1, b"p")), count, &mut marks).unwrap();
    rewrite(&field(1, b"p"), message(PAYLOADS).unwrap(), &mut marks).unwrap();
    assert_eq!(marks.0, [Place::Header, Place::Computed, Place::Value]);
}

#[test]
fn a_message_without_end_or_bottom_is_refused() {
    let kind = message(failure::NAME).unwrap();
    let refused = |bytes: &[u8]| rewrite(bytes, kind, &mut Marks(Vec::new())).unwrap_err();
    assert_eq!(refused(&[0x22, 9]), RewriteError::Malformed(Malformed::Truncated));
    let deep = (0..200).fold(Vec::new(), |inner, _| field(4, &inner));
    assert_eq!(refused(&deep), RewriteError::Malformed(Malformed::Deep));
}

proptest::proptest! {
    #[test]
    fn bytes_of_any_kind_are_refused_or_stay_readable(bytes in proptest::collection::vec(0_u8.., 0..200)) {
        for kind in &MESSAGES {
            if let Ok(Some(new)) = rewrite(&bytes, kind, &mut Marks(Vec::new())) {
                let fields: Result<Vec<Field<'_>>, _> = Fields::of(&new).collect();
                proptest::prop_assert!(fields.is_ok());
            }
        }
    }
}
