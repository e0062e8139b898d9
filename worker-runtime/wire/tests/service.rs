//! Every method of the WorkflowService, with its messages filled in every field as the descriptors have them.

use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage as _, Value,
};
use temporal_wire::{FailureChange, FailureText, METHODS, Place, Visitor, message, rewrite};

const PAYLOAD: &str = "temporal.api.common.v1.Payload";
const FAILURE: &str = "temporal.api.failure.v1.Failure";
const SEARCH_ATTRIBUTES: &str = "temporal.api.common.v1.SearchAttributes";
/// What an `Any` holds here.
const IN_ANY: &str = "temporal.api.update.v1.Request";
/// As many members as the largest oneof has: each is once the one that is set.
const VARIANTS: usize = 70;

fn pool() -> DescriptorPool {
    DescriptorPool::decode(&include_bytes!(env!("TEMPORAL_DESCRIPTORS"))[..]).unwrap()
}

/// Fills messages, with another member of each oneof in each variant.
struct Filler {
    variant: usize,
    next: u64,
    within: Vec<String>,
}

impl Filler {
    fn message(&mut self, kind: &MessageDescriptor) -> DynamicMessage {
        let mut message = DynamicMessage::new(kind.clone());
        if kind.full_name() == "google.protobuf.Any" {
            let held = kind.parent_pool().get_message_by_name(IN_ANY).unwrap();
            let held = self.message(&held).encode_to_vec();
            message.set_field_by_number(1, Value::String(format!("type.googleapis.com/{IN_ANY}")));
            message.set_field_by_number(2, Value::Bytes(held.into()));
            return message;
        }
        // A failure within a failure is enough; so it is with all that hold themselves.
        if self.within.iter().filter(|name| *name == kind.full_name()).count() > 1 {
            return message;
        }
        self.within.push(kind.full_name().to_owned());
        for field in kind.fields() {
            let chosen = field.containing_oneof().filter(|oneof| oneof.fields().count() > 1).is_none_or(|oneof| {
                let count = oneof.fields().count();
                oneof.fields().nth(self.variant % count).as_ref() == Some(&field)
            });
            if chosen {
                let value = self.field(&field);
                message.set_field(&field, value);
            }
        }
        self.within.pop();
        message
    }

    fn field(&mut self, field: &FieldDescriptor) -> Value {
        let one = |filler: &mut Self, field: &FieldDescriptor| filler.value(&field.kind());
        if field.is_map() {
            let Kind::Message(entry) = field.kind() else { unreachable!("entries of maps are messages") };
            let value = one(self, &entry.map_entry_value_field());
            let key = match entry.map_entry_key_field().kind() {
                Kind::String => MapKey::String("key".into()),
                Kind::Int64 => MapKey::I64(3),
                _ => MapKey::I32(3),
            };
            return Value::Map([(key, value)].into());
        }
        if field.is_list() { Value::List(vec![one(self, field), one(self, field)]) } else { one(self, field) }
    }

    fn value(&mut self, kind: &Kind) -> Value {
        self.next += 1;
        match kind {
            Kind::Bool => Value::Bool(true),
            Kind::Double => Value::F64(1.5),
            Kind::Float => Value::F32(1.5),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(7),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(7),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(7),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(7),
            Kind::String => Value::String(format!("text {}", self.next)),
            Kind::Bytes => Value::Bytes(format!("bytes {}", self.next).into()),
            Kind::Enum(kind) => Value::EnumNumber(kind.values().last().unwrap().number()),
            Kind::Message(kind) => Value::Message(self.message(kind)),
        }
    }
}

/// What is to become of a message, by another way: on the decoded message, by the names of its parts.
fn expected(mut message: DynamicMessage, found: &mut usize) -> DynamicMessage {
    let name = message.descriptor().full_name().to_owned();
    match name.as_str() {
        SEARCH_ATTRIBUTES => return message,
        PAYLOAD => {
            *found += 1;
            let data = [b"sealed ", &message.encode_to_vec()[..]].concat();
            let mut sealed = DynamicMessage::new(message.descriptor());
            sealed.set_field_by_number(2, Value::Bytes(data.into()));
            return sealed;
        }
        "google.protobuf.Any" => {
            let held = message.descriptor().parent_pool().get_message_by_name(IN_ANY).unwrap();
            let value = message.get_field_by_number(2).unwrap().as_bytes().unwrap().clone();
            let held = expected(DynamicMessage::decode(held, value).unwrap(), found);
            message.set_field_by_number(2, Value::Bytes(held.encode_to_vec().into()));
            return message;
        }
        FAILURE if message.has_field_by_number(1) => {
            message.set_field_by_number(1, Value::String("hidden".into()));
            message.clear_field_by_number(3);
            message.clear_field_by_number(20);
        }
        _ => {}
    }
    let fields: Vec<_> = message.fields().map(|(field, value)| (field, value.clone())).collect();
    for (field, value) in fields {
        message.set_field(&field, expected_value(value, found));
    }
    message
}

