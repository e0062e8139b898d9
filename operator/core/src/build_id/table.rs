//! The fields of `v1.PodTemplateSpec` in the order of the Go structs, with what `encoding/json` does to each.
//!
//! `pod_template_fields.txt` holds one type a line: its name, then `json name:kind` for each field. A kind reads as in
//! Go: `*` a pointer, `[]` a list, `map[]` a map with string keys, then a scalar or the name of a type. A trailing `!`
//! marks a field without `omitempty`, which is printed even when it is empty. Embedded structs are already inlined.
//! Source: the types of k8s.io/api and k8s.io/apimachinery v0.36.3. A field of a later version is unknown here, so it
//! is dropped and can't change a Build ID that is already in use.

use std::collections::HashMap;
use std::sync::LazyLock;

const SOURCE: &str = include_str!("pod_template_fields.txt");
const ROOT: &str = "PodTemplateSpec";

/// One field of a Go struct.
#[derive(Debug)]
pub(super) struct Field {
    pub name: &'static str,
    pub shape: Shape,
    pub item: Item,
    /// The field has no `omitempty`.
    pub always: bool,
}

/// How a field holds its items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Plain,
    Pointer,
    List,
    Map,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    String,
    Bool,
    Int32,
    Int64,
    Quantity,
    IntOrString,
    Time,
    /// JSON that is passed through.
    Raw,
    /// Another type, by its line in the source.
    Struct(usize),
}

/// All types that a pod template reaches.
pub(super) struct Table {
    types: Vec<Vec<Field>>,
    root: usize,
}

pub(super) static TABLE: LazyLock<Table> = LazyLock::new(|| Table::parse(SOURCE));

impl Table {
    fn parse(source: &'static str) -> Self {
        let lines: Vec<_> = source.lines().map(|line| line.split_once(' ').unwrap_or((line, ""))).collect();
        let index: HashMap<_, _> = lines.iter().enumerate().map(|(i, (name, _))| (*name, i)).collect();
        let types = lines
            .iter()
            .map(|(_, fields)| fields.split_whitespace().filter_map(|field| parse_field(field, &index)).collect())
            .collect();
        Table { types, root: index.get(ROOT).copied().unwrap_or(usize::MAX) }
    }

    /// The fields of a type in Go's order.
    pub fn fields(&self, item: usize) -> &[Field] {
        self.types.get(item).map_or(&[], Vec::as_slice)
    }

    /// `PodTemplateSpec`.
    pub fn root(&self) -> usize {
        self.root
    }
}

fn parse_field(text: &'static str, index: &HashMap<&str, usize>) -> Option<Field> {
    let (name, kind) = text.split_once(':')?;
    let (kind, always) = kind.strip_suffix('!').map_or((kind, false), |kind| (kind, true));
    let shapes = [("*", Shape::Pointer), ("[]", Shape::List), ("map[]", Shape::Map)];
    let (item, shape) = shapes
        .iter()
        .find_map(|(prefix, shape)| Some((kind.strip_prefix(prefix)?, *shape)))
        .unwrap_or((kind, Shape::Plain));
    let item = match item {
        "string" => Item::String,
        "bool" => Item::Bool,
        "int32" => Item::Int32,
        "int64" => Item::Int64,
        "quantity" => Item::Quantity,
        "intorstring" => Item::IntOrString,
        "time" => Item::Time,
        "raw" => Item::Raw,
        name => Item::Struct(*index.get(name)?),
    };
    Some(Field { name, shape, item, always })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_the_source_is_understood() {
        for (line, fields) in SOURCE.lines().zip(&TABLE.types) {
            assert_eq!(line.split_whitespace().count() - 1, fields.len(), "{line}");
        }
        let template: Vec<_> = TABLE.fields(TABLE.root()).iter().map(|field| field.name).collect();
        assert_eq!(template, ["metadata", "spec"]);
    }

    #[test]
    fn a_container_has_the_order_of_the_go_struct() {
        let template = TABLE.fields(TABLE.root());
        let Item::Struct(spec) = template[1].item else { panic!("{:?}", template[1]) };
        let names: Vec<_> = TABLE.fields(spec).iter().map(|field| field.name).take(4).collect();
        assert_eq!(names, ["volumes", "initContainers", "containers", "ephemeralContainers"]);
    }
}
