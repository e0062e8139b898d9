//! Writes down, from the descriptors of Temporal's API, which fields of which messages lead to payloads.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message as _;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorSet};

const PAYLOAD: &str = ".temporal.api.common.v1.Payload";
const ANY: &str = ".google.protobuf.Any";
const SERVICE: &str = "temporal.api.workflowservice.v1.WorkflowService";
/// Their values are indexed by the server: it has to read them.
const SEARCH_ATTRIBUTES: &str = ".temporal.api.common.v1.SearchAttributes";
/// What the details of a status may hold.
const STATUS: &str = ".google.rpc.Status";

type Messages = BTreeMap<String, DescriptorProto>;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=DEP_TEMPORALIO_PROTOS_DESCRIPTOR_PATH");
    let path = env::var("DEP_TEMPORALIO_PROTOS_DESCRIPTOR_PATH")?;
    println!("cargo:rustc-env=TEMPORAL_DESCRIPTORS={path}");
    let set = FileDescriptorSet::decode(fs::read(path)?.as_slice())?;
    let mut messages = Messages::new();
    for file in &set.file {
        let scope = format!(".{}", file.package());
        file.message_type.iter().for_each(|message| collect(&scope, message, &mut messages));
    }
    let leading = leading(&messages);
    let table = table(&set, &messages, &leading)?;
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("table.rs"), table)?;
    Ok(())
}

fn collect(scope: &str, message: &DescriptorProto, into: &mut Messages) {
    let name = format!("{scope}.{}", message.name());
    message.nested_type.iter().for_each(|nested| collect(&name, nested, into));
    into.insert(name, message.clone());
}

/// Names of the messages that hold a payload, at whatever depth. An `Any` may.
fn leading(messages: &Messages) -> BTreeSet<String> {
    let mut leading = BTreeSet::from([PAYLOAD.to_owned(), ANY.to_owned()]);
    loop {
        let leads = |message: &DescriptorProto| message.field.iter().any(|field| leading.contains(field.type_name()));
        let more: Vec<_> = messages
            .iter()
            .filter(|(name, message)| !leading.contains(*name) && *name != SEARCH_ATTRIBUTES && leads(message))
            .map(|(name, _)| name.clone())
            .collect();
        if more.is_empty() {
            return leading;
        }
        leading.extend(more);
    }
}

fn table(
    set: &FileDescriptorSet,
    messages: &Messages,
    leading: &BTreeSet<String>,
) -> Result<String, Box<dyn std::error::Error>> {
    let listed: Vec<_> = leading.iter().filter(|name| ![PAYLOAD, ANY].contains(&name.as_str())).collect();
    let index: BTreeMap<&str, usize> = listed.iter().enumerate().map(|(index, name)| (name.as_str(), index)).collect();
    let mut text = format!("pub static MESSAGES: [Message; {}] = [\n", listed.len());
    for name in &listed {
        let mut fields: Vec<_> = messages[*name].field.iter().collect();
        fields.sort_by_key(|field| field.number());
        let mut listed_fields = String::new();
        for field in fields.iter().filter(|field| field.r#type() == Type::Message) {
            let kind = match (field.type_name(), index.get(field.type_name())) {
                (PAYLOAD, _) => "Leads::Payload".to_owned(),
                (ANY, _) => "Leads::Any".to_owned(),
                (_, Some(index)) => format!("Leads::Message({index})"),
                (_, None) => continue,
            };
            write!(listed_fields, "({}, {kind}), ", field.number())?;
        }
        writeln!(text, "    Message {{ name: {:?}, fields: &[{listed_fields}] }},", &name[1..])?;
    }
    writeln!(text, "];\n\npub static METHODS: &[Method] = &[")?;
    let services = set.file.iter().flat_map(|file| file.service.iter().map(move |service| (file.package(), service)));
    for (package, service) in services.filter(|(package, service)| format!("{package}.{}", service.name()) == SERVICE) {
        let mut methods: Vec<_> = service.method.iter().collect();
        methods.sort_by_key(|method| method.name());
        for method in methods {
            let of = |name: &str| index.get(name).map_or("None".to_owned(), |index| format!("Some({index})"));
            let path = format!("/{package}.{}/{}", service.name(), method.name());
            let (request, response) = (of(method.input_type()), of(method.output_type()));
            writeln!(text, "    Method {{ path: {path:?}, request: {request}, response: {response} }},")?;
        }
    }
    writeln!(text, "];\n\n/// `google.rpc.Status`.\npub static STATUS: usize = {};", index[STATUS])?;
    Ok(text)
}
