//! Image archives have the layout of OCI, hold what a program needs, and depend on nothing but the files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use harness::images::{ImageSpec, build};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

type Archive = BTreeMap<String, (tar::Header, Vec<u8>)>;

fn read(reader: impl std::io::Read) -> Archive {
    let mut tar = tar::Archive::new(reader);
    let entries = tar.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (name, (entry.header().clone(), content))
    });
    entries.collect()
}

fn blob(archive: &Archive, descriptor: &Value) -> Vec<u8> {
    let hash = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let content = &archive[&format!("blobs/sha256/{hash}")].1;
    let actual: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(actual, hash);
    assert_eq!(content.len() as u64, descriptor["size"].as_u64().unwrap());
    content.clone()
}

fn json(archive: &Archive, descriptor: &Value) -> Value {
    serde_json::from_slice(&blob(archive, descriptor)).unwrap()
}

fn sample() -> ImageSpec {
    ImageSpec::new("team/sample:2", ["/bin/worker", "run"])
        .program(Path::new("/bin/true"), "/bin/worker")
        .text("/etc/worker/config.yaml", "a: 1\n")
        .env("MODE", "test")
}

#[test]
fn an_archive_names_the_image_and_its_digests_hold() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.tar");
    build(&sample(), &path).unwrap();
    let archive = read(File::open(&path).unwrap());
    assert_eq!(archive["oci-layout"].1, br#"{"imageLayoutVersion":"1.0.0"}"#);

    let index: Value = serde_json::from_slice(&archive["index.json"].1).unwrap();
    let listed = &index["manifests"][0];
    assert_eq!(listed["annotations"]["io.containerd.image.name"], "docker.io/team/sample:2");
    let manifest = json(&archive, listed);
    let config = json(&archive, &manifest["config"]);
    assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/bin/worker", "run"]));
    assert_eq!(config["config"]["User"], "65532");
    assert!(config["config"]["Env"].as_array().unwrap().contains(&"MODE=test".into()));
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
    assert_eq!(
        config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"],
        "an uncompressed layer is its own diff"
    );
    blob(&archive, &manifest["layers"][0]);
}

#[test]
fn the_layer_holds_program_libraries_loader_users_and_certificates() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.tar");
    build(&sample(), &path).unwrap();
    let archive = read(File::open(&path).unwrap());
    let index: Value = serde_json::from_slice(&archive["index.json"].1).unwrap();
    let manifest = json(&archive, &index["manifests"][0]);
    let layer = read(&blob(&archive, &manifest["layers"][0])[..]);

    assert_eq!(layer["bin/worker"].0.mode().unwrap(), 0o755);
    assert!(layer.keys().any(|name| name.ends_with("/libc.so.6")), "{:?}", layer.keys());
    assert!(layer.keys().any(|name| name.contains("/ld-linux")), "{:?}", layer.keys());
    assert!(layer.contains_key("etc/ssl/certs/ca-certificates.crt"));
    assert!(String::from_utf8_lossy(&layer["etc/passwd"].1).contains("nonroot:x:65532:65532:"));
    assert_eq!(layer["etc/worker/config.yaml"].1, b"a: 1\n");
    assert_eq!(layer["tmp"].0.mode().unwrap(), 0o1777);
    assert!(layer.values().all(|(header, _)| header.uid().unwrap() == 0 && header.mtime().unwrap() == 0));
}

#[test]
fn the_same_files_give_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let [first, second] = ["first.tar", "second.tar"].map(|name| directory.path().join(name));
    build(&sample(), &first).unwrap();
    build(&sample(), &second).unwrap();
    assert!(std::fs::read(first).unwrap() == std::fs::read(second).unwrap());
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let image = ImageSpec::new("sample", ["/x"]).program(Path::new("/no/such/program"), "/x");
    let error = format!("{:#}", build(&image, &directory.path().join("image.tar")).unwrap_err());
    assert!(error.contains("/no/such/program") && error.contains("docker.io/library/sample:latest"), "{error}");
}