fn expected_value(value: Value, found: &mut usize) -> Value {
    match value {
        Value::Message(message) => Value::Message(expected(message, found)),
        Value::List(values) => Value::List(values.into_iter().map(|value| expected_value(value, found)).collect()),
        Value::Map(values) => {
            Value::Map(values.into_iter().map(|(key, value)| (key, expected_value(value, found))).collect())
        }
        other => other,
    }
}

struct Seals(usize);

impl Visitor for Seals {
    type Error = std::convert::Infallible;

    fn payload(&mut self, payload: &[u8], _: Place) -> Result<Option<Vec<u8>>, Self::Error> {
        self.0 += 1;
        let mut sealed = vec![0x12];
        let data = [b"sealed ", payload].concat();
        let mut length = data.len();
        while length >= 0x80 {
            sealed.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        sealed.push(u8::try_from(length).unwrap());
        Ok(Some([sealed, data].concat()))
    }

    fn failure(&mut self, text: &FailureText<'_>) -> Result<Option<FailureChange>, Self::Error> {
        let change = FailureChange { message: b"hidden".to_vec(), ..FailureChange::default() };
        Ok((!text.message.is_empty()).then_some(change))
    }
}

struct Leaves;

impl Visitor for Leaves {
    type Error = std::convert::Infallible;

    fn payload(&mut self, _: &[u8], _: Place) -> Result<Option<Vec<u8>>, Self::Error> {
        Ok(None)
    }

    fn failure(&mut self, _: &FailureText<'_>) -> Result<Option<FailureChange>, Self::Error> {
        Ok(None)
    }
}

/// Payloads that a message held, in all its variants.
fn check(kind: &MessageDescriptor, listed: Option<usize>) -> usize {
    let mut all = 0;
    for variant in 0..VARIANTS {
        let filled = Filler { variant, next: 0, within: Vec::new() }.message(kind);
        let bytes = filled.encode_to_vec();
        let mut found = 0;
        let wanted = expected(filled, &mut found);
        all += found;
        let Some(index) = listed else { continue };
        let message = &temporal_wire::MESSAGES[index];
        assert_eq!(message.name, kind.full_name());
        assert_eq!(rewrite(&bytes, message, &mut Leaves).unwrap(), None, "{} is left as it is", kind.full_name());
        let mut seals = Seals(0);
        let sealed = rewrite(&bytes, message, &mut seals).unwrap().unwrap_or(bytes.into());
        let sealed = DynamicMessage::decode(kind.clone(), sealed).unwrap();
        assert_eq!(sealed, wanted, "{} in variant {variant}", kind.full_name());
        assert_eq!(seals.0, found, "{} in variant {variant}", kind.full_name());
    }
    all
}

#[test]
fn every_payload_of_every_method_is_found_and_nothing_else_is_touched() {
    let pool = pool();
    let service = pool.get_service_by_name("temporal.api.workflowservice.v1.WorkflowService").unwrap();
    assert_eq!(service.methods().count(), METHODS.len());
    let mut with_payloads = 0;
    for method in service.methods() {
        let path = format!("/{}/{}", service.full_name(), method.name());
        let known = temporal_wire::method(&path).unwrap();
        for (kind, listed) in [(method.input(), known.request), (method.output(), known.response)] {
            let found = check(&kind, listed);
            assert!(listed.is_some() || found == 0, "{} holds {found} payloads and is not listed", kind.full_name());
            with_payloads += usize::from(found > 0);
        }
    }
    assert!(with_payloads > 50, "{with_payloads} messages hold payloads");
}

#[test]
fn details_of_a_status_are_messages_with_payloads_too() {
    let status = &temporal_wire::MESSAGES[temporal_wire::STATUS];
    assert_eq!(status.name, "google.rpc.Status");
    assert!(message("temporal.api.errordetails.v1.QueryFailedFailure").is_some());
}
