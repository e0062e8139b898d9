//! The checked-in files that are printed from the types.

use std::path::{Path, PathBuf};

use operator_core::api::{crd_yaml_files, reference_markdown};

const REMEDY: &str = "differs from the types; run `make generate`";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_crds_are_printed_from_the_types() {
    let files = crd_yaml_files();
    for (name, yaml) in &files {
        assert!(read(&format!("crds/{name}")) == *yaml, "crds/{name} {REMEDY}");
    }
    let there = std::fs::read_dir(root().join("crds")).unwrap().map(|entry| entry.unwrap().file_name());
    for name in there.filter(|name| name.to_string_lossy().ends_with(".yaml")) {
        assert!(
            files.iter().any(|(own, _)| name.to_string_lossy() == own.as_str()),
            "crds/{} has no type",
            name.display()
        );
    }
}

#[test]
fn the_reference_is_printed_from_the_types() {
    assert!(read("docs/reference.md") == reference_markdown(), "docs/reference.md {REMEDY}");
}
